import ast
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfp_core.networks.gpen import GPEN, infer_hyperparameters
from gfp_core.networks.registry import build, identify

SMALL = {"out_size": 32, "num_style_feat": 16, "narrow": 0.03125, "num_mlp": 2}
RELEASES = {
    256: {"channel_multiplier": 1, "narrow": 0.5},
    512: {},
    1024: {},
    2048: {},
}


def release(size: int) -> GPEN:
    with torch.device("meta"):
        return GPEN(size, **RELEASES[size])  # type: ignore[arg-type]


def small(seed: int = 0, **arguments: object) -> GPEN:
    """A small network whose every parameter counts (strengths and biases are not zero)."""
    torch.manual_seed(seed)
    made = GPEN(**{**SMALL, **arguments})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def test_equals_the_published_network(shared_dir: Path) -> None:
    folder = shared_dir / "parity" / "GPEN_c2"
    state = load_file(folder / "weights.safetensors")
    io = load_file(folder / "io.safetensors")
    meta = json.loads((folder / "meta.json").read_text())["hyperparameters"]
    assert infer_hyperparameters(state) == {
        "out_size": meta["size"],
        "num_style_feat": meta["style_dim"],
        "channel_multiplier": meta["channel_multiplier"],
        "num_mlp": meta["n_mlp"],
        "narrow": meta["narrow"],
    }
    net = build(state)
    assert isinstance(net, GPEN)
    with torch.inference_mode():
        error = (net(io["input"]) - io["output"]).abs()
    scale = max(1.0, io["output"].abs().max().item())
    assert error.max().item() <= 1e-5 * scale
    assert error.mean().item() <= 1e-6 * scale


@pytest.mark.parametrize("size", RELEASES)
def test_keys_and_shapes_of_the_releases(size: int, shared_dir: Path) -> None:
    listing = (shared_dir / "parity" / "keys" / f"GPEN_{size}.txt").read_text()
    lines = (line.split("\t") for line in listing.splitlines() if line.count("\t") == 2)
    expected = {key: ast.literal_eval(shape) for key, shape, _ in lines}
    state = release(size).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected
    assert identify(state).name == "GPEN"
