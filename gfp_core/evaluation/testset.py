"""The papers' tables: clean faces degraded, or real ones, through several restorers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..align import align, drop_what_is_no_face
from ..degradation import DegradationRanges, degrade_with_seed
from ..detect import FaceDetector
from ..faces import Face, Faces, Progress
from ..io.atomic import open_atomic
from ..io.images import read_image, to_frames
from ..io.names import pictures_in
from ..restore import Restorer
from ..training.pack import INDEX, FacePack
from ..wild import degrade_as

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestSet:
    """Aligned faces, and what they are called."""

    __test__ = False  # no class of tests, though it is called so

    names: list[str]
    faces: Tensor
    """(N, 3, S, S) float32 RGB in [0, 1]."""


def load_faces(
    folder: Path,
    detector: FaceDetector,
    *,
    size: int = 512,
    aligned: bool = False,
    progress: Progress | None = None,
) -> TestSet:
    """The faces to measure on.

    Args:
        folder: made by ``gfp prepare``, of which the validation part is taken, or a folder of
            pictures, of which each one's largest face is.
        detector: finds the faces.
        size: side of the aligned faces in pixels.
        aligned: the folder's pictures are aligned faces already; they are only resized.
        progress: called after each picture.

    Raises:
        ValueError: there is no face.
    """
    if (folder / INDEX).is_file():
        pack = FacePack(folder)
        indices = pack.of("validation")
        if not indices:
            raise ValueError(f"{folder} was prepared without validation faces (--every 0)")
        pictures = [_to_tensor(_resized(pack.centre(i), size)) for i in indices]
        return TestSet([pack.faces[i].name for i in indices], torch.stack(pictures))
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    files = pictures_in(folder)
    names, aligned_faces = [], []
    for number, file in enumerate(files, start=1):
        frames = to_frames(read_image(file))[:, :3]
        if aligned:
            aligned_faces.append(_fit(frames, size))
        else:
            faces = drop_what_is_no_face(detector.detect(frames))
            if not len(faces):
                logger.warning("%s: no face found", file)
                continue
            crops = align(frames, faces.largest(), size).crops
            assert crops is not None
            aligned_faces.append(crops[0].clamp(0, 1))
        names.append(file.name)
        if progress is not None:
            progress(number, len(files))
    if not aligned_faces:
        raise ValueError(f"no face in {folder} ({len(files)} pictures)")
    return TestSet(names, torch.stack(aligned_faces))


def degraded(test_set: TestSet, ranges: DegradationRanges, seed: int = 0) -> dict[str, Tensor]:
    """The test set degraded: what restorers see, and the same small pictures enlarged bicubically.

    Face i is degraded with random numbers of the seed (``seed``, i), whatever the others are.

    Returns:
        ``input`` and ``bicubic``, (N, 3, S, S) float32 RGB in [0, 1] each.
    """
    ways = {"input": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
    levels = (test_set.faces * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return {
        name: torch.stack(
            [
                _to_tensor(
                    degrade_with_seed(np.ascontiguousarray(face), (seed, i), ranges, enlarge=how)
                )
                for i, face in enumerate(levels)
            ]
        )
        for name, how in ways.items()
    }


def degraded_as(test_set: TestSet, kind: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The test set degraded in the way of a kind.

    Args:
        test_set: clean faces.
        kind: one of `wild.KINDS`.
        seed: with the face's number it seeds what is drawn for it.

    Returns:
        What restorers see, and what they ought to give, (N, 3, S, S) float32 RGB in [0, 1] each;
        the second is the test set, but for faces of ``wild`` that lost their colors.
    """
    levels = (test_set.faces * 255).round().byte().permute(0, 2, 3, 1).numpy()
    pairs = [
        degrade_as(kind, np.ascontiguousarray(face), np.random.default_rng((seed, i)))
        for i, face in enumerate(levels)
    ]
    bad, good = (torch.stack([_to_tensor(pair[part]) for pair in pairs]) for part in (0, 1))
    return bad, good


def restored(
    faces: Tensor, restorers: Mapping[str, Restorer], *, progress: Progress | None = None
) -> dict[str, Tensor]:
    """What each restorer makes of the faces, without a correction of colors.

    Args:
        faces: (N, 3, S, S) float32 RGB in [0, 1], aligned.
        restorers: by the name of their row. One of another size sees the faces resized.
        progress: called after each restorer.

    Returns:
        By name, (N, 3, S, S) float32 RGB, clipped to [0, 1] as saving would.
    """
    results = {}
    for number, (name, restorer) in enumerate(restorers.items(), start=1):
        inputs = _fit_all(faces, restorer.size)
        crops = restorer.restore(_as_faces(inputs)).restored
        assert crops is not None
        results[name] = _fit_all(crops.cpu(), faces.shape[-1]).clamp(0, 1)
        if progress is not None:
            progress(number, len(restorers))
    return results


def save_pictures(folder: Path, names: Sequence[str], images: Tensor) -> None:
    """Write (N, 3, H, W) float RGB in [0, 1] as PNG files of those names.

    Of names that differ by their ending alone, the second gets ``-2`` behind it, and so on.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    levels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    taken: set[str] = set()
    for name, picture in zip(names, levels, strict=True):
        stem = free = Path(name).stem
        number = 1
        while free.casefold() in taken:
            number += 1
            free = f"{stem}-{number}"
        taken.add(free.casefold())
        with open_atomic(folder / f"{free}.png") as file:
            Image.fromarray(picture).save(file, "PNG")


def _as_faces(crops: Tensor) -> Faces:
    side = crops.shape[-1]
    landmarks = np.zeros((5, 2), np.float32)
    faces = [Face(i, (0, 0, side, side), 1.0, landmarks) for i in range(len(crops))]
    return Faces(tuple(faces), ((side, side),) * len(crops), crops)


def _fit_all(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return torch.stack([_fit(image[None], size) for image in images])


def _fit(frames: Tensor, size: int) -> Tensor:
    """(1, 3, H, W) -> (3, size, size)."""
    if frames.shape[2:] == (size, size):
        return frames[0].clamp(0, 1)
    small = torch.nn.functional.interpolate(
        frames, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return small[0].clamp(0, 1)


def _resized(face: np.ndarray, size: int) -> np.ndarray:
    if face.shape[0] == size:
        return face
    shrinks = face.shape[0] > size
    return cv2.resize(
        face, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
