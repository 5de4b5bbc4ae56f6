"""``gfp evaluate``: the papers' tables."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Console, say
from .exit_codes import OK, CannotStart
from .flags import add_options, read_options
from .loading import load, load_detector, load_restorer_network
from .paths import check_writable, path_argument

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.testset import TestSet
    from ..metrics.fid import FIDInception
    from ..restore import Restorer
    from ..weights.store import Weights

logger = logging.getLogger(__name__)

ROWS_A_SHEET = 6


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        parents=[talk],
        help="measure models on faces",
        description="Make the papers' tables: clean faces are degraded and restored again; or, "
        "with --real, low-quality faces are restored as they are.",
    )
    parser.add_argument(
        "faces",
        type=path_argument,
        metavar="FACES",
        help="folder of pictures, or made by gfp prepare",
    )
    parser.add_argument("-o", "--output", type=path_argument, required=True, metavar="OUT")
    parser.add_argument("--size", type=int, default=512, help="of the faces (default: 512)")
    parser.add_argument(
        "--model", action="append", metavar="MODEL", help="name or file; may be given again"
    )
    parser.add_argument("--real", action="store_true", help="faces of low quality, without truth")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned faces")
    parser.add_argument(
        "--degradation",
        default="lite",
        metavar="RECIPE",
        help="whose degradation (default: %(default)s, GFP-GAN's of the paper without colors), or "
        "a kind: clean, mild, paper, severe, wild",
    )
    parser.add_argument("--values", choices=("paper", "released"), default="paper")
    parser.add_argument("--seed", type=int, default=0, help="of the degradation (default: 0)")
    parser.add_argument(
        "--face-descriptor",
        type=path_argument,
        metavar="FILE",
        help="weights for Deg (default: if fetched)",
    )
    parser.add_argument("--lpips", choices=("vgg", "alex"), default="vgg")
    parser.add_argument(
        "--lpips-file", type=path_argument, metavar="FILE", help="its trunk's weights"
    )
    parser.add_argument("--inception", type=path_argument, metavar="FILE", help="weights for FID")
    parser.add_argument(
        "--reference",
        type=path_argument,
        metavar="FACES",
        help="folder of good faces for FID (default: the clean ones)",
    )
    parser.add_argument("--save", action="store_true", help="save all pictures too")
    add_options(parser, only=lambda option: option.name in ("detector", "device"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Measure models; writes results.md, results.csv and picture sheets; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or a network cannot be loaded.
    """
    from .. import wild
    from ..evaluation import report, testset
    from ..io.atomic import write_text
    from ..training.recipes import load_recipe

    options = read_options(arguments)
    load(check_writable, arguments.output)
    device, weights, detector = load_detector(
        arguments, options.networks.detector, options.runtime.device
    )
    restorers = _restorers(arguments.model or ["lite"], device, weights)
    kind = arguments.degradation if arguments.degradation in wild.KINDS else None
    recipe = None if kind else load(load_recipe, arguments.degradation, arguments.values)
    # Before the work, for a file may not be what it should be.
    inception, no_inception = _inception(arguments)
    metrics, left_out = load(
        report.available_metrics,
        truth=not arguments.real,
        face_api=arguments.face_descriptor or load(weights.locate, "face-descriptor"),
        detector=detector,
        lpips=arguments.lpips,
        lpips_file=arguments.lpips_file,
    )
    with console.progress("pictures") as progress:
        faces: TestSet = load(
            testset.load_faces,
            arguments.faces,
            detector,
            size=arguments.size,
            aligned=arguments.aligned,
            progress=progress,
        )
    truth: Tensor | None = None if arguments.real else faces.faces
    methods: dict[str, Tensor]
    if arguments.real:
        methods = {"input": faces.faces}
    elif recipe is None:
        bad, truth = testset.degraded_as(faces, arguments.degradation, arguments.seed)
        methods = {"input": bad}
    else:
        methods = testset.degraded(faces, recipe.degradation, arguments.seed)
    with console.progress("models") as progress:
        methods.update(testset.restored(methods["input"], restorers, progress=progress))
    with console.progress("measurements") as progress:
        table = report.evaluate(truth, methods, metrics, progress=progress)
    rows = methods if truth is None else {**methods, report.GROUND_TRUTH: truth}
    left_out += _fid(arguments, detector, table, rows, truth, inception, no_inception)

    out: Path = arguments.output
    text = _heading(arguments, recipe, faces) + report.markdown(table)
    text += "".join(f"\n- {line}" for line in left_out) + ("\n" if left_out else "")
    write_text(out / "results.md", text)
    write_text(out / "results.csv", report.csv_text(table, faces.names))
    _sheets(out, rows, len(faces.names))
    if arguments.save:
        for name, images in rows.items():
            testset.save_pictures(out / name.replace(" ", "_"), faces.names, images)
    say(text)
    return OK


