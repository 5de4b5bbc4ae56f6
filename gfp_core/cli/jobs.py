"""Several processes of one machine that share the files of a run: ``gfp restore --jobs N``.

This process plans, gives out one file after the other, and says what became of them, in the order
of a run with one process; the others read, restore and write.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ..options import FileOptions
from .batch import Summary, words_of
from .console import Console
from .exit_codes import CannotStart, DiskFull, Stop
from .paths import Job, Plan

if TYPE_CHECKING:
    from tqdm import tqdm

    from .restoring import Restoring

logger = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds in which a process that was asked to end does so
_BEAT = 0.5  # seconds between two words on a file's progress

Outcome = int | Exception | None


class WorkerError(Exception):
    """An unexpected error in another process; its words are those of the error there."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Message:
    """What a process says of a file."""

    number: int
    share: float = 1.0
    """How much of the file is done; 1 with the outcome."""
    faces: int | None = None
    error: str = ""
    kind: str = ""
    """Of an error: "value", "memory" (for this file beside others), "disk", "stop" or "other"."""
    code: int = 0
    records: tuple[tuple[int, str], ...] = ()
    """Levels and texts of the log."""

    @property
    def outcome(self) -> Outcome:
        """The outcome for `Summary.add`."""
        if not self.kind:
            return self.faces
        return (WorkerError if self.kind == "other" else ValueError)(self.error)


@dataclass
class _Process:
    """Another process, and the file it works on."""

    process: Any
    connection: Connection
    number: int | None = None


@dataclass
class _State:
    """Where a run stands."""

    todo: deque[int]
    alone: deque[int] = field(default_factory=deque)
    """Files without room in memory beside others: they come last, one at a time."""
    tried_alone: set[int] = field(default_factory=set)
    results: dict[int, Message] = field(default_factory=dict)
    """That wait for those of the files before."""
    shares: dict[int, float] = field(default_factory=dict)
    turn: int = 0


