"""Views of a frame, turned, reduced or cut out, and what a detector finds in them.

Each view comes with the affine map (2, 3) from its pixels back to those it was made from, so that
what is found in any view comes back to the frame in the same way. Pixel (0, 0) is the centre of
the top left pixel throughout.
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
from .tensors import clamp01

OVERLAP = 0.4
"""Intersection over union above which two detections are the same face (as in the reference)."""

_MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Found:
    """What was found in one frame: boxes (N, 4), scores (N,), landmarks (N, 5, 2), on the CPU."""

    boxes: Tensor
    scores: Tensor
    landmarks: Tensor

    @property
    def sizes(self) -> Tensor:
        """(N,) the longer sides of the boxes."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)

    def __getitem__(self, index: Tensor) -> Found:
        return Found(self.boxes[index], self.scores[index], self.landmarks[index])


def reduced(images: Tensor, long_side: float) -> tuple[Tensor, NDArray[np.float64]]:
    """Images no longer than ``long_side``, and the matrix (2, 3) from their pixels back."""
    height, width = images.shape[2:]
    factor = min(1.0, long_side / max(height, width))
    if factor == 1.0:
        return images, np.eye(2, 3)
    return resized(images, max(1, round(height * factor)), max(1, round(width * factor)))


def resized(images: Tensor, height: int, width: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Images of another size, and the matrix (2, 3) from their pixels back.

    A reduced pixel averages the area it covers (a triangle filter as wide as the reduction).
    """
    result = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
    return result, scaling((height, width), images.shape[2:])


def cut(
    image: Tensor,
    box: Sequence[float],
    side: int,
    margin: float,
    outside: Tensor,
) -> tuple[Tensor, NDArray[np.float64]]:
    """A square around a face, and the matrix (2, 3) from its pixels to the image's.

    Args:
        image: (C, H, W), as anybody gives it: values outside of [0, 1] and NaN are clamped.
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
    part, place = [], []  # for y and x: the image's part, and where it begins in the square
    for centre, size in ((y1 + y2) / 2, image.shape[1]), ((x1 + x2) / 2, image.shape[2]):
        first = min(max(round(centre - half), 0), size - 1)
        last = min(max(round(centre + half), first + 1), size)
        part.append(slice(first, last))
        place.append(round((first - centre + half) * scale))
    height, width = (max(1, round((one.stop - one.start) * scale)) for one in part)
    there = clamp01(image[None, :, part[0], part[1]].to(outside.device))
    pixels, to_part = resized(there, height, width)
    top, left = place
    colour = outside[:, None, None]
    # Where rounding lets the part stand out of the square, it is cut off.
    square = F.pad(pixels[0] - colour, (left, side - left - width, top, side - top - height))
    to_image = np.array([[1.0, 0.0, part[1].start], [0.0, 1.0, part[0].start]])
    to_pixels = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    return square + colour, compose(to_image, compose(to_part, to_pixels))


def turned(frames: Tensor, rotation: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames turned counter-clockwise, and the matrix (2, 3) from their pixels back."""
    right, bottom = frames.shape[3] - 1.0, frames.shape[2] - 1.0
    matrix = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        90: [[0.0, -1.0, right], [1.0, 0.0, 0.0]],
        180: [[-1.0, 0.0, right], [0.0, -1.0, bottom]],
        270: [[0.0, 1.0, 0.0], [-1.0, 0.0, bottom]],
    }[rotation]
    return torch.rot90(frames, rotation // 90, (2, 3)), np.array(matrix)


def mirrored(frames: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames with left and right exchanged, and the matrix (2, 3) from their pixels back."""
    return frames.flip(3), np.array([[-1.0, 0.0, frames.shape[3] - 1.0], [0.0, 1.0, 0.0]])


def mapped(found: Found, matrix: NDArray[np.float64]) -> Found:
    """What was found, moved by a matrix (2, 3) that turns by right angles, mirrors or scales.

    In a mirrored view the left eye is the right one; the landmarks' order is put right.
    """
    linear, shift = torch.from_numpy(matrix[:, :2].T.copy()), torch.from_numpy(matrix[:, 2])
    corners = found.boxes.double().view(-1, 2, 2) @ linear + shift
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    landmarks = found.landmarks.double() @ linear + shift
    if np.linalg.det(matrix[:, :2]) < 0:
        landmarks = landmarks[:, _MIRRORED_LANDMARKS]
    return Found(boxes, found.scores, landmarks)


def joined(views: Sequence[Found]) -> Found:
    """Everything found in some views of one frame."""
    return Found(
        torch.cat([view.boxes for view in views]),
        torch.cat([view.scores for view in views]),
        torch.cat([view.landmarks for view in views]),
    )


def suppressed(found: Found) -> Found:
    """Non-maximum suppression: of overlapping detections the surest, ordered by score."""
    # Not torchvision's, the import of which takes longer than a face.
    rest = found.scores.argsort(descending=True, stable=True)
    kept = []
    while len(rest):
        kept.append(rest[:1])
        rivals = box_iou(found.boxes[rest[:1]], found.boxes[rest[1:]])[0]
        rest = rest[1:][rivals <= OVERLAP]
    return found[torch.cat(kept)] if kept else found


def averaged(plain: Found, mirrored: Found) -> Found:
    """Average the faces seen in both of two views; those seen in one only stay as they are."""
    overlap = box_iou(plain.boxes, mirrored.boxes)
    pairs: list[tuple[int, int]] = []
    for index in range(len(plain.scores)):  # surest first
        if len(mirrored.scores) and overlap[index].max() > OVERLAP:
            best = int(overlap[index].argmax())
            overlap[:, best] = 0  # each face of the other view is used once
            pairs.append((index, best))
    first, second = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    both = Found(
        (plain.boxes[first] + mirrored.boxes[second]) / 2,
        (plain.scores[first] + mirrored.scores[second]) / 2,
        (plain.landmarks[first] + mirrored.landmarks[second]) / 2,
    )
    only_plain = _others(len(plain.scores), first)
    only_mirrored = _others(len(mirrored.scores), second)
    return joined([both, plain[only_plain], mirrored[only_mirrored]])


def _others(count: int, taken: Tensor) -> Tensor:
    """The indices below ``count`` that are not taken."""
    free = torch.ones(count, dtype=torch.bool)
    free[taken] = False
    return free.nonzero().squeeze(1)
