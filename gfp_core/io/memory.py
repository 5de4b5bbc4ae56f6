"""How much memory a picture needs, from its file's first bytes, and how much is free.

A small file may hold an immense picture, and a process that runs out of memory is ended by the
system without a word. So a picture is measured before it is decoded.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import formats
from .picture import ImageError, NotEnoughMemoryError

RESERVE = 0.05
"""Share of the free memory that is left to others."""
NETWORK_BYTES = 700_000_000
"""Memory of PyTorch and the usual networks, once they are loaded (measured)."""

# A pixel, beside the file itself, while a file is decoded at its deepest with alpha (measured).
_READ_BYTES = {"JPEG": 20, "PNG": 26, "BMP": 25, "GIF": 25, "WEBP": 33, "TIFF": 40, "AVIF": 33}
_RESTORE_BYTES = 60  # a pixel while faces are found, restored and pasted (measured: 56; alpha)
# The same where the picture stays in the whole numbers of its file (measured: JPEG 16, PNG 38); a
# TIFF may hold floats.
_LEVELS_BYTES = {"PNG": 42, "TIFF": _RESTORE_BYTES}
_UPSCALED_BYTES = 30  # a further pixel of an enlarged result (measured: 22; alpha)
_SEARCHED = 1 << 16  # bytes in which a HEIF or AVIF file says its size
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture file say."""

    format: str
    """One of the values of `formats.READABLE_SUFFIXES`."""
    width: int
    """In pixels, as stored; 0 where the file does not say it plainly."""
    height: int
    """In pixels, as stored; 0 where the file does not say it plainly."""
    file_bytes: int
    """Size of the file."""

    @property
    def read_bytes(self) -> int:
        """Memory that `images.read_image` takes at its peak."""
        return self.file_bytes + self.width * self.height * _READ_BYTES.get(self.format, 40)

    def restore_bytes(self, upscale: float = 1.0, *, levels: bool = False) -> int:
        """Memory that reading and restoring the picture takes at its peak, without networks.

        Args:
            upscale: size of the result relative to the picture.
            levels: whether the picture stays in whole numbers, see `images.read_image`.
        """
        pixels = self.width * self.height
        if levels:
            return max(self.read_bytes, pixels * _LEVELS_BYTES.get(self.format, 22))
        further = pixels * max(0.0, upscale**2 - 1)
        return max(self.read_bytes, round(pixels * _RESTORE_BYTES + further * _UPSCALED_BYTES))


def read_header(path: str | os.PathLike[str]) -> Header:
    """Recognize a picture file and read its size, without reading or decoding the rest.

    Raises:
        ImageError: the file is missing, unreadable, empty or no picture.
    """
    try:
        with open_regular(path) as file:
            return header_of(file, os.fstat(file.fileno()).st_size, path)
    except OSError as error:
        raise unreadable(path, error) from error


def header_of(file: BinaryIO, size: int, path: str | os.PathLike[str]) -> Header:
    """Recognize a picture and read its size, see `read_header`.

    Args:
        file: a file of ``size`` bytes, open at its start.
        size: in bytes.
        path: its name, for messages.

    Raises:
        ImageError: the file is empty or no picture.
    """
    head = file.read(formats.HEAD_BYTES)
    if not head:
        raise ImageError(f"{path} is empty (0 bytes); get the picture again")
    kind = formats.sniff(head)
    if kind is None:
        raise ImageError(_no_picture(path, head))
    width, height = 0, 0
    with suppress(struct.error, ValueError, IndexError):  # damaged: the decoder says so
        width, height = _size(kind, head, file)
    return Header(kind, width, height, size)


def check_memory(path: str | os.PathLike[str], needed: int, purpose: str = "read") -> None:
    """Refuse a picture that needs more memory than is free.

    Args:
        path: the picture, for the message.
        needed: bytes, from `Header.read_bytes` or `Header.restore_bytes`.
        purpose: what the memory is for: "read" or "restored".

    Raises:
        NotEnoughMemoryError: says how much is needed and free, and what to do.
    """
    free = available_bytes()
    if free is not None and needed > free * (1 - RESERVE):
        raise NotEnoughMemoryError(
            f"{path} needs about {needed / 1e9:.1f} GB of memory to be {purpose}, and "
            f"{free / 1e9:.1f} GB is free; make it smaller, cut it into parts, or use a machine "
            "(or a container limit) with more memory"
        )