def _restorers(models: list[str], device: Any, weights: Weights) -> dict[str, Restorer]:
    """By the name of their row: that of the weights, or of the file."""
    from ..restore import Restorer

    restorers: dict[str, Restorer] = {}
    for model in models:
        name = Path(model).stem if Path(model).is_file() else model
        if name in restorers:
            raise CannotStart(
                f"{model} and one before would both be the row {name}; leave one out, or rename it"
            )
        net = load_restorer_network(model, weights)
        restorers[name] = load(Restorer, net, device=device)
    return restorers


def _inception(arguments: argparse.Namespace) -> tuple[FIDInception | None, str]:
    """Load the network of FID; None where it is not here, and why.

    Raises:
        CannotStart: its file holds something else.
    """
    from ..metrics.fid import FIDInception

    if arguments.real and arguments.reference is None:
        return None, ""  # there is nothing to compare with
    try:
        return FIDInception(arguments.inception), ""
    except FileNotFoundError as error:
        return None, str(error)
    except (ValueError, OSError, RuntimeError) as error:
        raise CannotStart(str(error)) from error


def _fid(
    arguments: argparse.Namespace,
    detector: Any,
    table: Any,
    rows: dict[str, Tensor],
    truth: Tensor | None,
    net: FIDInception | None,
    reason: str,
) -> list[str]:
    """Add the column FID; or say why not."""
    from ..evaluation import report, testset

    reference = truth
    if arguments.reference is not None:
        reference = load(
            testset.load_faces, arguments.reference, detector, size=arguments.size
        ).faces
    if reference is None:
        reason = "it needs good faces to compare with (--reference)"
    elif len(reference) < 2:
        reason = "it needs more than one face"
    elif net is not None:
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


def _heading(arguments: argparse.Namespace, recipe: Any, faces: TestSet) -> str:
    from .. import wild

    side = faces.faces.shape[-1]
    where = f"{len(faces.names)} faces of {side} px from {arguments.faces}"
    if arguments.real:
        return f"{where}, as they are.\n\n"
    name = arguments.degradation
    if name == wild.WILD:
        return f"{where}, degraded as in the open (wild), seed {arguments.seed}.\n\n"
    degradation = wild.NAMED[name] if recipe is None else recipe.degradation
    what = f"range {name}" if recipe is None else f"recipe {name} ({arguments.values})"
    ranges = ", ".join(
        [
            f"{key} {list(getattr(degradation, key))}"
            for key in ("sigma", "scale", "noise", "quality")
        ]
        + [
            f"{key} {value}"
            for key, value in vars(degradation).items()
            if isinstance(value, float) and value
        ]
    )
    return f"{where}, degraded as in the {what}, seed {arguments.seed}: {ranges}.\n\n"


def _sheets(out: Path, rows: dict[str, Tensor], count: int) -> None:
    import numpy as np
    from PIL import Image

    from ..draw import sheet
    from ..io.atomic import open_atomic

    for number, start in enumerate(range(0, count, ROWS_A_SHEET)):
        picture = sheet(rows, range(start, min(start + ROWS_A_SHEET, count)), size=256)
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        with open_atomic(out / f"sheet_{number}.jpg") as file:
            Image.fromarray(pixels).save(file, "JPEG", quality=92)
