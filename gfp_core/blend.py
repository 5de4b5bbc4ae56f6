"""Blending: what of a restored face goes into its photograph, frequency by frequency.

All pictures here are (h, w, 3) RGB float32 boxes of the result. `side` is the side of the face's
crop in pixels of the result, so that widths stay in proportion to the face.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .options import Blend as Blend  # where it was declared before

Picture: TypeAlias = NDArray[np.float32]

# Sigma of the Gaussians between the bands, as shares of the crop's side.
_BANDS = (1 / 64, 1 / 32, 1 / 16)

# Detail is judged in windows of this many pixels. What the tenth quietest of them hold is taken
# for noise; the factor makes up for the tenth quietest being quieter than noise is on average.
_WINDOW = 9
_QUIET = 10.0
_NOISE_FACTOR = 3.0
# Blockiness (see `blockiness`) at which detail begins to be doubted, and at which it is refused.
_BLOCKS = (0.1, 0.4)

# Sigma in pixels of the Gaussians between the bands in which grain is measured and made.
_GRAIN_BANDS = (0.8, 1.6, 3.2)


def own_detail(original: Picture, low: Picture, period: float) -> Picture:
    """Extract a photograph's detail that its crop could not hold, less noise and JPEG's blocks.

    Local energy less that of the noise, as a share of the whole: Wiener's gain.

    Args:
        original: the photograph.
        low: the same, resampled to the crop and back.
        period: side of a JPEG block in pixels, 8 times the enlargement of the result.
    """
    high = original - low
    gray = cv2.cvtColor(high, cv2.COLOR_RGB2GRAY)
    energy = cv2.blur(gray * gray, (_WINDOW, _WINDOW))
    noise = _NOISE_FACTOR * _quiet(energy, original)
    gain = np.clip(1.0 - noise / np.maximum(energy, 1e-12), 0.0, 1.0)
    start, stop = _BLOCKS
    doubt = np.clip((blockiness(original, period) - start) / (stop - start), 0.0, 1.0)
    detail: Picture = high * (cv2.blur(gain, (5, 5)) * (1.0 - doubt))[..., None]
    return detail


def blockiness(picture: Picture, period: float = 8.0) -> float:
    """Measure how much steeper steps are between JPEG blocks than elsewhere; 0: not at all.

    At a block's edge a step is compared with its neighbours (Wang, Bovik and Evans, "Blind
    measurement of blocking artifacts in images", ICIP 2000, in the pixels); where the grid begins
    need not be known.
    """
    step = round(period)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if abs(period - step) > 1e-3 or min(gray.shape) < 4 * step:
        return 0.0  # no grid of whole pixels, or too small to tell
    measures = []
    for lines in (gray, gray.T):
        edges = np.abs(np.diff(lines, axis=1)).mean(axis=0)
        steeper = edges[1:-1] - (edges[:-2] + edges[2:]) / 2
        usable = len(steeper) // step * step
        phases = steeper[:usable].reshape(-1, step).mean(axis=0)
        measures.append(float(phases.max() - np.median(phases)) / max(float(edges.mean()), 1e-6))
    return min(measures)


def banded(change: Picture, alpha: NDArray[np.float32], side: float) -> Picture:
    """Mask a change so that its low frequencies begin further inside than the high ones.

    Multi-band blending (Burt and Adelson, "A multiresolution spline with application to image
    mosaics", ACM TOG 2, 1983): a band fades over a width in proportion to its wavelengths. The
    wider fades lie inside the mask, and nothing outside is touched.

    Args:
        change: restored less original.
        alpha: (h, w) the mask in [0, 1], by which every band is multiplied.
        side: of the crop, in pixels.
    """
    factor = _reduction(_BANDS[0] * side)
    inside = _reduced((alpha > 0).astype(np.float32), factor)
    low = _reduced(change, factor)
    faded = np.zeros_like(low)  # what of the change begins further inside
    previous = np.ones_like(inside)
    for share in _BANDS:
        near = _soft(inside, share * side / factor)
        # 0 at a straight outline, where half of the surroundings are inside, 1 deep inside.
        weight = np.minimum(previous, np.clip(2.0 * near - 1.0, 0.0, 1.0))
        faded += (previous - weight)[..., None] * _soft(low, share * side / factor)
        previous = weight
    result: Picture = change - _enlarged(faded, change)
    result *= alpha[..., None]
    return result


def grain(original: Picture, restored: Picture, seed: int) -> Picture:
    """Make anew the noise that a photograph has and its restored face lacks.

    Noise is measured band by band in luma and two colour differences, in the quietest windows.

    Args:
        original: the photograph.
        restored: the restored face in the same place.
        seed: of the noise; the same seed gives the same grain.
    """
    noise = np.random.default_rng(seed).standard_normal(original.shape).astype(np.float32)
    result = np.zeros_like(original)
    for raw, there, now in zip(
        _split(noise), _split(_differences(original)), _split(_differences(restored)), strict=True
    ):
        for channel in range(3):
            target = _quiet(_energy(there[..., channel]), original)
            missing = target - _quiet(_energy(now[..., channel]), restored)
            own = _quiet(_energy(raw[..., channel]), np.full_like(original, 0.5))
            result[..., channel] += raw[..., channel] * np.sqrt(max(missing, 0.0) / max(own, 1e-12))
    luma, red, blue = result[..., 0], result[..., 1], result[..., 2]
    # Of Y = (R + 2 G + B) / 4, so that the three add up to it again.
    green = -(red + blue) / 2
    return np.stack([luma + red, luma + green, luma + blue], axis=-1)


def _differences(picture: Picture) -> Picture:
    # In this order, so that there is no difference at all where all three are the same.
    luma = ((picture[..., 0] + picture[..., 2]) / 2 + picture[..., 1]) / 2
    return np.stack([luma, picture[..., 0] - luma, picture[..., 2] - luma], axis=-1)


def _split(picture: Picture) -> list[Picture]:
    """Split a picture into the bands above each Gaussian and below the one before."""
    bands: list[Picture] = []
    rest: NDArray[Any] = picture
    for sigma in _GRAIN_BANDS:
        soft = cv2.GaussianBlur(picture, (0, 0), sigma)
        bands.append(np.asarray(rest - soft, np.float32))
        rest = soft
    return bands


def _energy(band: NDArray[Any]) -> NDArray[Any]:
    result: NDArray[Any] = cv2.blur(band * band, (_WINDOW, _WINDOW))
    return result


def _quiet(energy: NDArray[Any], picture: Picture) -> float:
    """Measure the energy of the quietest windows, without those all black or all white."""
    gray = picture.mean(axis=-1)
    usable = energy[(gray > 0.02) & (gray < 0.98)]
    return float(np.percentile(usable, _QUIET)) if usable.size else 0.0


def _soft(picture: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Blur by a Gaussian, on a smaller picture where the Gaussian is wide."""
    factor = _reduction(sigma)
    smaller = _by_channel(
        partial(
            cv2.GaussianBlur,
            ksize=(0, 0),
            sigmaX=max(sigma / factor, 0.3),
            borderType=cv2.BORDER_REPLICATE,
        ),
        _reduced(picture, factor),
    )
    return _enlarged(smaller, picture)


def _reduction(sigma: float) -> int:
    """Return by how much a picture may be reduced before a Gaussian blur."""
    return max(1, int(sigma / 2))


def _reduced(picture: NDArray[Any], factor: int) -> NDArray[Any]:
    height, width = picture.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    return _resized(picture, small, cv2.INTER_AREA)


def _enlarged(picture: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    height, width = like.shape[:2]
    return _resized(picture, (width, height), cv2.INTER_LINEAR)


def _resized(picture: NDArray[Any], size: tuple[int, int], interpolation: int) -> NDArray[Any]:
    """Resize a picture to a width and height; itself if it has them."""
    if picture.shape[1::-1] == size:
        return picture
    return _by_channel(partial(cv2.resize, dsize=size, interpolation=interpolation), picture)


def _by_channel(run: Callable[[NDArray[Any]], Any], picture: NDArray[Any]) -> NDArray[Any]:
    """Run channel by channel: together their rounding differs, and gray must stay gray exactly."""
    if picture.ndim == 2:
        return np.asarray(run(picture))
    # OpenCV takes channels apart and together at three times NumPy's speed.
    return np.asarray(cv2.merge([run(channel) for channel in cv2.split(picture)]))
