"""Statistics of color, and the affine maps that carry them from one picture to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import face_ellipse

# Statistics are those of means over blocks, of which this many lie along a side: 32 px of a crop
# of 512. Noise and JPEG artefacts average out, and what blur takes from a picture's variance lies
# below that size. (On 24 degraded portraits, finer blocks took contrast from the restored ones.)
_BLOCKS = 16
# Added to variances, so that one color alone has a map, too: a deviation of a quarter of a level.
_MIN_VARIANCE = (0.25 / 255) ** 2
# Contrast is changed by no more than this: where a picture has next to none, there is no telling.
_MAX_GAIN = 4.0


@dataclass(frozen=True)
class Statistics:
    """The colors of pictures; float64 on the CPU."""

    mean: Tensor
    """(N, 3)."""
    covariance: Tensor
    """(N, 3, 3)."""


def color_statistics(
    pictures: Tensor, weights: Tensor, space: Callable[[Tensor], Tensor] | None = None
) -> Statistics:
    """Measure mean and covariance of the colors of pictures, robust to noise and blur.

    Args:
        pictures: (N, 3, H, W).
        weights: (N or 1, 1, H, W), how much each pixel counts, from 0 to 1.
        space: the color space, as a function of (N, 3, H, W); by default the pictures' own.
    """
    size = (_BLOCKS, _BLOCKS)
    share = F.interpolate(weights.to(pictures), size, mode="area")
    blocks = F.interpolate(pictures * weights.to(pictures), size, mode="area")
    blocks = blocks / share.clamp(min=1e-6)
    colors = (blocks if space is None else space(blocks)).flatten(2).cpu().double()  # [N, 3, P]
    share = share.flatten(2).cpu().double()
    share = share / share.sum(dim=2, keepdim=True).clamp(min=1e-12)
    mean = (share * colors).sum(dim=2)
    offsets = colors - mean[:, :, None]
    return Statistics(mean, (share * offsets) @ offsets.mT)


@lru_cache(maxsize=8)
def face_weights(size: int) -> Tensor:
    """Weigh pixels of a crop: 1 on the mean face's ellipse, else 0, (1, 1, size, size); shared."""
    return torch.from_numpy(face_ellipse(size)).float()[None, None]


def monge_kantorovitch(source: Statistics, target: Statistics) -> tuple[Tensor, Tensor]:
    """Find the linear map of least displacement that gives the source the target's statistics.

    F. Pitié and A. Kokaram, "The linear Monge-Kantorovitch linear colour mapping for
    example-based colour transfer", CVMP 2007: T = Su^-1/2 (Su^1/2 Sv Su^1/2)^1/2 Su^-1/2.

    Returns:
        (N, 3, 3) and (N, 3) float64: the linear part, and what is added to it.
    """
    floor = _MIN_VARIANCE * torch.eye(3, dtype=torch.float64)
    root = _power(source.covariance + floor, 0.5)
    inverse = _power(source.covariance + floor, -0.5)
    middle = _power(root @ (target.covariance + floor) @ root, 0.5)
    gains, axes = torch.linalg.eigh(inverse @ middle @ inverse)
    limited = gains.clamp(1 / _MAX_GAIN, _MAX_GAIN)
    linear = (axes * limited[:, None]) @ axes.mT
    return linear, target.mean - (linear @ source.mean[..., None])[..., 0]


def mean_and_deviation(source: Statistics, target: Statistics) -> tuple[Tensor, Tensor]:
    """Find the map that gives each channel of the source the target's mean and deviation.

    E. Reinhard, M. Ashikhmin, B. Gooch and P. Shirley, "Color transfer between images", 2001,
    equations 10 and 11 (there in the space l-alpha-beta).

    Returns:
        (N, 3, 3) and (N, 3) float64: the linear part, and what is added to it.
    """
    before, after = (
        torch.diagonal(side.covariance, dim1=1, dim2=2) + _MIN_VARIANCE for side in (source, target)
    )
    gain = (after / before).sqrt().clamp(1 / _MAX_GAIN, _MAX_GAIN)
    return torch.diag_embed(gain), target.mean - gain * source.mean


def apply_map(pictures: Tensor, linear: Tensor, offset: Tensor) -> Tensor:
    """Apply affine maps (N, 3, 3) and (N, 3) to every pixel of pictures (N, 3, H, W)."""
    moved = torch.einsum("nij,njhw->nihw", linear.to(pictures), pictures)
    return moved + offset.to(pictures)[:, :, None, None]


def _power(matrices: Tensor, exponent: float) -> Tensor:
    """Powers of symmetric positive definite (N, 3, 3) matrices."""
    values, axes = torch.linalg.eigh(matrices)
    result: Tensor = (axes * (values.clamp(min=1e-12) ** exponent)[:, None]) @ axes.mT
    return result
