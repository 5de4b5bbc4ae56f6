import argparse
import collections
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.weights.loading import WeightsError, load_network, load_state_dict
from tests import needs

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def net() -> GFPGANClean:
    torch.manual_seed(0)
    return GFPGANClean(out_size=8, num_style_feat=4, narrow=0.015625, num_mlp=1).eval()


@pytest.fixture(scope="module")
def state(net: GFPGANClean) -> dict[str, Tensor]:
    return {key: tensor.detach() for key, tensor in net.state_dict().items()}


def write_safetensors(content: dict[str, Tensor], path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in content.items()}, path)


def write_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = [write_safetensors, write_zip, write_legacy]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights"])
@needs.newer_torch
def test_found_by_content_whatever_the_name(
    write: Callable[[object, Path], None],
    name: str,
    net: GFPGANClean,
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    write(state, path)
    loaded, metadata = load_state_dict(path)
    assert metadata == {}
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    made = load_network(str(path))
    assert isinstance(made, GFPGANClean)
    assert not made.training
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(made(x), net(x))


def test_metadata_is_returned(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w", metadata={"origin": "a test", "licence": "none"})
    assert load_state_dict(tmp_path / "w")[1] == {"origin": "a test", "licence": "none"}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("wrapper", ["params_ema", "params", "g_ema", "state_dict"])
@needs.newer_torch
def test_official_wrappers(
    write: Callable[[object, Path], None],
    wrapper: str,
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    write({"iter": 5, "optimizer": [], wrapper: state}, tmp_path / "w.pth")
    assert set(load_state_dict(tmp_path / "w.pth")[0]) == set(state)


@needs.newer_torch
def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    content = {"params": {"a": torch.zeros(1)}, "params_ema": {"a": torch.ones(1)}}
    write_zip(content, tmp_path / "w.pth")
    assert load_state_dict(tmp_path / "w.pth")[0]["a"].item() == 1


@needs.newer_torch
def test_prefixes(tmp_path: Path) -> None:
    one = torch.ones(1)
    write_zip({"params": {"module.a": one, "module.b": one}}, tmp_path / "parallel.pth")
    assert set(load_state_dict(tmp_path / "parallel.pth")[0]) == {"a", "b"}
    write_zip({"module.a": one, "b": one}, tmp_path / "mixed.pth")
    assert set(load_state_dict(tmp_path / "mixed.pth")[0]) == {"module.a", "b"}
    content = {"vqvae.a": one, "vqvae.quantize.utility_counter": one, "loss.discriminator.b": one}
    write_zip({"state_dict": content, "epoch": 1}, tmp_path / "lightning.ckpt")
    assert set(load_state_dict(tmp_path / "lightning.ckpt")[0]) == {"a"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_float32(
    dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path
) -> None:
    write_safetensors({key: tensor.to(dtype) for key, tensor in state.items()}, tmp_path / "w")
    loaded, _ = load_state_dict(tmp_path / "w")
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    made = load_network(tmp_path / "w")
    assert {tensor.dtype for tensor in made.state_dict().values()} == {torch.float32}


@needs.newer_torch
def test_integers_stay_integers(tmp_path: Path) -> None:
    write_zip({"bn.num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pth")
    assert load_state_dict(tmp_path / "w.pth")[0]["bn.num_batches_tracked"].dtype == torch.int64


@needs.newer_torch
def test_the_form_of_training_when_asked_for(tmp_path: Path) -> None:
    made = GFPGANBilinear(out_size=8, num_style_feat=4, narrow=0.015625, num_mlp=1)
    write_zip(made.state_dict(), tmp_path / "w.pth")
    assert isinstance(load_network(tmp_path / "w.pth"), GFPGANv1)
    assert isinstance(load_network(tmp_path / "w.pth", "GFPGANBilinear"), GFPGANBilinear)


# ------------------------------------------------------------------------------------ bad files


class Evil:
    """Runs a command when unpickled by the book."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def write_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_a_pickle_with_code_is_refused_and_not_run(
    write: Callable[[object, Path], None], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path, victim = tmp_path / "evil.pth", tmp_path / "victim"
    write({"params_ema": state, "extra": Evil(victim)}, path)
    with pytest.raises(WeightsError, match=r"evil\.pth: .*code"):
        load_network(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(Evil(victim)))  # the trap works
    assert victim.exists()


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read: No such file"):
        load_state_dict(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="a folder"):
        load_state_dict(tmp_path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty\.pth: the file is empty"):
        load_state_dict(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        ("\ufeff<!DOCTYPE html>".encode(), "a web page"),
        (b'{"error": "Repository not found"}', "JSON.*Repository not found"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:" + bytes(200), "an ONNX network.*gfp weights"),
        (b"GGUF\x03\0\0\0" + bytes(40), "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(40), "a gzip archive; unpack it"),
        (b"\x18\0\0\0TFL3" + bytes(40), "a TensorFlow Lite network"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG picture"),
        (bytes(600), "zeros, as a download"),
        (b"Access denied. Try again.\n", "a text: Access denied"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (b"\xf0\xf1\xf2\xf3", "neither safetensors nor a PyTorch file"),
        (b"x", "neither safetensors nor a PyTorch file"),
    ],
)
def test_no_checkpoint(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth: not a checkpoint: {reason}"):
        load_network(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        (torch.ones(1), "holds a Tensor, not a state dict"),
        ({}, "holds no tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "entry 'epoch' is a int, not a tensor"),
        ({5: torch.ones(1)}, "entry '5' is a Tensor"),
        ({"a": torch.eye(3).to_sparse()}, "'a' is sparse"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "'a' is sparse, quantised or complex"),
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@needs.newer_torch
def test_no_state_dict(
    content: object, reason: str, write: Callable[[object, Path], None], tmp_path: Path
) -> None:
    write(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth: .*{reason}"):
        load_network(tmp_path / "w.pth")


@needs.newer_torch
def test_a_dict_that_contains_itself(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["params"] = content
    write_zip(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_network(tmp_path / "w.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite(
    bad: float, dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {key: tensor.to(dtype) for key, tensor in state.items()}
    content["final_conv.bias"] = torch.full_like(content["final_conv.bias"], bad)
    write_safetensors(content, tmp_path / "w")
    with pytest.raises(
        WeightsError, match=r"w: 1 tensors hold NaN or infinity: 'final_conv\.bias'"
    ):
        load_network(tmp_path / "w")


@pytest.mark.parametrize("write", WRITERS)
@needs.newer_torch
def test_missing_extra_and_wrongly_shaped_tensors(
    write: Callable[[object, Path], None], state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    write({key: tensor for key, tensor in state.items() if key != "final_conv.bias"}, path)
    with pytest.raises(WeightsError, match=r"w\.pth: .*tensors missing: 'final_conv\.bias'"):
        load_network(path)
    write({**state, "left.over": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"w\.pth: .*1 tensors too many: 'left\.over'"):
        load_network(path)
    write({**state, "final_conv.bias": torch.ones(9)}, path)
    with pytest.raises(WeightsError, match=r"'final_conv\.bias' is \(9,\) instead of \(4,\)"):
        load_network(path)
    write({"nothing": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"w\.pth: no known architecture"):
        load_network(path)


@needs.newer_torch
def test_unknown_architecture(state: dict[str, Tensor], tmp_path: Path) -> None:
    write_zip(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: unknown architecture 'x'"):
        load_network(tmp_path / "w.pth", "x")


def safetensors_bytes(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


ENTRY = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors_bytes(json.dumps({"a": ENTRY}).encode(), bytes(12), length=2**63),
        safetensors_bytes(json.dumps({"a": ENTRY}).encode(), bytes(12), length=10**6),
        safetensors_bytes(json.dumps({"a": {**ENTRY, "shape": [10**12]}}).encode(), bytes(12)),
        safetensors_bytes(json.dumps({"a": {**ENTRY, "shape": [-3]}}).encode(), bytes(12)),
        safetensors_bytes(json.dumps({"a": {**ENTRY, "dtype": "F99"}}).encode(), bytes(12)),
        safetensors_bytes(
            json.dumps({"a": {**ENTRY, "data_offsets": [0, 2**62]}}).encode(), bytes(12)
        ),
        safetensors_bytes(json.dumps({"a": ENTRY, "b": ENTRY}).encode(), bytes(12)),
        safetensors_bytes(json.dumps({"a": ENTRY}).encode(), bytes(400)),
        safetensors_bytes(b"{not json at all", bytes(12)),
        safetensors_bytes(b"{}", b""),
    ],
)
def test_a_safetensors_header_that_lies(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.safetensors: "):
        load_state_dict(tmp_path / "w.safetensors")


@pytest.mark.parametrize("write", WRITERS)
@given(data=st.data())
@FUZZ
def test_every_truncation_is_one_clear_error(
    write: Callable[[object, Path], None],
    data: st.DataObject,
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut.pth"
    if not whole.exists():
        write(state, whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(WeightsError, match=r"cut\.pth: "):
        load_network(cut)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
@given(data=st.data())
@FUZZ
def test_damage_anywhere_gives_a_network_or_one_clear_error(
    write: Callable[[object, Path], None],
    data: st.DataObject,
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged.pth"
    if not whole.exists():
        write(state, whole)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly where names, shapes and lengths are: at the ends of the file.
        near = data.draw(st.sampled_from([256, 4096, len(content)]))
        place = data.draw(st.integers(0, min(near, len(content)) - 1))
        content[place if data.draw(st.booleans()) else -1 - place] = data.draw(st.integers(0, 255))
    damaged.write_bytes(content)
    message, made = "", None
    try:
        made = load_network(damaged)
    except WeightsError as error:
        message = str(error)
    assert made is not None or message.startswith(str(damaged))
    assert made is None or all(tensor.isfinite().all() for tensor in made.state_dict().values())


# ---------------------------------------------------------------- forms that are no state dict


def zip_of(*names: str, content: bytes = b"\x80\x02}q\0.") -> bytes:
    # One time for all: tests are named by these bytes, and each of pytest's processes makes them.
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zip_of("a/data.pkl", "a/code/net.py", "a/constants.pkl", "a/version"), "a TorchScript"),
        (zip_of("a/data.pkl", "a/constants.pkl", "a/version"), "a TorchScript"),
        (zip_of("constants.pkl", "a/data.pkl"), "a TorchScript"),
        (zip_of("a/data.pkl", "a/code/__torch__.py"), "a TorchScript"),
        (zip_of("a/.data/extern_modules", "a/data.pkl"), "a TorchScript program or package"),
        (zip_of("GFPGANv1.4.pth"), r"a zip archive with GFPGANv1\.4\.pth in it; unpack it"),
        (zip_of("a/b.npy", "c.txt"), "a zip archive of another kind"),
        (zip_of("b.npy", "c.npy"), "a NumPy archive"),
        (zip_of("word/document.xml"), "a zip archive of another kind"),
        (zip_of("a/data.pkl", "b/data.pkl"), "a zip archive of another kind"),
        (zip_of("a/data.pkl") + b"x" * 30, "the archive has no index"),
    ],
)
def test_archives_that_are_no_state_dict_never_reach_pytorch(
    content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("torch.load", "torch.jit.load"):
        monkeypatch.setattr(function, lambda *a, **k: pytest.fail("PyTorch has been asked"))
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth: .*{reason}"):
        load_network(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_real_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(program, tmp_path / "w.pth")
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("PyTorch has been asked"))
    with pytest.raises(WeightsError, match="a TorchScript program"):
        load_network(tmp_path / "w.pth")


@pytest.mark.parametrize("version", ["2.4.0", "2.5.1+cu124"])
def test_an_old_pytorch_reads_safetensors_only(
    version: str, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(state, tmp_path / "zip.pth")
    write_legacy(state, tmp_path / "legacy.pth")
    write_safetensors(state, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("PyTorch has been asked"))
    for name in ("zip.pth", "legacy.pth"):
        with pytest.raises(WeightsError, match=r"PyTorch 2\.[45].*install PyTorch 2\.6 or newer"):
            load_network(tmp_path / name)
    load_network(tmp_path / "w.safetensors")


# ---------------------------------------------------------------- forms that people have


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"net_g_ema": s},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}, "epoch": 3},
        lambda s: {"any_name": s, "epoch": 3},
        lambda s: {"g": {k: v + 1 for k, v in s.items()}, "g_ema": s, "d": {"x": torch.ones(1)}},
        lambda s: {"state_dict": s, "state_dict_ema": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"_orig_mod.{key}": tensor for key, tensor in s.items()},
        lambda s: {f"_orig_mod.module.{key}": tensor for key, tensor in s.items()},
        lambda s: {f"module._orig_mod.{key}": tensor for key, tensor in s.items()},
        lambda s: {f"params_ema.{key}": tensor for key, tensor in s.items()},
        lambda s: {"state_dict": {f"model.{key}": tensor for key, tensor in s.items()}},
        lambda s: {
            "state_dict": {
                **{f"net_g.{key}": tensor + 1 for key, tensor in s.items()},
                **{f"net_g_ema.module.{key}": tensor for key, tensor in s.items()},
                "loss.vgg.weight": torch.ones(3),
            }
        },
        lambda s: {"ema_model": s, "step": torch.tensor(3)}["ema_model"],
        lambda s: {**{f"ema_model.{k}": v for k, v in s.items()}, "step": torch.tensor(3)},
        lambda s: {"params_ema": s, "log": collections.defaultdict(list, a=[1])},
        lambda s: {"params_ema": collections.defaultdict(dict, s)},
        lambda s: {"params_ema": collections.OrderedDict(s), "loss": np.float64(0.1)},
        lambda s: {"params_ema": s, "curve": np.arange(3), "where": Path("x"), "n": np.int64(3)},
        lambda s: {"params_ema": s, "options": argparse.Namespace(scale=1)},
        lambda s: {key: torch.nn.Parameter(tensor) for key, tensor in s.items()},
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
@needs.newer_torch
def test_wrappers_prefixes_and_harmless_objects_beside_are_read(
    wrap: Callable[[dict[str, Tensor]], object],
    write: Callable[[object, Path], None],
    state: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    write(wrap(state), tmp_path / "w.pth")
    loaded = load_state_dict(tmp_path / "w.pth")[0]
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert isinstance(load_network(tmp_path / "w.pth"), GFPGANClean)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_prefixes_in_safetensors(
    dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path
) -> None:
    halves = {f"params_ema.{key}": tensor.to(dtype) for key, tensor in state.items()}
    write_safetensors(halves, tmp_path / "w.safetensors")
    assert isinstance(load_network(tmp_path / "w.safetensors"), GFPGANClean)


@needs.newer_torch
def test_of_several_unnamed_state_dicts_none_is_guessed(tmp_path: Path) -> None:
    one = {"a": torch.ones(1)}
    write_zip({"first": one, "second": one}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="it holds 'first', 'second': save one of these"):
        load_network(tmp_path / "w.pth")


@needs.newer_torch
def test_the_stand_ins_are_gone_after_reading(state: dict[str, Tensor], tmp_path: Path) -> None:
    write_zip({"params_ema": state, "log": collections.defaultdict(list)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    load_state_dict(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="no regular file"):
        load_network(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [torch.ones(1), torch.tensor(float("nan"))])
def test_names_of_tensors_reach_no_terminal_as_they_are(value: Tensor, tmp_path: Path) -> None:
    name = "\x1b[2J\x1b]0;x\x07" + "a" * 1000
    write_zip({name: value}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        load_network(tmp_path / "w.pth")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 900
