"""Picture formats as data: endings, how a file is recognized, and what is read and written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A picture format."""

    name: str
    """As Pillow calls it; the value of `SUFFIXES` and `images.Picture.format`."""
    suffixes: tuple[str, ...]
    """File name endings in lower case, with the dot; the first is the usual one."""
    writable: bool = True
    """Results are written in this format; else they need another ending (`FALLBACK_SUFFIX`)."""


FORMATS = (
    Format("PNG", (".png",)),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    Format("WEBP", (".webp",)),
    Format("TIFF", (".tif", ".tiff")),
    Format("BMP", (".bmp",)),
    Format("GIF", (".gif",), writable=False),
    Format("AVIF", (".avif", ".avifs"), writable=False),
    Format("HEIF", (".heic", ".heif", ".heics", ".heifs", ".hif"), writable=False),
)

SUFFIXES = {suffix: kind.name for kind in FORMATS if kind.writable for suffix in kind.suffixes}
"""Endings of the formats that are written, in lower case, and the formats' names."""

READABLE_SUFFIXES = {suffix: kind.name for kind in FORMATS for suffix in kind.suffixes}
"""Endings of the formats that are read, in lower case, and the formats' names."""

FALLBACK_SUFFIX = ".png"
"""Ending of the result of a picture whose own format is not written."""

CLIP_SUFFIXES = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".gif": "gif",
}
"""Endings of clips, in lower case, and FFmpeg's names of their containers."""

HEAD_BYTES = 64
"""How much of a file `sniff` and `describe` look at."""

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# What people take for a picture that can be read: offset, signature, what it is, the way out.
_EXPORT = "export it as TIFF or PNG first"
_DEVELOP = "develop it with a raw converter and save it as 16-bit TIFF"
_FOREIGN = (
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", _EXPORT),
    (0, b"\xff\x0a", "a JPEG XL picture", _EXPORT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _EXPORT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _EXPORT),
    (0, b"8BPS", "a Photoshop document", _EXPORT),
    (0, b"gimp xcf", "a GIMP document", _EXPORT),
    (0, b"%PDF", "a PDF document", "export its pages as pictures first"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", "save it as float TIFF first"),
    (0, b"#?RADIANCE", "a Radiance HDR picture", "save it as float TIFF first"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", _DEVELOP),
    (0, b"IIU\0", "a camera's raw file", _DEVELOP),
    (0, b"IIRO", "a camera's raw file", _DEVELOP),
    (0, b"IIRS", "a camera's raw file", _DEVELOP),
    (4, b"ftypcrx ", "a camera's raw file", _DEVELOP),
    (4, b"ftyp", "a video", "extract its frames as pictures first"),
    (0, b"\x1a\x45\xdf\xa3", "a video", "extract its frames as pictures first"),
    (8, b"AVI ", "a video", "extract its frames as pictures first"),
    (0, b"<svg", "a vector drawing", _EXPORT),
    (0, b"<!DOCTYPE", "a web page", "download the picture itself"),
    (0, b"<!doctype", "a web page", "download the picture itself"),
    (0, b"<html", "a web page", "download the picture itself"),
    (0, b"PK\x03\x04", "an archive", "unpack it first"),
    (0, b"Rar!", "an archive", "unpack it first"),
    (0, b"7z\xbc\xaf", "an archive", "unpack it first"),
    (
        0,
        b"version https://git-lfs",
        "a placeholder of Git LFS",
        "fetch it with: git lfs pull",
    ),
    (0, b"\0\0\x01\0", "an icon", _EXPORT),
    (0, b"P6", "a PPM picture", "save it as PNG or TIFF first"),
    (0, b"P5", "a PGM picture", "save it as PNG or TIFF first"),
)


def sniff(head: bytes) -> str | None:
    """Recognize a readable format by the first bytes of a file, never by its name.

    Args:
        head: at least `HEAD_BYTES` bytes, or the whole file.

    Returns:
        The format's name, or None.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = {head[at : at + 4] for at in (8, *range(16, min(length, len(head)), 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else None
    return "BMP" if head.startswith(b"BM") else None


def describe(head: bytes) -> tuple[str, str] | None:
    """Name a well-known kind of file that is not read, and the way out; None for any other."""
    stripped = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for offset, signature, what, remedy in _FOREIGN:
        if head[offset:].startswith(signature) or (not offset and stripped.startswith(signature)):
            return what, remedy
    return None
