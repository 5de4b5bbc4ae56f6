"""More people from few: a face with the eyes, the nose or the mouth of another person.

Prepared faces lie alike, so that another's eyes and mouth are laid over a face's own by the affine
transform of the three, and blended in the gradients (Perez et al., "Poisson Image Editing", 2003).
That looks real only where the two differ by one color along the seam: half a pair of glasses, a
strand of hair, a beard's edge or light from another side differ by more, and are not taken.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..faces import Progress
from .pack import FacePack, PackWriter

logger = logging.getLogger(__name__)

# Ellipses over a face whose eyes are at (-1, 0) and (1, 0) and whose mouth is at (0, 2.1):
# center and half axes. Brows belong to the eyes.
FEATURES = {
    "eyes": ((0.0, -0.15), (1.9, 0.78)),
    "nose": ((0.0, 1.05), (0.8, 0.72)),
    "mouth": ((0.0, 2.1), (1.15, 0.68)),
}
_PLAIN = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.1]])
_OUTLINE = 48
"""Points of an ellipse."""
MAX_STRETCH = 1.12
"""Ratio of the affine transform's axes, above which two heads are turned too differently."""
MAX_GAIN = 1.3
"""Ratio of the means along the seam, of a color, above which skins or lights are too unlike."""
MAX_DIFFERENCE = 20.0
"""Standard deviation along the seam, in levels of 255, of what neither that gain nor light from
another side explains: above it a blend shows."""


_TRIES = 400
"""Pairs that are looked at for each face that is wanted."""


def add_mixed_faces(
    folder: Path, count: int, *, quality: int = 97, seed: int = 0, progress: Progress | None = None
) -> int:
    """Add to prepared faces such as are made of two people of the training part.

    Args:
        folder: of a `FacePack`; its files are replaced when all is done.
        count: how many faces to add.
        quality: of their JPEG, 1 to 100; 101 for PNG.
        seed: of the choice of people and features.
        progress: called after each face.

    Returns:
        How many were added: fewer than ``count`` where too few people go together.
    """
    pack = FacePack(folder)
    faces = pack.of("training")
    rng = np.random.default_rng(seed)
    added = 0
    with PackWriter(folder, size=pack.size, margin=pack.margin, quality=quality) as writer:
        for index, row in enumerate(pack):
            writer.copy(row, pack.coded(index))
        for _ in range(count * _TRIES if len(faces) > 1 else 0):
            if added == count:
                break
            index, donor_index = rng.choice(faces, 2, replace=False)
            feature = str(rng.choice([*FEATURES]))
            row, donor = pack.faces[index], pack.faces[donor_index]
            if row.person == donor.person:
                continue
            regions, donor_regions = pack.regions(index), pack.regions(donor_index)
            if not _alike_turned(regions, donor_regions):
                continue  # before pictures are decoded
            pictures = pack.picture(index), pack.picture(donor_index)
            mixed = mix_feature(pictures[0], regions, pictures[1], donor_regions, feature)
            if mixed is None:
                continue
            writer.add(
                mixed,
                name=f"{Path(row.name).stem} with {feature} of {donor.name}",
                person=f"{row.person} + {donor.person}",
                split="training",
                regions=regions,
                weight=row.weight,
            )
            added += 1
            if progress is not None:
                progress(added, count)
    if added < count:
        logger.warning("%s: only %d of %d faces could be mixed", folder, added, count)
    return added


def mix_feature(
    face: NDArray[np.uint8],
    regions: NDArray[np.float32],
    donor: NDArray[np.uint8],
    donor_regions: NDArray[np.float32],
    feature: str,
) -> NDArray[np.uint8] | None:
    """Give a face a feature of another one.

    Args:
        face: (S, S, 3) uint8 RGB; it is not changed.
        regions: (3, 3), its eyes and mouth, see `regions`.
        donor: (S, S, 3) uint8 RGB, the other one.
        donor_regions: (3, 3), its eyes and mouth.
        feature: of `FEATURES`.

    Returns:
        (S, S, 3) uint8 RGB with eyes and mouth where the face has them; None where the two do not
        go together.
    """
    centers = regions[:, :2].astype(np.float64)
    if not _alike_turned(regions, donor_regions):
        return None
    over = _affine(donor_regions[:, :2], centers)
    plain = _affine(_PLAIN, centers)
    outline = np.rint(_outline(feature) @ plain[:, :2].T + plain[:, 2]).astype(np.int32)
    side = face.shape[0]
    if outline.min() < 2 or outline.max() > side - 3:
        return None
    moved: Any = cv2.warpAffine(
        donor, over, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    x, y = outline.T
    own, others = (_smooth(picture)[y, x] for picture in (face, moved))
    gain = (own.mean(0) + 1) / (others.mean(0) + 1)
    if max(gain.max(), 1 / gain.min()) > MAX_GAIN:
        return None
    difference = own - others * gain
    slope = np.column_stack([outline - outline.mean(0), np.ones(len(outline))])
    difference -= slope @ np.linalg.lstsq(slope, difference, rcond=None)[0]
    if difference.std(0).max() > MAX_DIFFERENCE:
        return None
    lit = np.clip(moved * gain, 0, 255).round().astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [outline], 255)
    corner_x, corner_y, width, height = cv2.boundingRect(mask)
    middle = corner_x + width // 2, corner_y + height // 2
    mixed: Any = cv2.seamlessClone(lit, face, mask, middle, cv2.NORMAL_CLONE)
    return np.asarray(mixed)


def _alike_turned(regions: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """Whether eyes and mouth of one face come upon those of another without a stretch."""
    axes = np.linalg.svd(_affine(others[:, :2], regions[:, :2])[:, :2], compute_uv=False)
    return bool(axes[0] <= MAX_STRETCH * axes[1])


def _smooth(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    smooth: Any = cv2.GaussianBlur(picture, (0, 0), 2.0)
    return np.asarray(smooth, np.float32)


def _affine(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """(2, 3) that takes three points (3, 2) to three others."""
    return np.linalg.solve(np.column_stack([source, np.ones(3)]), target).T


def _outline(feature: str) -> NDArray[np.float64]:
    """(N, 2), the ellipse of a feature in the plain face."""
    center, half = FEATURES[feature]
    angles = np.linspace(0, 2 * np.pi, _OUTLINE, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * half + center
