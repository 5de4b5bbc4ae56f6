"""Generators of other projects as priors: equal pictures, on seeded weights of small size."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.networks.gfpgan_state import bilinear_to_clean, clean_to_bilinear
from gfp_core.networks.pose_varied import PoseVaried
from gfp_core.networks.prior import to_basicsr
from gfp_core.training.models import start_from

SMALL = {"out_size": 32, "num_style_feat": 16, "narrow": 0.03125, "num_mlp": 2}
WIDTH, SIZES = 16, (4, 8, 16, 32)


def nvidia(noise: float = 0.1) -> dict[str, Tensor]:
    """A generator in the form of stylegan2-ada-pytorch, of random weights."""
    torch.manual_seed(0)
    state = {}

    def layer(name: str, outputs: int, kernel: int, size: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, WIDTH, kernel, kernel)
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs)
        state[f"{name}.affine.weight"] = torch.randn(WIDTH, 16)
        state[f"{name}.affine.bias"] = 1 + 0.1 * torch.randn(WIDTH)
        if kernel == 3:
            state[f"{name}.noise_strength"] = torch.tensor(noise)
            state[f"{name}.noise_const"] = torch.randn(size, size)
            state[f"{name}.resample_filter"] = torch.ones(4, 4) / 16

    for index in range(2):
        state[f"mapping.fc{index}.weight"] = 100 * torch.randn(16, 16)
        state[f"mapping.fc{index}.bias"] = torch.randn(16)
    state["mapping.w_avg"] = torch.randn(16)
    for size in SIZES:
        block = f"synthesis.b{size}"
        if size == 4:
            state[f"{block}.const"] = torch.randn(WIDTH, 4, 4)
        else:
            layer(f"{block}.conv0", WIDTH, 3, size)
        layer(f"{block}.conv1", WIDTH, 3, size)
        layer(f"{block}.torgb", 3, 1, size)
    return state


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def doubled(x: Tensor, padding: int) -> Tensor:
    """The filter [1, 3, 3, 1] with the gain that doubling needs; x has zeros between its pixels."""
    row = torch.tensor([1.0, 3, 3, 1]) / 4
    kernel = (row[:, None] * row)[None, None].repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, (padding, 1, padding, 1)), kernel, groups=x.shape[1])


def generate(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """StyleGAN2's generator (Karras et al. 2020, figure 2), written for NVIDIA's names."""
    w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for index in range(2):
        fc = f"mapping.fc{index}"
        w = act(w @ state[f"{fc}.weight"].T * 0.01 / 4 + state[f"{fc}.bias"] * 0.01)
    x = state["synthesis.b4.const"][None]
    image: Tensor | None = None
    for size in SIZES:
        for name in ("conv0", "conv1", "torgb"):
            key = f"synthesis.b{size}.{name}"
            if f"{key}.weight" not in state:
                continue
            weight = state[f"{key}.weight"]
            style = w @ state[f"{key}.affine.weight"].T / 4 + state[f"{key}.affine.bias"]
            if name == "torgb":
                y = F.conv2d(x, weight * style[0, None, :, None, None] / math.sqrt(WIDTH))
                y = y + state[f"{key}.bias"][None, :, None, None]
                if image is not None:
                    spread = torch.zeros(1, 3, size, size)
                    spread[:, :, ::2, ::2] = image
                    y = y + doubled(spread, 2)
                image = y
                continue
            weight = weight * style[0, None, :, None, None]
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
            if name == "conv0":
                x = doubled(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 1)
            else:
                x = F.conv2d(x, weight, padding=1)
            x = x + state[f"{key}.noise_strength"] * state[f"{key}.noise_const"]
            x = act(x + state[f"{key}.bias"][None, :, None, None])
    assert image is not None
    return image


def rosinality(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same generator as stylegan2-pytorch saves it."""
    result = {"input.input": state["synthesis.b4.const"][None]}
    for index in (1, 2):
        for kind in ("weight", "bias"):
            result[f"style.{index}.{kind}"] = state[f"mapping.fc{index - 1}.{kind}"]
    names = {"synthesis.b4.conv1": "conv1", "synthesis.b4.torgb": "to_rgb1"}
    for number, size in enumerate(SIZES[1:]):
        names[f"synthesis.b{size}.conv0"] = f"convs.{2 * number}"
        names[f"synthesis.b{size}.conv1"] = f"convs.{2 * number + 1}"
        names[f"synthesis.b{size}.torgb"] = f"to_rgbs.{number}"
    for number, (old, new) in enumerate((o, n) for o, n in names.items() if "conv" in o):
        result[f"noises.noise_{number}"] = state[f"{old}.noise_const"][None, None]
        result[f"{new}.noise.weight"] = state[f"{old}.noise_strength"].view(1)
        result[f"{new}.activate.bias"] = state[f"{old}.bias"]
    for old, new in names.items():
        result[f"{new}.conv.weight"] = state[f"{old}.weight"][None]
        result[f"{new}.conv.modulation.weight"] = state[f"{old}.affine.weight"]
        result[f"{new}.conv.modulation.bias"] = state[f"{old}.affine.bias"]
        if "torgb" in old:
            result[f"{new}.bias"] = state[f"{old}.bias"].view(1, 3, 1, 1)
    result["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    return result


FORMS = {
    "nvidia": lambda state: {f"G_ema.{key}": tensor for key, tensor in state.items()},
    "rosinality": rosinality,
    "basicsr": lambda state: to_basicsr(state),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def saved(path: Path, state: dict[str, Tensor]) -> str:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return str(path)


def test_gfpgans_decoder_gives_the_pictures_of_its_prior(form: str, tmp_path: Path) -> None:
    state = nvidia()
    net = GFPGANv1(**SMALL).eval()
    start_from(net, saved(tmp_path / "prior.safetensors", FORMS[form](state)))
    decoder = net.stylegan_decoder
    neutral = [(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)) for _ in SIZES[1:]]
    z = torch.randn(1, 16)
    with torch.inference_mode():
        w = decoder.style_mlp(z)[:, None].expand(-1, decoder.num_latent, -1)
        image = decoder(w, neutral)
        expected = generate(state, z)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(image, expected, atol=2e-5, rtol=1e-4)


def test_the_pose_varied_generator_gives_the_pictures_of_its_prior(
    form: str, tmp_path: Path
) -> None:
    state = nvidia(noise=0.0)
    net = PoseVaried(**SMALL).eval()
    start_from(net, saved(tmp_path / "prior.safetensors", FORMS[form](state)))
    z = torch.randn(1, 16)
    features = [torch.randn(1, WIDTH, size, size) for size in SIZES]
    with torch.inference_mode():
        image = net.generator(z, features)
        expected = generate(state, z)
    torch.testing.assert_close(image, expected, atol=2e-5, rtol=1e-4)


def test_a_prior_of_another_width_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = saved(tmp_path / "prior.safetensors", rosinality(nvidia()))
    for kind in (GFPGANv1, PoseVaried):
        net = kind(**{**SMALL, "narrow": 0.0625})
        with pytest.raises(ValueError, match="not the prior of this"):
            start_from(net, path)


def test_a_released_file_goes_back_to_its_form_of_training_and_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = GFPGANBilinear(**SMALL).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    clean = bilinear_to_clean(trained.state_dict())
    back = clean_to_bilinear(clean, trained.state_dict())
    for key, tensor in trained.state_dict().items():
        torch.testing.assert_close(back[key], tensor, atol=1e-5, rtol=1e-5)
    path = saved(tmp_path / "GFPGANv1.4.safetensors", clean)
    net = GFPGANBilinear(**SMALL)
    start_from(net, path)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        released = GFPGANClean.from_state_dict(clean).eval()(x)
        torch.testing.assert_close(net.eval()(x), released, atol=1e-4, rtol=1e-4)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.0, 0.99))
    losses = []
    for _ in range(15):
        loss = F.l1_loss(net(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(ValueError, match="not the clean form of this network"):
        start_from(GFPGANBilinear(**{**SMALL, "narrow": 0.0625}), path)
