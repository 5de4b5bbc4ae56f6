"""Frames in order: the faces of a video followed from frame to frame, their landmarks steadied.

A detector looks at each frame by itself, and its landmarks tremble with the noise of the picture; a
restorer turns this into flicker. Here each face is followed (by overlap, and by embedding where
there is one) and its landmarks and box pass a One-Euro filter (Casiez, Roussel, Vogel, "1 Euro
Filter", CHI 2012): still faces are smoothed strongly, moving ones hardly.

Only what went before counts, never what comes: the frames may come all at once or part by part,
with the `Tracks` of one part given to the next, and the result is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .embed import angles
from .faces import Face, Faces

# The filter, in frames and in sizes of the face (the root of its box's area).
STILL_CUTOFF = 0.02
"""Cutoff frequency for a face at rest, in cycles a frame: each frame counts for about a ninth."""
SPEED_CUTOFF = 16.0
"""How the cutoff grows with the speed (beta of the paper). A steadily moving face lags behind by
at most 1 / (2 pi 16) of its size, 1 %, which is no more than the detector's error."""
DERIVATIVE_CUTOFF = 0.03
"""Cutoff frequency of the speed itself."""
JUMP = 0.15
"""A face whose landmarks are further than this from where they were is not smoothed."""

# Which detections are one face.
OVERLAP = 0.3
"""Intersection over union from which on two boxes of successive frames are one face."""
ALIKE = 15.0
"""Degrees between embeddings up to which two faces are one, wherever they are."""
APART = 25.0
"""Degrees between embeddings from which on two faces are two, however much they overlap."""
PATIENCE = 5
"""Frames for which a face that is not seen is remembered."""
CONTINUES = 0.5
"""Confidence that a detection needs to continue a face seen before (Zhang et al., ByteTrack, 2022):
with less than a first detection needs, a face does not blink where the detector wavers."""

# A cut: the picture as a whole differs, place by place and in its brightnesses.
_CUT_MEAN = 0.1
_CUT_HISTOGRAM = 0.25
_THUMBNAIL = 64


@dataclass(frozen=True)
class Track:
    """One face that is followed."""

    number: int
    """The same in all frames, different for each face; from 0."""
    points: NDArray[np.float64]
    """(7, 2) in pixels: the five landmarks and two corners of the box, as smoothed."""
    speed: NDArray[np.float64]
    """(7, 2) in pixels a frame, smoothed."""
    box: NDArray[np.float64]
    """(4,) in pixels: as last detected."""
    seen: int = 1
    """Frames in which it was seen without a jump."""
    missing: int = 0
    """Frames since then."""
    embedding: Tensor | None = None
    """(D,) of when it was last seen."""


@dataclass(frozen=True)
class Tracks:
    """What must be known of the frames before; the first frames have ``Tracks()``."""

    tracks: tuple[Track, ...] = ()
    thumbnail: Tensor | None = None
    """(3, 64, 64): the last frame, reduced."""
    frame_size: tuple[int, int] | None = None
    """(height, width) of the last frame."""
    count: int = 0
    """Faces seen so far."""


class Tracked(NamedTuple):
    """What `track` gives."""

    faces: Faces
    """The faces that stay, with steady landmarks and boxes."""
    numbers: tuple[int, ...]
    """For each of them, which of all faces of the video it is."""
    tracks: Tracks
    """For the frames that follow."""


def track(
    frames: Tensor,
    faces: Faces,
    tracks: Tracks | None = None,
    *,
    score: float = 0.0,
    embeddings: Tensor | None = None,
) -> Tracked:
    """Follow the faces of successive frames, and steady their landmarks and boxes.

    A face that the detector misses in a frame stays missing there; where it only was less sure
    than ``score``, the face stays if it was there before. Behind a cut all begins anew.

    Args:
        frames: (B, C, H, W) float RGB or RGBA in [0, 1], in order.
        faces: the faces of these frames, not aligned; those below ``score`` included, if they are
            to bridge what the detector misses (from `CONTINUES` on they may).
        tracks: what `track` gave for the frames before; None for the first.
        score: confidence from which on a detection is a face that was not seen before.
        embeddings: (N, D) of the faces, or None.

    Returns:
        The faces, by frame, in their order; the number of each; and what the next call needs.

    Raises:
        ValueError: the faces belong to other frames, or there are not as many embeddings.
    """
    if frames.ndim != 4 or len(frames) != len(faces.frame_sizes):
        raise ValueError(
            f"frames must be ({len(faces.frame_sizes)}, C, H, W) like those of the faces, not "
            f"{tuple(frames.shape)}"
        )
    if embeddings is not None and len(embeddings) != len(faces):
        raise ValueError(f"there are {len(embeddings)} embeddings for {len(faces)} faces")
    state = Tracks() if tracks is None else tracks
    steady: dict[int, Face] = {}
    numbers: dict[int, int] = {}
    for index, frame in enumerate(frames):
        state = _after_a_cut(state, frame)
        here = [i for i, face in enumerate(faces.faces) if face.frame == index]
        continued = _pairs(state.tracks, faces, here, embeddings)
        followed = []
        for old in state.tracks:
            if old.number not in continued.values() and old.missing < PATIENCE:
                followed.append(replace(old, missing=old.missing + 1))
        by_number = {old.number: old for old in state.tracks}
        count = state.count
        for i in here:
            face = faces.faces[i]
            known = by_number.get(continued.get(i, -1))
            if known is None and face.score < score:
                continue
            new = _begin(count, face) if known is None else _go_on(known, face)
            count += known is None
            if embeddings is not None:
                new = replace(new, embedding=embeddings[i])
            followed.append(new)
            numbers[i] = new.number
            box = new.points[5:].ravel().tolist()
            landmarks = new.points[:5].astype(np.float32)
            steady[i] = replace(
                face, box=(box[0], box[1], box[2], box[3]), landmarks=landmarks, matrix=None
            )
        state = replace(state, tracks=tuple(followed), count=count)
    result = replace(
        faces, faces=tuple(steady[i] for i in sorted(steady)), crops=None, restored=None
    )
    return Tracked(result, tuple(numbers[i] for i in sorted(numbers)), state)


