"""Files, arrays and tensors: a picture read from a file, and written without losing anything.

PNG, JPEG, WebP, TIFF and BMP are read and written, GIF, AVIF and HEIC are read; all are recognized
by their content. The pixels are turned upright as EXIF says, stay in the color space of their
profile, and go back to a file at the depth they came from: 8 and 16 bits come back bit by bit.
Nothing here needs torch but the two functions that speak of tensors.
"""

from __future__ import annotations

import io
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import atomic, png, xmp
from .formats import READABLE_SUFFIXES, SUFFIXES
from .memory import (
    Header,
    available_bytes,
    check_memory,
    header_of,
    open_regular,
    read_header,
    unreadable,
)
from .metadata import RECORD_KEYWORD, XMP_KEYWORD
from .picture import DiskFullError, ImageError, NotEnoughMemoryError, Picture
from .reading import decode, reader_of
from .writing import encode

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "READABLE_SUFFIXES",
    "SUFFIXES",
    "DiskFullError",
    "Header",
    "ImageError",
    "NotEnoughMemoryError",
    "Picture",
    "available_bytes",
    "check_memory",
    "copy_image",
    "decode_image",
    "encode_image",
    "from_frames",
    "read_header",
    "read_image",
    "read_record",
    "to_frames",
    "write_image",
]

logger = logging.getLogger(__name__)

MAX_PIXELS = 1_000_000_000
"""Larger pictures are refused before they are decoded."""


def read_image(path: str | os.PathLike[str], *, levels: bool = False) -> Picture:
    """Read a picture from a PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIC file.

    Of an animated or many-paged file the first picture is read, with a warning in the log.
    CMYK is converted to sRGB through the embedded profile, where there is one. AVIF needs
    Pillow 11.3, HEIC the extra ``heif``, and unusual kinds of TIFF (channels in planes, half
    floats, deep gray with alpha, more than four channels) the extra ``tiff``.

    Args:
        path: the file.
        levels: leave whole numbers of 8 or 16 bits as they are in the file, in place of floats: a
            quarter or half of the memory.

    Raises:
        NotEnoughMemoryError: decoding would take more memory than is free.
        ImageError: the file is missing, unreadable, empty, cut short, no picture, of a kind that
            is not read, or larger than `MAX_PIXELS`.
    """
    header = read_header(path)
    _check_size(header, path)
    check_memory(path, header.read_bytes)
    return _decode(_read_bytes(path), header.format, path, levels=levels)


def decode_image(data: bytes, name: str, *, upscale: float | None = None) -> Picture:
    """Read a picture from the bytes of a file, as `read_image` does from the file.

    Args:
        data: the whole file.
        name: what messages call it.
        upscale: where the picture will be restored, the size of the result relative to it; the
            memory for that must be free, too. None to read it only.

    Raises:
        NotEnoughMemoryError: there is not enough free memory.
        ImageError: as `read_image`.
    """
    header = header_of(io.BytesIO(data), len(data), name)
    _check_size(header, name)
    if upscale is None:
        check_memory(name, header.read_bytes)
    else:
        check_memory(name, header.restore_bytes(upscale), "restored")
    return _decode(data, header.format, name)


def encode_image(
    picture: Picture, kind: str, name: str, *, quality: int | None = None, record: str | None = None
) -> bytes:
    """Return the bytes that `write_image` writes.

    Args:
        picture: what to encode.
        kind: the format, one of the values of `SUFFIXES`.
        name: what messages call it.
        quality: see `write_image`.
        record: see `write_image`.

    Raises:
        ImageError: the picture does not fit the format or holds NaN.
    """
    if record is not None:
        picture = replace(picture, metadata=replace(picture.metadata, record=record))
    try:
        return encode(picture, kind, quality)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be written as {kind}: {error}") from error


def _decode(
    data: bytes, kind: str, path: str | os.PathLike[str], *, levels: bool = False
) -> Picture:
    try:
        picture = decode(data, kind, path)
        if levels and picture.has_levels:
            return replace(picture, pixels=np.require(picture.pixels, requirements=("C", "W")))
        return picture.with_floats()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the decoders raise nearly everything on damaged files
        raise ImageError(
            f"{path} is damaged, cut short or of an unusual kind ({error}); "
            "get it again, or save it anew as an 8- or 16-bit RGB picture"
        ) from error


