"""Drawing: faces over a picture, to see what the detector found, and sheets of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .faces import Face


def draw_faces(image: NDArray[np.float32], faces: Sequence[Face]) -> NDArray[np.float32]:
    """Draw boxes, landmarks and numbers over a picture.

    Args:
        image: (H, W, 3 or 4) float32 RGB or RGBA in [0, 1].
        faces: the faces of this picture; the number is the index in this sequence, from 0.

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
    line = max(1, round(max(image.shape[:2]) / 900))
    x1, y1, x2, y2 = (_pixel(value) for value in face.box)
    cv2.rectangle(image, (x1, y1), (x2, y2), (0, 255, 0), line, cv2.LINE_AA)
    radius = max(1, round(max(x2 - x1, y2 - y1) / 60))
    for index, (x, y) in enumerate(face.landmarks):
        # Left points are red and right ones blue: a swapped or wrongly turned face shows.
        color = ((255, 40, 40), (40, 120, 255), (255, 255, 0))[(0, 1, 2, 0, 1)[index]]
        cv2.circle(image, (_pixel(x), _pixel(y)), radius, color, -1, cv2.LINE_AA)
    text = f"{label}: {face.score:.2f}"
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * max(1.0, line / 1.5)
    (width, height), below = cv2.getTextSize(text, font, scale, line)
    left = min(max(x1, 0), max(image.shape[1] - width, 0))
    bottom = max(y1, height + below)  # inside the picture where the box leaves it
    cv2.rectangle(image, (left, bottom - height - below), (left + width, bottom), (0, 90, 0), -1)
    corner = (left, bottom - below // 2)
    cv2.putText(image, text, corner, font, scale, (255, 255, 255), line, cv2.LINE_AA)


def sheet(columns: Mapping[str, Tensor], pictures: Sequence[int], size: int = 256) -> Tensor:
    """Draw a picture sheet: a row a person, a column a method, the methods' names on top.

    Args:
        columns: name to (N, 3, H, W) float RGB in [0, 1]; H and W may differ between methods.
        pictures: indices of the pictures to show, one a row.
        size: side of each picture on the sheet in pixels.

    Returns:
        (3, H', W') float RGB in [0, 1].

    Raises:
        ValueError: no column, or no picture.
        IndexError: a column has no picture of that index.
    """
    if not columns or not pictures:
        raise ValueError("a sheet needs at least one column and one picture")
    strips = []
    for name, images in columns.items():
        rows = images[list(pictures)].detach().float().cpu()
        rows = F.interpolate(rows, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        strips.append(torch.cat([_label(name, size), *rows], dim=1))
    return torch.cat(strips, dim=2)


def _label(text: str, width: int) -> Tensor:
    """A white strip (3, 24, width) with a line of black text."""
    picture = Image.new("RGB", (width, 24), "white")
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(picture).text((width / 2, 12), text, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _pixel(value: float) -> int:
    """Round a coordinate, kept within what OpenCV can draw; NaN becomes 0."""
    return round(float(np.clip(np.nan_to_num(value), -32000, 32000)))
