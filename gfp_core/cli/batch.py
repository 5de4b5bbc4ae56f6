"""The way through many files: three steps that overlap, and what became of each file."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .console import Console, count, printable_name, with_name
from .exit_codes import FAILED, INTERRUPTED, OK, DiskFull, Stop

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..faces import Progress
    from .paths import Job, Plan

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Steps(Generic[Item, Result]):
    """What is done with each file: three steps, which overlap those of its neighbors.

    While one file is worked on, the next one is read and the one before is written, each in a
    thread of its own: no more than three files are in memory at once.
    """

    read: Callable[[Job], Item | None]
    """Gives what there is to work on; None if the file was finished before."""
    work: Callable[[Job, Item, Progress], Result]
    """Does the long part, in the main thread, and reports its progress."""
    write: Callable[[Job, Result], int]
    """Puts the result away; returns the number of faces."""


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
    stopped: BaseException | None = None
    """What ended the run before its end: Ctrl-C, another signal, a full disk."""

    @property
    def handled(self) -> int:
        """Number of files that need no more work."""
        return self.with_faces + self.without_face + self.skipped

    def add(self, job: Job, outcome: int | Exception | None, *, verbose: bool = False) -> None:
        """Note what became of a file, and say it.

        Args:
            job: the file.
            outcome: the number of its faces, an error, or None if the file was finished before.
            verbose: show where an unexpected error comes from.
        """
        if isinstance(outcome, Exception):  # said now and in the summary
            expected = isinstance(outcome, ValueError)
            reason = str(outcome) if expected else words_of(outcome)
            self.failed[job.source] = reason
            logger.error("%s", reason, exc_info=outcome if verbose and not expected else None)
        elif outcome is None:
            self.skipped += 1
            logger.debug("already finished")
        elif outcome == 0:
            self.without_face += 1
        else:
            self.with_faces += 1
            self.faces += outcome
            logger.debug("faces: %d", outcome)

    def conclude(self, plan: Plan, verb: str, hint: str = "") -> int:
        """Say what became of the files.

        Args:
            plan: what there was to do; says what was passed over.
            verb: what was done with a file that has a face.
            hint: what to do after an interruption.

        Returns:
            The exit code.
        """
        parts = [f"{self.with_faces} {verb} ({count(self.faces, 'face')})"]
        parts.append(f"{self.without_face} without a face")
        if self.skipped:
            parts.append(f"{self.skipped} finished before (--overwrite redoes them)")
        parts.append(f"{len(self.failed)} failed")
        files = count(self.total, "file")
        logger.info("%s: %s.", files, ", ".join(parts))
        if self.total > 1:
            for source, reason in self.failed.items():
                logger.info("failed: %s", with_name(source, reason))
        for note in plan.notes:
            logger.info("%s", note)
        for problem in plan.problems:
            logger.error("%s", problem)
        if self.stopped is None:
            return FAILED if self.failed or plan.problems else OK
        why = str(self.stopped) or "Interrupted"
        logger.error("%s: %d of %s are done. %s", why, self.handled, files, hint)
        return int(getattr(self.stopped, "code", INTERRUPTED))


class Batch(Generic[Item, Result]):
    """Works on many files in order; a broken one does not stop the others."""

    def __init__(self, console: Console, steps: Steps[Item, Result]) -> None:
        """Make a batch.

        Args:
            console: says what is done with which file.
            steps: what is done with each.
        """
        self._console, self._steps = console, steps

    def run(self, jobs: Sequence[Job]) -> Summary:
        """Work on every file.

        Ctrl-C, and a signal that ends the program, ends the work at once, and so does a full disk,
        which the summary says; only the file that is being written at that moment is written to
        its end.

        Raises:
            Stop: from one of the steps.
        """
        summary = Summary(len(jobs))
        self._console.begin()
        bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        # Leaving waits for both threads.
        with (
            large_pictures(),
            self._console.bar(total=len(jobs), bar_format=bar_format) as bar,
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
        ):
            try:
                self._run(jobs, bar, reader, writer, summary)
            except (KeyboardInterrupt, DiskFull) as reason:
                summary.stopped = reason
        return summary

    def _run(
        self,
        jobs: Sequence[Job],
        bar: tqdm[Any],
        reader: ThreadPoolExecutor,
        writer: ThreadPoolExecutor,
        summary: Summary,
    ) -> None:
        from ..io.picture import NotEnoughMemoryError

        written: Future[None] | None = None
        steps = self._steps
        reading = [reader.submit(self._do, 0, job, steps.read) for job in jobs[:1]]
        for number, job in enumerate(jobs):
            outcome: Any = reading.pop().result()
            if isinstance(outcome, NotEnoughMemoryError) and number:
                if written is not None:  # read ahead, beside two other pictures: now alone
                    written.result()
                outcome = self._do(number, job, steps.read)
            for following in jobs[number + 1 : number + 2]:
                reading.append(reader.submit(self._do, number + 1, following, steps.read))
            bar.set_description_str(f"{number + 1}/{len(jobs)} {printable_name(job.source.name)}")
            if outcome is not None and not isinstance(outcome, Exception):
                progress = _frames_of(bar, number) if job.is_clip else _part_of(bar, number)
                outcome = self._do(number, job, steps.work, outcome, progress)
            bar.set_postfix_str("", refresh=False)
            bar.update(number + 1 - bar.n)
            if written is not None:
                written.result()
            written = writer.submit(self._finish, number, job, outcome, summary)
        if written is not None:
            written.result()

    def _do(self, number: int, job: Job, step: Callable[..., T], *arguments: Any) -> T | Exception:
        """Take one step with a file, of which this thread's messages speak meanwhile.

        Returns:
            What the step returns, or the error that it raises.
        """
        with self._console.speaking_of(number, job.source):
            try:
                return step(job, *arguments)
            except Stop:
                raise
            except Exception as error:  # `Summary.add` says it, in its turn
                return error

    def _finish(
        self, number: int, job: Job, outcome: Result | Exception | None, summary: Summary
    ) -> None:
        """Write what became of a file, note it, and let the next one's messages out."""
        from ..io.atomic import is_disk_full

        faces: int | Exception | None
        if outcome is None or isinstance(outcome, Exception):
            faces = outcome
        else:
            faces = self._do(number, job, self._steps.write, outcome)
        with self._console.speaking_of(number, job.source):
            summary.add(job, faces, verbose=self._console.verbose)
        self._console.begin(number + 1)
        if isinstance(faces, Exception) and is_disk_full(faces):
            raise DiskFull("The disk is full, and the run stopped") from faces


