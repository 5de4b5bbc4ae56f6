"""Photographs of one person: whose face it is in each, and how much each is good for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..align import align, drop_what_is_no_face
from ..detect import FaceDetector
from ..embed import REFERENCE_SIZE, FaceEmbedder
from ..faces import Faces, Progress
from ..geometry import angles, fit_similarity, invert, similarity_scale, warp
from ..options import Order
from ..select import LIKE, select
from ..sharpness import face_sharpness
from ..tensors import to_numpy

logger = logging.getLogger(__name__)

MAX_PHOTOGRAPHS = 20
"""More photographs than this are refused."""
MIN_SIZE = 0.4
"""Share of the restorer's crop that a face must have had in its photograph."""
MIN_SHARPNESS = 0.2
"""Sharpness (`sharpness.face_sharpness`) under which a face teaches nothing but blur."""
GOOD_SHARPNESS = 0.5
"""Sharpness from which a photograph counts fully; between the two it counts less."""
SAME = 2.5
"""Mean difference of two faces, in levels of 255, up to which they are one photograph twice, also
mirrored, resized or saved again. Mirrored ones come to 1.9, two of one sitting to 5 or more."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A face to learn from."""

    name: str
    """Of the photograph."""
    face: NDArray[np.uint8]
    """(S + 2 border, same, 3) RGB, aligned, with its border."""
    weight: float = 1.0
    """How often it is taken, beside 1 for a good one."""
    sharpness: float = 1.0
    """In [0, 1], as measured."""
    embedding: Tensor | None = None
    """(D,) of length 1; None without an embedder."""


@dataclass
class Portraits:
    """The faces that can be learned from, and what became of the other photographs."""

    portraits: list[Portrait] = field(default_factory=list)
    size: int = 512
    """Side of the restorer's crop in pixels; faces have a border beyond."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name of the photograph to the reason."""

    def __len__(self) -> int:
        return len(self.portraits)

    @property
    def embedding(self) -> Tensor | None:
        """(D,) of length 1: who the person is; None without an embedder."""
        embeddings = [each.embedding for each in self.portraits if each.embedding is not None]
        return F.normalize(torch.stack(embeddings).mean(dim=0), dim=0) if embeddings else None


def border_of(size: int) -> int:
    """Width of the border of aligned faces, so that augmentation can move them: an eighth."""
    return size // 8


def gather(
    photographs: Iterable[tuple[str, Tensor]],
    detector: FaceDetector,
    size: int,
    *,
    embedder: FaceEmbedder | None = None,
    faces: str | Sequence[int] = "first 1",
    order: Order = "largest",
    progress: Progress | None = None,
) -> Portraits:
    """Find the person in each photograph, and cut the face out where it is good enough.

    In the first photograph with a face the person is the one selected. In the others it is the
    face most like that one, where there is an embedder, else the one selected by the same number.

    Args:
        photographs: name and (1, 3 or 4, H, W) float RGB in [0, 1] of each; read one at a time.
        detector: finds the faces.
        size: side of the restorer's crop in pixels.
        embedder: tells people apart; None goes by ``faces`` alone.
        faces: which face of a photograph, see `select.select`; the first of those selected counts.
        order: in which faces are numbered.
        progress: called with (photographs done, 0); may raise to cancel.

    Returns:
        The portraits, and why photographs were left out or count less, which the log says too.

    Raises:
        ValueError: no photograph can be used, or there are too many; says why.
    """
    gathered = Portraits(size=size)
    person: Tensor | None = None
    number = 0
    for number, (name, frames) in enumerate(photographs, start=1):
        if number > MAX_PHOTOGRAPHS:
            raise ValueError(f"more than {MAX_PHOTOGRAPHS} photographs: give the best of them")
        try:
            portrait, person = _portrait(
                name, frames, detector, size, embedder, person, faces, order
            )
            _check_new(portrait, gathered.portraits)
            gathered.portraits.append(portrait)
        except ValueError as error:
            gathered.refused[name] = str(error)
            logger.warning("%s: left out: %s", name, error)
        if progress is not None:
            progress(number, 0)
    if not number:
        raise ValueError("no photograph to learn from: give at least one")
    if not gathered.portraits:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(gathered.refused.items())[:3])
        raise ValueError(f"no photograph can be learned from ({reasons})")
    return gathered


