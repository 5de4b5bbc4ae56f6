"""From a folder of photographs to faces that a training can take: ``gfp prepare``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..align import drop_what_is_no_face
from ..detect import FaceDetector
from ..faces import Face, Progress
from ..geometry import fit_similarity, invert, similarity_scale, warp
from ..io.images import read_image, to_frames
from ..io.names import pictures_in
from ..sharpness import face_sharpness
from .pack import PackWriter, Split
from .regions import move, regions_of

logger = logging.getLogger(__name__)

PERSON = r"(\d+)_"
"""How a file's name begins that belongs to a person of several: the London set's."""


@dataclass
class Prepared:
    """What became of the photographs."""

    faces: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """File name to reason."""


@dataclass(frozen=True)
class Preparation:
    """Say how photographs are prepared."""

    size: int = 512
    """Side of the aligned face in pixels."""
    margin: int | None = None
    """Border around the face, so that augmentation can move it; by default an eighth."""
    quality: int = 95
    """Of the face's JPEG, 1 to 100; 101 for PNG."""
    min_size: float = 0.5
    """Share of ``size`` that the face must have had in its photograph."""
    min_sharpness: float = 0.0
    """Sharpness, 0 to 1, that the face must have, see `face_sharpness`."""
    split_by: Literal["person", "file"] = "person"
    """Whether all files of a person go to one part, or each file for itself."""
    person: str = PERSON
    """Regular expression that matches the beginning of a file's name, with the person as its first
    group. A name that it does not match is a person of its own."""
    every: int = 8
    """Every such person (or file), in sorted order, is kept for validation; 0 for none."""
    landmarks: Path | None = None
    """JSON of file name to 68 landmarks (x, y) in pixels of the upright photograph, for the places
    of eyes and mouth; by default they come from the detector's five."""
    long_side: int | None = None
    """Long side in pixels to which larger photographs are shrunk for detection."""

    @property
    def border(self) -> int:
        """Width of the margin in pixels."""
        return self.size // 8 if self.margin is None else self.margin

    def person_in(self, name: str) -> str:
        """Return what goes to one part as a whole: the person a file shows, or the file."""
        return person_of(name, self.person) if self.split_by == "person" else name

    def held_out(self, files: Iterable[Path]) -> set[str]:
        """Return the people (or files) that are kept for validation."""
        people = sorted({self.person_in(file.name) for file in files})
        return set(people[self.every - 1 :: self.every]) if self.every else set()


def prepare(
    photographs: Sequence[Path],
    out: Path,
    detector: FaceDetector,
    preparation: Preparation | None = None,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Prepared:
    """Find, align, choose and pack the largest face of every photograph.

    Args:
        photographs: folders, of which the pictures directly in them are taken, or pictures.
        out: folder of the result, see `pack.FacePack`.
        detector: finds the faces.
        preparation: how; by default as `Preparation` says.
        progress: called after each photograph.
        **settings: fields of `Preparation`, over those.

    Returns:
        How many faces there are, and why photographs were left out.

    Raises:
        ValueError: there is no photograph, or none with a usable face; names the folders and the
            reasons.
    """
    how = replace(preparation or Preparation(), **settings)
    files = _files(photographs)
    landmarks = _read_landmarks(how.landmarks)
    held_out = how.held_out(files)
    done = Prepared()
    with PackWriter(out, size=how.size, margin=how.border, quality=how.quality) as writer:
        for number, file in enumerate(files, start=1):
            try:
                picture = read_image(file)
                face = _usable_face(to_frames(picture), detector, how)
            except ValueError as error:
                done.left_out[file.name] = str(error)
                logger.warning("%s", error if str(file) in str(error) else f"{file}: {error}")
            else:
                matrix = matrix_with_margin(face, how.size, how.border)
                points = landmarks.get(file.name, face.landmarks)
                face_size = round(how.size / float(np.sqrt(np.linalg.det(matrix[:, :2]))))
                person = how.person_in(file.name)
                split: Split = "validation" if person in held_out else "training"
                writer.add(
                    cut(picture.pixels[..., :3], matrix, how.size + 2 * how.border),
                    name=file.name,
                    person=person,
                    split=split,
                    regions=move(regions_of(points, face_size=face_size), matrix),
                )
                done.faces += 1
            if progress is not None:
                progress(number, len(files))
        if not done.faces:
            where = ", ".join(map(str, photographs))
            reasons = "; ".join(f"{name}: {why}" for name, why in list(done.left_out.items())[:3])
            raise ValueError(f"no usable face in {where} ({len(files)} pictures; {reasons})")
    return done


def _usable_face(frames: Tensor, detector: FaceDetector, how: Preparation) -> Face:
    """Return the largest face of a photograph (1, C, H, W).

    Raises:
        ValueError: there is none, or the face is too small or not sharp; says which.
    """
    faces = drop_what_is_no_face(detector.detect(frames, long_side=how.long_side, flip=True))
    if not len(faces):
        raise ValueError("left out: no face found")
    largest = faces.largest()
    face = largest.faces[0]
    in_photo = 1 / similarity_scale(fit_similarity(face.landmarks, how.size))
    if in_photo < how.min_size:
        raise ValueError(f"left out: the face is too small: {in_photo:.2f} of {how.size} px")
    if how.min_sharpness > 0:
        sharpness = float(face_sharpness(frames, largest)[0])
        if sharpness < how.min_sharpness:
            raise ValueError(f"left out: the face is not sharp: {sharpness:.2f}")
    return face


def matrix_with_margin(face: Face, size: int, margin: int) -> NDArray[np.float64]:
    """(2, 3), from the photograph to the aligned face with its margin."""
    matrix = fit_similarity(face.landmarks, size)
    matrix[:, 2] += margin
    return matrix


def cut(picture: NDArray[np.float32], matrix: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """(H, W, 3) float32 RGB in [0, 1] -> (side, side, 3) uint8 RGB."""
    crop = warp(np.ascontiguousarray(picture), invert(matrix), (side, side))
    result: NDArray[np.uint8] = np.clip(np.rint(crop * 255), 0, 255).astype(np.uint8)
    return result


def person_of(name: str, pattern: str = PERSON) -> str:
    """The person that a file shows: ``012_smiling.jpg`` is 012, ``female_003.jpg`` is itself."""
    match = re.match(pattern, name)
    return match.group(1) if match else Path(name).stem


def _files(photographs: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for entry in photographs:
        if not entry.exists():
            raise ValueError(f"{entry} does not exist")
        files += pictures_in(entry) if entry.is_dir() else [entry]
    if not files:
        raise ValueError(f"no picture in {', '.join(map(str, photographs))}")
    return files


def _read_landmarks(path: Path | None) -> Mapping[str, NDArray[np.float32]]:
    if path is None:
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        landmarks = {name: np.array(points, np.float32) for name, points in table.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no file of landmarks: {error}") from error
    for name, points in landmarks.items():
        if points.shape != (68, 2):
            raise ValueError(f"{path}: {name} has {points.shape}, not 68 points (x, y)")
    return landmarks
