"""``gfp``: the command line.

Nothing heavy is imported before it is needed: ``gfp --help`` must not wait for PyTorch.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .commands.training_options import add_parsers

if TYPE_CHECKING:
    from .commands.running import Console

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all done; some files failed; the command makes no sense; stopped by Ctrl-C."""

FORMATS = {
    "png": ".png",
    "jpg": ".jpg",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tif": ".tif",
    "tiff": ".tif",
}
"""The choices of ``--format``, and the endings of the files written then."""
ORDERS = ("score", "largest", "smallest", "left-to-right", "top-to-bottom", "centre")
"""The choices of ``--order``: those of `options.Order`, in one word."""
IDENTITY = 22.0
"""Of ``--identity``: `identity.LIMIT`, without importing it."""
CROPS, COMPARE = "crops", "compare"
"""Folders in the output folder, of ``--save-crops`` and ``--compare``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind ``gfp``; by default what the program was called with.

    Returns:
        The exit code: 0 all done, 1 some files failed, 2 wrong usage, 130 interrupted.
    """
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as stop:  # --help and --version, and wrong usage
        return stop.code if isinstance(stop.code, int) else USAGE
    try:
        # Before OpenCV is imported: what it says of a broken file, the error says better.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        from .commands.running import CannotStart, Console

        with Console.of(options) as console:
            try:
                run: Callable[[argparse.Namespace, Console], int] = options.run
                return run(options, console)
            except CannotStart as error:
                console.error(str(error))
                return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run`` to its function.

    Such a function takes the parsed options and the `Console`, and returns the exit code.
    """
    parser = argparse.ArgumentParser(
        prog="gfp", description="Face restoration with a generative facial prior."
    )
    parser.add_argument("--version", action="version", version=f"gfp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("inputs", nargs="+", metavar="INPUT", help="picture, or folder of pictures")
    _add_detection(common)
    talk = argparse.ArgumentParser(add_help=False)
    talk.add_argument(
        "--no-download", action="store_true", help="fail rather than download weights"
    )
    amount = talk.add_mutually_exclusive_group()
    amount.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    amount.add_argument("-v", "--verbose", action="store_true", help="say everything")

    restore = commands.add_parser(
        "restore",
        parents=[common, talk],
        help="restore the faces of pictures",
        description="Restore the faces of pictures (PNG, JPEG, WebP, TIFF, BMP). Files that are "
        "already finished are skipped, so an interrupted run goes on where it stopped.",
    )
    restore.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for the results; or, for one picture, a file",
    )
    restore.add_argument(
        "--model",
        default="lite",
        help="name of a model, see `gfp weights list`, or a checkpoint file (default: %(default)s)",
    )
    restore.add_argument(
        "--strength",
        type=_fraction,
        default=1.0,
        help="share of the restored face, 0 to 1 (default: 1)",
    )
    restore.add_argument(
        "--fidelity",
        type=_fraction,
        help="quality (0) or likeness to the picture (1), for models that let one choose, such as "
        "codeformer (default: the model's)",
    )
    restore.add_argument(
        "--upscale",
        type=_factor,
        default=1.0,
        help="size of the result relative to the picture (default: 1)",
    )
    restore.add_argument(
        "--mask",
        choices=("ellipse", "box", "hull", "parts"),
        default="ellipse",
        help="outline inside which a face is restored; parts: those of --parts, which a parser "
        "finds (default: %(default)s)",
    )
    restore.add_argument(
        "--feather",
        type=_fraction,
        default=0.1,
        help="width of the fade inside the outline, as a share of the face's crop (default: 0.1)",
    )
    restore.add_argument(
        "--grow",
        type=_number,
        default=0.0,
        help="move the outline outwards by this share of the crop; below 0 inwards (default: 0)",
    )
    restore.add_argument(
        "--occlusion",
        choices=("auto", "on", "off"),
        default="auto",
        help="leave glasses, hair and hands before a face as they are; auto: with --parser; on: "
        "without it too, less surely (default: %(default)s)",
    )
    restore.add_argument(
        "--parts",
        type=_names,
        metavar="LIST",
        help="what is restored, with --parser or --mask parts: some of "
        "skin,brows,eyes,nose,mouth,ears,neck,glasses,hair,hat (default: all but neck, hair and "
        "hat)",
    )
    restore.add_argument(
        "--parser",
        help="name of a face parser, such as bisenet, or its file (default: bisenet with --mask "
        "parts, else none)",
    )
    restore.add_argument(
        "--auto-strength",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="restore faces less the sharper they are, and tiny and doubtful ones (default: yes)",
    )
    restore.add_argument(
        "--detail",
        type=_fraction,
        default=1.0,
        help="share of the picture's fine detail kept in faces larger than the model's crop "
        "(default: 1)",
    )
    restore.add_argument(
        "--grain",
        type=_fraction,
        default=0.0,
        help="share of the picture's noise that restored faces get again (default: 0)",
    )
    restore.add_argument(
        "--color",
        choices=(
            "auto",
            "restorer",
            "input",
            "lightness",
            "match",
            "mean_std",
            "low_frequency",
            "reference",
            "enhance",
        ),
        default="auto",
        help="colours of the faces. restorer: as the model gives them; match, mean_std: with the "
        "statistics of the picture's face (auto: match); low_frequency: with the picture's "
        "colours, smoothed; input: with the picture's chroma; lightness: with the picture's "
        "lightness; reference: with the statistics of --reference; enhance: contrast and "
        "saturation strengthened (default: %(default)s)",
    )
    restore.add_argument(
        "--color-strength",
        type=_fraction,
        default=1.0,
        help="share of the correction of --color, 0 to 1 (default: 1)",
    )
    restore.add_argument(
        "--grey",
        choices=("auto", "on", "off"),
        default="auto",
        help="which faces keep the picture's chroma: those in black and white, sepia and the like "
        "(auto; but none with --color restorer), all (on) or none (off) (default: %(default)s)",
    )
    restore.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="picture for --color reference: its largest face gives the colours, or all of it if "
        "it shows no face",
    )
    restore.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="format of the results (default: that of each picture)",
    )
    restore.add_argument(
        "--save-crops",
        action="store_true",
        help=f"save each face before and after in OUT/{CROPS}",
    )
    restore.add_argument(
        "--compare",
        action="store_true",
        help=f"save each picture before and after, side by side, in OUT/{COMPARE}",
    )
    restore.add_argument(
        "--engine",
        choices=("auto", "plain", "openvino"),
        default="auto",
        help="what runs the model: its fast form, the published form, or OpenVINO, which is faster "
        "on a CPU after an export of a minute at its first use (default: %(default)s)",
    )
    restore.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16", "bf16"),
        default="auto",
        help="in which the model computes: auto is fp16 on a GPU that is faster with it, else "
        "fp32; bf16 saves time with large models on CPUs that have it (default: %(default)s)",
    )
    restore.add_argument("--overwrite", action="store_true", help="redo files already finished")
    restore.add_argument(
        "--frames",
        action="store_true",
        help="the pictures of each folder are the frames of a video, in order of their names (2 "
        "before 10): follow the faces and steady them, so that they do not flicker",
    )
    restore.add_argument(
        "--identity",
        nargs="?",
        type=_factor,
        const=IDENTITY,
        metavar="DEGREES",
        help="take back what makes a face another person's, from this angle between embeddings on "
        "(default: %(const)g); needs `gfp weights get face-descriptor`",
    )
    restore.add_argument(
        "--embedder",
        default="face-descriptor",
        help="name of the weights that tell people apart, or their file (default: %(default)s)",
    )
    _add_choice(restore)
    restore.set_defaults(run=_restore)

    detect = commands.add_parser(
        "detect",
        parents=[common, talk],
        help="print the faces of pictures",
        description="Print the boxes, scores and landmarks of all faces, in pixels of the upright "
        "picture with (0, 0) at the centre of its top left pixel.",
    )
    detect.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="also draw them into pictures in OUT"
    )
    detect.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    detect.set_defaults(run=_detect)

    compare = commands.add_parser(
        "compare",
        parents=[talk],
        help="restore the same faces in several ways, side by side",
        description="Restore the faces of a picture with several models or settings, write a "
        "picture that shows them side by side, and print how long each took.",
    )
    compare.add_argument("input", type=Path, metavar="INPUT", help="picture")
    compare.add_argument(
        "-m",
        "--model",
        dest="models",
        action="append",
        required=True,
        metavar="MODEL[:OPTION=VALUE,...]",
        help="name of weights or checkpoint file, and options: fidelity, seed, color, precision "
        '("codeformer:fidelity=0.7,color=match"); give it several times',
    )
    compare.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the picture to write"
    )
    compare.add_argument(
        "--which", default="all", metavar="FACES", help='all, "first 2", or places by size: "0, 2"'
    )
    _add_detection(compare)
    compare.set_defaults(run=_compare)

    bench = commands.add_parser(
        "bench",
        parents=[talk],
        help="time each step on this machine",
        description="Time each step from photo to photo on this machine, and print a table.",
    )
    bench.add_argument(
        "photo",
        nargs="?",
        type=Path,
        metavar="PHOTO",
        help="picture with a face (default: the portrait of scikit-image, if it is installed)",
    )
    bench.add_argument(
        "--model",
        default="lite",
        help="name of a model, see `gfp weights list`, or a checkpoint file (default: %(default)s)",
    )
    bench.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: CUDA if there is one)")
    bench.add_argument(
        "--size",
        type=_count,
        nargs=2,
        default=(1920, 1080),
        metavar=("W", "H"),
        help="size to which the default portrait is enlarged (default: 1920 1080)",
    )
    bench.add_argument(
        "--rounds", type=_count, default=5, help="repetitions of each step (default: %(default)s)"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write all times to FILE")
    bench.set_defaults(run=_bench)
    _add_weights(commands, talk)
    add_parsers(commands, talk)
    return parser


def _add_detection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detector",
        default="retinaface_mobile025",
        help="name of a face detector, see `gfp weights list`, or its file (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        type=_fraction,
        help="confidence above which a detection is a face, 0 to 1 (default: the detector's)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: CUDA if there is one)")


def _add_choice(restore: argparse.ArgumentParser) -> None:
    choice = restore.add_argument_group("which faces are restored (all that are found)")
    choice.add_argument(
        "--which",
        default="all",
        metavar="FACES",
        help='all, none, "first 2", or places in --order, from 0: "0, 2"',
    )
    choice.add_argument(
        "--order",
        choices=ORDERS,
        default="largest",
        help="what counts first in a picture (default: %(default)s)",
    )
    choice.add_argument(
        "--min-size", type=_factor, default=0.0, metavar="PIXELS", help="smallest face"
    )
    choice.add_argument("--max-size", type=_factor, metavar="PIXELS", help="largest face")
    choice.add_argument(
        "--turned", action="store_true", help="look for faces that lie or stand on their head, too"
    )
    choice.add_argument(
        "--region",
        type=Path,
        metavar="FILE",
        help="picture of the same size, white where faces are restored, else black",
    )
    choice.add_argument(
        "--person",
        type=Path,
        action="append",
        metavar="FILE",
        help="picture of somebody: restore only who is like them; several are several people, or "
        "several pictures of one; needs `gfp weights get face-descriptor`",
    )
    choice.add_argument(
        "--max-sharpness",
        type=_fraction,
        metavar="SHARPNESS",
        help="leave faces alone that are sharper than this, from 0 to 1 (every pixel of a 512 px "
        "face counts); 0.5 is a good limit",
    )


def _add_weights(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], talk: argparse.ArgumentParser
) -> None:
    weights = commands.add_parser(
        "weights",
        help="list, fetch, check, inspect and convert weights",
        description="The weight files of models and detectors: which there are and on what terms, "
        "where they lie, and how to get them.",
    )
    actions = weights.add_subparsers(required=True, metavar="ACTION", dest="action")

    def add(name: str, what: str, named: str | None = None) -> argparse.ArgumentParser:
        action = actions.add_parser(name, parents=[talk], help=what, description=f"{what}.")
        if named is not None:
            action.add_argument("names", nargs=named, metavar="NAME", help="as in the list")
        action.set_defaults(run=_weights)
        return action

    listing = add("list", "show all weights with their terms")
    listing.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    add("get", "fetch weights that are not on this machine, and print their files", "+")
    add("verify", "read files again and check them (default: all that are here)", "*")
    add("where", "print where files lie (default: the folders searched)", "*")
    inspect = add("inspect", "say what checkpoints are, and how one can tell")
    inspect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="checkpoint")
    inspect.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    convert = add("convert", "convert checkpoints to safetensors")
    convert.add_argument("files", nargs="+", type=Path, metavar="FILE", help="checkpoint")
    convert.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="folder (default: that of each file)"
    )
    convert.add_argument(
        "--architecture", help="instead of the one identified (GFPGANBilinear, say)"
    )
    publish = add("publish", "put converted weights into a repository of yours on the Hub", "+")
    publish.add_argument("--repo", required=True, metavar="OWNER/NAME", help="made if missing")
    publish.add_argument("--private", action="store_true", help="make it a private one")
    publish.add_argument(
        "--dry-run", action="store_true", help="print what would be put there, and stop"
    )


def _restore(options: argparse.Namespace, console: Console) -> int:
    from .commands import restore

    return restore.run(options, console)


def _detect(options: argparse.Namespace, console: Console) -> int:
    from .commands import detect

    return detect.run(options, console)


def _compare(options: argparse.Namespace, console: Console) -> int:
    from .commands import compare

    return compare.run(options, console)


def _bench(options: argparse.Namespace, console: Console) -> int:
    from .commands import bench

    return bench.run(options, console)


def _weights(options: argparse.Namespace, console: Console) -> int:
    from .commands import weights

    return weights.run(options, console)


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _factor(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text}")
    return int(value)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return value
