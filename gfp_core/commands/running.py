"""What the commands share: the way through many files, and what is said meanwhile."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm

from ..cli import FAILED, INTERRUPTED, OK
from ..images import MAX_PIXELS
from ..weights.settings import Settings
from ..weights.store import Weights
from .jobs import Job

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Job, Callable[[int, int], None]], "int | None"]
"""Does one job and reports its progress; returns the number of faces, None if it was finished."""


class CannotStart(Exception):  # noqa: N818 -- not an error of one file
    """No file can be worked on; says why and what to do."""


def load(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function that loads networks.

    Raises:
        CannotStart: it failed.
    """
    try:
        return function(*arguments, **options)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        raise CannotStart(str(error)) from error


def load_weights(options: argparse.Namespace) -> Weights:
    """The weights of this machine, as the user's settings and the options ask for.

    Raises:
        CannotStart: the settings or the user's catalogue are wrong.
    """
    if getattr(options, "quiet", False):
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # this process is ours
    settings = load(Settings.load, downloads=not options.no_download)
    return load(Weights, settings)


@dataclass
class Summary:
    """What became of the files."""

    total: int
    with_faces: int = 0
    faces: int = 0
    without_face: int = 0
    skipped: int = 0
    failed: dict[Path, str] = field(default_factory=dict)
    """The reasons, by file."""
    interrupted: bool = False

    @property
    def handled(self) -> int:
        """Number of files that need no more work."""
        return self.with_faces + self.without_face + self.skipped


class Console(logging.Handler):
    """Shows the library's log on standard error, above the bar, with the file it speaks of."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        """Make a console.

        Args:
            quiet: shows errors only, and no bar.
            verbose: shows everything.
        """
        super().__init__(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
        self.quiet, self.verbose = quiet, verbose
        self.file: Path | None = None
        self._before: list[tuple[logging.Logger, int]] = []
        self._max_pixels = Image.MAX_IMAGE_PIXELS

    @classmethod
    def of(cls, options: argparse.Namespace) -> Console:
        """The console that the options ask for."""
        quiet, verbose = getattr(options, "quiet", False), getattr(options, "verbose", False)
        return cls(quiet=quiet, verbose=verbose)

    def __enter__(self) -> Console:
        logging.captureWarnings(True)
        names = [__package__.partition(".")[0]] + ["py.warnings"] * self.verbose
        for name in names:
            one = logging.getLogger(name)
            self._before.append((one, one.level))
            one.addHandler(self)
            one.setLevel(self.level)
        # This process is ours, so Pillow's limit may be set to ours.
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        Image.MAX_IMAGE_PIXELS = self._max_pixels
        for one, level in self._before:
            one.removeHandler(self)
            one.setLevel(level)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        message = self.format(record)
        if self.file is not None:
            message = _with_name(self.file, message)
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        tqdm.write(message, file=sys.stderr)

    def error(self, message: str) -> None:
        """Show an error."""
        logger.error("%s", message)

    def work_through(self, jobs: Sequence[Job], work: Work) -> Summary:
        """Work on every file; a broken one does not stop the others.

        Ctrl-C ends the work at once, which the summary says.

        Raises:
            CannotStart: from ``work``.
        """
        summary = Summary(len(jobs))
        with tqdm(
            total=len(jobs),
            file=sys.stderr,
            disable=True if self.quiet else None,  # None: shown on a terminal only
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        ) as bar:
            try:
                for index, job in enumerate(jobs):
                    bar.set_description_str(f"{index + 1}/{len(jobs)} {job.source.name}")
                    self.file = job.source
                    self._work_on(job, work, _part_of(bar, index), summary)
                    bar.update(index + 1 - bar.n)
            except KeyboardInterrupt:
                summary.interrupted = True
            finally:
                self.file = None
        return summary

    def _work_on(
        self, job: Job, work: Work, progress: Callable[[int, int], None], summary: Summary
    ) -> None:
        try:
            faces = work(job, progress)
        except CannotStart:
            raise
        except Exception as error:  # said now and in the summary
            expected = isinstance(error, ValueError)
            reason = str(error) if expected else repr(error)
            summary.failed[job.source] = reason
            logger.error("%s", reason, exc_info=self.verbose and not expected)
            return
        if faces is None:
            summary.skipped += 1
            logger.debug("already finished")
        elif faces == 0:
            summary.without_face += 1
        else:
            summary.with_faces += 1
            summary.faces += faces
            logger.debug("faces: %d", faces)

    def conclude(self, summary: Summary, problems: Sequence[str], verb: str, hint: str = "") -> int:
        """Say what became of the files.

        Args:
            summary: from `work_through`.
            problems: inputs that could not be looked into.
            verb: what was done with a file that has a face.
            hint: what to do after an interruption.

        Returns:
            The exit code.
        """
        parts = [f"{summary.with_faces} {verb} ({_count(summary.faces, 'face')})"]
        parts.append(f"{summary.without_face} without a face")
        if summary.skipped:
            parts.append(f"{summary.skipped} finished before (--overwrite redoes them)")
        parts.append(f"{len(summary.failed)} failed")
        logger.info("%s: %s.", _count(summary.total, "file"), ", ".join(parts))
        if summary.total > 1:
            for source, reason in summary.failed.items():
                logger.info("failed: %s", _with_name(source, reason))
        for problem in problems:
            logger.error("%s", problem)
        if summary.interrupted:
            logger.error(
                "Interrupted: %d of %s are done. %s",
                summary.handled,
                _count(summary.total, "file"),
                hint,
            )
            return INTERRUPTED
        return FAILED if summary.failed or problems else OK


def _part_of(bar: tqdm[Any], index: int) -> Callable[[int, int], None]:
    """The progress of one file as a part of the whole bar."""

    def progress(done: int, total: int) -> None:
        bar.update(index + done / max(total, 1) - bar.n)

    return progress


def _with_name(file: Path, message: str) -> str:
    return message if str(file) in message else f"{file}: {message}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
