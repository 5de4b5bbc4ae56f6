"""Test-time augmentation of detection: views of a frame, rotated, flipped, reduced or cut out.

Each view comes with the affine map (2, 3) from its pixels back to those of its source, so that
detections of any view come back to the frame in the same way. Pixel (0, 0) is the center of the top
left pixel throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .geometry import box_iou, compose, scaling
from .tensors import clamp01, to_float

OVERLAP = 0.4
"""Intersection over union above which two detections are the same face (as in the reference)."""

_PIXELS_AT_ONCE = 1 << 20
"""Larger images are resized in bands: whole, as floats, they would take four times their memory."""

_FLIPPED_LANDMARKS = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Detections:
    """Detections in one frame: boxes (N, 4), scores (N,), landmarks (N, 5, 2), on the CPU."""

    boxes: Tensor
    scores: Tensor
    landmarks: Tensor

    @property
    def sizes(self) -> Tensor:
        """Longer sides (N,) of the boxes."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)

    def __getitem__(self, index: Tensor) -> Detections:
        return Detections(self.boxes[index], self.scores[index], self.landmarks[index])


def resize_long_side(images: Tensor, long_side: float) -> tuple[Tensor, NDArray[np.float64]]:
    """Reduce images to ``long_side``; with the matrix (2, 3) from the result's pixels back."""
    height, width = images.shape[2:]
    factor = min(1.0, long_side / max(height, width))
    if factor == 1.0:
        return images, np.eye(2, 3)
    return resize(images, max(1, round(height * factor)), max(1, round(width * factor)))


