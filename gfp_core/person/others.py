"""Faces of nobody, on which a person's restorer is to stay what its base is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("others.jpg")
"""Generated portraits of people who do not exist (CC0 1.0), aligned: tiles, row by row."""
TILE = 128
"""Side of a tile in pixels."""


def other_faces(size: int) -> list[NDArray[np.uint8]]:
    """Return the faces, (size, size, 3) uint8 RGB each: small pictures enlarged.

    They serve as inputs to a restorer, which are poor anyhow; its base says what becomes of them.

    Raises:
        OSError: the file is missing or damaged, which installing the package again mends.
    """
    data = np.frombuffer(FILE.read_bytes(), np.uint8)
    sheet = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if sheet is None:
        raise OSError(f"{FILE} is damaged: install this package again")
    rows, columns = sheet.shape[0] // TILE, sheet.shape[1] // TILE
    tiles = [
        sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE, ::-1]
        for row in range(rows)
        for column in range(columns)
    ]
    return [
        np.ascontiguousarray(cv2.resize(tile, (size, size), interpolation=cv2.INTER_CUBIC))
        for tile in tiles
    ]
