"""Decode picture files: upright pixels, at the depth and in the colors of the file."""

from __future__ import annotations

import io
import logging
import os
import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from . import jpeg, png, tiff
from .metadata import Metadata, read_metadata, read_tiff_metadata
from .picture import ImageError, Picture

logger = logging.getLogger(__name__)

# Opened through their classes, not Image.open: that refuses a legitimate photograph of 180
# megapixels, and its limit is a global of the whole process, for the program to set. (Pillow
# still looks at it for 8-bit TIFF and WebP.)
_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_LOSSLESS = ("PNG", "BMP", "GIF")
_LONGEST_JPEG_PADDING = 64  # bytes behind a picture that are not worth a word


def reader_of(kind: str, path: str | os.PathLike[str]) -> type[ImageFile]:
    """Pillow's class for a format.

    Raises:
        ImageError: the library that decodes the format is not installed; says which.
    """
    if kind == "AVIF":
        if "avif" not in features.get_supported_modules():
            raise ImageError(f"{path} is an AVIF picture, which needs Pillow 11.3 or newer")
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile
    if kind == "HEIF":
        try:
            from pi_heif import HeifImageFile
        except ImportError:
            raise ImageError(
                f"{path} is a HEIC picture: pip install gfp-face-restoration[heif] to read it, "
                "or convert it to JPEG or PNG first"
            ) from None
        heif: type[ImageFile] = HeifImageFile
        return heif
    return _READERS[kind]


def decode(data: bytes, kind: str, path: str | os.PathLike[str]) -> Picture:
    """Decode a file.

    Args:
        data: the whole file.
        kind: its format, one of the values of `formats.READABLE_SUFFIXES`.
        path: its name, for messages.

    Returns:
        The picture with the numbers of the file, which may be views and read-only.

    Raises:
        ImageError: the file is of a kind that is not read.
        Exception: nearly anything on damaged files.
    """
    if kind == "TIFF":
        return _decode_tiff(data, path)
    if kind == "PNG":
        return _decode_png(data, path)
    if kind == "JPEG":
        return _decode_jpeg(data, path)
    with reader_of(kind, path)(io.BytesIO(data)) as image:
        _warn_of_frames(image, path)
        if (depth := image.info.get("bit_depth", 8)) > 8:
            logger.warning("%s: %d bits are read as 8 bits", path, depth)
        metadata, orientation = read_metadata(image)
        samples, metadata = _samples_of(image, metadata)
    lossless = kind in _LOSSLESS or (kind == "WEBP" and _is_lossless_webp(data))
    return _picture(samples, orientation, kind, metadata, lossless=lossless)


def _decode_png(data: bytes, path: str | os.PathLike[str]) -> Picture:
    chunks = png.read_chunks(data)  # also finds out whether the file is whole
    depth, color_type = chunks[b"IHDR"][0][8:10]
    bare = png.without_chunks(data, png.DESCRIPTIVE) if {*png.DESCRIPTIVE} & {*chunks} else data
    with PngImageFile(io.BytesIO(bare)) as image:
        _warn_of_frames(image, path)
        metadata, orientation = read_metadata(image, chunks)
        if depth == 16:
            samples = png.add_color_key(tiff.decode_with_opencv(bare), chunks)
        else:
            samples, metadata = _samples_of(image, metadata)
    picture = _picture(samples, orientation, "PNG", metadata, depth=16 if depth == 16 else 8)
    return replace(picture, gray=color_type in (0, 4)) if depth == 16 else picture


def _decode_jpeg(data: bytes, path: str | os.PathLike[str]) -> Picture:
    structure = jpeg.read_structure(data)
    if not structure.ended:
        whole = jpeg.complete(data, structure, _jpeg_pixels)
        if whole is not None:
            logger.warning("%s lacks its last bytes; every pixel is there", path)
            data = whole
    elif len(rest := data[structure.end :].strip(b"\0")) > _LONGEST_JPEG_PADDING:
        logger.warning(
            "%s: only its first picture is read, not the %d bytes behind it%s",
            path,
            len(rest),
            " (another view, a gain map or a video)" if _holds_more(rest) else "",
        )
    with JpegImageFile(io.BytesIO(data)) as image:
        metadata, orientation = read_metadata(image, structure=structure)
        coding = jpeg.coding_of(image, swapped=orientation > 4)
        samples, metadata = _samples_of(image, metadata)
    picture = _picture(samples, orientation, "JPEG", metadata, lossless=False)
    return replace(picture, jpeg=coding)


def _jpeg_pixels(data: bytes) -> NDArray[np.uint8]:
    with JpegImageFile(io.BytesIO(data)) as image:
        return np.asarray(image)


def _holds_more(rest: bytes) -> bool:
    return b"\xff\xd8\xff" in rest or b"ftyp" in rest[:64] or b"ftypmp4" in rest


