"""``gfp queue``: a ComfyUI workflow for many files, on one or several running servers."""

from __future__ import annotations

import argparse
import json
import logging
import os
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Console, count, with_name
from .exit_codes import FAILED, INTERRUPTED, OK, STOPPED, CannotStart
from .loading import load
from .paths import Job, check_writable, make_folder, output_argument, path_argument, plan

if TYPE_CHECKING:
    from ..scale.queue import Done, Feeder, Task, Workflow

logger = logging.getLogger(__name__)

NOTES = ".gfp-queue.jsonl"
"""Name of the file in the output folder that says what is done."""
PATIENCE = 120.0
"""Seconds after which a run stops if no server answers."""
_DISK_FULL = "The disk is full, and the run stopped"
_LOOK = 0.2  # seconds between two looks at what has been done


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "queue",
        parents=[talk],
        usage="gfp queue WORKFLOW INPUT [INPUT ...] -o OUT [--servers URL ...]",
        help="feed a ComfyUI workflow with folders of files, on one or several servers",
        description="Send files to running ComfyUI servers, each with a workflow in API format "
        "(workflows/api, or Export (API) in ComfyUI's menu), and fetch the results under the "
        "files' names. A server that is lost gives its files to the others; the same command goes "
        "on where it stopped.",
    )
    parser.add_argument("workflow", type=path_argument, metavar="WORKFLOW", help="its JSON file")
    parser.add_argument(
        "inputs",
        nargs="+",
        type=path_argument,
        metavar="INPUT",
        help="file, or folder of them: pictures, or clips where the workflow loads a clip",
    )
    parser.add_argument(
        "-o", "--output", type=output_argument, required=True, metavar="OUT", help="folder"
    )
    parser.add_argument(
        "--servers",
        nargs="+",
        default=["http://127.0.0.1:8188"],
        metavar="URL",
        help="addresses of servers (default: http://127.0.0.1:8188)",
    )
    parser.add_argument(
        "--input",
        dest="place",
        metavar="NODE.NAME",
        help="the input that takes the file, such as 1.image, where several nodes load files",
    )
    parser.add_argument(
        "--depth",
        type=_depth,
        default=2,
        metavar="NUMBER",
        help="files that each server is given at once, so that it never waits (default: 2)",
    )
    parser.add_argument("--overwrite", action="store_true", help="redo files already finished")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Feed servers; returns the exit code.

    Raises:
        CannotStart: the workflow or the output is wrong, or no server takes the workflow.
    """
    from ..io import atomic
    from ..scale.queue import Feeder, Server, Task, Workflow

    workflow = load(Workflow.read, arguments.workflow, arguments.place)
    suffix = None if workflow.takes_clips else ".png"
    todo = load(plan, arguments.inputs, arguments.output, suffix=suffix, clips=workflow.takes_clips)
    if todo.is_single:
        raise CannotStart(f"{arguments.output} is a file: name a folder for the results")
    jobs = [job for job in todo.jobs if job.is_clip == workflow.takes_clips]
    if not jobs:
        noun = "clip" if workflow.takes_clips else "picture"
        raise CannotStart(f"there is no {noun} for the workflow {arguments.workflow}")
    _refuse_equal_names(jobs)
    output = jobs[0].output
    load(check_writable, output)
    notes = Notes(output, workflow)
    open_jobs = [job for job in jobs if arguments.overwrite or not notes.holds(job)]

    def write(name: Path, data: bytes) -> None:
        make_folder((output / name).parent)
        atomic.write_bytes(output / name, data)

    tasks = [Task(job.source, job.name) for job in open_jobs]
    with ExitStack() as stack:
        servers = [stack.enter_context(closing(Server(url))) for url in arguments.servers]
        feeder = Feeder(workflow, servers, write, arguments.depth, PATIENCE)
        if tasks:
            _check_servers(feeder)
        return _feed(feeder, tasks, notes, console, skipped=len(jobs) - len(open_jobs))


def _refuse_equal_names(jobs: list[Job]) -> None:
    """Refuse files that differ by their endings alone: the server gives both results its own.

    Raises:
        CannotStart: there are two.
    """
    by_name: dict[Path, Job] = {}
    for job in jobs:
        earlier = by_name.setdefault(job.target.with_suffix(""), job)
        if earlier is not job:
            raise CannotStart(
                f"{earlier.source} and {job.source} would both be written to "
                f"{job.target.with_suffix('')}; rename one of them"
            )


def _check_servers(feeder: Feeder) -> None:
    """Find out whether a server answers.

    Raises:
        CannotStart: none does.
    """
    from ..scale.queue import ServerLostError

    problems = []
    for server in feeder.servers:
        try:
            server.check()
        except ServerLostError as error:
            problems.append(str(error))
    if len(problems) == len(feeder.servers):
        raise CannotStart("; ".join(problems) + ". Start ComfyUI, or name it with --servers")


def _feed(
    feeder: Feeder, tasks: list[Task], notes: Notes, console: Console, *, skipped: int
) -> int:
    """Wait for what becomes of the files, and say it; returns the exit code."""
    failed: list[Done] = []
    finished, stopped = 0, ""
    threads = feeder.start(tasks)
    try:
        with console.bar(total=len(tasks), unit=" files") as bar:
            while finished + len(failed) < len(tasks) and not stopped:
                done = _next(feeder)
                if done is None:
                    stopped = _why_stuck(feeder) if feeder.is_stuck else ""
                    continue
                if done.error:
                    failed.append(done)
                    logger.error("%s", with_name(done.task.source, done.error))
                else:
                    finished += 1
                if done.is_disk_full or (not done.error and not notes.add(done)):
                    stopped = _DISK_FULL
                bar.update(1)
    except KeyboardInterrupt:
        stopped = "Interrupted"
    finally:
        feeder.stop.set()
        for thread in threads:
            thread.join(10)
    parts = [f"{finished} done", f"{skipped} finished before", f"{len(failed)} failed"]
    logger.info("%s: %s.", count(skipped + len(tasks), "file"), ", ".join(parts))
    if stopped and len(feeder.refusals) == len(feeder.servers):
        raise CannotStart(stopped)
    if stopped:
        logger.error("%s. The same command goes on with the rest.", stopped)
        return {"Interrupted": INTERRUPTED, _DISK_FULL: STOPPED}.get(stopped, FAILED)
    return FAILED if failed else OK


def _next(feeder: Feeder) -> Done | None:
    import queue

    with suppress(queue.Empty):
        return feeder.events.get(timeout=_LOOK)
    return None


def _why_stuck(feeder: Feeder) -> str:
    if len(feeder.refusals) == len(feeder.servers):
        return "no server takes the workflow: " + "; ".join(
            f"{url}: {reason}" for url, reason in feeder.refusals.items()
        )
    urls = ", ".join(server.url for server in feeder.servers)
    return f"no server has answered for {feeder.patience:.0f} seconds ({urls})"


class Notes:
    """Which files are done, in a file in the output folder."""

    def __init__(self, folder: Path, workflow: Workflow) -> None:
        """Read what earlier runs noted."""
        self._folder, self._workflow = folder, workflow.fingerprint()
        self._entries: dict[str, dict[str, Any]] = {}
        lines: list[str] = []
        with suppress(FileNotFoundError):
            lines = (folder / NOTES).read_text(encoding="utf-8").split("\n")
        self._needs_line_feed = bool(lines) and lines[-1] != ""  # of a run that was killed
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self._entries[entry["name"]] = entry

    def holds(self, job: Job) -> bool:
        """Whether a file was done as it is, by this workflow, and its results are there."""
        entry = self._entries.get(job.name.as_posix())
        return (
            entry is not None
            and entry.get("workflow") == self._workflow
            and entry.get("source") == _stamp(job.source)
            and all(
                _stamp(self._folder / name)[:1] == [size]
                for name, size in entry.get("files", {}).items()
            )
        )

    def add(self, done: Done) -> bool:
        """Note a file that is done; False where the disk is full."""
        from ..io.atomic import is_disk_full

        files = {path.as_posix(): _stamp(self._folder / path)[0] for path in done.files}
        entry = {"name": done.task.name.as_posix(), "source": _stamp(done.task.source)}
        line = json.dumps({**entry, "workflow": self._workflow, "files": files}) + "\n"
        try:
            with open(self._folder / NOTES, "a", encoding="utf-8") as file:
                file.write("\n" * self._needs_line_feed + line)
        except OSError as error:
            self._needs_line_feed = True
            if is_disk_full(error):
                return False
            logger.warning("what is done is not noted (%s): it is done again", error)
            return True
        self._needs_line_feed = False
        return True


def _stamp(path: Path) -> list[int]:
    try:
        status = os.stat(path)
    except OSError:
        return [-1, -1]
    return [status.st_size, status.st_mtime_ns]


def _depth(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of files, 1 to 100")
    return int(text)
