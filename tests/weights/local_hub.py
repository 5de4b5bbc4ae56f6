"""A Hub on 127.0.0.1: as much of its HTTP interface as huggingface_hub uses, and its faults.

A file is ``hub.files["owner/name/path"]``; it answers at ``/owner/name/resolve/main/path`` (with
``datasets/`` before it for a dataset) as the Hub does: HEAD tells size, hash and commit and
redirects to another address, which serves ranges. Plain files for ``url`` sources are served under
``/plain/``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """The server's state: its files, its faults, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    """Answer everything with this status."""
    status_of_body: int | None = None
    """Answer only the transfer itself with this status."""
    cut_after: list[int] = field(default_factory=list)
    """Break the connection of the next transfers after so many bytes each."""
    pause: float = 0.0
    """Seconds between blocks of `block` bytes."""
    block: int = 4096
    stall: bool = False
    """Send the head of an answer and then nothing."""
    pauses: dict[str, float] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    """`pause` and `block` of single paths."""
    hide_length: bool = False
    """Do not say how long a transfer is."""
    ranges: bool = True
    hide_hash: bool = False
    """Give an ETag that is not the file's hash, and no size."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range header) of all requests."""
    tokens: dict[str, str | None] = field(default_factory=dict)
    """Authorization header of the last request, by path."""
    commits: dict[str, bytes] = field(default_factory=dict)
    """What was uploaded: the body of commits and of files, by path."""
    closed: threading.Event = field(default_factory=threading.Event)

    def transfers(self) -> list[str | None]:
        """The Range headers of all transfers."""
        return [
            asked
            for method, path, asked in self.requests
            if method == "GET" and path.startswith(("/cdn/", "/plain/"))
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""

    def _noted(self) -> str:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        self.hub.tokens[self.path] = self.headers.get("Authorization")
        return self.path.split("?")[0]

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._resolve(self._noted())

    def do_GET(self) -> None:
        path = self._noted()
        if path.startswith(("/cdn/", "/plain/")):
            self._transfer(path)
        else:
            self._resolve(path)

    def _resolve(self, path: str) -> None:
        hub = self.hub
        if hub.stall:
            hub.closed.wait(20)
        if hub.status is not None:
            self._answer(hub.status)
            return
        match = re.fullmatch(r"/(.+)/resolve/main/(.+)", path)
        name = f"{match[1]}/{match[2]}" if match else ""
        if name not in hub.files:
            self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        content = hub.files[name]
        digest = hashlib.sha256(content).hexdigest()
        told = {} if hub.hide_hash else {"X_Linked_Size": str(len(content))}
        self._answer(
            302,
            Location=f"{hub.address.replace('127.0.0.1', 'localhost')}/cdn/{name}",
            X_Repo_Commit=COMMIT,
            X_Linked_ETag='"abc"' if hub.hide_hash else f'"{digest}"',
            **told,
        )

    def _transfer(self, path: str) -> None:
        hub = self.hub
        content = hub.files.get(path.removeprefix("/cdn/").removeprefix("/plain/"))
        status = hub.status if hub.status is not None else hub.status_of_body
        if status is not None or content is None:
            self._answer(404 if status is None else status)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked and hub.ranges else 0
        if start and start >= len(content):
            self._answer(416)
            return
        self.send_response(206 if asked and hub.ranges else 200)
        if asked and hub.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if hub.hide_length:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        pause, block = hub.pauses.get(path, hub.pause), hub.blocks.get(path, hub.block)
        if hub.stall:
            hub.closed.wait(20)
        end = start + hub.cut_after.pop(0) if hub.cut_after else len(content)
        for first in range(start, min(end, len(content)), block):
            try:
                self.wfile.write(content[first : min(first + block, end)])
            except OSError:  # given up by the other side
                self.close_connection = True
                return
            if pause:
                time.sleep(pause)
        if end < len(content) or hub.hide_length:
            self.close_connection = True

    # What publishing asks for: https://huggingface.co/docs/hub/api
    def do_POST(self) -> None:
        path = self._noted()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.status is not None:
            self._answer(self.hub.status)
            return
        if path == "/api/repos/create":
            answer = {
                "url": f"{self.hub.address}/me/weights",
                "name": "me/weights",
                "id": "me/weights",
            }
        elif path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            answer = {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in files
                ]
            }
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            answer = {
                "transfer": "basic",
                "objects": [
                    {
                        **one,
                        "actions": {"upload": {"href": f"{self.hub.address}/put/{one['oid']}"}},
                    }
                    for one in objects
                ],
            }
        elif "/commit/" in path:
            self.hub.commits["commit"] = body
            answer = {
                "commitUrl": f"{self.hub.address}/me/weights/commit/{COMMIT}",
                "commitOid": COMMIT,
                "hookOutput": "",
            }
        else:
            self._answer(404)
            return
        self._answer(200, json.dumps(answer).encode(), Content_Type="application/json")

    def do_PUT(self) -> None:
        path = self._noted()
        self.hub.commits[path] = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(200)


@contextmanager
def serving() -> Iterator[LocalHub]:
    """Run a Hub for the time of the block."""
    hub = LocalHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
