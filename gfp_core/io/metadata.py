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

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from . import jpeg, png, tiff, xmp

logger = logging.getLogger(__name__)

RECORD_KEYWORD = "gfp restoration"
"""Keyword of the PNG text entry that holds the record of what was done."""

_SEGMENT_BYTES = 65_500  # of a JPEG segment, less its name (of XMP: 29 bytes) and length
XMP_KEYWORD = "XML:com.adobe.xmp"
"""Keyword of the PNG text entry that holds the XMP packet."""

_PNG_COLOR = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
# Held in fields of their own; the raw EXIF would also turn the picture once more.
_PNG_OTHER_TEXT = (
    RECORD_KEYWORD,
    XMP_KEYWORD,
    "Raw profile type exif",
    "Raw profile type APP1",
)


@dataclass(frozen=True)
class Metadata:
    """Blocks of a file as they were, but upright: the pixels are already turned."""

    exif: bytes = b""
    """An EXIF block without its ``Exif`` prefix; orientation 1 and no thumbnail."""
    icc_profile: bytes = b""
    """The color profile of the pixels."""
    xmp: bytes = b""
    """The XMP packet in UTF-8, without our record and without promises of data behind a JPEG."""
    extended_xmp: bytes = b""
    """What did not fit in the packet; JPEG's alone."""
    extended_xmp_digest: bytes = b""
    """By which the packet names the extension."""
    photoshop: bytes = b""
    """Image resources (``8BIM``), IPTC captions among them."""
    dpi: tuple[float, float] | None = None
    """Dots per inch in x and y."""
    text: tuple[tuple[str, str], ...] = ()
    """Text entries: keyword and text; JPEG's comments have the keyword ``Comment``, and bytes in
    them that are not UTF-8 are surrogates (``surrogateescape``)."""
    png_color: tuple[tuple[bytes, bytes], ...] = ()
    """PNG's chunks of gamma, primaries and coding points: name and content."""
    record: str = ""
    """What was done to the picture, as `images.write_image` was told; empty where unknown."""

    def fitting(self, *, gray: bool, size: tuple[int, int]) -> Metadata:
        """Make the metadata true of the pixels to be written.

        A profile of another color model is left out; tags of the size are set to it.

        Args:
            gray: the pixels are written without color.
            size: width and height.
        """
        self = replace(
            self, exif=tiff.set_size(self.exif, *size), xmp=xmp.set_size(self.xmp, *size)
        )
        space = self.icc_profile[16:20]
        if space == b"CMYK" or (space == b"GRAY" and not gray):
            logger.warning(
                "the color profile is left out: it is for %s, not for the pixels written",
                space.decode(),
            )
            return replace(self, icc_profile=b"")
        return self


def read_metadata(
    image: ImageFile,
    chunks: Mapping[bytes, list[bytes]] | None = None,
    structure: jpeg.Structure | None = None,
) -> tuple[Metadata, int]:
    """Read the metadata of any picture but TIFF, and its orientation in 1..8.

    Args:
        image: as opened by Pillow.
        chunks: a PNG's chunks, from `png.read_chunks`.
        structure: a JPEG's parts, from `jpeg.read_structure`.
    """
    if chunks is not None:
        return _read_png_metadata(chunks)
    info = image.info
    exif, orientation = _upright_exif(image, info.get("exif") or b"")
    packet, record, orientation_of_xmp = _read_xmp(info.get("xmp") or b"")
    metadata = Metadata(
        exif=exif, icc_profile=info.get("icc_profile") or b"", xmp=packet, record=record
    )
    orientation = orientation or orientation_of_xmp or 1
    metadata = replace(metadata, dpi=_dpi(info.get("dpi"), swapped=orientation > 4))
    if structure is not None:
        return _add_segments(metadata, structure), orientation
    packet = xmp.drop_promises(packet, extended=True)[0]
    if comment := info.get("comment"):
        metadata = replace(metadata, text=(("Comment", _comment(comment)),))
    return replace(metadata, xmp=packet), orientation


def _read_png_metadata(chunks: Mapping[bytes, list[bytes]]) -> tuple[Metadata, int]:
    entries = png.read_text(chunks)
    texts = dict(entries)
    exif = chunks.get(b"eXIf", [b""])[0]
    for keyword in ("Raw profile type exif", "Raw profile type APP1"):
        exif = exif or _raw_profile(texts.get(keyword, ""))
    exif, orientation = _upright_exif(None, exif)
    packet, record, orientation_of_xmp = _read_xmp(texts.get(XMP_KEYWORD, ""))
    orientation = orientation or orientation_of_xmp or 1
    metadata = Metadata(
        exif=exif,
        icc_profile=png.read_profile(chunks),
        xmp=xmp.drop_promises(packet, extended=True)[0],
        dpi=_dpi(png.read_dpi(chunks), swapped=orientation > 4),
        text=tuple(entry for entry in entries if entry[0] not in _PNG_OTHER_TEXT),
        png_color=tuple((name, chunks[name][0]) for name in _PNG_COLOR if name in chunks),
        record=texts.get(RECORD_KEYWORD) or record,
    )
    return metadata, orientation


