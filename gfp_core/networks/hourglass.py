"""Hourglass diffusion transformer (HDiT): tokens of pixels, merged level by level and split again.

Source: Crowson et al., "Scalable High-Resolution Pixel-Space Image Synthesis with Hourglass
Diffusion Transformers" (ICML 2024), section 4, under the names of its published tensors. Attention
is global at the innermost level and over neighborhoods at the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .neighborhood import neighborhood_attention
from .state import width_of
from .vqgan import full_precision

KERNEL_SIZE = 7
"""Side of a neighborhood in all published models; no tensor tells it."""
_AUGMENTATIONS = 9  # conditions of the training, all 0 afterwards
_EPSILON = 1e-6


class HourglassTransformer(nn.Module):
    """Velocity (B, 3, S, S) of noisy pictures at a time.

    Args:
        widths: channels of each level, the outermost first.
        depths: layers of each level; the outer ones have them on the way in and on the way out.
        head_widths: channels of an attention head, by level.
        feed_forward: inner channels of the feed-forward blocks, by level.
        patch_size: side of the pixels of a token.
        mapping_width: channels of the conditioning.
        mapping_depth: blocks of the mapping network.
        mapping_feed_forward: their inner channels.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (256, 512, 1024),
        depths: tuple[int, ...] = (2, 2, 8),
        head_widths: tuple[int, ...] = (64, 64, 64),
        feed_forward: tuple[int, ...] = (768, 1536, 3072),
        patch_size: int = 4,
        mapping_width: int = 768,
        mapping_depth: int = 2,
        mapping_feed_forward: int = 2304,
    ) -> None:
        super().__init__()
        self.patch_in = Merge(3, widths[0], patch_size)
        self.time_emb = FourierFeatures(1, mapping_width)
        self.time_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        self.aug_emb = FourierFeatures(_AUGMENTATIONS, mapping_width)
        self.aug_in_proj = nn.Linear(mapping_width, mapping_width, bias=False)
        self.mapping = MappingNetwork(mapping_depth, mapping_width, mapping_feed_forward)

        def level(index: int) -> nn.ModuleList:
            kernel = None if index == len(widths) - 1 else KERNEL_SIZE
            shape = (widths[index], head_widths[index], feed_forward[index], mapping_width)
            return nn.ModuleList(Layer(*shape, kernel) for _ in range(depths[index]))

        outer = range(len(widths) - 1)
        self.down_levels = nn.ModuleList(map(level, outer))
        self.mid_level = level(len(widths) - 1)
        self.up_levels = nn.ModuleList(map(level, outer))
        self.merges = nn.ModuleList(Merge(widths[i], widths[i + 1], 2) for i in outer)
        self.splits = nn.ModuleList(Split(widths[i + 1], widths[i], 2, skips=True) for i in outer)
        self.out_norm = RMSNorm(widths[0])
        self.patch_out = Split(widths[0], 3, patch_size)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Velocity of pictures (B, 3, S, S) at times (B,) from 0 to 1."""
        augmentations = time.new_zeros(len(time), _AUGMENTATIONS)
        condition = self.time_in_proj(self.time_emb(time[:, None]))
        condition = self.mapping(condition + self.aug_in_proj(self.aug_emb(augmentations)))
        x = self.patch_in(x.movedim(1, -1))
        skips = []
        for layers, merge in zip(self.down_levels, self.merges, strict=True):
            x = _through(layers, x, condition)
            skips.append(x)
            x = merge(x)
        x = _through(self.mid_level, x, condition)
        for index in reversed(range(len(skips))):
            x = self.splits[index](x, skips[index])
            x = _through(self.up_levels[index], x, condition)
        y: Tensor = self.patch_out(self.out_norm(x)).movedim(-1, 1)
        return y


def _through(layers: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    positions = _positions(x)
    assert isinstance(layers, nn.ModuleList)
    for layer in layers:
        x = layer(x, positions, condition)
    return x


def _positions(x: Tensor) -> Tensor:
    """Centers (H, W, 2) of tokens, row and column, in a box whose longer side is -1 to 1."""
    height, width = x.shape[1:3]
    longest = max(height, width)
    axes = [
        (torch.arange(length, device=x.device) * 2 + 1 - length) / longest
        for length in (height, width)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


class FourierFeatures(nn.Module):
    """Cosines and sines of numbers, at frequencies drawn before the training."""

    weight: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(out_features // 2, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, out) of (B, in), in float32."""
        with full_precision(x.device):
            phases = 2 * math.pi * x.float() @ self.weight.float().mT
            return torch.cat([phases.cos(), phases.sin()], dim=-1)


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Divide by the root mean square of the channels and scale, which float32 computes."""
    factor = torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + _EPSILON)
    return x * (scale.float() * factor).to(x.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return _rms_norm(x, self.scale)


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale is 1 and what the condition adds."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalize tokens (B, H, W, C)."""
        return _rms_norm(x, self.linear(condition)[:, None, None] + 1)


