import hashlib
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from gfp_core.cli import main
from gfp_core.networks import registry, retinaface
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import BUILT_IN, Entry, read_catalogue
from gfp_core.weights.convert import convert, write_safetensors
from gfp_core.weights.loading import load_network, load_state_dict
from gfp_core.weights.store import STAGING, Weights, read_metadata
from tests import needs

Make = Callable[..., Weights]
SMALL = {"out_size": 8, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}


def entry(**changes: Any) -> Entry:
    fields = {
        "name": "net",
        "role": "restorer",
        "architecture": "GFPGANClean",
        "file": "net.pth",
        "licence": "MIT",
        "commercial": "yes",
        "reason": "a test",
        "origin": "https://example.org/net",
    }
    return Entry(**{**fields, **changes})


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(GFPGANClean(**SMALL).state_dict())


@pytest.mark.parametrize("legacy", [False, True])
@needs.newer_torch
def test_tensors_and_metadata(legacy: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    source, target = tmp_path / "net.pth", tmp_path / "net.safetensors"
    wrapped = {"params_ema": {f"module.{key}": tensor for key, tensor in state.items()}}
    torch.save(wrapped, source, _use_new_zipfile_serialization=not legacy)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert convert(source, target, entry(sha256=digest)) == "GFPGANClean"
    with safe_open(target, "pt") as file:  # the official reader
        assert set(file.keys()) == set(state)
        assert all(torch.equal(file.get_tensor(key), state[key]) for key in state)
        assert file.metadata() == read_metadata(target)
    assert read_metadata(target) == {
        "format": "pt",
        "name": "net",
        "architecture": "GFPGANClean",
        "converter": "gfp 1",
        "source_file": "net.pth",
        "source_sha256": digest,
        "origin": "https://example.org/net",
        "licence": "MIT",
        "commercial_use": "yes: a test",
    }


@needs.newer_torch
def test_the_bytes_do_not_depend_on_order_or_container(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    digests = set()
    for number, keys in enumerate([list(state), list(reversed(state))]):
        source, target = tmp_path / "net.pth", tmp_path / f"{number}.safetensors"
        torch.save(
            {key: state[key] for key in keys}, source, _use_new_zipfile_serialization=bool(number)
        )
        convert(source, target, entry(sha256="0" * 64))
        digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_bytes_are_these_on_every_machine(tmp_path: Path) -> None:
    values = {"b": torch.tensor([1, 2]), "a": torch.tensor([[0.5]]), "c": torch.tensor(True)}
    write_safetensors(values, {"z": "1", "a": "ü"}, tmp_path / "w")
    header = (
        b'{"__metadata__":{"a":"\\u00fc","z":"1"},'
        b'"b":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[1,1],"data_offsets":[16,20]},'
        b'"c":{"dtype":"BOOL","shape":[],"data_offsets":[20,21]}}'
    )
    header += b" " * (-len(header) % 8)
    body = struct.pack("<qqf?", 1, 2, 0.5, True)
    assert (tmp_path / "w").read_bytes() == struct.pack("<Q", len(header)) + header + body
    with safe_open(tmp_path / "w", "pt") as file:
        assert file.get_tensor("b").tolist() == [1, 2]
        assert file.metadata()["a"] == "ü"


DTYPES = [torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda key: key != "__metadata__"),
        st.tuples(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(DTYPES)),
    ),
    st.dictionaries(st.text(), st.text()),
)
def test_the_official_reader_gives_back_what_was_written(
    tensors: dict[str, tuple[list[int], torch.dtype]], metadata: dict[str, str]
) -> None:
    numbers = torch.Generator().manual_seed(0)
    values = {
        key: torch.randint(0, 100, shape, generator=numbers).to(dtype).transpose(0, -1)
        if shape
        else torch.tensor(7).to(dtype)
        for key, (shape, dtype) in tensors.items()
    }
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "w")
        write_safetensors(values, metadata, path)
        with safe_open(path, "pt") as file:
            assert set(file.keys()) == set(values)
            assert (file.metadata() or {}) == metadata == read_metadata(path)
            for key, value in values.items():
                assert file.get_tensor(key).dtype == value.dtype
                assert torch.equal(file.get_tensor(key), value)


@needs.newer_torch
def test_the_form_that_keys_cannot_tell_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(GFPGANv1(**SMALL).state_dict(), tmp_path / "net.pth")
    kinds = {"GFPGANv1": GFPGANv1, "GFPGANBilinear": GFPGANBilinear}
    for name, kind in kinds.items():
        target = tmp_path / f"{name}.safetensors"
        convert(tmp_path / "net.pth", target, entry(architecture=name))
        assert type(load_network(target)) is kind


CODECS = {
    name: {"ch": 32, "ch_mult": (1, 1, 1, 1, 1, 1), "num_res_blocks": 1, "n_embed": 16}
    for name in ("RestoreFormer", "RestoreFormerPlusPlus", "CodeFormer")
}


