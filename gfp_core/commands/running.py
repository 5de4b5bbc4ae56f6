"""What the commands share: the way through many files, and what is said meanwhile."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from PIL import Image
from tqdm import tqdm

from ..cli import FAILED, INTERRUPTED, OK
from ..io.images import MAX_PIXELS
from ..weights.settings import Settings
from ..weights.store import Weights
from .jobs import Job

if TYPE_CHECKING:
    import torch

    from ..detect import FaceDetector
    from ..faces import Progress

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class Steps(Generic[Item, Result]):
    """What is done with each file: three steps, which overlap those of its neighbours.

    While one file is worked on, the next one is read and the one before is written, each in a
    thread of its own: no more than three files are in memory at once.
    """

    read: Callable[[Job], Item | None]
    """Gives what there is to work on; None if the file was finished before."""
    work: Callable[[Job, Item, Progress], Result]
    """Does the long part, in the main thread, and reports its progress."""
    write: Callable[[Job, Result], int]
    """Puts the result away; returns the number of faces."""


def load_detector(
    options: argparse.Namespace,
) -> tuple[torch.device, Weights, FaceDetector]:
    """The device to run on, the weights of this machine, and the detector, as the options ask for.

    Raises:
        CannotStart: one of them cannot be had.
    """
    from ..pipeline import find_detector, find_device

    place, weights = load(find_device, options.device), load_weights(options)
    return place, weights, load(find_detector, options.detector, device=place, weights=weights)


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
        self._thread = threading.local()  # its `file`: number and name of that of the thread
        self._turn = 0  # number of the first file that is not finished
        self._held: defaultdict[int, list[tuple[logging.LogRecord, Path | None]]] = defaultdict(
            list
        )
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
        """Show one message, or keep it until the files before have had their say.

        Called under the handler's lock, as is usual.
        """
        number, file = getattr(self._thread, "file", (self._turn, None))
        if number > self._turn:
            self._held[number].append((record, file))
        else:
            self._show(record, file)

    def _show(self, record: logging.LogRecord, file: Path | None) -> None:
        message = self.format(record)
        if file is not None:
            message = _with_name(file, message)
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        tqdm.write(message, file=sys.stderr)

    def error(self, message: str) -> None:
        """Show an error."""
        logger.error("%s", message)

    def work_through(self, jobs: Sequence[Job], steps: Steps[Item, Result]) -> Summary:
        """Work on every file, in order; a broken one does not stop the others.

        Ctrl-C ends the work at once, which the summary says; only the file that is being written
        at that moment is written to its end.

        Raises:
            CannotStart: from one of the steps.
        """
        summary = Summary(len(jobs))
        self._turn = 0
        bar = tqdm(
            total=len(jobs),
            file=sys.stderr,
            disable=True if self.quiet else None,  # None: shown on a terminal only
            leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        )
        # Leaving waits for both threads.
        with bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            try:
                written: Future[None] | None = None
                reading = [reader.submit(self._do, 0, job, steps.read) for job in jobs[:1]]
                for number, job in enumerate(jobs):
                    outcome: Any = reading.pop().result()
                    for following in jobs[number + 1 : number + 2]:
                        reading.append(reader.submit(self._do, number + 1, following, steps.read))
                    bar.set_description_str(f"{number + 1}/{len(jobs)} {job.source.name}")
                    if outcome is not None and not isinstance(outcome, Exception):
                        progress = _part_of(bar, number)
                        outcome = self._do(number, job, steps.work, outcome, progress)
                    bar.update(number + 1 - bar.n)
                    if written is not None:
                        written.result()
                    written = writer.submit(
                        self._finish, number, job, steps.write, outcome, summary
                    )
                if written is not None:
                    written.result()
            except KeyboardInterrupt:
                summary.interrupted = True
        return summary

    def _do(self, number: int, job: Job, step: Callable[..., T], *arguments: Any) -> T | Exception:
        """Take one step with a file, of which this thread's messages speak meanwhile.

        Returns:
            What the step returns, or the error that it raises.
        """
        self._thread.file = number, job.source
        try:
            return step(job, *arguments)
        except CannotStart:
            raise
        except Exception as error:  # `_note` says it, in its turn
            return error
        finally:
            del self._thread.file

    def _finish(
        self,
        number: int,
        job: Job,
        write: Callable[[Job, Result], int],
        outcome: Result | Exception | None,
        summary: Summary,
    ) -> None:
        """Write what became of a file, note it, and let the next one's messages out."""
        faces: int | Exception | None
        if outcome is None or isinstance(outcome, Exception):
            faces = outcome
        else:
            faces = self._do(number, job, write, outcome)
        self._do(number, job, self._note, faces, summary)
        with cast(threading.RLock, self.lock):
            self._turn = number + 1
            for record, file in self._held.pop(self._turn, ()):
                self._show(record, file)

    def _note(self, job: Job, faces: int | Exception | None, summary: Summary) -> None:
        if isinstance(faces, Exception):  # said now and in the summary
            expected = isinstance(faces, ValueError)
            reason = str(faces) if expected else repr(faces)
            summary.failed[job.source] = reason
            logger.error("%s", reason, exc_info=faces if self.verbose and not expected else None)
        elif faces is None:
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