def is_cut(first: Tensor, second: Tensor) -> bool:
    """Whether two frames, reduced by the same amount, are of different scenes.

    Args:
        first: (3, H, W) in [0, 1].
        second: the same shape.
    """
    if (first - second).abs().mean() < _CUT_MEAN:
        return False
    shares = [torch.histc(one.mean(dim=0), 32, 0, 1) / one[0].numel() for one in (first, second)]
    return float((shares[0] - shares[1]).abs().sum() / 2) > _CUT_HISTOGRAM


def _after_a_cut(state: Tracks, frame: Tensor) -> Tracks:
    """The state with the new frame's picture, and without faces if that is another scene."""
    seen = frame[None, :3].float().nan_to_num(nan=0.0).clamp(0, 1)
    small = F.interpolate(seen, (_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True)[0].cpu()
    size = (frame.shape[1], frame.shape[2])
    same = state.frame_size == size and state.thumbnail is not None
    if not same or (state.thumbnail is not None and is_cut(state.thumbnail, small)):
        state = replace(state, tracks=())
    return replace(state, thumbnail=small, frame_size=size)


def _pairs(
    tracks: tuple[Track, ...], faces: Faces, here: list[int], embeddings: Tensor | None
) -> dict[int, int]:
    """Which of the faces ``here`` continue which track (by number): the best pairs first."""
    fits = []
    for old in tracks:
        for i in here:
            face = faces.faces[i]
            if face.score < CONTINUES:
                continue
            overlap = _overlap(old.box, np.array(face.box))
            angle = 0.0
            if embeddings is not None and old.embedding is not None:
                angle = float(angles(old.embedding, embeddings[i]))
                overlap += 1 - angle / ALIKE if angle < ALIKE else 0.0
            if overlap > OVERLAP and angle < APART:
                fits.append((overlap, old.number, i))
    found: dict[int, int] = {}
    for _, number, i in sorted(fits, key=lambda fit: (-fit[0], fit[1:])):
        if i not in found and number not in found.values():
            found[i] = number
    return found


def _begin(number: int, face: Face) -> Track:
    points = _points(face)
    return Track(number, points, np.zeros_like(points), np.array(face.box))


def _go_on(old: Track, face: Face) -> Track:
    """A track with one more detection: equations 1 to 4 of the paper, with one speed for a face."""
    points, box = _points(face), np.array(face.box)
    size = math.sqrt(max(face.width * face.height, 1.0))
    step = points - old.points
    if _length(step[:5]) > JUMP * size:
        return replace(_begin(old.number, face), embedding=old.embedding)
    speed = old.speed + _weight(DERIVATIVE_CUTOFF) * (step - old.speed)
    cutoff = STILL_CUTOFF + SPEED_CUTOFF * _length(speed[:5]) / size
    # At first the mean of what was seen: a filter that began at one frame would keep its error.
    weight = max(_weight(cutoff), 1 / (old.seen + 1))
    return replace(
        old, points=old.points + weight * step, speed=speed, box=box, seen=old.seen + 1, missing=0
    )


def _points(face: Face) -> NDArray[np.float64]:
    return np.concatenate([face.landmarks, np.reshape(face.box, (2, 2))]).astype(np.float64)


def _weight(cutoff: float) -> float:
    """The weight of a new value for a cutoff in cycles a frame (equation 3)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff))


def _length(vectors: NDArray[np.float64]) -> float:
    """The root mean square length of vectors (N, 2)."""
    return math.sqrt(float((vectors**2).sum(axis=1).mean()))


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    both = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - common
    return common / both if both > 0 else 0.0
