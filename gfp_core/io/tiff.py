"""What Pillow and OpenCV leave undone for TIFF: the tags, deep samples, and a writer.

Pillow reads RGB of more than 8 bits as 8 bits, and OpenCV reads and writes no metadata. The
layout is that of the TIFF 6.0 specification with Adobe's Deflate (Photoshop technical notes,
2002). An EXIF block is a TIFF file without pixels, so the tag functions serve it too.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
XMP, PHOTOSHOP, ICC = 700, 34377, 34675

# Tags of the first directory that describe the picture, not how its samples are stored:
# document name, description, maker, model, software, date, artist, computer, rating, rating in
# per cent, copyright, and Windows' title, comment, author, keywords and subject.
DESCRIPTIVE = frozenset(
    {269, 270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096)}
)
LAB = 8
"""The color model CIE L*a*b* (tag 262)."""

_STRIP_BYTES = 1 << 20
_ROWS = 64


class UnusualTiffError(ValueError):
    """A TIFF of a kind that is not read; the message begins with the kind."""


def turn_upright(data: bytes, *, single: bool = False) -> tuple[bytes, int]:
    """Read the orientation and set it to 1 in a copy, so that no reader turns the picture again.

    Args:
        data: a TIFF file or an EXIF block without its ``Exif`` prefix.
        single: also cut the link to further directories, that is to EXIF's thumbnail, which
            would go on showing the picture as it was.

    Returns:
        The changed copy, and the orientation in 1..8 (1 where there is none).

    Raises:
        struct.error, KeyError: the directory is damaged.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset_format, count_format, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + offset_format, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_format, data, start)
    start += struct.calcsize(count_format)
    changes, orientation = [], 1
    for entry in range(start, start + count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag == ORIENTATION and kind in (3, 4):
            value_format, at = order + ("H" if kind == 3 else "I"), entry + entry_bytes
            at -= struct.calcsize(offset_format)
            (orientation,) = struct.unpack_from(value_format, data, at)
            changes.append((value_format, at, 1))
    if single:
        changes.append((order + offset_format, start + count * entry_bytes, 0))
    if single or orientation != 1:  # else without a copy of a large file
        changed = bytearray(data)
        for value_format, at, value in changes:
            struct.pack_into(value_format, changed, at, value)
        data = bytes(changed)
    return data, orientation if 1 <= orientation <= 8 else 1


def set_size(block: bytes, width: int, height: int) -> bytes:
    """Set the tags of an EXIF block that say the picture's size, where there are any.

    Args:
        block: an EXIF block without its prefix.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        A changed copy, or the block itself where it is damaged.
    """
    sizes = {256: width, 257: height, 0xA002: width, 0xA003: height}
    changed = bytearray(block)
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        starts = [struct.unpack_from(order + "I", block, 4)[0]]
        for start in starts:
            (count,) = struct.unpack_from(order + "H", block, start)
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                tag, kind, values = struct.unpack_from(order + "HHI", block, entry)
                if tag == EXIF_IFD and len(starts) == 1:
                    starts.append(struct.unpack_from(order + "I", block, entry + 8)[0])
                elif tag in sizes and kind in (3, 4) and values == 1:
                    struct.pack_into(order + "HHII", changed, entry, tag, 4, 1, sizes[tag])
    except (KeyError, struct.error):
        return block
    return bytes(changed)


def first_directory(data: bytes) -> ImageFileDirectory_v2:
    """The tags of a TIFF's first page; ``.next`` is 0 where it is the only one.

    Raises:
        SyntaxError, struct.error, OSError: no TIFF, or a damaged one.
    """
    header = data[:16] if data[2:4] in (b"\x2b\x00", b"\x00\x2b") else data[:8]
    tags = ImageFileDirectory_v2(header)
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def exif_of(data: bytes) -> bytes:
    """The descriptive tags of a TIFF file as an EXIF block; empty where there is none."""
    if data[2:4] in (b"\x2b\x00", b"\x00\x2b"):  # Pillow's EXIF reader knows no BigTIFF
        return b""
    source, exif = Image.Exif(), Image.Exif()
    source.load(data)
    for tag in source:
        if tag in DESCRIPTIVE:
            exif[tag] = source[tag]
    for tag in (EXIF_IFD, GPS_IFD):
        if nested := _without_offsets(source.get_ifd(tag)):
            exif[tag] = nested
    return exif.tobytes()[6:] if len(exif) else b""


def raw_kind(data: bytes, tags: ImageFileDirectory_v2) -> str:
    """Name a camera's raw file, whose first page is only a small preview; empty for others."""
    if 50706 in tags:
        return "a DNG raw file"
    if data[8:10] == b"CR":
        return "a camera's raw file (CR2)"
    return "a camera's raw file" if tags.get(254, 0) & 1 and 330 in tags else ""


def is_plain_deep(tags: ImageFileDirectory_v2) -> bool:
    """Whether `decode_deep` reads a TIFF of more than 8 bits."""
    kind = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    samples = tags.get(277, 1)
    return (
        kind in (({16}, {1}), ({32}, {3}), ({64}, {3}))
        and (tags.get(262, 1), samples) in ((0, 1), (1, 1), (2, 3), (2, 4))
        and (samples == 1 or tags.get(284, 1) == 1)
    )


def decode_deep(data: bytes, tags: ImageFileDirectory_v2) -> NDArray[Any]:
    """Read the samples of a TIFF of 16-bit whole or 32- or 64-bit float numbers.

    Args:
        data: the file, its orientation set to 1.
        tags: its first directory, for which `is_plain_deep` is true.

    Returns:
        (H, W) or (H, W, C) uint16, float32 or float64, RGB or RGBA with straight alpha.

    Raises:
        ValueError: the samples cannot be decoded.
    """
    bits, samples = set(tags.get(258, (1,))), tags.get(277, 1)
    pixels = decode_with_opencv(data)
    if pixels.dtype.itemsize * 8 not in bits or (pixels.ndim == 3) != (samples > 1):
        raise ValueError("its samples were not read at their full depth")
    return _finish(pixels, tags)


def decode_with_tifffile(
    data: bytes, tags: ImageFileDirectory_v2, path: str | os.PathLike[str]
) -> NDArray[Any]:
    """Read the samples of a TIFF of a kind that Pillow and OpenCV do not read.

    Args:
        data: the file, its orientation set to 1.
        tags: its first directory.
        path: for messages.

    Returns:
        (H, W), or (H, W, C) with C 2 (gray and alpha), 3 or 4 (straight alpha), uint8, uint16 or
        float32. Lab is uint8, with signed a and b.

    Raises:
        UnusualTiffError: tifffile is not installed, or does not read this kind either.
    """
    kind = _describe(tags)
    try:
        import tifffile
    except ImportError:
        raise UnusualTiffError(
            f"{kind}: pip install gfp-face-restoration[tiff] to read it, or save it as RGB of 8 "
            "or 16 bits"
        ) from None
    # What it finds wrong with a file is said by our own error.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            pixels = page.asarray()
            if page.axes.startswith("S"):
                pixels = np.moveaxis(pixels, 0, -1)
    except MemoryError:
        raise
    except Exception as error:  # of a decoder: nearly everything
        raise UnusualTiffError(
            f"{kind}, which cannot be read ({error}); save it as RGB of 8 or 16 bits"
        ) from error
    color = 1 if tags.get(262, 1) in (0, 1) else 3
    if (
        tags.get(262, 1) not in (0, 1, 2, LAB)
        or pixels.ndim not in (2, 3)
        or (color == 3 and (pixels.ndim == 2 or pixels.shape[2] < 3))
    ):
        raise UnusualTiffError(f"{kind}, which is not read; save it as RGB of 8 or 16 bits")
    bits, lab = max(tags.get(258, (1,))), tags.get(262) == LAB
    pixels = _standard_type(np.ascontiguousarray(pixels), bits, kind, lab=lab)
    if pixels.ndim == 3:
        extra = tags.get(338, ())
        alpha = [color + i for i, meaning in enumerate(extra) if meaning in (1, 2)][:1]
        pixels = np.ascontiguousarray(pixels[..., [*range(color), *alpha]])
        if not alpha and color == 1:
            pixels = pixels[..., 0]
    return pixels if lab else _finish(pixels, tags)


def _standard_type(pixels: NDArray[Any], bits: int, kind: str, *, lab: bool) -> NDArray[Any]:
    """Samples as uint8, uint16 or float32."""
    if lab and pixels.dtype.itemsize == 2:  # L from 0 to 65535; a and b signed, of 1/256
        lightness = np.rint(pixels[..., :1].view(np.uint16) / 257)
        colors = np.clip(np.rint(pixels[..., 1:3].view(np.int16) / 256), -128, 127)
        return np.concatenate([lightness, colors.astype(np.int8).view(np.uint8)], 2).astype("u1")
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind != "u":
        raise UnusualTiffError(f"{kind}, which is not read; save it as RGB of 8 or 16 bits")
    if bits in (8, 16):
        return pixels
    if bits < 8:
        result: NDArray[Any] = np.rint(pixels * (255 / (2**bits - 1))).astype(np.uint8)
        return result
    if bits < 16:
        result = np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16)
        return result
    return (pixels / (2.0**bits - 1)).astype(np.float32)