def write_image(
    path: str | os.PathLike[str],
    picture: Picture,
    *,
    quality: int | None = None,
    record: str | None = None,
) -> None:
    """Write a picture in the format that the ending of ``path`` says, with its metadata.

    The file appears whole or not at all: it is written under a temporary name in the same
    folder and moved, and after an error an existing file is still there as it was. PNG holds 8
    or 16 bits, TIFF also float numbers, the others 8 bits; JPEG and BMP hold no alpha (both
    losses are said in the log). Values beyond [0, 1] are clipped where whole numbers are stored.

    Args:
        path: the file; an existing one is replaced.
        picture: what to write.
        quality: of JPEG and lossy WebP, 1 to 100, with the chroma of JPEG at full size (4:4:4).
            None: a picture that came from a JPEG file of quality 80 or better, and has its size,
            is written with that file's quantization tables and subsampling, so that pixels
            nothing has touched change as little as possible; anything else with quality 95.
        record: what was done to the picture (options, model, version; a text, TOML by custom),
            for `read_record`. It goes into a PNG's text and into the XMP of a JPEG, WebP or TIFF
            file, in place of an older record. None keeps the record that came with the picture
            (`Metadata.record`), an empty text removes it. BMP has no place for it.

    Raises:
        DiskFullError: the disk is full.
        ImageError: the ending is unknown, the picture does not fit the format or holds NaN, or
            the file cannot be written.
    """
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise ImageError(f"{path} ends in none of {', '.join(SUFFIXES)}; choose one of them")
    _write_bytes(path, encode_image(picture, kind, str(path), quality=quality, record=record))


def read_record(path: str | os.PathLike[str]) -> str | None:
    """Read what was done to a picture, as `write_image` was told; None where a file says nothing.

    No pixels are decoded.

    Raises:
        ImageError: the file is missing, unreadable or no picture.
    """
    header = read_header(path)
    try:
        if header.format == "PNG":
            return _read_png_record(_read_bytes(path))
        with open_regular(path) as file, reader_of(header.format, path)(file) as image:
            packet = image.info.get("xmp") or b""
    except ImageError:
        raise
    except Exception as error:  # the decoders raise nearly everything on damaged files
        raise ImageError(f"{path} cannot be read ({error}); name a picture file") from error
    return xmp.remove_record(xmp.to_utf8(packet))[1]


def copy_image(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file byte by byte; the copy appears whole or not at all.

    Raises:
        ImageError: the source cannot be read or the target not be written.
    """
    _write_bytes(target, _read_bytes(source))


def to_frames(picture: Picture) -> Tensor:
    """Copy a picture into a batch of one: (1, C, H, W) float32, RGB or RGBA in [0, 1].

    A picture of whole numbers is not copied: it becomes uint8 or uint16 frames, see
    `tensors.LEVELS`, which share its memory.
    """
    import torch

    if picture.has_levels:
        return torch.from_numpy(picture.pixels).permute(2, 0, 1)[None]
    return torch.from_numpy(picture.pixels.transpose(2, 0, 1)[None].copy())


def from_frames(frames: Tensor, like: Picture | None = None) -> Picture:
    """Make a picture of a batch of one; the picture may share the frame's memory.

    Args:
        frames: (1, 3 or 4, H, W) floating point RGB(A), or of whole numbers.
        like: gives depth, format and metadata; without, 8 bits and no metadata.

    Raises:
        ValueError: the batch does not hold exactly one frame of 3 or 4 channels.
    """
    if frames.ndim != 4 or frames.shape[0] != 1 or frames.shape[1] not in (3, 4):
        raise ValueError(f"one frame (1, 3 or 4, H, W) is needed, not {tuple(frames.shape)}")
    frame = frames[0].permute(1, 2, 0).detach()
    pixels = (frame.float() if frame.is_floating_point() else frame).cpu().numpy()
    return Picture(pixels) if like is None else replace(like, pixels=pixels)


def _read_png_record(data: bytes) -> str | None:
    texts = dict(png.read_text(png.read_chunks(data)))
    if RECORD_KEYWORD in texts:
        return texts[RECORD_KEYWORD]
    return xmp.remove_record(texts.get(XMP_KEYWORD, "").encode())[1]


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise unreadable(path, error) from error


def _write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        if atomic.is_disk_full(error):
            raise DiskFullError(
                f"{path} cannot be written: the disk is full; free some space and run it again"
            ) from error
        raise ImageError(
            f"{path} cannot be written ({error.strerror}); choose another place for the output"
        ) from error


def _check_size(header: Header, path: str | os.PathLike[str]) -> None:
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(
            f"{path} says it is {header.width}x{header.height}, more than "
            f"{MAX_PIXELS / 1e6:.0f} megapixels; cut it into parts"
        )
