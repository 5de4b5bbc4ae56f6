"""Layers of the StyleGAN2 family, shared by generators, U-Nets and discriminators.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (StyleGAN2), and
"Progressive Growing of GANs" for the equalized learning rate. The layers come in two forms:

- *equalized*: weights are stored with unit variance and scaled at run time by 1 / sqrt(fan in);
  the leaky ReLU carries the bias and a gain of sqrt(2). This is the form to train.
- *clean*: both factors are folded into the weights; plain convolutions and plain leaky ReLU.

and with two ways to change resolution (`resampling`). A `Form` names the pair. Parameter names are
those of the official checkpoints.

Shapes in comments: B batch, C or I/O (input/output) channels, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resampling import Downsample, Smooth, halve, upsample

SLOPE = 0.2  # of every leaky ReLU
SQRT2 = math.sqrt(2.0)  # gain of the leaky ReLU in the equalized form


@dataclass(frozen=True)
class Form:
    """How a network of this family is written down; decides names and shapes of its parameters."""

    equalized: bool
    """Weights scaled at run time, bias and gain inside the activation."""
    resample: Literal["bilinear", "fir"]
    """How resolution changes in the encoder and in the generator."""
    stored_kernels: bool = False
    """The FIR kernels are in the state dict."""


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, without gain."""
    return F.leaky_relu(x, SLOPE)


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
        """Initialize as the equalized form would be after conversion."""
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

    The upward path of the U-Net is bilinear in both equalized forms.
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
    if not form.equalized:
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

    ``gain`` is that of the clean form's initial weights; the equalized form takes its gain from
    the activation that follows.
    """
    if not form.equalized:
        return CleanConv2d(
            in_channels, out_channels, kernel_size, activate=False, bias_init=bias_init, gain=gain
        )
    return EqualConv2d(
        in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_init=bias_init
    )


def down_layer(
    in_channels: int, out_channels: int, kernel_size: int, form: Form, *, activate: bool = True
) -> nn.Sequential:
    """A convolution that halves the resolution, with its activation where asked for; equalized."""
    strided = form.resample == "fir"  # else Downsample has already halved
    pad = (kernel_size + 1) // 2
    layers: list[nn.Module] = [
        Smooth((pad, pad)) if form.stored_kernels else Downsample(form.resample, kernel_size),
        EqualConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=2 if strided else 1,
            padding=0 if strided else kernel_size // 2,
            bias=False,
        ),
    ]
    if activate:
        layers.append(FusedLeakyReLU(out_channels))
    return nn.Sequential(*layers)


class ResBlock(nn.Module):
    """Residual block that halves (``scale`` 0.5) or doubles (2) the resolution.

    Two 3x3 convolutions with activations, the resampling between them, and a 1x1 convolution as
    the skip. The equalized form divides the sum by sqrt(2); the clean form has it in its weights.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: float, form: Form) -> None:
        super().__init__()
        self.equalized = form.equalized
        self.conv1 = conv_layer(in_channels, in_channels, 3, form)
        self.conv2: nn.Module
        self.skip: nn.Module
        if not form.equalized:
            self.conv2 = CleanConv2d(in_channels, out_channels, 3, scale=scale)
            self.skip = CleanConv2d(
                in_channels,
                out_channels,
                1,
                scale=scale,
                activate=False,
                bias=False,
                gain=1 / SQRT2,
            )
        elif scale == 2.0:
            self.conv2 = EqualConvUp(in_channels, out_channels, 3, activate=True)
            self.skip = EqualConvUp(in_channels, out_channels, 1, activate=False)
        else:
            self.conv2 = down_layer(in_channels, out_channels, 3, form)
            self.skip = down_layer(in_channels, out_channels, 1, form, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H * scale, W * scale)."""
        y = self.conv2(self.conv1(x)) + self.skip(x)
        result: Tensor = y / SQRT2 if self.equalized else y
        return result


class EqualLinear(nn.Module):
    """Fully connected layer of the equalized form, with its own learning-rate multiplier."""

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
    if form.equalized:
        return EqualLinear(in_features, out_features, bias_init=bias_init)
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(in_features))
    nn.init.constant_(layer.bias, bias_init)
    return layer
