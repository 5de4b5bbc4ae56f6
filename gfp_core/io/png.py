"""What Pillow and OpenCV leave undone for PNG: the chunks, and a writer for 16 bits.

Pillow reads and writes color of 16 bits as 8 bits; OpenCV writes neither metadata nor gray with
alpha. After the PNG specification, third edition.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DESCRIPTIVE = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf")
"""Chunks that are read here: Pillow refuses a whole file for one that unpacks to 1 MiB."""

_MAX_UNPACKED = 256 << 20  # bytes of all texts, or of a profile: what unpacks to more is a bomb
_IDAT = 1 << 30  # bytes; a chunk holds less than 2 GiB


def read_chunks(data: bytes) -> dict[bytes, list[bytes]]:
    """The contents of a file's chunks by name, in order; pixels (IDAT) are left out.

    Raises:
        ValueError: the file is cut short or a chunk is damaged.
    """
    chunks: dict[bytes, list[bytes]] = {}
    at, view = 8, memoryview(data)
    while b"IEND" not in chunks:
        if at + 12 > len(data):
            raise ValueError("the file is cut short")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("the file is cut short")
        if zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"the chunk {name!r} is damaged")
        chunks.setdefault(name, [])
        if name not in (b"IDAT", b"fdAT"):
            chunks[name].append(bytes(view[at + 8 : end - 4]))
        at = end
    if len(chunks.get(b"IHDR", [b""])[0]) != 13 or b"IDAT" not in chunks:
        raise ValueError("it has no header or no pixels")
    return chunks


def without_chunks(data: bytes, names: Collection[bytes]) -> bytes:
    """Copy a whole file without the chunks of these names."""
    pieces, at = [data[:8]], 8
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name not in names:
            pieces.append(data[at:end])
        at = end if name != b"IEND" else len(data)
    return b"".join(pieces)


def read_text(chunks: Mapping[bytes, list[bytes]]) -> list[tuple[str, str]]:
    """Read the text entries: keyword and text. Damaged or immense ones are left out and logged."""
    entries: list[tuple[str, str]] = []
    room = _MAX_UNPACKED
    for name in (b"tEXt", b"zTXt", b"iTXt"):
        for chunk in chunks.get(name, ()):
            keyword, _, rest = chunk.partition(b"\0")
            try:
                text = _text_of(name, rest, room)
            except (ValueError, zlib.error) as error:
                label = keyword.decode("latin-1")[:80]
                logger.warning("the text %r is left out: %s", label, error)
            else:
                room -= len(text)
                encoding = "utf-8" if name == b"iTXt" else "latin-1"
                entries.append((keyword.decode("latin-1"), text.decode(encoding, "replace")))
    return entries


def read_profile(chunks: Mapping[bytes, list[bytes]]) -> bytes:
    """Read the color profile; empty where there is none or where the profile is damaged."""
    for chunk in chunks.get(b"iCCP", ())[:1]:
        try:
            return _inflate(chunk.partition(b"\0")[2][1:], _MAX_UNPACKED)
        except (ValueError, zlib.error) as error:
            logger.warning("the color profile is left out: %s", error)
    return b""


def read_dpi(chunks: Mapping[bytes, list[bytes]]) -> tuple[float, float] | None:
    """Read the resolution (pHYs) in dots per inch; None where no unit is named."""
    chunk = chunks.get(b"pHYs", [b""])[0]
    if len(chunk) != 9 or chunk[8] != 1:
        return None
    x, y = struct.unpack(">II", chunk[:8])
    return x * 0.0254, y * 0.0254


def _text_of(name: bytes, rest: bytes, room: int) -> bytes:
    """The text of a chunk behind its keyword."""
    packed = name == b"zTXt"
    if name == b"iTXt":
        packed = rest[:1] == b"\1"
        fields = rest[2:].split(b"\0", 2)  # language, translated keyword, text
        if len(fields) < 3:
            raise ValueError("the entry is damaged")
        rest = fields[2]
    elif packed:
        rest = rest[1:]  # behind the method
    text = _inflate(rest, room) if packed else rest
    if len(text) > room:
        raise ValueError(f"all texts take more than {_MAX_UNPACKED >> 20} MiB")
    return text


def _inflate(packed: bytes, room: int) -> bytes:
    """Unpack, and refuse what is cut short or larger than the room for it."""
    stream = zlib.decompressobj()
    content = stream.decompress(packed, max(room, 1))
    if not stream.eof:
        larger = f"it unpacks to more than {room >> 20} MiB"
        raise ValueError(larger if stream.unconsumed_tail else "its packed data are cut short")
    return content


def add_color_key(samples: NDArray[Any], chunks: Mapping[bytes, list[bytes]]) -> NDArray[Any]:
    """Alpha from the transparent color (tRNS), where the decoder left it out.

    Args:
        samples: (H, W) or (H, W, C) uint16, gray or RGB(A).
        chunks: from `read_chunks`.

    Returns:
        (H, W, C) uint16 with straight alpha, or the samples as they are.
    """
    if b"tRNS" not in chunks or (samples.ndim == 3 and samples.shape[2] == 4):
        return samples
    color = samples if samples.ndim == 3 else samples[..., None]
    key = struct.unpack(f">{color.shape[2]}H", chunks[b"tRNS"][0])
    alpha = np.where((color == key).all(axis=2, keepdims=True), 0, 65535).astype(np.uint16)
    return np.concatenate([color, alpha], axis=2)


def encode_png16(samples: NDArray[np.uint16], ancillary: Mapping[bytes, list[bytes]]) -> bytes:
    """A PNG file of 16 bits.

    Args:
        samples: (H, W, C) uint16; C is 1 or 3, or 2 or 4 with straight alpha.
        ancillary: the chunks of another file, from `read_chunks`, whose metadata to take over.
    """
    height, width, channels = samples.shape
    rows = np.ascontiguousarray(samples.astype(">u2")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # filter "up": what changed since the row above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    for name, blocks in ancillary.items():
        if name not in (b"IHDR", b"IDAT", b"IEND"):
            chunks += [(name, block) for block in blocks]
    packed = zlib.compress(filtered.tobytes(), 6)
    chunks += [(b"IDAT", packed[at : at + _IDAT]) for at in range(0, len(packed), _IDAT)]
    chunks.append((b"IEND", b""))
    parts = [SIGNATURE]
    for name, block in chunks:
        check = zlib.crc32(block, zlib.crc32(name))
        parts += [struct.pack(">I", len(block)), name, block, struct.pack(">I", check)]
    return b"".join(parts)
