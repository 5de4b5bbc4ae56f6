"""A picture in memory, and the errors of reading and writing one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jpeg import Coding
from .metadata import Metadata


class ImageError(ValueError):
    """A picture cannot be read or written; the message names the file and what to do."""


class NotEnoughMemoryError(ImageError):
    """A picture needs more memory than is free now; nothing of it has been decoded."""


class DiskFullError(ImageError):
    """There is no space left for any result: a run has to stop, not go on with the next picture."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory, and what is needed to write it back as it was."""

    pixels: NDArray[Any]
    """(H, W, 3) RGB or (H, W, 4) RGBA float32 in [0, 1], upright, alpha straight (never
    premultiplied). Float files may hold other values, NaN and infinity among them. Or, where they
    are asked for (`images.read_image`), the whole numbers of the file: uint8 or uint16."""
    bit_depth: int = 8
    """8 or 16 bits of whole numbers, or 32 for float numbers."""
    gray: bool = False
    """The source had no color; it is written without, as long as its channels stay equal."""
    lossless: bool = True
    """The source kept its pixels exactly; a WebP file is then written without loss, too."""
    format: str = "PNG"
    """The source's format, one of the values of `formats.READABLE_SUFFIXES`."""
    metadata: Metadata = field(default_factory=Metadata)
    jpeg: Coding | None = None
    """How the source was compressed, if it was a JPEG file."""

    @property
    def grey(self) -> bool:
        """Old name of `gray`, kept for one version."""
        return self.gray

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def has_levels(self) -> bool:
        """Whether the pixels are whole numbers, as in the file."""
        return self.pixels.dtype in (np.uint8, np.uint16)

    def with_floats(self) -> Picture:
        """Give the picture with float32 pixels; whole numbers are divided by their largest."""
        if self.pixels.dtype.kind == "f":
            return replace(self, pixels=np.ascontiguousarray(self.pixels, dtype=np.float32))
        floats = np.divide(self.pixels, unit(self.pixels), dtype=np.float32, order="C")
        return replace(self, pixels=floats)

    def derived(self, pixels: NDArray[np.float32]) -> Picture:
        """Make a picture out of parts of this one: a crop, a comparison, a drawing.

        It keeps the depth, the color profile, the resolution and the descriptive metadata. It
        does not keep the record of what was done to the whole. Tags of the size are set to the
        new size when it is written.

        Args:
            pixels: (H, W, 3 or 4) float32 in the colors of this picture.
        """
        metadata = replace(self.metadata, record="")
        return replace(self, pixels=pixels, metadata=metadata, jpeg=None)


def unit(pixels: NDArray[Any]) -> np.float32:
    """Give the number that stands for 1: the largest of whole numbers, 1 of floats."""
    return np.float32(1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)
