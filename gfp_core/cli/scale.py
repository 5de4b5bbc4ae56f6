"""``gfp scale``: a folder, a bucket, tables or tars, restored on Ray's cluster."""

from __future__ import annotations

import argparse
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from ..options import Option, RestoreOptions
from .console import Console, count, printable_name
from .exit_codes import FAILED, OK
from .flags import add_options, add_sources, read_options
from .loading import load
from .restore import FORMATS

if TYPE_CHECKING:
    from ..scale.ray_data import Report

logger = logging.getLogger(__name__)

KINDS = ("files", "parquet", "webdataset")
_BEAT = 30.0  # seconds between two lines of a log without a bar


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "scale",
        parents=[talk],
        usage="gfp scale INPUT OUTPUT [FLAG ...]",
        help="restore a folder, a bucket, tables or tars on one machine or a cluster (Ray)",
        description="Restore the faces of very many pictures: files of a folder or a bucket "
        "(s3://, gs:// and whatever fsspec opens), Parquet tables with a column of bytes or paths, "
        "or webdataset tars. Runs on Ray, with the extra scale; without --address on this machine. "
        "The same command goes on where it stopped, and a broken picture is a row with an error.",
    )
    parser.add_argument("input", metavar="INPUT", help="folder, file or address to read")
    parser.add_argument("output", metavar="OUTPUT", help="folder or address of the results")
    parser.add_argument(
        "--format", choices=tuple(FORMATS), help="format of the results (default: that of each)"
    )
    parser.add_argument(
        "--write", choices=KINDS, help="what results become (default: what the input is)"
    )
    parser.add_argument(
        "--no-record",
        dest="record",
        action="store_false",
        help="do not write into the results what made them: options, model, version",
    )
    parser.add_argument(
        "--retry-errors", action="store_true", help="take pictures again that were an error before"
    )
    _add_columns(parser)
    _add_cluster(parser)
    add_sources(parser)
    add_options(parser, RestoreOptions, only=_is_offered)
    parser.set_defaults(run=run)


def _add_columns(parser: argparse.ArgumentParser) -> None:
    section = parser.add_argument_group("tables")
    section.add_argument(
        "--id-column", default="id", metavar="NAME", help="names of the rows (default: id)"
    )
    section.add_argument(
        "--bytes-column", default="bytes", metavar="NAME", help="whole files (default: bytes)"
    )
    section.add_argument(
        "--path-column",
        metavar="NAME",
        help="in place of bytes: paths below the table's folder, or addresses",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    section = parser.add_argument_group("the cluster")
    section.add_argument(
        "--address", help="of a Ray cluster, or auto (default: one is started on this machine)"
    )
    section.add_argument(
        "--actors",
        type=_number(int, 1),
        nargs=2,
        metavar=("MIN", "MAX"),
        help="processes with networks (default: 1 to what the cluster holds)",
    )
    section.add_argument(
        "--gpus-per-actor",
        type=_number(float, 0),
        default=0.0,
        metavar="NUMBER",
        help="GPUs of each, also parts: 0.25 puts four on one (default: 0)",
    )
    section.add_argument(
        "--cpus-per-actor",
        type=_number(float, 0),
        default=1.0,
        metavar="NUMBER",
        help="CPU cores of each, and threads (default: 1)",
    )
    section.add_argument(
        "--batch",
        type=_number(int, 1),
        default=4,
        metavar="NUMBER",
        help="pictures given to an actor at once (default: 4)",
    )
    section.add_argument(
        "--part",
        type=_number(int, 1),
        default=64,
        metavar="NUMBER",
        help="results written at once: a kill costs so many, at most, of each writer (default: 64)",
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Restore very many pictures; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, Ray or the networks are not available.
    """
    from ..scale.ray_data import ScaleJob
    from ..scale.ray_data import run as run_job

    options = read_options(arguments)
    job = ScaleJob(
        source=arguments.input,
        target=arguments.output,
        options=options,
        suffix=FORMATS.get(arguments.format),
        record=arguments.record,
        kind=arguments.write,
        id_column=arguments.id_column,
        bytes_column=arguments.bytes_column,
        path_column=arguments.path_column,
        actors=tuple(arguments.actors) if arguments.actors else None,
        gpus_per_actor=arguments.gpus_per_actor,
        cpus_per_actor=arguments.cpus_per_actor,
        batch_size=arguments.batch,
        part_rows=arguments.part,
        address=arguments.address,
        retry_errors=arguments.retry_errors,
        downloads=not arguments.no_download,
    )
    with console.bar(unit=" pictures", smoothing=0.05) as bar:
        messages = _Said()

        def show(report: Report) -> None:
            messages.update(report, is_shown=not bar.disable)
            bar.total = None if report.total is None else report.total - report.skipped
            bar.set_postfix_str(f"{report.faces} faces, {report.failed} failed", refresh=False)
            bar.update(report.done - bar.n)

        report = load(run_job, job, progress=show)
    return _conclude(report)


class _Said:
    """What has been said in the course of a job: errors as they come, and where it stands."""

    def __init__(self) -> None:
        self.errors, self.last = 0, time.monotonic()

    def update(self, report: Report, *, is_shown: bool) -> None:
        """Say what is new; where no bar is shown, a line now and then."""
        for error in report.errors[self.errors :]:
            logger.error("%s", printable_name(error["error"]))
        self.errors = len(report.errors)
        if not is_shown and time.monotonic() - self.last > _BEAT:
            self.last = time.monotonic()
            total = "" if report.total is None else f" of {report.total - report.skipped}"
            rate = report.done / max(report.wall_seconds, 1e-9)
            logger.info(
                "%d%s done, %d failed; %.2f pictures a second.",
                report.done,
                total,
                report.failed,
                rate,
            )


def _conclude(report: Report) -> int:
    rate = report.done / max(report.wall_seconds, 1e-9)
    parts = [f"{report.restored} restored ({count(report.faces, 'face')})"]
    parts.append(f"{report.without_face} without a face")
    if report.skipped:
        parts.append(f"{report.skipped} finished before")
    parts.append(f"{report.failed} failed")
    logger.info("%s; %.2f pictures a second.", ", ".join(parts), rate)
    if report.missing:
        logger.error(
            "%s were given up, as the processes that worked on them ended; the same command tries "
            "them again, and a smaller --batch finds out which it is.",
            count(report.missing, "picture"),
        )
    return FAILED if report.failed or report.missing else OK


def _is_offered(option: Option) -> bool:
    """Whether an option is a flag here: no order of frames, and --batch means pictures."""
    return option.group != "video" and option.name != "batch_size"


def _number(kind: type, minimum: float) -> Any:
    """The type of an argument: a number from ``least`` on."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not minimum <= value < math.inf:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} from {minimum:g} on")
        return value

    return parse
