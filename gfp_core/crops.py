"""Crops from elsewhere: aligned pictures taken as faces, exchanged, or brought to another size."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from .faces import Face, Faces
from .geometry import TEMPLATE, fit_similarity
from .tensors import check_crops, clamp01

logger = logging.getLogger(__name__)

CropKind: TypeAlias = Literal["restored", "input"]
"""What a crop from elsewhere stands for: the restored face, or what a restorer is given."""


def faces_from_crops(crops: Tensor) -> Faces:
    """Take aligned pictures as faces, each the only one of a frame of its own.

    Args:
        crops: (N, 3, S, S) float RGB in [0, 1], aligned as `align.align` does. Values outside
            [0, 1] and NaN are clamped; the pictures are not changed.

    Returns:
        The faces, with these crops, at the places the mean face has in them.

    Raises:
        ValueError: the pictures are not square or have no three channels.
    """
    check_crops(crops)
    size = crops.shape[-1]
    landmarks = (TEMPLATE * size / 512).astype(np.float32)
    matrix = fit_similarity(landmarks, size)
    box = (0.0, 0.0, float(size), float(size))
    faces = tuple(Face(i, box, 1.0, landmarks, matrix) for i in range(len(crops)))
    return Faces(faces, ((size, size),) * len(crops), crops=_clamped(crops))


def exchange_crops(faces: Faces, crops: Tensor, kind: CropKind = "restored") -> Faces:
    """Put other pictures in the place of the crops; matrices follow if their size differs.

    Args:
        faces: aligned faces.
        crops: (N, 3, S, S) float RGB in [0, 1], of any size, one a face and in their order. Values
            outside [0, 1] and NaN are clamped; the pictures are not changed.
        kind: "restored" makes them the restored crops, to be pasted back; "input" those that a
            restorer is given, without restored ones.

    Raises:
        ValueError: there are not as many crops as faces, or they are no square RGB pictures.
    """
    check_crops(crops)
    if kind not in get_args(CropKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(CropKind))}, not {kind!r}")
    if len(crops) != len(faces):
        raise ValueError(f"{len(crops)} crops for {len(faces)} faces: there must be one a face")
    faces = resize_crops(faces, crops.shape[-1])
    if kind == "input":
        return replace(faces, crops=_clamped(crops), restored=None)
    return replace(faces, restored=_clamped(crops))


def _clamped(crops: Tensor) -> Tensor:
    """Clamp pictures of others, one NaN of which the steps that follow would spread over a face."""
    if not crops.isfinite().all():
        logger.warning("the crops hold NaN or infinite pixels: these become values in 0..1")
    return clamp01(crops.float())


def resize_crops(faces: Faces, size: int) -> Faces:
    """Bring the crops, and the restored crops, to another size, filtered where they shrink.

    With the frames at hand, `align.align` sees more.

    Args:
        faces: faces with matrices and crops (N, 3, S, S).
        size: the new side in pixels.

    Returns:
        The faces with crops, before and after as far as there are, of (N, 3, size, size), and
        matrices that fit them.

    Raises:
        ValueError: the faces were not aligned.
    """
    present = faces.crops if faces.crops is not None else faces.restored
    matrices = [face.matrix for face in faces.faces if face.matrix is not None]
    if present is None or len(matrices) < len(faces):
        raise ValueError("the faces have no crops: align them first")
    scale = size / present.shape[-1]
    # Corners coincide, not the centres of corner pixels.
    shift = np.array([[0.0, 0.0, (scale - 1) / 2]] * 2)

    def resized(crops: Tensor | None) -> Tensor | None:
        if crops is None or crops.shape[-1] == size:
            return crops
        if not len(crops):  # which interpolation refuses
            return crops.new_zeros(0, 3, size, size)
        larger = F.interpolate(crops.float(), (size, size), mode="bicubic", antialias=True)
        return larger.clamp_(0.0, 1.0).to(crops.dtype)

    return replace(
        faces,
        faces=tuple(
            replace(face, matrix=scale * matrix + shift)
            for face, matrix in zip(faces.faces, matrices, strict=True)
        ),
        crops=resized(faces.crops),
        restored=resized(faces.restored),
    )


def resize_masks(masks: Tensor, faces: Faces) -> Tensor:
    """Resize masks of crops (N, S, S) in [0, 1] to the size of the faces' crops if need be."""
    present = faces.restored if faces.restored is not None else faces.crops
    if present is None or not len(masks) or masks.shape[1:] == present.shape[2:]:
        return masks
    size = (present.shape[2], present.shape[3])
    return F.interpolate(masks[:, None].float(), size, mode="bilinear", antialias=True)[:, 0]
