"""Building blocks of StyleGAN2, shared by the networks that use it as a prior.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (StyleGAN2), and
"Progressive Growing of GANs" for the equalised learning rate. The blocks come in two forms:

- *equalised*: weights are stored with unit variance and scaled at run time by 1 / sqrt(fan in);
  the leaky ReLU carries the bias and a gain of sqrt(2). This is the form to train.
- *clean*: both factors are folded into the weights; plain convolutions and plain leaky ReLU.

and with two ways to change resolution, bilinear or the FIR filter [1, 3, 3, 1]. A `Form` names the
pair. Parameter names are those of the official checkpoints.

Shapes in comments: B batch, C or I/O (input/output) channels, H W pixels, S style code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of every leaky ReLU
SQRT2 = math.sqrt(2.0)  # gain of the leaky ReLU in the equalised form
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True)
class Form:
    """How a network of this family is written down; decides names and shapes of its parameters."""

    equalised: bool
    """Weights scaled at run time, bias and gain inside the activation."""
    resample: Literal["bilinear", "fir"]
    """How resolution changes in the encoder and in the generator."""


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, without gain."""
    return F.leaky_relu(x, SLOPE)


# ---------------------------------------------------------------------------------- resampling


def fir(x: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Smooth with the outer product of [1, 3, 3, 1] / 8 with itself, times ``gain``.

    Args:
        x: (B, C, H, W).
        padding: zeros before and after, on both axes.
        gain: factor on the result; 4 makes up for the zeros of an upsampling by 2.

    Returns:
        (B, C, H + sum(padding) - 3, W + sum(padding) - 3).
    """
    channels = x.shape[1]
    taps = torch.tensor(FIR_TAPS, dtype=x.dtype, device=x.device) * (math.sqrt(gain) / 8.0)
    x = F.pad(x, (*padding, *padding))
    x = F.conv2d(x, taps.view(1, 1, 4, 1).expand(channels, 1, 4, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, 4).expand(channels, 1, 1, 4), groups=channels)


def upsample(x: Tensor, resample: str) -> Tensor:
    """Double the resolution of (B, C, H, W), bilinearly or by zero insertion and the FIR filter."""
    if resample == "bilinear":
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = x
    return fir(spread, (2, 1), gain=4.0)


def halve(x: Tensor) -> Tensor:
    """Halve the resolution of (B, C, H, W) bilinearly, H and W even.

    Without aligned corners every sample falls between two pixels on either axis, which makes
    bilinear interpolation the mean of 2x2 pixels.
    """
    return F.avg_pool2d(x, 2)


class Downsample(nn.Module):
    """What precedes a convolution that halves the resolution: has no parameters."""

    def __init__(self, resample: str, kernel_size: int) -> None:
        super().__init__()
        self.resample = resample
        pad = (kernel_size + 1) // 2  # (2, 2) for 3x3, (1, 1) for 1x1: what the stride then needs
        self.padding = (pad, pad)

    def forward(self, x: Tensor) -> Tensor:
        """Halve (bilinear), or smooth for the strided convolution that follows (FIR)."""
        return halve(x) if self.resample == "bilinear" else fir(x, self.padding)


# ------------------------------------------------------------------- convolutions of the U-Net


class CleanConv2d(nn.Conv2d):
    """Resample, convolve ("same" padding), leaky ReLU, each where asked for; clean form."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        scale: float = 1.0,  # 0.5 halves, 2 doubles the resolution before the convolution
        activate: bool = True,  # follow with a leaky ReLU
        bias: bool = True,
        bias_init: float = 0.0,
        gain: float = 1.0,  # of the initial weights, over 1 / sqrt(fan in)
    ) -> None:
        self.init_gain, self.init_bias = gain, bias_init
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias
        )
        self.scale = scale
        self.activate = activate

    def reset_parameters(self) -> None:
        """Initialise as the equalised form would be after conversion."""
        fan_in = self.in_channels * self.kernel_size[0] * self.kernel_size[1]
        nn.init.normal_(self.weight, std=self.init_gain / math.sqrt(fan_in))
        if self.bias is not None:
            nn.init.constant_(self.bias, self.init_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H * scale, W * scale)."""
        if self.scale == 0.5:
            x = halve(x)
        elif self.scale == 2.0:
            x = upsample(x, "bilinear")
        x = super().forward(x)
        return leaky(x) if self.activate else x


class FusedLeakyReLU(nn.Module):
    """sqrt(2) * leaky(x + bias), the bias one a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return leaky(x + self.bias.view(1, -1, 1, 1)) * SQRT2


