"""The data that flows from step to step: one face, and the faces of a batch of frames.

Coordinates are pixels of the frame, with (0, 0) at the centre of the top left pixel (OpenCV's
convention), x to the right and y down. Landmarks come in the order left eye, right eye, nose,
left mouth corner, right mouth corner, where left and right are the picture's, not the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Progress: TypeAlias = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each unit of work; it may raise to cancel."""
Preview: TypeAlias = Callable[[Tensor], None]
"""Called with (N, 3, S, S) restored crops in [0, 1] as soon as they are finished."""


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

    @property
    def width(self) -> float:
        """Width of the box in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return self.box[3] - self.box[1]


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

    def __post_init__(self) -> None:
        """Refuse crops that do not belong to the faces.

        Raises:
            ValueError: the number of crops differs from the number of faces.
        """
        for name in ("crops", "restored"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape[0] != len(self.faces):
                raise ValueError(
                    f"{name} holds {tensor.shape[0]} pictures for {len(self.faces)} faces"
                )

    def __len__(self) -> int:
        return len(self.faces)

    def select(self, indices: Sequence[int]) -> Faces:
        """The faces at ``indices`` (in that order, of the whole batch), with their crops."""
        chosen = list(indices)
        return replace(
            self,
            faces=tuple(self.faces[i] for i in chosen),
            crops=None if self.crops is None else self.crops[chosen],
            restored=None if self.restored is None else self.restored[chosen],
        )
