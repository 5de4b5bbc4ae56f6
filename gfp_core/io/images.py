"""Files, arrays and tensors: a picture read from a file, and written without losing anything.

PNG, JPEG, WebP, TIFF and BMP, recognised by their content. The pixels are turned upright as
EXIF says, stay in the colour space of their profile, and go back to a file at the depth they
came from: 8 and 16 bits come back bit by bit. Nothing here needs torch but the two functions
that speak of tensors.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from . import atomic, png, tiff, xmp
from .metadata import (
    RECORD_KEYWORD,
    Metadata,
    packet_with_record,
    read_metadata,
    read_tiff_metadata,
    save_options,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MAX_PIXELS = 1_000_000_000
"""Larger pictures are refused before they are decoded: they would not fit in memory."""

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""File name endings, in lower case, and the formats that they stand for."""

# Opened through their classes, not Image.open: that refuses a legitimate photograph of 180
# megapixels, and its limit is a global of the whole process, for the program to set. (Pillow
# still looks at it for 8-bit TIFF and WebP.)
_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
_ROWS = 256  # converted at a time
_MAX_SIDE = {"JPEG": 65_535, "WEBP": 16_383}


class ImageError(ValueError):
    """A picture cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory, and what is needed to write it back as it was."""

    pixels: NDArray[np.float32]
    """(H, W, 3) RGB or (H, W, 4) RGBA float32 in [0, 1], upright, alpha straight (never
    premultiplied). Float files may hold other values, NaN and infinity among them."""
    bit_depth: int = 8
    """8 or 16 bits of whole numbers, or 32 for float numbers."""
    grey: bool = False
    """The source had no colour; it is written without, as long as its channels stay equal."""
    lossless: bool = True
    """The source kept its pixels exactly; a WebP file is then written without loss, too."""
    format: str = "PNG"
    """The source's format, one of the values of `SUFFIXES`."""
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.pixels.shape[1]


