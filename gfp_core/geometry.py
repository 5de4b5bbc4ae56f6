"""Geometry that steps share: similarities and affine maps, resampling, boxes, smooth ramps.

All coordinates are pixels with (0, 0) at the center of the top left pixel, in frames and crops
alike, so that a similarity between them is a plain (2, 3) matrix without half-pixel terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

Values = TypeVar("Values", Tensor, NDArray[Any], float)

TEMPLATE: NDArray[np.float64] = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""(5, 2): the landmarks of an aligned face in a crop of 512 px (the mean face of FFHQ)."""
TEMPLATE.setflags(write=False)

# The mean face in a crop, in shares of its side (FFHQ): brows at 0.38, chin at 0.92, cheeks at
# 0.26 and 0.75. The fade of the mask's default feather runs just outside of them.
_ELLIPSE_CENTER = (0.5, 0.545)
_ELLIPSE_RADII = (0.31, 0.45)

_TEMPLATE_SIZE = 512

# A landmark is doubted by how far it lies from where the other four put it, in units of how well
# those four agree with the template. Below _TRUST it counts fully, above _DROP not at all. The
# unit is at least _AGREEMENT template pixels: real faces differ from the mean face by that much.
_AGREEMENT = 10.0
_TRUST = 2.5
_DROP = 4.0


def fit_similarity(landmarks: ArrayLike, size: int = 512) -> NDArray[np.float64]:
    """Fit the similarity that takes a face's landmarks to the template.

    Weighted least squares in closed form. The weight of a landmark falls smoothly from 1 to 0 with
    its deleted residual, its distance from the place where a fit to the other four puts it
    (Cook and Weisberg, Residuals and Influence in Regression, 1982, section 2.2). One wrong
    landmark is left out as least median of squares would, but the fit never jumps, and when no
    landmark stands out it is the plain least-squares fit.

    Args:
        landmarks: (5, 2) x and y in pixels of the frame: left eye, right eye, nose, left and right
            mouth corner (left in the picture).
        size: side of the square crop in pixels.

    Returns:
        (2, 3) float64, from pixels of the frame to pixels of the crop.

    Raises:
        ValueError: the shape is not (5, 2), a coordinate is not finite, or the landmarks do not
            look like a face at all: on one point or line, mirrored or scrambled.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2):
        raise ValueError(f"landmarks must have shape (5, 2), not {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"landmarks must be finite, not {points.tolist()}")
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if spread[1] <= 1e-3 * spread[0] or spread[0] <= 1e-6 * np.abs(points).max():
        raise ValueError(
            f"landmarks lie on one point or line, which is no face: {points.round(2).tolist()}"
        )

    everyone = np.ones(5)
    doubt = np.empty(5)
    for i in range(5):
        others = everyone.copy()
        others[i] = 0.0
        distance = _residuals(_least_squares(points, others), points)
        agreement = math.sqrt(float(others @ distance**2) / 4)
        doubt[i] = distance[i] / max(agreement, _AGREEMENT)
    doubted = smoothstep((doubt - _TRUST) / (_DROP - _TRUST))
    matrix = _least_squares(points, 1.0 - doubted)

    # The share of the template's spread that the fit explains; a mirrored face explains 0.1.
    template_spread = np.linalg.norm(TEMPLATE - TEMPLATE.mean(axis=0))
    if similarity_scale(matrix) * np.linalg.norm(spread) < 0.2 * template_spread:
        raise ValueError(
            "landmarks are mirrored or scrambled, not those of a face (left is the picture's "
            f"left): {points.round(2).tolist()}"
        )
    # Template coordinates grow about their corner, not about the corner pixel's center: at 512 the
    # published template, at other sizes simply scaled, as every published restorer expects.
    return matrix * (size / _TEMPLATE_SIZE)


def _least_squares(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[Any]:
    """Fit the weighted least-squares similarity of ``points`` (5, 2) to the template (Umeyama)."""
    weights = weights / weights.sum()
    center, target = weights @ points, weights @ TEMPLATE
    p, q = points - center, TEMPLATE - target
    variance = weights @ (p**2).sum(axis=1)
    if variance == 0:
        raise ValueError(f"landmarks lie on one point, which is no face: {points.tolist()}")
    a = weights @ (p * q).sum(axis=1) / variance
    b = weights @ (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / variance
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, target - linear @ center])


def _residuals(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure the distance (5,) of each mapped landmark from the template's."""
    result: NDArray[np.float64] = np.linalg.norm(transform(matrix, points) - TEMPLATE, axis=1)
    return result


