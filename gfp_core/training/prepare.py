"""From a folder of photographs to faces that a training can take: ``gfp prepare``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..detect import FaceDetector
from ..faces import Face, Progress
from ..geometry import fit_similarity, invert, similarity_scale, warp
from ..io.images import SUFFIXES, read_image, to_frames
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


def prepare(
    photographs: Sequence[Path],
    out: Path,
    detector: FaceDetector,
    *,
    size: int = 512,
    margin: int | None = None,
    quality: int = 95,
    least_size: float = 0.5,
    least_sharpness: float = 0.0,
    split_by: Literal["person", "file"] = "person",
    person: str = PERSON,
    every: int = 8,
    landmarks: Path | None = None,
    long_side: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Find, align, choose and pack the largest face of every photograph.

    Args:
        photographs: folders, of which the pictures directly in them are taken, or pictures.
        out: folder of the result, see `pack.FacePack`.
        detector: finds the faces.
        size: side of the aligned face in pixels.
        margin: border around it, so that augmentation can move it; by default an eighth.
        quality: of its JPEG, 1 to 100; 101 for PNG.
        least_size: share of ``size`` that the face must have had in its photograph.
        least_sharpness: least `face_sharpness`, 0 to 1.
        split_by: whether all files of a person go to one part, or each file for itself.
        person: regular expression that matches the beginning of a file's name; its first group is
            the person. A name that it does not match is a person of its own.
        every: every such person (or file), in sorted order, is kept for validation; 0 for none.
        landmarks: JSON of file name to 68 landmarks (x, y) in pixels of the upright photograph,
            for the places of eyes and mouth; by default they come from the detector's five.
        long_side: shrink larger photographs to this for detection.
        progress: called after each photograph.

    Returns:
        How many faces there are, and why photographs were left out.

    Raises:
        ValueError: there is no photograph, or none with a usable face; names the folders and the
            reasons.
    """
    files = _files(photographs)
    margin = size // 8 if margin is None else margin
    listed = _read_landmarks(landmarks)
    people = {
        file.name: person_of(file.name, person) if split_by == "person" else file.name
        for file in files
    }
    held_out = set(sorted(set(people.values()))[every - 1 :: every]) if every else set()
    done = Prepared()
    with PackWriter(out, size=size, margin=margin, quality=quality) as writer:
        for number, file in enumerate(files, start=1):
            try:
                picture = read_image(file)
            except ValueError as error:
                done.left_out[file.name] = str(error)
                logger.warning("%s", error)
                continue
            frames = to_frames(picture)
            faces = detector.detect(frames, long_side=long_side, flip=True)
            reason = "no face found"
            if len(faces):
                largest = faces.largest()
                face = largest.faces[0]
                in_photo = 1 / similarity_scale(fit_similarity(face.landmarks, size))
                reason = ""
                if in_photo < least_size:
                    reason = f"the face is too small: {in_photo:.2f} of {size} px"
                elif least_sharpness > 0:
                    sharp = float(face_sharpness(frames, largest)[0])
                    if sharp < least_sharpness:
                        reason = f"the face is not sharp: {sharp:.2f}"
            if reason:
                done.left_out[file.name] = reason
                logger.warning("%s: left out: %s", file, reason)
            else:
                split: Split = "validation" if people[file.name] in held_out else "training"
                matrix = matrix_with_margin(face, size, margin)
                points = listed.get(file.name, face.landmarks)
                scale = float(np.sqrt(np.linalg.det(matrix[:, :2])))
                writer.add(
                    cut(picture.pixels[..., :3], matrix, size + 2 * margin),
                    name=file.name,
                    person=people[file.name],
                    split=split,
                    regions=move(regions_of(points, face_size=round(size / scale)), matrix),
                )
                done.faces += 1
            if progress is not None:
                progress(number, len(files))
        if not done.faces:
            where = ", ".join(map(str, photographs))
            reasons = "; ".join(f"{name}: {why}" for name, why in list(done.left_out.items())[:3])
            raise ValueError(f"no usable face in {where} ({len(files)} pictures; {reasons})")
    return done


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
        inside = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        files += [file for file in inside if file.suffix.lower() in SUFFIXES]
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
