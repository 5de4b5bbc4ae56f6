"""Checkpoints as other programs save them, for every network: the names alone are looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gfp_core.detect import load_detector
from gfp_core.embed import load_embedder
from gfp_core.networks import parsing, registry, retinaface
from gfp_core.parse import load_parser
from gfp_core.weights import WeightsError, loading
from gfp_core.weights.loading import load_network, read_checkpoint
from tests import needs

State = dict[str, Tensor]
TWINS = {"GFPGANBilinear": "GFPGANv1", "HQDictionary": "RestoreFormer"}
"""Networks whose tensors' names are those of another, for which they are taken."""


def family(names: Mapping[str, Tensor]) -> State:
    """One number a tensor: what a file is does not depend on shapes."""
    return {name: torch.full((1,), float(index % 7)) for index, name in enumerate(names)}


@pytest.fixture(scope="module")
def families() -> dict[str, State]:
    with torch.device("meta"):
        nets: dict[str, torch.nn.Module] = {
            **{row.name: row.network() for row in registry.ARCHITECTURES},
            **{name: parsing.build(name) for name in parsing.NAMES},
            **{name: retinaface.build(name) for name in retinaface.NAMES},
        }
    return {name: family(net.state_dict()) for name, net in nets.items()}


def identify(state: State) -> str:
    return retinaface.identify(state) or parsing.identify(state) or registry.identify(state).name


def raw(state: State) -> State:
    """What is not to be taken where averages are there."""
    return {name: tensor + 100 for name, tensor in state.items()}


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
OTHER = {"conv.weight": torch.ones(2)}

FORMS: dict[str, Callable[[State], Any]] = {
    "bare": lambda s: s,
    "DataParallel": lambda s: below("module.", s),
    "DataParallel in params_ema": lambda s: {"params_ema": below("module.", s)},
    "compiled and parallel": lambda s: below("_orig_mod.module.", s),
    "BasicSR": lambda s: {"params": raw(s), "params_ema": s},
    "params_ema in params": lambda s: {"params_ema": {"params": s}},
    "both in state_dict": lambda s: {"state_dict": {"params": raw(s), "params_ema": s}},
    "both in net_g": lambda s: {"net_g": {"params": raw(s), "params_ema": s}, "net_d": OTHER},
    "Lightning": lambda s: {
        "state_dict": below("model.", s),
        "epoch": 1,
        "optimizer_states": [OPTIMIZER],
        "callbacks": {},
    },
    "Lightning with a metric": lambda s: {
        "state_dict": {**below("model.", s), **below("lpips.net.", OTHER)}
    },
    "Lightning with a discriminator": lambda s: {
        "state_dict": {**below("net_g.", s), **below("net_d.", OTHER)}
    },
    "Lightning with averages": lambda s: {
        "state_dict": {**below("model.", raw(s)), **below("model_ema.", s)}
    },
    "Lightning with timm's averages": lambda s: {
        "state_dict": {**below("net.", raw(s)), **below("ema.module.", s)}
    },
    "torch.optim.swa_utils": lambda s: {"n_averaged": torch.tensor(3), **below("module.", s)},
    "a wrapper of averages": lambda s: {"averaged_model": s, "model": raw(s)},
    "ema_pytorch": lambda s: {
        "initted": torch.tensor(True),
        "step": torch.tensor(3),
        **below("online_model.", raw(s)),
        **below("ema_model.", s),
    },
    "a training's file": lambda s: {"model": raw(s), "ema": s, "optimizer": OPTIMIZER, "step": 3},
    "rosinality": lambda s: {"g": raw(s), "g_ema": s, "d": OTHER, "g_optim": OPTIMIZER},
    "generator": lambda s: {"generator": s, "discriminator": OTHER},
    "netG": lambda s: {"netG": s, "netD": OTHER},
    "netG_state_dict": lambda s: {"netG_state_dict": s, "netD_state_dict": OTHER, "opt": OPTIMIZER},
    "teacher": lambda s: {"student": raw(s), "teacher": s},
    "teacher in names": lambda s: {**below("student.", raw(s)), **below("teacher.", s)},
    "torch_ema": lambda s: {"ema": {"shadow_params": list(s.values())}, "state_dict": s},
}


@pytest.mark.parametrize("form", FORMS)
@needs.newer_torch
def test_every_network_is_found_in_every_form(
    form: str, families: dict[str, State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    for name, state in families.items():
        content = FORMS[form](state)
        if name == "GFPGANLite":  # one goes through a file, which takes ten times as long
            monkeypatch.undo()
            torch.save(content, path)
        else:
            path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
            monkeypatch.setattr(loading, "load_pickle", lambda *_, it=content: it)
        found = read_checkpoint(path).state
        assert identify(found) == TWINS.get(name, name), name
        assert found.keys() == state.keys(), name
        assert all(torch.equal(found[key], tensor) for key, tensor in state.items()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "params_ema."])
def test_every_network_is_found_in_half_precision(
    prefix: str, dtype: torch.dtype, families: dict[str, State], tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    for name, state in families.items():
        save_file({prefix + key: tensor.to(dtype) for key, tensor in state.items()}, path)
        checkpoint = read_checkpoint(path)
        assert identify(checkpoint.state) == TWINS.get(name, name), name
        assert checkpoint.state.keys() == state.keys(), name
        assert {tensor.dtype for tensor in checkpoint.state.values()} == {torch.float32}


@pytest.mark.parametrize(
    "content",
    [OPTIMIZER, {"optimizer_state_dict": OPTIMIZER, "epoch": 3}, {"g_optim": OPTIMIZER}],
)
@needs.newer_torch
def test_an_optimizer_alone_is_named(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: what an optimizer needs .* take the file of"):
        load_network(tmp_path / "w.pth")


@needs.newer_torch
def test_averages_without_names_are_left_out_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"a": torch.ones(1)}
    torch.save({"ema": {"shadow_params": [torch.zeros(1)]}, "state_dict": state}, tmp_path / "w")
    assert read_checkpoint(tmp_path / "w").state["a"] == 1
    assert "the averages under 'ema' are a list without names and left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b'{"error": "Repository not found"}', "JSON"),
        (b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_detector, "yunet.onnx"),
        (load_detector, "blazeface.tflite"),
        (load_parser, "mesh.onnx"),
        (load_parser, "mesh.tflite"),
    ],
)
def test_what_stands_in_the_place_of_a_graph_is_named(
    load: Callable[..., object], name: str, content: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: no ONNX or TensorFlow Lite network: {what}"):
        load(path=tmp_path / name)


@pytest.mark.parametrize("name", ["auraface.onnx", "descriptor.pth"])
def test_what_stands_in_the_place_of_an_embedder_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(WeightsError, match=rf"{name}: no ONNX or TensorFlow Lite .* a web page"):
        load_embedder(tmp_path / name)
