"""Blocks of vector-quantized auto-encoders, which RestoreFormer and CodeFormer are built of.

Sources: van den Oord et al., "Neural Discrete Representation Learning" (2017), for the quantizer;
Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), for the blocks.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32
"""Groups of every GroupNorm: all widths are multiples of it."""


BLOCK = 64
"""Pixels side by side that `GroupNorm` sums apart, so that no float adds up a whole map."""


class GroupNorm(nn.GroupNorm):
    """Group normalization (Wu and He 2018) that is exact on a CPU, whatever the memory layout.

    PyTorch's own sums up float32 squares one by one where channels lie last on a CPU, and takes the
    mean's square off: at 512 x 512 pixels whose mean is three deviations the result is off by 1e-3.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape and layout, a new tensor."""
        if not is_channels_last_on_cpu(x):
            return super().forward(x)
        if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
            return super().forward(x.contiguous())
        scale, shift = self.affine_of(x)
        return torch.addcmul(shift, x, scale)

    def affine_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Fit the factors and terms, each (B, C, 1, 1), by which each channel is normalized.

        Args:
            x: (B, C, H, W) float32 on the CPU, channels last in memory.
        """
        pairs = [self._affine_of_one(picture.permute(1, 2, 0).flatten(0, 1)) for picture in x]
        scale, shift = (torch.stack(side)[..., None, None] for side in zip(*pairs, strict=True))
        return scale, shift

    def _affine_of_one(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> factors and terms, each (C,); means first, then deviations from these."""
        count, channels = pixels.shape
        block = math.gcd(count, BLOCK)
        samples = count // block
        means, variances = torch.zeros(2, block * channels)
        # The momentum of 1 puts the statistics of these very numbers into both.
        torch.batch_norm_update_stats(pixels.reshape(samples, -1), means, variances, 1.0)
        # Of each group: of so many channels at so many places of a block.
        shape = (block, self.num_groups, channels // self.num_groups)
        means, variances = (part.double().view(shape) for part in (means, variances))
        # It divides by one less, as for a sample; of a single number that leaves nothing.
        variances = variances * (samples - 1) / samples if samples > 1 else 0 * means
        mean = means.mean(dim=(0, 2))  # [groups]
        spread = variances + (means - mean[:, None]).square()
        deviation = (spread.mean(dim=(0, 2)) + self.eps).sqrt()
        repeats = shape[2]
        scale = self.weight.double() / deviation.repeat_interleave(repeats)
        shift = self.bias.double() - mean.repeat_interleave(repeats) * scale
        return scale.float(), shift.float()


def is_channels_last_on_cpu(x: Tensor) -> bool:
    """Tell whether PyTorch's normalization of ``x`` would be inexact, and can be done here."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


def norm(channels: int) -> GroupNorm:
    """Group normalization, as everywhere in these networks."""
    return GroupNorm(GROUPS, channels, eps=1e-6)


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
            vectors, codes = z.float().permute(0, 2, 3, 1), self.embedding.weight.float()
            # |z - e|^2 without |z|^2, which is the same for every code.
            return (codes.square().sum(dim=1) - 2 * vectors @ codes.T).argmin(dim=-1)

    def look_up(self, indices: Tensor) -> Tensor:
        """(B, H, W) int64 -> (B, C, H, W), contiguous as the rest of the network."""
        result: Tensor = self.embedding(indices).permute(0, 3, 1, 2).contiguous()
        return result

    def forward(self, z: Tensor) -> Quantized:
        """The codes nearest to features (B, C, H, W)."""
        indices = self.nearest(z)
        return Quantized(self.look_up(indices), indices)


def straight_through(z: Tensor, values: Tensor) -> Tensor:
    """``values``, with gradients that go to ``z`` as if nothing had been replaced."""
    return z + (values - z).detach()
