"""What the page's face picker needs: the faces of each frame, with numbers and places."""

from __future__ import annotations

from typing import Any

from ..gfp_core.faces import Faces
from ..gfp_core.options import parse_selection
from ..gfp_core.select import rank


def picker_frames(candidates: Faces, select: str, count: int) -> list[dict[str, Any]]:
    """Return the size and the faces of each of the first frames.

    Args:
        candidates: all faces, in the order in which they are numbered.
        select: the selection that was made, see `options.parse_selection`.
        count: of the frames.
    """
    numbers = parse_selection(select)
    entries: list[dict[str, Any]] = [
        {"frame": index, "height": height, "width": width, "faces": []}
        for index, (height, width) in enumerate(candidates.frame_sizes[:count])
    ]
    for face, number in zip(candidates.faces, rank(candidates), strict=True):
        if face.frame < count:
            entries[face.frame]["faces"].append(
                {
                    "number": number,
                    "box": [round(float(edge), 1) for edge in face.box],
                    "landmarks": [
                        [round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks
                    ],
                    "score": round(float(face.score), 4),
                    "chosen": number in numbers,
                }
            )
    return entries