def _add_segments(metadata: Metadata, structure: jpeg.Structure) -> Metadata:
    """Add what a JPEG's segments say, and remove what its XMP promises behind the picture."""
    extended, digest = jpeg.join_extended_xmp(structure.contents(jpeg.APP1, jpeg.EXTENDED_XMP))
    packet, removed = xmp.drop_promises(metadata.xmp, extended=not extended)
    if removed:
        logger.info("XMP no longer says %s: its data are not kept", ", ".join(sorted(set(removed))))
    return replace(
        metadata,
        xmp=packet,
        extended_xmp=extended,
        extended_xmp_digest=digest,
        photoshop=b"".join(structure.contents(jpeg.APP13, jpeg.PHOTOSHOP)),
        text=tuple(("Comment", _comment(text)) for text in structure.contents(jpeg.COMMENT)),
    )


def _comment(text: bytes) -> str:
    """A comment as text; bytes that are not UTF-8 become surrogates, and the same bytes again."""
    return text.decode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """A text for formats that hold Unicode: what was not UTF-8 was Latin-1, by custom."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


def _raw_profile(text: str) -> bytes:
    """A block that ImageMagick keeps as hexadecimal text: name, length, digits."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _read_xmp(packet: bytes | str) -> tuple[bytes, str, int | None]:
    """The upright packet without our record, the record, and the orientation it said."""
    upright, orientation = xmp.set_upright(xmp.to_utf8(packet))
    upright, record = xmp.remove_record(upright)
    return upright, record or "", orientation


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
    packet, record, _ = _read_xmp(_block(tags.get(tiff.XMP)))
    return Metadata(
        exif=tiff.exif_of(data),
        icc_profile=_block(tags.get(tiff.ICC)),
        xmp=xmp.drop_promises(packet, extended=True)[0],
        photoshop=_block(tags.get(tiff.PHOTOSHOP)),
        dpi=dpi,
        record=record,
    )


def packet_with_record(
    metadata: Metadata, *, limit: int | None = None, extended: bool = False
) -> bytes:
    """Merge the record into the XMP packet; without, and logged, where that is impossible.

    Args:
        metadata: what to write.
        limit: the most bytes that the format holds.
        extended: the format holds extended XMP.
    """
    original = metadata.xmp if extended else _without_extension(metadata)
    if not metadata.record:
        return original
    try:
        packet = xmp.add_record(original, metadata.record)
    except ValueError as error:
        logger.warning("the record of what was done is left out: %s", error)
        return original
    if limit is not None and len(packet) > limit >= len(original):
        logger.warning("the record of what was done is left out: no room beside the XMP")
        return original
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
    jpeg_limit = _SEGMENT_BYTES if kind == "JPEG" else None
    packet = packet_with_record(metadata, limit=jpeg_limit, extended=kind == "JPEG")
    if packet:
        options["xmp"] = packet
    if kind == "JPEG":
        for name in ("exif", "xmp"):
            if len(options.get(name, b"")) > _SEGMENT_BYTES:
                logger.warning("JPEG has no room for %d bytes of %s", len(options[name]), name)
                del options[name]
        options["extra"] = _jpeg_segments(metadata)
    return options


def _jpeg_segments(metadata: Metadata) -> bytes:
    """Extended XMP, image resources and comments, as segments that Pillow writes as they are."""
    segments = [jpeg.photoshop_segments(metadata.photoshop)]
    if metadata.extended_xmp:
        segments.append(
            jpeg.extended_xmp_segments(metadata.extended_xmp, metadata.extended_xmp_digest)
        )
    for keyword, text in metadata.text:
        content = text.encode("utf-8", "surrogateescape")
        if keyword == "Comment":
            if len(content) > jpeg.SEGMENT_BYTES:
                logger.warning("JPEG has no room for %d bytes of comment", len(content))
            else:
                segments.append(jpeg.segment(jpeg.COMMENT, content))
    return b"".join(segments)


def _without_extension(metadata: Metadata) -> bytes:
    """The XMP packet for formats that hold no extended XMP."""
    if not metadata.extended_xmp:
        return metadata.xmp
    logger.warning("%d bytes of extended XMP are left out", len(metadata.extended_xmp))
    return xmp.drop_promises(metadata.xmp, extended=True)[0]


def _png_info(metadata: Metadata) -> PngInfo:
    info = PngInfo()
    for name, content in metadata.png_color:
        # A profile and sRGB exclude each other (PNG specification, 11.3.2.5).
        if not (name == b"sRGB" and metadata.icc_profile):
            info.add(name, content)
    for keyword, text in metadata.text:
        info.add_text(keyword, readable(text).replace("\0", ""))
    if metadata.record:
        info.add_itxt(RECORD_KEYWORD, metadata.record)
    packet = _without_extension(metadata)
    if packet:
        info.add_itxt(XMP_KEYWORD, packet.decode("utf-8", "replace"))
    return info


def _upright_exif(image: ImageFile | None, block: bytes) -> tuple[bytes, int | None]:
    """The EXIF block without prefix, and the orientation in 1..8 that it said.

    Args:
        image: asked where there is no block: some formats say the orientation elsewhere.
        block: the block with or without prefix, or empty.
    """
    try:
        exif = Image.Exif()
        if block:
            exif.load(block)
        elif image is not None:
            exif = image.getexif()
            block = exif.tobytes() if len(exif) else b""
        orientation = exif.get(tiff.ORIENTATION)
        block = re.sub(rb"^(Exif\0\0)+", b"", block)
        if block:
            block = tiff.turn_upright(block, single=True)[0]
    except (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error) as error:
        logger.warning("the EXIF block is damaged (%s): it is left out", error)
        return b"", None
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return block, orientation if valid else None


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
