"""Alignment: every face turned, scaled and cut out as the networks were trained to see it.

The crop is fixed by five landmarks and the FFHQ template: a similarity (rotation, one scale,
translation) takes the frame to the crop, see `geometry`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import geometry, tensors
from .faces import Faces
from .geometry import fit_similarity, invert, similarity_scale, transform, warp
from .options import Padding
from .tensors import check_frames, clamp01, to_float, to_numpy

logger = logging.getLogger(__name__)

# Pixels read around what the crop covers (of the crop, or the frame if coarser), for the kernel.
_MARGIN = 3


def align(
    frames: Tensor,
    faces: Faces,
    size: int = 512,
    *,
    padding: Padding = "replicate",
    border: Padding | None = None,
) -> Faces:
    """Cut every face out of its frame, upright and in the middle of a square crop.

    A face larger than the crop is filtered before it is sampled, so that it does not alias; only
    the part of the frame under the crop is read.

    Args:
        frames: (B, C, H, W) float RGB in [0, 1], C 3 or 4 (alpha, which the crops leave out).
            Values outside [0, 1] and NaN are clamped in the crops; the frames are not changed. They
            may be of whole numbers, see `tensors.LEVELS`.
        faces: faces of these frames.
        size: side of the crops in pixels; the network's input size.
        padding: what the crop shows beyond the frame's edge.
        border: deprecated name of ``padding``.

    Returns:
        ``faces`` with the matrix of each face and ``crops`` (N, 3, size, size) float32 in [0, 1]
        on the frames' device; without ``restored``.

    Raises:
        ValueError: frames of another shape, another number of frames, an unknown padding, or
            landmarks that are no face.
    """
    check_frames(frames, faces, levels=True)
    if border is not None:
        logger.warning("align(border=...) is deprecated: the name is padding")
        padding = border
    if padding not in get_args(Padding):
        raise ValueError(f"padding must be one of {', '.join(get_args(Padding))}, not {padding!r}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    size = int(size)
    crops = torch.empty((len(faces), 3, size, size))
    aligned = []
    for i, face in enumerate(faces.faces):
        try:
            matrix = fit_similarity(face.landmarks, size)
        except ValueError as error:
            raise ValueError(f"face {i} of frame {face.frame}: {error}") from error
        crop = _cut(frames[face.frame], matrix, size, padding)
        crops[i] = torch.from_numpy(crop.transpose(2, 0, 1))
        aligned.append(replace(face, matrix=matrix))
    return replace(faces, faces=tuple(aligned), crops=crops.to(frames.device), restored=None)


def drop_what_is_no_face(faces: Faces) -> Faces:
    """Leave out false detections that cannot be aligned, so that they do not stop the others."""
    indices = []
    for index, face in enumerate(faces.faces):
        try:
            fit_similarity(face.landmarks)
            indices.append(index)
        except ValueError as error:
            box = ", ".join(f"{edge:.0f}" for edge in face.box)
            logger.warning(
                "The face at (%s) of frame %d is left as it is: %s", box, face.frame, error
            )
    return faces if len(indices) == len(faces) else faces.select(indices)


def _cut(frame: Tensor, matrix: NDArray[np.float64], size: int, padding: Padding) -> NDArray[Any]:
    """Cut the crop (size, size, 3) out of one frame (C, H, W)."""
    height, width = frame.shape[-2:]
    back = invert(matrix)
    edge = size - 0.5
    corners = transform(back, [(-0.5, -0.5), (edge, -0.5), (-0.5, edge), (edge, edge)])
    margin = _MARGIN * max(1.0, similarity_scale(back))
    (left, top), (right, bottom) = corners.min(axis=0) - margin, corners.max(axis=0) + margin
    xs = _positions(left, right, width, padding)
    ys = _positions(top, bottom, height, padding)
    columns, rows = _mirrored(xs, width), _mirrored(ys, height)
    x0, y0 = columns.min(), rows.min()
    # Clamped before sampling and after: one pixel of 1000 would ring over its neighbours.
    box = to_numpy(clamp01(to_float(frame[:3, y0 : rows.max() + 1, x0 : columns.max() + 1])))
    if padding == "reflect":
        box = box[rows - y0][:, columns - x0]
    moved = np.column_stack([back[:, :2], back[:, 2] - (xs[0], ys[0])])
    outside = cv2.BORDER_CONSTANT if padding == "constant" else cv2.BORDER_REPLICATE
    result: NDArray[Any] = np.clip(warp(box, moved, (size, size), outside), 0.0, 1.0)
    return result


def _positions(low: float, high: float, length: int, padding: Padding) -> NDArray[np.int64]:
    """List the pixels of an axis that sampling from low to high needs, over the edge if mirrored.

    Mirrored once, here: OpenCV's own reflection takes minutes for a face far outside.
    """
    last = length - 1
    beyond = last if padding == "reflect" else 0
    low, high = np.clip((low, high), -beyond, last + beyond)
    return np.arange(math.floor(low), math.ceil(high) + 1)


def _mirrored(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Mirror positions up to one length outside of an axis to pixels inside."""
    last = length - 1
    result: NDArray[np.int64] = last - np.abs(last - np.abs(positions))
    return result


_MOVED = {
    **dict.fromkeys(("TEMPLATE", "face_ellipse", "scaling", "warp_into"), geometry),
    "visible": tensors,
}


def __getattr__(name: str) -> Any:
    """Find what moved to `geometry` and `tensors` under its old name, for one version."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _MOVED[name]
    logger.warning("gfp_core.align.%s is deprecated: take it from %s", name, home.__name__)
    return getattr(home, "clamp01" if name == "visible" else name)