def codec(name: str, **size: Any) -> torch.nn.Module:
    """A network of a codebook, with random weights."""
    torch.manual_seed(0)
    network: Any = next(row.network for row in registry.ARCHITECTURES if row.name == name)
    return network(**size)


def converts(name: str, content: Any, state: dict[str, Tensor], folder: Path) -> None:
    """A file is converted with the catalogue's row and without it, to the tensors in it."""
    row = next(row for row in read_catalogue(BUILT_IN).entries if row.architecture == name)
    torch.save(content, folder / row.file)
    for known in (row, None):
        target = folder / "net.safetensors"
        assert convert(folder / row.file, target, known) == name
        net = load_network(target)
        assert type(net).__name__ == name
        assert net.state_dict().keys() == state.keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", CODECS)
@needs.newer_torch
def test_networks_of_a_codebook_as_they_are_published(name: str, tmp_path: Path) -> None:
    state = dict(codec(name, **CODECS[name]).state_dict())
    converts(name, {"params_ema": state}, state, tmp_path)
    first = next(iter(state))
    torch.save({key: state[key] for key in state if key != first}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=rf"net\.pth: not {name}: .*missing"):
        convert(tmp_path / "net.pth", tmp_path / "w", entry(architecture=name))
    if name == "CodeFormer":
        return
    counter = torch.zeros(16, dtype=torch.int32)
    inside = {f"vqvae.{key}": tensor for key, tensor in state.items()}
    inside |= {"vqvae.quantize.utility_counter": counter, "loss.discriminator.w": torch.ones(1)}
    checkpoint = {"state_dict": inside, "epoch": 3, "global_step": 9, "callbacks": {}}
    converts(name, checkpoint, state, tmp_path)
    converts(name, {**state, "quantize.utility_counter": counter}, state, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wrapper", "prefix"),
    [
        ("RestoreFormer", "params_ema", ""),
        ("RestoreFormer", "state_dict", "vqvae."),
        ("RestoreFormerPlusPlus", "state_dict", "vqvae."),
    ],
)
def test_in_full_size(name: str, wrapper: str, prefix: str, tmp_path: Path) -> None:
    state = dict(codec(name).state_dict())
    content = {wrapper: {f"{prefix}{key}": tensor for key, tensor in state.items()}}
    converts(name, content, state, tmp_path)


@needs.newer_torch
def test_another_architecture_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    source, target = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(state, source)
    for name in ("GFPGANv1", "retinaface_mobile025", "BiSeNet"):
        with pytest.raises(WeightsError, match=rf"net\.pth: not {name}"):
            convert(source, target, entry(architecture=name))
    torch.save({"a": torch.zeros(1)}, source)
    with pytest.raises(WeightsError, match="no known architecture"):
        convert(source, target)
    assert not target.exists()


@needs.newer_torch
def test_a_detector(tmp_path: Path) -> None:
    torch.save(retinaface.build("retinaface_mobile025").state_dict(), tmp_path / "net.pth")
    assert convert(tmp_path / "net.pth", tmp_path / "w") == "retinaface_mobile025"
    retinaface.from_state_dict(load_state_dict(tmp_path / "w")[0])
    with pytest.raises(WeightsError, match="those of retinaface_mobile025"):
        convert(tmp_path / "net.pth", tmp_path / "x", entry(architecture="retinaface_resnet50"))


@needs.newer_torch
def test_what_cannot_be_checked_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "w", entry(architecture="NotYetThere"))
    assert "no network NotYetThere to check the tensors against" in caplog.text