def read_image(path: str | os.PathLike[str]) -> Picture:
    """Read a picture from a PNG, JPEG, WebP, TIFF or BMP file.

    Of an animated or many-paged file the first picture is read, with a warning in the log.
    CMYK is converted to sRGB through the embedded profile, where there is one.

    Raises:
        ImageError: the file is missing, unreadable, empty, cut short, no picture, or larger than
            `MAX_PIXELS`.
    """
    data = _read_bytes(path)
    kind = _sniff(data)
    if kind is None:
        raise ImageError(f"{path} is no PNG, JPEG, WebP, TIFF or BMP picture; convert it first")
    try:
        return _decode(data, kind, path)
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
    quality: int = 95,
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
        quality: of JPEG and lossy WebP, 1 to 100. JPEG keeps the chroma at full size (4:4:4).
        record: what was done to the picture (options, model, version; a text, TOML by custom),
            for `read_record`. It goes into a PNG's text and into the XMP of a JPEG, WebP or TIFF
            file, in place of an older record. None keeps the record that came with the picture
            (`Metadata.record`), an empty text removes it. BMP has no place for it.

    Raises:
        ImageError: the ending is unknown, the picture does not fit the format or holds NaN, or
            the file cannot be written.
    """
    kind = SUFFIXES.get(Path(path).suffix.lower())
    if kind is None:
        raise ImageError(f"{path} ends in none of {', '.join(SUFFIXES)}; choose one of them")
    if record is not None:
        picture = replace(picture, metadata=replace(picture.metadata, record=record))
    try:
        data = _encode(picture, kind, quality)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be written as {kind}: {error}") from error
    _write_bytes(path, data)


def read_record(path: str | os.PathLike[str]) -> str | None:
    """Read what was done to a picture, as `write_image` was told; None where a file says nothing.

    Only the file's head is read, no pixels.

    Raises:
        ImageError: the file is missing, unreadable or no picture.
    """
    try:
        with open(path, "rb") as file:
            kind = _sniff(file.read(16))
            file.seek(0)
            if kind is None:
                raise ImageError(f"{path} is no PNG, JPEG, WebP or TIFF picture; name a result")
            with _READERS[kind](file) as image:
                if kind == "PNG" and RECORD_KEYWORD in image.info:
                    return str(image.info[RECORD_KEYWORD])
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
    """The picture as a batch of one: (1, C, H, W) float32, RGB or RGBA, its own memory."""
    import torch

    return torch.from_numpy(picture.pixels.transpose(2, 0, 1)[None].copy())


def from_frames(frames: Tensor, like: Picture | None = None) -> Picture:
    """A batch of one, (1, C, H, W) float, as a picture; it may share the frame's memory.

    Its depth, format and metadata are those of ``like``; without, 8 bits and none.

    Raises:
        ValueError: the batch does not hold exactly one frame of 3 or 4 channels.
    """
    if frames.ndim != 4 or frames.shape[0] != 1 or frames.shape[1] not in (3, 4):
        raise ValueError(f"one frame (1, 3 or 4, H, W) is wanted, not {tuple(frames.shape)}")
    pixels = frames[0].permute(1, 2, 0).detach().float().cpu().numpy()
    return Picture(pixels) if like is None else replace(like, pixels=pixels)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(f"{path} is a folder or a device, not a picture; name a file")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist; check the name") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes); get the picture again")
    return data


def _write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be written ({error.strerror}); choose another place for the output"
        ) from error


def _sniff(data: bytes) -> str | None:
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    return "BMP" if data.startswith(b"BM") else None


def _decode(data: bytes, kind: str, path: str | os.PathLike[str]) -> Picture:
    if kind == "TIFF":
        return _decode_tiff(data, path)
    depth, extra = 8, {}
    if kind == "PNG":
        extra = png.read_chunks(data)  # also finds out whether the file is whole
        depth = 16 if extra[b"IHDR"][0][8] == 16 else 8
    with _READERS[kind](io.BytesIO(data)) as image:
        _check_size(image.size, path)
        if getattr(image, "n_frames", 1) > 1:
            logger.warning("%s is animated: only its first frame is read", path)
        metadata, orientation = read_metadata(image, extra)
        if depth == 16:
            samples = png.add_colour_key(tiff.decode_with_opencv(data), extra)
            grey = extra[b"IHDR"][0][9] in (0, 4)
        else:
            samples, metadata = _samples_of(image, metadata)
            grey = samples.ndim == 2 or samples.shape[2] == 2
    lossless = kind in ("PNG", "BMP") or (kind == "WEBP" and _is_lossless_webp(data))
    return Picture(_floats(samples, orientation), depth, grey, lossless, kind, metadata)


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the first picture of a WebP file (RFC 9649) is stored without loss."""
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8L")
        # A frame of an animation holds chunks of its own behind 16 bytes.
        at += 24 if name == b"ANMF" else 8 + length + length % 2
    return False


def _decode_tiff(data: bytes, path: str | os.PathLike[str]) -> Picture:
    # Some versions of the decoders turn the picture and some do not: they find it upright.
    data, orientation = tiff.turn_upright(data)
    tags = tiff.first_directory(data)
    _check_size((tags[256], tags[257]), path)
    if tags.next:
        logger.warning("%s has several pages: only the first is read", path)
    metadata = read_tiff_metadata(data, tags, swapped=orientation > 4)
    depth = max(tags.get(258, (1,)))
    if depth > 8 and tags.get(262) != 5:
        samples = tiff.decode_deep(data, tags)
        depth = 16 if depth == 16 else 32
    else:
        with TiffImageFile(io.BytesIO(data)) as image:
            if depth > 8:
                logger.warning("%s: CMYK of %d bits is read as 8 bits", path, depth)
            samples, metadata = _samples_of(image, metadata)
            depth = 8
    grey = samples.ndim == 2 or samples.shape[2] == 2
    return Picture(_floats(samples, orientation), depth, grey, True, "TIFF", metadata)


def _check_size(size: tuple[int, int], path: str | os.PathLike[str]) -> None:
    if min(size) < 1:
        raise ImageError(f"{path} says it has no pixels ({size[0]}x{size[1]}); get it again")
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path} says it is {size[0]}x{size[1]}, more than {MAX_PIXELS / 1e6:.0f} "
            "megapixels; cut it into parts"
        )


