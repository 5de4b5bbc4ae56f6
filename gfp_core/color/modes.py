"""Color: whose colors a restored face keeps, the restorer's or the photograph's.

Restorers shift colors a little, and paint skin tones over gray photographs. A restored face can
take the statistics of the photograph's colors inside the face, their low frequencies, or its
chroma, pixel by pixel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..faces import Faces
from ..options import ColorMode, KeepMonochrome
from ..tensors import check_frames
from ..track import number, smooth_over_time
from .enhance import enhance
from .filters import guided_filter
from .spaces import lab_to_rgb, rgb_to_lab
from .transfer import (
    Statistics,
    apply_map,
    color_statistics,
    face_weights,
    mean_and_deviation,
    monge_kantorovitch,
)

logger = logging.getLogger(__name__)

_BY_STATISTICS: tuple[ColorMode, ...] = ("auto", "match", "mean_std", "reference")

# The low frequencies are found on crops of this size, in windows of a sixteenth of it to each
# side. A variance of L* below eps is flat: skin, but not the edge of a face or of hair.
_LOW_SIZE = 128
_LOW_RADIUS = _LOW_SIZE // 16
_LOW_EPS = 100.0

# Crops are judged at this size, in the rows and columns the mean face fills. The tint of a pixel
# is the mean over those that come next to it by lightness; what is left is averaged over small
# blocks, which noise and compression do not survive but lips and cheeks do. The limit was set on
# 334 portraits: the least colorful had 1.7, sepia prints after JPEG of quality 30 at most 1.5.
_MONO_SIZE = 128
_MONO_ROWS, _MONO_COLUMNS = slice(24, 120), slice(24, 104)
_MONO_NEIGHBOURS = 301
_MONO_BLOCK = 8
_MONO_LIMIT = 1.65
# Chroma differences shrink with exposure; they are judged as if the mean L* of the face were this.
_MONO_LIGHTNESS, _MONO_DARKEST = 60.0, 10.0

_AT_ONCE = 8  # faces whose pixels are worked on together


def apply_color(
    faces: Faces,
    mode: ColorMode = "auto",
    *,
    strength: float = 1.0,
    keep_monochrome: KeepMonochrome = "auto",
    reference: Tensor | None = None,
    smoothing: float = 0.0,
) -> Faces:
    """Give every restored face the colors it should have.

    The modes:

    - "restorer": its colors as they are.
    - "auto": the same as "match", the best on degraded portraits: colors come back to those of
      the photograph however the restorer shifts them, without its noise and blocks.
    - "match": an affine map of RGB gives the restored face the mean and covariance that the input
      has on the ellipse about the mean face (linear Monge-Kantorovitch; Pitié & Kokaram 2007).
    - "mean_std": the same with mean and deviation of each channel of Lab (Reinhard et al. 2001).
    - "low_frequency": Lab of the restored face plus the smoothed difference to the input's, place
      by place. Smoothing is a guided filter (He et al. 2013) along the restored lightness, so
      that colors do not bleed over edges as halos. Also brings back the input's uneven light.
    - "input": the restorer's L* with the input's a* and b*: exact, with its noise and blocks.
    - "lightness": the input's L* with the restorer's a* and b*, to color or clean a face only.
    - "reference": as "match", to the colors of another picture.
    - "enhance": contrast and saturation by `enhance`. No white balance: a face by itself is not
      gray on average, in no light.

    Statistics are of means over blocks of 1/16 of the crop, which noise, JPEG artefacts and blur
    hardly touch.

    Args:
        faces: aligned and restored faces.
        mode: whose colors the faces take.
        strength: share of the correction, from 0 (the restorer's colors) to 1.
        keep_monochrome: "auto": a face whose crop `is_monochrome` (black and white, sepia,
            yellowed) keeps the input's chroma as in "input", in every mode but "restorer", and
            before "enhance". "on": every face does, in all modes. "off": none.
        reference: (1 or N, 3 or 4, H, W) float RGB or RGBA in [0, 1], for "reference": one picture
            for all faces, or one for each in their order. All of it counts, and pixels with alpha
            as much as their alpha: give a cut-out face for the colors of a face.
        smoothing: for frames of a video in order: share of the past, from 0 to 1, in the
            statistics of "match", "mean_std" and "reference" and in the judgement of gray, see
            `track.smooth_over_time`. Faces without tracks are numbered first (`track.number`).

    Returns:
        The faces with new ``restored`` crops in [0, 1], of their type; with ``smoothing`` their
        ``tracks`` hold the statistics for the frames that follow.

    Raises:
        ValueError: an unknown mode or guard, an option out of range, faces without crops or
            restored crops of one size, or a reference that is missing, not asked for, of
            another shape or transparent throughout.
    """
    if mode not in get_args(ColorMode):
        raise ValueError(f"mode must be one of {', '.join(get_args(ColorMode))}, not {mode!r}")
    if keep_monochrome not in get_args(KeepMonochrome):
        raise ValueError(
            f"keep_monochrome must be one of {', '.join(get_args(KeepMonochrome))}, not "
            f"{keep_monochrome!r}"
        )
    for name, share in (("strength", strength), ("smoothing", smoothing)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must lie in 0..1, not {share}")
    _check_reference(reference, mode, len(faces))
    if not len(faces) or strength == 0 or (mode == "restorer" and keep_monochrome != "on"):
        return faces
    crops, restored = _check_crops(faces)
    if smoothing and faces.tracks is None:
        faces = number(faces)

    monochrome, faces = _monochrome(faces, crops, keep_monochrome, smoothing)
    maps = None
    if mode in _BY_STATISTICS:
        # Also where all faces are monochrome: the statistics count for the frames that follow.
        maps, faces = _maps(faces, restored, crops, mode, reference, smoothing)
    colored = torch.empty_like(restored)
    for group in _groups(len(faces)):
        colored[group] = _recolored(
            restored[group],
            crops[group],
            monochrome[group],
            mode,
            None if maps is None else (maps[0][group], maps[1][group]),
        )
        torch.lerp(restored[group], colored[group].clamp_(0.0, 1.0), strength, out=colored[group])
    return replace(faces, restored=colored.to(faces.restored))


def _groups(count: int) -> list[slice]:
    """Split faces into groups, so that the memory of what is between does not grow with them."""
    return [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]


def _recolored(
    restored: Tensor,
    crops: Tensor,
    monochrome: Tensor,
    mode: ColorMode,
    maps: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Recolor restored crops (N, 3, S, S); may reach beyond [0, 1]."""
    toned = restored
    if monochrome.any():
        toned = torch.where(monochrome, _mixed(restored, crops), restored)
    if mode == "enhance":
        return enhance(toned, white_balance=False)
    if mode == "restorer" or monochrome.all():
        return toned
    if maps is not None:
        corrected = _mapped(restored, mode, maps)
    else:
        corrected = _corrected(restored, crops, mode)
    return torch.where(monochrome, toned, corrected)


def is_monochrome(crops: Tensor) -> Tensor:
    """Tell which crops are monochrome: gray, or toned in one tint like sepia or yellowed prints.

    In a monochrome picture the chroma is a function of the lightness alone. Skin, lips, eyes and
    hair of a color portrait differ in chroma at the same lightness.

    Args:
        crops: (N, 3, S, S) RGB in [0, 1], aligned faces.

    Returns:
        (N,) bool on the CPU.
    """
    return _tint_spread(crops) < _MONO_LIMIT


def _monochrome(
    faces: Faces, crops: Tensor, keep_monochrome: KeepMonochrome, smoothing: float
) -> tuple[Tensor, Faces]:
    """Which faces keep the chroma of the input, (N, 1, 1, 1) bool; and the faces, with tracks."""
    if keep_monochrome != "auto":
        chroma_stays = torch.full((len(faces),), keep_monochrome == "on")
    else:
        spread = {"tint": _tint_spread(crops)}
        if smoothing:
            spread, faces = smooth_over_time(faces, spread, smoothing)
        chroma_stays = spread["tint"] < _MONO_LIMIT
        if chroma_stays.any():
            logger.info(
                "%d of %d faces are monochrome and stay so.", int(chroma_stays.sum()), len(faces)
            )
    return chroma_stays.to(crops.device)[:, None, None, None], faces


def _tint_spread(crops: Tensor) -> Tensor:
    """Measure how far the chroma of crops is from a function of their lightness: (N,), CPU."""
    small = F.interpolate(crops.detach().float(), (_MONO_SIZE, _MONO_SIZE), mode="area")
    lab = rgb_to_lab(small[:, :, _MONO_ROWS, _MONO_COLUMNS])
    light, chroma = lab[:, 0].flatten(1), lab[:, 1:].flatten(2)  # [N, P], [N, 2, P]
    order = light.argsort(dim=1, stable=True)[:, None].expand_as(chroma)
    ranked = chroma.gather(2, order)
    tint = F.avg_pool1d(ranked, _MONO_NEIGHBOURS, 1, _MONO_NEIGHBOURS // 2, count_include_pad=False)
    rest = torch.zeros_like(chroma).scatter(2, order, ranked - tint).view_as(lab[:, 1:])
    spread = F.avg_pool2d(rest, _MONO_BLOCK).square().sum(dim=1).mean(dim=(1, 2)).sqrt()
    exposure = light.mean(dim=1).clamp(min=_MONO_DARKEST) / _MONO_LIGHTNESS
    return (spread / exposure).cpu()


def _corrected(restored: Tensor, crops: Tensor, mode: ColorMode) -> Tensor:
    """Restored crops (N, 3, S, S) with other colors, pixel by pixel; may reach beyond [0, 1]."""
    if mode == "input":
        return _mixed(restored, crops)
    if mode == "lightness":
        return _mixed(crops, restored)
    return _with_low_frequencies(restored, crops)


def _maps(
    faces: Faces,
    restored: Tensor,
    crops: Tensor,
    mode: ColorMode,
    reference: Tensor | None,
    smoothing: float,
) -> tuple[tuple[Tensor, Tensor], Faces]:
    """Find the maps (N, 3, 3) and (N, 3) that give restored crops other statistics of color."""
    lab = mode == "mean_std"
    space = rgb_to_lab if lab else None
    source = _statistics(restored, space)
    if reference is None:
        target = _statistics(crops, space)
    else:
        reference = reference.float()
        alpha = reference[:, 3:] if reference.shape[1] == 4 else torch.ones_like(reference[:, :1])
        target = color_statistics(reference[:, :3], alpha, space)
    if smoothing:
        values = {
            f"{mode} {side} {moment}": getattr(statistics, moment).expand(
                len(faces), *[-1] * (getattr(statistics, moment).ndim - 1)
            )
            for side, statistics in (("source", source), ("target", target))
            for moment in ("mean", "covariance")
        }
        values, faces = smooth_over_time(faces, values, smoothing)
        source, target = (
            Statistics(values[f"{mode} {side} mean"], values[f"{mode} {side} covariance"])
            for side in ("source", "target")
        )
    find_map = mean_and_deviation if lab else monge_kantorovitch
    return find_map(source, target), faces


def _statistics(crops: Tensor, space: Callable[[Tensor], Tensor] | None) -> Statistics:
    """Measure the colors of crops (N, 3, S, S) on the ellipse about the mean face."""
    ellipse = face_weights(crops.shape[-1])
    parts = [color_statistics(crops[group], ellipse, space) for group in _groups(len(crops))]
    return Statistics(
        torch.cat([part.mean for part in parts]), torch.cat([part.covariance for part in parts])
    )


def _mapped(restored: Tensor, mode: ColorMode, maps: tuple[Tensor, Tensor]) -> Tensor:
    """Apply maps to restored crops (N, 3, S, S), in the color space of the mode."""
    if mode == "mean_std":
        return lab_to_rgb(apply_map(rgb_to_lab(restored), *maps))
    return apply_map(restored, *maps)


def _mixed(light: Tensor, chroma: Tensor) -> Tensor:
    """L* of one picture (N, 3, H, W) with a* and b* of another, in sRGB."""
    return lab_to_rgb(torch.cat([rgb_to_lab(light)[:, :1], rgb_to_lab(chroma)[:, 1:]], dim=1))


def _with_low_frequencies(restored: Tensor, crops: Tensor) -> Tensor:
    """Restored crops (N, 3, S, S) with the low frequencies of Lab of the input crops."""
    lab = rgb_to_lab(restored)
    shrink = max(1, restored.shape[-1] // _LOW_SIZE)
    difference = rgb_to_lab(crops) - lab
    radius = max(1, _LOW_RADIUS * restored.shape[-1] // (_LOW_SIZE * shrink))
    return lab_to_rgb(lab + guided_filter(difference, lab[:, :1], radius, _LOW_EPS, shrink=shrink))


def check_reference(mode: ColorMode, reference: Tensor | None) -> None:
    """Refuse a mode without its reference picture, and a picture without its mode.

    Raises:
        ValueError: says which is missing.
    """
    if (mode == "reference") != (reference is not None):
        raise ValueError(
            'mode "reference" needs a reference picture'
            if reference is None
            else f'a reference picture is given, but mode is {mode!r}: choose "reference"'
        )


def _check_reference(reference: Tensor | None, mode: ColorMode, count: int) -> None:
    check_reference(mode, reference)
    if reference is None:
        return
    check_frames(reference, name="reference")
    broken = [i for i, picture in enumerate(reference) if not picture.isfinite().all()]
    if broken:
        raise ValueError(f"reference picture {broken[0]} holds NaN or infinite values")
    invisible = [i for i, picture in enumerate(reference) if not _is_visible(picture)]
    if invisible:
        raise ValueError(
            f"reference picture {invisible[0]} is transparent throughout, so that none of its "
            "colors count: give one with visible pixels"
        )
    if count and reference.shape[0] not in (1, count):
        raise ValueError(
            f"{reference.shape[0]} reference pictures for {count} faces: give one, or one for each"
        )


def _is_visible(picture: Tensor) -> bool:
    """Tell whether any pixel of a (3 or 4, H, W) picture counts."""
    return len(picture) < 4 or bool((picture[3] > 0).any())


def _check_crops(faces: Faces) -> tuple[Tensor, Tensor]:
    """The crops and the restored crops (N, 3, S, S) float32 in [0, 1] on one device."""
    if faces.crops is None or faces.restored is None:
        raise ValueError("the faces were not aligned and restored: do so before apply_color")
    if faces.crops.shape != faces.restored.shape:
        raise ValueError(
            f"crops {tuple(faces.crops.shape)} and restored crops {tuple(faces.restored.shape)} "
            "must have the same size"
        )
    restored = faces.restored.float()
    return faces.crops.to(restored), restored
