"""What a picture file says beside its pixels, kept from one format to the next.

A format keeps what it has a place for: JPEG, WebP, PNG and TIFF hold EXIF, profile and XMP; text
entries (a graph's workflow among them) are PNG's, image resources (IPTC) JPEG's and TIFF's.
"""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from . import tiff, xmp

logger = logging.getLogger(__name__)

RECORD_KEYWORD = "gfp restoration"
"""Keyword of the PNG text entry that holds the record of what was done."""

_SEGMENT_BYTES = 65_500  # of a JPEG segment, less its name and length
_PHOTOSHOP_MARK = b"Photoshop 3.0\0"
_PNG_COLOUR = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
# Held in fields of their own; the raw EXIF would also turn the picture once more.
_PNG_OTHER_TEXT = (
    RECORD_KEYWORD,
    "XML:com.adobe.xmp",
    "Raw profile type exif",
    "Raw profile type APP1",
)


@dataclass(frozen=True)
class Metadata:
    """Blocks of a file as they were, but upright: the pixels are already turned."""

    exif: bytes = b""
    """An EXIF block without its ``Exif`` prefix; orientation 1 and no thumbnail."""
    icc_profile: bytes = b""
    """The colour profile of the pixels."""
    xmp: bytes = b""
    """The XMP packet in UTF-8, without our record."""
    photoshop: bytes = b""
    """Image resources (``8BIM``), IPTC captions among them."""
    dpi: tuple[float, float] | None = None
    """Dots per inch in x and y."""
    text: tuple[tuple[str, str], ...] = ()
    """Text entries: keyword and text; a JPEG's comment has the keyword ``Comment``."""
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    """PNG's chunks of gamma, primaries and coding points: name and content."""
    record: str = ""
    """What was done to the picture, as `images.write_image` was told; empty where unknown."""

    def fitting(self, *, grey: bool) -> Metadata:
        """Without a profile that does not fit the pixels to be written, grey or RGB."""
        space = self.icc_profile[16:20]
        if space == b"CMYK" or (space == b"GRAY" and not grey):
            logger.warning(
                "the colour profile is left out: it is for %s, not for the pixels written",
                space.decode(),
            )
            return replace(self, icc_profile=b"")
        return self


def read_metadata(image: ImageFile, chunks: Mapping[bytes, list[bytes]]) -> tuple[Metadata, int]:
    """The metadata of a PNG, JPEG, WebP or BMP file, and its orientation in 1..8.

    Args:
        image: as opened by Pillow.
        chunks: a PNG's chunks, from `png.read_chunks`; else empty.
    """
    text: list[tuple[str, str]] = []
    record: str | None = None
    if isinstance(image, PngImageFile):
        record = image.text.get(RECORD_KEYWORD)
        text = [item for item in image.text.items() if item[0] not in _PNG_OTHER_TEXT]
    elif comment := image.info.get("comment"):
        text = [("Comment", comment.decode("utf-8", "replace"))]
    exif, orientation = _upright_exif(image)
    packet, orientation_of_xmp = xmp.set_upright(xmp.to_utf8(image.info.get("xmp") or b""))
    packet, record_of_xmp = xmp.remove_record(packet)
    orientation = orientation or orientation_of_xmp or 1
    resources = [
        block[len(_PHOTOSHOP_MARK) :]
        for name, block in getattr(image, "applist", ())
        if name == "APP13" and block.startswith(_PHOTOSHOP_MARK)
    ]
    metadata = Metadata(
        exif=exif,
        icc_profile=image.info.get("icc_profile") or b"",
        xmp=packet,
        photoshop=b"".join(resources),
        dpi=_dpi(image.info.get("dpi"), swapped=orientation > 4),
        text=tuple(text),
        png_colour=tuple((name, chunks[name][0]) for name in _PNG_COLOUR if name in chunks),
        record=record or record_of_xmp or "",
    )
    return metadata, orientation


