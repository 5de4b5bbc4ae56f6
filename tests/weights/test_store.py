"""Where weights are found, without any download."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download

from gfp_core.weights import WeightsError, hashing
from gfp_core.weights.hashing import HashMemory, sha256_of
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights

Make = Callable[..., Weights]


@pytest.mark.parametrize("name", ["net.onnx", "other.onnx", "deep/down/NET.onnx", "net.pth"])
def test_a_file_of_another_pack_is_found_by_its_content(
    name: str, weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert weights().get("net") == path
    assert hub.requests == []


def test_gfpgan_of_another_pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real row, with the hash of the real file: only the hashing is made believe."""
    known = "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad"
    monkeypatch.setattr("gfp_core.weights.hashing.sha256_of", lambda path: known)
    path = folder / "facerestore_models" / "GFPGANv1.4.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert Weights(Settings((folder,))).locate("gfpgan-1.4") == path
    assert Weights(Settings((folder,))).locate("gfpgan-1.3") is None


def test_the_right_name_is_not_enough(
    weights: Make, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / "net.onnx").write_bytes(content[:-1] + b"x")
    assert weights().locate("net") is None
    assert "has the name but not the content of net.onnx" in caplog.text


def test_hidden_folders_and_other_files_are_passed_over(
    weights: Make, folder: Path, content: bytes
) -> None:
    for name in (".gfp-download/net.onnx", ".git/net.onnx", "net.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert weights().locate("net") is None


def test_folders_in_their_order(weights: Make, tmp_path: Path, content: bytes) -> None:
    folders = tuple(tmp_path / name for name in ("first", "second"))
    for place in reversed(folders):
        place.mkdir()
        (place / "net.onnx").write_bytes(content)
    assert weights({"folders": folders}).locate("net") == folders[0] / "net.onnx"
    assert weights({"folders": folders[::-1]}).locate("net") == folders[1] / "net.onnx"


def test_without_a_hash_the_name_decides_and_that_is_said(
    weights: Make, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / "net.onnx").write_bytes(b"anything")
    assert weights(sha256=None, size=None).locate("net") == folder / "net.onnx"
    assert "is used unverified" in caplog.text


def test_the_cache_of_huggingface_hub(
    weights: Make, hub: Any, folder: Path, content: bytes
) -> None:
    cached = hf_hub_download("me/nets", "net.onnx")  # by whatever other program
    asked = len(hub.requests)
    assert weights().get("net") == Path(cached)
    assert len(hub.requests) == asked
    assert not folder.exists()
    # One with other content is not used.
    hub.files["me/nets/net.onnx"] = content + b"more"
    assert weights(sha256="0" * 64).locate("net") is None


def test_a_bundled_file() -> None:
    weights = Weights(Settings(()))
    found = weights.locate("lite")
    if found is None:  # in a source tree before its training
        with pytest.raises(WeightsError, match="missing from the installation"):
            weights.get("lite")
    else:
        assert found == weights.get("lite")
        assert found.name == "lite.safetensors"


def test_commercial_only_hides_the_rest(weights: Make) -> None:
    ours = weights({"commercial_only": True}, commercial="unclear", reason="nobody knows")
    assert {entry.commercial for entry in ours.offered.entries} == {"yes"}
    with pytest.raises(WeightsError, match=r"commercial_only: commercial use is unclear \(nobody"):
        ours.get("net")


def test_a_big_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(hashing, "sha256_of", counted)
    path, memory = tmp_path / "net", tmp_path / "cache" / "hashes.json"
    path.write_bytes(b"1")
    digest = hashlib.sha256(b"1").hexdigest()
    assert HashMemory(memory).sha256_of(path) == digest
    assert HashMemory(memory).sha256_of(path) == digest
    assert len(read) == 1
    path.write_bytes(b"2")
    os.utime(path, ns=(0, 1))
    assert HashMemory(memory).sha256_of(path) == hashlib.sha256(b"2").hexdigest()
    assert len(read) == 2
    # A memory that is broken, or of a file that is gone, does no harm.
    for text in (
        "{",
        "[]",
        '{"a": [1]}',
        '{"files": null}',
        json.dumps({"files": {"/gone": [1, 2, 3, 4, "x"]}}),
    ):
        memory.write_text(text, encoding="utf-8")
        assert HashMemory(memory).sha256_of(path) == hashlib.sha256(b"2").hexdigest()
    assert list(json.loads(memory.read_text(encoding="utf-8"))["files"]) == [str(path)]


def test_a_catalogue_with_a_path_in_it_is_refused_before_anything_is_written(
    weights: Make, hub: Any, tmp_path: Path
) -> None:
    for field, value in (("name", "../net"), ("file", "../../net.onnx"), ("aliases", ["/net"])):
        with pytest.raises(WeightsError, match="bare file name"):
            weights(**{field: value})
    assert hub.requests == []


def test_importing_downloads_nothing_and_needs_no_network(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network at import')\n"
        "socket.socket.connect = refuse\n"
        "import gfp_core.weights.store, gfp_core.weights.resolve\n"
        "assert 'huggingface_hub' not in sys.modules and 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)


def test_verify_of_what_is_not_here(weights: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert weights().verify("net") is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_in_folders_of_weights_are_followed(
    linked: str, weights: Make, folder: Path, content: bytes, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    folder.mkdir()
    (store / "mine.onnx").write_bytes(content)
    (folder / "round").symlink_to(folder)
    if linked == "file":
        (folder / "mine.onnx").symlink_to(store / "mine.onnx")
    else:
        (folder / "sub").symlink_to(store)
    found = weights().locate("net")
    assert found is not None
    assert found.samefile(store / "mine.onnx")
