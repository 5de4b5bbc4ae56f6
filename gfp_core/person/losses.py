"""What a person's restorer is tuned by: terms that need no download.

Plain differences alone smooth, and a smooth face is less like the person, not more. So the strength
of fine detail is compared place by place, and a small discriminator, trained along, sees windows of
the pictures (`networks.patch_discriminator`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Weights:
    """How much each term counts."""

    pixels: float = 1.0
    edges: float = 1.0
    detail: float = 2.0
    adversarial: float = 0.05


def absolute(restored: Tensor, clean: Tensor) -> Tensor:
    """Compute the mean absolute difference of each picture, (B,)."""
    return (restored - clean).abs().flatten(1).mean(dim=1)


def edges(restored: Tensor, clean: Tensor) -> Tensor:
    """Compute the mean absolute difference of both gradients, (B,)."""
    apart = restored - clean
    along = (apart[..., 1:] - apart[..., :-1]).abs().flatten(1).mean(dim=1)
    return along + (apart[..., 1:, :] - apart[..., :-1, :]).abs().flatten(1).mean(dim=1)


def detail(restored: Tensor, clean: Tensor, cell: int = 8) -> Tensor:
    """Compare how strong fine detail is in each cell, whatever its phase, at two scales, (B,).

    Detail is luma minus its mean over 3 x 3 pixels. A net that is not sure where a hair lies is
    told by plain differences to draw none; by this, to draw as much as there is.

    Args:
        restored: (B, 3, H, W).
        clean: of the same shape.
        cell: side of a cell in pixels, of each scale.
    """
    total = restored.new_zeros(len(restored))
    first, second = restored.mean(dim=1, keepdim=True), clean.mean(dim=1, keepdim=True)
    for _ in range(2):
        strengths = [F.avg_pool2d(_high(x).abs(), cell, cell // 2) for x in (first, second)]
        total = total + absolute(*strengths)
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return total


def _high(x: Tensor) -> Tensor:
    return x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
