"""What a node says it did: for the page, which says it in its language, and as English text."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions, parse_selection
from ..gfp_core.select import rank

_ENGLISH = {
    "restored": "{0} of {1} faces restored",
    "sharp": "{0} sharp enough already",
    "gentle": "{0} restored less, being sharp, tiny or doubtful",
    "noFace": "no face found",
    "framesWithout": "no face in {0} of {1} pictures",
    "noNumber": "which = {0}, but the most faces in a picture are {1}, numbered from 0",
}
"""By key; the page has these strings in all its languages, see web/js/strings.js."""
_LESS = 0.95
"""A face restored with less than this share of the strength is restored less."""


@dataclass(frozen=True)
class Statement:
    """One thing that is said."""

    key: str
    values: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        return _ENGLISH[self.key].format(*self.values)


def report(
    candidates: Faces, restored: Faces, strengths: Tensor | None, options: RestoreOptions
) -> list[Statement]:
    """Say what became of the faces of a batch of frames.

    Args:
        candidates: all that were detected.
        restored: those of them that were restored.
        strengths: (N,) of the restored ones, see `pipeline.Restoration`.
        options: that selected them.
    """
    count = len(candidates)
    if not count:
        return [Statement("noFace")]
    statements = [Statement("restored", (len(restored), count))]
    ranks = rank(candidates)
    numbers = parse_selection(options.selection.select)
    selected = sum(number in numbers for number in ranks)
    if selected > len(restored):
        statements.append(Statement("sharp", (selected - len(restored),)))
    if strengths is not None and options.strength:
        less = int((strengths < _LESS * options.strength).sum())
        if less:
            statements.append(Statement("gentle", (less,)))
    missing = [] if isinstance(numbers, range) else sorted(set(numbers) - set(ranks))
    if missing:
        text = ", ".join(map(str, missing))
        statements.append(Statement("noNumber", (text, max(ranks) + 1)))
    frames = len(candidates.frame_sizes)
    without = frames - len({face.frame for face in candidates.faces})
    if without:
        statements.append(Statement("framesWithout", (without, frames)))
    return statements


def as_text(statements: list[Statement]) -> str:
    """Join statements to an English sentence."""
    text = ", ".join(map(str, statements))
    return text[:1].upper() + text[1:] + "."


def for_page(statements: list[Statement]) -> list[dict[str, object]]:
    """Return what the page makes its own sentence of."""
    return [{"key": each.key, "values": list(each.values)} for each in statements]
