"""What was done to a picture: written into the file, and read back."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gfp_core.io import xmp
from gfp_core.io.images import (
    ImageError,
    Picture,
    copy_image,
    read_image,
    read_record,
    write_image,
)
from gfp_core.io.metadata import Metadata

RECORD = 'version = "0.1.0"\r\n[blend]\n\tgrain = 0.5 # <&>\'"]]>\nmodel = "grüße 写真 😀"\n'
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
OLD = (
    f'<?xpacket begin="\ufeff" id="x"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>'
    '<rdf:Description rdf:about="" xmlns:dc="d" dc:creator="Zoë"/></rdf:RDF></x:xmpmeta> '
    '  <?xpacket end="w"?>'
).encode()
SUFFIXES = [".png", ".jpg", ".webp", ".tif"]


def picture(depth: int = 8, **metadata: object) -> Picture:
    return Picture(np.full((8, 9, 3), 0.5, np.float32), depth, metadata=Metadata(**metadata))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("packet", [b"", OLD])
def test_a_record_comes_back_beside_the_xmp_of_the_source(tmp_path, suffix, depth, packet):
    write_image(tmp_path / f"a{suffix}", picture(depth, xmp=packet), record=RECORD)
    assert read_record(tmp_path / f"a{suffix}") == RECORD
    back = read_image(tmp_path / f"a{suffix}")
    assert back.metadata.record == RECORD
    assert back.metadata.xmp == packet
    assert back.metadata.text == ()
    with Image.open(tmp_path / f"a{suffix}") as image:
        packets = [image.info["xmp"]] if "xmp" in image.info else []
    for written in packets:
        ElementTree.fromstring(written)  # well-formed


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_a_record_goes_from_format_to_format_and_is_replaced(tmp_path, first, second):
    write_image(tmp_path / f"a{first}", picture(xmp=OLD), record=RECORD)
    target = tmp_path / f"b{second}"
    write_image(target, read_image(tmp_path / f"a{first}"))
    assert read_record(target) == RECORD
    write_image(target, read_image(tmp_path / f"a{first}"), record="new = 1")
    assert read_record(target) == "new = 1"
    assert b"version" not in target.read_bytes()
    write_image(target, read_image(target), record="")
    assert read_record(target) is None
    assert read_image(target).metadata.xmp == OLD


def test_a_record_rewritten_by_another_program_is_read_and_replaced():
    packet = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}><rdf:Description rdf:about="" '
        f'xmlns:q="{xmp.NAMESPACE}" q:Record="a = 1&#xA;b = &quot;&lt;&quot;" dc:x="y"/></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()
    rest, record = xmp.remove_record(packet)
    assert record == 'a = 1\nb = "<"'
    assert b'dc:x="y"' in rest
    assert xmp.remove_record(xmp.add_record(packet, "new"))[1] == "new"
    assert b"a = 1" not in xmp.add_record(packet, "new")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_xmp_of_another_encoding_is_kept(tmp_path, encoding):
    text = OLD.decode().replace("\ufeff", "")
    write_image(tmp_path / "a.jpg", picture(xmp=text.encode(encoding)), record="x = 1")
    # The source's packet is recoded when it is read, so that a record can be added.
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg", xmp=text.encode(encoding))
    write_image(tmp_path / "c.jpg", read_image(tmp_path / "b.jpg"), record="x = 1")
    assert read_record(tmp_path / "c.jpg") == "x = 1"
    assert read_image(tmp_path / "c.jpg").metadata.xmp == text.encode()


def test_xmp_that_is_no_xmp_is_kept_and_the_record_left_out(tmp_path, caplog):
    write_image(tmp_path / "a.jpg", picture(xmp=b"garbage"), record="x = 1")
    assert read_record(tmp_path / "a.jpg") is None
    assert read_image(tmp_path / "a.jpg").metadata.xmp == b"garbage"
    assert "record of what was done is left out" in caplog.text


def test_a_record_without_room_in_jpeg_does_not_cost_the_xmp(tmp_path, caplog):
    packet = OLD.replace(b"Zo", b"Z" * 65_000)
    write_image(tmp_path / "a.jpg", picture(xmp=packet), record="x" * 1000)
    assert read_image(tmp_path / "a.jpg").metadata.xmp == packet
    assert "no room" in caplog.text


def test_a_copy_keeps_the_record(tmp_path):
    write_image(tmp_path / "a.webp", picture(), record=RECORD)
    copy_image(tmp_path / "a.webp", tmp_path / "b.webp")
    assert read_record(tmp_path / "b.webp") == RECORD


def test_files_without_a_record(tmp_path):
    write_image(tmp_path / "a.bmp", replace(picture()), record=RECORD)
    assert read_record(tmp_path / "a.bmp") is None
    write_image(tmp_path / "a.png", picture())
    assert read_record(tmp_path / "a.png") is None
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        read_record(tmp_path / "gone.png")
    (tmp_path / "a.toml").write_text("x = 1")
    with pytest.raises(ImageError, match=r"a\.toml is no PNG"):
        read_record(tmp_path / "a.toml")
