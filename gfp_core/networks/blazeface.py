"""BlazeFace, the face detector of Google's MediaPipe, run by OpenCV.

Bazarevsky, Kartynnik, Vakunov, Raveendran, Grundmann, "BlazeFace: Sub-millisecond Neural Face
Detection on Mobile GPUs" (2019). Two networks are published, each as a TensorFlow Lite file: *short
range* (128 px, section 3.2's anchors) and *full range* (192 px, one anchor a cell). Both give a box
and six points for each anchor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .opencv_net import OpenCVNet

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Release:
    """What differs between the two networks."""

    size: int
    """Side of the input in pixels; boxes and points are in these pixels, too."""
    grids: tuple[tuple[int, int], ...]
    """Cells along a side, and anchors of each cell, in the order of the outputs."""
    outputs: tuple[str, str]
    """Names of the confidences and of the boxes and points."""
    limit: float
    """Confidence above which MediaPipe takes a detection for a face."""


RELEASES = {
    "blazeface": _Release(128, ((16, 2), (8, 6)), ("classificators", "regressors"), 0.5),
    "blazeface-full": _Release(
        192, ((48, 1),), ("reshaped_classifier_face_4", "reshaped_regressor_face_4"), 0.6
    ),
}
"""The networks there are, by their names in the catalogue."""

USUAL_LIMIT = 0.9
"""Where each network's own limit comes to lie, see `decode`."""

# Corners of the mouth from its middle, in shares of the eyes' distance: to the sides as in the FFHQ
# template, and up, for the network's point lies that far below RetinaFace's corners (28 portraits,
# both networks; the rest of the difference has a deviation of 0.07).
_HALF_MOUTH = 0.444
_MOUTH_RISE = 0.15


class BlazeFace:
    """The detector of a file, on the CPU."""

    def __init__(self, path: str | Path) -> None:
        """Load the file; which of `RELEASES` it is, its outputs say.

        Raises:
            ValueError: OpenCV cannot read it, or it is another network.
        """
        self._net = OpenCVNet(path)
        match = [name for name, release in RELEASES.items() if self._net.has(release.outputs)]
        if not match:
            raise ValueError(f"{path}: not BlazeFace: it lacks the outputs of that network")
        self.name = match[0]
        """One of `RELEASES`."""
        self._release = RELEASES[self.name]
        self._anchors = anchors(self.name)
        self.size = self._release.size
        """Side of the square that it sees."""

    def __call__(self, square: Array, score: float) -> Array:
        """Find faces.

        Args:
            square: (size, size, 3) RGB in [0, 1].
            score: confidence in [0, 1] above which a detection counts.

        Returns:
            (N, 15) as `YuNet` gives them, in pixels of the square: x1, y1, x2, y2; x, y of left
            eye, right eye, nose, left and right corner of the mouth; the confidence. Overlapping
            ones are all there. The network gives the middle of the mouth; its corners are put
            beside it, along the line of the eyes.
        """
        x = (2 * square - 1).transpose(2, 0, 1)[None]
        logits, raw = self._net.run(x, self._release.outputs)
        count = len(self._anchors)
        if logits.size != count or raw.size != 16 * count:
            raise ValueError(f"{self._net.path}: not {self.name}: {logits.size} confidences")
        rows = logits.reshape(count), raw.reshape(count, 16)
        return decode(*rows, self._anchors, score, self._release.limit)


def anchors(name: str) -> Array:
    """Lay out the anchors: (N, 2) x and y of their centers in pixels of the input."""
    release = RELEASES[name]
    rows = []
    for cells, count in release.grids:
        centers = (np.arange(cells, dtype=np.float32) + 0.5) * (release.size / cells)
        y, x = np.meshgrid(centers, centers, indexing="ij")
        rows.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), count, axis=0))
    return np.concatenate(rows)


def decode(logits: Array, raw: Array, centers: Array, score: float, limit: float = 0.5) -> Array:
    """Decode what the network says of its anchors, see `BlazeFace.__call__`.

    Faces have lower confidences here than in RetinaFace (0.73 to 0.93 on portraits), so these are
    raised to the power that brings MediaPipe's limit to `USUAL_LIMIT`; their order stays.

    Args:
        logits: (N,) of the confidence.
        raw: (N, 16): center, width and height of the box, and x, y of six points (the eye at the
            picture's left, the one at its right, nose, mouth, two ears), the center and the points
            relative to the anchor; all in pixels.
        centers: (N, 2) of the anchors.
        score: confidence, so raised, above which a detection counts.
        limit: MediaPipe's.
    """
    power = math.log(USUAL_LIMIT) / math.log(limit)
    confidence = (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100))) ** -power
    sure = confidence > score
    raw, centers = raw[sure], centers[sure]
    middle = raw[:, :2] + centers
    half = np.abs(raw[:, 2:4]) / 2
    points = raw[:, 4:].reshape(-1, 6, 2) + centers[:, None]
    across = points[:, 1] - points[:, 0]
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    mouth = points[:, 3] - _MOUTH_RISE * down
    corners = np.stack([mouth - _HALF_MOUTH * across, mouth + _HALF_MOUTH * across], axis=1)
    five = np.concatenate([points[:, :3], corners], axis=1)
    rows = np.concatenate(
        [middle - half, middle + half, five.reshape(-1, 10), confidence[sure, None]], axis=1
    )
    # Pixel (0, 0) is the center of the top left one here; the network counts from its corner.
    rows[:, :14] -= 0.5
    return rows.astype(np.float32)
