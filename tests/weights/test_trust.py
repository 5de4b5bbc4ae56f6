"""What is believed: hashes that were computed here, and nothing that a file says of itself."""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfp_core.cli import main
from gfp_core.io.atomic import write_text
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.weights import WeightsError, hashing
from gfp_core.weights.convert import write_safetensors
from gfp_core.weights.hashing import HashMemory
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import STAGING, Weights
from tests import needs

Make = Callable[..., Weights]
SMALL = {"out_size": 8, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}
links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(GFPGANClean(**SMALL).state_dict())


@pytest.fixture
def row(state: dict[str, Tensor], hub: Any, tmp_path: Path) -> dict[str, Any]:
    """A row whose official file is a .pth on the local Hub."""
    torch.save(state, tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    hub.files["me/nets/net.pth"] = content
    return {
        "format": "pytorch",
        "file": "net.pth",
        "role": "restorer",
        "architecture": "GFPGANClean",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sources": [{"repo": "me/nets", "path": "net.pth"}],
    }


def forged(state: dict[str, Tensor], row: dict[str, Any], path: Path) -> None:
    """Write other weights that claim in their metadata to come from the official file."""
    path.parent.mkdir(exist_ok=True)
    metadata = {"source_sha256": row["sha256"], "name": "net", "architecture": "GFPGANClean"}
    write_safetensors({key: tensor + 1 for key, tensor in state.items()}, metadata, path)


@needs.newer_torch
def test_a_file_that_claims_the_hash_of_its_source_is_not_believed(
    weights: Make,
    row: dict[str, Any],
    state: dict[str, Tensor],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = folder / "net.safetensors"
    forged(state, row, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ours = weights(**row)
    assert ours.locate("net") is None
    assert f'converted_sha256 = "{digest}"' in caplog.text
    with pytest.raises(WeightsError, match=r"net\.safetensors: damaged, or another file"):
        ours.verify("net")
    assert ours.get("net") == path  # and is replaced by the true one
    assert hashlib.sha256(path.read_bytes()).hexdigest() != digest
    assert ours.verify("net") == path


def test_a_user_may_vouch_for_a_converted_file_by_its_hash(
    weights: Make, row: dict[str, Any], state: dict[str, Tensor], folder: Path
) -> None:
    path = folder / "NET.safetensors"
    forged(state, row, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights(**row, converted_sha256=digest).locate("net") == path


@needs.newer_torch
def test_what_was_converted_here_is_known_to_the_next_run(
    weights: Make, row: dict[str, Any], hub: Any, folder: Path
) -> None:
    path = weights(**row).get("net")
    hub.requests.clear()
    moved = folder / "elsewhere" / "net.safetensors"
    moved.parent.mkdir()
    path.rename(moved)
    assert weights(**row).get("net") == moved
    assert hub.requests == []


def test_what_several_convert_at_once_is_all_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path, text: str) -> None:
        time.sleep(0.05)
        write_text(path, text)

    monkeypatch.setattr(hashing, "write_text", slowly)
    memory, net = tmp_path / "cache" / "hashes.json", tmp_path / "net"
    net.write_bytes(b"1")
    threads = [
        threading.Thread(target=HashMemory(memory).remember_source, args=(f"made {i}", f"of {i}"))
        for i in range(3)
    ]
    threads.append(threading.Thread(target=HashMemory(memory).sha256_of, args=(net,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = HashMemory(memory)
    assert [after.source_of(f"made {i}") for i in range(3)] == ["of 0", "of 1", "of 2"]
    assert after.remembered(net) == hashlib.sha256(b"1").hexdigest()


def test_other_content_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    memory, path = HashMemory(tmp_path / "hashes.json"), tmp_path / "net"
    path.write_bytes(b"1")
    before = path.stat()
    assert memory.sha256_of(path) == hashlib.sha256(b"1").hexdigest()
    path.write_bytes(b"2")  # in place: the same inode
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memory.sha256_of(path) == hashlib.sha256(b"2").hexdigest()
    (tmp_path / "new").write_bytes(b"3")
    os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(tmp_path / "new", path)  # another inode
    assert memory.sha256_of(path) == hashlib.sha256(b"3").hexdigest()


@links
@pytest.mark.parametrize("kind", ["symbolic", "hard"])
@pytest.mark.parametrize("name", ["net.part", "net.lock", "net.safetensors"])
@needs.newer_torch
def test_nothing_is_written_through_a_link(
    kind: str, name: str, weights: Make, row: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (folder / STAGING).mkdir(parents=True)
    for link in (folder / STAGING / name, folder / "net.safetensors"):
        if not link.exists():
            (os.symlink if kind == "symbolic" else os.link)(victim, link)
    path = weights(**row).get("net")
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert not path.samefile(victim)


@links
def test_a_linked_folder_for_parts_is_not_used(weights: Make, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / STAGING).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="is a link, which is not followed"):
        weights().get("net")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@fifos
@pytest.mark.parametrize("name", ["net.onnx", "other.pth", "net.safetensors"])
def test_a_fifo_in_a_folder_of_weights_is_not_waited_for(
    name: str,
    weights: Make,
    folder: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder.mkdir()
    os.mkfifo(folder / name)
    ours = weights()
    assert ours.locate("net") is None
    monkeypatch.setenv("GFP_CATALOGUE", str(tmp_path / "weights.toml"))
    monkeypatch.setenv("GFP_WEIGHTS_DIR", str(folder))
    assert main(["weights", "list"]) == 0
    assert main(["weights", "where", "net"]) == 1
    assert main(["weights", "verify", "net"]) == 1
    assert main(["weights", "inspect", str(folder / name)]) == 1
    assert ours.get("net").read_bytes() == content


def test_parts_that_nobody_goes_on_from_are_swept(
    weights: Make, folder: Path, content: bytes
) -> None:
    staging = folder / STAGING
    staging.mkdir(parents=True)
    for name in ("old.part", "net.safetensors.part", "fresh.part"):
        (staging / name).write_bytes(b"x")
        if name != "fresh.part":
            os.utime(staging / name, (0, 0))
    weights().get("net")
    assert sorted(path.name for path in staging.glob("*.part")) == ["fresh.part"]


# ------------------------------------------------------------- what must not take all away


@pytest.mark.parametrize(
    "text", ["[[weights]", "[settings]\ncolor = 1", "[[weights]]\nname = '../x'", "\xff"]
)
def test_a_broken_settings_file_is_told_when_weights_are_asked_for(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "weights.toml"
    file.write_text(text, encoding="latin-1")
    environ = {"GFP_CATALOGUE": str(file), "XDG_CACHE_HOME": str(tmp_path)}
    weights = Weights(Settings.load([tmp_path], environ=environ, strict=False))
    assert str(file) in caplog.text
    assert [entry.name for entry in weights.offered.entries][:1] == ["lite"]
    assert weights.get("lite").name == "lite.safetensors"
    with pytest.raises(WeightsError, match=r"weights\.toml"):
        weights.get("gfpgan-1.4")
    with pytest.raises(WeightsError, match=r"weights\.toml"):
        Weights(Settings.load([tmp_path], environ=environ))


def test_a_wrong_variable_is_told_when_weights_are_asked_for(tmp_path: Path) -> None:
    environ = {"GFP_COMMERCIAL_ONLY": "perhaps", "XDG_CACHE_HOME": str(tmp_path)}
    weights = Weights(Settings.load(environ=environ, strict=False))
    with pytest.raises(WeightsError, match="GFP_COMMERCIAL_ONLY must be 1 or 0"):
        weights.get("gfpgan-1.4")


def test_without_a_home_bundled_weights_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    weights = Weights(Settings.load())
    assert weights.settings.folders == ()
    assert weights.get("lite").name == "lite.safetensors"
    with pytest.raises(WeightsError, match=r"none is set.*GFP_WEIGHTS_DIR") as caught:
        weights.get("gfpgan-1.4")
    assert "into a folder named by GFP_WEIGHTS_DIR" in str(caught.value)
    monkeypatch.setenv("GFP_WEIGHTS_DIR", os.pathsep.join(["~/models", str(tmp_path)]))
    assert Settings.load().folders == (tmp_path,)
    assert "~/models: passed over" in caplog.text


@needs.newer_torch
def test_hashes_are_remembered_in_memory_where_no_file_can_be_written(
    weights: Make, row: dict[str, Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    ours = weights(**row)
    path = ours.get("net")
    assert ours.locate("net") == path
    assert "set XDG_CACHE_HOME" in caplog.text
