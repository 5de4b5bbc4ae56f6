"""Eyes and mouth: where the component losses look (GFP-GAN section 3.5, RestoreFormer eq. 11).

A region is a square (x, y, half) in pixels: its centre and half of its side. A face has three, in
the order of `COMPONENTS`; left and right are the picture's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

COMPONENTS = ("left_eye", "right_eye", "mouth")
SIDES = (80, 80, 120)
"""Pixels a side of the patches that the discriminators see, of a face of 512 px."""
_POINTS = (slice(36, 42), slice(42, 48), slice(48, 68))  # of the 68, in the order of COMPONENTS
_ENLARGED = (1.4, 1.4, 1.0)
_LEAST = 16.0  # half a side at 512 px
# An open eye is about half as wide as the pupils are apart; five landmarks show no lids.
_EYE_WIDTH = 0.48


def regions_of(landmarks: NDArray[np.floating], face_size: int = 512) -> NDArray[np.float32]:
    """The three regions of a face.

    With 68 landmarks as in the released code: the middle of the component's points, and half of
    their larger extent, at least 16 px of a 512 px face, times 1.4 for eyes. With five the extent
    is taken from the distance of the eyes and of the mouth's corners.

    Args:
        landmarks: (5, 2), or (68, 2) in the order of the iBUG scheme, in pixels.
        face_size: side that the aligned face has in the same pixels.

    Returns:
        (3, 3) float32.

    Raises:
        ValueError: there are neither 5 nor 68 landmarks.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape == (68, 2):
        parts = [points[span] for span in _POINTS]
        centres = [points_of_part.mean(axis=0) for points_of_part in parts]
        halves = [float(np.ptp(points_of_part, axis=0).max()) / 2 for points_of_part in parts]
    elif points.shape == (5, 2):
        centres = [points[0], points[1], points[3:].mean(axis=0)]
        eye = _EYE_WIDTH * float(np.linalg.norm(points[1] - points[0])) / 2
        halves = [eye, eye, float(np.linalg.norm(points[4] - points[3])) / 2]
    else:
        raise ValueError(f"regions need 5 or 68 landmarks (x, y), not {points.shape}")
    min_half = _LEAST * face_size / 512
    rows = [
        [*centre, max(half, min_half) * factor]
        for centre, half, factor in zip(centres, halves, _ENLARGED, strict=True)
    ]
    return np.array(rows, np.float32)


def move(
    regions: NDArray[np.float32], matrix: NDArray[np.floating], mirrored_width: int | None = None
) -> NDArray[np.float32]:
    """Regions after a similarity and, if a width is given, a mirroring of the result.

    Args:
        regions: (3, 3); it is not changed.
        matrix: (2, 3), from their pixels to those of the crop.
        mirrored_width: of the crop. Left and right eye change places.

    Returns:
        (3, 3) float32.
    """
    moved = np.empty_like(regions)
    moved[:, :2] = regions[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    moved[:, 2] = regions[:, 2] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if mirrored_width is not None:
        moved[:, 0] = mirrored_width - 1 - moved[:, 0]
        moved = moved[[1, 0, 2]]
    return moved.astype(np.float32)


def draw_windows(regions: Tensor, side: int, size: int, seed: int) -> Tensor:
    """Where the judges look closely: about an eye or the mouth, or anywhere in the face's middle.

    Args:
        regions: (B, 3, 3) in pixels of the faces.
        side: of the windows in pixels.
        size: of the faces in pixels.
        seed: of the step.

    Returns:
        (B, 2) int64: left and top of each window, which lies within the face's picture.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = len(regions)
    component = torch.randint(0, 2 * len(COMPONENTS), (batch,), generator=generator)
    anywhere = torch.rand(batch, 2, generator=generator) * 0.8 * size + 0.1 * size
    about = regions.cpu()[torch.arange(batch), component % len(COMPONENTS), :2]
    about = about + (torch.rand(batch, 2, generator=generator) - 0.5) * side / 2
    middle = torch.where(component[:, None] < len(COMPONENTS), about, anywhere)
    return (middle - side / 2).round().long().clamp(0, size - side)


def cut_windows(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """The windows of `draw_windows`: (B, C, S, S) -> (B, C, side, side)."""
    rows = [
        image[:, y : y + side, x : x + side]
        for image, (x, y) in zip(images, corners.tolist(), strict=True)
    ]
    return torch.stack(rows)


def crop_regions(images: Tensor, regions: Tensor, sides: Sequence[int] = SIDES) -> list[Tensor]:
    """The patches of eyes and mouth, by ROI align (differentiable, in float32).

    Args:
        images: (B, C, S, S).
        regions: (B, 3, 3) in their pixels.
        sides: pixels a side of each component's patches at S = 512; scaled with S.

    Returns:
        Three (B, C, side, side).
    """
    from torchvision.ops import roi_align  # the extra train brings it

    batch, _, size, _ = images.shape
    numbers = torch.arange(batch, device=images.device, dtype=torch.float32)[:, None]
    patches = []
    with torch.autocast(images.device.type, enabled=False):
        for component, side in enumerate(sides):
            x, y, half = regions[:, component].float().to(images.device).unbind(dim=1)
            # Aligned ROIs have (0, 0) at a corner of the first pixel, not at its centre.
            box = torch.stack([x - half, y - half, x + half, y + half], dim=1) + 0.5
            out = max(8, round(side * size / 512))
            patches.append(
                roi_align(images.float(), torch.cat([numbers, box], dim=1), out, aligned=True)
            )
    return patches
