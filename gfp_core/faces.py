"""The data that flows from step to step: one face, and the faces of a batch of frames.

Coordinates are pixels of the frame, with (0, 0) at the centre of the top left pixel (OpenCV's
convention), x to the right and y down. Landmarks come in the order left eye, right eye, nose,
left mouth corner, right mouth corner, where left and right are the picture's, not the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each unit of work; it may raise to cancel."""
Preview: TypeAlias = Callable[[Tensor], None]
"""Called with (N, 3, S, S) restored crops in [0, 1] as soon as they are finished."""

_PER_FACE = ("crops", "restored", "embeddings", "sharpness")  # tensors with a row a face


@dataclass(frozen=True)
class Face:
    """One face of one frame. Frozen: a step that changes a face makes a new one."""

    frame: int
    """Index of the frame in its batch, from 0."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the frame; may reach over the frame's edge."""
    score: float
    """The detector's confidence in [0, 1]."""
    landmarks: NDArray[np.float32]
    """(5, 2) float32, pixels of the frame."""
    matrix: NDArray[np.float64] | None = None
    """(2, 3) float64 similarity from the frame to the aligned crop; None before alignment."""
    track: int | None = None
    """Number of the track the face belongs to, where frames are in order (`track.track`)."""

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True)
class Track:
    """One face that is followed through the frames of a video."""

    number: int
    """The same in all frames, different for each face; from 0."""
    points: NDArray[np.float64]
    """(7, 2) in pixels: the five landmarks and two corners of the box, as smoothed."""
    speed: NDArray[np.float64]
    """(7, 2) in pixels a frame, smoothed."""
    box: NDArray[np.float64]
    """(4,) in pixels: as last detected."""
    age: int = 1
    """Frames in which the face was detected since it began, or since it last jumped."""
    missing: int = 0
    """Frames since the last detection."""
    embedding: Tensor | None = None
    """(D,) of the last detection."""
    past: Mapping[str, Tensor] = field(default_factory=dict)
    """What is smoothed over time, by name, as of the last batch of frames before these."""
    values: Mapping[str, Tensor] = field(default_factory=dict)
    """The same, as of these frames; see `track.smooth_over_time`."""


@dataclass(frozen=True)
class Tracks:
    """The state that goes from one batch of frames in order to the next; at first ``Tracks()``."""

    tracks: tuple[Track, ...] = ()
    """The faces that the next frames may continue."""
    ended: tuple[Track, ...] = ()
    """Those that ended in these frames: the steps that follow smooth their last values still."""
    thumbnail: Tensor | None = None
    """(3, 64, 64): the last frame, reduced."""
    frame_size: tuple[int, int] | None = None
    """(height, width) of the last frame."""
    count: int = 0
    """Tracks so far, and so the number of the next one."""
    frames: int = 0
    """Frames so far, and so the number of the next one."""


@dataclass(frozen=True)
class Faces:
    """The faces of a batch of frames, in order of their frames, and what was made of them."""

    faces: tuple[Face, ...]
    frame_sizes: tuple[tuple[int, int], ...]
    """(height, width) of every frame of the batch, also of those without a face."""
    crops: Tensor | None = None
    """(N, 3, S, S) float32 RGB in [0, 1]: the aligned crops, one a face; None before alignment."""
    restored: Tensor | None = None
    """(N, 3, S, S) float32 RGB in [0, 1]: the restored crops; None before a restorer."""
    embeddings: Tensor | None = None
    """(N, D) float32: who each face is; None where nobody asked (`FaceEmbedder.embed`)."""
    sharpness: Tensor | None = None
    """(N,) float32 in [0, 1]; None where it was not measured (`sharpness.face_sharpness`)."""
    tracks: Tracks | None = None
    """Where frames are in order: the state for the frames that follow; else None."""

    def __post_init__(self) -> None:
        """Refuse crops and figures that do not belong to the faces.

        Raises:
            ValueError: the number of crops differs from the number of faces.
        """
        for name in _PER_FACE:
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape[0] != len(self.faces):
                noun = "pictures" if tensor.ndim == 4 else "values"
                raise ValueError(
                    f"{name} holds {tensor.shape[0]} {noun} for {len(self.faces)} faces"
                )

    def __len__(self) -> int:
        return len(self.faces)

    def select(self, indices: Sequence[int]) -> Faces:
        """Select the faces at ``indices`` (of the whole batch, in that order), with their crops."""
        indices = list(indices)
        rows: dict[str, Any] = {}
        for name in _PER_FACE:
            tensor = getattr(self, name)
            rows[name] = None if tensor is None else tensor[indices]
        return replace(self, faces=tuple(self.faces[i] for i in indices), **rows)

    def of_frame(self, frame: int) -> Faces:
        """Select the faces of one frame; they still count from the batch's first frame."""
        return self.select([i for i, face in enumerate(self.faces) if face.frame == frame])

    def largest(self) -> Faces:
        """Select the face with the largest box of each frame, by frame; the first of equals."""
        indices: dict[int, int] = {}
        for index, face in enumerate(self.faces):
            best = indices.setdefault(face.frame, index)
            if face.width * face.height > self.faces[best].width * self.faces[best].height:
                indices[face.frame] = index
        return self.select([indices[frame] for frame in sorted(indices)])