class GEGLU(nn.Linear):
    """Linear layer with the gate of Shazeer, "GLU Variants Improve Transformer" (2020)."""

    def forward(self, input: Tensor) -> Tensor:
        """Half of the outputs times the GELU of the other half."""
        x, gate = super().forward(input).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """Tokens one by one through a wider layer; under a condition, or, in the mapping, without."""

    def __init__(self, channels: int, inner: int, condition: int | None) -> None:
        super().__init__()
        self.norm = RMSNorm(channels) if condition is None else AdaptiveRMSNorm(channels, condition)
        self.up_proj = GEGLU(channels, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Add what the block finds."""
        y: Tensor = self.down_proj(self.up_proj(self.norm(x, *condition)))
        return x + y


class MappingNetwork(nn.Module):
    """The network that makes the condition of all layers."""

    def __init__(self, depth: int, channels: int, inner: int) -> None:
        super().__init__()
        self.in_norm = RMSNorm(channels)
        self.blocks = nn.ModuleList(FeedForward(channels, inner, None) for _ in range(depth))
        self.out_norm = RMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to (B, C)."""
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.out_norm(x)
        return y


class RotaryFrequencies(nn.Module):
    """Angles of a token's place, for a part of the channels of each head (section 4.2)."""

    freqs: Tensor

    def __init__(self, count: int, heads: int) -> None:
        super().__init__()
        steps = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * count + 1)[:-1]
        self.register_buffer("freqs", steps.exp().view(count, heads).mT.contiguous())

    def forward(self, positions: Tensor) -> Tensor:
        """Angles (heads, H, W, 2 * count) of places (H, W, 2)."""
        angles = positions[None, ..., None] * self.freqs.float()[:, None, None, None]
        return angles.flatten(-2)


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of channels, the first quarter with the second; the last half stays."""
    count = angles.shape[-1]
    first, second, rest = (
        x[..., :count].float(),
        x[..., count : 2 * count].float(),
        x[..., 2 * count :],
    )
    cos, sin = angles.cos(), angles.sin()
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.cat([*(part.to(x.dtype) for part in turned), rest], dim=-1)


class Attention(nn.Module):
    """Self-attention by cosine similarity, with a learned temperature a head.

    Args:
        channels: of a token.
        head_width: channels of a head.
        condition: channels of the condition.
        kernel_size: side of the neighborhood; None for all tokens.
    """

    def __init__(
        self, channels: int, head_width: int, condition: int, kernel_size: int | None
    ) -> None:
        super().__init__()
        self.heads, self.kernel_size = channels // head_width, kernel_size
        self.norm = AdaptiveRMSNorm(channels, condition)
        self.qkv_proj = nn.Linear(channels, 3 * channels, bias=False)
        self.scale = nn.Parameter(torch.full([self.heads], 10.0))
        self.pos_emb = RotaryFrequencies(head_width // 8, self.heads)
        self.out_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Add what the block finds in tokens (B, H, W, C)."""
        batch, height, width, channels = x.shape
        qkv = self.qkv_proj(self.norm(x, condition))
        qkv = qkv.view(batch, height, width, 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5)
        angles = self.pos_emb(positions)
        root = self.scale.float().sqrt()[:, None, None, None]

        def unit(vectors: Tensor) -> Tensor:
            norm = torch.rsqrt(vectors.float().square().sum(-1, keepdim=True) + _EPSILON)
            return _rotate(vectors * (root * norm).to(vectors.dtype), angles)

        q, k, v = unit(qkv[0]), unit(qkv[1]), qkv[2]
        if self.kernel_size is None:
            flat_q, flat_k, flat_v = (each.flatten(2, 3) for each in (q, k, v))
            y = F.scaled_dot_product_attention(flat_q, flat_k, flat_v, scale=1.0).view(q.shape)
        else:
            y = neighborhood_attention(q, k, v, self.kernel_size)
        y = y.permute(0, 2, 3, 1, 4).reshape(batch, height, width, channels)
        result: Tensor = x + self.out_proj(y)
        return result


