"""Alignment: every face turned, scaled and cut out as the networks were trained to see it.

The crop is fixed by five landmarks and the FFHQ template: a similarity (rotation, one scale,
translation) takes the frame to the crop. Its geometry helpers (`fit_similarity`, `invert`,
`transform`, `warp`) are what pasting back shares with alignment.

All coordinates are pixels with (0, 0) at the centre of the top left pixel, in frames and crops
alike, so that a similarity between them is a plain 2x3 matrix without half-pixel terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .faces import Faces

Border: TypeAlias = Literal["replicate", "reflect", "constant"]
"""What a crop shows beyond the frame's edge: the edge's pixels, the frame mirrored, or black."""

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
_ELLIPSE_CENTRE = (0.5, 0.545)
_ELLIPSE_RADII = (0.31, 0.45)

_TEMPLATE_SIZE = 512

# A landmark is doubted by how far it lies from where the other four put it, in units of how well
# those four agree with the template. Below _TRUST it counts fully, above _DROP not at all. The
# unit is at least _AGREEMENT template pixels: real faces differ from the mean face by that much.
_AGREEMENT = 10.0
_TRUST = 2.5
_DROP = 4.0

# Pixels read around what the crop covers (of the crop, or the frame if coarser), for the kernel.
_MARGIN = 3


def fit_similarity(landmarks: ArrayLike, size: int = 512) -> NDArray[np.float64]:
    """The similarity that takes a face's landmarks to the template.

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
    ramp = np.clip((doubt - _TRUST) / (_DROP - _TRUST), 0.0, 1.0)
    matrix = _least_squares(points, 1.0 - ramp * ramp * (3.0 - 2.0 * ramp))

    # The share of the template's spread that the fit explains; a mirrored face explains 0.1.
    template_spread = np.linalg.norm(TEMPLATE - TEMPLATE.mean(axis=0))
    if similarity_scale(matrix) * np.linalg.norm(spread) < 0.2 * template_spread:
        raise ValueError(
            "landmarks are mirrored or scrambled, not those of a face (left is the picture's "
            f"left): {points.round(2).tolist()}"
        )
    # Template coordinates grow about their corner, not about the corner pixel's centre: at 512 the
    # published template, at other sizes simply scaled, as every published restorer expects.
    return matrix * (size / _TEMPLATE_SIZE)


def _least_squares(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[Any]:
    """The weighted least-squares similarity from ``points`` (5, 2) to the template (Umeyama)."""
    weights = weights / weights.sum()
    centre, target = weights @ points, weights @ TEMPLATE
    p, q = points - centre, TEMPLATE - target
    variance = weights @ (p**2).sum(axis=1)
    if variance == 0:
        raise ValueError(f"landmarks lie on one point, which is no face: {points.tolist()}")
    a = weights @ (p * q).sum(axis=1) / variance
    b = weights @ (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / variance
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, target - linear @ centre])


