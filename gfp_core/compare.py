"""Comparing: the same faces through several restorers or settings, side by side, with timings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .color import apply_color
from .draw import sheet
from .faces import Faces, Progress
from .options import ColorMode, KeepMonochrome
from .restore import Restorer


@dataclass(frozen=True)
class Setting:
    """One column of a comparison."""

    name: str
    """What stands above it."""
    restorer: Restorer
    fidelity: float | None = None
    """See `Restorer.restore`."""
    seed: int | None = None
    """See `Restorer.restore`."""
    steps: int | None = None
    """See `Restorer.restore`."""
    color: ColorMode = "auto"
    """See `color.apply_color`."""
    color_strength: float = 1.0
    """See `color.apply_color`."""
    keep_monochrome: KeepMonochrome = "auto"
    """See `color.apply_color`."""


@dataclass(frozen=True)
class Column:
    """What one setting made of the faces."""

    name: str
    faces: Faces
    """With crops before and after, of the restorer's size."""
    seconds: float
    """For one face, the mean; of restoring alone, not of loading, finding or pasting."""


def compare(
    faces: Callable[[int], Faces],
    settings: Sequence[Setting],
    *,
    progress: Progress | None = None,
) -> list[Column]:
    """Restore the same faces in several ways.

    Args:
        faces: gives the faces aligned to crops of a size.
        settings: the ways.
        progress: called with (faces done, in all, over all settings); may raise to cancel.

    Raises:
        ValueError: there is no face, or no setting.
    """
    if not settings:
        raise ValueError("a comparison needs at least one restorer")
    columns: list[Column] = []
    for number, setting in enumerate(settings):
        aligned = faces(setting.restorer.size)
        if not len(aligned):
            raise ValueError("no face found: there is nothing to compare")

        def report(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * total + done, len(settings) * total)

        start = time.perf_counter()
        restored = setting.restorer.restore(
            aligned,
            fidelity=setting.fidelity,
            seed=setting.seed,
            steps=setting.steps,
            progress=report,
        )
        seconds = (time.perf_counter() - start) / len(aligned)
        colored = apply_color(
            restored,
            setting.color,
            strength=setting.color_strength,
            keep_monochrome=setting.keep_monochrome,
        )
        columns.append(Column(setting.name, colored, seconds))
    return columns


def comparison_sheet(columns: Sequence[Column], *, size: int = 320, rows: int = 12) -> Tensor:
    """Draw the comparison as a picture: a row a face, the input first, then a column a setting.

    Args:
        columns: from `compare`.
        size: side of each picture in pixels.
        rows: how many faces are shown at most.

    Returns:
        (3, H, W) float32 RGB in [0, 1].
    """
    largest = max(columns, key=lambda column: _pictures(column.faces.crops).shape[-1])
    pictures = {"input": _pictures(largest.faces.crops)}
    for column in columns:
        title = f"{column.name}, {column.seconds * 1000:.0f} ms"
        while title in pictures:  # the same model twice, in the same time
            title += " "
        pictures[title] = _pictures(column.faces.restored)
    return sheet(pictures, range(min(rows, len(largest.faces))), size)


def comparison_table(columns: Sequence[Column]) -> str:
    """Write the comparison's timings as text, a line a setting."""
    width = max(len(column.name) for column in columns)
    lines = []
    for column in columns:
        size = _pictures(column.faces.restored).shape[-1]
        ratio = column.seconds / columns[0].seconds
        milliseconds = f"{column.seconds * 1000:.0f} ms a face"
        lines.append(f"{column.name:{width}}  {size:4} px  {milliseconds:>16}  {ratio:.2f}x")
    return "\n".join(lines)


def _pictures(crops: Tensor | None) -> Tensor:
    assert crops is not None  # `compare` has aligned and restored them
    return crops