def resize(images: Tensor, height: int, width: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Resize images (B, C, H, W); with the matrix (2, 3) from the result's pixels back.

    A reduced pixel averages the area it covers (a triangle filter as wide as the reduction).
    """
    if images.shape[2] * images.shape[3] > _PIXELS_AT_ONCE and images.device.type == "cpu":
        result = _resize_by_rows(images, height, width)
    else:
        result = _interpolate(to_float(images).float(), height, width)
    return result, scaling((height, width), images.shape[2:])


def _interpolate(images: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)


def _resize_by_rows(images: Tensor, height: int, width: int) -> Tensor:
    """Resize as `_interpolate` does, to the last bit: it filters rows first and columns then."""
    rows = images.shape[2]
    band = max(1, _PIXELS_AT_ONCE // images.shape[3])
    result = torch.empty(*images.shape[:2], height, width)
    narrow = torch.empty(1, 1, rows, width)
    for image, resized in zip(images, result, strict=True):
        for channel, resized_channel in zip(image, resized, strict=True):
            for start in range(0, rows, band):
                part = to_float(channel[None, None, start : start + band]).float()
                narrow[:, :, start : start + band] = _interpolate(part, part.shape[2], width)
            resized_channel.copy_(_interpolate(narrow, height, width)[0, 0])
    return result


def cut_square(
    image: Tensor,
    box: Sequence[float],
    side: int,
    margin: float,
    outside: Tensor,
) -> tuple[Tensor, NDArray[np.float64]]:
    """Cut a square around a face out of an image; with the matrix (2, 3) from its pixels back.

    Args:
        image: (C, H, W); values outside of [0, 1] and NaN are clamped.
        box: x1, y1, x2, y2 in pixels of the image.
        side: of the result in pixels.
        margin: side of the square in the image over the longer side of the box.
        outside: (C,), what lies outside of the image.

    Returns:
        (C, side, side) float32, where ``outside`` is, and the matrix.
    """
    x1, y1, x2, y2 = box
    half = margin * max(x2 - x1, y2 - y1) / 2
    scale = side / max(2 * half, 1.0)
    spans, offsets = [], []  # for y and x: pixels of the image, and where these begin in the square
    for center, length in ((y1 + y2) / 2, image.shape[1]), ((x1 + x2) / 2, image.shape[2]):
        start = min(max(round(center - half), 0), length - 1)
        stop = min(max(round(center + half), start + 1), length)
        spans.append(slice(start, stop))
        offsets.append(round((start - center + half) * scale))
    height, width = (max(1, round((span.stop - span.start) * scale)) for span in spans)
    visible = clamp01(to_float(image[None, :, spans[0], spans[1]].to(outside.device)))
    pixels, to_visible = resize(visible, height, width)
    top, left = offsets
    color = outside[:, None, None]
    if not (-width < left < side and -height < top < side):
        # A box wholly outside of the image: its square shows nothing of it.
        corner = np.array([[1.0, 0.0, (x1 + x2) / 2 - half], [0.0, 1.0, (y1 + y2) / 2 - half]])
        square = color.float().expand(-1, side, side).clone()
        return square, compose(corner, scaling((side, side), (side / scale,) * 2))
    # Where rounding lets the pixels stand out of the square, they are cut off.
    square = F.pad(pixels[0] - color, (left, side - left - width, top, side - top - height))
    to_image = np.array([[1.0, 0.0, spans[1].start], [0.0, 1.0, spans[0].start]])
    to_pixels = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    return square + color, compose(to_image, compose(to_visible, to_pixels))


def rotate(frames: Tensor, rotation: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Rotate frames counter-clockwise; with the matrix (2, 3) from the result's pixels back."""
    right, bottom = frames.shape[3] - 1.0, frames.shape[2] - 1.0
    matrix = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        90: [[0.0, -1.0, right], [1.0, 0.0, 0.0]],
        180: [[-1.0, 0.0, right], [0.0, -1.0, bottom]],
        270: [[0.0, 1.0, 0.0], [-1.0, 0.0, bottom]],
    }[rotation]
    if rotation:  # by 0 it would be copied
        frames = torch.rot90(frames, rotation // 90, (2, 3))
    return frames, np.array(matrix)


def flip(frames: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Flip frames left to right; with the matrix (2, 3) from the result's pixels back."""
    return frames.flip(3), np.array([[-1.0, 0.0, frames.shape[3] - 1.0], [0.0, 1.0, 0.0]])


def map_detections(detections: Detections, matrix: NDArray[np.float64]) -> Detections:
    """Map detections by a matrix (2, 3) that rotates by right angles, flips or scales.

    In a flipped view the left eye is the right one; the landmarks' order is put right.
    """
    linear, shift = torch.from_numpy(matrix[:, :2].T.copy()), torch.from_numpy(matrix[:, 2])
    corners = detections.boxes.double().view(-1, 2, 2) @ linear + shift
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    landmarks = detections.landmarks.double() @ linear + shift
    if np.linalg.det(matrix[:, :2]) < 0:
        landmarks = landmarks[:, _FLIPPED_LANDMARKS]
    return Detections(boxes, detections.scores, landmarks)


def concatenate(views: Sequence[Detections]) -> Detections:
    """Concatenate the detections of several views of one frame."""
    return Detections(
        torch.cat([view.boxes for view in views]),
        torch.cat([view.scores for view in views]),
        torch.cat([view.landmarks for view in views]),
    )


def nms(detections: Detections) -> Detections:
    """Suppress all but the surest of overlapping detections; ordered by score."""
    # Not torchvision's, the import of which takes longer than a face.
    rest = detections.scores.argsort(descending=True, stable=True)
    indices = []
    while len(rest):
        indices.append(rest[:1])
        rivals = box_iou(detections.boxes[rest[:1]], detections.boxes[rest[1:]])[0]
        rest = rest[1:][rivals <= OVERLAP]
    return detections[torch.cat(indices)] if indices else detections


def average_flipped(plain: Detections, flipped: Detections) -> Detections:
    """Average faces detected in both of two views; faces of one view only stay as they are."""
    overlap = box_iou(plain.boxes, flipped.boxes)
    pairs: list[tuple[int, int]] = []
    for index in range(len(plain.scores)):  # surest first
        if len(flipped.scores) and overlap[index].max() > OVERLAP:
            best = int(overlap[index].argmax())
            overlap[:, best] = 0  # each face of the other view is used once
            pairs.append((index, best))
    first, second = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    both = Detections(
        (plain.boxes[first] + flipped.boxes[second]) / 2,
        (plain.scores[first] + flipped.scores[second]) / 2,
        (plain.landmarks[first] + flipped.landmarks[second]) / 2,
    )
    only_plain = _complement(len(plain.scores), first)
    only_flipped = _complement(len(flipped.scores), second)
    return concatenate([both, plain[only_plain], flipped[only_flipped]])


def _complement(count: int, used: Tensor) -> Tensor:
    """List the indices below ``count`` that are not used."""
    unused = torch.ones(count, dtype=torch.bool)
    unused[used] = False
    return unused.nonzero().squeeze(1)
