import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gfp_core.networks.gpen import GPEN, infer_hyperparameters
from gfp_core.networks.registry import ARCHITECTURES, build, identify

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
def test_keys_and_shapes_of_the_releases(
    size: int, official_keys: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    state = release(size).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == official_keys[
        f"GPEN_{size}"
    ]
    assert identify(state).name == "GPEN"


@pytest.mark.parametrize(
    ("size", "parameters", "operations"),
    [
        (256, 18_879_010, 17_406_768_128),
        (512, 71_005_223, 276_220_915_712),
        (1024, 71_210_540, 346_620_474_368),
        (2048, 71_294_769, 419_972_691_456),
    ],
)
def test_parameters_and_operations(size: int, parameters: int, operations: int) -> None:
    net = release(size).requires_grad_(False)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    assert counter.get_total_flops() == operations


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"out_size": 8, "num_mlp": 1},
        {"out_size": 64, "channel_multiplier": 1, "narrow": 0.1},
        {"out_size": 128, "num_style_feat": 8},
        {"out_size": 64, "channel_multiplier": 0.5, "narrow": 0.0625},
    ],
)
def test_built_from_its_state_dict(arguments: dict[str, object]) -> None:
    net = small(**arguments)
    state = {key: tensor.half() for key, tensor in net.state_dict().items()}
    again = GPEN.from_state_dict(state)
    assert again.out_size == net.out_size
    assert list(again.state_dict()) == list(net.state_dict())
    assert all(torch.equal(t, state[key].float()) for key, t in again.state_dict().items())


def test_what_differs_is_said() -> None:
    state = small().state_dict()
    state["extra"] = torch.zeros(1)
    del state["ecd1.0.0.kernel"]
    with pytest.raises(ValueError, match=r"missing: 'ecd1\.0\.0\.kernel'; 1 .* many: 'extra'"):
        GPEN.from_state_dict(state)
    del state["generator.input.input"]
    with pytest.raises(ValueError, match=r"'generator\.input\.input' is missing"):
        GPEN.from_state_dict(state)
    for size in (0, 4, 48, 500):
        with pytest.raises(ValueError, match="power of two"):
            GPEN(out_size=size)


def test_its_terms_are_known() -> None:
    (row,) = (row for row in ARCHITECTURES if row.name == "GPEN")
    assert row.licence == "non-commercial"


def test_the_stored_kernels_are_the_filter_and_are_used() -> None:
    net = small()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for key, kernel in net.state_dict().items():
        if key.endswith("kernel"):
            gain = 1 if key.startswith("ecd") else 4
            torch.testing.assert_close(kernel, torch.outer(taps, taps) * gain / 64)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        before = net(x)
        for key in ("ecd1.0.0", "generator.convs.0.conv.blur", "generator.to_rgbs.0.upsample"):
            other = GPEN.from_state_dict(net.state_dict()).eval()
            other.get_buffer(f"{key}.kernel").mul_(2)
            assert not torch.allclose(other(x), before), key


def test_features_take_the_place_of_the_noise() -> None:
    """Concatenated, with the strength, before bias and activation; both layers of a scale alike."""
    net = small()
    given = {}
    for name, module in net.generator.named_modules():
        if name.endswith("noise"):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: given.__setitem__(name, (*inputs, output))
            )
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        net(x)
        _, features = net.encode(x)
    assert [tuple(f.shape) for f in features] == [(2, 16, side, side) for side in (4, 8, 16, 32)]
    layers = ["conv1.noise", *(f"convs.{i}.noise" for i in range(6))]
    assert list(given) == layers
    for layer, scale in zip(layers, (0, 1, 1, 2, 2, 3, 3), strict=True):
        own, feature, both = given[layer]
        assert torch.equal(feature, features[scale])
        strength = net.generator.get_parameter(f"{layer}.weight")
        torch.testing.assert_close(both, torch.cat([own, strength.detach() * feature], dim=1))


def test_the_latent_is_the_deepest_feature_through_a_linear_layer() -> None:
    net = small()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        z, features = net.encode(x)
        layer = net.final_linear[0]
        flat = features[0].flatten(1)  # (2, 16 * 4 * 4)
        expected = F.leaky_relu(F.linear(flat, layer.weight / 16, layer.bias), 0.2) * 2**0.5
    torch.testing.assert_close(z, expected)


def test_deterministic_and_independent_of_the_batch() -> None:
    net = small()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    before = x.clone()
    with torch.inference_mode():
        together = net(x)
        assert torch.equal(together, net(x))
        alone = torch.cat([net(one[None]) for one in x])
    assert torch.equal(x, before)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