def words_of(error: Exception) -> str:
    """Say what an unexpected error is."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "there is not enough memory for this picture; make it smaller, or cut it into parts"
    return repr(error)


@contextmanager
def large_pictures() -> Iterator[None]:
    """Set Pillow's limit to ours, as this process is ours."""
    from PIL import Image

    from ..io.images import MAX_PIXELS

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _part_of(bar: tqdm[Any], index: int) -> Callable[[int, int], None]:
    """The progress of one file as a part of the whole bar."""

    def progress(done: int, total: int) -> None:
        bar.update(index + done / max(total, 1) - bar.n)

    return progress


def _frames_of(bar: tqdm[Any], index: int) -> Callable[[int, int], None]:
    """The progress of a clip: frames, frames a second and the time left, beside its part."""
    report = _part_of(bar, index)
    began, first = time.monotonic(), -1

    def progress(done: int, total: int) -> None:
        nonlocal first
        if first < 0:
            first = done - 1  # what an earlier run finished took no time
        rate = (done - first) / max(time.monotonic() - began, 1e-6)
        remaining = timedelta(seconds=round(max(0, total - done) / rate))
        bar.set_postfix_str(
            f"frame {done} of {total}, {rate:.2f} frames/s, {remaining} left", refresh=False
        )
        report(done, total)

    return progress
