"""Select faces: by their numbers within a frame, by place, by person and by sharpness.

`select` counts the faces of a frame in an order and keeps some of them. The others leave out faces
by where they are (`inside`), who they are (`like`) and how sharp they are (`blurred`). A selection
that fits no face leaves none, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from .faces import Face, Faces
from .geometry import angles
from .options import Identity, Order, parse_selection
from .tensors import check_masks

logger = logging.getLogger(__name__)

LIKE = Identity().people_limit
"""Degrees between the embeddings of two pictures up to which they show one person.

Of a neutral and a smiling photograph of 81 people, all pairs of one person are nearer, and 0.2 % of
the others; with the second photograph degraded as for training, 98.8 % and 0.2 %.
"""


def select(faces: Faces, *, order: Order = "score", numbers: str | Sequence[int] = "all") -> Faces:
    """Put the faces of each frame into order and keep those with certain numbers.

    A selection that fits no face leaves none: the frame then comes out as it went in.

    Args:
        faces: faces of a batch of frames.
        order: what counts first within each frame. Sizes are those of the boxes in the frame.
        numbers: "all", "none", "first 3", or numbers in this order, from 0: "0, 2" or [0, 2]. They
            hold for each frame by itself. Numbers that a frame does not have are left out.

    Returns:
        The selected faces, by frame and in order within it, with their crops.

    Raises:
        ValueError: an unknown order, or ``numbers`` cannot be understood.
    """
    ordered = sort(faces, order)
    ranks = rank(ordered)
    selected = parse_selection(numbers)
    if ranks and not isinstance(selected, range):
        missing = sorted(set(selected) - set(ranks))
        if missing:
            logger.warning(
                "No frame has a face number %s: the most faces in one are %d (numbers begin at 0).",
                ", ".join(map(str, missing)),
                max(ranks) + 1,
            )
    return ordered.select([index for index, number in enumerate(ranks) if number in selected])


def inside(faces: Faces, region: Tensor) -> Faces:
    """Keep the faces whose middle, or at least half of whose box, lies in a region.

    Args:
        faces: faces of B frames.
        region: (B or 1, H, W), above 0.5 inside; of the frames' size. One holds for all frames.

    Returns:
        These faces, in their order, with their crops.

    Raises:
        ValueError: the region has another shape.
    """
    sizes = faces.frame_sizes
    check_masks(region, len(sizes), "region")
    if any(size != tuple(region.shape[1:]) for size in sizes):
        raise ValueError(
            f"region is of {tuple(region.shape[1:])} (height, width), the frames of {sizes[0]}: "
            "bring it to the frames' size"
        )
    indices = []
    for index, face in enumerate(faces.faces):
        allowed = region[face.frame if len(region) > 1 else 0] > 0.5
        if _middle_is_in(face, allowed) or _share_in(face, allowed) >= 0.5:
            indices.append(index)
    if len(faces) and not indices:
        logger.warning("None of the faces found (%d) lies in the region: all stay.", len(faces))
    return faces.select(indices)


def like(faces: Faces, references: Tensor, *, limit: float = LIKE) -> Faces:
    """Keep the faces of certain people: in each frame, the one most like each reference.

    Args:
        faces: faces with embeddings.
        references: (R, D) embeddings, as `FaceEmbedder.describe` makes them of pictures.
        limit: angle between embeddings, in degrees, above which two faces are two people.

    Returns:
        These faces, in their order, with their crops; none of a frame that shows nobody alike.

    Raises:
        ValueError: the faces have no embeddings, or there is no reference.
    """
    if references.ndim != 2 or not len(references):
        raise ValueError(f"references must be (1 or more, D), not {tuple(references.shape)}")
    if not len(faces):
        return faces
    if faces.embeddings is None:
        raise ValueError("only faces with embeddings can be compared with a reference: embed them")
    distances = angles(faces.embeddings[:, None], references.cpu()[None])  # (N, R)
    nearest: dict[tuple[int, int], int] = {}
    for index, face in enumerate(faces.faces):
        for person in range(len(references)):
            best = nearest.setdefault((face.frame, person), index)
            if distances[index, person] < distances[best, person]:
                nearest[face.frame, person] = index
    indices = {index for (_, person), index in nearest.items() if distances[index, person] <= limit}
    if not indices:
        logger.warning(
            "None of the faces found (%d) is like the reference: the nearest differs by %.0f "
            "degrees, the limit is %g. All stay as they are.",
            len(faces),
            distances.min(),
            limit,
        )
    return faces.select(sorted(indices))


def blurred(faces: Faces, max_sharpness: float) -> Faces:
    """Keep the faces that are not sharp already.

    Args:
        faces: faces whose sharpness was measured.
        max_sharpness: faces sharper than this are left out.

    Raises:
        ValueError: the sharpness was not measured.
    """
    if not len(faces):
        return faces
    if faces.sharpness is None:
        raise ValueError("the sharpness of the faces was not measured: call face_sharpness")
    indices = (faces.sharpness <= max_sharpness).nonzero().squeeze(1).tolist()
    if len(indices) < len(faces):
        logger.info(
            "%d of %d faces are sharp already: they stay.", len(faces) - len(indices), len(faces)
        )
    return faces.select(indices)


def sort(faces: Faces, order: Order) -> Faces:
    """Sort the faces by frame, and within each in ``order``; equals keep their order.

    Raises:
        ValueError: an unknown order.
    """
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")

    def key(index: int) -> tuple[float, float]:
        face = faces.faces[index]
        return face.frame, _sort_key(face, order, faces.frame_sizes[face.frame])

    return faces.select(sorted(range(len(faces)), key=key))


def rank(faces: Faces) -> list[int]:
    """Number the faces within their frames, from 0, in their order."""
    counts: dict[int, int] = {}
    numbers = []
    for face in faces.faces:
        numbers.append(counts.get(face.frame, 0))
        counts[face.frame] = numbers[-1] + 1
    return numbers


def _sort_key(face: Face, order: Order, frame_size: tuple[int, int]) -> float:
    """A number that is smaller the earlier the face comes."""
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    height, width = frame_size
    return {
        "score": -face.score,
        "largest": -face.width * face.height,
        "smallest": face.width * face.height,
        "left to right": x,
        "top to bottom": y,
        "centre": (x - width / 2) ** 2 + (y - height / 2) ** 2,
    }[order]


def _middle_is_in(face: Face, allowed: Tensor) -> bool:
    """Whether the middle of a face's box lies in an (H, W) bool region."""
    x, y = round((face.box[0] + face.box[2]) / 2), round((face.box[1] + face.box[3]) / 2)
    height, width = allowed.shape
    return 0 <= x < width and 0 <= y < height and bool(allowed[y, x])


def _share_in(face: Face, allowed: Tensor) -> float:
    """The share of the visible part of a face's box that lies in an (H, W) bool region."""
    x1, y1 = (max(0, round(edge)) for edge in face.box[:2])
    x2, y2 = (max(0, round(edge) + 1) for edge in face.box[2:])
    box = allowed[y1:y2, x1:x2]
    return float(box.float().mean()) if box.numel() else 0.0
