"""Blocks of vector-quantized auto-encoders, which RestoreFormer and CodeFormer are built of.

Sources: van den Oord et al., "Neural Discrete Representation Learning" (2017), for the quantizer;
Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), for the blocks.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32
"""Groups of every GroupNorm: all widths are multiples of it."""


def norm(channels: int) -> nn.GroupNorm:
    """Group normalization, as everywhere in these networks."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Residual block: twice GroupNorm, swish and a 3x3 convolution.

    Where the width changes the skip is a 1x1 convolution, under the name that a checkpoint has.
    """

    def __init__(self, in_channels: int, out_channels: int, skip: str = "nin_shortcut") -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = skip if in_channels != out_channels else None
        if self.skip is not None:
            self.add_module(self.skip, nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        result: Tensor = y + (x if self.skip is None else self.get_submodule(self.skip)(x))
        return result


class Downsample(nn.Module):
    """Halves the resolution by a strided convolution, padded to the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Doubles the resolution: nearest neighbor, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Attention(nn.Module):
    """Multi-head attention between all pixels of two feature maps; normalizing is the subclass's.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads = heads
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def attend(self, asking: Tensor, answering: Tensor) -> Tensor:
        """What the pixels of ``asking`` get from those of ``answering``; both (B, C, H, W)."""

        def by_head(x: Tensor) -> Tensor:  # [B, heads, H * W, C / heads]
            result: Tensor = x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)
            return result

        q, k, v = self.q(asking), self.k(answering), self.v(answering)
        y = F.scaled_dot_product_attention(by_head(q), by_head(k), by_head(v))
        result: Tensor = self.proj_out(y.transpose(2, 3).reshape(q.shape))
        return result


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast on a device inside this; for what chooses a code, for another is another face."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class Quantized(NamedTuple):
    """Features replaced by their nearest codes."""

    values: Tensor
    """(B, C, H, W): the codes; gradients reach the codebook, not the features."""
    indices: Tensor
    """(B, H, W) int64: which codes they are."""


class VectorQuantizer(nn.Module):
    """A codebook, and the choice of the nearest code."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def nearest(self, z: Tensor) -> Tensor:
        """The nearest code of each feature vector, by Euclidean distance; the first of equals.

        Compared in float32, whatever the precision around it.

        Args:
            z: (B, C, H, W).

        Returns:
            (B, H, W) int64.
        """
        with torch.no_grad(), full_precision(z.device):
            vectors, codes = z.float().movedim(1, -1), self.embedding.weight.float()
            # |z - e|^2 without |z|^2, which is the same for every code.
            return (codes.square().sum(dim=1) - 2 * vectors @ codes.T).argmin(dim=-1)

    def look_up(self, indices: Tensor) -> Tensor:
        """(B, H, W) int64 -> (B, C, H, W)."""
        result: Tensor = self.embedding(indices).movedim(-1, 1)
        return result

    def forward(self, z: Tensor) -> Quantized:
        """The codes nearest to features (B, C, H, W)."""
        indices = self.nearest(z)
        return Quantized(self.look_up(indices), indices)


def straight_through(z: Tensor, values: Tensor) -> Tensor:
    """``values``, with gradients that go to ``z`` as if nothing had been replaced."""
    return z + (values - z).detach()
