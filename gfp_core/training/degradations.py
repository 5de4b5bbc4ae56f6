"""Degradation of clean faces, GFP-GAN eq. 10: x = [(y * k_sigma) down_r + n_delta]_JPEG_q.

A clean face y is blurred with a Gaussian of standard deviation sigma, shrunk by r, given white
Gaussian noise of standard deviation delta and compressed as JPEG of quality q; then it is enlarged
to its first size, because the restorer takes and gives pictures of one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DegradationRanges:
    """Ranges from which each parameter of eq. 10 is drawn uniformly."""

    sigma: tuple[float, float] = (0.2, 10.0)
    """Standard deviation of the blur, in pixels of a 512 px face."""
    scale: tuple[float, float] = (1.0, 8.0)
    """How many times the picture is shrunk (r)."""
    noise: tuple[float, float] = (0.0, 15.0)
    """Standard deviation of the noise (delta), in levels of 255."""
    quality: tuple[float, float] = (60.0, 100.0)
    """JPEG quality (q)."""


PAPER = DegradationRanges()
"""Section 4.1 of the GFP-GAN paper."""

KERNEL_SIZE = 41
"""Taps of the blur kernel; the paper leaves it open, the released code uses 41."""


def degrade(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    ranges: DegradationRanges = PAPER,
    *,
    enlarge: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """Degrade one clean face.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of all randomness; the same state gives the same result.
        ranges: where sigma, r, delta and q are drawn from, in this order.
        enlarge: OpenCV's interpolation that brings the small picture back to its first size.

    Returns:
        (H, W, 3) uint8 RGB of the same size. The real low-quality picture is 8 bit (a decoded
        JPEG), so nothing is lost by giving back 8 bits.
    """
    height, width = image.shape[:2]
    sigma = rng.uniform(*ranges.sigma)
    scale = rng.uniform(*ranges.scale)
    delta = rng.uniform(*ranges.noise)
    quality = round(rng.uniform(*ranges.quality))

    small_size = (max(1, round(width / scale)), max(1, round(height / scale)))
    blurred = cv2.GaussianBlur(image.astype(np.float32), (KERNEL_SIZE, KERNEL_SIZE), sigma)
    small = cv2.resize(blurred, small_size, interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal(small.shape, dtype=np.float32) * np.float32(delta)
    small_8bit = np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)
    ok, jpeg = cv2.imencode(".jpg", small_8bit[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode the degraded face as JPEG")
    decoded: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    large = cv2.resize(decoded[..., ::-1], (width, height), interpolation=enlarge)
    return np.ascontiguousarray(large)
