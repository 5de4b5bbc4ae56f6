"""Encode pictures: each format at the depth it holds, with the metadata it has a place for."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import jpeg, png, tiff
from .metadata import packet_with_record, save_options
from .picture import Picture, unit

logger = logging.getLogger(__name__)

DEFAULT_QUALITY = 95

_ROWS = 256  # converted at a time
_MAX_SIDE = {"JPEG": 65_535, "WEBP": 16_383}


def encode(picture: Picture, kind: str, quality: int | None) -> bytes:
    """Encode a picture as a file of a format.

    Args:
        picture: what to write.
        kind: one of the values of `formats.SUFFIXES`.
        quality: see `images.write_image`.

    Raises:
        ValueError: the picture does not fit the format, or holds NaN.
    """
    height, width = picture.height, picture.width
    if height < 1 or width < 1:
        raise ValueError("it has no pixels")
    check_side(width, height, kind)
    samples = _levels(picture, kind)
    gray = picture.gray and _is_gray(samples)
    if kind == "TIFF" and samples.dtype != np.uint8 and samples.shape[2] == 4:
        gray = False  # few programs, and not this one, read deep gray with alpha
    if gray:
        samples = samples[..., [0, 3][: samples.shape[2] - 2]]
    metadata = picture.metadata.fitting(gray=gray, size=(width, height))
    if kind == "TIFF":
        return tiff.encode_tiff(
            samples,
            exif=metadata.exif,
            icc_profile=metadata.icc_profile,
            xmp=packet_with_record(metadata),
            photoshop=metadata.photoshop,
            dpi=metadata.dpi,
        )
    options = save_options(metadata, kind)
    if kind == "JPEG":
        options |= _jpeg_options(picture, samples.shape[2], quality)
    elif kind == "WEBP":
        options["quality"] = DEFAULT_QUALITY if quality is None else quality
        options |= {"lossless": picture.lossless, "exact": True}
    if samples.dtype == np.uint16:
        tiny = _save(np.zeros((1, 1, 3), np.uint8), kind, options)
        return png.encode_png16(samples, png.read_chunks(tiny))
    return _save(samples, kind, options)


def check_side(width: int, height: int, kind: str) -> None:
    """Refuse a size that a format does not hold.

    Raises:
        ValueError: says which size, and how much the format holds.
    """
    if max(height, width) > _MAX_SIDE.get(kind, 1 << 31):
        raise ValueError(f"{width}x{height} is more than its {_MAX_SIDE[kind]} pixels a side")


def _jpeg_options(picture: Picture, channels: int, quality: int | None) -> dict[str, Any]:
    """Quantization and subsampling: those of the source, where they do the faces no harm."""
    coding = picture.jpeg
    if (
        quality is None
        and coding is not None
        and coding.size == (picture.width, picture.height)
        and len(coding.tables) == min(channels, 2)
        and jpeg.is_fine(coding)
    ):
        tables = [list(table) for table in coding.tables]
        return {"qtables": tables, "subsampling": coding.subsampling}
    return {"quality": DEFAULT_QUALITY if quality is None else quality, "subsampling": 0}


def _levels(picture: Picture, kind: str) -> NDArray[Any]:
    """The pixels as the numbers that the format stores, without alpha where it has none."""
    pixels = picture.pixels
    if kind in ("JPEG", "BMP") and pixels.shape[2] == 4:
        if (pixels[..., 3] < unit(pixels)).any():
            logger.warning("%s has no alpha: it is left out", kind)
        pixels = np.ascontiguousarray(pixels[..., :3])
    if picture.bit_depth == 32 and kind == "TIFF":
        return pixels
    depth = np.uint16 if picture.bit_depth > 8 and kind in ("PNG", "TIFF") else np.uint8
    if pixels.dtype == depth:
        return pixels
    if pixels.dtype.kind == "f" and np.isnan(pixels.min()):
        raise ValueError("it holds NaN pixels, which TIFF alone can store (--format tiff)")
    own = unit(pixels)
    scale = np.float32(np.iinfo(depth).max)
    samples = np.empty(pixels.shape, depth)
    for first in range(0, len(pixels), _ROWS):  # without a second copy of a large picture in floats
        rows = slice(first, first + _ROWS)
        scaled = np.clip(np.divide(pixels[rows], own, dtype=np.float32), 0, 1)
        scaled *= scale
        samples[rows] = np.rint(scaled, out=scaled)
    return samples


def _is_gray(samples: NDArray[Any]) -> bool:
    return bool((samples[..., :1] == samples[..., 1:3]).all())


def _save(samples: NDArray[np.uint8], kind: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(stream, kind, **options)
    return stream.getvalue()
