"""Faces prepared for training: one file of coded pictures, and one that says what they are.

``faces.bin`` holds JPEG or PNG files one after the other, and is mapped, not read: a training
starts at once, however many faces there are. ``faces.json`` holds a row a face.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..io import atomic

PICTURES, INDEX = "faces.bin", "faces.json"
Split = Literal["training", "validation"]


@dataclass(frozen=True)
class PackedFace:
    """One prepared face."""

    name: str
    """File name of the photograph."""
    person: str
    split: Split
    regions: list[list[float]]
    """Eyes and mouth, see `regions`: (3, 3), in pixels of the picture with its margin."""
    start: int
    length: int
    """Where its coded picture lies in ``faces.bin``, in bytes."""
    weight: float = 1.0
    """How often a training takes it, beside the others."""


class FacePack:
    """The faces of a folder that ``gfp prepare`` made."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open them.

        Raises:
            ValueError: the folder has no faces, or files that do not belong together; says what to
                do.
        """
        self.folder = Path(folder)
        advice = f"run: gfp prepare PHOTOGRAPHS --out {self.folder}"
        index = self.folder / INDEX
        if not index.is_file():
            raise ValueError(f"{self.folder} holds no prepared faces ({INDEX}); {advice}")
        try:
            table: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
            self.size, self.margin = int(table["size"]), int(table["margin"])
            self.faces = [PackedFace(**row) for row in table["faces"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{index} is damaged ({error!r}); {advice}") from error
        if not self.faces:
            raise ValueError(f"{self.folder} holds no usable face; {advice}")
        pictures = self.folder / PICTURES
        end = max(face.start + face.length for face in self.faces)
        if not pictures.is_file() or pictures.stat().st_size != end:
            raise ValueError(f"{pictures} is missing or not that of {INDEX}; {advice}")
        self._bytes = np.memmap(pictures, np.uint8, "r")

    def __reduce__(self) -> tuple[type[FacePack], tuple[Path]]:
        """A process that is sent the pack opens the files itself."""
        return FacePack, (self.folder,)

    def __len__(self) -> int:
        return len(self.faces)

    def of(self, split: Split) -> list[int]:
        """Indices of the faces of one part."""
        return [i for i, face in enumerate(self.faces) if face.split == split]

    def coded(self, index: int) -> NDArray[np.uint8]:
        """A face with its margin as it lies in the file: (N,) uint8."""
        face = self.faces[index]
        return np.asarray(self._bytes[face.start : face.start + face.length])

    def picture(self, index: int) -> NDArray[np.uint8]:
        """A face with its margin: (size + 2 margin, the same, 3) uint8 RGB."""
        face = self.faces[index]
        picture: Any = cv2.imdecode(self.coded(index), cv2.IMREAD_COLOR)
        side = self.size + 2 * self.margin
        if picture is None or picture.shape != (side, side, 3):
            raise ValueError(f"{self.folder / PICTURES}: the picture of {face.name} is damaged")
        return np.ascontiguousarray(picture[..., ::-1])

    def centre(self, index: int) -> NDArray[np.uint8]:
        """A face without its margin: (size, size, 3) uint8 RGB."""
        edge = slice(self.margin, self.margin + self.size)
        return np.ascontiguousarray(self.picture(index)[edge, edge])

    def regions(self, index: int) -> NDArray[np.float32]:
        """Its eyes and mouth, in pixels of `picture`."""
        return np.array(self.faces[index].regions, np.float32)

    def __iter__(self) -> Iterator[PackedFace]:
        return iter(self.faces)


class PackWriter:
    """Writes a pack; only when it is left without an error do its files take their places."""

    def __init__(self, folder: Path, *, size: int, margin: int, quality: int) -> None:
        """Begin.

        Args:
            folder: made if missing.
            size: side of the faces in pixels.
            margin: pixels around them.
            quality: of JPEG with whole colours, 1 to 100; above that PNG, without loss.
        """
        self.folder, self.size, self.margin, self.quality = folder, size, margin, quality
        self.rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._writing = ExitStack()
        self._file = self._writing.enter_context(atomic.open_atomic(folder / PICTURES))

    def add(
        self,
        picture: NDArray[np.uint8],
        *,
        name: str,
        person: str,
        split: Split,
        regions: NDArray[np.float32],
        weight: float = 1.0,
    ) -> None:
        """Append a face: (size + 2 margin, the same, 3) uint8 RGB; else see `PackedFace`."""
        ok, coded = cv2.imencode(*_coding(picture[..., ::-1], self.quality))
        if not ok:
            raise RuntimeError(f"OpenCV could not encode the face of {name}")
        face = PackedFace(name, person, split, regions.tolist(), 0, 0, weight)
        self.copy(face, coded)

    def copy(self, face: PackedFace, coded: NDArray[np.uint8]) -> None:
        """Append a face of another pack as it is coded there."""
        start = self._file.tell()
        self._file.write(coded.tobytes())
        self.rows.append(asdict(replace(face, start=start, length=len(coded))))

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writing.__exit__(kind, error, traceback)
        if error is None:
            table = {"size": self.size, "margin": self.margin, "faces": self.rows}
            atomic.write_text(self.folder / INDEX, json.dumps(table))


def _coding(picture: NDArray[np.uint8], quality: int) -> tuple[str, NDArray[np.uint8], list[int]]:
    if quality > 100:
        return ".png", picture, []
    whole_colours = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    return (
        ".jpg",
        picture,
        [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            whole_colours,
        ],
    )
