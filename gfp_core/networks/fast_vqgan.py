"""RestoreFormer, RestoreFormer++ and CodeFormer made to run: the blocks of `vqgan`, but faster.

A fast form is a copy of the network with its blocks exchanged. What is different, none of it but by
rounding:

- channels lie last in memory, which convolutions and attention like better;
- a convolution after doubling pixels is four of 2x2 on the small map
  (`fast_layers.nearest_weight`);
- on a CPU large maps go through a normalization, a swish and a convolution in bands of rows that
  stay in the cache; what a block has made itself it changes in place, instead of making another;
- attention takes queries, keys and values from as few matrix products as there are inputs, and
  reads the maps as they lie in memory.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .codeformer import Fusion, SelfAttention
from .fast_layers import (
    NHWC,
    Conv3x3,
    band_of,
    borrowed,
    conv1x1,
    frozen,
    in_bands,
    is_plain_cpu,
    is_tracing,
    nearest_weight,
    reuse_memory,
    store,
)
from .restoreformer import CrossAttention
from .vqgan import Downsample, GroupNorm, ResBlock, Upsample, is_channels_last_on_cpu

Net = TypeVar("Net", bound=nn.Module)


class NormalizedConv(nn.Module):
    """Group normalization, swish and a convolution; on a CPU in bands, which stay in the cache.

    The statistics are of the whole map; only applying them, the rest of the way, is local.
    """

    def __init__(self, layer: GroupNorm, conv: nn.Conv2d) -> None:
        super().__init__()
        self.norm, self.conv = layer, Conv3x3(conv.weight, conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W), a new tensor."""
        if not is_channels_last_on_cpu(x):
            result: Tensor = self.conv(F.silu(self.norm(x), inplace=True))
            return result
        size = (x.shape[0], len(self.conv.weight), *x.shape[2:])
        result = torch.empty(size, memory_format=NHWC)
        self.in_bands(x, partial(store, result))
        return result

    def in_bands(self, x: Tensor, keep: Callable[[int, int, Tensor], object]) -> None:
        """Normalize, activate and convolve some rows after the other.

        Args:
            x: (B, I, H, W), channels last, on a CPU.
            keep: gets the first row, the one after the last, and the result of these (B, O, h, W),
                which it may change and must copy.
        """
        scale, shift = self.norm.affine_of(x)

        def fill(low: int, high: int, out: Tensor) -> None:
            F.silu(torch.addcmul(shift, x[:, :, low:high], scale, out=out), inplace=True)

        if self.conv.is_quick(x):
            self.conv.convolve_bands(x, fill, keep, self.conv.bias)
            return
        rows, width = x.shape[2], max(self.conv.weight.shape[:2])
        band = band_of(rows, 4 * len(x) * width * x.shape[3], x.device)
        for start in range(0, rows, band):
            stop = min(start + band, rows)
            low, high = max(start - 1, 0), min(stop + 1, rows)
            inputs = torch.empty_like(x[:, :, low:high], memory_format=NHWC)
            fill(low, high, inputs)
            keep(start, stop, self.conv(inputs)[:, :, start - low : stop - low])


class Residual(nn.Module):
    """`vqgan.ResBlock`, which on a CPU writes over its input where the width stays the same."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.first = NormalizedConv(block.norm1, block.conv1)
        self.second = NormalizedConv(block.norm2, block.conv2)
        self.skip: nn.Conv2d | None = None
        if block.skip is not None:
            self.skip = cast(nn.Conv2d, block.get_submodule(block.skip))

    def _skip(self, x: Tensor) -> Tensor:
        return x if self.skip is None else conv1x1(x, self.skip.weight, self.skip.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W)."""
        if not is_channels_last_on_cpu(x) or torch.is_grad_enabled():
            y: Tensor = self.second(self.first(x))
            return y.add_(self._skip(x))
        channels = len(self.first.conv.weight)
        result = x
        if self.skip is not None:
            size = (x.shape[0], channels, *x.shape[2:])
            result = torch.empty(size, memory_format=NHWC)

        def add_skip(low: int, high: int, rows: Tensor) -> None:
            torch.add(rows, self._skip(x[:, :, low:high]), out=result[:, :, low:high])

        with borrowed(x, channels) as inner:
            self.first.in_bands(x, partial(store, inner))
            self.second.in_bands(inner, add_skip)
        return result


class Halve(nn.Module):
    """`vqgan.Downsample`, padded band by band instead of as a whole."""

    def __init__(self, layer: Downsample) -> None:
        super().__init__()
        self.conv = layer.conv

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""

        def run(low: int, high: int) -> list[Tensor]:
            return [self.conv(F.pad(x[:, :, low:high], (0, 1, 0, 1)))]

        band = band_of(x.shape[2], 4 * len(x) * x.shape[1] * x.shape[3], x.device)
        return in_bands(run, x.shape[2], band, margin=2, scale=0.5)[0]


