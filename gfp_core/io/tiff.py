"""What Pillow and OpenCV leave undone for TIFF: the tags, deep samples, and a writer.

Pillow reads RGB of more than 8 bits as 8 bits, and OpenCV reads and writes no metadata. The
layout is that of the TIFF 6.0 specification with Adobe's Deflate (Photoshop technical notes,
2002). An EXIF block is a TIFF file without pixels, so the tag functions serve it too.
"""

from __future__ import annotations

import io
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
_STRIP_BYTES = 1 << 20


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
    changed, orientation = bytearray(data), 1
    for entry in range(start, start + count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag == ORIENTATION and kind in (3, 4):
            value_format, at = order + ("H" if kind == 3 else "I"), entry + entry_bytes
            at -= struct.calcsize(offset_format)
            (orientation,) = struct.unpack_from(value_format, data, at)
            struct.pack_into(value_format, changed, at, 1)
    if single:
        struct.pack_into(order + offset_format, changed, start + count * entry_bytes, 0)
    return bytes(changed), orientation if 1 <= orientation <= 8 else 1


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


def decode_deep(data: bytes, tags: ImageFileDirectory_v2) -> NDArray[Any]:
    """Read the samples of a TIFF of 16-bit whole or 32- or 64-bit float numbers.

    Args:
        data: the file, its orientation set to 1.
        tags: its first directory.

    Returns:
        (H, W) or (H, W, C) uint16, float32 or float64, RGB or RGBA with straight alpha.

    Raises:
        ValueError: a layout that is not read here; says which.
    """
    bits, samples = set(tags.get(258, (1,))), tags.get(277, 1)
    kind = set(tags.get(339, (1,)))
    photometric, extra = tags.get(262, 1), tags.get(338, ())
    if (bits, kind) not in (({16}, {1}), ({32}, {3}), ({64}, {3})):
        raise ValueError(f"its samples are of an unusual kind ({sorted(bits)} bits)")
    if (photometric, samples) not in ((0, 1), (1, 1), (2, 3), (2, 4)):
        raise ValueError(f"{samples} channels of more than 8 bits in this colour model")
    if samples > 1 and tags.get(284, 1) != 1:
        raise ValueError("its channels of more than 8 bits are stored one after the other")
    pixels = decode_with_opencv(data)
    if pixels.dtype.itemsize * 8 not in bits or (pixels.ndim == 3) != (samples > 1):
        raise ValueError("its samples were not read at their full depth")
    if photometric == 0:
        pixels = (65535 if bits == {16} else 1) - pixels
    if extra[:1] == (1,):  # premultiplied
        pixels = _unmultiply(pixels)
    return pixels


def decode_with_opencv(data: bytes) -> NDArray[Any]:
    """Decode a file at its own depth: (H, W), or (H, W, 3 or 4) in RGB(A) order.

    Raises:
        ValueError: it cannot be decoded.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the pixels cannot be decoded")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
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
    """Straight from premultiplied RGBA; where alpha is 0 the colour is kept as it is."""
    alpha = pixels[..., 3:].astype(np.float64)
    colour = np.divide(
        pixels[..., :3], alpha, out=np.zeros((*pixels.shape[:2], 3)), where=alpha > 0
    )
    if pixels.dtype.kind == "u":
        colour = np.rint(np.minimum(colour, 1) * 65535)
    colour = np.where(alpha > 0, colour, pixels[..., :3])
    return np.concatenate([colour, pixels[..., 3:]], axis=2).astype(pixels.dtype)
