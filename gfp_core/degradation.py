"""Degradation of clean faces: what the networks learn to undo, and what test sets are made with.

GFP-GAN eq. 10, RestoreFormer eq. 19 and the pose-varied paper's eq. 17 are one formula,

    x = {[(y * k) down_r + n_delta]_JPEG_q} up_r:

a clean face y is blurred with a kernel k, shrunk by r, given white Gaussian noise of standard
deviation delta and compressed as JPEG of quality q; then it is enlarged to its first size, because
the restorers take and give pictures of one size. They differ in their ranges, which the recipes
hold (`training/recipes`), and in k: Gaussian, of one width or two, or the trace of a motion. After
that the colors may be changed, so that a network learns to correct them too.

A face's parameters are drawn first (`draw`), then applied, either in a worker (`apply`) or to a
batch on the training's device (`apply_to_batch`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .tensors import check_images

Range = tuple[float, float]

KERNEL_SIZE = 41
"""Taps of the blur kernel a side: the released code's and the pose-varied paper's."""
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601
_HUE = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # YIQ


@dataclass(frozen=True)
class DegradationRanges:
    """Ranges from which each parameter is drawn uniformly, and chances.

    Raises:
        ValueError: a range is empty, or a chance is none.
    """

    sigma: Range = (0.2, 10.0)
    """Standard deviation of a Gaussian kernel, in pixels of a 512 px face."""
    scale: Range = (1.0, 8.0)
    """How many times the picture is shrunk (r); below 1 it is enlarged."""
    noise: Range = (0.0, 15.0)
    """Standard deviation of the noise (delta), in levels of 255."""
    quality: Range = (60.0, 100.0)
    """JPEG quality (q)."""
    anisotropic: float = 0.0
    """Chance of a Gaussian kernel of two widths at an angle, both drawn from ``sigma``."""
    motion: float = 0.0
    """Chance of a motion's trace for a kernel, instead of a Gaussian."""
    shift: float = 0.0
    """Most that each channel is shifted, in levels of 255 either way."""
    shift_chance: float = 0.0
    jitter_chance: float = 0.0
    """Chance of a change of brightness, contrast, saturation and hue."""
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: Range = (-0.1, 0.1)
    """In turns."""
    gray_chance: float = 0.0
    """Chance that the picture loses its colors."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (tuple, list)):
                if len(value) != 2 or not value[0] <= value[1]:
                    raise ValueError(f"{name} must be a range [low, high], not {value}")
            elif name != "shift" and not 0 <= value <= 1:
                raise ValueError(f"{name} is a chance, from 0 to 1, not {value}")
        if not (self.sigma[0] > 0 and self.scale[0] > 0 and 1 <= self.quality[0] <= 100):
            raise ValueError("sigma and scale must be above 0, and quality from 1 to 100")


PAPER = DegradationRanges()
"""Section 4.1 of the GFP-GAN paper, without its color jitter: the project's test sets."""


@dataclass(frozen=True)
class Degradation:
    """What is done to one face."""

    sigma: float
    """Width of the Gaussian kernel if ``kernel`` is None."""
    kernel: NDArray[np.float32] | None
    """(KERNEL_SIZE, KERNEL_SIZE) with sum 1, where it is not a Gaussian of one width."""
    scale: float
    noise: float
    quality: int
    color: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    """(3, 3) and (3,): RGB in [0, 1] becomes ``color[0] @ rgb + color[1]``; None: unchanged."""


def draw(rng: np.random.Generator, ranges: DegradationRanges = PAPER) -> Degradation:
    """Draw a face's degradation; what a range has no chance for draws no number."""
    sigma = rng.uniform(*ranges.sigma)
    scale = rng.uniform(*ranges.scale)
    noise = rng.uniform(*ranges.noise)
    quality = round(rng.uniform(*ranges.quality))
    kernel = None
    if _happens(rng, ranges.motion):
        kernel = motion_kernel(rng.uniform(3, KERNEL_SIZE), rng.uniform(0, math.pi))
    elif _happens(rng, ranges.anisotropic):
        kernel = gaussian_kernel(sigma, rng.uniform(*ranges.sigma), rng.uniform(0, math.pi))
    return Degradation(sigma, kernel, scale, noise, quality, _draw_color(rng, ranges))


