"""Building blocks of StyleGAN2's generator, shared by the networks that use it as a prior.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (StyleGAN2). The
layers they are made of, and the two forms these come in, are in `equalized`.

Two ways to steer the generator by the features of a degraded face stand on these blocks:

- GFP-GAN (`gfpgan.CSFTDecoder`) keeps StyleGAN2's noise and modulates the features between layers;
- GPEN and the pose-varied network put features in the place of the noise, concatenated and not
  added (`FeatureGenerator`, the same for both).

Shapes in comments: B batch, C or I/O (input/output) channels, H W pixels, S style code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equalized import SLOPE, SQRT2, EqualLinear, Form, FusedLeakyReLU, leaky, linear
from .resampling import Smooth, fir, spread, upsample


def resolutions(out_size: int) -> list[int]:
    """4, 8, ..., ``out_size``.

    Raises:
        ValueError: ``out_size`` is not a power of two of at least 8.
    """
    if out_size < 8 or out_size & (out_size - 1):
        raise ValueError(f"out_size must be a power of two of at least 8, not {out_size}")
    return [2**level for level in range(2, out_size.bit_length())]


def channel_table(out_size: int, narrow: float, channel_multiplier: float) -> dict[int, int]:
    """Channels at each resolution: 512 up to 32 px, then 256, 128, ... times the multiplier.

    Both are scaled by ``narrow``.
    """
    return {
        size: int(narrow * (512 if size <= 32 else channel_multiplier * (16384 // size)))
        for size in resolutions(out_size)
    }


def multiplier_of(width: int, narrow: float) -> float:
    """The multiplier with which `channel_table` gives ``width`` channels at 64 px."""
    exact = width / (256 * narrow)
    whole = round(exact)
    return whole if int(256 * whole * narrow) == width else exact


class PixelNorm(nn.Module):
    """Scale a style code to unit root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., S) -> the same shape."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)


def style_mlp(features: int, layers: int, form: Form) -> nn.Sequential:
    """The mapping network from Z to W: normalization, then ``layers`` layers with activations."""
    modules: list[nn.Module] = [PixelNorm()]
    for _ in range(layers):
        if form.equalized:
            modules.append(EqualLinear(features, features, lr_mul=0.01, activate=True))
        else:
            modules += [linear(features, features, form, gain=SQRT2), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*modules)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, output channels back to unit size.

    StyleGAN2, eq. 1 and 3. Written as ``demodulation * conv(weight, style * x)``, which is the
    same as a convolution with the modulated weights of each sample, and serves a whole batch with
    one convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        num_style_feat: int,
        form: Form,
        *,
        demodulate: bool = True,
        upsample: bool = False,  # double the resolution
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.demodulate = demodulate
        self.upsample = form.resample if upsample else None
        self.blur = Smooth((1, 1), gain=4.0) if upsample and form.stored_kernels else None
        self.modulation = linear(num_style_feat, in_channels, form, bias_init=1.0)
        root_fan_in = math.sqrt(in_channels * kernel_size**2)
        self.scale = 1.0 / root_fan_in if form.equalized else 1.0
        std = 1.0 if form.equalized else 1.0 / root_fan_in
        self.weight = nn.Parameter(
            torch.randn(1, out_channels, in_channels, kernel_size, kernel_size) * std
        )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, I, H, W) and (B, S) -> (B, O, H, W), or (B, O, 2H, 2W) with upsampling."""
        weight = self.weight[0] * self.scale  # [OIkk]
        s = self.modulation(style)  # [BI]
        x = x * s[:, :, None, None]
        padding = self.kernel_size // 2
        if self.upsample == "bilinear":
            x = F.conv2d(upsample(x, "bilinear"), weight, padding=padding)
        elif self.upsample == "fir":
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = fir(x, (1, 1), gain=4.0) if self.blur is None else self.blur(x)
        else:
            x = F.conv2d(x, weight, padding=padding)
        if self.demodulate:
            x = x * self.demodulation(weight, s)[:, :, None, None]
        return x

    @staticmethod
    def demodulation(weight: Tensor, s: Tensor) -> Tensor:
        """1 / norm of each output channel's modulated weights (StyleGAN2, eq. 3).

        Args:
            weight: (O, I, k, k).
            s: (B, I), the style.

        Returns:
            (B, O). Computed in float32: squares of small weights are lost in half precision, which
            is also why this is a sum of products and not a matrix product (autocast halves those).
        """
        energy = weight.float().square().sum(dim=(2, 3))  # [OI]
        power = (s.float().square()[:, None, :] * energy).sum(dim=2)  # [BO]
        return torch.rsqrt(power + 1e-8).to(s.dtype)


class StyleConv(nn.Module):
    """Modulated 3x3 convolution, scaled noise, bias, leaky ReLU of gain sqrt(2)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_style_feat: int,
        form: Form,
        *,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.equalized = form.equalized
        self.modulated_conv = ModulatedConv2d(
            in_channels, out_channels, 3, num_style_feat, form, upsample=upsample
        )
        self.weight = nn.Parameter(torch.zeros(1))  # strength of the noise
        if form.equalized:
            self.activate = FusedLeakyReLU(out_channels)
        else:
            self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """(B, I, H, W), (B, S) and (1 or B, 1, H', W') -> (B, O, H', W')."""
        x = self.modulated_conv(x, style)
        if self.equalized:
            result: Tensor = self.activate(x + self.weight * noise)
            return result
        return leaky(x * SQRT2 + self.weight * noise + self.bias)


