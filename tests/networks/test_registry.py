import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gfp_core.networks.gfpgan import GFPGAN, GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.networks.registry import ARCHITECTURES, Architecture, build, identify
from gfp_core.networks.state import OwnState


def state_of(net: type[GFPGAN]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return net(out_size=16, num_style_feat=8, narrow=0.03125, num_mlp=1).state_dict()


@pytest.mark.parametrize(
    ("net", "name"),
    [(GFPGANClean, "GFPGANClean"), (GFPGANv1, "GFPGANv1"), (GFPGANBilinear, "GFPGANv1")],
)
def test_found_by_content(net: type[GFPGAN], name: str) -> None:
    assert identify(state_of(net)).name == name
    assert type(build(state_of(net))).__name__ == name


def test_bilinear_when_asked_for() -> None:
    state = state_of(GFPGANBilinear)
    net = build(state, "GFPGANBilinear")
    assert isinstance(net, GFPGANBilinear)
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())


def test_building_copies() -> None:
    state = state_of(GFPGANClean)
    net = build(state)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert state["final_linear.weight"].abs().sum() > 0


def test_building_keeps_the_tensors_of_a_state_that_nobody_else_uses() -> None:
    state = state_of(GFPGANClean)
    net = build(OwnState(state))
    expected = state["final_linear.weight"]
    assert net.get_parameter("final_linear.weight").data_ptr() == expected.data_ptr()
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())


def test_half_precision_becomes_float32_in_a_state_that_nobody_else_uses() -> None:
    state = {key: tensor.half() for key, tensor in state_of(GFPGANClean).items()}
    net = build(OwnState(state))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_every_row_is_reachable_and_has_a_size() -> None:
    names = [row.name for row in ARCHITECTURES]
    assert len(set(names)) == len(names)
    for row in ARCHITECTURES:
        with torch.device("meta"):
            net = row.network()
        assert type(net).__name__ == row.name
        assert row.size is None or getattr(net, row.size) > 0
        assert all(key in net.state_dict() for key in row.signature)
        if not row.only_by_name:
            assert identify(net.state_dict()) is row


def test_an_unknown_dict_names_the_nearest_and_what_differs() -> None:
    state = state_of(GFPGANClean)
    del state["conv_body_first.weight"]
    state["stray"] = torch.zeros(1)
    with pytest.raises(ValueError, match="nearest is GFPGANClean") as error:
        identify(state)
    assert "it lacks 'conv_body_first.weight'" in str(error.value)
    assert "it has besides 'stray'" in str(error.value)


def test_a_foreign_dict() -> None:
    with pytest.raises(ValueError, match="has any of its tensors: 'a', 'b', 'c' and 1 more"):
        identify({name: torch.zeros(1) for name in "abcd"})


def test_gfpgan_1024_is_named() -> None:
    state = {**state_of(GFPGANClean), "final_extend_linear.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"GFPGAN-1024, which takes 512 px.* take gfpgan-1\.4"):
        identify(state)


def test_an_unknown_prefix_is_named() -> None:
    state = {f"gan.net.{key}": tensor for key, tensor in state_of(GFPGANClean).items()}
    with pytest.raises(ValueError, match=r"nearest is GFPGANClean.*begin with 'gan\.net\.'"):
        identify(state)
    state["loose"] = torch.zeros(1)
    with pytest.raises(ValueError, match="has any of its tensors: 'gan"):
        identify(state)
    with pytest.raises(ValueError, match="no known architecture"):
        identify({})


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_hyperparameters_are_told(row: Architecture) -> None:
    with torch.device("meta"):
        state = row.network().state_dict()
        again = row.network(**row.hyperparameters(state)).state_dict()  # type: ignore[call-arg]
    assert {key: again[key].shape for key in again} == {key: state[key].shape for key in state}


def test_a_wrong_architecture() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'gfpgan'.*GFPGANClean"):
        build(state_of(GFPGANClean), "gfpgan")
    with pytest.raises(ValueError, match="taken for GFPGANv1 as asked"):
        build(state_of(GFPGANClean), "GFPGANv1")


def test_no_network_is_taken_for_another(
    official_keys: dict[str, dict[str, tuple[int, ...]]],
) -> None:
    for listing, shapes in official_keys.items():
        state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        rows = [row.name for row in ARCHITECTURES if all(key in state for key in row.signature)]
        kind = re.match("GFPGAN|RestoreFormer|CodeFormer|GPEN|", listing)
        assert kind is not None
        if not kind[0]:
            assert not rows, listing
        families = ("GFPGAN", "RestoreFormer", "HQDictionary", "CodeFormer", "GPEN")
        foreign = [name for name in families if name != kind[0]]
        if kind[0] == "RestoreFormer":
            foreign.remove("HQDictionary")  # the same names and shapes
            assert identify(state).name == listing
        assert not any(row.startswith(name) for row in rows for name in foreign), listing


def test_the_published_tiny_networks(shared_dir: Path) -> None:
    expected = {
        "GFPGANv1Clean": "GFPGANClean",
        "GFPGANv1": "GFPGANv1",
        "GFPGANBilinear": "GFPGANv1",
    }
    folders = sorted((shared_dir / "parity").glob("GFPGAN*"))
    assert folders
    for folder in folders:
        state = load_file(folder / "weights.safetensors")
        assert identify(state).name == expected[folder.name.split("_")[0]]
