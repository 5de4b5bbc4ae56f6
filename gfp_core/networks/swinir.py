"""SwinIR as face restorers have it: at an eighth of the side, with windows of 8 x 8 features.

Source: Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (2021), section 3, in the
form that DifFace trained for blind face restoration and PMRF starts from: pixels of 8 x 8 are
stacked first, and nearest-neighbor enlargement with convolutions gives the size back. The names are
those of its published tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .state import width_of

WINDOW = 8
_SIDE = 8  # of the stacked pixels
_UP_CHANNELS = 64
_MEAN = (0.4488, 0.4371, 0.4040)  # of the pictures of DIV2K
_FAR = -100.0  # what the published masks add between windows


class SwinIR(nn.Module):
    """RGB pictures (B, 3, S, S) in [0, 1] to the same, about.

    Args:
        size: S, a multiple of 64.
        channels: of the features.
        depths: transformer layers of each residual block.
        heads: of the attention.
        mlp: inner channels of the feed-forward blocks.
    """

    def __init__(
        self,
        size: int = 512,
        channels: int = 180,
        depths: tuple[int, ...] = (6,) * 8,
        heads: int = 6,
        mlp: int = 360,
    ) -> None:
        super().__init__()
        side = size // _SIDE
        first = nn.Conv2d(3 * _SIDE**2, channels, 3, padding=1)
        self.conv_first = nn.Sequential(nn.PixelUnshuffle(_SIDE), first)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(channels)})
        self.layers = nn.ModuleList(
            ResidualBlock(channels, depth, heads, mlp, side) for depth in depths
        )
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = nn.Conv2d(channels, channels, 3, padding=1)
        before = nn.Conv2d(channels, _UP_CHANNELS, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(before, nn.LeakyReLU(0.01))
        for name in ("conv_up1", "conv_up2", "conv_up3", "conv_hr"):
            self.add_module(name, nn.Conv2d(_UP_CHANNELS, _UP_CHANNELS, 3, padding=1))
        self.conv_last = nn.Conv2d(_UP_CHANNELS, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Restore."""
        mean = x.new_tensor(_MEAN).view(1, 3, 1, 1)
        x = self.conv_first(x - mean)
        y = self.patch_embed["norm"](x.movedim(1, -1))
        for layer in self.layers:
            y = layer(y)
        x = self.conv_after_body(self.norm(y).movedim(-1, 1)) + x
        x = self.conv_before_upsample(x)
        for name in ("conv_up1", "conv_up2", "conv_up3"):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(name)(x), 0.2)
        x = self.conv_last(F.leaky_relu(self.get_submodule("conv_hr")(x), 0.2))
        return x + mean


class ResidualBlock(nn.Module):
    """Transformer layers and a convolution, around which the features also go."""

    def __init__(self, channels: int, depth: int, heads: int, mlp: int, side: int) -> None:
        super().__init__()
        blocks = [SwinLayer(channels, heads, mlp, side, index % 2 == 1) for index in range(depth)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block finds in features (B, H, W, C)."""
        y = x
        blocks = self.residual_group["blocks"]
        assert isinstance(blocks, nn.ModuleList)
        for layer in blocks:
            y = layer(y)
        result: Tensor = x + self.conv(y.movedim(-1, 1)).movedim(1, -1)
        return result


class SwinLayer(nn.Module):
    """Attention in windows, which every second layer moves by half of one, and a feed-forward."""

    attn_mask: Tensor

    def __init__(self, channels: int, heads: int, mlp: int, side: int, shifted: bool) -> None:
        super().__init__()
        # In a picture of one window there is nothing to move to.
        self.shift = WINDOW // 2 if shifted and side > WINDOW else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(channels, mlp), "fc2": nn.Linear(mlp, channels)})
        if self.shift:
            self.register_buffer("attn_mask", _mask(side, self.shift))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, H, W, C) to the same."""
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = self.attn(_windows(y), self.attn_mask if self.shift else None)
        y = torch.roll(_unwindowed(y, x.shape), (self.shift, self.shift), (1, 2))
        x = x + y
        z: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + z


class WindowAttention(nn.Module):
    """Self-attention within windows, with a bias for each difference of two places."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", _relative_positions())
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in windows (B, windows, tokens, C); the mask is (windows, tokens, tokens)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # (B, windows, heads, tokens, channels)
        bias = self.relative_position_bias_table[self.relative_position_index].movedim(-1, 0)
        if mask is not None:
            bias = bias + mask[:, None]
        y = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype))
        z: Tensor = self.proj(y.transpose(2, 3).flatten(3))
        return z


def _relative_positions() -> Tensor:
    """Which row of the table is for token i and token j of a window: (tokens, tokens)."""
    places = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
    difference = places[:, None] - places[None] + WINDOW - 1
    return difference[..., 0] * (2 * WINDOW - 1) + difference[..., 1]


def _mask(side: int, shift: int) -> Tensor:
    """What keeps tokens apart that moving brought together: (windows, tokens, tokens)."""
    region = torch.zeros(side, dtype=torch.float32)
    region[side - WINDOW :] = 1
    region[side - shift :] = 2
    regions = _windows((region[:, None] * 3 + region[None]).view(1, side, side, 1))[0, ..., 0]
    return torch.where(regions[:, None] == regions[..., None], 0.0, _FAR)


def _windows(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, windows, tokens, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.transpose(2, 3).reshape(batch, -1, WINDOW**2, channels)


def _unwindowed(x: Tensor, shape: torch.Size) -> Tensor:
    batch, height, width, channels = shape
    x = x.view(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
    return x.transpose(2, 3).reshape(shape)


def infer_hyperparameters(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read the constructor arguments from tensors whose names begin with ``prefix``.

    Raises:
        ValueError: a tensor is missing or cannot be of this network; names it.
    """
    pattern = re.compile(
        re.escape(prefix) + r"layers\.(\d{1,3})\.residual_group\.blocks\.(\d{1,3})\."
    )
    depths: dict[int, int] = {}
    for match in filter(None, map(pattern.match, state)):
        block, layer = int(match[1]), int(match[2])
        depths[block] = max(depths.get(block, 0), layer + 1)
    blocks = f"{prefix}layers.0.residual_group.blocks."
    masks = f"{blocks}1.attn_mask"
    windows = width_of(state, masks, 0) if masks in state else 1
    return {
        "size": math.isqrt(windows) * WINDOW * _SIDE,
        "channels": width_of(state, f"{prefix}norm.weight", 0),
        "depths": tuple(depths[block] for block in sorted(depths)),
        "heads": width_of(state, f"{blocks}0.attn.relative_position_bias_table", 1),
        "mlp": width_of(state, f"{blocks}0.mlp.fc1.weight", 0),
    }