def _warn_of_frames(image: ImageFile, path: str | os.PathLike[str]) -> None:
    if getattr(image, "n_frames", 1) > 1:
        logger.warning("%s holds several pictures: only its first frame is read", path)


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
    if what := tiff.raw_kind(data, tags):
        raise ImageError(
            f"{path} is {what}; develop it with a raw converter and save it as 16-bit TIFF"
        )
    if tags.next:
        logger.warning("%s has several pages: only the first is read", path)
    metadata = read_tiff_metadata(data, tags, swapped=orientation > 4)
    try:
        samples, metadata, depth = _tiff_samples(data, tags, metadata, path)
    except tiff.UnusualTiffError as error:
        raise ImageError(f"{path} is {error}") from error
    samples = _without_other_channels(samples, tags, path)
    return _picture(samples, orientation, "TIFF", metadata, depth=depth)


def _without_other_channels(
    samples: NDArray[Any], tags: ImageFileDirectory_v2, path: str | os.PathLike[str]
) -> NDArray[Any]:
    """Leave out a channel behind the color that is not alpha, such as infrared."""
    color = 3 if samples.ndim == 3 and samples.shape[2] > 2 else 1
    if (
        tags.get(262) in (0, 1, 2, tiff.LAB)
        and tags.get(277, 1) > color
        and not {1, 2} & {*tags.get(338, ())}
    ):
        logger.warning("%s: what is not color or alpha is left out (channel %d)", path, color + 1)
        return samples[..., :color] if samples.ndim == 3 else samples
    return samples


def _tiff_samples(
    data: bytes, tags: ImageFileDirectory_v2, metadata: Metadata, path: str | os.PathLike[str]
) -> tuple[NDArray[Any], Metadata, int]:
    """The samples as `_samples_of` gives them, at 8, 16 or (float) 32 bits."""
    depth = max(tags.get(258, (1,)))
    if depth > 8 and tags.get(262) != 5:
        if not tiff.is_plain_deep(tags):
            return _unusual_tiff_samples(data, tags, metadata, path)
        samples = tiff.decode_deep(data, tags)
        return samples, metadata, 16 if samples.dtype == np.uint16 else 32
    if tags.get(277, 1) > 4 and tags.get(284, 1) == 2:
        return _unusual_tiff_samples(data, tags, metadata, path)
    try:
        image = TiffImageFile(io.BytesIO(data))
    except (SyntaxError, KeyError):  # a kind that Pillow has no mode for
        return _unusual_tiff_samples(data, tags, metadata, path)
    with image:
        if depth > 8:
            logger.warning("%s: CMYK of %d bits is read as 8 bits", path, depth)
        samples, metadata = _samples_of(image, metadata)
    return samples, metadata, 8


def _unusual_tiff_samples(
    data: bytes, tags: ImageFileDirectory_v2, metadata: Metadata, path: str | os.PathLike[str]
) -> tuple[NDArray[Any], Metadata, int]:
    samples = tiff.decode_with_tifffile(data, tags, path)
    if tags.get(262) == tiff.LAB:
        if max(tags[258]) > 8:
            logger.warning("%s: Lab of %d bits is read as 8 bits", path, max(tags[258]))
        lab = Image.frombytes("LAB", samples.shape[1::-1], samples[..., :3].tobytes())
        samples, metadata = _samples_of(lab, metadata)
    return samples, metadata, {"u1": 8, "u2": 16}.get(samples.dtype.str[1:], 32)


def _samples_of(image: Image.Image, metadata: Metadata) -> tuple[NDArray[np.uint8], Metadata]:
    """The pixels of an 8-bit picture: (H, W) gray, or (H, W, C) gray+alpha, RGB or RGBA."""
    image.load()
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_srgb(image, metadata)), replace(metadata, icc_profile=b"")
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        return np.asarray(converted), replace(metadata, icc_profile=b"")
    alpha = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if image.mode in ("1", "L", "LA", "La") or _is_gray_palette(image):
        mode = "LA" if alpha else "L"
    elif image.mode in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        mode = "RGBA" if alpha else "RGB"
    else:
        raise ValueError(f"pixels of the kind {image.mode}")
    return np.asarray(image if image.mode == mode else image.convert(mode)), metadata


def _is_gray_palette(image: Image.Image) -> bool:
    palette = image.getpalette("RGB") if image.mode == "P" else None
    if not palette:
        return False
    return palette[::3] == palette[1::3] == palette[2::3]


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


def _picture(
    samples: NDArray[Any],
    orientation: int,
    kind: str,
    metadata: Metadata,
    *,
    depth: int = 8,
    lossless: bool = True,
) -> Picture:
    gray = samples.ndim == 2 or samples.shape[2] <= 2
    return Picture(_upright(samples, orientation), depth, gray, lossless, kind, metadata)


def _upright(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Samples as upright RGB(A)."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:  # gray, gray and alpha
        samples = np.take(samples, [0, 0, 0, 1][: 2 + samples.shape[2]], axis=2)
    return _turn(samples, orientation)


def _turn(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored rows upright (EXIF 2.3, table 6: where row 0 and column 0 are)."""
    if orientation > 4:  # rows are the picture's columns
        samples = samples.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples
