import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gfp_core.networks.gfpgan import (
    GFPGAN,
    GFPGANBilinear,
    GFPGANClean,
    GFPGANv1,
    channel_table,
    modulate,
)
from gfp_core.networks.gfpgan_state import bilinear_to_clean, infer_hyperparameters

SMALL = {"out_size": 32, "num_style_feat": 16, "narrow": 0.03125, "num_mlp": 2}

TINY = {
    "GFPGANv1Clean_c1": GFPGANClean,
    "GFPGANv1Clean_c2": GFPGANClean,
    "GFPGANv1Clean_c2_128": GFPGANClean,
    "GFPGANv1Clean_fullsft_samew": GFPGANClean,
    "GFPGANv1_c1": GFPGANv1,
    "GFPGANBilinear_c1": GFPGANBilinear,
}


def small(net: type[GFPGAN], seed: int = 0, **arguments: object) -> GFPGAN:
    """A small network whose every parameter counts (noise strengths and biases are not zero)."""
    torch.manual_seed(seed)
    made = net(**{**SMALL, **arguments})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def close(result: Tensor, expected: Tensor) -> bool:
    error = (result - expected).abs()
    scale = max(1.0, expected.abs().max().item())
    return error.max().item() <= 1e-4 * scale and error.mean().item() <= 1e-5 * scale


@pytest.mark.parametrize("name", TINY)
def test_equals_the_published_network(name: str, shared_dir: Path) -> None:
    folder = shared_dir / "parity" / name
    state = load_file(folder / "weights.safetensors")
    io = load_file(folder / "io.safetensors")
    meta = json.loads((folder / "meta.json").read_text())

    assert infer_hyperparameters(state) == meta["hyperparameters"]
    net = TINY[name].from_state_dict(state)
    with torch.inference_mode():
        image, pyramid = net.forward_with_pyramid(io["input"])
        assert torch.equal(net(io["input"]), image)
    assert close(image, io["output"])
    assert len(pyramid) == sum(key.startswith("rgb") for key in io)
    for i, rgb in enumerate(pyramid):
        assert close(rgb, io[f"rgb{i}"])


def test_the_published_bilinear_network_converted(shared_dir: Path) -> None:
    folder = shared_dir / "parity" / "GFPGANBilinear_c1"
    state = load_file(folder / "weights.safetensors")
    io = load_file(folder / "io.safetensors")
    net = GFPGANClean.from_state_dict(bilinear_to_clean(state))
    with torch.inference_mode():
        assert close(net(io["input"]), io["output"])


@pytest.mark.parametrize(
    ("name", "net", "channel_multiplier"),
    [
        ("GFPGANv1Clean_c2", GFPGANClean, 2),
        ("GFPGANv1Clean_c1", GFPGANClean, 1),
        ("GFPGANv1", GFPGANv1, 1),
        ("GFPGANBilinear_c1", GFPGANBilinear, 1),
    ],
)
def test_keys_and_shapes_of_the_full_size(
    name: str,
    net: type[GFPGAN],
    channel_multiplier: int,
    official_keys: dict[str, dict[str, tuple[int, ...]]],
) -> None:
    with torch.device("meta"):
        made = net(channel_multiplier=channel_multiplier)
    assert {key: tuple(tensor.shape) for key, tensor in made.state_dict().items()} == official_keys[
        name
    ]


def test_the_sizes_the_paper_and_the_releases_state() -> None:
    with torch.device("meta"):
        clean, paper = GFPGANClean(), GFPGANv1(channel_multiplier=1)
    millions = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (clean, paper)]
    assert millions == [pytest.approx(86.4, abs=0.05), pytest.approx(76.2, abs=0.05)]
    assert len(clean.state_dict()) == 285


@pytest.mark.parametrize("options", [{}, {"sft_half": False}, {"different_w": False}])
def test_clean_equals_the_converted_bilinear_network(options: dict[str, bool]) -> None:
    trained = small(GFPGANBilinear, input_is_latent=options.get("different_w", True), **options)
    before = {key: tensor.clone() for key, tensor in trained.state_dict().items()}
    clean = GFPGANClean.from_state_dict(bilinear_to_clean(trained.state_dict()))
    assert all(torch.equal(before[key], t) for key, t in trained.state_dict().items())
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        image, pyramid = clean.forward_with_pyramid(x)
        expected, expected_pyramid = trained.forward_with_pyramid(x)
    torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)
    for rgb, expected_rgb in zip(pyramid, expected_pyramid, strict=True):
        torch.testing.assert_close(rgb, expected_rgb, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("net", [GFPGANClean, GFPGANv1, GFPGANBilinear])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"out_size": 8, "num_mlp": 1},
        {"out_size": 64, "channel_multiplier": 1, "narrow": 0.1},
        {"out_size": 128, "channel_multiplier": 2, "num_style_feat": 8},
        {"out_size": 64, "channel_multiplier": 0.5, "narrow": 0.0625},
        {"sft_half": False},
        {"different_w": False, "input_is_latent": False},
    ],
)
def test_hyperparameters_are_read_back(net: type[GFPGAN], arguments: dict[str, object]) -> None:
    with torch.device("meta"):
        made = net(**{**SMALL, **arguments})  # type: ignore[arg-type]
        again = net(**infer_hyperparameters(made.state_dict()))
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items()}
    assert {key: tensor.shape for key, tensor in again.state_dict().items()} == shapes
    assert again.input_is_latent == made.input_is_latent
    assert again.out_size == made.out_size


