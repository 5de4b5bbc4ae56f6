"""Drawing of faces over a picture, to see what the detector found."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .faces import Face


def draw_faces(image: NDArray[np.float32], faces: Sequence[Face]) -> NDArray[np.float32]:
    """Draw boxes, landmarks and numbers over a picture.

    Args:
        image: (H, W, 3 or 4) float32 RGB or RGBA in [0, 1].
        faces: the faces of this picture; the number is the place in this sequence, from 0.

    Returns:
        A new picture of the same shape; pixels that nothing is drawn on are as they were.
    """
    # OpenCV smooths lines on 8-bit pictures only: draw on a copy, and take over what changed.
    plain = (np.nan_to_num(image[..., :3]).clip(0, 1) * 255).astype(np.uint8)
    drawn = plain.copy()
    for number, face in enumerate(faces):
        _draw_face(drawn, face, str(number))
    result = image.copy()
    changed = (drawn != plain).any(axis=2)
    result[changed, :3] = drawn[changed] / np.float32(255)
    result[changed, 3:] = 1
    return result


def _draw_face(image: NDArray[np.uint8], face: Face, label: str) -> None:
    """Draw one face in place, in sizes that suit the face and the picture."""
    line = max(1, round(max(image.shape[:2]) / 500))
    x1, y1, x2, y2 = (round(value) for value in face.box)
    cv2.rectangle(image, (x1, y1), (x2, y2), (0, 255, 0), line, cv2.LINE_AA)
    radius = max(1, round(max(face.width, face.height) / 60))
    for index, (x, y) in enumerate(face.landmarks):
        # Left points are red and right ones blue: a swapped or wrongly turned face shows.
        colour = ((255, 40, 40), (40, 120, 255), (255, 255, 0))[(0, 1, 2, 0, 1)[index]]
        cv2.circle(image, (round(float(x)), round(float(y))), radius, colour, -1, cv2.LINE_AA)
    text = f"{label}: {face.score:.2f}"
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * max(1.0, line / 1.5)
    (width, height), below = cv2.getTextSize(text, font, scale, line)
    left = min(max(x1, 0), max(image.shape[1] - width, 0))
    bottom = max(y1, height + below)  # inside the picture where the box leaves it
    cv2.rectangle(image, (left, bottom - height - below), (left + width, bottom), (0, 90, 0), -1)
    place = (left, bottom - below // 2)
    cv2.putText(image, text, place, font, scale, (255, 255, 255), line, cv2.LINE_AA)
