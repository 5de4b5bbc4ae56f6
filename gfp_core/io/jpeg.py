"""What Pillow leaves undone for JPEG: the segments, missing last bytes, and tables to write with.

After ITU-T T.81 (markers: table B.1), with the segments that Adobe's XMP specification, part 3,
and Photoshop define.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

logger = logging.getLogger(__name__)

APP1, APP13, COMMENT = 0xE1, 0xED, 0xFE
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
SEGMENT_BYTES = 65_533
"""The most content of a segment, behind its length."""

_SOS, _EOI, _DRI = 0xDA, 0xD9, 0xDD
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_TAIL_BYTES = 4096
_FINE_TABLE = 24.0  # mean of the luma table at quality 80 is 23.0 (T.81, K.1, as libjpeg scales)


@dataclass
class Structure:
    """The parts of the first picture of a file."""

    segments: list[tuple[int, bytes]] = field(default_factory=list)
    """Markers and contents of application segments and comments, in order."""
    size: tuple[int, int] | None = None
    """Width and height as stored."""
    end: int = 0
    """Where the picture ends: behind its end marker, or at the end of a file without."""
    ended: bool = False
    """The end marker is there."""
    precise: bool = False
    """Every coefficient has been sent at its full precision, as far as scans were begun."""

    def contents(self, marker: int, prefix: bytes = b"") -> list[bytes]:
        """The contents of the segments of a marker, less the prefix by which they are known."""
        return [
            content[len(prefix) :]
            for name, content in self.segments
            if name == marker and content.startswith(prefix)
        ]


@dataclass
class _Component:
    """A color component while the file is looked through."""

    across: int
    """Sampling factor."""
    down: int
    """Sampling factor."""
    bits: NDArray[np.int_] = field(default_factory=lambda: np.full(64, 99))
    """The lowest bit of each coefficient that has been sent."""


@dataclass(frozen=True)
class Coding:
    """How a JPEG file was compressed, to write a changed picture with the same losses again."""

    size: tuple[int, int]
    """Width and height of the picture, upright: tables fit the picture of this size only."""
    tables: tuple[tuple[int, ...], ...]
    """Quantization tables of luma and, in color, chroma; 64 numbers each."""
    subsampling: int
    """Of chroma, as Pillow counts: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0."""


def read_structure(data: bytes) -> Structure:
    """Find the segments and the end of the first picture; a damaged file ends early."""
    result = Structure(end=len(data))
    components: dict[int, _Component] = {}
    interval, scan, scan_start = 0, b"", 0
    at = 2
    while match := _MARKER.search(data, at):
        marker, at = data[match.end() - 1], match.end()
        if marker == _EOI:
            result.end, result.ended = at, True
            break
        if marker == 0x01 or at + 2 > len(data):
            continue
        (length,) = struct.unpack_from(">H", data, at)
        content = data[at + 2 : at + length]
        at += max(length, 2)
        if marker in _FRAMES and len(content) >= 6 and result.size is None:
            height, width, count = struct.unpack_from(">HHB", content, 1)
            result.size = width, height
            rows = [content[6 + 3 * i : 9 + 3 * i] for i in range(count)]
            components = {
                row[0]: _Component(row[1] >> 4, row[1] & 15) for row in rows if len(row) == 3
            }
        elif marker == _DRI and len(content) == 2:
            (interval,) = struct.unpack(">H", content)
        elif marker == _SOS and content and len(content) == 4 + 2 * content[0]:
            first, last, precision = content[-3], content[-2], content[-1] & 15
            scan, scan_start = content[1:-3:2], at
            for name in scan:
                if name in components:
                    components[name].bits[first : last + 1] = precision
        elif 0xE0 <= marker <= 0xEF or marker == COMMENT:
            result.segments.append((marker, content))
    result.precise = bool(components) and all(not each.bits.any() for each in components.values())
    if interval and not result.ended and result.size is not None:
        restarts = len(_RESTART.findall(data, scan_start))
        result.precise &= restarts == -(-_units(result.size, components, scan) // interval) - 1
    return result


def _units(size: tuple[int, int], components: dict[int, _Component], scan: bytes) -> int:
    """The number of coded units (MCU) of a scan (T.81, A.2)."""
    across = max((each.across for each in components.values()), default=1) or 1
    down = max((each.down for each in components.values()), default=1) or 1
    if len(scan) == 1 and scan[0] in components:  # blocks of the one component
        each = components[scan[0]]
        columns, rows = -(-size[0] * each.across // across), -(-size[1] * each.down // down)
        return -(-columns // 8) * -(-rows // 8)
    return -(-size[0] // (8 * across)) * -(-size[1] // (8 * down))


def complete(
    data: bytes, structure: Structure, decode: Callable[[bytes], NDArray[Any]]
) -> bytes | None:
    """Add a missing end marker, where every pixel of the picture is there.

    A decoder fills up what is missing with whatever follows. So the file is decoded with
    several contents in place of its end: only where all give the same pixels, none was missing.

    Args:
        data: the file.
        structure: from `read_structure`.
        decode: a function from a file to its pixels.

    Returns:
        The file with an end marker, or None where pixels are missing.
    """
    if structure.ended or not structure.precise:
        return None
    whole = data.removesuffix(b"\xff") + b"\xff\xd9"
    pixels = decode(whole)
    noise = np.random.default_rng(0).integers(0, 255, _TAIL_BYTES, dtype=np.uint8).tobytes()
    for first in (0xFE, 0x80, 0x55, 0xAA, 0x33, 0xCC, 0x0F, 0xF0):  # each bit is 0 and is 1
        tail = bytes([first]) + noise  # without 255: no marker
        if not np.array_equal(decode(whole[:-2] + tail + whole[-2:]), pixels):
            return None
    return whole


def coding_of(image: JpegImageFile, *, swapped: bool) -> Coding | None:
    """Read how a gray or YCbCr picture was compressed; None for other kinds.

    Args:
        image: as opened.
        swapped: the picture is turned by a quarter, so that rows become columns.
    """
    layers = image.layer
    if image.mode not in ("L", "RGB") or len(layers) not in (1, 3):
        return None
    if image.mode == "RGB" and image.info.get("adobe_transform") == 0:
        return None  # stored as RGB
    tables = []
    for layer in layers[:2]:
        table = image.quantization.get(layer[3])
        if table is None or len(table) != 64 or not 1 <= min(table) <= max(table) <= 255:
            return None
        square = np.reshape(table, (8, 8))
        tables.append(tuple((square.T if swapped else square).flatten().tolist()))
    subsampling = get_sampling(image) if len(layers) == 3 else 0
    if subsampling not in (0, 1, 2) or (swapped and subsampling == 1):
        subsampling = 0
    size = image.size[::-1] if swapped else image.size
    return Coding(size, tuple(tables), subsampling)


def is_fine(coding: Coding) -> bool:
    """Whether tables are fine enough for a restored face: like quality 80 and better."""
    return float(np.mean(coding.tables[0])) <= _FINE_TABLE


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a file: marker, length and content of at most `SEGMENT_BYTES`."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def photoshop_segments(resources: bytes) -> bytes:
    """Image resources as one or several APP13 segments, as Photoshop splits them."""
    size = SEGMENT_BYTES - len(PHOTOSHOP)
    parts = [resources[at : at + size] for at in range(0, len(resources), size)]
    return b"".join(segment(APP13, PHOTOSHOP + part) for part in parts)


def extended_xmp_segments(packet: bytes, digest: bytes) -> bytes:
    """Extended XMP as APP1 segments, by Adobe's XMP specification, part 3, 1.1.3.1."""
    head = EXTENDED_XMP + digest + struct.pack(">I", len(packet))
    size = SEGMENT_BYTES - len(head) - 4
    parts = [
        segment(APP1, head + struct.pack(">I", at) + packet[at : at + size])
        for at in range(0, len(packet), size)
    ]
    return b"".join(parts)


def join_extended_xmp(contents: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Put extended XMP together; return the packet and its digest, both empty if it is broken.

    Args:
        contents: of the APP1 segments, less the prefix `EXTENDED_XMP`.
    """
    heads = {content[:36] for content in contents}
    if len(heads) != 1:
        return b"", b""
    (head,) = heads
    packet = b"".join(content[40:] for content in sorted(contents))  # by their offsets
    return (packet, head[:32]) if head[32:] == struct.pack(">I", len(packet)) else (b"", b"")