def test_from_state_dict_copies_and_says_what_differs() -> None:
    state = {key: tensor.half() for key, tensor in small(GFPGANClean).state_dict().items()}
    net = GFPGANClean.from_state_dict(state)
    assert {tensor.dtype for tensor in net.state_dict().values()} == {torch.float32}
    wrong = dict(state)
    del wrong["final_conv.bias"], wrong["toRGB.0.bias"]
    wrong["extra"] = torch.zeros(1)
    wrong["toRGB.0.weight"] = torch.zeros(3, 1, 1, 1)
    with pytest.raises(ValueError, match=r"2 of \d+ tensors missing: 'final_conv\.bias'") as error:
        GFPGANClean.from_state_dict(wrong)
    assert "1 tensors too many: 'extra'" in str(error.value)
    assert "'toRGB.0.weight' is (3, 1, 1, 1) instead of (3, 8, 1, 1)" in str(error.value)
    with pytest.raises(ValueError, match=r"'final_linear\.weight' is missing"):
        GFPGANClean.from_state_dict({k: v for k, v in state.items() if "final_linear" not in k})


def test_wrong_sizes_are_refused() -> None:
    for size in (0, 4, 48, 500):
        with pytest.raises(ValueError, match="power of two"):
            GFPGANClean(out_size=size)


@pytest.mark.parametrize("net", [GFPGANClean, GFPGANv1, GFPGANBilinear])
def test_deterministic_and_independent_of_the_batch(net: type[GFPGAN]) -> None:
    made = small(net)
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        together = made(x)
        assert torch.equal(together, made(x))
        alone = torch.cat([made(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_fresh_noise_comes_from_its_generator() -> None:
    made = small(GFPGANClean)
    x = torch.zeros(2, 3, 32, 32)
    with torch.inference_mode():
        stored = made(x)
        one = made(x, torch.Generator().manual_seed(1))
        assert torch.equal(one, made(x, torch.Generator().manual_seed(1)))
        assert not torch.equal(one, made(x, torch.Generator().manual_seed(2)))
    assert not torch.equal(one, stored)
    assert torch.equal(stored[0], stored[1])
    assert not torch.equal(one[0], one[1])


def test_channel_split_leaves_the_first_half_alone() -> None:
    x, scale, shift = torch.randn(2, 6, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    y = modulate(x, scale, shift)
    assert torch.equal(y[:, :3], x[:, :3])
    torch.testing.assert_close(y[:, 3:], x[:, 3:] * scale + shift)
    whole = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(modulate(x, whole, whole), x * whole + whole)


def test_channel_table() -> None:
    table = channel_table(512, 1, 2)
    assert table == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}


@pytest.mark.parametrize("net", [GFPGANClean, GFPGANv1, GFPGANBilinear])
def test_a_new_network_is_fit_to_train(net: type[GFPGAN]) -> None:
    torch.manual_seed(0)
    made = net(out_size=64, num_style_feat=32, narrow=0.125, num_mlp=2)
    for head in made.condition_scale:
        assert torch.equal(head[2].bias, torch.ones_like(head[2].bias))
    image, pyramid = made.forward_with_pyramid(torch.rand(2, 3, 64, 64) * 2 - 1)
    for rgb in [image, *pyramid]:  # neither dead nor exploding, on every level
        assert 0.05 < rgb.std().item() < 20
    (image.square().mean() + sum(rgb.square().mean() for rgb in pyramid)).backward()
    idle = [name for name, p in made.named_parameters() if p.grad is None]
    assert all("style_mlp" in name for name in idle)
    assert all(p.grad.isfinite().all() for p in made.parameters() if p.grad is not None)


@pytest.mark.slow
def test_equals_spandrel_at_full_size() -> None:
    gfpgan = pytest.importorskip("spandrel.architectures.GFPGAN")
    torch.manual_seed(0)
    ours = GFPGANClean(out_size=512, channel_multiplier=2).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():  # let noise and biases take part
            if name.endswith("bias") or parameter.numel() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    # The raw network, for spandrel's descriptor passes [0, 1] where [-1, 1] is due.
    descriptor = gfpgan.GFPGANArch().load(ours.state_dict())
    x = torch.rand(1, 3, 512, 512) * 2 - 1
    with torch.inference_mode():
        expected, expected_pyramid = descriptor.model.eval()(x, randomize_noise=False)
        image, pyramid = ours.forward_with_pyramid(x)
    assert expected.std() > 0.1
    assert close(image, expected)
    assert all(close(a, b) for a, b in zip(pyramid, expected_pyramid, strict=True))
