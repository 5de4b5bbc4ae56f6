"""Feed a ComfyUI workflow with many files, on one or several running servers.

Servers are asked by HTTP alone, with the client that huggingface_hub brings: what a prompt came to
stands in the server's history, so that nothing is lost when a connection is.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..io.atomic import is_disk_full

logger = logging.getLogger(__name__)

LOADERS = {"LoadImage": "image", "LoadImageMask": "image", "LoadVideo": "file"}
"""Nodes that take a file, and the input that names it."""
_FOLDER = "gfp-queue"  # below the server's input folder
_TIMEOUT = 120.0  # seconds of one request; a clip takes a while to upload
_ATTEMPTS = 3  # of a file whose servers were lost
_PAUSE = 0.25  # seconds between two looks at a server
_LONGEST_PAUSE = 15.0  # between two attempts to reach a server that is lost


class WorkflowError(ValueError):
    """The workflow cannot be fed; says why and what to do."""


class ServerLostError(Exception):
    """A server does not answer; its files go elsewhere."""


class RefusedError(Exception):
    """A server does not take the workflow: a node or a model is missing there."""


@dataclass(frozen=True)
class Workflow:
    """A workflow in API format, and where the file goes."""

    prompt: Mapping[str, Any]
    node: str
    """Number of the node that takes the file."""
    input: str
    """Name of its input."""

    @classmethod
    def read(cls, path: Path, place: str | None = None) -> Workflow:
        """Read a workflow file.

        Args:
            path: as ComfyUI's *Export (API)* writes it.
            place: ``NODE.INPUT`` that takes the file; None for the one node that loads a file.

        Raises:
            WorkflowError: it is no such file, or it is not clear where the file goes.
        """
        try:
            prompt = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkflowError(f"{path} cannot be read: {error}") from error
        is_api = isinstance(prompt, dict) and all(
            isinstance(node, dict) and "class_type" in node for node in prompt.values()
        )
        if not is_api or not prompt:
            raise WorkflowError(
                f"{path} is no workflow in API format; save it by Export (API) in ComfyUI's menu"
            )
        if place is not None:
            node, _, name = place.partition(".")
            if name not in prompt.get(node, {}).get("inputs", {}):
                raise WorkflowError(f"{path} has no node {node} with an input {name!r}")
            return cls(prompt, node, name)
        loaders = [
            (number, LOADERS[node["class_type"]])
            for number, node in prompt.items()
            if node["class_type"] in LOADERS
        ]
        if len(loaders) != 1:
            names = ", ".join(f"{number}.{name}" for number, name in loaders) or "none"
            raise WorkflowError(
                f"{path} has {len(loaders)} nodes that load a file ({names}); say with --input "
                "which takes the files"
            )
        return cls(prompt, *loaders[0])

    @property
    def takes_clips(self) -> bool:
        """Whether the files are clips, not pictures."""
        return bool(self.prompt[self.node]["class_type"] == "LoadVideo")

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of all but the file's name."""
        text = json.dumps([self.with_file(""), self.node, self.input], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_file(self, name: str) -> dict[str, Any]:
        """The prompt for a file, by its name on the server."""
        prompt = copy.deepcopy(dict(self.prompt))
        prompt[self.node].setdefault("inputs", {})[self.input] = name
        return prompt


class Server:
    """A running ComfyUI."""

    def __init__(self, url: str) -> None:
        """Take its address; nothing is asked yet."""
        url = url if "://" in url else f"http://{url}"
        self.url = url.rstrip("/")
        self._client_id = uuid.uuid4().hex  # without one, what was cached is not in the history
        self._session = new_session()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def check(self) -> None:
        """Ask whether the server is there."""
        self._ask_json("get", "/system_stats")

    def upload(self, path: Path) -> str:
        """Send a file; returns its name on the server.

        Raises:
            OSError: the file cannot be read.
        """
        data = path.read_bytes()
        # By its content: files of one name do not meet, and one sent twice is one.
        name = hashlib.sha256(data).hexdigest()[:24] + path.suffix.lower()
        answer = self._ask_json(
            "post",
            "/upload/image",
            files={"image": (name, data, "application/octet-stream")},
            data={"subfolder": _FOLDER, "type": "input", "overwrite": "true"},
        )
        if "name" not in answer:
            raise ServerLostError(f"{self.url}/upload/image does not say what it calls the file")
        folder = answer.get("subfolder")
        return f"{folder}/{answer['name']}" if folder else str(answer["name"])

    def submit(self, prompt: Mapping[str, Any]) -> str:
        """Queue a prompt; returns its id.

        Raises:
            RefusedError: the server does not take it.
        """
        answer = self._ask_json(
            "post", "/prompt", json={"prompt": prompt, "client_id": self._client_id}, refusable=True
        )
        if answer.get("node_errors") or "prompt_id" not in answer:
            raise RefusedError(_reasons(answer))
        return str(answer["prompt_id"])

    def history(self, prompt: str) -> dict[str, Any] | None:
        """What a prompt came to; None before its end."""
        entry: dict[str, Any] | None = self._ask_json("get", f"/history/{prompt}").get(prompt)
        return entry

    def knows(self, prompt: str) -> bool:
        """Whether a prompt waits or runs."""
        lists = self._ask_json("get", "/queue")
        return any(prompt in entry for entries in lists.values() for entry in entries)

    def fetch(self, file: Mapping[str, Any]) -> bytes:
        """Get a file of the server's output folder."""
        names = ("filename", "subfolder", "type")
        data: bytes = self._ask("get", "/view", params={n: file.get(n, "") for n in names}).content
        return data

    def cancel(self, prompts: Sequence[str]) -> None:
        """Take prompts out of the queue, and stop them if they run."""
        self._ask("post", "/queue", json={"delete": list(prompts)})
        running = self._ask_json("get", "/queue").get("queue_running", [])
        for prompt in prompts:
            if any(prompt in entry for entry in running):
                self._ask("post", "/interrupt", json={"prompt_id": prompt})

    def _ask_json(self, verb: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._ask(verb, path, **options)
        try:
            content = answer.json()
        except ValueError as error:
            raise self._is_another(path) from error
        if not isinstance(content, dict):
            raise self._is_another(path)
        return content

    def _is_another(self, path: str) -> ServerLostError:
        return ServerLostError(
            f"{self.url}{path} answers with no JSON of ComfyUI's: another program is there, or a "
            "page that asks for a password"
        )

    def _ask(self, verb: str, path: str, *, refusable: bool = False, **options: Any) -> Any:
        try:
            answer = getattr(self._session, verb)(self.url + path, timeout=_TIMEOUT, **options)
        except Exception as error:
            if not _is_of_connection(error):
                raise
            raise ServerLostError(f"{self.url} does not answer: {error}") from error
        if refusable and answer.status_code == 400:
            return answer
        if answer.status_code >= 400:
            raise ServerLostError(f"{self.url}{path} answers {answer.status_code}")
        return answer


def new_session() -> Any:
    """A session of huggingface_hub's HTTP client: of httpx or its successor, or of requests.

    Not its own one, which speaks to the Hub: it takes the Hub's being offline for the network's.
    """
    from huggingface_hub.utils import get_session

    return type(get_session())()


def _is_of_connection(error: Exception) -> bool:
    """Whether an error is one of the HTTP client's, which are of no common class."""
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool({"httpx", "httpx2", "requests", "httpcore", "urllib3"} & modules) or isinstance(
        error, (ConnectionError, TimeoutError)
    )


def _reasons(answer: Mapping[str, Any]) -> str:
    """Why a prompt was refused, in words."""
    reasons = []
    for number, node in (answer.get("node_errors") or {}).items():
        for error in node.get("errors", ()):
            details = error.get("details") or error.get("message")
            reasons.append(f"node {number} ({node.get('class_type')}): {details}")
    error = answer.get("error") or {}
    if not reasons and isinstance(error, Mapping):
        reasons.append(str(error.get("message") or error.get("details") or answer))
    return "; ".join(reasons)


@dataclass
class Task:
    """A file to send, and the number of the attempt."""

    source: Path
    name: Path
    """Path of the result below the output folder; its ending is the server's."""
    attempts: int = 0


@dataclass(frozen=True)
class Done:
    """What became of a file."""

    task: Task
    files: tuple[Path, ...] = ()
    """The results."""
    error: str = ""
    is_disk_full: bool = False
    """Whether no other result could be written either."""


Write = Callable[[Path, bytes], None]


@dataclass
class Feeder:
    """Gives files to servers, each as many as it works on soon, and takes the results."""

    workflow: Workflow
    servers: Sequence[Server]
    write: Write
    """Takes the path of a result below the output folder, and its bytes."""
    depth: int = 2
    """Files that each server is given ahead."""
    patience: float = 120.0
    """Seconds after which the run stops if no server answers."""
    events: queue.Queue[Done] = field(default_factory=queue.Queue)
    """What became of files, as it is known."""
    stop: threading.Event = field(default_factory=threading.Event)
    _todo: queue.Queue[Task] = field(default_factory=queue.Queue)
    _unfinished: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _usable: dict[str, str] = field(default_factory=dict)
    _last_answer: float = 0.0

    def start(self, tasks: Sequence[Task]) -> list[threading.Thread]:
        """Begin, with a thread a server."""
        for task in tasks:
            self._todo.put(task)
        self._unfinished, self._last_answer = len(tasks), time.monotonic()
        threads = [
            threading.Thread(target=self._serve, args=(server,), daemon=True)
            for server in self.servers
        ]
        for thread in threads:
            thread.start()
        return threads

    @property
    def refusals(self) -> dict[str, str]:
        """The servers that do not take the workflow, and why."""
        return dict(self._usable)

    @property
    def is_stuck(self) -> bool:
        """Whether no server is left, or none has answered for longer than the patience."""
        if len(self._usable) == len(self.servers):
            return True
        return time.monotonic() - self._last_answer > self.patience

    def _serve(self, server: Server) -> None:
        """Keep one server busy until all is done, or it does not take the workflow."""
        running: dict[str, Task] = {}
        pause = _PAUSE
        while not self.stop.is_set() and self._unfinished:
            try:
                self._fill(server, running)
                self._collect(server, running)
                self._last_answer, pause = time.monotonic(), _PAUSE
            except RefusedError as error:
                logger.error("%s does not take the workflow: %s", server.url, error)
                self._give_back(running, "", lost=False)
                self._usable[server.url] = str(error)
                return
            except Exception as error:  # whatever it is, no file goes with its thread
                is_lost = isinstance(error, ServerLostError)
                reason = str(error) if is_lost else f"{server.url}: {error!r}"
                if pause == _PAUSE:
                    logger.warning("%s; its files go elsewhere.", reason)
                self._give_back(running, reason)
                pause = min(2 * pause, _LONGEST_PAUSE)
            self.stop.wait(pause)
        if running:
            try:
                server.cancel(list(running))
            except ServerLostError as error:
                logger.debug("not cancelled: %s", error)

    def _fill(self, server: Server, running: dict[str, Task]) -> None:
        if not running:
            server.check()
        while len(running) < self.depth and not self.stop.is_set():
            try:
                task = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                prompt = self.workflow.with_file(server.upload(task.source))
                running[server.submit(prompt)] = task
            except (ServerLostError, RefusedError):
                self._todo.put(task)
                raise
            except OSError as error:
                reason = error.strerror or str(error)
                self._finish(Done(task, error=f"{task.source} cannot be read ({reason})"))
            except Exception as error:
                self._give_back({"": task}, repr(error))
                raise

    def _collect(self, server: Server, running: dict[str, Task]) -> None:
        for prompt, task in list(running.items()):
            entry = server.history(prompt)
            if entry is None:
                if not server.knows(prompt) and server.history(prompt) is None:
                    logger.warning("%s has forgotten %s: sent again.", server.url, task.source)
                    self._give_back({prompt: running.pop(prompt)}, "it was forgotten")
                continue
            done = self._results(server, entry, task)
            del running[prompt]
            self._finish(done)

    def _results(self, server: Server, entry: Mapping[str, Any], task: Task) -> Done:
        status = entry.get("status") or {}
        if status.get("status_str") != "success":
            return Done(task, error=f"{task.source}: {_failure(status)}")
        results = [
            file
            for output in (entry.get("outputs") or {}).values()
            for files in output.values()
            if isinstance(files, list)
            for file in files
            if isinstance(file, dict) and file.get("type") == "output" and file.get("filename")
        ]
        if not results:
            return Done(task, error=f"{task.source}: the workflow saves nothing; add Save Image")
        paths = []
        for number, file in enumerate(results):
            ending = Path(file["filename"]).suffix
            path = task.name.with_suffix(f".{number}{ending}" if number else ending)
            data = server.fetch(file)
            try:
                self.write(path, data)
            except OSError as error:
                reason = error.strerror or str(error)
                error_text = f"{path} cannot be written ({reason})"
                return Done(task, error=error_text, is_disk_full=is_disk_full(error))
            except ValueError as error:  # its folder cannot be made
                return Done(task, error=str(error))
            paths.append(path)
        return Done(task, tuple(paths))

    def _give_back(self, running: dict[str, Task], reason: str, *, lost: bool = True) -> None:
        for task in running.values():
            task.attempts += lost
            if task.attempts >= _ATTEMPTS:
                error = f"{task.source}: {_ATTEMPTS} servers did not come to its end ({reason})"
                self._finish(Done(task, error=error))
            else:
                self._todo.put(task)
        running.clear()

    def _finish(self, done: Done) -> None:
        with self._lock:
            self._unfinished -= 1
        self.events.put(done)


def _failure(status: Mapping[str, Any]) -> str:
    """What a failed prompt says, in words."""
    for kind, message in status.get("messages") or ():
        if kind == "execution_error":
            text = re.sub(r"\s+", " ", str(message.get("exception_message", ""))).strip()
            return f"node {message.get('node_id')} ({message.get('node_type')}): {text}"
        if kind == "execution_interrupted":
            return "it was stopped on the server"
    return "it failed on the server, which does not say why"
