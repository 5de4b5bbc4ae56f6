"""Filters that smooth pictures and keep their edges."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def guided_filter(
    picture: Tensor, guide: Tensor, radius: int, eps: float, *, shrink: int = 1
) -> Tensor:
    """Smooth a picture inside the areas that its guide shows, and not over the guide's edges.

    In every window the result is a linear function of the guide (K. He, J. Sun and X. Tang,
    "Guided image filtering", PAMI 2013, equations 5, 6 and 8). Where a window is cut by the
    picture's border, its means are over what is there. The functions may be found on a smaller
    picture and applied to the full guide (K. He and J. Sun, "Fast guided filter", 2015).

    Args:
        picture: (N, C, H, W) float.
        guide: (N, 1, H, W) float, in whatever range `eps` is meant for.
        radius: windows have sides of 2 radius + 1 pixels, those of the smaller picture.
        eps: variance of the guide below which a window counts as flat.
        shrink: how many times smaller the picture is on which the functions are found.

    Returns:
        (N, C, H, W).
    """
    size = guide.shape[-2:]
    small = (max(1, size[0] // shrink), max(1, size[1] // shrink))
    if small == size:
        small_picture, small_guide = picture, guide
    else:
        small_picture = F.interpolate(picture, small, mode="area")
        small_guide = F.interpolate(guide, small, mode="area")
    mean_guide, mean = _box_mean(small_guide, radius), _box_mean(small_picture, radius)
    variance = _box_mean(small_guide * small_guide, radius) - mean_guide * mean_guide
    covariance = _box_mean(small_guide * small_picture, radius) - mean_guide * mean
    slope = covariance / (variance.clamp(min=0) + eps)
    offset = _box_mean(mean - slope * mean_guide, radius)
    slope = _box_mean(slope, radius)
    if small != size:
        slope, offset = (
            F.interpolate(part, size, mode="bilinear", align_corners=False)
            for part in (slope, offset)
        )
    return slope * guide + offset


def _box_mean(picture: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 radius + 1 pixels, first of columns, then of rows."""
    side = 2 * radius + 1
    columns = F.avg_pool2d(picture, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, side), 1, (0, radius), count_include_pad=False)