def transform(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Map ``points`` (N, 2) with a (2, 3) matrix."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def similarity_scale(matrix: NDArray[np.float64]) -> float:
    """Compute how many pixels of the target one pixel of the source becomes."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert an affine (2, 3) matrix.

    Raises:
        ValueError: the matrix has no inverse, or is not finite.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    determinant = np.linalg.det(matrix[:, :2])
    if not np.isfinite(matrix).all() or determinant == 0:
        raise ValueError(f"matrix has no inverse: {matrix.tolist()}")
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def face_ellipse(size: int) -> NDArray[np.bool_]:
    """Draw the ellipse about the mean face: (size, size), True inside."""
    y, x = np.mgrid[:size, :size] / max(1, size - 1)
    (cx, cy), (rx, ry) = _ELLIPSE_CENTER, _ELLIPSE_RADII
    inside: NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    return inside


def warp(
    image: NDArray[Any],
    back: NDArray[np.float64],
    size: tuple[int, int],
    outside: int = cv2.BORDER_REPLICATE,
    interpolation: int = cv2.INTER_CUBIC,
) -> NDArray[Any]:
    """Resample an image under an affine map, filtered where the map shrinks it.

    Where the result is coarser by up to k, k x k samples are averaged for a pixel, after
    the image itself was averaged down when it is at least four times finer.

    Args:
        image: (H, W) or (H, W, C) float32, C at most 4.
        back: (2, 3), from pixels of the result to pixels of the image.
        size: width and height of the result.
        outside: what lies beyond the image, ``cv2.BORDER_REPLICATE`` or ``cv2.BORDER_CONSTANT``.
        interpolation: ``cv2.INTER_CUBIC`` or ``cv2.INTER_LINEAR``.

    Returns:
        (height, width) or (height, width, C) float32.
    """
    step = similarity_scale(back)
    shrink = min(int(step // 2), *image.shape[:2])
    if shrink > 1:
        image, back = _average_down(image, back, shrink, outside)
        step /= shrink
    fine = min(max(1, math.ceil(step - 1e-6)), 4)
    width, height = size
    # Pixel u of the result covers the fine pixels fine*u ... fine*u + fine-1.
    center = (fine - 1) / 2
    linear = back[:, :2] / fine
    fine_back = np.column_stack([linear, back[:, 2] - linear @ (center, center)])
    sampled = cv2.warpAffine(
        image,
        fine_back,
        (width * fine, height * fine),
        flags=cv2.WARP_INVERSE_MAP | interpolation,
        borderMode=outside,
    )
    if fine > 1:
        sampled = cv2.resize(sampled, size, interpolation=cv2.INTER_AREA)
    return sampled


def warp_into(
    box: tuple[slice, slice],
    picture: NDArray[np.float32],
    back: NDArray[np.float64],
    interpolation: int = cv2.INTER_CUBIC,
) -> NDArray[np.float32]:
    """Resample a picture in [0, 1], (H, W) or (H, W, C), to a box (rows, columns) of another.

    ``back`` (2, 3) goes from pixels of the box to those of the picture; the result is in [0, 1].
    """
    height, width = (side.stop - side.start for side in box)
    if not (height and width):
        return np.zeros((height, width, *picture.shape[2:]), np.float32)
    pixels = warp(picture, back, (width, height), interpolation=interpolation)
    result: NDArray[np.float32] = np.clip(pixels, 0.0, 1.0)
    return result


def scaling(old: Sequence[float], new: Sequence[float]) -> NDArray[np.float64]:
    """Build the map (2, 3) from pixels of a (height, width) image to its resampled form."""
    x, y = new[1] / old[1], new[0] / old[0]
    # The corners of the images coincide, not the centers of their corner pixels.
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def compose(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compose two affine maps (2, 3) into the one that applies ``inner`` and then ``outer``."""
    matrix = outer[:, :2] @ inner
    matrix[:, 2] += outer[:, 2]
    return matrix


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the intersection over union of boxes x1, y1, x2, y2: (N, 4), (M, 4) -> (N, M).

    In float64; 0 where neither box has an area.
    """
    rows, columns = first.double()[:, None], second.double()
    low = torch.maximum(rows[..., :2], columns[..., :2])
    high = torch.minimum(rows[..., 2:], columns[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (rows, columns)]
    union = areas[0] + areas[1] - common
    return torch.where(union > 0, common / union, 0.0)


def angles(first: Tensor, second: Tensor) -> Tensor:
    """Measure the angles between vectors: (..., D) and (..., D) -> (...) degrees in [0, 180].

    Differentiable. Twice the half angle: exact for small angles too, where an arc cosine loses its
    digits and its gradient.
    """
    u, v = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    half = torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))
    return torch.rad2deg(2 * half)


def smoothstep(values: Values) -> Values:
    """Ease values of any shape: 0 up to 0, 1 from 1 on, and 3t^2 - 2t^3 between."""
    ramp: Any = min(max(values, 0.0), 1.0) if isinstance(values, float) else values.clip(0.0, 1.0)
    eased: Values = ramp * ramp * (3.0 - 2.0 * ramp)
    return eased


def _average_down(
    image: NDArray[Any], back: NDArray[np.float64], factor: int, outside: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Average the image over factor x factor pixels, and adapt the map into the image."""
    height, width = image.shape[:2]
    image = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, borderType=outside)
    small = (image.shape[1] // factor, image.shape[0] // factor)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    back = back / factor
    back[:, 2] -= (factor - 1) / (2 * factor)
    return image, back
