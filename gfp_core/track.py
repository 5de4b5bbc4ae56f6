"""Frames in order: the faces of a video followed from frame to frame, their landmarks steadied.

A detector looks at each frame by itself, and its landmarks tremble with the noise of the picture; a
restorer turns this into flicker. Here each face is followed (by overlap, and by embedding where
there is one) and its landmarks and box pass a One-Euro filter (Casiez, Roussel, Vogel, "1 Euro
Filter", CHI 2012): still faces are smoothed strongly, moving ones hardly.

What later steps measure of a face (its colors, how much restoring it needs) is smoothed over time
by the same tracks (`smooth_over_time`).

Only what went before counts, never what comes: the frames may come all at once or part by part,
with the `Tracks` of one part given to the next, and the result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .faces import Face, Faces, Track, Tracks
from .geometry import angles, box_iou

__all__ = ["Track", "Tracks", "is_cut", "number", "smooth_over_time", "track"]

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
"""Frames for which a face that is not detected is remembered."""
CONTINUES = 0.5
"""Confidence that a detection needs to continue a face seen before (Zhang et al., ByteTrack, 2022):
with less than a first detection needs, a face does not blink where the detector wavers."""

SMOOTHING = 0.8
"""Share of the past in what is smoothed over time (`smooth_over_time`), where nobody says."""

# A cut: the picture as a whole differs, place by place and in its brightnesses.
_CUT_MEAN = 0.1
_CUT_HISTOGRAM = 0.25
_THUMBNAIL = 64


def track(
    frames: Tensor,
    faces: Faces,
    tracks: Tracks | None = None,
    *,
    score: float = 0.0,
) -> Faces:
    """Follow the faces of successive frames, and steady their landmarks and boxes.

    A face that the detector misses in a frame stays missing there; where the detector only was
    less sure than ``score``, the face stays if it was there before. Behind a cut all begins anew.

    Args:
        frames: (B, C, H, W) float RGB or RGBA in [0, 1], in order.
        faces: the faces of these frames, not aligned; those below ``score`` included, if they are
            to bridge what the detector misses (from `CONTINUES` on they may). With embeddings,
            who they are counts as well.
        tracks: of the result for the frames before; None for the first.
        score: confidence from which on a detection begins a track.

    Returns:
        The faces that stay, by frame and in their order, with steady landmarks and boxes, their
        numbers (``Face.track``) and the state for the frames that follow (``Faces.tracks``).

    Raises:
        ValueError: the faces belong to other frames.
    """
    if frames.ndim != 4 or len(frames) != len(faces.frame_sizes):
        raise ValueError(
            f"frames must be ({len(faces.frame_sizes)}, C, H, W) like those of the faces, not "
            f"{tuple(frames.shape)}"
        )
    before = Tracks() if tracks is None else tracks
    before = replace(
        before, tracks=tuple(replace(track, past=track.values) for track in before.tracks), ended=()
    )
    state = before
    steady: dict[int, Face] = {}
    for frame, indices in enumerate(_by_frame(faces)):
        state = _after_a_cut(state, frames[frame])
        state, followed = _follow(state, faces, indices, score)
        for index, continued in followed.items():
            box = continued.points[5:].ravel().tolist()
            steady[index] = replace(
                faces.faces[index],
                box=(box[0], box[1], box[2], box[3]),
                landmarks=continued.points[:5].astype(np.float32),
                matrix=None,
                track=continued.number,
            )
    going_on = {track.number for track in state.tracks}
    ended = tuple(track for track in before.tracks if track.number not in going_on)
    indices = sorted(steady)
    return replace(
        replace(faces, crops=None, restored=None, sharpness=None).select(indices),
        faces=tuple(steady[index] for index in indices),
        tracks=replace(state, ended=ended, frames=before.frames + len(frames)),
    )


def number(faces: Faces) -> Faces:
    """Number the faces of a whole clip, without its frames, and change nothing else about them.

    For faces that were not followed when they were found. Cuts are not seen; a face goes on where
    the boxes of two frames overlap.
    """
    state = Tracks()
    numbered = list(faces.faces)
    for indices in _by_frame(faces):
        state, followed = _follow(state, faces, indices)
        for index, continued in followed.items():
            numbered[index] = replace(numbered[index], track=continued.number)
    return replace(faces, faces=tuple(numbered), tracks=state)


def smooth_over_time(
    faces: Faces, values: Mapping[str, Tensor], smoothing: float
) -> tuple[dict[str, Tensor], Faces]:
    """Smooth values of tracked faces exponentially: a share of the track's past, the rest new.

    Frames are gone through in order. A face without a track, and the first of a track, keeps its
    own value; so nothing is smoothed across a cut, behind which all tracks are new. The past goes
    on from the frames before (`Faces.tracks`), so that a clip may come all at once or in parts.

    Args:
        faces: faces with track numbers.
        values: (N, ...) each, one value a face, under names that tell them apart.
        smoothing: share of the past, from 0, which changes nothing, to 1, with which the first
            frame's value stays.

    Returns:
        The smoothed values, new; and the faces, whose ``tracks`` hold the values of the last frame.
    """
    tracks = Tracks() if faces.tracks is None else faces.tracks
    everyone = (*tracks.tracks, *tracks.ended)
    order = sorted(range(len(faces)), key=lambda index: faces.faces[index].frame)
    smoothed = {name: value.clone() for name, value in values.items()}
    last: dict[int, dict[str, Tensor]] = {track.number: {} for track in everyone}
    for name, value in smoothed.items():
        past = {track.number: track.past[name] for track in everyone if name in track.past}
        for index in order:
            track = faces.faces[index].track
            if track is None:
                continue
            if track in past:
                value[index] = past[track].to(value).lerp(value[index], 1 - smoothing)
            past[track] = value[index].clone()
        for track in last.keys() & past.keys():
            last[track][name] = past[track]
    live, ended = (
        tuple(replace(track, values={**track.values, **last[track.number]}) for track in group)
        for group in (tracks.tracks, tracks.ended)
    )
    return smoothed, replace(faces, tracks=replace(tracks, tracks=live, ended=ended))


def is_cut(first: Tensor, second: Tensor) -> bool:
    """Whether two frames, reduced by the same amount, are of different scenes.

    Args:
        first: (3, H, W) in [0, 1].
        second: the same shape.
    """
    if (first - second).abs().mean() < _CUT_MEAN:
        return False
    shares = [
        torch.histc(frame.mean(dim=0), 32, 0, 1) / frame[0].numel() for frame in (first, second)
    ]
    return float((shares[0] - shares[1]).abs().sum() / 2) > _CUT_HISTOGRAM


def _after_a_cut(state: Tracks, frame: Tensor) -> Tracks:
    """The state with the new frame's picture, and without faces if that is another scene."""
    rgb = frame[None, :3].float().nan_to_num(nan=0.0).clamp(0, 1)
    small = F.interpolate(rgb, (_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True)[0].cpu()
    size = (frame.shape[1], frame.shape[2])
    same = state.frame_size == size and state.thumbnail is not None
    if not same or (state.thumbnail is not None and is_cut(state.thumbnail, small)):
        state = replace(state, tracks=())
    return replace(state, thumbnail=small, frame_size=size)


def _by_frame(faces: Faces) -> list[list[int]]:
    """The indices of the faces of each frame."""
    indices: list[list[int]] = [[] for _ in faces.frame_sizes]
    for index, face in enumerate(faces.faces):
        indices[face.frame].append(index)
    return indices


def _follow(
    state: Tracks, faces: Faces, indices: list[int], score: float = 0.0
) -> tuple[Tracks, dict[int, Track]]:
    """The state after one more frame, and the track of each of its faces that has one."""
    numbers = _pairs(state.tracks, faces, indices)
    tracks = [
        replace(track, missing=track.missing + 1)
        for track in state.tracks
        if track.number not in numbers.values() and track.missing < PATIENCE
    ]
    by_number = {track.number: track for track in state.tracks}
    followed: dict[int, Track] = {}
    count = state.count
    for index in indices:
        face = faces.faces[index]
        if index in numbers:
            track = _go_on(by_number[numbers[index]], face)
        elif face.score >= score:
            track = _begin(count, face)
            count += 1
        else:
            continue
        if faces.embeddings is not None:
            track = replace(track, embedding=faces.embeddings[index])
        followed[index] = track
    return replace(state, tracks=(*tracks, *followed.values()), count=count), followed


def _pairs(tracks: tuple[Track, ...], faces: Faces, indices: list[int]) -> dict[int, int]:
    """The number of the track that each face continues, by its index: the best pairs first."""
    fits = []
    for track in tracks:
        for index in indices:
            face = faces.faces[index]
            if face.score < CONTINUES:
                continue
            overlap = float(
                box_iou(
                    torch.from_numpy(track.box)[None], torch.tensor([face.box], dtype=torch.float64)
                )
            )
            angle = 0.0
            if faces.embeddings is not None and track.embedding is not None:
                angle = float(angles(track.embedding, faces.embeddings[index]))
                overlap += 1 - angle / ALIKE if angle < ALIKE else 0.0
            if overlap > OVERLAP and angle < APART:
                fits.append((overlap, track.number, index))
    numbers: dict[int, int] = {}
    for _, number, index in sorted(fits, key=lambda fit: (-fit[0], fit[1:])):
        if index not in numbers and number not in numbers.values():
            numbers[index] = number
    return numbers


def _begin(number: int, face: Face) -> Track:
    points = _points(face)
    return Track(number, points, np.zeros_like(points), np.array(face.box))


def _go_on(track: Track, face: Face) -> Track:
    """A track with one more detection: equations 1 to 4 of the paper, with one speed for a face."""
    points, box = _points(face), np.array(face.box)
    size = math.sqrt(max(face.width * face.height, 1.0))
    step = points - track.points
    if _length(step[:5]) > JUMP * size:
        still = np.zeros_like(points)
        return replace(track, points=points, speed=still, box=box, age=1, missing=0)
    speed = track.speed + _weight(DERIVATIVE_CUTOFF) * (step - track.speed)
    cutoff = STILL_CUTOFF + SPEED_CUTOFF * _length(speed[:5]) / size
    # At first the mean of all detections: a filter that began at one frame would keep its error.
    weight = max(_weight(cutoff), 1 / (track.age + 1))
    return replace(
        track,
        points=track.points + weight * step,
        speed=speed,
        box=box,
        age=track.age + 1,
        missing=0,
    )


def _points(face: Face) -> NDArray[np.float64]:
    return np.concatenate([face.landmarks, np.reshape(face.box, (2, 2))]).astype(np.float64)


def _weight(cutoff: float) -> float:
    """The weight of a new value for a cutoff in cycles a frame (equation 3)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff))


def _length(vectors: NDArray[np.float64]) -> float:
    """The root mean square length of vectors (N, 2)."""
    return math.sqrt(float((vectors**2).sum(axis=1).mean()))