class ScaledLeakyReLU(nn.Module):
    """sqrt(2) * leaky(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return leaky(x) * SQRT2


class EqualConv2d(nn.Module):
    """Convolution whose unit-variance weights are scaled by 1 / sqrt(fan in) at run time."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.scale = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.full((out_channels,), bias_init)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H', W')."""
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualConvUp(EqualConv2d):
    """Double the resolution bilinearly, convolve, and, where asked for, the fused activation.

    The upward path of the U-Net is bilinear in both equalised forms.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, activate: bool
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )
        self.activation = FusedLeakyReLU(out_channels) if activate else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, 2H, 2W)."""
        x = super().forward(upsample(x, "bilinear"))
        return x if self.activation is None else self.activation(x)


def conv_layer(in_channels: int, out_channels: int, kernel_size: int, form: Form) -> nn.Module:
    """A convolution at unchanged resolution with its activation."""
    if not form.equalised:
        return CleanConv2d(in_channels, out_channels, kernel_size, gain=SQRT2)
    return nn.Sequential(
        EqualConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        FusedLeakyReLU(out_channels),
    )


def plain_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    form: Form,
    *,
    bias_init: float = 0.0,
    gain: float = 1.0,
) -> nn.Module:
    """A convolution with bias at unchanged resolution, without activation.

    ``gain`` is that of the clean form's initial weights; the equalised form takes its gain from
    the activation that follows.
    """
    if not form.equalised:
        return CleanConv2d(
            in_channels, out_channels, kernel_size, activate=False, bias_init=bias_init, gain=gain
        )
    return EqualConv2d(
        in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_init=bias_init
    )


# ----------------------------------------------------------------------------- style, generator


class EqualLinear(nn.Module):
    """Fully connected layer of the equalised form, with its own learning-rate multiplier."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_mul: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.lr_mul = lr_mul
        self.activate = activate
        self.scale = lr_mul / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        x = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return leaky(x) * SQRT2 if self.activate else x


def linear(
    in_features: int, out_features: int, form: Form, *, bias_init: float = 0.0, gain: float = 1.0
) -> nn.Module:
    """A fully connected layer without activation; ``gain`` as in `plain_conv`."""
    if form.equalised:
        return EqualLinear(in_features, out_features, bias_init=bias_init)
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(in_features))
    nn.init.constant_(layer.bias, bias_init)
    return layer


class PixelNorm(nn.Module):
    """Scale a style code to unit root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., S) -> the same shape."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-8)


def style_mlp(features: int, layers: int, form: Form) -> nn.Sequential:
    """The mapping network from Z to W: normalisation, then ``layers`` layers with activations."""
    modules: list[nn.Module] = [PixelNorm()]
    for _ in range(layers):
        if form.equalised:
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
        self.modulation = linear(num_style_feat, in_channels, form, bias_init=1.0)
        root_fan_in = math.sqrt(in_channels * kernel_size**2)
        self.scale = 1.0 / root_fan_in if form.equalised else 1.0
        std = 1.0 if form.equalised else 1.0 / root_fan_in
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
            x = fir(x, (1, 1), gain=4.0)
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
        self.equalised = form.equalised
        self.modulated_conv = ModulatedConv2d(
            in_channels, out_channels, 3, num_style_feat, form, upsample=upsample
        )
        self.weight = nn.Parameter(torch.zeros(1))  # strength of the noise
        if form.equalised:
            self.activate = FusedLeakyReLU(out_channels)
        else:
            self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """(B, I, H, W), (B, S) and (1 or B, 1, H', W') -> (B, O, H', W')."""
        x = self.modulated_conv(x, style)
        if self.equalised:
            return self.activate(x + self.weight * noise)
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
        return rgb if image is None else rgb + upsample(image, self.resample)


class ConstantInput(nn.Module):
    """The learned 4x4 input of the generator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        """-> (batch, C, 4, 4)."""
        return self.weight.expand(batch, -1, -1, -1)
