"""Degradations wider than the papers' equation: what pictures found in the open have been through.

The papers' formula (`degradation`) blurs, shrinks, adds noise and compresses once. Photographs on
the web were resized and compressed twice, taken in dark rooms, printed and scanned, filmed,
smoothed by a telephone or sharpened by hand. `wild` draws one such history for a face; `degrade_as`
is by the name of a kind, so that a training can mix several (`training.recipes.Data.mixture`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .degradation import (
    PAPER,
    DegradationRanges,
    degrade,
    gaussian_kernel,
    motion_kernel,
)

Picture: TypeAlias = NDArray[np.float32]
"""(H, W, 3) RGB in levels of 255, not rounded, not clipped."""
Bytes: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB."""

NAMED: dict[str, DegradationRanges] = {
    "clean": DegradationRanges((0.1, 0.8), (1.0, 1.0), (0.0, 1.5), (88.0, 100.0)),
    "mild": DegradationRanges((1.0, 3.0), (1.0, 3.0), (0.0, 5.0), (80.0, 100.0)),
    "paper": PAPER,
    "severe": DegradationRanges((5.0, 10.0), (6.0, 8.0), (10.0, 15.0), (60.0, 70.0)),
}
"""Ranges of the papers' formula by name; the kind ``wild`` is beside them."""
WILD = "wild"
KINDS = (*NAMED, WILD)

_ENLARGE = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_SHRINK = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC)
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def check_mixture(mixture: dict[str, float]) -> None:
    """Refuse shares that name no kind, are negative, or come to nothing.

    Raises:
        ValueError: says which.
    """
    for kind, share in mixture.items():
        if kind not in KINDS:
            raise ValueError(f"data.mixture has no kind {kind}; there are {', '.join(KINDS)}")
        if isinstance(share, bool) or not isinstance(share, (int, float)) or share < 0:
            raise ValueError(f"data.mixture.{kind} is a share of at least 0, not {share!r}")
    if mixture and not sum(mixture.values()) > 0:
        raise ValueError("data.mixture must give a share above 0 to at least one kind")


def draw_kind(rng: np.random.Generator, mixture: dict[str, float]) -> str:
    """Draw the name of a kind by its share."""
    shares = np.array([*mixture.values()], float)
    return str(rng.choice([*mixture], p=shares / shares.sum()))


