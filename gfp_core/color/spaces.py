"""Color spaces: sRGB, CIE Lab and OKLab, on batches of pictures.

CIE Lab is that of CIE 15:2018 with the D65 white of IEC 61966-2-1 (sRGB). OKLab is that of
B. Ottosson, "A perceptual color space for image processing", 2020. In both, equal channels have
no chroma, to the last bit that float32 allows.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMINANCE = (0.2126729, 0.7151522, 0.0721750)
"""Share of linear red, green and blue in the luminance (IEC 61966-2-1)."""

# IEC 61966-2-1: linear sRGB to CIE XYZ.
_XYZ_FROM_RGB = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [*LUMINANCE],
        [0.0193339, 0.1191920, 0.9503041],
    ],
    dtype=torch.float64,
)
# Relative to its white, so that gray has a* = b* = 0.
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(dim=1, keepdim=True)
_RGB_FROM_XYZ = torch.linalg.inv(_XYZ_FROM_RGB)
_DELTA = 6 / 29

# Ottosson 2020: linear sRGB to the responses of the cones, and their cube roots to OKLab.
_CONES_FROM_RGB = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=torch.float64,
)
_OKLAB_FROM_ROOTS = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=torch.float64,
)
# The published digits give white an L of 0.99999999 and gray a chroma of 4e-8.
_CONES_FROM_RGB /= _CONES_FROM_RGB.sum(dim=1, keepdim=True)
_OKLAB_FROM_ROOTS[0] /= _OKLAB_FROM_ROOTS[0].sum()
_OKLAB_FROM_ROOTS[1:] -= _OKLAB_FROM_ROOTS[1:].mean(dim=1, keepdim=True)
_RGB_FROM_CONES = torch.linalg.inv(_CONES_FROM_RGB)
_ROOTS_FROM_OKLAB = torch.linalg.inv(_OKLAB_FROM_ROOTS)


def rgb_to_linear(rgb: Tensor) -> Tensor:
    """SRGB to linear light, of any shape; below 0 the curve's straight part goes on."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_rgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB, of any shape; below 0 the curve's straight part goes on."""
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curved)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """SRGB (N, 3, H, W) in [0, 1] to L* in 0..100, a* and b*, of the same shape."""
    xyz = _mixed(_XYZ_FROM_RGB, rgb_to_linear(rgb))
    cube_root = xyz.clamp(min=0) ** (1 / 3)
    f = torch.where(xyz > _DELTA**3, cube_root, xyz / (3 * _DELTA**2) + 4 / 29)
    x, y, z = f.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (N, 3, H, W) to sRGB of the same shape; outside [0, 1] where sRGB lacks the color."""
    light, a, b = lab.unbind(dim=1)
    y = (light + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    return linear_to_rgb(_mixed(_RGB_FROM_XYZ, xyz))


def rgb_to_oklab(rgb: Tensor) -> Tensor:
    """SRGB (N, 3, H, W) in [0, 1] to OKLab's L in 0..1, a and b, of the same shape."""
    cones = _mixed(_CONES_FROM_RGB, rgb_to_linear(rgb))
    return _mixed(_OKLAB_FROM_ROOTS, cones.sign() * cones.abs() ** (1 / 3))


def oklab_to_rgb(oklab: Tensor) -> Tensor:
    """OKLab (N, 3, H, W) to sRGB of the same shape; outside [0, 1] where sRGB lacks the color."""
    return linear_to_rgb(_mixed(_RGB_FROM_CONES, _mixed(_ROOTS_FROM_OKLAB, oklab) ** 3))


def _mixed(matrix: Tensor, channels: Tensor) -> Tensor:
    """A (3, 3) matrix times the channels (N, 3, H, W) of every pixel."""
    return torch.einsum("ij,njhw->nihw", matrix.to(channels), channels)
