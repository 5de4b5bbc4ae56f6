"""Choosing: in which order the faces of a frame are counted, and which of them go on."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from .faces import Face, Faces

logger = logging.getLogger(__name__)

Order: TypeAlias = Literal[
    "score", "largest", "smallest", "left to right", "top to bottom", "centre"
]
"""What counts first within a frame; centre: the face nearest to the middle of the frame."""
Which: TypeAlias = str | Sequence[int]
"""Which faces go on: see `parse_which`."""


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
