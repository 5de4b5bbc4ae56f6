"""Choosing: in which order the faces of a frame are counted, and which of them go on.

`choose` goes by order and number. The others leave out faces by where they are (`inside`), who
they are (`like`) and how sharp they are (`blurred`). A choice that fits no face leaves none, and
says so.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from torch import Tensor

from .faces import Face, Faces

if TYPE_CHECKING:
    from .embed import FaceEmbedder

logger = logging.getLogger(__name__)

Order: TypeAlias = Literal[
    "score", "largest", "smallest", "left to right", "top to bottom", "centre"
]
"""What counts first within a frame; centre: the face nearest to the middle of the frame."""
Which: TypeAlias = str | Sequence[int]
"""Which faces go on: see `parse_which`."""
LIKE = 22.0
"""Degrees between the embeddings of two pictures up to which they show one person.

Of a neutral and a smiling photograph of 81 people, all pairs of one person are nearer, and 0.2 % of
the others; with the second photograph degraded as for training, 98.8 % and 0.2 %.
"""


def choose(faces: Faces, *, order: Order = "score", which: Which = "all") -> Faces:
    """Put the faces of each frame into order and keep those that are wanted.

    A choice that fits no face leaves none: the frame then comes out as it went in.

    Args:
        faces: faces of a batch of frames.
        order: what counts first within each frame. Sizes are those of the boxes in the frame.
        which: "all", "none", "first 3", or places in this order, from 0: "0, 2" or [0, 2]. It
            holds for each frame by itself. Places that a frame does not have are left out.

    Returns:
        The chosen faces, by frame and in order within it, with their crops.

    Raises:
        ValueError: an unknown order, or ``which`` cannot be understood.
    """
    ordered = sort(faces, order)
    ranks = rank(ordered)
    wanted = parse_which(which)
    if ranks and not isinstance(wanted, range):
        missing = sorted(set(wanted) - set(ranks))
        if missing:
            logger.warning(
                "No frame has a face number %s: the most faces in one are %d (numbers begin at 0).",
                ", ".join(map(str, missing)),
                max(ranks) + 1,
            )
    return ordered.select([i for i, place in enumerate(ranks) if place in wanted])


def largest(faces: Faces) -> Faces:
    """The largest face of each frame, by its box; none of a frame without a face."""
    return choose(faces, order="largest", which="first")


def inside(faces: Faces, region: Tensor) -> Faces:
    """The faces in a region: those whose middle, or at least half of whose box, lies in it.

    Args:
        faces: faces of B frames.
        region: (B or 1, H, W), above 0.5 inside; of the frames' size. One holds for all frames.

    Returns:
        These faces, in their order, with their crops.

    Raises:
        ValueError: the region has another shape.
    """
    sizes = faces.frame_sizes
    if region.ndim != 3 or len(region) not in (1, len(sizes)):
        raise ValueError(
            f"region must be ({len(sizes)} or 1, height, width), not {tuple(region.shape)}"
        )
    if any(size != tuple(region.shape[1:]) for size in sizes):
        raise ValueError(
            f"region is of {tuple(region.shape[1:])} (height, width), the frames of {sizes[0]}: "
            "bring it to the frames' size"
        )
    kept = []
    for index, face in enumerate(faces.faces):
        wanted = region[face.frame if len(region) > 1 else 0] > 0.5
        if _middle_is_in(face, wanted) or _share_in(face, wanted) >= 0.5:
            kept.append(index)
    if len(faces) and not kept:
        logger.warning("None of the faces found (%d) lies in the region: all stay.", len(faces))
    return faces.select(kept)


def like(faces: Faces, references: Tensor, embedder: FaceEmbedder, *, limit: float = LIKE) -> Faces:
    """The faces of certain people: in each frame, the one most like each reference.

    Args:
        faces: aligned faces.
        references: (R, D) embeddings, as `FaceEmbedder.describe` makes them of pictures.
        embedder: the one that made them.
        limit: angle between embeddings, in degrees, above which two faces are two people.

    Returns:
        These faces, in their order, with their crops; none of a frame that shows nobody alike.

    Raises:
        ValueError: the faces are not aligned, or there is no reference.
    """
    from .embed import angles

    if references.ndim != 2 or not len(references):
        raise ValueError(f"references must be (1 or more, D), not {tuple(references.shape)}")
    if not len(faces):
        return faces
    if faces.crops is None:
        raise ValueError("only aligned faces can be compared with a reference: align them first")
    apart = angles(embedder.embed(faces.crops)[:, None], references.cpu()[None])  # (N, R)
    nearest: dict[tuple[int, int], int] = {}
    for index, face in enumerate(faces.faces):
        for number in range(len(references)):
            best = nearest.setdefault((face.frame, number), index)
            if apart[index, number] < apart[best, number]:
                nearest[face.frame, number] = index
    kept = {index for (_, number), index in nearest.items() if apart[index, number] <= limit}
    if not kept:
        logger.warning(
            "None of the faces found (%d) is like the reference: the nearest differs by %.0f "
            "degrees, the limit is %g. All stay as they are.",
            len(faces),
            apart.min(),
            limit,
        )
    return faces.select(sorted(kept))


def blurred(faces: Faces, sharpness: Tensor, most: float) -> Faces:
    """The faces that are not sharp already.

    Args:
        faces: any faces.
        sharpness: (N,) of each.
        most: faces sharper than this are left out.
    """
    kept = (sharpness <= most).nonzero().squeeze(1).tolist()
    if len(kept) < len(faces):
        logger.info(
            "%d of %d faces are sharp already: they stay.", len(faces) - len(kept), len(faces)
        )
    return faces.select(kept)


def sort(faces: Faces, order: Order) -> Faces:
    """The faces by frame, and within each in ``order``; equals keep their order.

    Raises:
        ValueError: an unknown order.
    """
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")

    def key(index: int) -> tuple[float, float]:
        face = faces.faces[index]
        return face.frame, _first_is_least(face, order, faces.frame_sizes[face.frame])

    return faces.select(sorted(range(len(faces)), key=key))


def rank(faces: Faces) -> list[int]:
    """The place of each face among those of its frame, from 0."""
    seen: dict[int, int] = {}
    places = []
    for face in faces.faces:
        places.append(seen.get(face.frame, 0))
        seen[face.frame] = places[-1] + 1
    return places


def parse_which(which: Which) -> range | frozenset[int]:
    """What `choose` takes as ``which``, as the places that are wanted.

    Raises:
        ValueError: it is none of the forms; says which there are.
    """
    if not isinstance(which, str):
        if any(not isinstance(place, int) or place < 0 for place in which):
            raise ValueError(f"places of faces are whole numbers from 0, not {list(which)}")
        return frozenset(which)
    text = which.strip().casefold()
    if text == "all":
        return range(sys.maxsize)
    if text == "none":
        return frozenset()
    if first := re.fullmatch(r"first(?:\s+(\d+))?", text):
        return range(int(first[1] or 1))
    if re.fullmatch(r"\d+(\s*[,;\s]\s*\d+)*", text):
        return frozenset(int(number) for number in re.findall(r"\d+", text))
    raise ValueError(
        f"cannot tell which faces are meant by {which!r}: write all, none, first 2, or the numbers "
        "of the faces, 0, 2"
    )


def _first_is_least(face: Face, order: Order, frame_size: tuple[int, int]) -> float:
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


def _middle_is_in(face: Face, wanted: Tensor) -> bool:
    """Whether the middle of a face's box lies in an (H, W) bool region."""
    x, y = round((face.box[0] + face.box[2]) / 2), round((face.box[1] + face.box[3]) / 2)
    height, width = wanted.shape
    return 0 <= x < width and 0 <= y < height and bool(wanted[y, x])


def _share_in(face: Face, wanted: Tensor) -> float:
    """The share of the visible part of a face's box that lies in an (H, W) bool region."""
    x1, y1 = (max(0, round(edge)) for edge in face.box[:2])
    x2, y2 = (max(0, round(edge) + 1) for edge in face.box[2:])
    box = wanted[y1:y2, x1:x2]
    return float(box.float().mean()) if box.numel() else 0.0