class Double(nn.Module):
    """`vqgan.Upsample`: doubled pixels and a 3x3 convolution, each phase by itself."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.weight = frozen(nearest_weight(layer.conv.weight.detach()))
        self.bias = frozen(cast(Tensor, layer.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        band = band_of(x.shape[2], 4 * 4 * len(x) * x.shape[1] * x.shape[3], x.device)
        return in_bands(
            lambda low, high: [self._double(x[:, :, low:high])],
            x.shape[2],
            band,
            margin=1,
            scale=2,
        )[0]

    def _double(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = F.pad(x, (1, 1, 1, 1))
        result: Tensor | None = None
        phases = []
        for weight, (row, column) in zip(
            self.weight.chunk(4), itertools.product((0, 1), (0, 1)), strict=True
        ):
            window = x[:, :, row : row + height + 1, column : column + width + 1]
            phase = F.conv2d(window, weight, self.bias)
            if is_tracing():  # for engines that do not know of views
                phases.append(phase)
                continue
            if result is None:  # only now is its type known, under autocast
                size = (batch, channels, 2 * height, 2 * width)
                result = torch.empty(size, dtype=phase.dtype, device=x.device, memory_format=NHWC)
            result[:, :, row::2, column::2] = phase
        if phases:
            return F.pixel_shuffle(torch.stack(phases, dim=2).flatten(1, 2), 2)
        return cast(Tensor, result)


class Attend(nn.Module):
    """`restoreformer.CrossAttention` and `codeformer.SelfAttention`."""

    def __init__(self, layer: CrossAttention | SelfAttention) -> None:
        super().__init__()
        self.heads = layer.heads
        self.norm = layer.norm1 if isinstance(layer, CrossAttention) else layer.norm
        self.norm_asking = layer.norm2 if isinstance(layer, CrossAttention) else None
        parts = (layer.q, layer.k, layer.v)
        self.weight = frozen(
            torch.cat([projection.weight.detach().flatten(1) for projection in parts])
        )
        self.bias = frozen(
            torch.cat([cast(Tensor, projection.bias).detach() for projection in parts])
        )
        self.proj_out = layer.proj_out

    def forward(self, prior: Tensor, degraded: Tensor | None = None) -> Tensor:
        """Join two (B, C, H, W) maps, or one with itself; a new tensor."""
        channels = prior.shape[1]
        answering = _pixels(self.norm(prior))
        if degraded is None or self.norm_asking is None:
            q, k, v = F.linear(answering, self.weight, self.bias).chunk(3, dim=2)
        else:
            asking = _pixels(self.norm_asking(degraded))
            q = F.linear(asking, self.weight[:channels], self.bias[:channels])
            keys = F.linear(answering, self.weight[channels:], self.bias[channels:])
            k, v = keys.chunk(2, dim=2)
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = y.transpose(1, 2).unflatten(2, prior.shape[2:])
        return conv1x1(y, self.proj_out.weight, self.proj_out.bias).add_(prior)


class Fuse(nn.Module):
    """`codeformer.Fusion`, whose scale and shift come from as many convolutions as one of them.

    On a CPU it writes over the features that it leads.
    """

    def __init__(self, layer: Fusion) -> None:
        super().__init__()
        self.encode_enc = Residual(layer.encode_enc)
        first, second = (
            [cast(nn.Conv2d, head[index]) for head in (layer.scale, layer.shift)]
            for index in (0, 2)
        )
        self.first = Conv3x3(_joined(first, "weight"), _joined(first, "bias"))
        self.second = Conv3x3(_joined(second, "weight"), _joined(second, "bias"), groups=2)

    def forward(self, encoded: Tensor, decoded: Tensor, fidelity: float) -> Tensor:
        """Both (B, C, H, W): ``decoded`` + w (``decoded`` * scale + shift)."""
        joined = self.encode_enc(torch.cat([encoded, decoded], dim=1))
        hidden = F.leaky_relu(self.first(joined), 0.2, inplace=True)
        scale, shift = self.second(hidden).chunk(2, dim=1)
        if is_plain_cpu(decoded):
            return decoded.add_(scale.mul_(decoded).add_(shift), alpha=fidelity)
        result: Tensor = decoded + fidelity * torch.addcmul(shift, decoded, scale)
        return result


def _joined(layers: Sequence[nn.Conv2d], name: str) -> nn.Parameter:
    return frozen(torch.cat([cast(Tensor, getattr(layer, name)).detach() for layer in layers]))


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C): as it is in memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def with_fast_blocks(net: Net) -> Net:
    """A copy of a network with its blocks exchanged, for inference."""
    fast = _exchange(copy.deepcopy(net)).to(memory_format=NHWC).eval().requires_grad_(False)
    reuse_memory(fast)
    return fast


def _exchange(module: Net) -> Net:
    for name, child in module.named_children():
        if isinstance(child, ResBlock):
            module.add_module(name, Residual(child))
        elif isinstance(child, Downsample):
            module.add_module(name, Halve(child))
        elif isinstance(child, Fusion):
            module.add_module(name, Fuse(child))
        elif isinstance(child, Upsample):
            module.add_module(name, Double(child))
        elif isinstance(child, CrossAttention | SelfAttention):
            module.add_module(name, Attend(child))
        else:
            _exchange(child)
    return module