class ToRGB(nn.Module):
    """1x1 modulated convolution to RGB, not demodulated, added to the image so far."""

    def __init__(
        self, in_channels: int, num_style_feat: int, form: Form, image_channels: int = 3
    ) -> None:
        super().__init__()
        self.resample = form.resample
        self.modulated_conv = ModulatedConv2d(
            in_channels, image_channels, 1, num_style_feat, form, demodulate=False
        )
        self.bias = nn.Parameter(torch.zeros(1, image_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, S) and the image of half the resolution -> (B, 3, H, W)."""
        rgb = self.modulated_conv(x, style) + self.bias
        result: Tensor = rgb if image is None else rgb + upsample(image, self.resample)
        return result


class ConstantInput(nn.Module):
    """The learned 4x4 input of the generator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, 4, 4))


# --------------------------------------------------- features in the place of the noise (GPEN)

GPEN_FORM = Form(equalized=True, resample="fir", stored_kernels=True)
"""How GPEN's checkpoints are written down; the pose-varied network follows them."""


class FeatureBranch(nn.Module):
    """Features in the place of the noise: concatenated, not added, with a learned strength.

    GPEN, section 3.2; pose-varied paper, eq. 3. The strength starts at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C, H, W) -> (B, 2C, H, W), the generator's own channels first."""
        return torch.cat([x, self.weight * features], dim=1)


class FeatureStyleConv(nn.Module):
    """Modulated 3x3 convolution, features beside its result, bias, leaky ReLU of gain sqrt(2)."""

    def __init__(
        self, in_channels: int, out_channels: int, num_style_feat: int, *, upsample: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(
            in_channels, out_channels, 3, num_style_feat, GPEN_FORM, upsample=upsample
        )
        self.noise = FeatureBranch()
        self.activate = FusedLeakyReLU(2 * out_channels)

    def forward(self, x: Tensor, style: Tensor, features: Tensor) -> Tensor:
        """(B, I, H, W), (B, S) and (B, O, H', W') -> (B, 2 O, H', W')."""
        result: Tensor = self.activate(self.noise(self.conv(x, style), features))
        return result


class FeatureToRGB(nn.Module):
    """As `ToRGB`, under GPEN's names and with its stored kernel."""

    def __init__(self, in_channels: int, num_style_feat: int, *, upsample: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Smooth((2, 1), gain=4.0) if upsample else None
        self.conv = ModulatedConv2d(in_channels, 3, 1, num_style_feat, GPEN_FORM, demodulate=False)

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, S) and the image of half the resolution -> (B, 3, H, W)."""
        rgb: Tensor = self.conv(x, style) + self.bias
        if image is None or self.upsample is None:
            return rgb
        result: Tensor = rgb + self.upsample(spread(image))
        return result


class FeatureGenerator(nn.Module):
    """StyleGAN2 generator with one style code for all layers and features for noise."""

    def __init__(
        self,
        channels: Mapping[int, int],  # by resolution, from 4 up
        num_style_feat: int,
        num_mlp: int,
    ) -> None:
        super().__init__()
        sizes = sorted(channels)
        self.style = style_mlp(num_style_feat, num_mlp, GPEN_FORM)
        self.input = nn.ParameterDict({"input": torch.randn(1, channels[4], 4, 4)})
        self.conv1 = FeatureStyleConv(channels[4], channels[4], num_style_feat)
        self.to_rgb1 = FeatureToRGB(2 * channels[4], num_style_feat, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for size in sizes[1:]:
            below, channels_out = 2 * channels[size // 2], channels[size]
            self.convs.append(FeatureStyleConv(below, channels_out, num_style_feat, upsample=True))
            self.convs.append(FeatureStyleConv(2 * channels_out, channels_out, num_style_feat))
            self.to_rgbs.append(FeatureToRGB(2 * channels_out, num_style_feat, upsample=True))

    def forward(self, z: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Generate an image.

        Args:
            z: (B, S) latent codes in Z; normalized here.
            features: (B, C, H, W) at 4, 8, ... px, with the generator's channels; each serves the
                layers of its resolution (one at 4 px, two above).

        Returns:
            (B, 3, size, size), RGB, about [-1, 1], not clamped.
        """
        w = self.style(z)
        x = self.input["input"].expand(z.shape[0], -1, -1, -1)
        x = self.conv1(x, w, features[0])
        image: Tensor = self.to_rgb1(x, w)
        for i, feature in enumerate(features[1:]):
            x = self.convs[2 * i](x, w, feature)
            x = self.convs[2 * i + 1](x, w, feature)
            image = self.to_rgbs[i](x, w, image)
        return image
