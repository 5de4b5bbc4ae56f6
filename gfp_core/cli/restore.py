"""``gfp restore``."""

from __future__ import annotations

import argparse
import logging
import re
from typing import Any

from ..options import EXTRAS, FileOptions
from .console import Console
from .exit_codes import CannotStart
from .flags import add_options, add_sources, read_options
from .loading import load
from .paths import (
    Plan,
    in_order,
    output_argument,
    path_argument,
    plan,
    refuse_comparisons_over_inputs,
)
from .shards import Shard

logger = logging.getLogger(__name__)

FORMATS = {
    "png": ".png",
    "jpg": ".jpg",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tif": ".tif",
    "tiff": ".tif",
}
"""The choices of ``--format``, and the endings of the files written then."""
CROPS, COMPARE = "crops", "compare"
"""Folders in the output folder, of ``--save-crops`` and ``--compare``."""
EXTRA_FLAGS = {
    "region": "--region",
    "reference": "--reference",
    "people": "--person",
    "frame_mask": "--frame-mask",
    "background": "--background",
}
"""The flags of what belongs to the pictures, see `options.EXTRAS`."""


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "restore",
        parents=[talk],
        usage="gfp restore INPUT [INPUT ...] -o OUT [FLAG ...]",
        help="restore the faces of pictures and clips",
        description="Restore the faces of pictures (PNG, JPEG, WebP, TIFF and BMP; GIF, AVIF "
        "and HEIC become PNG) and of clips (MP4, M4V, MOV, MKV, WebM, AVI, and GIF that moves; "
        "with the extra video). Files that are "
        "already finished are skipped, so an interrupted run goes on where it stopped; results of "
        "other options, another model or another picture are made again.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=path_argument,
        metavar="INPUT",
        help="picture or clip, or folder of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_argument,
        required=True,
        metavar="OUT",
        help="folder for the results; or, for one picture or clip, a file",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="format of the pictures among the results (default: that of each)",
    )
    parser.add_argument(
        "--save-crops",
        action="store_true",
        help=f"save each face before and after in OUT/{CROPS}",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"save each picture before and after, side by side, in OUT/{COMPARE}",
    )
    parser.add_argument("--overwrite", action="store_true", help="redo files already finished")
    parser.add_argument(
        "--no-record",
        dest="record",
        action="store_false",
        help="do not write into the results what made them: options, model, version",
    )
    parser.add_argument(
        "--scenes",
        action="store_true",
        help="print the scenes of each clip: when they begin, how many frames and faces they hold",
    )
    _add_parts(parser)
    add_sources(parser)
    add_extras(parser)
    add_options(parser, FileOptions)
    parser.set_defaults(run=run)


def _add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the flags that share files among processes and machines."""
    section = parser.add_argument_group("many files")
    section.add_argument(
        "--jobs",
        type=_jobs_argument,
        default=1,
        metavar="NUMBER",
        help="processes that share the files, the cores and the GPUs of this machine (default: 1)",
    )
    section.add_argument(
        "--shard",
        type=Shard.parse,
        metavar="PART/PARTS",
        help="work on this part of the files alone, such as 3/16 of the third of 16 machines; the "
        "same files on every machine, by their paths",
    )


def add_extras(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the pictures that belong to the pictures."""
    section = parser.add_argument_group("other pictures")
    for name, flag in EXTRA_FLAGS.items():
        words = EXTRAS[name].removesuffix(".").replace("%", "%%")
        if name == "people":
            section.add_argument(
                flag,
                dest=name,
                type=path_argument,
                action="append",
                default=[],
                metavar="FILE",
                help=f"{words}; may be given again, for another person or another picture",
            )
        elif name == "background":
            section.add_argument(
                flag,
                dest=name,
                type=path_argument,
                metavar="PATH",
                help=f"{words}. A picture, or a folder with a picture of the same name for each",
            )
        else:
            section.add_argument(flag, dest=name, type=path_argument, metavar="FILE", help=words)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Restore the faces of pictures; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or the networks cannot be loaded.
    """
    from .batch import Batch, Steps
    from .jobs import Jobs
    from .restoring import Restoring

    work = Restoring(arguments, read_options(arguments, FileOptions))
    if arguments.jobs > 1 and work.options.video.video:
        raise CannotStart("--jobs and --video: frames in order need one process; leave one out")
    todo = load(
        plan,
        arguments.inputs,
        arguments.output,
        suffix=FORMATS.get(arguments.format),
        reserved=[CROPS] * arguments.save_crops + [COMPARE] * arguments.compare,
        clips=True,
    )
    if arguments.compare:
        load(refuse_comparisons_over_inputs, todo.jobs, COMPARE)
    if work.options.video.video:
        todo.jobs.sort(key=in_order)
    if arguments.shard is not None:
        _leave_to_others(todo, arguments.shard, in_order=work.options.video.video)
    work.begin(todo)
    if arguments.jobs > 1 and len(todo.jobs) > 1:
        summary = Jobs(console, arguments, work.file_options, arguments.jobs).run(todo)
    else:
        summary = Batch(console, Steps(work.read, work.work, work.write)).run(todo.jobs)
    again = " without --overwrite" if arguments.overwrite else ""
    hint = f"The same command{again} goes on with the rest."
    return summary.conclude(todo, "restored", hint)


def _jobs_argument(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes, 1 to 999")
    return int(text)


def _leave_to_others(todo: Plan, shard: Shard, *, in_order: bool) -> None:
    """Leave out the files of other parts; frames in order stay together with their folder."""
    before = len(todo.jobs)
    todo.jobs[:] = [
        job for job in todo.jobs if shard.holds(job.name.parent if in_order else job.name)
    ]
    logger.info("Part %d of %d: %d of %d files.", shard.number, shard.count, len(todo.jobs), before)
