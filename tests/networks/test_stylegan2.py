import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfp_core.networks.equalized import (
    CleanConv2d,
    EqualConv2d,
    EqualConvUp,
    EqualLinear,
    Form,
    FusedLeakyReLU,
)
from gfp_core.networks.resampling import Smooth, fir, halve, upsample
from gfp_core.networks.stylegan2 import (
    GPEN_FORM,
    ModulatedConv2d,
    PixelNorm,
    StyleConv,
    ToRGB,
    style_mlp,
)

CLEAN = Form(equalized=False, resample="bilinear")
PAPER = Form(equalized=True, resample="fir")
BILINEAR = Form(equalized=True, resample="bilinear")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def modulated_sample_by_sample(
    conv: ModulatedConv2d, x: Tensor, style: Tensor, resample: str | None
) -> Tensor:
    """StyleGAN2, eq. 1 and 3, to the letter: modulated weights for every sample."""
    scale = conv.scale
    outputs = []
    for picture, s in zip(x, conv.modulation(style), strict=True):
        weight = scale * conv.weight[0] * s[None, :, None, None]
        if conv.demodulate:
            weight = weight / torch.sqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        picture = picture[None]
        if resample == "fir":
            y = fir(F.conv_transpose2d(picture, weight.transpose(0, 1), stride=2), (1, 1), 4.0)
        else:
            if resample == "bilinear":
                picture = F.interpolate(
                    picture, scale_factor=2, mode="bilinear", align_corners=False
                )
            y = F.conv2d(picture, weight, padding=conv.kernel_size // 2)
        outputs.append(y)
    return torch.cat(outputs)


@pytest.mark.parametrize("form", [CLEAN, PAPER, BILINEAR])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_equals_the_formula(
    form: Form, kernel_size: int, demodulate: bool
) -> None:
    conv = ModulatedConv2d(5, 7, kernel_size, 4, form, demodulate=demodulate).double()
    x, style = torch.randn(3, 5, 6, 6).double(), torch.randn(3, 4).double()
    expected = modulated_sample_by_sample(conv, x, style, None)
    torch.testing.assert_close(conv(x, style), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [CLEAN, PAPER])
def test_upsampling_modulated_convolution_equals_the_formula(form: Form) -> None:
    conv = ModulatedConv2d(5, 7, 3, 4, form, upsample=True)
    x, style = torch.randn(2, 5, 4, 4), torch.randn(2, 4)
    result = conv(x, style)
    assert result.shape == (2, 7, 8, 8)
    expected = modulated_sample_by_sample(conv, x, style, form.resample)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_demodulation_survives_half_precision() -> None:
    weight, s = torch.full((2, 64, 3, 3), 1e-4), torch.full((1, 64), 1e-2)
    exact = ModulatedConv2d.demodulation(weight, s)
    half = ModulatedConv2d.demodulation(weight.half(), s.half())
    assert half.isfinite().all()
    torch.testing.assert_close(half.float(), exact, rtol=1e-2, atol=0)


def test_fir_keeps_a_constant_and_the_mean() -> None:
    flat = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(fir(flat, (0, 0)), torch.ones(1, 2, 5, 5))
    doubled = upsample(flat, "fir")
    assert doubled.shape == (1, 2, 16, 16)
    torch.testing.assert_close(doubled[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))


def test_fir_is_the_outer_product_of_its_taps() -> None:
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 1
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(fir(point, (0, 0))[0, 0], torch.outer(taps, taps) / 64)


@pytest.mark.parametrize(("padding", "gain"), [((0, 0), 1.0), ((1, 1), 4.0), ((2, 1), 4.0)])
def test_the_filter_with_a_stored_kernel(padding: tuple[int, int], gain: float) -> None:
    layer, x = Smooth(padding, gain), torch.randn(2, 3, 8, 9)
    torch.testing.assert_close(layer(x), fir(x, padding, gain))
    assert list(layer.state_dict()) == ["kernel"]
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 3, 3] = 1
    layer = Smooth((0, 0))
    layer.kernel.copy_(torch.arange(16.0).view(4, 4))
    assert torch.equal(layer(point)[0, 0], layer.kernel)  # the response to a point is the kernel


def test_the_stored_kernel_of_the_upsampling_convolution_is_used() -> None:
    stored = ModulatedConv2d(5, 7, 3, 4, GPEN_FORM, upsample=True)
    plain = ModulatedConv2d(5, 7, 3, 4, PAPER, upsample=True)
    state = stored.state_dict()
    kernel = state.pop("blur.kernel")
    plain.load_state_dict(state)
    x, style = torch.randn(2, 5, 4, 4), torch.randn(2, 4)
    torch.testing.assert_close(stored(x, style), plain(x, style))
    stored.blur.kernel.copy_(2 * kernel)
    torch.testing.assert_close(stored(x, style), 2 * plain(x, style))


def test_halving_is_bilinear_without_aligned_corners() -> None:
    x = torch.randn(2, 3, 8, 6)
    expected = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(halve(x), expected)


def test_fused_activation() -> None:
    layer = FusedLeakyReLU(2)
    nn.init.constant_(layer.bias, -1.0)
    x = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(
        layer(x).flatten(), torch.tensor([-0.2 * math.sqrt(2), 2 * math.sqrt(2)])
    )


def test_pixel_norm_gives_unit_root_mean_square() -> None:
    codes = PixelNorm()(5 * torch.randn(2, 3, 16))
    torch.testing.assert_close(codes.square().mean(dim=-1), torch.ones(2, 3))


def test_noise_acts_with_the_learned_strength() -> None:
    for form in (CLEAN, BILINEAR):
        conv = StyleConv(4, 4, 8, form)
        x, style = torch.randn(1, 4, 5, 5), torch.randn(1, 8)
        noise = torch.randn(1, 1, 5, 5)
        assert torch.equal(conv(x, style, noise), conv(x, style, 0 * noise))  # strength starts at 0
        nn.init.constant_(conv.weight, 0.5)
        assert not torch.equal(conv(x, style, noise), conv(x, style, 0 * noise))


def test_to_rgb_adds_to_the_doubled_image() -> None:
    for form in (CLEAN, PAPER):
        head = ToRGB(4, 8, form)
        x, style, image = torch.randn(2, 4, 8, 8), torch.randn(2, 8), torch.randn(2, 3, 4, 4)
        torch.testing.assert_close(
            head(x, style, image), head(x, style) + upsample(image, form.resample)
        )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (EqualConv2d(64, 64, 3, padding=1), (8, 64, 16, 16)),
        (CleanConv2d(64, 64, 3, activate=False), (8, 64, 16, 16)),
        (EqualConvUp(64, 64, 1, activate=False), (8, 64, 16, 16)),
        (EqualLinear(256, 256), (64, 256)),
        (EqualLinear(256, 256, lr_mul=0.01), (64, 256)),
    ],
)
def test_initial_layers_keep_the_variance(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    if isinstance(layer, EqualConvUp):  # interpolation smooths: look at a constant instead
        x = torch.randn(8, 64, 1, 1).expand(8, 64, 16, 16)
    std = layer(x).std().item()
    assert 0.85 < std < 1.15


@pytest.mark.parametrize("form", [CLEAN, PAPER])
def test_initial_mapping_network_and_modulation(form: Form) -> None:
    codes = style_mlp(128, 8, form)(torch.randn(32, 128))
    assert 0.2 < codes.square().mean().sqrt() < 2  # sqrt(2) makes up for half of what leaky loses
    scales = ModulatedConv2d(64, 64, 3, 128, form).modulation(torch.zeros(1, 128))
    assert torch.equal(scales, torch.ones(1, 64))
