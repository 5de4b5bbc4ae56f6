"""GPEN's checkpoints: the releases are bare, those one trains hold the network under ``g_ema``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfp_core.networks.gpen import GPEN
from gfp_core.weights import WeightsError
from gfp_core.weights.convert import convert
from gfp_core.weights.loading import load_network
from gfp_core.weights.store import Weights, read_metadata

pytest.importorskip("gfp_core.color")  # a step of the pipeline
from gfp_core.pipeline import find_model
from tests import needs

Make = Callable[..., Weights]
SMALL = {"out_size": 16, "num_style_feat": 8, "narrow": 0.015625, "num_mlp": 2}


def made(**arguments: Any) -> GPEN:
    torch.manual_seed(0)
    return GPEN(**arguments)


def bare(net: GPEN) -> dict[str, Any]:
    return net.state_dict()


def trained(net: GPEN) -> dict[str, Any]:
    """As a training run saves it: other networks and optimizers beside the averaged generator."""
    other = {key: torch.zeros_like(tensor) for key, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters())
    return {"g": other, "d": {"w": torch.zeros(1)}, "g_ema": net.state_dict(), "iter": 7} | {
        "g_optim": optimizer.state_dict()
    }


def same(net: object, state: dict[str, Tensor]) -> bool:
    assert isinstance(net, GPEN)
    found = net.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


@pytest.mark.parametrize("wrap", [bare, trained])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        SMALL,
        pytest.param(  # the full size of the 256 px release
            {"out_size": 256, "channel_multiplier": 1, "narrow": 0.5}, marks=pytest.mark.slow
        ),
    ],
)
@needs.newer_torch
def test_converted(
    arguments: dict[str, Any],
    legacy: bool,
    wrap: Callable[[GPEN], dict[str, Any]],
    tmp_path: Path,
) -> None:
    net = made(**arguments)
    source, target = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(wrap(net), source, _use_new_zipfile_serialization=not legacy)
    assert convert(source, target) == "GPEN"
    assert read_metadata(target)["architecture"] == "GPEN"
    loaded = load_network(target)
    assert same(loaded, net.state_dict())
    assert loaded.out_size == arguments["out_size"]
    assert same(load_network(source), net.state_dict())


@needs.newer_torch
def test_found_by_name_in_the_users_folder(weights: Make, folder: Path) -> None:
    folder.mkdir()
    net = made(**SMALL)
    torch.save(net.state_dict(), folder / "GPEN-BFR-256.pth")
    ours = weights()
    path, architecture = find_model("gpen-256", ours)
    assert (path, architecture) == (folder / "GPEN-BFR-256.pth", "GPEN")
    assert same(load_network(path, architecture), net.state_dict())


@pytest.mark.parametrize("size", [256, 512, 1024, 2048])
def test_off_under_commercial_only(size: int, weights: Make) -> None:
    assert weights().find(f"GPEN-BFR-{size}.pth").name == f"gpen-{size}"
    with pytest.raises(WeightsError, match="hidden by the setting commercial_only"):
        weights({"commercial_only": True}).find(f"gpen-{size}")


def test_never_downloaded_without_a_hash(weights: Make, hub: Any) -> None:
    with pytest.raises(WeightsError, match="gpen-1024"):
        weights().get("gpen-1024")
    assert hub.requests == []