class Jobs:
    """Works on many files in several processes; a broken file or process does not stop others."""

    def __init__(
        self, console: Console, arguments: argparse.Namespace, options: FileOptions, count: int
    ) -> None:
        """Take what the processes need.

        Args:
            console: says what is done with which file.
            arguments: of the command.
            options: of the restoration.
            count: number of processes.
        """
        self._console, self._arguments, self._options = console, arguments, options
        self._count = count
        self._threads = max(1, _cores() // count)

    def run(self, plan: Plan) -> Summary:
        """Work on every file; ends as `Batch.run` does.

        Raises:
            Stop: the networks cannot be loaded.
        """
        jobs = plan.jobs
        summary = Summary(len(jobs))
        self._console.begin()
        context = multiprocessing.get_context("spawn")
        processes: list[_Process] = []
        bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        state = _State(deque(range(len(jobs))))
        with self._console.bar(total=len(jobs), bar_format=bar_format) as bar:
            try:
                for index in range(min(self._count, len(jobs))):
                    processes.append(self._start(context, index, plan))
                self._run(context, plan, processes, state, bar, summary)
            except (KeyboardInterrupt, DiskFull) as reason:
                summary.stopped = reason
            finally:
                _end(processes)
        return summary

    def _start(self, context: Any, index: int, plan: Plan) -> _Process:
        ours, theirs = context.Pipe()
        level = logging.DEBUG if self._console.verbose else self._console.level
        process = context.Process(
            target=work,
            args=(theirs, self._arguments, self._options, plan, index, self._threads, level),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Process(process, ours)

    def _run(
        self,
        context: Any,
        plan: Plan,
        processes: list[_Process],
        state: _State,
        bar: tqdm[Any],
        summary: Summary,
    ) -> None:
        while state.turn < len(plan.jobs):
            _give_out(processes, state)
            busy = {each.connection: each for each in processes if each.number is not None}
            for connection in wait(list(busy)):
                each = busy[connection]  # type: ignore[index]
                try:
                    message = each.connection.recv()
                except (EOFError, OSError):
                    message = _lost(each, plan.jobs)
                    index = processes.index(each)
                    processes[index] = self._start(context, index, plan)
                self._take(each, message, state)
            self._say(plan.jobs, state, summary)
            done = state.turn + sum(share for n, share in state.shares.items() if n >= state.turn)
            bar.set_description_str(f"{state.turn}/{len(plan.jobs)} in {len(processes)} processes")
            bar.update(done - bar.n)

    def _take(self, each: _Process, message: Message, state: _State) -> None:
        """Take what a process says of its file."""
        state.shares[message.number] = message.share
        if message.share < 1:
            return
        each.number = None
        if message.kind == "stop":
            stop = CannotStart(message.error)
            stop.code = message.code
            raise stop
        if message.kind == "memory" and message.number not in state.tried_alone:
            state.alone.append(message.number)
            return
        state.results[message.number] = message

    def _say(self, jobs: Sequence[Job], state: _State, summary: Summary) -> None:
        """Say what became of the files whose turn it is."""
        while message := state.results.pop(state.turn, None):
            job = jobs[state.turn]
            with self._console.speaking_of(state.turn, job.source):
                for level, text in message.records:
                    logger.log(level, "%s", text)
                summary.add(job, message.outcome)
            state.turn += 1
            self._console.begin(state.turn)
            if message.kind == "disk":
                raise DiskFull("The disk is full, and the run stopped")


def _give_out(processes: Sequence[_Process], state: _State) -> None:
    """Give a file to each process that has none."""
    for each in processes:
        if each.number is not None:
            continue
        number = None
        if state.todo:
            number = state.todo.popleft()
        elif state.alone and all(other.number is None for other in processes):
            number = state.alone.popleft()
            state.tried_alone.add(number)
        if number is None:
            continue
        each.number = number
        try:
            each.connection.send(number)
        except OSError:  # it has ended: `wait` says so at once
            logger.debug("process %s does not take a file", each.process.pid)


def _lost(each: _Process, jobs: Sequence[Job]) -> Message:
    """What is said of the file of a process that ended."""
    each.process.join(_PATIENCE)
    code = each.process.exitcode
    why = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    assert each.number is not None
    text = (
        f"{jobs[each.number].source}: the process that worked on it ended ({why}); try it alone, "
        "with more memory"
    )
    return Message(each.number, kind="value", error=text)


def _end(processes: Sequence[_Process]) -> None:
    """End the processes; a file that is being written is left out or whole."""
    for each in processes:
        each.connection.close()
        if each.process.is_alive() and each.number is not None:
            each.process.terminate()
    end = time.monotonic() + _PATIENCE
    for each in processes:
        each.process.join(max(0.0, end - time.monotonic()))
        if each.process.is_alive():
            each.process.kill()
            each.process.join()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # systems that know no such thing
        return os.cpu_count() or 1


class _Records(logging.Handler):
    """Keeps what is said, for the process that says it in its turn."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, self.format(record)))

    def take(self) -> tuple[tuple[int, str], ...]:
        """Return what was said since the last time."""
        records, self.records = tuple(self.records), []
        return records


def work(
    connection: Connection,
    arguments: argparse.Namespace,
    options: FileOptions,
    plan: Plan,
    index: int,
    threads: int,
    level: int,
) -> None:
    """Work on the files whose numbers come, until none comes: a process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process says when to end
    signal.signal(signal.SIGTERM, _leave)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before PyTorch is loaded
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    records = _Records(level)
    logging.captureWarnings(True)
    for name in [__package__.partition(".")[0]] + ["py.warnings"] * (level <= logging.DEBUG):
        logging.getLogger(name).addHandler(records)
        logging.getLogger(name).setLevel(level)
    from .batch import large_pictures

    restoring: Restoring | None = None
    with large_pictures():
        while True:
            try:
                number = connection.recv()
            except (EOFError, OSError):
                return
            if restoring is None:
                restoring = _begin(connection, number, arguments, options, plan, (index, threads))
                if restoring is None:
                    return
            _send(connection, _work_on(connection, restoring, plan.jobs[number], number, records))


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _begin(
    connection: Connection,
    number: int,
    arguments: argparse.Namespace,
    options: FileOptions,
    plan: Plan,
    place: tuple[int, int],
) -> Restoring | None:
    """Prepare for the files; None if that is not possible, which is said."""
    import torch

    from .restoring import Restoring

    index, threads = place
    torch.set_num_threads(threads)
    if options.runtime.device in (None, "cuda") and torch.cuda.device_count() > 1:
        options = options.replace(device=f"cuda:{index % torch.cuda.device_count()}")
    try:
        restoring = Restoring(arguments, options)
        restoring.begin(plan)
    except Stop as stop:
        _send(connection, Message(number, kind="stop", error=str(stop), code=stop.code))
        return None
    return restoring


def _work_on(
    connection: Connection, restoring: Restoring, job: Job, number: int, records: _Records
) -> Message:
    """Read, restore and write a file."""
    from ..io.atomic import is_disk_full
    from ..io.picture import NotEnoughMemoryError

    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _BEAT and done < total:
            last = time.monotonic()
            _send(connection, Message(number, share=done / total))

    try:
        item = restoring.read(job)
        faces = None
        if item is not None:
            faces = restoring.write(job, restoring.work(job, item, progress))
    except Stop as stop:
        return Message(number, kind="stop", error=str(stop), code=stop.code)
    except Exception as error:
        if not isinstance(error, ValueError):
            logger.debug("%s", traceback.format_exc())
        kind = "value" if isinstance(error, ValueError) else "other"
        if is_disk_full(error):
            kind = "disk"
        elif isinstance(error, NotEnoughMemoryError):
            kind = "memory"
        text = str(error) if isinstance(error, ValueError) else words_of(error)
        return Message(number, kind=kind, error=text, records=records.take())
    return Message(number, faces=faces, records=records.take())


def _send(connection: Connection, message: Message) -> None:
    try:
        connection.send(message)
    except OSError:  # the first process is gone
        raise SystemExit(0) from None