def degrade_as(kind: str, image: Bytes, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Degrade a face in the way of a kind.

    Args:
        kind: one of `KINDS`.
        image: (H, W, 3) uint8 RGB, clean.
        rng: source of all randomness; the same state gives the same result.

    Returns:
        The degraded face and what it ought to become, (H, W, 3) uint8 RGB each. They are of one
        tone: a picture in gray or sepia is to stay one, for its colors cannot be known.
    """
    if kind == WILD:
        return wild(image, rng)
    return degrade(image, rng, NAMED[kind]), image


def wild(image: Bytes, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Degrade a face by a random history of the open; arguments and result as of `degrade_as`."""
    if rng.random() < 0.12:
        image = toned(image, rng)
    names = [*HISTORIES]
    shares = np.array([HISTORIES[name][0] for name in names])
    history = str(rng.choice(names, p=shares / shares.sum()))
    x = HISTORIES[history][1](image.astype(np.float32), rng)
    return _levels(_resized(x, image.shape[1], image.shape[0], _pick(rng, _ENLARGE))), image


# ---------------------------------------------------------------------- histories


def twice(x: Picture, rng: np.random.Generator) -> Picture:
    """Blur, resize, add noise and compress, then all of it once more, less strongly."""
    x = _shrunk(_blurred(x, rng, 6.0), rng, 1.0, 4.0)
    x = compressed(noisy(x, rng, 12.0), rng, 45, 95)
    x = _shrunk(_blurred(x, rng, 1.5), rng, 0.7, 2.0)
    return compressed(noisy(x, rng, 6.0), rng, 50, 98)


def thumbnail(x: Picture, rng: np.random.Generator) -> Picture:
    """Shrink well, as a page's small picture, and compress."""
    x = _shrunk(x, rng, 2.5, 10.0)
    return compressed(x, rng, 35, 90)


def dark_room(x: Picture, rng: np.random.Generator) -> Picture:
    """Add the noise of a camera in little light, perhaps as smoothed by the camera itself."""
    x = _shrunk(_blurred(x, rng, 2.5), rng, 1.0, 3.0)
    x = camera_noise(x, rng)
    if rng.random() < 0.5:
        x = smoothed(x, rng)
    return compressed(x, rng, 60, 97)


def printed(x: Picture, rng: np.random.Generator) -> Picture:
    """Print through a screen of dots and scan."""
    x = _shrunk(x, rng, 1.0, 2.0)
    x = halftone(x, rng)
    sigma = rng.uniform(0.6, 1.6)
    x = _soft(x, sigma)
    return compressed(_shrunk(x, rng, 1.0, 2.0), rng, 60, 97)


def film(x: Picture, rng: np.random.Generator) -> Picture:
    """Photograph on film: soft, grainy, of less contrast."""
    x = _shrunk(_blurred(x, rng, 4.0), rng, 1.0, 3.0)
    x = 128 + (x - 128) * rng.uniform(0.8, 1.0)
    return compressed(grainy(x, rng), rng, 65, 98)


def oversharpened(x: Picture, rng: np.random.Generator) -> Picture:
    """Sharpen a soft picture until its edges have seams."""
    x = _shrunk(_blurred(x, rng, 4.0), rng, 1.0, 3.0)
    soft = _soft(x, rng.uniform(0.8, 2.5))
    x = np.clip(x + rng.uniform(0.8, 3.0) * (x - soft), 0, 255).astype(np.float32)
    return compressed(x, rng, 60, 97)


def retouched(x: Picture, rng: np.random.Generator) -> Picture:
    """Smooth a face as a telephone's beauty filter or a poor restorer does."""
    x = _shrunk(_blurred(x, rng, 2.0), rng, 1.0, 2.5)
    x = smoothed(noisy(x, rng, 5.0), rng)
    soft = _soft(x, 1.0)
    x = np.clip(x + rng.uniform(0.0, 0.8) * (x - soft), 0, 255).astype(np.float32)
    return compressed(x, rng, 70, 98)


def filmed(x: Picture, rng: np.random.Generator) -> Picture:
    """Take a frame of a video: motion, few pixels, blocks of a coarse code."""
    if rng.random() < 0.5:
        x = _filtered(x, motion_kernel(rng.uniform(3, 15), rng.uniform(0, math.pi)))
    x = _shrunk(_blurred(x, rng, 1.5), rng, 1.5, 5.0)
    return video_blocks(noisy(x, rng, 4.0), rng)


def high_iso(x: Picture, rng: np.random.Generator) -> Picture:
    """Photograph a near face in little light: hardly smaller, hardly blurred, of strong noise."""
    x = _shrunk(_blurred(x, rng, 2.0), rng, 1.0, 1.6)
    x = camera_noise(x, rng) if rng.random() < 0.4 else noisy(x, rng, 28.0)
    return compressed(x, rng, 75, 100)


HISTORIES: dict[str, tuple[float, Callable[[Picture, np.random.Generator], Picture]]] = {
    "twice": (0.27, twice),
    "thumbnail": (0.12, thumbnail),
    "dark room": (0.12, dark_room),
    "high iso": (0.15, high_iso),
    "printed": (0.07, printed),
    "film": (0.07, film),
    "oversharpened": (0.06, oversharpened),
    "retouched": (0.06, retouched),
    "filmed": (0.08, filmed),
}
"""The share of each and what it does; the result may be smaller than the face."""


# ---------------------------------------------------------------------- parts


def toned(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Turn a picture gray, or brown as old prints are; (H, W, 3) uint8 RGB both."""
    x = image.astype(np.float32)
    gray = np.repeat((x @ _LUMA)[..., None], 3, axis=2)
    if rng.random() < 0.5:
        return _levels(gray)
    share = rng.uniform(0.4, 1.0)
    return _levels(gray + share * (np.minimum(gray @ _SEPIA.T, 255) - gray))


def noisy(x: Picture, rng: np.random.Generator, max_deviation: float) -> Picture:
    """Add white noise, of each color by itself or of all together."""
    channels = 1 if rng.random() < 0.4 else 3
    noise = rng.standard_normal((*x.shape[:2], channels), dtype=np.float32)
    return x + noise * np.float32(rng.uniform(0, max_deviation))


def camera_noise(x: Picture, rng: np.random.Generator) -> Picture:
    """Add a sensor's noise: more in bright places (photons), in blotches of color."""
    gain, floor = rng.uniform(0.02, 0.6), rng.uniform(0.5, 6.0)
    deviation = np.sqrt(gain * np.clip(x, 0, 255) + floor**2).astype(np.float32)
    x = x + deviation * rng.standard_normal(x.shape, dtype=np.float32)
    size = rng.uniform(1.0, 3.0)
    blotches = _soft(rng.standard_normal(x.shape, dtype=np.float32), size)
    blotches = blotches - (blotches @ _LUMA)[..., None]  # color alone
    strength = rng.uniform(0, 10) / max(float(blotches.std()), 1e-6)
    return (x + blotches * np.float32(strength)).astype(np.float32)


def grainy(x: Picture, rng: np.random.Generator) -> Picture:
    """Add film grain: of one color, in clumps, strongest in the middle tones."""
    grain = rng.standard_normal(x.shape[:2], dtype=np.float32)
    grain = _soft(grain, rng.uniform(0.5, 1.4))
    grain /= max(float(grain.std()), 1e-6)
    light = np.clip(x @ _LUMA, 0, 255) / 255
    weight = rng.uniform(4, 18) * (0.3 + 2.8 * light * (1 - light))
    return np.asarray(x + (grain * weight)[..., None], np.float32)


def smoothed(x: Picture, rng: np.random.Generator) -> Picture:
    """Smooth what is no edge, with one of two filters."""
    if rng.random() < 0.5:
        whole = np.clip(x, 0, 255).astype(np.float32)
        smooth = cv2.bilateralFilter(whole, 7, rng.uniform(15, 60), rng.uniform(2, 5))
        return np.asarray(smooth, np.float32)
    return cv2.medianBlur(_levels(x), 5 if rng.random() < 0.4 else 3).astype(np.float32)


def halftone(x: Picture, rng: np.random.Generator) -> Picture:
    """Screen a picture with dots whose size stands for the tone.

    Each ink has its own angle; the dots are drawn at twice the size, so that their edges are soft.
    """
    height, width = x.shape[:2]
    period = rng.uniform(2.5, 5.0)
    inks = 1 if rng.random() < 0.4 else 3
    tones = np.clip(x, 0, 255) / 255
    if inks == 1:
        tones = np.repeat((tones @ _LUMA)[..., None], 3, axis=2)
    big = cv2.resize(tones, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.mgrid[: 2 * height, : 2 * width].astype(np.float32) / 2
    result = np.empty_like(big)
    start = rng.uniform(0, math.pi / 2)
    for channel in range(3):
        angle = start + (0.0 if inks == 1 else channel * math.pi / 6)
        along = columns * math.cos(angle) + rows * math.sin(angle)
        across = rows * math.cos(angle) - columns * math.sin(angle)
        turn = 2 * math.pi / period
        screen = 0.5 + 0.25 * (np.cos(along * turn) + np.cos(across * turn))
        result[..., channel] = np.clip((big[..., channel] - screen) * 4 + 0.5, 0, 1)
    dots = cv2.resize(result, (width, height), interpolation=cv2.INTER_AREA)
    share = rng.uniform(0.4, 1.0)
    return ((share * dots + (1 - share) * tones) * 255).astype(np.float32)


def compressed(x: Picture, rng: np.random.Generator, low: int, high: int) -> Picture:
    """Code as JPEG or WebP of a quality from ``low`` to ``high``, and decode."""
    quality = round(rng.uniform(low, high))
    webp = rng.random() < 0.2
    suffix, flag = (
        (".webp", cv2.IMWRITE_WEBP_QUALITY) if webp else (".jpg", cv2.IMWRITE_JPEG_QUALITY)
    )
    ok, coded = cv2.imencode(suffix, np.ascontiguousarray(_levels(x)[..., ::-1]), [flag, quality])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode the degraded face as {suffix}")
    decoded: Any = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.float32)


def video_blocks(x: Picture, rng: np.random.Generator) -> Picture:
    """Code coarsely in blocks of 8 px as H.264 does: flat steps, half the colors, soft seams."""
    height, width = x.shape[:2]
    tall, wide = -height % 16, -width % 16
    padded = cv2.copyMakeBorder(
        np.clip(x, 0, 255).astype(np.float32), 0, tall, 0, wide, cv2.BORDER_REPLICATE
    )
    planes = cv2.split(cv2.cvtColor(padded / 255, cv2.COLOR_RGB2YCrCb))
    step = rng.uniform(8, 48) / 255
    coded = [_quantized(planes[0], step)]
    for plane in planes[1:]:
        half = cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        half = _quantized(half, step * 1.2)
        whole = cv2.resize(half, plane.shape[::-1], interpolation=cv2.INTER_LINEAR)
        coded.append(np.asarray(whole, np.float32))
    coded[0] = _deblocked(coded[0])
    rgb = cv2.cvtColor(cv2.merge(coded), cv2.COLOR_YCrCb2RGB)
    return (rgb[:height, :width] * 255).astype(np.float32)


def _quantized(plane: NDArray[Any], step: float) -> NDArray[np.float32]:
    """(H, W), sides multiples of 8, with the coefficients of its blocks in whole steps."""
    position = np.arange(8)
    basis = np.cos((2 * position[None] + 1) * position[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3)
    coefficients = basis @ blocks @ basis.T
    # A wide zero.
    quantized = np.sign(coefficients) * np.floor(np.abs(coefficients) / step + 0.33) * step
    quantized[..., 0, 0] = np.rint(coefficients[..., 0, 0] / (step / 2)) * step / 2
    back = basis.T @ quantized @ basis
    return np.asarray(back.transpose(0, 2, 1, 3).reshape(height, width), np.float32)


def _deblocked(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """The seams between blocks of 8 softened, as the decoder's filter does."""
    soft = _soft(plane, 1.0)
    rows, columns = np.arange(plane.shape[0]) % 8, np.arange(plane.shape[1]) % 8
    seam = np.isin(rows, (0, 7))[:, None] | np.isin(columns, (0, 7))[None]
    return np.where(seam, soft, plane).astype(np.float32)


def _blurred(x: Picture, rng: np.random.Generator, max_sigma: float) -> Picture:
    """Blurred by a Gaussian of one width or two, up to ``max_sigma`` pixels, mostly of less."""
    first, second = max_sigma * rng.random(2) ** 1.5 + 0.1
    if rng.random() < 0.6:
        return _soft(x, first)
    return _filtered(x, gaussian_kernel(first, second, rng.uniform(0, math.pi)))


def _soft(x: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """Blurred by a Gaussian whose kernel is as large as it needs."""
    return np.asarray(cv2.GaussianBlur(x, (0, 0), sigma), np.float32)


def _filtered(x: Picture, kernel: NDArray[np.float32]) -> Picture:
    return np.asarray(cv2.filter2D(x, -1, kernel), np.float32)


def _shrunk(x: Picture, rng: np.random.Generator, low: float, high: float) -> Picture:
    """``low`` to ``high`` times smaller, evenly on a logarithmic scale."""
    scale = math.exp(rng.uniform(math.log(low), math.log(high)))
    width, height = (max(16, round(side / scale)) for side in (x.shape[1], x.shape[0]))
    return _resized(x, width, height, _pick(rng, _SHRINK if scale > 1 else _ENLARGE))


def _resized(x: Picture, width: int, height: int, how: int) -> Picture:
    if x.shape[:2] == (height, width):
        return x
    return np.asarray(cv2.resize(x, (width, height), interpolation=how), np.float32)


def _pick(rng: np.random.Generator, ways: tuple[int, ...]) -> int:
    return ways[int(rng.integers(len(ways)))]


def _levels(x: NDArray[Any]) -> Bytes:
    return np.asarray(np.clip(np.rint(x), 0, 255), np.uint8)