def _samples_of(image: Image.Image, metadata: Metadata) -> tuple[NDArray[np.uint8], Metadata]:
    """The pixels of an 8-bit picture: (H, W) grey, or (H, W, C) grey+alpha, RGB or RGBA."""
    image.load()
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_srgb(image, metadata)), replace(metadata, icc_profile=b"")
    alpha = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if image.mode in ("1", "L", "LA", "La"):
        wanted = "LA" if alpha else "L"
    elif image.mode in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        wanted = "RGBA" if alpha else "RGB"
    else:
        raise ValueError(f"pixels of the kind {image.mode}")
    return np.asarray(image if image.mode == wanted else image.convert(wanted)), metadata


def _cmyk_to_srgb(image: Image.Image, metadata: Metadata) -> Image.Image:
    if metadata.icc_profile:
        try:
            profile = ImageCms.getOpenProfile(io.BytesIO(metadata.icc_profile))
            converted = ImageCms.profileToProfile(
                image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("the CMYK profile cannot be used (%s): converted without", error)
        else:
            if converted is not None:
                return converted
    return image.convert("RGB")


def _floats(samples: NDArray[Any], orientation: int) -> NDArray[np.float32]:
    """Samples as upright RGB(A) float32: whole numbers are divided by their largest value."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:  # grey, grey and alpha
        samples = np.take(samples, [0, 0, 0, 1][: 2 + samples.shape[2]], axis=2)
    samples = _turn(samples, orientation)
    if samples.dtype.kind == "f":
        return np.ascontiguousarray(samples, dtype=np.float32)
    scale = np.float32(np.iinfo(samples.dtype).max)
    return np.divide(samples, scale, dtype=np.float32, order="C")


def _turn(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored rows upright (EXIF 2.3, table 6: where row 0 and column 0 are)."""
    if orientation > 4:  # rows are the picture's columns
        samples = samples.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _encode(picture: Picture, kind: str, quality: int) -> bytes:
    height, width = picture.height, picture.width
    if height < 1 or width < 1:
        raise ValueError("it has no pixels")
    if max(height, width) > _MAX_SIDE.get(kind, 1 << 31):
        raise ValueError(f"{width}x{height} is more than its {_MAX_SIDE[kind]} pixels a side")
    samples = _levels(picture, kind)
    grey = picture.grey and _is_grey(samples)
    if kind == "TIFF" and samples.dtype != np.uint8 and samples.shape[2] == 4:
        grey = False  # few programs, and not this one, read deep grey with alpha
    if grey:
        samples = samples[..., [0, 3][: samples.shape[2] - 2]]
    metadata = picture.metadata.fitting(grey=grey)
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
        options |= {"quality": quality, "subsampling": 0}
    elif kind == "WEBP":
        options |= {"quality": quality, "lossless": picture.lossless, "exact": True}
    if samples.dtype == np.uint16:
        tiny = _save(np.zeros((1, 1, 3), np.uint8), kind, options)
        return png.encode_png16(samples, png.read_chunks(tiny))
    return _save(samples, kind, options)


def _levels(picture: Picture, kind: str) -> NDArray[Any]:
    """The pixels as the numbers that the format stores, without alpha where it has none."""
    pixels = picture.pixels
    if kind in ("JPEG", "BMP") and pixels.shape[2] == 4:
        if (pixels[..., 3] < 1).any():
            logger.warning("%s has no alpha: it is left out", kind)
        pixels = pixels[..., :3]
    if picture.bit_depth == 32 and kind == "TIFF":
        return pixels
    if np.isnan(pixels.min()):
        raise ValueError("it holds NaN pixels, which TIFF alone can store (--format tiff)")
    depth = np.uint16 if picture.bit_depth > 8 and kind in ("PNG", "TIFF") else np.uint8
    scale = np.float32(np.iinfo(depth).max)
    samples = np.empty(pixels.shape, depth)
    for first in range(0, len(pixels), _ROWS):  # without a second copy of a large picture in floats
        rows = slice(first, first + _ROWS)
        scaled = np.clip(pixels[rows], 0, 1)
        scaled *= scale
        samples[rows] = np.rint(scaled, out=scaled)
    return samples


def _is_grey(samples: NDArray[Any]) -> bool:
    return bool((samples[..., :1] == samples[..., 1:3]).all())


def _save(samples: NDArray[np.uint8], kind: str, options: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(stream, kind, **options)
    return stream.getvalue()