def _finish(pixels: NDArray[Any], tags: ImageFileDirectory_v2) -> NDArray[Any]:
    """Samples as the tags mean them: black is 0, alpha is straight, other channels are gone."""
    if tags.get(262, 1) == 0:  # white is 0
        whole = pixels.dtype.kind == "u"
        color = pixels if pixels.ndim == 2 else pixels[..., :1]
        np.subtract(np.iinfo(pixels.dtype).max if whole else 1, color, out=color)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        meanings = [meaning for meaning in tags.get(338, ()) if meaning in (1, 2)]
        if meanings[:1] == [1]:
            pixels = _unmultiply(pixels)
    return pixels


def _describe(tags: ImageFileDirectory_v2) -> str:
    """The kind of a TIFF in words."""
    models = {
        0: "gray", 1: "gray", 2: "RGB", 3: "a palette", 4: "a mask", 5: "CMYK", 6: "YCbCr",
        8: "Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "a color filter array", 34892: "raw samples",
        32844: "LogL", 32845: "LogLuv",
    }  # fmt: skip
    bits, samples = sorted(set(tags.get(258, (1,)))), tags.get(277, 1)
    number = {2: "signed ", 3: "float ", 5: "complex ", 6: "complex "}.get(
        max(tags.get(339, (1,))), ""
    )
    planes = " in planes" if samples > 1 and tags.get(284, 1) == 2 else ""
    return (
        f"a TIFF of {models.get(tags.get(262, 1), 'an unknown color model')} with {samples} "
        f"channel{'s' * (samples > 1)} of {' and '.join(map(str, bits))} {number}bits{planes}"
    )