class Layer(nn.Module):
    """One layer of the transformer."""

    def __init__(
        self, channels: int, head_width: int, inner: int, condition: int, kernel_size: int | None
    ) -> None:
        super().__init__()
        self.self_attn = Attention(channels, head_width, condition, kernel_size)
        self.ff = FeedForward(channels, inner, condition)

    def forward(self, x: Tensor, positions: Tensor, condition: Tensor) -> Tensor:
        """Attention, then feed-forward."""
        y: Tensor = self.ff(self.self_attn(x, positions, condition), condition)
        return y


class Merge(nn.Module):
    """Tokens (B, H, W, C) of a square to one."""

    def __init__(self, in_features: int, out_features: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(in_features * side**2, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H / side, W / side, out)."""
        batch, height, width, channels = x.shape
        side = self.side
        x = x.reshape(batch, height // side, side, width // side, side, channels)
        y: Tensor = self.proj(x.transpose(2, 3).flatten(3))
        return y


class Split(nn.Module):
    """One token to those of a square; with ``skips`` mixed with what came in at that level."""

    def __init__(
        self, in_features: int, out_features: int, side: int, *, skips: bool = False
    ) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(in_features, out_features * side**2, bias=False)
        if skips:
            self.fac = nn.Parameter(torch.full([1], 0.5))

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H * side, W * side, out)."""
        x = self.proj(x)
        batch, height, width, _ = x.shape
        side = self.side
        x = x.view(batch, height, width, side, side, -1).transpose(2, 3)
        x = x.reshape(batch, height * side, width * side, -1)
        return x if skip is None else torch.lerp(skip, x, self.fac.to(x.dtype))


def infer_hyperparameters(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the constructor arguments from tensors whose names begin with ``prefix``.

    Raises:
        ValueError: a tensor is missing or cannot be of this network; names it.
    """
    outer = _count(state, f"{prefix}down_levels")
    levels = [*(f"{prefix}down_levels.{index}" for index in range(outer)), f"{prefix}mid_level"]

    def widths(name: str, dimension: int) -> tuple[int, ...]:
        return tuple(width_of(state, f"{level}.0.{name}", dimension) for level in levels)

    pixels = width_of(state, f"{prefix}patch_in.proj.weight", 1)
    channels = widths("self_attn.qkv_proj.weight", 1)
    heads = widths("self_attn.scale", 0)
    return {
        "widths": channels,
        "depths": tuple(_count(state, level) for level in levels),
        "head_widths": tuple(a // b for a, b in zip(channels, heads, strict=True)),
        "feed_forward": widths("ff.down_proj.weight", 1),
        "patch_size": math.isqrt(pixels // 3),
        "mapping_width": width_of(state, f"{prefix}time_in_proj.weight", 0),
        "mapping_depth": _count(state, f"{prefix}mapping.blocks"),
        "mapping_feed_forward": width_of(state, f"{prefix}mapping.blocks.0.down_proj.weight", 1),
    }


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the modules that are numbered after a prefix."""
    heads = {key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(f"{prefix}.")}
    return len(heads)
