"""Automatic enhancement of pictures: white balance, contrast, saturation.

Nothing is rounded to levels, and each part leaves a good picture nearly alone: the white balance
of neutral light is no change, contrast grows less where the picture fills the range, saturation
only where colors are dull.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tensors import check_frames, clamp01
from .filters import guided_filter
from .spaces import LUMINANCE, linear_to_rgb, oklab_to_rgb, rgb_to_linear, rgb_to_oklab

# Finlayson and Trezzi found a Minkowski norm of 6 best. A light so colored that a channel wants
# more than the greatest gain is no light but the picture's subject.
_NORM = 6
_MAX_GAIN = 2.0

# Of OKLab's lightness, 0..1. The range between the outer two shares of the pixels is stretched, by
# no more than the limit, along a curve that keeps the middle one: faces do not turn dark.
_DARK, _MIDDLE, _BRIGHT = 0.005, 0.5, 0.995
_MAX_STRETCH = 1.6
_MAX_BEND = 1.5
# Structures between the two radii (in shares of the short side) are strengthened by this much;
# finer ones are noise as often as detail. The filters' eps keep the edges of objects as they are.
_FINE_RADIUS, _COARSE_RADIUS = 1 / 128, 1 / 16
_FINE_EPS, _COARSE_EPS = 0.04**2, 0.1**2
_LOCAL_GAIN = 0.3
_WORKING_SIDE = 256

# Of OKLab's chroma: a mean below the usual one is lifted to it, by no more than the limit, and
# the less the more color a pixel has.
_USUAL_CHROMA, _FULL_CHROMA = 0.08, 0.25
_MAX_SATURATION = 0.35


def enhance(
    frames: Tensor,
    strength: float = 1.0,
    *,
    white_balance: bool = True,
    contrast: bool = True,
    saturation: bool = True,
) -> Tensor:
    """Enhance whole pictures, each on its own.

    White balance: the light's color is estimated by shades of gray (G. Finlayson and E. Trezzi,
    "Shades of gray and colour constancy", CIC 2004: the Minkowski 6-norm of each channel of
    linear light) and divided out, the luminance of the light kept. Contrast: OKLab's lightness is
    stretched to the range about its median, and its local contrast strengthened between two guided
    filters (He et al., PAMI 2013), so without halos. Saturation: OKLab's chroma of dull pictures
    is lifted. A picture without color stays without.

    Args:
        frames: (B, 3 or 4, H, W) float RGB or RGBA in [0, 1]; not changed. What lies beyond that
            range is added to the enhanced pixel again; NaN and infinite values stay. Alpha stays,
            and is how much a pixel counts for the white balance and the range.
        strength: share of the change, from 0 (the frames as they are) to 1.
        white_balance: whether the light's color is divided out.
        contrast: whether the contrast is strengthened.
        saturation: whether dull colors are lifted.

    Returns:
        (B, C, H, W) of the frames' type: new.

    Raises:
        ValueError: the frames are no such tensor, or the strength lies outside 0..1.
    """
    check_frames(frames)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in 0..1, not {strength}")
    enhanced = frames.clone()
    if strength == 0:
        return enhanced
    for i in range(len(frames)):  # one at a time: frames of a video fill the memory soon enough
        rgb = clamp01(frames[i : i + 1, :3].float())
        changed = rgb
        opaque = clamp01(frames[i : i + 1, 3:].float())
        weights = opaque if opaque.shape[1] else torch.ones_like(rgb[:, :1])
        if white_balance:
            changed = balance(changed, weights)
        if contrast or saturation:
            lab = rgb_to_oklab(changed)
            if contrast:
                lab = torch.cat([_contrasted(lab[:, :1], weights), lab[:, 1:]], dim=1)
            if saturation:
                lab = torch.cat([lab[:, :1], _saturated(lab[:, 1:], weights)], dim=1)
            changed = oklab_to_rgb(lab)
        change = strength * (changed.clamp(0.0, 1.0) - rgb)
        enhanced[i, :3] += change[0].to(frames.dtype)
    return enhanced


def balance(rgb: Tensor, weights: Tensor) -> Tensor:
    """Divide out the light's color, as shades of gray estimate it.

    Args:
        rgb: (N, 3, H, W) sRGB in [0, 1].
        weights: (N, 1, H, W), how much each pixel counts, from 0 to 1.

    Returns:
        (N, 3, H, W) sRGB; may reach beyond 1.
    """
    linear = rgb_to_linear(rgb)
    total = weights.sum(dim=(2, 3)).clamp(min=1e-6)
    light = ((weights * linear**_NORM).sum(dim=(2, 3)) / total) ** (1 / _NORM)  # [N, 3]
    luminance = light @ torch.tensor(LUMINANCE).to(light)
    gains = luminance[:, None] / light.clamp(min=1e-6)
    gains = torch.where(luminance[:, None] > 1e-6, gains, 1.0)  # black has no light
    gains = gains.clamp(1 / _MAX_GAIN, _MAX_GAIN)
    return linear_to_rgb(linear * gains[:, :, None, None])


def _contrasted(light: Tensor, weights: Tensor) -> Tensor:
    """The lightness (1, 1, H, W), its range and its local contrast strengthened."""
    short = min(light.shape[-2:])
    shrink = max(1, short // _WORKING_SIDE)
    fine, coarse = (
        guided_filter(light, light, max(1, round(radius * short / shrink)), eps, shrink=shrink)
        for radius, eps in ((_FINE_RADIUS, _FINE_EPS), (_COARSE_RADIUS, _COARSE_EPS))
    )
    return stretch(light, *_levels(light, weights)) + _LOCAL_GAIN * (fine - coarse)


def stretch(light: Tensor, dark: float, middle: float, bright: float) -> Tensor:
    """Widen the range of a lightness from dark to bright, and keep the middle where it is.

    The range grows by at most 1.6, to at most 0..1; what of 0..1 stays free is shared between both
    ends as before. The middle keeps its level by a power curve, whose exponent lies in 2/3..3/2.

    Args:
        light: of any shape, in 0..1; beyond the range the curve goes on straight.
        dark: lower end of the range.
        middle: the level that stays.
        bright: upper end.

    Returns:
        The lightness itself where the range is full, or the levels do not ascend.
    """
    span = max(bright - dark, 1e-3)
    gain = min(_MAX_STRETCH, 1 / span)
    if gain <= 1 or not dark < middle < bright:
        return light
    # What stays free of the range is shared between both ends as it was before.
    low = dark * (1 - gain * span) / (1 - span)
    share, target = (
        (middle - start) / width for start, width in ((dark, span), (low, gain * span))
    )
    bend = math.log(target) / math.log(share) if 0 < target < 1 else 1.0
    bend = min(max(bend, 1 / _MAX_BEND), _MAX_BEND)
    level = (light - dark) / span
    within = level.clamp(0.0, 1.0)
    return low + gain * span * (within**bend + level - within)


def _levels(light: Tensor, weights: Tensor) -> tuple[float, float, float]:
    """The lightness (1, 1, H, W) below which lie few, half and nearly all pixels that count."""
    side = [min(length, _WORKING_SIDE) for length in light.shape[-2:]]
    values = F.interpolate(light, side, mode="area").flatten().cpu()
    counts = F.interpolate(weights, side, mode="area").flatten().cpu().double()
    if counts.sum() == 0:
        return 0.0, 0.5, 1.0
    values, order = values.sort(stable=True)
    share = counts[order].cumsum(dim=0) / counts.sum()
    shares = torch.tensor([_DARK, _MIDDLE, _BRIGHT], dtype=torch.float64)
    indices = torch.searchsorted(share, shares).clamp(max=len(values) - 1)
    dark, middle, bright = values[indices].tolist()
    return dark, middle, bright


def _saturated(chroma: Tensor, weights: Tensor) -> Tensor:
    """The chroma (1, 2, H, W) of a dull picture, lifted."""
    amount = chroma.norm(dim=1, keepdim=True)
    mean = (weights * amount).sum() / weights.sum().clamp(min=1e-6)
    lift = (_USUAL_CHROMA / mean.clamp(min=1e-6) - 1).clamp(0.0, _MAX_SATURATION)
    result: Tensor = chroma * (1 + lift * (1 - amount / _FULL_CHROMA).clamp(min=0.0))
    return result
