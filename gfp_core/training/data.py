"""Pairs of clean and degraded faces for training, from a folder of prepared (aligned) faces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..align import fit_similarity, invert, warp
from ..faces import Face
from .degradations import PAPER, DegradationRanges, degrade

SIZE = 512
"""Side of the aligned face."""
MARGIN = 64
"""Prepared faces are aligned crops with this border, so that augmentation can move them."""


def prepare_face(picture: NDArray[np.float32], face: Face) -> NDArray[np.uint8]:
    """Cut an aligned face with its margin out of a photograph.

    Args:
        picture: (H, W, 3) float32 RGB in [0, 1].
        face: a face of the picture, in its pixels.

    Returns:
        (SIZE + 2 MARGIN, same, 3) uint8 RGB.
    """
    matrix = fit_similarity(face.landmarks, SIZE)
    matrix[:, 2] += MARGIN
    side = SIZE + 2 * MARGIN
    crop = warp(np.ascontiguousarray(picture), invert(matrix), (side, side))
    return np.clip(np.rint(crop * 255), 0, 255).astype(np.uint8)


def person_of(name: str) -> str:
    """The person that a file shows: ``012_smiling.jpg`` is 012, ``female_003.jpg`` is itself.

    A photograph whose name begins with a number belongs to the person of that number; any other
    file is a person of its own. Training and validation are split by person, never by file.
    """
    stem = Path(name).stem
    match = re.match(r"(\d+)_", stem)
    return match.group(1) if match else stem


def split_people(names: Iterable[str], every: int = 8) -> tuple[list[str], list[str]]:
    """Split files into training and validation by person.

    Args:
        names: file names of all faces.
        every: every such person, in sorted order, is kept for validation.

    Returns:
        Names for training and names for validation, each in the given order.
    """
    names = list(names)
    people = sorted({person_of(name) for name in names})
    held_out = set(people[every - 1 :: every])
    training = [name for name in names if person_of(name) not in held_out]
    return training, [name for name in names if person_of(name) in held_out]


def augment(
    face: NDArray[np.uint8], rng: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """A randomly mirrored, turned (6 degrees), scaled (8 %), shifted (2.5 %) and tinted crop.

    Args:
        face: (size + 2 MARGIN, same, 3) uint8 RGB, an aligned face with its border.
        rng: source of all randomness.
        size: side of the crop.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    centre = (face.shape[0] - 1) / 2
    turn, zoom = rng.uniform(-6, 6), rng.uniform(0.94, 1.08)
    matrix = cv2.getRotationMatrix2D((centre, centre), turn, zoom)
    matrix[:, 2] += rng.uniform(-0.025, 0.025, 2) * size - (face.shape[0] - size) / 2
    crop = cv2.warpAffine(
        face, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    # Light and film differ: exposure, contrast and a slight cast, the same for both of a pair.
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)
    gamma = rng.uniform(0.8, 1.25)
    table = np.clip(levels[:, None] ** gamma * gain * 255, 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.stack([table[:, c][crop[..., c]] for c in range(3)], -1))


class FacePairs(Dataset[tuple[Tensor, Tensor]]):
    """Clean and degraded faces; item i is the same for ever, whatever worker makes it.

    Args:
        faces: (N, size + 2 MARGIN, same, 3) uint8 RGB.
        length: number of items: the training's samples from the first to the last.
        seed: with the index it seeds each item.
        size: side of the crops.
        ranges: the degradation's ranges.
    """

    def __init__(
        self,
        faces: NDArray[np.uint8],
        length: int,
        *,
        seed: int = 0,
        size: int = SIZE,
        ranges: DegradationRanges = PAPER,
    ) -> None:
        self.faces, self.length, self.seed, self.size = faces, length, seed, size
        self.ranges = ranges

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Degraded and clean face, (3, size, size) uint8 RGB each."""
        rng = np.random.default_rng((self.seed, index))
        clean = augment(self.faces[rng.integers(len(self.faces))], rng, self.size)
        bad = degrade(clean, rng, self.ranges)
        return torch.from_numpy(bad).permute(2, 0, 1), torch.from_numpy(clean).permute(2, 0, 1)


def to_net(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 in 0..255 to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)
