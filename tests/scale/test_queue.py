"""``gfp queue``: files go to servers, results come back by name, whatever a server does."""

from __future__ import annotations

import email
import errno
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gfp_core.cli import main
from gfp_core.cli import queue as command
from gfp_core.io import atomic
from gfp_core.scale import queue
from gfp_core.scale.queue import Workflow, WorkflowError
from tests.scale.conftest import picture_bytes

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "workflows" / "api" / "restore_a_photo.json"


class Imitation(ThreadingHTTPServer):
    """Answers like ComfyUI: a prompt is done when its history is asked for the second time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.inputs: dict[str, bytes] = {}
        self.prompts: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.deleted: list[str] = []
        self.forgets = self.refuses = self.fails = self.never_ends = self.pages = False
        self.dies_after = 10**9
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Imitation

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        data = b"<html>password?</html>" if self.server.pages else data
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        url, server = urlsplit(self.path), self.server
        if len(server.prompts) > server.dies_after:
            self.answer({}, 503)
        elif url.path == "/system_stats":
            self.answer({})
        elif url.path == "/queue":
            waiting = [] if server.forgets else [[0, prompt] for prompt in server.prompts]
            self.answer({"queue_running": [], "queue_pending": waiting})
        elif url.path == "/view":
            name = parse_qs(url.query)["filename"][0]
            self.answer(b"restored " + server.inputs[name.removesuffix(".out.png")])
        else:
            prompt = url.path.rpartition("/")[2]
            server.looks[prompt] = server.looks.get(prompt, 0) + 1
            if server.looks[prompt] < 2 or server.forgets or server.never_ends:
                self.answer({})
                return
            name = server.prompts[prompt]["1"]["inputs"]["image"].rpartition("/")[2]
            file = {"filename": f"{name}.out.png", "subfolder": "", "type": "output"}
            error = {"node_id": "2", "node_type": "GFP", "exception_message": "odd\n"}
            status: dict[str, Any] = {"status_str": "success", "messages": []}
            if server.fails:
                status = {"status_str": "error", "messages": [["execution_error", error]]}
            outputs = {"3": {"images": [file]}, "4": {"text": ["a report"]}}
            self.answer({prompt: {"status": status, "outputs": outputs}})

    def do_POST(self) -> None:
        body, server = self.rfile.read(int(self.headers["Content-Length"])), self.server
        if self.path == "/upload/image":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = {
                part.get_param("name", header="content-disposition"): part
                for part in email.message_from_bytes(head + body).get_payload()
            }
            name = parts["image"].get_filename()
            server.inputs[name] = parts["image"].get_payload(decode=True)
            folder = parts["subfolder"].get_payload()
            self.answer({"name": name, "subfolder": folder, "type": "input"})
        elif self.path == "/prompt" and server.refuses:
            errors = [{"message": "Value not in list", "details": "model: 'x' not in []"}]
            node = {"class_type": "GFPRestorePhoto", "errors": errors}
            self.answer({"error": {"message": "invalid"}, "node_errors": {"2": node}}, 400)
        elif self.path == "/prompt":
            number = f"{id(server)}-{len(server.prompts)}"
            server.prompts[number] = json.loads(body)["prompt"]
            self.answer({"prompt_id": number, "node_errors": {}})
        else:
            server.deleted += json.loads(body).get("delete", [])
            self.answer({})


@pytest.fixture
def server(monkeypatch) -> Iterator[Imitation]:
    monkeypatch.setattr(queue, "_PAUSE", 0.01)
    imitation = Imitation()
    yield imitation
    imitation.shutdown()
    imitation.server_close()


@pytest.fixture
def second(server) -> Iterator[Imitation]:
    imitation = Imitation()
    yield imitation
    imitation.shutdown()
    imitation.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        path = tmp_path / "in" / str(number % 2) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(number, "JPEG"))
    return tmp_path


def feed(folder: Path, *servers: Any, words: tuple[str, ...] = ()) -> int:
    urls = [getattr(server, "url", server) for server in servers]
    paths = [str(PHOTO), str(folder / "in"), "-o", str(folder / "out")]
    return main(["queue", *paths, "--servers", *urls, *words])


def results(folder: Path) -> dict[str, bytes]:
    paths = sorted((folder / "out").rglob("*.png"))
    return {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in paths}


def expected(folder: Path) -> dict[str, bytes]:
    paths = sorted((folder / "in").rglob("*.jpg"))
    names = [path.relative_to(folder / "in").with_suffix(".png").as_posix() for path in paths]
    return {name: b"restored " + path.read_bytes() for name, path in zip(names, paths, strict=True)}


def test_results_have_the_names_of_their_files(server, folder: Path, capsys) -> None:
    assert feed(folder, server) == 0
    assert results(folder) == expected(folder)
    assert "6 files: 6 done, 0 finished before, 0 failed." in capsys.readouterr().err
    (prompt, *_) = server.prompts.values()
    workflow = json.loads(PHOTO.read_text())
    assert prompt["1"]["inputs"]["image"].startswith("gfp-queue/")
    assert {**prompt, "1": workflow["1"]} == workflow


def test_what_is_finished_is_not_sent_again(server, folder: Path) -> None:
    assert feed(folder, server) == 0
    (folder / "out" / "0" / "0.png").unlink()
    (folder / "in" / "1" / "1.jpg").write_bytes(picture_bytes(99, "JPEG"))
    assert feed(folder, server) == 0
    assert len(server.prompts) == 6 + 2
    assert feed(folder, server, words=("--overwrite",)) == 0
    assert len(server.prompts) == 8 + 6
    assert results(folder) == expected(folder)


def test_files_of_a_lost_server_go_elsewhere(server, second, folder: Path, capsys) -> None:
    second.dies_after = 1
    assert feed(folder, server, second) == 0
    assert results(folder) == expected(folder)
    assert len(second.prompts) == 2
    assert "503; its files go elsewhere" in capsys.readouterr().err


def test_a_server_that_does_not_take_the_workflow_is_left_out(
    server, second, folder: Path, capsys
) -> None:
    second.refuses = True
    assert feed(folder, server, second) == 0
    assert results(folder) == expected(folder)
    assert "node 2 (GFPRestorePhoto): model: 'x' not in []" in capsys.readouterr().err
    server.refuses = True
    assert feed(folder, server, second, words=("--overwrite",)) == 2
    assert "no server takes the workflow" in capsys.readouterr().err


def test_a_file_that_fails_is_named_with_the_reason(server, folder: Path, capsys) -> None:
    server.fails = True
    assert feed(folder, server) == 1
    assert "node 2 (GFP): odd" in capsys.readouterr().err
    assert results(folder) == {}


def test_a_prompt_that_is_forgotten_again_and_again_is_given_up(
    server, folder: Path, capsys
) -> None:
    server.forgets = True
    assert feed(folder, server) == 1
    assert len(server.prompts) == 18
    assert "3 servers did not come to its end" in capsys.readouterr().err


def test_stopping_takes_prompts_out_of_the_queue(server, folder: Path, monkeypatch) -> None:
    server.never_ends = True

    def interrupt(feeder: Any) -> None:
        while len(server.prompts) < 2:
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_next", interrupt)
    assert feed(folder, server) == 130
    assert sorted(server.deleted) == sorted(server.prompts)


def test_a_server_that_is_none_of_comfyui_s_loses_no_file(
    server, second, folder: Path, capsys
) -> None:
    """Such as the page of a proxy that asks for a password, with the status of success."""
    second.pages = True
    assert feed(folder, server, second) == 0
    assert results(folder) == expected(folder)
    assert f"{second.url}/system_stats answers with no JSON" in capsys.readouterr().err


def test_a_result_whose_folder_cannot_be_made_is_its_file_s_error(
    server, folder: Path, capsys
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "1").write_text("a file")
    assert feed(folder, server) == 1
    assert set(results(folder)) == {"0/0.png", "0/2.png", "0/4.png"}
    assert "3 done, 0 finished before, 3 failed" in capsys.readouterr().err


def test_clips_of_one_name_are_refused(server, tmp_path: Path, capsys) -> None:
    """Their results have the ending that the server gives, both the same."""
    workflow = {"1": {"class_type": "LoadVideo", "inputs": {"file": ""}}}
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    (tmp_path / "in").mkdir()
    for name in ("a.mov", "a.mp4"):
        (tmp_path / "in" / name).write_bytes(b"a clip")
    words = ["queue", str(tmp_path / "workflow.json"), str(tmp_path / "in")]
    assert main([*words, "-o", str(tmp_path / "out"), "--servers", server.url]) == 2
    said = capsys.readouterr().err
    assert "a.mov and " in said
    assert f"a.mp4 would both be written to {tmp_path / 'out' / 'a'};" in said
    assert not server.inputs


def test_a_full_disk_stops_the_run(server, folder: Path, monkeypatch, capsys) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", fail)
        assert feed(folder, server) == 3
    assert "The disk is full" in capsys.readouterr().err
    assert feed(folder, server) == 0
    assert results(folder) == expected(folder)


def test_servers_that_do_not_answer_are_named_at_once(folder: Path, capsys) -> None:
    assert feed(folder, "127.0.0.1:9") == 2
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_a_run_that_loses_all_servers_stops(server, folder: Path, monkeypatch, capsys) -> None:
    server.dies_after = 1
    patient = monkeypatch.context
    with patient() as changes:
        changes.setattr(command, "PATIENCE", 0.5)
        assert feed(folder, server) == 1
    assert "The same command goes on with the rest" in capsys.readouterr().err
    server.dies_after = 10**9
    assert feed(folder, server) == 0


@pytest.mark.parametrize("path", sorted((ROOT / "workflows" / "api").glob("*.json")))
def test_our_own_workflows_are_understood(path: Path) -> None:
    prompt = json.loads(path.read_text(encoding="utf-8"))
    loaders = [node for node in prompt.values() if node["class_type"] in queue.LOADERS]
    if len(loaders) != 1:
        with pytest.raises(WorkflowError, match=f"{len(loaders)} nodes that load a file"):
            Workflow.read(path)
        return
    workflow = Workflow.read(path)
    assert workflow.takes_clips == path.name.startswith("video")
    assert workflow.with_file("x")[workflow.node]["inputs"][workflow.input] == "x"


def test_workflows_that_cannot_be_fed_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    for content, reason in (("{", "cannot be read"), ('{"nodes": []}', "Export"), ("{}", "Export")):
        file.write_text(content)
        with pytest.raises(WorkflowError, match=reason):
            Workflow.read(file)
    node = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    file.write_text(json.dumps({"1": node, "7": node}))
    with pytest.raises(WorkflowError, match=r"2 nodes that load a file \(1\.image, 7\.image\)"):
        Workflow.read(file)
    assert Workflow.read(file, "7.image").node == "7"
    with pytest.raises(WorkflowError, match="no node 8"):
        Workflow.read(file, "8.image")