def decode_with_opencv(data: bytes) -> NDArray[Any]:
    """Decode a file at its own depth: (H, W), or (H, W, 3 or 4) in RGB(A) order.

    Raises:
        ValueError: it cannot be decoded.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the pixels cannot be decoded")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:  # exchanged in place: it may be large
        blue = pixels[..., 0].copy()
        pixels[..., 0] = pixels[..., 2]
        pixels[..., 2] = blue
    return pixels


def encode_tiff(
    samples: NDArray[Any],
    *,
    exif: bytes = b"",
    icc_profile: bytes = b"",
    xmp: bytes = b"",
    photoshop: bytes = b"",
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A TIFF file, losslessly compressed (Deflate, with horizontal differences for integers).

    Args:
        samples: (H, W, C) uint8, uint16 or float32; C is 1 or 3, or 2 or 4 with straight alpha.
        exif: an EXIF block without its prefix; its descriptive tags are taken over.
        icc_profile: the profile as it is.
        xmp: the XMP packet as it is.
        photoshop: image resources (IPTC among them) as they are.
        dpi: dots per inch in x and y.

    Raises:
        ValueError: the file would be larger than TIFF's 4 GiB.
    """
    height, width, channels = samples.shape
    rows = max(1, _STRIP_BYTES // max(1, width * channels * samples.itemsize))
    strips = [_compress(samples[top : top + rows]) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    if sum(sizes) > 0xFFF00000:
        raise ValueError("a TIFF file cannot be larger than 4 GiB; choose PNG")
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    _add_exif(tags, exif)
    whole = samples.dtype.kind == "u"
    tags[256], tags[257], tags[258] = width, height, (samples.itemsize * 8,) * channels
    tags[259], tags[262] = 8, 2 if channels > 2 else 1
    tags[ORIENTATION], tags[277], tags[278], tags[284] = 1, channels, rows, 1
    tags[317], tags[339] = 2 if whole else 1, (1 if whole else 3,) * channels
    if channels in (2, 4):
        tags[338] = (2,)
    if dpi is not None:
        tags[282], tags[283], tags[296] = dpi[0], dpi[1], 2
    for tag, block, kind in ((XMP, xmp, 1), (PHOTOSHOP, photoshop, 7), (ICC, icc_profile, 7)):
        if block:
            tags.tagtype[tag] = kind
            tags[tag] = block
    tags.tagtype[273] = tags.tagtype[279] = 4
    tags[279] = tuple(sizes)
    # Counted from the end of the directory: that is where Pillow counts from when it writes one.
    tags[273] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    return b"".join((b"II*\0\x08\0\0\0", tags.tobytes(8), *strips))


def _compress(rows: NDArray[Any]) -> bytes:
    little = rows.astype(rows.dtype.newbyteorder("<"))
    if rows.dtype.kind == "u":
        little[:, 1:] -= rows[:, :-1]  # wraps around, as predictor 2 wants
    return zlib.compress(little.tobytes(), 6)


def _add_exif(tags: ImageFileDirectory_v2, block: bytes) -> None:
    exif = Image.Exif()
    exif.load(block)
    for tag in exif:
        if tag in DESCRIPTIVE:
            tags[tag] = exif[tag]
    for tag in (EXIF_IFD, GPS_IFD):
        if nested := _without_offsets(exif.get_ifd(tag)):
            tags[tag] = nested


def _without_offsets(nested: dict[int, Any]) -> dict[int, Any]:
    return {tag: value for tag, value in nested.items() if tag != INTEROP_IFD}


def _unmultiply(pixels: NDArray[Any]) -> NDArray[Any]:
    """Straight from premultiplied alpha, the last channel; where it is 0 the color is kept."""
    result = pixels.copy()
    for first in range(0, len(pixels), _ROWS):  # in float64, some rows at a time
        rows = result[first : first + _ROWS]
        alpha = rows[..., -1:].astype(np.float64)
        color = np.divide(
            rows[..., :-1], alpha, out=np.zeros(rows[..., :-1].shape), where=alpha > 0
        )
        if pixels.dtype.kind == "u":
            color = np.rint(np.minimum(color, 1) * np.iinfo(pixels.dtype).max)
        np.copyto(rows[..., :-1], color, where=alpha > 0, casting="unsafe")
    return result
