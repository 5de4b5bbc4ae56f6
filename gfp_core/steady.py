"""Restored faces of successive frames, steadied: what a network makes of noise does not flicker.

A restorer looks at each frame by itself, and hands on a good part of the noise in it (measured with
the bundled network: nine tenths), or makes details of it that are others in the next frame. Here
each restored crop is mixed with the one before of the same track, brought into place along the
optical flow of the crops it was made of (Kroeger et al., "Fast Optical Flow using Dense Inverse
Search", ECCV 2016), wherever these crops agree up to their noise. Where they do not, behind a
blink, a hand or a turned head, the new crop stays as it is: nothing is dragged along.

The crops before are mixed by the same weights and compared with the new ones in that state: what
changes slowly departs from the state in the end, and is taken over.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .faces import Faces

_NAME = "steady"  # of the state in a track's values: (4, S, S), the crop's luma and the result
_FLOW_SIDE = 128  # of the pictures that the flow is found in: noise goes, faces stay
_PIXELS = 3.0  # of the frame, over whose mean crops are compared
_LEAST_NOISE, _MOST_NOISE = 0.75 / 255, 3.0 / 255
_AGREE, _DIFFER = 2.0, 5.0  # deviations of the noise: up to the first all counts, none from here on

Plane = NDArray[np.float32]


def steady_crops(faces: Faces, smoothing: float) -> Faces:
    """Mix restored crops with those of the frames before, where what they were made of agrees.

    Args:
        faces: restored faces with tracks, by frame.
        smoothing: share of the past where nothing changes, from 0, which changes nothing.

    Returns:
        The faces with other ``restored`` crops, and with tracks that hold what the next frames go
        on from. A face without a track, and the first of a track, keeps its crop.
    """
    if faces.tracks is None or faces.restored is None or faces.crops is None or not smoothing:
        return faces
    tracks = faces.tracks
    everyone = (*tracks.tracks, *tracks.ended)
    past = {track.number: track.past[_NAME] for track in everyone if _NAME in track.past}
    restored = faces.restored.clone()
    order = sorted(range(len(faces)), key=lambda index: faces.faces[index].frame)
    for index in order:
        face = faces.faces[index]
        if face.track is None:
            continue
        new = _state(faces.crops[index], restored[index])
        old = past.get(face.track)
        if old is not None and old.shape == new.shape:
            scale = 1.0 if face.matrix is None else float(np.hypot(*face.matrix[0, :2]))
            mixed = _mixed(old.cpu().numpy(), new.cpu().numpy(), scale, smoothing)
            new = torch.from_numpy(mixed)
            restored[index] = new[1:].to(restored)
        past[face.track] = new
    live, ended = (
        tuple(
            replace(track, values={**track.values, _NAME: past[track.number]})
            if track.number in past
            else track
            for track in group
        )
        for group in (tracks.tracks, tracks.ended)
    )
    return replace(faces, restored=restored, tracks=replace(tracks, tracks=live, ended=ended))


def _state(crop: Tensor, restored: Tensor) -> Tensor:
    luma = crop.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return torch.cat(
        [(crop.nan_to_num(nan=0.0).clamp(0, 1) * luma).sum(0, keepdim=True), restored.to(crop)]
    )


def _mixed(old: Plane, new: Plane, scale: float, smoothing: float) -> Plane:
    """Return (4, S, S): the new state, mixed with the old one where their lumas agree.

    Args:
        old: (4, S, S) luma of the crop, and the restored crop, of the frame before.
        new: the same of this frame.
        scale: pixels of the crop for one of the frame.
        smoothing: share of the old one where they agree.
    """
    moved = _along_flow(old, new)
    side = new.shape[1]
    window = max(3, round(max(side / 64, _PIXELS * scale)) | 1)
    difference = np.abs(cv2.blur(new[0] - moved[0], (window, window)))
    middle = slice(side // 4, side - side // 4)
    noise = 1.4826 * float(np.median(difference[middle, middle]))
    noise = min(max(noise, _LEAST_NOISE), _MOST_NOISE)
    departure = (difference / noise - _AGREE) / (_DIFFER - _AGREE)
    # Where something differs, what is next to it does too: its edges are in both.
    departure = cv2.dilate(departure, np.ones((window, window), np.uint8))
    departure = cv2.blur(departure.clip(0, 1), (window, window))
    weight = np.float32(smoothing) * (1 - departure)
    return np.asarray(new + weight * (moved - new), np.float32)


def _along_flow(old: Plane, new: Plane) -> Plane:
    """Return the old state brought to where its luma is in the new one."""
    side = new.shape[1]
    small = [
        (cv2.resize(each[0], (_FLOW_SIDE, _FLOW_SIDE), interpolation=cv2.INTER_AREA) * 255)
        .clip(0, 255)
        .astype(np.uint8)
        for each in (new, old)
    ]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = finder.calc(small[0], small[1], np.zeros((_FLOW_SIDE, _FLOW_SIDE, 2), np.float32))
    flow = cv2.resize(flow, (side, side), interpolation=cv2.INTER_LINEAR) * (side / _FLOW_SIDE)
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    moved = cv2.remap(
        np.ascontiguousarray(old.transpose(1, 2, 0)),
        (across + flow[:, :, 0]).astype(np.float32),
        (down + flow[:, :, 1]).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(moved.transpose(2, 0, 1))
