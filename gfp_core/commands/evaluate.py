"""``gfp evaluate``: the papers' tables."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import OK
from ..io.atomic import open_atomic, write_text
from .bar import bar_progress
from .running import Console, load, load_detector

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.testset import TestSet
    from ..restore import Restorer
    from ..weights.store import Weights

logger = logging.getLogger(__name__)

ROWS_A_SHEET = 6


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure models; writes results.md, results.csv and picture sheets; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or a network cannot be loaded.
    """
    from ..evaluation import report, testset
    from ..training.recipes import load_recipe

    device, weights, detector = load_detector(options)
    restorers = _restorers(options.model or ["lite"], device, weights)
    recipe = load(load_recipe, options.degradation, options.values)
    with bar_progress(console, "pictures") as progress:
        faces: TestSet = load(
            testset.load_faces,
            options.faces,
            detector,
            size=options.size,
            aligned=options.aligned,
            progress=progress,
        )
    methods: dict[str, Tensor] = (
        {"input": faces.faces}
        if options.real
        else testset.degraded(faces, recipe.degradation, options.seed)
    )
    with bar_progress(console, "models") as progress:
        methods.update(testset.restored(methods["input"], restorers, progress=progress))
    truth = None if options.real else faces.faces
    metrics, left_out = report.available_metrics(
        truth=truth is not None,
        face_api=options.face_descriptor or load(weights.locate, "face-descriptor"),
        detector=detector,
        lpips=options.lpips,
        lpips_file=options.lpips_file,
    )
    with bar_progress(console, "measurements") as progress:
        table = report.evaluate(truth, methods, metrics, progress=progress)
    rows = methods if truth is None else {**methods, report.GROUND_TRUTH: truth}
    left_out += _fid(options, detector, table, rows, truth)

    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    text = _heading(options, recipe, faces) + report.markdown(table)
    text += "".join(f"\n- {line}" for line in left_out) + ("\n" if left_out else "")
    write_text(out / "results.md", text)
    write_text(out / "results.csv", report.csv_text(table, faces.names))
    _sheets(out, rows, len(faces.names))
    if options.save:
        for name, images in rows.items():
            testset.save_pictures(out / name.replace(" ", "_"), faces.names, images)
    print(text)
    return OK


def _restorers(models: list[str], device: Any, weights: Weights) -> dict[str, Restorer]:
    """By the name of their row: that of the weights, or of the file."""
    from ..pipeline import find_model
    from ..restore import Restorer
    from ..weights.loading import load_network

    found = {}
    for model in models:
        path, architecture = load(find_model, model, weights)
        net = load(load_network, path, architecture)
        found[Path(model).stem if Path(model).is_file() else model] = load(
            Restorer, net, device=device
        )
    return found


def _fid(
    options: argparse.Namespace,
    detector: Any,
    table: Any,
    rows: dict[str, Tensor],
    truth: Tensor | None,
) -> list[str]:
    """Add the column FID; or say why not."""
    from ..evaluation import report, testset
    from ..metrics.fid import FIDInception

    reference = truth
    if options.reference is not None:
        reference = load(testset.load_faces, options.reference, detector, size=options.size).faces
    reason = ""
    if reference is None:
        reason = "it needs good faces to compare with (--reference)"
    elif len(reference) < 2:
        reason = "it needs more than one face"
    else:
        try:
            net = FIDInception(options.inception)
        except FileNotFoundError as error:
            reason = str(error)
        else:
            if len(reference) < 2048:
                logger.warning(
                    "FID of %d faces is too large, and compares only with that of as many",
                    len(reference),
                )
            report.add_fid(table, rows, reference, net)
    if not reason:
        return []
    logger.warning("FID is left out: %s", reason)
    return [f"FID is left out: {reason}"]


def _heading(options: argparse.Namespace, recipe: Any, faces: TestSet) -> str:
    side = faces.faces.shape[-1]
    where = f"{len(faces.names)} faces of {side} px from {options.faces}"
    if options.real:
        return f"{where}, as they are.\n\n"
    given = recipe.degradation
    ranges = ", ".join(
        [f"{name} {list(getattr(given, name))}" for name in ("sigma", "scale", "noise", "quality")]
        + [
            f"{name} {value}"
            for name, value in vars(given).items()
            if isinstance(value, float) and value
        ]
    )
    return (
        f"{where}, degraded as in the recipe {options.degradation} ({options.values}), "
        f"seed {options.seed}: {ranges}.\n\n"
    )


def _sheets(out: Path, rows: dict[str, Tensor], count: int) -> None:
    import numpy as np
    from PIL import Image

    from ..draw import sheet

    for part, start in enumerate(range(0, count, ROWS_A_SHEET)):
        picture = sheet(rows, range(start, min(start + ROWS_A_SHEET, count)), size=256)
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        with open_atomic(out / f"sheet_{part}.jpg") as file:
            Image.fromarray(pixels).save(file, "JPEG", quality=92)