class Evil:
    """Makes a file when unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def pth_row(path: Path, **changes: Any) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "format": "pytorch",
        "file": "net.pth",
        "role": "restorer",
        "architecture": "GFPGANClean",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sources": [{"repo": "me/nets", "path": "net.pth"}],
        **changes,
    }


@pytest.mark.parametrize("legacy", [False, True])
@needs.newer_torch
def test_code_in_a_pickle_is_not_run(
    legacy: bool, weights: Make, hub: Any, folder: Path, tmp_path: Path
) -> None:
    source, trap = tmp_path / "net.pth", tmp_path / "trap"
    torch.save({"a": Evil(trap)}, source, _use_new_zipfile_serialization=not legacy)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    with pytest.raises(WeightsError, match="holds code"):
        weights(**pth_row(source)).get("net")
    assert not trap.exists()
    assert not list(folder.glob("*.*t*"))
    pickle.loads(pickle.dumps(Evil(trap)))  # the trap does work
    assert trap.exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w") as entry:
            for _ in range(64):
                entry.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(WeightsError, match="unpack to 671"):
        load_state_dict(path)


@needs.newer_torch
def test_a_tensor_that_claims_a_terabyte_is_not_made(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**38)}, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    with pytest.raises(WeightsError, match="far larger than the file, at 'a'"):
        load_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        [1, 2],
    ],
)
@needs.newer_torch
def test_a_safetensors_header_that_lies(
    header: Any, weights: Make, hub: Any, folder: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    text = json.dumps(header).encode()
    lying = struct.pack("<Q", len(text)) + text + bytes(4)
    (tmp_path / "lying").write_bytes(lying)
    with pytest.raises(WeightsError, match=r"damaged or truncated safe|neither safetensors"):
        load_state_dict(tmp_path / "lying")
    # In the place of the converted file it is passed over, and replaced.
    source = tmp_path / "net.pth"
    torch.save(state, source)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    folder.mkdir()
    (folder / "net.safetensors").write_bytes(lying)
    path = weights(**pth_row(source)).get("net")
    assert set(load_state_dict(path)[0]) == set(state)


def test_a_header_longer_than_the_file(tmp_path: Path) -> None:
    for length in (100, 2**31, 2**63):
        (tmp_path / "w").write_bytes(struct.pack("<Q", length) + b'{"a":1}')
        assert read_metadata(tmp_path / "w") == {}
        with pytest.raises(WeightsError, match="damaged or truncated safetensors"):
            load_state_dict(tmp_path / "w")


@needs.newer_torch
def test_downloaded_and_converted_once(
    weights: Make, hub: Any, folder: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    source = tmp_path / "net.pth"
    torch.save(state, source)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    ours = weights(**pth_row(source))
    path = ours.get("net")
    assert path == folder / "net.safetensors"
    assert sorted(one.name for one in folder.iterdir()) == [STAGING, "net.safetensors"]
    assert [one.name for one in (folder / STAGING).iterdir()] == ["net.lock"]
    assert isinstance(load_network(path), GFPGANClean)
    asked = len(hub.requests)
    assert weights(**pth_row(source)).get("net") == path
    assert len(hub.requests) == asked
    assert ours.verify("net") == path

    # The converted file, published, is what the next machine downloads first.
    converted = path.read_bytes()
    hub.files = {"my/converted/net.safetensors": converted}
    path.unlink()
    digest = hashlib.sha256(converted).hexdigest()
    row = pth_row(source, converted_sha256=digest, converted_size=len(converted))
    other = weights({"hub_repo": "my/converted", "folders": (folder,)}, **row)
    assert other.get("net").read_bytes() == converted

    # Without its hash the project's repository is not believed.
    path.unlink()
    hub.requests.clear()
    with pytest.raises(WeightsError, match="not asked, for the hash of what it holds is not known"):
        weights({"hub_repo": "my/converted"}, **pth_row(source)).get("net")
    assert hub.transfers() == []


@needs.newer_torch
def test_the_commands_from_download_to_verification(
    hub: Any,
    folder: Path,
    catalogue: Callable[..., Path],
    state: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "net.pth"
    torch.save(state, source)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    monkeypatch.setenv("GFP_CATALOGUE", str(catalogue(**pth_row(source))))
    monkeypatch.setenv("GFP_WEIGHTS_DIR", str(folder))
    assert main(["weights", "get", "net", "--no-download"]) == 1
    assert hub.requests == []
    assert main(["weights", "get", "net", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{folder / 'net.safetensors'}\n"
    assert main(["weights", "verify", "net"]) == 0
    (folder / "net.safetensors").write_bytes(b"not the file any more")
    assert main(["weights", "verify", "net"]) == 1


@needs.newer_torch
def test_a_changed_byte_is_noticed(
    weights: Make, hub: Any, state: dict[str, Tensor], tmp_path: Path
) -> None:
    source = tmp_path / "net.pth"
    torch.save(state, source)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    ours = weights(**pth_row(source))
    path = ours.get("net")
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a rotting disk does
    with pytest.raises(WeightsError, match=r"damaged, or.*its SHA-256.*gfp weights get net"):
        ours.verify("net")


@pytest.mark.slow
def test_killed_while_converting(
    weights: Make, hub: Any, folder: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    source = tmp_path / "net.pth"
    torch.save(state, source)
    hub.files["me/nets/net.pth"] = source.read_bytes()
    ours = weights(**pth_row(source))
    code = (
        "import os, signal, gfp_core.io.atomic as atomic, gfp_core.weights.convert\n"
        # Killed at the last moment: all is written but nothing is known to be on the disk.
        "atomic.os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from gfp_core.weights.store import Weights; Weights().get('net')"
    )
    environ = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hf-home"),
        "GFP_CATALOGUE": str(tmp_path / "weights.toml"),
        "GFP_WEIGHTS_DIR": str(folder),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    killed = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=240
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [one.name for one in folder.iterdir()] == [STAGING]
    [half] = (folder / STAGING).glob(".gfp-*.part")
    half.write_bytes(half.read_bytes()[:1000])  # what was not on the disk is lost
    hub.requests.clear()
    path = ours.get("net")
    assert hub.transfers() == [], "the download is not done again"
    assert np.array_equal(*[one["final_linear.bias"] for one in (load_state_dict(path)[0], state)])
    assert [one.name for one in (folder / STAGING).iterdir()] == ["net.lock"]