def read_tiff_metadata(data: bytes, tags: ImageFileDirectory_v2, *, swapped: bool) -> Metadata:
    """The metadata of a TIFF file.

    Args:
        data: the file, its orientation set to 1.
        tags: its first directory.
        swapped: the picture is turned by a quarter, so that x and y change places.
    """
    scale = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
    dpi = None
    if scale is not None and 282 in tags and 283 in tags:
        dpi = _dpi((tags[282] * scale, tags[283] * scale), swapped=swapped)
    packet = xmp.set_upright(xmp.to_utf8(_block(tags.get(tiff.XMP))))[0]
    packet, record = xmp.remove_record(packet)
    return Metadata(
        exif=tiff.exif_of(data),
        icc_profile=_block(tags.get(tiff.ICC)),
        xmp=packet,
        photoshop=_block(tags.get(tiff.PHOTOSHOP)),
        dpi=dpi,
        record=record or "",
    )


def packet_with_record(metadata: Metadata, *, limit: int | None = None) -> bytes:
    """Merge the record into the XMP packet; without, and logged, where that is impossible.

    Args:
        metadata: what to write.
        limit: the most bytes that the format holds.
    """
    if not metadata.record:
        return metadata.xmp
    try:
        packet = xmp.add_record(metadata.xmp, metadata.record)
    except ValueError as error:
        logger.warning("the record of what was done is left out: %s", error)
        return metadata.xmp
    if limit is not None and len(packet) > limit >= len(metadata.xmp):
        logger.warning("the record of what was done is left out: no room beside the XMP")
        return metadata.xmp
    return packet


def save_options(metadata: Metadata, kind: str) -> dict[str, Any]:
    """What Pillow's ``save`` is told to write the metadata in a PNG, JPEG, WebP or BMP file."""
    options: dict[str, Any] = {}
    if metadata.dpi is not None and kind != "WEBP":
        options["dpi"] = metadata.dpi
    if kind == "BMP":
        return options
    if metadata.exif:
        options["exif"] = b"Exif\0\0" + metadata.exif
    if metadata.icc_profile:
        options["icc_profile"] = metadata.icc_profile
    if kind == "PNG":
        options["pnginfo"] = _png_info(metadata)
        return options
    packet = packet_with_record(metadata, limit=_SEGMENT_BYTES if kind == "JPEG" else None)
    if packet:
        options["xmp"] = packet
    if kind == "JPEG":
        if comment := dict(metadata.text).get("Comment"):
            options["comment"] = comment.encode()
        if metadata.photoshop:
            block = _PHOTOSHOP_MARK + metadata.photoshop
            options["extra"] = struct.pack(">2sH", b"\xff\xed", len(block) + 2) + block
        for name in ("exif", "xmp", "comment", "extra"):
            if len(options.get(name, b"")) > _SEGMENT_BYTES:
                logger.warning("JPEG has no room for %d bytes of %s", len(options[name]), name)
                del options[name]
    return options


def _png_info(metadata: Metadata) -> PngInfo:
    info = PngInfo()
    for name, content in metadata.png_colour:
        # A profile and sRGB exclude each other (PNG specification, 11.3.2.5).
        if not (name == b"sRGB" and metadata.icc_profile):
            info.add(name, content)
    for keyword, text in metadata.text:
        info.add_text(keyword, text)
    if metadata.record:
        info.add_itxt(RECORD_KEYWORD, metadata.record)
    if metadata.xmp:
        info.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return info


def _upright_exif(image: ImageFile) -> tuple[bytes, int | None]:
    """The EXIF block, and the orientation that it said in 1..8."""
    try:
        found = image.getexif()
        orientation = found.get(tiff.ORIENTATION)
        block = image.info.get("exif") or (found.tobytes() if len(found) else b"")
        block = re.sub(rb"^(Exif\0\0)+", b"", block)
        if block:
            block = tiff.turn_upright(block, single=True)[0]
    except (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error) as error:
        logger.warning("the EXIF block is damaged (%s): it is left out", error)
        return b"", None
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    return block, orientation if known else None


def _dpi(dpi: Any, *, swapped: bool) -> tuple[float, float] | None:
    if dpi is None:
        return None
    x, y = (float(value) for value in dpi)
    if not (math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0):
        return None
    return (y, x) if swapped else (x, y)


def _block(value: Any) -> bytes:
    """A tag that holds bytes, whichever of TIFF's kinds the file calls them."""
    if isinstance(value, tuple):
        value = value[0] if value and isinstance(value[0], bytes) else bytes(value)
    return value if isinstance(value, bytes) else b""