def _residuals(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (5,) of each mapped landmark from its place in the template."""
    return np.linalg.norm(transform(matrix, points) - TEMPLATE, axis=1)


def transform(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Maps ``points`` (N, 2) with a (2, 3) matrix."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def similarity_scale(matrix: NDArray[np.float64]) -> float:
    """Pixels of the target for one pixel of the source."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def invert(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse (2, 3) of an affine (2, 3) matrix.

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
    """(size, size): which pixels of a crop lie on the ellipse about the mean face."""
    y, x = np.mgrid[:size, :size] / max(1, size - 1)
    (cx, cy), (rx, ry) = _ELLIPSE_CENTRE, _ELLIPSE_RADII
    inside: NDArray[np.bool_] = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
    return inside


def align(frames: Tensor, faces: Faces, size: int = 512, *, border: Border = "replicate") -> Faces:
    """Cuts every face out of its frame, upright and in the middle of a square crop.

    A face larger than the crop is filtered before it is sampled, so that it does not alias; only
    the part of the frame under the crop is read.

    Args:
        frames: (B, C, H, W) float RGB in [0, 1], C 3 or 4 (alpha, which the crops leave out).
            Values outside [0, 1] and NaN are clamped in the crops; the frames are not changed.
        faces: faces of these frames.
        size: side of the crops in pixels; the network's input size.
        border: what the crop shows beyond the frame's edge.

    Returns:
        ``faces`` with the matrix of each face and ``crops`` (N, 3, size, size) float32 in [0, 1]
        on the frames' device; without ``restored``.

    Raises:
        ValueError: frames of another shape, another number of frames, an unknown border, or
            landmarks that are no face.
    """
    check_frames(frames, faces)
    if border not in get_args(Border):
        raise ValueError(f"border must be one of {', '.join(get_args(Border))}, not {border!r}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    crops = torch.empty((len(faces), 3, size, size))
    aligned = []
    for i, face in enumerate(faces.faces):
        try:
            matrix = fit_similarity(face.landmarks, size)
        except ValueError as error:
            raise ValueError(f"face {i} of frame {face.frame}: {error}") from error
        crop = _cut(frames[face.frame], matrix, size, border)
        crops[i] = torch.from_numpy(crop.transpose(2, 0, 1))
        aligned.append(replace(face, matrix=matrix))
    return replace(faces, faces=tuple(aligned), crops=crops.to(frames.device), restored=None)


def check_frames(frames: Tensor, faces: Faces) -> None:
    """Refuses frames that are no images, or not those the faces were found in.

    Raises:
        ValueError: says which and why.
    """
    if frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape[2:]:
        raise ValueError(f"frames must be (B, 3 or 4, H, W), not {tuple(frames.shape)}")
    if not frames.is_floating_point():
        raise ValueError(f"frames must be floating point in 0..1, not {frames.dtype}")
    sizes = ((frames.shape[2], frames.shape[3]),) * frames.shape[0]
    if faces.frame_sizes != sizes:
        raise ValueError(
            f"the faces belong to {len(faces.frame_sizes)} frames of (height, width) "
            f"{sorted(set(faces.frame_sizes))}, not to these {len(sizes)} of {sizes[:1]}"
        )
    for i, face in enumerate(faces.faces):
        if not 0 <= face.frame < len(sizes):
            raise ValueError(f"face {i} belongs to frame {face.frame} of {len(sizes)}")


def visible(image: Tensor) -> Tensor:
    """The image as a network may see it: clamped to [0, 1], NaN as 0; of the same shape."""
    return torch.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0).clamp_(0.0, 1.0)


def _cut(frame: Tensor, matrix: NDArray[np.float64], size: int, border: Border) -> NDArray[Any]:
    """The crop (size, size, 3) of one frame (C, H, W)."""
    height, width = frame.shape[-2:]
    back = invert(matrix)
    edge = size - 0.5
    corners = transform(back, [(-0.5, -0.5), (edge, -0.5), (-0.5, edge), (edge, edge)])
    margin = _MARGIN * max(1.0, similarity_scale(back))
    (left, top), (right, bottom) = corners.min(axis=0) - margin, corners.max(axis=0) + margin
    xs = _positions(left, right, width, border)
    ys = _positions(top, bottom, height, border)
    columns, rows = _mirrored(xs, width), _mirrored(ys, height)
    x0, y0 = columns.min(), rows.min()
    # Clamped before sampling and after: one pixel of 1000 would ring over its neighbours.
    box = to_numpy(visible(frame[:3, y0 : rows.max() + 1, x0 : columns.max() + 1]))
    if border == "reflect":
        box = box[rows - y0][:, columns - x0]
    moved = np.column_stack([back[:, :2], back[:, 2] - (xs[0], ys[0])])
    outside = cv2.BORDER_CONSTANT if border == "constant" else cv2.BORDER_REPLICATE
    return np.clip(warp(box, moved, (size, size), outside), 0.0, 1.0)


def _positions(low: float, high: float, length: int, border: Border) -> NDArray[np.int64]:
    """The pixels of an axis that sampling from low to high needs, over the edge if mirrored.

    Mirrored once, here: OpenCV's own reflection takes minutes for a face far outside.
    """
    last = length - 1
    beyond = last if border == "reflect" else 0
    low, high = np.clip((low, high), -beyond, last + beyond)
    return np.arange(math.floor(low), math.ceil(high) + 1)


def _mirrored(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The pixels inside an axis that positions up to one length outside of it show."""
    last = length - 1
    return last - np.abs(last - np.abs(positions))


def to_numpy(image: Tensor) -> NDArray[np.float32]:
    """A (C, H, W) tensor as a contiguous (H, W, C) float32 array of its own."""
    return np.array(image.detach().float().permute(1, 2, 0).cpu().numpy(), order="C")


def warp(
    image: NDArray[Any],
    back: NDArray[np.float64],
    size: tuple[int, int],
    outside: int = cv2.BORDER_REPLICATE,
    interpolation: int = cv2.INTER_CUBIC,
) -> NDArray[Any]:
    """Resamples an image under an affine map, filtered where the map shrinks it.

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
    centre = (fine - 1) / 2
    linear = back[:, :2] / fine
    fine_back = np.column_stack([linear, back[:, 2] - linear @ (centre, centre)])
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
    """A picture in [0, 1] (H, W) or (H, W, C), resampled to a box (rows, columns) of another.

    ``back`` (2, 3) goes from pixels of the box to those of the picture; the result is in [0, 1].
    """
    height, width = (side.stop - side.start for side in box)
    if not (height and width):
        return np.zeros((height, width, *picture.shape[2:]), np.float32)
    pixels = warp(picture, back, (width, height), interpolation=interpolation)
    return np.clip(pixels, 0.0, 1.0)


def scaling(old: Sequence[int], new: Sequence[int]) -> NDArray[np.float64]:
    """(2, 3) from pixels of an image of (height, width) to those of its resampled form."""
    x, y = new[1] / old[1], new[0] / old[0]
    # The corners of the images coincide, not the centres of their corner pixels.
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def _average_down(
    image: NDArray[Any], back: NDArray[np.float64], factor: int, outside: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The image averaged over factor x factor pixels, and the map into it."""
    height, width = image.shape[:2]
    image = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, borderType=outside)
    small = (image.shape[1] // factor, image.shape[0] // factor)
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    back = back / factor
    back[:, 2] -= (factor - 1) / (2 * factor)
    return image, back
