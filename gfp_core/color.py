"""Colour: whose colours a restored face keeps, the restorer's or the photograph's.

Restorers were trained on colour photographs and paint skin tones over grey ones. In CIE Lab
(CIE 15:2018, D65 white) lightness and colour part ways: a restored face can take the restorer's
L* and the input's a* and b*.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .faces import Faces

ColorMode: TypeAlias = Literal["auto", "input", "restorer"]
"""Whose colours a restored face takes; auto: the input's where it is monochrome."""

# IEC 61966-2-1: linear sRGB to CIE XYZ.
_XYZ_FROM_RGB = torch.tensor(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ],
    dtype=torch.float64,
)
# Relative to its white, so that grey has a* = b* = 0 to the last bit that float32 allows.
_XYZ_FROM_RGB /= _XYZ_FROM_RGB.sum(dim=1, keepdim=True)
_RGB_FROM_XYZ = torch.linalg.inv(_XYZ_FROM_RGB)
_DELTA = 6 / 29

# Crops are judged at this size, in the rows and columns the mean face fills. The tint of a pixel
# is the mean over those that come next to it by lightness; what is left is averaged over small
# blocks, which noise and compression do not survive but lips and cheeks do. The limit was set on
# 334 portraits: the least colourful had 1.7, sepia prints after JPEG of quality 30 at most 1.5.
_GREY_SIZE = 128
_GREY_ROWS, _GREY_COLUMNS = slice(24, 120), slice(24, 104)
_GREY_NEIGHBOURS = 301
_GREY_BLOCK = 8
_GREY_LIMIT = 1.65
# Chroma differences shrink with exposure; they are judged as if the mean L* of the face were this.
_GREY_LIGHTNESS, _GREY_DARKEST = 60.0, 10.0


def apply_color(faces: Faces, mode: ColorMode = "auto") -> Faces:
    """Gives every restored face the colours it should have.

    Args:
        faces: aligned and restored faces.
        mode: "restorer" keeps the restorer's colours. "input" keeps its lightness and takes the
            chroma of the input crop, so that a grey face stays grey and a sepia one sepia. "auto"
            decides for each face: "input" where `is_grey` finds the crop monochrome, "restorer"
            elsewhere.

    Returns:
        The faces with new ``restored`` crops in [0, 1].

    Raises:
        ValueError: an unknown mode, or faces without crops or restored crops of one size.
    """
    if mode not in get_args(ColorMode):
        raise ValueError(f"mode must be one of {', '.join(get_args(ColorMode))}, not {mode!r}")
    if not len(faces) or mode == "restorer":
        return faces
    if faces.crops is None or faces.restored is None:
        raise ValueError("the faces were not aligned and restored: do so before apply_color")
    if faces.crops.shape != faces.restored.shape:
        raise ValueError(
            f"crops {tuple(faces.crops.shape)} and restored crops {tuple(faces.restored.shape)} "
            "must have the same size"
        )
    chosen = is_grey(faces.crops) if mode == "auto" else torch.ones(len(faces), dtype=torch.bool)
    colored = faces.restored.clone()
    for i in chosen.nonzero().flatten().tolist():
        lab = rgb_to_lab(faces.crops[i : i + 1].to(colored))
        lab[:, 0] = rgb_to_lab(faces.restored[i : i + 1])[:, 0]
        colored[i] = lab_to_rgb(lab)[0].clamp(0.0, 1.0)
    return replace(faces, restored=colored)


def is_grey(crops: Tensor) -> Tensor:
    """Which crops are monochrome: grey, or toned in one tint like sepia or yellowed prints.

    In a monochrome picture the chroma is a function of the lightness alone. Skin, lips, eyes and
    hair of a colour portrait differ in chroma at the same lightness.

    Args:
        crops: (N, 3, S, S) RGB in [0, 1], aligned faces.

    Returns:
        (N,) bool on the CPU.
    """
    small = F.interpolate(crops.detach().float(), (_GREY_SIZE, _GREY_SIZE), mode="area")
    lab = rgb_to_lab(small[:, :, _GREY_ROWS, _GREY_COLUMNS])
    light, chroma = lab[:, 0].flatten(1), lab[:, 1:].flatten(2)  # [N, P], [N, 2, P]
    order = light.argsort(dim=1, stable=True)[:, None].expand_as(chroma)
    ranked = chroma.gather(2, order)
    tint = F.avg_pool1d(ranked, _GREY_NEIGHBOURS, 1, _GREY_NEIGHBOURS // 2, count_include_pad=False)
    rest = torch.zeros_like(chroma).scatter(2, order, ranked - tint).view_as(lab[:, 1:])
    spread = F.avg_pool2d(rest, _GREY_BLOCK).square().sum(dim=1).mean(dim=(1, 2)).sqrt()
    exposure = light.mean(dim=1).clamp(min=_GREY_DARKEST) / _GREY_LIGHTNESS
    return (spread / exposure < _GREY_LIMIT).cpu()


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """SRGB (N, 3, H, W) in [0, 1] to L* in 0..100, a* and b*, of the same shape."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", _XYZ_FROM_RGB.to(rgb), linear)
    cube_root = xyz.clamp(min=0) ** (1 / 3)
    f = torch.where(xyz > _DELTA**3, cube_root, xyz / (3 * _DELTA**2) + 4 / 29)
    x, y, z = f.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (N, 3, H, W) to sRGB of the same shape; outside [0, 1] where sRGB lacks the colour."""
    light, a, b = lab.unbind(dim=1)
    y = (light + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(f > _DELTA, f**3, 3 * _DELTA**2 * (f - 4 / 29))
    linear = torch.einsum("ij,njhw->nihw", _RGB_FROM_XYZ.to(lab), xyz)
    curved = 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, curved)
