"""RestoreFormer, RestoreFormer++ and CodeFormer made to run: the blocks of `vqgan`, but faster.

A fast form is a copy of the network with its blocks exchanged. What is different, none of it but by
rounding:

- channels lie last in memory, which convolutions and attention like better;
- a convolution after doubling pixels is four of 2x2 on the small map
  (`fast_layers.nearest_weight`);
- what a block has made itself it changes in place, instead of making another;
- attention takes queries, keys and values from as few matrix products as there are inputs, and
  reads the maps as they lie in memory.
"""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .codeformer import SelfAttention
from .fast_layers import NHWC, frozen, is_tracing, nearest_weight
from .restoreformer import CrossAttention
from .vqgan import ResBlock, Upsample

Net = TypeVar("Net", bound=nn.Module)


class Residual(nn.Module):
    """`vqgan.ResBlock`."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.skip = None if block.skip is None else block.get_submodule(block.skip)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W), a new tensor."""
        y = self.conv1(F.silu(self.norm1(x), inplace=True))
        y = self.conv2(F.silu(self.norm2(y), inplace=True))
        result: Tensor = y.add_(x if self.skip is None else self.skip(x))
        return result


class Double(nn.Module):
    """`vqgan.Upsample`: doubled pixels and a 3x3 convolution, each phase by itself."""

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.weight = frozen(nearest_weight(layer.conv.weight.detach()))
        self.bias = frozen(cast(Tensor, layer.conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
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
        result: Tensor = self.proj_out(y).add_(prior)
        return result


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C): as it is in memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def with_fast_blocks(net: Net) -> Net:
    """A copy of a network with its blocks exchanged, for inference."""
    return _exchange(copy.deepcopy(net)).to(memory_format=NHWC).eval().requires_grad_(False)


def _exchange(module: Net) -> Net:
    for name, child in module.named_children():
        if isinstance(child, ResBlock):
            module.add_module(name, Residual(child))
        elif isinstance(child, Upsample):
            module.add_module(name, Double(child))
        elif isinstance(child, CrossAttention | SelfAttention):
            module.add_module(name, Attend(child))
        else:
            _exchange(child)
    return module
