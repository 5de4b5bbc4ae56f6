"""Edit XMP packets in place: orientation and our record of what was done to a picture.

A packet (ISO 16684-1) is RDF in XML. It is changed as text, so that everything else in the packet
stays byte for byte what the program that wrote the packet made of it.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape, unescape

NAMESPACE = "https://github.com/gfp-face-restoration/gfp-face-restoration/ns/1.0/"
_PROMISES = {
    "http://ns.google.com/photos/1.0/camera/": r"(?:MotionPhoto|MicroVideo)\w*",
    "http://ns.google.com/photos/1.0/container/": r"\w+",
    "http://ns.google.com/photos/dd/1.0/device/": r"\w+",
    "http://ns.google.com/photos/1.0/depthmap/": r"\w+",
    "http://ns.adobe.com/hdr-gain-map/1.0/": r"\w+",
    "http://ns.apple.com/HDRGainMap/1.0/": r"\w+",
}
_EXTENDED = {"http://ns.adobe.com/xmp/note/": "HasExtendedXMP"}
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_LINE_ENDS = {"\r": "&#13;"}  # XML would read a plain one as \n
_QUOTES = {"&quot;": '"', "&apos;": "'", "&#10;": "\n", "&#xA;": "\n", "&#9;": "\t", "&#13;": "\r"}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def to_utf8(packet: bytes | str) -> bytes:
    """Recode a packet as UTF-8; a packet of another or no encoding is returned as it is."""
    if isinstance(packet, str):
        return packet.encode("utf-8", "surrogatepass")
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"\xef\xbb\xbf", "utf-8-sig"),
    ):
        if packet.startswith(mark):
            try:
                return packet.decode(encoding).encode()
            except UnicodeDecodeError:
                return packet
    return packet


def set_upright(packet: bytes) -> tuple[bytes, int | None]:
    """Set the orientation to 1; return the packet and the orientation in 1..8 it had, or None."""
    pattern = rb"(tiff:Orientation(?:\s*=\s*[\"']|>))([1-8])"
    match = re.search(pattern, packet)
    return re.sub(pattern, rb"\g<1>1", packet), int(match[2]) if match else None


def set_size(packet: bytes, width: int, height: int) -> bytes:
    """Set the properties that say the picture's size in pixels, where there are any."""
    for names, side in (
        (rb"exif:PixelXDimension|tiff:ImageWidth", width),
        (rb"exif:PixelYDimension|tiff:ImageLength", height),
    ):
        pattern = rb"((?:" + names + rb")(?:\s*=\s*[\"']|>)\s*)\d+"
        packet = re.sub(pattern, rb"\g<1>%d" % side, packet)
    return packet


def drop_promises(packet: bytes, *, extended: bool) -> tuple[bytes, list[str]]:
    """Remove what a packet says about data behind the picture, which are not kept.

    These are the video of a motion photo, gain maps, depth maps and the parts of a container.

    Args:
        packet: UTF-8 XMP.
        extended: also remove the link to extended XMP.

    Returns:
        The packet, and the names of the properties that were removed.
    """
    text, removed = packet.decode("utf-8", "surrogateescape"), []
    promises = {**_PROMISES, **(_EXTENDED if extended else {})}
    for namespace, names in promises.items():
        if namespace not in text:
            continue
        uri = re.escape(namespace)
        for prefix in sorted(set(re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{uri}[\"']", text))):
            name = rf"(?P<name>{re.escape(prefix)}:(?:{names}))"
            for pattern in (
                rf"<{name}(?:\s[^<>]*)?/>",
                rf"<{name}(?:\s[^<>]*)?>.*?</(?P=name)\s*>",
                rf"\s{name}\s*=\s*(?P<quote>[\"']).*?(?P=quote)",
            ):
                removed += [match["name"] for match in re.finditer(pattern, text, re.DOTALL)]
                text = re.sub(pattern, "", text, flags=re.DOTALL)
    return text.encode("utf-8", "surrogateescape"), removed


def add_record(packet: bytes, record: str) -> bytes:
    """Add the record of what was done as a property of our namespace, in place of an older one.

    Args:
        packet: UTF-8 XMP, or empty for a new packet.
        record: any text of characters that XML allows.

    Raises:
        ValueError: the text holds other characters, or the packet is no XMP.
    """
    if match := _NO_XML.search(record):
        raise ValueError(f"the record holds the character {match[0]!r}, which XML does not allow")
    packet = remove_record(packet)[0]
    description = (
        f'<rdf:Description xmlns:rdf="{_RDF}" rdf:about="" xmlns:gfp="{NAMESPACE}">'
        f"<gfp:Record>{escape(record, _LINE_ENDS)}</gfp:Record></rdf:Description>"
    ).encode()
    rdf = b'<rdf:RDF xmlns:rdf="' + _RDF.encode() + b'">' + description + b"</rdf:RDF>"
    if not packet.strip(b"\0 \t\r\n"):
        return b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + rdf + b"</x:xmpmeta>"
    ends = list(re.finditer(rb"</[\w.-]+:RDF\s*>", packet))
    if ends:
        at = ends[-1].start()
        return packet[:at] + description + packet[at:]
    if empty := re.search(rb"<([\w.-]+:RDF)\b([^<>]*)/>", packet):
        opened = b"<%s%s>%s</%s>" % (empty[1], empty[2], description, empty[1])
        return packet[: empty.start()] + opened + packet[empty.end() :]
    ends = list(re.finditer(rb"</[\w.-]+:xmpmeta\s*>", packet))
    if not ends:
        raise ValueError("the XMP packet is damaged")
    at = ends[-1].start()
    return packet[:at] + rdf + packet[at:]


def remove_record(packet: bytes) -> tuple[bytes, str | None]:
    """Take our record out of a packet, in whichever form another program has rewritten it.

    Returns:
        The packet without (empty, if it held nothing else), and the record or None.
    """
    if NAMESPACE.encode() not in packet:
        return packet, None
    text = packet.decode("utf-8", "surrogateescape")
    record = None
    for prefix in sorted(set(re.findall(rf"xmlns:([\w.-]+)\s*=\s*[\"']{NAMESPACE}[\"']", text))):
        name = rf"{re.escape(prefix)}:Record"
        for pattern in (
            rf"<{name}(?:\s[^<>]*)?>(?P<text>[^<]*)</{name}\s*>",
            rf"\s{name}\s*=\s*(?P<quote>[\"'])(?P<text>[^<]*?)(?P=quote)",
        ):
            if match := re.search(pattern, text):
                record = unescape(match["text"], _QUOTES)
                text = text[: match.start()] + text[match.end() :]
    text = re.sub(
        rf"<rdf:Description(?:\s+(?:rdf:about=[\"'][\"']|xmlns:rdf=[\"']{re.escape(_RDF)}[\"']"
        rf"|xmlns:[\w.-]+=[\"']{NAMESPACE}[\"']))*\s*(?:/>|>\s*</rdf:Description>)",
        "",
        text,
    )
    packet = text.encode("utf-8", "surrogateescape")
    return (b"" if _is_hollow(packet) else packet), record


def _is_hollow(packet: bytes) -> bool:
    """Whether a packet says nothing: only its frame is left."""
    if b"<!" in packet:  # entities are never expanded
        return False
    try:
        root = ElementTree.fromstring(packet)
    except ElementTree.ParseError:
        return False
    rdf = root if root.tag == f"{{{_RDF}}}RDF" else root.find(f"{{{_RDF}}}RDF")
    return rdf is not None and len(rdf) == 0 and len(root) <= 1
