"""Tables of metrics: the ground truth beside what several methods made of it."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..detect import FaceDetector
from ..faces import Progress
from ..metrics.distances import DescriptorDistance, FeatureDistance, IdentityDistance, psnr, ssim
from ..metrics.fid import FIDInception, frechet_distance
from ..metrics.landmarks import LandmarkDistance
from ..metrics.lpips import LPIPS, Trunk
from ..metrics.niqe import niqe
from ..metrics.pixels import check_pair
from ..metrics.tones import ToneDistance
from ..tensors import check_images

logger = logging.getLogger(__name__)

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(method's pictures, ground truth), both (N, 3, H, W), to (N,) values."""

Table: TypeAlias = dict[str, dict[str, Tensor]]
"""Method, then metric, to its (N,) values, one a picture; (1,) where it is one of the whole set."""

GROUND_TRUTH = "ground truth"


def available_metrics(
    *,
    truth: bool,
    face_api: Path | None = None,
    detector: FaceDetector | None = None,
    lpips: Trunk = "vgg",
    lpips_file: Path | None = None,
    mobilenet: Path | None = None,
) -> tuple[dict[str, Metric], list[str]]:
    """All metrics whose nets are at hand; those that are not are said, never passed over.

    Args:
        truth: whether there is a ground truth to compare with.
        face_api: weights of the face descriptor, see `weights.loading.load_descriptor`.
        detector: for the landmark distance.
        lpips: trunk of LPIPS.
        lpips_file: its weights, by default those in PyTorch's cache.
        mobilenet: weights of MobileNetV2, by default those of the installed package.

    Returns:
        The metrics by name, and a line for each that is left out, which the log has too.
    """
    metrics: dict[str, Metric] = {}
    left_out: list[str] = []

    def add(name: str, make: Callable[[], Metric]) -> None:
        try:
            metrics[name] = make()
        except FileNotFoundError as error:
            left_out.append(f"{name.rstrip(' ↑↓')} is left out: {error}")
            logger.warning("%s", left_out[-1])

    def needs_face_api(make: Callable[[Path], Metric]) -> Callable[[], Metric]:
        def make_with_file() -> Metric:
            if face_api is None:
                raise FileNotFoundError("the face descriptor is not given (--face-descriptor)")
            return make(face_api)

        return make_with_file

    if truth:
        metrics.update({"PSNR ↑": psnr, "SSIM ↑": ssim})
        add("LPIPS ↓", lambda: LPIPS(lpips, file=lpips_file))
    metrics["NIQE ↓"] = lambda images, _: niqe(images)
    if truth:
        add("MobileNetV2 distance ↓", lambda: FeatureDistance(mobilenet))
        add("descriptor distance ↓", needs_face_api(DescriptorDistance))
        add("Deg ↓", needs_face_api(IdentityDistance))
        if "Deg ↓" in metrics:
            degrees = metrics["Deg ↓"]
            metrics["IDD ↓"] = lambda a, b: torch.deg2rad(degrees(a, b))
        if detector is None:
            left_out.append("landmark distance, skin and eyes are left out: there is no detector")
        else:
            metrics["landmark distance ↓"] = LandmarkDistance(detector)
            metrics["skin ↓"] = ToneDistance(detector, "skin")
            metrics["eyes ↓"] = ToneDistance(detector, "eyes")
            metrics["eyes' pair ↓"] = ToneDistance(detector, "pair")
    return metrics, left_out


def add_fid(
    table: Table,
    methods: Mapping[str, Tensor],
    reference: Tensor,
    net: FIDInception,
    *,
    chunk: int = 8,
) -> None:
    """Put the column FID into a table: each method's pictures against a set of references.

    Args:
        table: from `evaluate`; it is changed.
        methods: name to (N, 3, H, W) float RGB in [0, 1], the rows of the table.
        reference: (M, 3, H, W), good photographs of faces.
        net: the features.
        chunk: pictures at a time.
    """

    def features(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([net(batch) for batch in images.split(chunk)])

    expected = features(reference)
    for name, images in methods.items():
        distance = frechet_distance(features(images), expected)
        table[name]["FID ↓"] = torch.tensor([distance], dtype=torch.float64)


def evaluate(
    truth: Tensor | None,
    methods: Mapping[str, Tensor],
    metrics: Mapping[str, Metric],
    *,
    chunk: int = 4,
    progress: Progress | None = None,
) -> Table:
    """Measure every method's pictures; the ground truth itself is the last row.

    Pictures are clipped to [0, 1] first, as saving them would.

    Args:
        truth: (N, 3, H, W) float RGB in [0, 1]; None for pictures without truth, whose metrics
            get the pictures themselves for it.
        methods: name to pictures of the same shape, in the order of the table.
        metrics: name to metric, in the order of the table.
        chunk: pictures measured at a time.
        progress: called after each chunk of each method.

    Raises:
        ValueError: a method's pictures differ in shape from the ground truth, or one is named as
            the ground truth's row.
    """
    if GROUND_TRUTH in methods:
        raise ValueError(f"a row {GROUND_TRUTH!r} is added by itself: give that method a name")
    rows = dict(methods) if truth is None else {**methods, GROUND_TRUTH: truth}
    for images in rows.values():
        check_images(images)
        if truth is not None:
            check_pair(images, truth)
    starts = range(0, next(iter(rows.values())).shape[0], chunk)
    table: Table = {}
    done = 0
    with torch.inference_mode():
        for name, images in rows.items():
            values: dict[str, list[Tensor]] = {metric: [] for metric in metrics}
            for start in starts:
                a = images[start : start + chunk].clamp(0, 1)
                b = a if truth is None else truth[start : start + chunk].clamp(0, 1)
                for metric, measure in metrics.items():
                    values[metric].append(measure(a, b).double().cpu())
                done += 1
                if progress is not None:
                    progress(done, len(starts) * len(rows))
            table[name] = {metric: torch.cat(parts) for metric, parts in values.items()}
    return table


def csv_text(table: Table, pictures: Sequence[str]) -> str:
    """A table with a line for each method and picture, and one for its means.

    Args:
        table: from `evaluate`.
        pictures: their names.
    """
    columns = list(next(iter(table.values())))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "picture", *(column.rstrip(" ↑↓") for column in columns)])
    for name, row in table.items():
        for number, picture in enumerate(pictures):
            one_each = [row[column] for column in columns]
            cells = ["" if len(all_) != len(pictures) else all_[number].item() for all_ in one_each]
            writer.writerow([name, picture, *cells])
        writer.writerow([name, "mean", *(row[column].nanmean().item() for column in columns)])
    return text.getvalue()


def markdown(table: Table) -> str:
    """The means of a table over its pictures, as Markdown; infinite or missing ones as a dash.

    Pictures of which a metric says nothing (nan) are not in its mean.
    """
    columns = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in table.items():
        cells = []
        for column in columns:
            mean = row[column].nanmean().item()
            digits = 2 if abs(mean) >= 1 else 4
            cells.append(f"{mean:.{digits}f}" if np.isfinite(mean) else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