def available_bytes() -> int | None:
    """Memory that this process can still take, by the system and by the limits of its container.

    Returns:
        Bytes, or None on systems that do not say.
    """
    limits = [*_system(), *_cgroups(), *_own_limit()]
    return max(0, min(limits)) if limits else None


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device never blocks.

    Raises:
        ImageError: the path is a folder or a device.
        OSError: the file cannot be opened.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError(f"{path} is a folder or a device, not a picture; name a file")
    return open(path, "rb")


def unreadable(path: str | os.PathLike[str], error: OSError) -> ImageError:
    """The error of a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path} does not exist; check the name")
    return ImageError(f"{path} cannot be read ({error.strerror}); check its rights")


def _no_picture(path: str | os.PathLike[str], head: bytes) -> str:
    if description := formats.describe(head):
        what, remedy = description
        return f"{path} is {what}, which is not read; {remedy}"
    return f"{path} is no PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture; convert it first"


def _size(kind: str, head: bytes, file: BinaryIO) -> tuple[int, int]:
    if kind == "PNG":
        return struct.unpack_from(">II", head, 16)
    if kind == "GIF":
        return struct.unpack_from("<HH", head, 6)
    if kind == "BMP":
        (length,) = struct.unpack_from("<I", head, 14)
        width, height = struct.unpack_from("<HH" if length == 12 else "<ii", head, 18)
        return width, abs(height)
    if kind == "WEBP":
        return _webp_size(head)
    if kind == "JPEG":
        return _jpeg_size(file)
    return _tiff_size(head, file) if kind == "TIFF" else _heif_size(file)


def _webp_size(head: bytes) -> tuple[int, int]:
    """By RFC 9649, 2.5 to 2.7."""
    if head[12:16] == b"VP8X":
        sides = [int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27)]
        return sides[0], sides[1]
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    at = 2
    while True:
        file.seek(at)
        head = file.read(9)
        mark, marker, length, _, height, width = struct.unpack(">BBHBHH", head)
        if mark != 0xFF:
            raise ValueError("no marker")
        if marker in _JPEG_FRAMES:
            return width, height
        at += 1 if marker == 0xFF else 2 + length


def _tiff_size(head: bytes, file: BinaryIO) -> tuple[int, int]:
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    offset_format, count_format, entry_bytes = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + offset_format, head, 8 if big else 4)
    file.seek(start)
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
    sides = {}
    for _ in range(min(count, 1000)):
        entry = file.read(entry_bytes)
        tag, kind = struct.unpack_from(order + "HH", entry)
        if tag in (256, 257):
            if kind not in (3, 4, 16):
                raise ValueError(f"tag {tag} is of type {kind}")
            value_format = {3: "H", 4: "I", 16: "Q"}[kind]
            (sides[tag],) = struct.unpack_from(order + value_format, entry, 12 if big else 8)
    return sides.get(256, 0), sides.get(257, 0)


def _heif_size(file: BinaryIO) -> tuple[int, int]:
    """The largest of the pictures that the file declares (ISO 23008-12, ispe)."""
    file.seek(0)
    data, sizes, at = file.read(_SEARCHED), [(0, 0)], 0
    while (at := data.find(b"ispe", at) + 4) >= 4:
        if at + 12 <= len(data):
            width, height = struct.unpack_from(">II", data, at + 4)
            sizes.append((width, height))
    return max(sizes, key=lambda size: size[0] * size[1])


def _system() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    if sys.platform == "win32":
        yield from _windows()
        return
    with suppress(OSError, ValueError, AttributeError):  # all of it: other systems say no better
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _windows() -> Iterator[int]:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in "abcdefg"),
        )

    status = Status(length=ctypes.sizeof(Status))
    if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        yield int(status.b)  # free physical memory


def _cgroups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """What the control groups of this process and those above leave, of versions 2 and 1."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            base = root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "memory"
        else:
            continue
        group = base / path.lstrip("/")
        while True:
            yield from _left_of(group, *names)
            if group == base or base not in group.parents:
                break
            group = group.parent


def _left_of(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    with suppress(OSError, ValueError):  # no limit ("max"), or not this process's to see
        maximum = int((group / limit).read_text())
        used = int((group / usage).read_text())
        caches = 0
        with suppress(OSError, ValueError):
            for line in (group / "memory.stat").read_text().splitlines():
                if line.startswith(f"{reclaimable} "):
                    caches = int(line.split()[1])
        yield maximum - used + caches


def _own_limit() -> Iterator[int]:
    """What `ulimit -v` leaves."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield soft - pages * os.sysconf("SC_PAGE_SIZE")
