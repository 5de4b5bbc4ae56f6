"""Pairs of clean and degraded faces for training, from prepared ones (`pack`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..degradation import DegradationRanges, apply_to_batch, degrade, draw
from ..wild import degrade_as, draw_kind
from .pack import FacePack
from .recipes import Data
from .regions import move

_FIELD = 6
"""Points a side of the field that moves a face's features."""


class Pair(NamedTuple):
    """A face, or a batch of them with one dimension more in front."""

    degraded: Tensor
    """(3, S, S) uint8 RGB; the clean one where degrading is left to the device."""
    clean: Tensor
    """(3, S, S) uint8 RGB."""
    regions: Tensor
    """(3, 3) float32: eyes and mouth, see `regions`."""
    sample: Tensor
    """() int64: its number."""


def augment(
    face: NDArray[np.uint8], regions: NDArray[np.float32], rng: np.random.Generator, data: Data
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Change a face at random as far as the recipe says: its place, its features, its light.

    Args:
        face: (size + 2 margin, same, 3) uint8 RGB, an aligned face with its border.
        regions: (3, 3), in its pixels.
        rng: source of all randomness.
        data: how much of each; with nothing but mirroring the pixels stay as they are.

    Returns:
        (size, size, 3) uint8 RGB, and the regions in its pixels.
    """
    size = data.size
    centre = (face.shape[0] - 1) / 2
    turn = rng.uniform(-data.turn, data.turn)
    zoom = rng.uniform(1 - data.zoom, 1 + data.zoom)
    matrix: Any = cv2.getRotationMatrix2D((centre, centre), turn, zoom)
    matrix[:, 2] += rng.uniform(-data.move, data.move, 2) * size - (face.shape[0] - size) / 2
    if data.warp:
        field = _features_elsewhere(face.shape[0], data.warp * size, rng)
        row = np.arange(face.shape[0], dtype=np.float32)
        old: Any = np.stack(np.meshgrid(row, row), -1) + field
        old = cv2.warpAffine(old, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        x, y = cv2.split(old)
        crop: Any = cv2.remap(face, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        regions = regions.copy()
        column, line = np.rint(regions[:, :2]).astype(int).clip(0, face.shape[0] - 1).T
        regions[:, :2] -= field[line, column]
    else:
        crop = cv2.warpAffine(
            face, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    mirrored = data.mirror and rng.random() < 0.5
    if mirrored:
        crop = crop[:, ::-1]
    if data.tint:
        crop = _tint(crop, rng)
    moved = move(regions, matrix, size if mirrored else None)
    return np.ascontiguousarray(crop), moved


def _features_elsewhere(side: int, amount: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a smooth field that makes another person of a face: eyes wider apart, a shorter nose.

    The same on both sides of the face, for eyes of two sizes are nobody's.

    Args:
        side: of the face's picture in pixels.
        amount: standard deviation of the shifts in pixels.
        rng: source of all randomness.

    Returns:
        (side, side, 2), from each pixel of the new face to the old one's, (x, y).
    """
    coarse = rng.normal(0, amount, (_FIELD, _FIELD, 2)).astype(np.float32)
    mirrored = coarse[:, ::-1] * np.array([-1, 1], np.float32)
    coarse = (coarse + mirrored) * np.float32(math.sqrt(0.5))
    field: Any = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field)


def _tint(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light and film differ: exposure, contrast and a slight cast, the same for both of a pair."""
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)
    gamma = rng.uniform(0.8, 1.25)
    table = np.clip(levels[:, None] ** gamma * gain * 255, 0, 255).round().astype(np.uint8)
    return np.stack([table[:, c][crop[..., c]] for c in range(3)], -1)


class FacePairs(Dataset[Pair]):
    """Clean and degraded faces; sample i is the same for ever, whatever worker makes it."""

    def __init__(
        self,
        pack: FacePack,
        faces: list[int],
        data: Data,
        ranges: DegradationRanges,
        *,
        seed: int = 0,
        length: int = 2**62,
    ) -> None:
        """Take the faces.

        Args:
            pack: the prepared faces.
            faces: indices of those to take.
            data: size, augmentation, and where faces are degraded.
            ranges: of the degradation.
            seed: with the index it seeds each sample.
            length: number of samples.

        Raises:
            ValueError: there is no face, or the faces were prepared at another size.
        """
        if not faces:
            raise ValueError(f"{pack.folder} has no face for this: prepare more photographs")
        if pack.size != data.size:
            raise ValueError(
                f"{pack.folder} holds faces of {pack.size} px, the recipe wants {data.size}: "
                f"prepare them with --size {data.size}, or set data.size and the model's size"
            )
        self.pack, self.faces, self.data, self.ranges = pack, faces, data, ranges
        self.seed, self.length = seed, length
        weights = np.array([pack.faces[i].weight for i in faces])
        self._shares = None if (weights == weights[0]).all() else weights / weights.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        """Sample ``index``."""
        rng = np.random.default_rng((self.seed, index))
        if self._shares is None:
            face = self.faces[rng.integers(len(self.faces))]
        else:
            face = self.faces[rng.choice(len(self.faces), p=self._shares)]
        clean, regions = augment(self.pack.picture(face), self.pack.regions(face), rng, self.data)
        here = self.data.degraded and self.data.degrade_on == "workers"
        bad = clean
        if here and self.data.mixture:
            bad, clean = degrade_as(draw_kind(rng, self.data.mixture), clean, rng)
        elif here:
            bad = degrade(clean, rng, self.ranges)
        return Pair(
            to_tensor(bad), to_tensor(clean), torch.from_numpy(regions), torch.tensor(index)
        )

    def degrade_batch(self, batch: Pair, device: torch.device) -> Tensor:
        """The degraded faces of a batch whose degrading was left to the device.

        Returns:
            (B, 3, S, S) float32 RGB in [0, 1].
        """
        seeds = [(self.seed, int(index), 1) for index in batch.sample]
        drawn = [draw(np.random.default_rng(seed), self.ranges) for seed in seeds]
        generator = torch.Generator(device).manual_seed(hash(seeds[0]) % 2**63)
        return apply_to_batch(batch.clean.to(device).float() / 255, drawn, generator)


class Steps(Sampler[int]):
    """The samples that one process takes, batch after batch, from a given sample on."""

    def __init__(self, first: int, last: int, batch: int, rank: int = 0, count: int = 1) -> None:
        """Share samples ``first`` to ``last`` among processes, ``batch`` at a time each."""
        self.starts = range(first + rank * batch, last, batch * count)
        self.batch = batch

    def __iter__(self) -> Iterator[int]:
        return (index for start in self.starts for index in range(start, start + self.batch))

    def __len__(self) -> int:
        return len(self.starts) * self.batch


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def to_net(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 in 0..255 to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)
