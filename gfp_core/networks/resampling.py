"""Changes of resolution: bilinear, or StyleGAN2's with the FIR filter [1, 3, 3, 1].

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", after "Making
Convolutional Networks Shift-Invariant Again" (Zhang, 2019): smooth before samples are dropped, and
after zeros were put between them. `fir` has the filter built in; `Smooth` keeps it in the state
dict, as GPEN's checkpoints do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


def fir(x: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Smooth with the outer product of [1, 3, 3, 1] / 8 with itself, times ``gain``.

    Args:
        x: (B, C, H, W).
        padding: zeros before and after, on both axes.
        gain: factor on the result; 4 makes up for the zeros of an upsampling by 2.

    Returns:
        (B, C, H + sum(padding) - 3, W + sum(padding) - 3).
    """
    channels = int(x.shape[1])  # a constant where the network is traced
    taps = torch.tensor(FIR_TAPS, dtype=x.dtype, device=x.device) * (math.sqrt(gain) / 8.0)
    x = F.pad(x, (*padding, *padding))
    x = F.conv2d(x, taps.view(1, 1, 4, 1).expand(channels, 1, 4, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, 4).expand(channels, 1, 1, 4), groups=channels)


def spread(x: Tensor) -> Tensor:
    """Double the resolution of (B, C, H, W) with a zero after every sample, on both axes."""
    return F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).flatten(4, 5).flatten(2, 3)


def upsample(x: Tensor, resample: str) -> Tensor:
    """Double the resolution of (B, C, H, W), bilinearly or by zero insertion and the FIR filter."""
    if resample == "bilinear":
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return fir(spread(x), (2, 1), gain=4.0)


def halve(x: Tensor) -> Tensor:
    """Halve the resolution of (B, C, H, W) bilinearly, H and W even.

    Without aligned corners every sample falls between two pixels on either axis, which makes
    bilinear interpolation the mean of 2x2 pixels.
    """
    return F.avg_pool2d(x, 2)


class Smooth(nn.Module):
    """`fir` with its kernel in a buffer, which is loaded and saved with the checkpoint."""

    kernel: Tensor

    def __init__(self, padding: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        taps = torch.tensor(FIR_TAPS)
        self.register_buffer("kernel", torch.outer(taps, taps) * (gain / taps.sum() ** 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + sum(padding) - 3, W + sum(padding) - 3)."""
        channels = int(x.shape[1])  # a constant where the network is traced
        kernel = self.kernel.flip(0, 1).expand(
            channels, 1, 4, 4
        )  # a convolution, not a correlation
        return F.conv2d(F.pad(x, (*self.padding, *self.padding)), kernel, groups=channels)


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