def _portrait(
    name: str,
    frames: Tensor,
    detector: FaceDetector,
    size: int,
    embedder: FaceEmbedder | None,
    person: Tensor | None,
    numbers: str | Sequence[int],
    order: Order,
) -> tuple[Portrait, Tensor | None]:
    """Return the person's portrait, and who the person is.

    Raises:
        ValueError: the photograph cannot be learned from; says why.
    """
    faces = drop_what_is_no_face(detector.detect(frames, flip=True))
    if not len(faces):
        raise ValueError("no face found; give a photograph that shows the face larger")
    candidates = faces
    if person is None or embedder is None:
        candidates = select(faces, order=order, numbers=numbers)
        if not len(candidates):
            raise ValueError(f"it has no face number {numbers}, only {len(faces)}")
        if len(candidates) > 1:
            logger.info("%s: %d faces: the first in the order counts.", name, len(candidates))
        candidates = candidates.select([0])
    embeddings = None
    if embedder is not None:
        crops = align(frames, candidates, REFERENCE_SIZE).crops
        assert crops is not None
        embeddings = embedder.embed(crops)
        nearest = 0
        if person is not None:
            differences = angles(embeddings, person[None])
            nearest = int(differences.argmin())
            if float(differences[nearest]) > LIKE:
                raise ValueError(
                    "it shows another person than the photographs before "
                    f"({differences[nearest]:.0f} degrees apart; the limit is {LIKE:g})"
                )
        candidates, embeddings = candidates.select([nearest]), embeddings[nearest]
    sharpness = _check(frames, candidates, size)
    weight = min(1.0, (sharpness - MIN_SHARPNESS) / (GOOD_SHARPNESS - MIN_SHARPNESS) + 0.25)
    if weight < 1:
        logger.info("%s: not very sharp (%.2f): counts %.0f %%.", name, sharpness, 100 * weight)
    face = _cut(frames, candidates, size)
    person = embeddings if person is None else person
    return Portrait(name, face, weight, sharpness, embeddings), person


def _check(frames: Tensor, face: Faces, size: int) -> float:
    """Return the sharpness of one face.

    Raises:
        ValueError: the face is too small or too blurred.
    """
    share = 1 / similarity_scale(fit_similarity(face.faces[0].landmarks, size))
    if share < MIN_SIZE:
        raise ValueError(
            f"the face is too small: {share * size:.0f} pixels for a crop of {size}, at least "
            f"{MIN_SIZE * size:.0f} are needed"
        )
    sharpness = float(face_sharpness(frames, face)[0])
    if sharpness < MIN_SHARPNESS:
        raise ValueError(
            f"the face is too blurred: sharpness {sharpness:.2f}, at least {MIN_SHARPNESS} is "
            "needed"
        )
    return sharpness


def _check_new(portrait: Portrait, portraits: Sequence[Portrait]) -> None:
    """Refuse a photograph that is there already: held back, it would judge what it taught.

    Raises:
        ValueError: it is; names the other.
    """
    small = _shrunk(portrait.face)
    for earlier in portraits:
        before = _shrunk(earlier.face)
        difference = min(np.abs(small - each).mean() for each in (before, before[:, ::-1]))
        if difference <= SAME:
            raise ValueError(f"it is the same picture as {earlier.name}")


def _shrunk(face: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)


def _cut(frames: Tensor, face: Faces, size: int) -> NDArray[np.uint8]:
    """Cut one face out, aligned, with its border: (S + 2 border, same, 3) uint8 RGB."""
    border = border_of(size)
    matrix = fit_similarity(face.faces[0].landmarks, size)
    matrix[:, 2] += border
    side = size + 2 * border
    picture = np.ascontiguousarray(to_numpy(frames[face.faces[0].frame])[..., :3])
    crop = warp(picture, invert(matrix), (side, side))
    result: NDArray[np.uint8] = np.clip(np.rint(crop * 255), 0, 255).astype(np.uint8)
    return result