def _happens(rng: np.random.Generator, chance: float) -> bool:
    return chance > 0 and rng.random() < chance


def _draw_color(
    rng: np.random.Generator, ranges: DegradationRanges
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """All changes of color as one affine map, in the order shift, gray, jitter."""
    matrix, offset = np.eye(3), np.zeros(3)
    changed = False

    def then(step: NDArray[Any], constant: Any = 0.0) -> None:
        nonlocal matrix, offset, changed
        matrix, offset, changed = step @ matrix, step @ offset + constant, True

    to_gray = np.tile(_GRAY.astype(float), (3, 1))
    if _happens(rng, ranges.shift_chance):
        then(np.eye(3), rng.uniform(-ranges.shift, ranges.shift, 3) / 255)
    if _happens(rng, ranges.gray_chance):
        then(to_gray)
    if _happens(rng, ranges.jitter_chance):
        then(np.eye(3) * rng.uniform(*ranges.brightness))
        contrast = rng.uniform(*ranges.contrast)
        # About middle gray instead of the picture's own mean, which would be no affine map.
        then(np.eye(3) * contrast, 0.5 * (1 - contrast))
        saturation = rng.uniform(*ranges.saturation)
        then(np.eye(3) * saturation + to_gray * (1 - saturation))
        turn = 2 * math.pi * rng.uniform(*ranges.hue)
        rotation = np.eye(3)
        rotation[1:, 1:] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        then(np.linalg.inv(_HUE) @ rotation @ _HUE)
    return (matrix.astype(np.float32), offset.astype(np.float32)) if changed else None


def gaussian_kernel(first: float, second: float, angle: float) -> NDArray[np.float32]:
    """A Gaussian of two widths.

    Args:
        first: standard deviation in pixels along ``angle``.
        second: the one across.
        angle: radians, from x towards y.

    Returns:
        (KERNEL_SIZE, KERNEL_SIZE), sum 1.
    """
    y, x = np.mgrid[:KERNEL_SIZE, :KERNEL_SIZE] - (KERNEL_SIZE - 1) / 2
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kernel = np.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    result: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return result


def motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """The trace of a straight motion: a line one pixel wide with soft edges.

    Args:
        length: of the motion in pixels, at most KERNEL_SIZE.
        angle: radians, from x towards y.

    Returns:
        (KERNEL_SIZE, KERNEL_SIZE), sum 1.
    """
    y, x = np.mgrid[:KERNEL_SIZE, :KERNEL_SIZE] - (KERNEL_SIZE - 1) / 2
    along = np.abs(x * math.cos(angle) + y * math.sin(angle))
    across = np.abs(y * math.cos(angle) - x * math.sin(angle))
    kernel = np.clip((length + 1) / 2 - along, 0, 1) * np.clip(1 - across, 0, 1)
    result: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return result


def degrade(
    image: NDArray[np.uint8],
    rng: np.random.Generator,
    ranges: DegradationRanges = PAPER,
    *,
    enlarge: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """Degrade one clean face: `draw`, then `apply`.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of all randomness; the same state gives the same result.
        ranges: where the parameters are drawn from.
        enlarge: OpenCV's interpolation that brings the small picture back to its first size.

    Returns:
        (H, W, 3) uint8 RGB of the same size. The real low-quality picture is 8 bit (a decoded
        JPEG), so nothing is lost by giving back 8 bits.
    """
    return apply(image, draw(rng, ranges), rng, enlarge=enlarge)


def degrade_with_seed(
    image: NDArray[np.uint8],
    seed: Sequence[int],
    ranges: DegradationRanges = PAPER,
    *,
    enlarge: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """`degrade` with random numbers of its own: how every picture of a test set is made."""
    return degrade(image, np.random.default_rng(tuple(seed)), ranges, enlarge=enlarge)


def apply(
    image: NDArray[np.uint8],
    degradation: Degradation,
    rng: np.random.Generator,
    *,
    enlarge: int = cv2.INTER_LINEAR,
) -> NDArray[np.uint8]:
    """Do to one face what was drawn; arguments and result as of `degrade`. ``rng``: the noise."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32)
    if degradation.kernel is None:
        blurred = cv2.GaussianBlur(picture, (KERNEL_SIZE, KERNEL_SIZE), degradation.sigma)
    else:
        blurred = cv2.filter2D(picture, -1, degradation.kernel)
    small_size = _shrunk(width, degradation.scale), _shrunk(height, degradation.scale)
    small = cv2.resize(blurred, small_size, interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal(small.shape, dtype=np.float32) * np.float32(degradation.noise)
    small_8bit = np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)
    decoded = _through_jpeg(small_8bit, degradation.quality)
    large = cv2.resize(decoded, (width, height), interpolation=enlarge)
    if degradation.color is not None:
        matrix, offset = degradation.color
        changed = large.astype(np.float32) @ matrix.T + offset * 255
        large = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(large)


def apply_to_batch(
    images: Tensor, degradations: Sequence[Degradation], generator: torch.Generator
) -> Tensor:
    """Do to a batch what was drawn for each picture, on the device where it lies.

    As `apply`, but for the noise, which is the generator's. The shrunk pictures visit the CPU, for
    the codec is the same. The two give pictures that are alike, not the same to the last level.

    Args:
        images: (B, 3, H, W) float RGB in [0, 1].
        degradations: one a picture.
        generator: source of the noise, on the same device.

    Returns:
        (B, 3, H, W) float32 in whole levels of 255, in [0, 1].

    Raises:
        ValueError: not such pictures, or not as many degradations.
    """
    check_images(images)
    if len(degradations) != images.shape[0]:
        raise ValueError(f"{len(degradations)} degradations for {images.shape[0]} pictures")
    height, width = images.shape[2:]
    results = []
    for image, degradation in zip(images.float(), degradations, strict=True):
        kernel = degradation.kernel
        if kernel is None:
            kernel = gaussian_kernel(degradation.sigma, degradation.sigma, 0.0)
        weight = torch.from_numpy(kernel).to(image).expand(3, 1, -1, -1)
        padded = F.pad(image[None] * 255, (KERNEL_SIZE // 2,) * 4, mode="reflect")
        blurred = F.conv2d(padded, weight, groups=3)
        size = _shrunk(height, degradation.scale), _shrunk(width, degradation.scale)
        small = F.interpolate(blurred, size, mode="bilinear", align_corners=False)[0]
        noise = torch.randn(small.shape, generator=generator, device=small.device)
        levels = (small + noise * degradation.noise).round().clamp(0, 255).byte()
        decoded = _through_jpeg(levels.permute(1, 2, 0).cpu().numpy(), degradation.quality)
        back = torch.from_numpy(decoded).to(levels.device).permute(2, 0, 1)
        large = F.interpolate(
            back[None].float(), (height, width), mode="bilinear", align_corners=False
        )[0]
        if degradation.color is not None:
            matrix, offset = (torch.from_numpy(values).to(large) for values in degradation.color)
            large = torch.einsum("ij,jhw->ihw", matrix, large) + offset.view(3, 1, 1) * 255
        results.append(large.round().clamp(0, 255) / 255)
    return torch.stack(results)


def _through_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, coded and decoded."""
    bgr = np.ascontiguousarray(picture[..., ::-1])
    ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV could not encode the degraded face as JPEG")
    decoded: Any = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[..., ::-1])


def _shrunk(side: int, scale: float) -> int:
    return max(1, round(side / scale))
