"""Downloads by the real huggingface_hub from a local Hub, and everything that can go wrong."""

import errno
import hashlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gfp_core.weights import WeightsError
from gfp_core.weights.store import STAGING, Weights

Make = Callable[..., Weights]
ROOT = Path(__file__).resolve().parents[2]


def staged(folder: Path) -> list[str]:
    """What lies in the folder for unfinished files, but for the lock."""
    return sorted(path.name for path in (folder / STAGING).glob("*") if path.suffix != ".lock")


def in_place(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.is_file())


def check_failed(weights: Weights, folder: Path, *messages: str) -> None:
    """Nothing is in place, and the message says why and what to do."""
    with pytest.raises(WeightsError) as caught:
        weights.get("net")
    text = str(caught.value)
    for message in (*messages, "By hand: download net.onnx (SHA-256 ", str(folder)):
        assert message in text
    assert in_place(folder) == []


def check_works(weights: Weights, folder: Path, content: bytes) -> None:
    path = weights.get("net")
    assert path == folder / "net.onnx"
    assert path.read_bytes() == content
    assert staged(folder) == []


def test_fresh_download(weights: Make, hub: Any, folder: Path, content: bytes) -> None:
    seen: list[tuple[int, int]] = []
    path = weights().get("net", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == content
    assert seen == sorted(seen)
    assert seen[-1] == (len(content), len(content))
    assert in_place(folder) == ["net.onnx"]
    assert staged(folder) == []
    asked = len(hub.requests)
    assert weights().get("net") == path
    assert len(hub.requests) == asked, "nothing is asked for what is there"


def test_the_session_of_an_older_huggingface_hub_serves(
    weights: Make, hub: Any, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its version 1 that is a requests.Session, whose `stream` is a flag, not a method."""
    requests = pytest.importorskip("requests")
    monkeypatch.setattr("huggingface_hub.utils.get_session", requests.Session)
    assert weights().get("net").read_bytes() == content


def test_the_token_goes_to_the_hub_and_nowhere_else(weights: Make, hub: Any) -> None:
    hub.hide_hash = True  # so that the first source is transferred, refused, and the next is asked
    plain = {"url": f"{hub.address}/plain/other/net.onnx"}
    hub.files["other/net.onnx"] = hub.files["me/nets/net.onnx"]
    hub.files["me/nets/net.onnx"] = b"x" * 40_000
    weights(sources=[{"repo": "me/nets", "path": "net.onnx"}, plain]).get("net")
    assert hub.tokens["/me/nets/resolve/main/net.onnx"] == "Bearer hf_secret"
    assert hub.tokens["/cdn/me/nets/net.onnx"] is None
    assert hub.tokens["/plain/other/net.onnx"] is None


def test_of_a_dataset(weights: Make, hub: Any, folder: Path, content: bytes) -> None:
    hub.files = {"datasets/a/b/sub/net.onnx": content}
    source = {"repo": "a/b", "path": "sub/net.onnx", "repo_type": "dataset"}
    check_works(weights(sources=[source]), folder, content)


def test_a_cut_is_gone_on_from_at_once(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    hub.cut_after = [16_000]
    check_works(weights(), folder, content)
    assert hub.transfers() == [None, "bytes=16000-"]


def test_a_cut_is_gone_on_from_by_the_next_run(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    hub.cut_after = [16_000] + [0] * 20  # more often than it is tried without any progress
    check_failed(weights(), folder, "the connection broke")
    hub.cut_after.clear()
    assert (folder / STAGING / "net.part").stat().st_size == 16_000
    hub.requests.clear()
    check_works(weights(), folder, content)
    assert hub.transfers() == ["bytes=16000-"]


def test_a_server_without_ranges_starts_anew(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    hub.cut_after, hub.ranges = [16_000], False
    check_works(weights(), folder, content)


def test_a_rotten_part_costs_a_second_download(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    (folder / STAGING).mkdir(parents=True)
    (folder / STAGING / "net.part").write_bytes(b"rotten" * 1000)
    check_works(weights(), folder, content)
    assert hub.transfers() == ["bytes=6000-", None]


@pytest.mark.parametrize("left", [40_000, 50_000])
def test_a_part_as_long_as_the_file_or_longer(
    left: int, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    (folder / STAGING).mkdir(parents=True)
    (folder / STAGING / "net.part").write_bytes(b"x" * left)
    check_works(weights(), folder, content)
    assert hub.transfers() == [None]


@pytest.mark.parametrize("size", [None, 40_000])
def test_a_complete_part_is_not_downloaded_again(
    size: int | None, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    (folder / STAGING).mkdir(parents=True)
    (folder / STAGING / "net.part").write_bytes(content)
    check_works(weights(size=size), folder, content)
    assert hub.transfers() == []


def test_a_plain_address_of_unknown_size_is_gone_on_from(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    (folder / STAGING).mkdir(parents=True)
    (folder / STAGING / "net.part").write_bytes(content[:9_000])
    source = {"url": f"{hub.address}/plain/me/nets/net.onnx"}
    check_works(weights(size=None, sources=[source]), folder, content)
    assert hub.transfers() == ["bytes=9000-"]


@pytest.mark.parametrize("hidden", [False, True])
def test_wrong_hash(hidden: bool, weights: Make, hub: Any, folder: Path, content: bytes) -> None:
    hub.hide_hash = hidden
    hub.files["me/nets/net.onnx"] = bytes(40_000)
    check_failed(weights(), folder, "holds another file: the SHA-256 is not")
    assert staged(folder) == []
    assert len(hub.transfers()) == (1 if hidden else 0), "a hash the Hub tells saves the transfer"
    hub.files["me/nets/net.onnx"] = content
    check_works(weights(), folder, content)


@pytest.mark.parametrize("length", [39_000, 41_000])
@pytest.mark.parametrize("plain", [False, True])
def test_wrong_size(
    length: int, plain: bool, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    hub.hide_hash = True
    hub.files["me/nets/net.onnx"] = bytes(length)
    address = {"url": f"{hub.address}/plain/me/nets/net.onnx"}
    source = address if plain else {"repo": "me/nets", "path": "net.onnx"}
    check_failed(weights(sources=[source]), folder, str(source.get("url", "me/nets on the Hub")))
    hub.files["me/nets/net.onnx"] = content
    check_works(weights(sources=[source]), folder, content)


def test_wrong_size_is_seen_before_the_transfer(weights: Make, hub: Any, folder: Path) -> None:
    hub.files["me/nets/net.onnx"] = bytes(41_000)
    check_failed(weights(sha256=hashlib.sha256(bytes(41_000)).hexdigest()), folder, "41000 bytes")
    assert hub.transfers() == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "access denied (401): it needs a token (HF_TOKEN)"),
        (403, "access denied (403): accept its terms"),
        (404, "not there (404)"),
        (429, "too many requests (429): try again later"),
        (500, "the server fails (500)"),
    ],
)
@pytest.mark.parametrize("where", ["status", "status_of_body"])
def test_refused(
    status: int, message: str, where: str, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    setattr(hub, where, status)
    check_failed(weights(), folder, message, "me/nets on the Hub, net.onnx at main")
    assert staged(folder) == []
    setattr(hub, where, None)
    check_works(weights(), folder, content)


def test_the_next_source_is_asked(
    weights: Make, hub: Any, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    sources = [
        {"repo": "not/there", "path": "net.onnx"},
        {"url": f"{hub.address}/plain/nor/there"},
        {"repo": "me/nets", "path": "net.onnx"},
    ]
    with caplog.at_level(logging.WARNING, "gfp_core"):
        check_works(weights(sources=sources), folder, content)
    assert "not/there on the Hub" in caplog.text
    assert "/plain/nor/there: not there (404)" in caplog.text


def test_the_last_error_lists_every_source(weights: Make, hub: Any, folder: Path) -> None:
    hub.files.clear()
    plain = f"{hub.address}/plain/net.onnx"
    sources = [{"repo": "a/b", "path": "x/net.onnx", "revision": "v1"}, {"url": plain}]
    check_failed(
        weights(sources=sources),
        folder,
        "a/b on the Hub, x/net.onnx at v1: not there (404)",
        f"{plain}: not there (404)",
        f"{hub.address}/a/b/resolve/v1/x/net.onnx",
        "40000 bytes",
    )


Constant = Callable[[str, object], None]


def test_a_slow_server_is_waited_for(
    weights: Make, hub: Any, folder: Path, content: bytes, constant: Constant
) -> None:
    constant("HF_HUB_DOWNLOAD_TIMEOUT", 5)
    hub.pause, hub.block = 0.05, 4000
    check_works(weights(), folder, content)


def test_a_silent_server_is_given_up(
    weights: Make, hub: Any, folder: Path, content: bytes, constant: Constant
) -> None:
    constant("HF_HUB_ETAG_TIMEOUT", 0.3)
    constant("HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.stall = True
    hub.files["none"] = content
    sources = [{"repo": "me/nets", "path": "net.onnx"}, {"url": f"{hub.address}/plain/none"}]
    check_failed(weights(sources=sources), folder, "no answer in time (HF_HUB_DOWNLOAD_TIMEOUT")
    hub.stall = False
    constant("HF_HUB_ETAG_TIMEOUT", 10)
    constant("HF_HUB_DOWNLOAD_TIMEOUT", 10)
    check_works(weights(), folder, content)


def test_the_server_is_gone(
    weights: Make, hub: Any, folder: Path, content: bytes, constant: Constant
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        path = "/{repo_id}/resolve/{revision}/{filename}"
        constant("HUGGINGFACE_CO_URL_TEMPLATE", nobody + path)
        sources = [{"repo": "me/nets", "path": "net.onnx"}, {"url": f"{nobody}/net.onnx"}]
        check_failed(weights(sources=sources), folder, "net.onnx at main: cannot be reached")
    constant("HUGGINGFACE_CO_URL_TEMPLATE", hub.address + path)
    check_works(weights(), folder, content)


def test_no_room_on_the_disk(
    weights: Make, hub: Any, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
        check_failed(weights(), folder, "the disk has 1 MB free", "67 MB are needed", "make room")
    assert hub.transfers() == []
    assert staged(folder) == []
    check_works(weights(), folder, content)


def test_the_disk_fills_up_meanwhile(
    weights: Make, hub: Any, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("gfp_core.weights.download._Receiver.write", write)
        check_failed(weights(), folder, "the disk is full; make room")
    assert staged(folder) == []
    check_works(weights(), folder, content)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, to whom no folder is read-only."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not read-only on Windows")
def test_a_read_only_folder(
    weights: Make,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as place:
        closed, opened = Path(place, "closed"), Path(place, "open")
        closed.mkdir()
        opened.mkdir()
        os.chmod(place, 0o755)
        os.chmod(closed, 0o555)
        os.chmod(opened, 0o777)
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        weights().get("net")  # so that what is imported late is imported
        alone, both = (weights({"folders": folders}) for folders in ((closed,), (closed, opened)))
        with as_nobody():
            check_failed(alone, closed, "no folder of weights can be written", "Permission denied")
            with caplog.at_level(logging.WARNING, "gfp_core"):
                assert both.get("net").read_bytes() == content
            assert both.locate("net") == opened / "net.onnx"
        assert f"Downloads go to {opened} instead" in caplog.text
        assert in_place(closed) == []


def test_offline(weights: Make, hub: Any, folder: Path, content: bytes, constant: Constant) -> None:
    constant("HF_HUB_OFFLINE", True)
    check_failed(weights(), folder, "HF_HUB_OFFLINE forbids downloads")
    constant("HF_HUB_OFFLINE", False)
    check_failed(weights({"downloads": False}), folder, "downloads are forbidden (GFP_NO_DOWNLOAD)")
    assert hub.requests == []
    check_works(weights(), folder, content)
    constant("HF_HUB_OFFLINE", True)
    check_works(weights({"downloads": False}), folder, content)


def test_without_a_hash_nothing_is_downloaded(weights: Make, hub: Any, folder: Path) -> None:
    with pytest.raises(WeightsError, match="its SHA-256 is not known"):
        weights(sha256=None).get("net")
    assert hub.requests == []


def test_cancelled(weights: Make, hub: Any, folder: Path, content: bytes) -> None:
    class CancelledError(Exception):  # as ComfyUI's was before it derived from BaseException
        pass

    def progress(done: int, total: int) -> None:
        if done >= 20_000:
            raise CancelledError

    with pytest.raises(CancelledError):
        weights().get("net", progress=progress)
    assert in_place(folder) == []
    hub.requests.clear()
    check_works(weights(), folder, content)
    (transfer,) = hub.transfers()
    # From the byte reached: how many come at once is the connection's.
    assert 20_000 <= int(transfer.removeprefix("bytes=").removesuffix("-")) < len(content)


@pytest.fixture
def process(hub: Any, folder: Path, catalogue: Callable[..., Path], tmp_path: Path) -> Any:
    """Starts a process that gets ``net`` from the local Hub, told of it by HF_ENDPOINT."""
    environ = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf-home"),
        "GFP_CATALOGUE": str(catalogue()),
        "GFP_WEIGHTS_DIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    code = (
        "from gfp_core.weights import download; download.BLOCK = 1000\n"
        "from gfp_core.weights.store import Weights; print(Weights().get('net'))"
    )
    started: list[subprocess.Popen[str]] = []

    def start(code: str = code) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        one = subprocess.Popen(
            [sys.executable, "-c", code], env=environ, stdout=pipe, stderr=pipe, text=True
        )
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_two_processes_at_once(process: Any, hub: Any, folder: Path, content: bytes) -> None:
    hub.pause = 0.1
    both = [process(), process()]
    for one in both:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
        assert out.strip() == str(folder / "net.onnx")
    assert (folder / "net.onnx").read_bytes() == content
    assert hub.transfers() == [None], "the second waited and found the file"
    assert staged(folder) == []


def test_killed_while_downloading(
    process: Any, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    hub.pause, hub.block = 0.05, 1000
    one, part = process(), folder / STAGING / "net.part"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        assert one.poll() is None, one.communicate()
        time.sleep(0.01)
    one.send_signal(signal.SIGKILL)
    one.wait()
    assert in_place(folder) == []
    left = part.stat().st_size
    assert 0 < left < len(content)
    hub.pause = 0
    hub.requests.clear()
    check_works(weights(), folder, content)
    assert hub.transfers() == [f"bytes={left}-"]


def slow(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(f"gfp_core.weights.download.{name}", value)


def test_a_source_that_drips_is_given_up_for_the_next(
    weights: Make, hub: Any, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, PATIENCE=0.3, MIN_RATE=10_000)
    hub.files["fast/net.onnx"] = content
    hub.pauses["/cdn/me/nets/net.onnx"] = 0.05
    hub.block = 1
    hub.blocks["/plain/fast/net.onnx"] = 40_000
    fast = {"url": f"{hub.address}/plain/fast/net.onnx"}
    begun = time.monotonic()
    check_works(weights(sources=[{"repo": "me/nets", "path": "net.onnx"}, fast]), folder, content)
    assert time.monotonic() - begun < 10
    last = hub.transfers()[-1]
    assert last is not None, "what came is gone on from"
    assert 0 < int(last.removeprefix("bytes=").removesuffix("-")) < 100


def test_slow_sources_are_named_if_there_is_no_other(
    weights: Make, hub: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.pause, hub.block = 0.05, 1
    slow(monkeypatch, PATIENCE=0.3, MIN_RATE=10_000)
    check_failed(weights(), folder, "net.onnx at main: too slow (0.0 kB a second)")
    slow(monkeypatch, PATIENCE=60, MAX_SECONDS=0.3)
    check_failed(weights(), folder, "net.onnx at main: not done in 0 hours")


def test_a_source_that_gives_a_byte_and_breaks_again_and_again_is_given_up(
    weights: Make, hub: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut_after = [1] * 40_000
    slow(monkeypatch, PATIENCE=0.5)
    check_failed(weights(), folder, "too slow")


def test_a_row_without_size_looks_at_free_space(
    weights: Make, hub: Any, folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [{"url": f"{hub.address}/plain/me/nets/net.onnx"}]
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=64 * 2**20 + 39_999))
        check_failed(weights(size=None, sources=plain), folder, "the disk has 67 MB free")
    assert staged(folder) == []
    hub.hide_length = True
    slow(monkeypatch, MAX_UNKNOWN=39_999)
    check_failed(weights(size=None, sources=plain), folder, "more than 39999 bytes come")
    slow(monkeypatch, MAX_UNKNOWN=40_000, _SPACE_EVERY=10_000)
    calls: list[Path] = []
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: calls.append(path) or usage)
    check_works(weights(size=None, sources=plain), folder, content)
    assert len(calls) >= 4


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_named(
    name: str, weights: Make, hub: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_session() -> None:  # as the HTTP client does when it is made
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setenv(name, "/nowhere/ca.pem")
    monkeypatch.setattr("huggingface_hub.utils.get_session", get_session)
    plain = [{"url": f"{hub.address}/plain/me/nets/net.onnx"}]
    check_failed(
        weights(sources=plain), folder, f"{name} names certificates that are not there (/nowhere/ca"
    )
