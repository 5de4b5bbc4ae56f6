"""``gfp prepare``."""

from __future__ import annotations

import argparse
import logging
import re
from typing import Any

from .console import Console
from .exit_codes import OK, CannotStart
from .flags import add_options, read_options
from .loading import load, load_detector
from .paths import path_argument

logger = logging.getLogger(__name__)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "prepare",
        parents=[talk],
        help="make faces for training from photographs",
        description="Find, align, choose and pack the largest face of each photograph.",
    )
    parser.add_argument(
        "photographs",
        nargs="+",
        type=path_argument,
        metavar="PHOTOGRAPHS",
        help="folder, or picture",
    )
    parser.add_argument("-o", "--out", type=path_argument, required=True, metavar="DATA")
    parser.add_argument("--size", type=int, default=512, help="of the faces (default: 512)")
    parser.add_argument(
        "--quality",
        type=int,
        default=95,
        help="of the faces' JPEG, 1 to 100; 101: PNG (default: %(default)s)",
    )
    _add_selection(parser)
    add_options(parser, only=lambda option: option.name in ("detector", "device"))
    parser.set_defaults(run=run)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which faces are kept, and for what."""
    parser.add_argument(
        "--min-size",
        "--least-size",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="leave out faces smaller than this share of --size (default: %(default)s)",
    )
    parser.add_argument(
        "--min-sharpness",
        "--least-sharpness",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave out faces less sharp, 0 to 1 (default: none)",
    )
    parser.add_argument(
        "--split-by",
        choices=("person", "file"),
        default="person",
        help="what goes to training or validation as a whole (default: %(default)s)",
    )
    parser.add_argument(
        "--person",
        default=r"(\d+)_",
        metavar="REGEX",
        help="what names begin with, its first group the person; other names are a person each "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--every",
        type=int,
        default=8,
        help="every such person is kept for validation, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--landmarks", type=path_argument, metavar="JSON", help="68 landmarks (x, y) by file name"
    )
    parser.add_argument(
        "--mixed",
        type=int,
        default=0,
        metavar="COUNT",
        help="add so many faces for training with the eyes, nose or mouth of another person",
    )
    parser.add_argument("--long-side", type=int, help="shrink photographs to detect faces")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Make faces for training from photographs; returns the exit code.

    Raises:
        CannotStart: there is no usable face, or the detector cannot be loaded.
    """
    from ..training.mixing import add_mixed_faces
    from ..training.prepare import Preparation, prepare

    try:
        re.compile(arguments.person)
    except re.error as error:
        raise CannotStart(
            f"--person: {arguments.person!r} is no regular expression ({error})"
        ) from error
    options = read_options(arguments)
    _, _, detector = load_detector(arguments, options.networks.detector, options.runtime.device)
    preparation = Preparation(
        size=arguments.size,
        quality=arguments.quality,
        min_size=arguments.min_size,
        min_sharpness=arguments.min_sharpness,
        split_by=arguments.split_by,
        person=arguments.person,
        every=arguments.every,
        landmarks=arguments.landmarks,
        long_side=arguments.long_side,
    )
    with console.progress("photographs") as progress:
        done = load(
            prepare,
            arguments.photographs,
            arguments.out,
            detector,
            preparation,
            progress=progress,
        )
    logger.info("%d faces in %s, %d left out.", done.faces, arguments.out, len(done.left_out))
    if arguments.mixed:
        with console.progress("mixed faces") as progress:
            mixed = load(
                add_mixed_faces,
                arguments.out,
                arguments.mixed,
                quality=arguments.quality,
                progress=progress,
            )
        logger.info("%d faces of two people added.", mixed)
    return OK
