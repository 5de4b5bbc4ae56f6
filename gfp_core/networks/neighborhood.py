"""Neighborhood attention: each token looks at the square of tokens around it.

Source: Hassani et al., "Neighborhood Attention Transformer" (CVPR 2023), section 3. At a border the
square is moved, not cut, so that every token sees the same number of others. In plain PyTorch:
tokens are taken in tiles, whose squares lie in one slightly larger square that is attended at once
behind a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE = 8
"""Side of a tile at most: 4 times the needed products for a square of 7, and no copy per token."""


def neighborhood_attention(q: Tensor, k: Tensor, v: Tensor, kernel_size: int) -> Tensor:
    """Attend to the nearest ``kernel_size`` x ``kernel_size`` tokens, without a scale.

    Args:
        q: queries (B, heads, H, W, channels).
        k: keys of the same shape.
        v: values of the same shape.
        kernel_size: odd; side of the square, no larger than H and W.

    Returns:
        (B, heads, H, W, channels).

    Raises:
        ValueError: the picture is smaller than the square.
    """
    batch, heads, height, width, channels = q.shape
    if min(height, width) < kernel_size:
        raise ValueError(f"{height} x {width} tokens are fewer than {kernel_size} x {kernel_size}")
    rows, row_mask = _tiles(height, kernel_size)
    columns, column_mask = _tiles(width, kernel_size)
    tile_h, tile_w = row_mask.shape[1], column_mask.shape[1]
    count = len(rows) * len(columns)
    mask = row_mask[:, None, :, None, :, None] & column_mask[None, :, None, :, None, :]
    mask = mask.reshape(count, 1, tile_h * tile_w, -1).to(q.device)

    def tiled(x: Tensor) -> Tensor:
        """Cut into tiles (B, tiles, heads, tokens, channels)."""
        x = x.reshape(batch, heads, len(rows), tile_h, len(columns), tile_w, channels)
        return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(batch, count, heads, -1, channels)

    def around(x: Tensor) -> Tensor:
        """Gather what the tokens of each tile look at, in the same form."""
        x = x.index_select(2, rows.flatten().to(x.device))
        x = x.index_select(3, columns.flatten().to(x.device))
        x = x.reshape(batch, heads, *rows.shape, *columns.shape, channels)
        return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(batch, count, heads, -1, channels)

    y = F.scaled_dot_product_attention(tiled(q), around(k), around(v), mask, scale=1.0)
    y = y.reshape(batch, len(rows), len(columns), heads, tile_h, tile_w, channels)
    return y.permute(0, 3, 1, 4, 2, 5, 6).reshape(q.shape)


def _tiles(length: int, kernel_size: int) -> tuple[Tensor, Tensor]:
    """What the tiles of one axis look at.

    Returns:
        Indices (tiles, seen); and whether a tile's token attends to them (tiles, tile, seen).
    """
    tile = next(size for size in range(min(_TILE, length), 0, -1) if length % size == 0)
    seen = min(tile + kernel_size - 1, length)
    firsts = torch.arange(0, length, tile)
    begins = (firsts - kernel_size // 2).clamp(0, length - seen)
    indices = begins[:, None] + torch.arange(seen)
    tokens = firsts[:, None] + torch.arange(tile)
    starts = (tokens - kernel_size // 2).clamp(0, length - kernel_size)[:, :, None]
    return indices, (indices[:, None] >= starts) & (indices[:, None] < starts + kernel_size)
