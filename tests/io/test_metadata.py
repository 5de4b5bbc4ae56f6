"""What a file says beside its pixels: odd but legal forms, and what is no longer true."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from gfp_core.io import jpeg, xmp
from gfp_core.io.images import Picture, read_image, write_image
from gfp_core.io.metadata import Metadata

PHOTO = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
).resize((64, 80), Image.Resampling.BICUBIC)
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    PHOTO.save(stream, kind, **options)
    return stream.getvalue()


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    data = encoded("JPEG", quality=90)
    return data[:2] + b"".join(jpeg.segment(*segment) for segment in segments) + data[2:]


def packet(body: str, attributes: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}><rdf:Description rdf:about="" '
        f"{attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def resource(number: int, content: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content


def rewritten(tmp_path: Path, data: bytes, suffix: str = ".jpg") -> bytes:
    (tmp_path / "a.bin").write_bytes(data)
    write_image(tmp_path / f"b{suffix}", read_image(tmp_path / "a.bin"))
    return (tmp_path / f"b{suffix}").read_bytes()


# JPEG


@pytest.mark.parametrize("size", [10, 60_000, 200_000])
def test_image_resources_of_any_size_are_kept(tmp_path, size):
    block = resource(0x0404, b"\x1c\x02\x78\0\x03abc\0") + resource(2000, b"p" * size)
    parts = [block[at : at + 65_000] for at in range(0, len(block), 65_000)]
    data = with_segments(*((jpeg.APP13, jpeg.PHOTOSHOP + part) for part in parts))
    back = rewritten(tmp_path, data)
    assert b"".join(jpeg.read_structure(back).contents(jpeg.APP13, jpeg.PHOTOSHOP)) == block
    assert read_image(tmp_path / "b.jpg").metadata.photoshop == block
    write_image(tmp_path / "c.tif", read_image(tmp_path / "b.jpg"))
    assert read_image(tmp_path / "c.tif").metadata.photoshop == block


@pytest.mark.parametrize(
    "comments",
    [
        ["Müller, Café".encode("latin-1")],
        [b"first", b"second", b"first"],
        ["写真".encode("shift-jis"), "写真".encode()],
        [b"\0with\0zeros\0", b"x" * jpeg.SEGMENT_BYTES],
    ],
)
def test_comments_keep_their_bytes_their_number_and_their_order(tmp_path, comments):
    data = with_segments(*((jpeg.COMMENT, comment) for comment in comments))
    back = rewritten(tmp_path, data)
    assert jpeg.read_structure(back).contents(jpeg.COMMENT) == comments
    rewritten(tmp_path, data, ".png")
    texts = [text for keyword, text in read_image(tmp_path / "b.png").metadata.text]
    assert len(texts) == len(comments)
    if b"M\xfcller" in comments[0]:
        assert texts == ["Müller, Café"]


def test_a_comment_without_room_in_jpeg_is_left_out_and_said(tmp_path, caplog):
    text = (("Comment", "x" * 70_000), ("Comment", "short"))
    picture = Picture(np.zeros((4, 4, 3), np.float32), metadata=Metadata(text=text))
    write_image(tmp_path / "a.jpg", picture)
    assert read_image(tmp_path / "a.jpg").metadata.text == (("Comment", "short"),)
    assert "70000 bytes of comment" in caplog.text


PROMISES = packet(
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
    'Item:Mime="video/mp4"/></rdf:li></rdf:Seq></Container:Directory><dc:title>kept</dc:title>'
    "<GCamera:MicroVideoOffset>5000</GCamera:MicroVideoOffset>",
    'xmlns:dc="d" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" GCamera:MotionPhoto="1" '
    'GCamera:SpecialTypeID="kept too" hdrgm:Version="1.0" dc:creator="me"',
)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_xmp_does_not_promise_what_was_behind_the_picture(tmp_path, caplog, suffix):
    data = with_segments((jpeg.APP1, b"http://ns.adobe.com/xap/1.0/\0" + PROMISES))
    back = rewritten(tmp_path, data + encoded("JPEG") + b"\0\0\0\x18ftypmp42" + bytes(5000), suffix)
    assert "only its first picture is read" in caplog.text
    assert b"ftypmp42" not in back
    left = read_image(tmp_path / f"b{suffix}").metadata.xmp
    for promise in (b"MotionPhoto", b"MicroVideo", b"Container:Directory", b"hdrgm:Version"):
        assert promise not in left
    for other in (b"<dc:title>kept</dc:title>", b'SpecialTypeID="kept too"', b'dc:creator="me"'):
        assert other in left


def test_the_second_view_of_a_stereo_picture_is_said(tmp_path, caplog):
    stream = io.BytesIO()
    PHOTO.save(stream, "MPO", save_all=True, append_images=[PHOTO])
    back = rewritten(tmp_path, stream.getvalue())
    assert "another view" in caplog.text
    assert b"MPF\0" not in back


def test_a_few_bytes_of_padding_are_not_worth_a_word(tmp_path, caplog):
    rewritten(tmp_path, encoded("JPEG") + bytes(4096))
    rewritten(tmp_path, encoded("JPEG") + b"\r\n")
    assert not caplog.text


@pytest.mark.parametrize("size", [100, 150_000])
def test_extended_xmp_is_kept_by_jpeg_and_not_promised_by_others(tmp_path, caplog, size):
    extended = packet("<a:b>" + "x" * size + "</a:b>", 'xmlns:a="a"')
    digest = hashlib.md5(extended).hexdigest().upper().encode()
    main = packet(
        "",
        'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" '
        f'xmpNote:HasExtendedXMP="{digest.decode()}" xmlns:a="a" a:c="kept"',
    )
    parts = [(at, extended[at : at + 65_000]) for at in range(0, len(extended), 65_000)]
    head = jpeg.EXTENDED_XMP + digest + struct.pack(">I", len(extended))
    segments = [(jpeg.APP1, head + struct.pack(">I", at) + part) for at, part in reversed(parts)]
    data = with_segments((jpeg.APP1, b"http://ns.adobe.com/xap/1.0/\0" + main), *segments)
    back = jpeg.read_structure(rewritten(tmp_path, data))
    contents = back.contents(jpeg.APP1, jpeg.EXTENDED_XMP)
    assert jpeg.join_extended_xmp(contents) == (extended, digest)
    assert digest in read_image(tmp_path / "b.jpg").metadata.xmp
    rewritten(tmp_path, data, ".png")
    assert read_image(tmp_path / "b.png").metadata.xmp.count(b"HasExtendedXMP") == 0
    assert b'a:c="kept"' in read_image(tmp_path / "b.png").metadata.xmp
    assert "bytes of extended XMP are left out" in caplog.text
    broken = with_segments((jpeg.APP1, b"http://ns.adobe.com/xap/1.0/\0" + main), *segments[1:])
    rewritten(tmp_path, broken)
    assert b"HasExtendedXMP" not in read_image(tmp_path / "b.jpg").metadata.xmp


@pytest.mark.parametrize("quality", [85, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_to_jpeg_uses_the_same_tables(tmp_path, quality, subsampling, mode):
    options = {} if mode == "L" else {"subsampling": subsampling}
    PHOTO.convert(mode).save(tmp_path / "a.jpg", quality=quality, **options)
    write_image(tmp_path / "b.jpg", read_image(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "b.jpg") as after:
        assert after.quantization == before.quantization
        assert [layer[1:3] for layer in after.layer] == [layer[1:3] for layer in before.layer]
        change = np.abs(np.asarray(after).astype(int) - np.asarray(before))
    assert change.mean() < (0.05 if subsampling == 0 or mode == "L" else 1)


def test_tables_that_would_harm_the_faces_are_not_used_again(tmp_path):
    PHOTO.save(tmp_path / "a.jpg", quality=40)
    picture = read_image(tmp_path / "a.jpg")
    PHOTO.save(tmp_path / "c.jpg", quality=95)
    for changed, options in (
        (picture, {}),
        (replace(read_image(tmp_path / "c.jpg"), pixels=picture.pixels[:40]), {"quality": 95}),
    ):
        write_image(tmp_path / "b.jpg", changed, **options)
        with Image.open(tmp_path / "b.jpg") as seen, Image.open(tmp_path / "c.jpg") as fine:
            assert seen.quantization == fine.quantization
            assert {layer[1:3] for layer in seen.layer} == {(1, 1)}


def test_tables_turn_with_the_picture(tmp_path):
    tables = [[*range(1, 65)], [*range(2, 66)]]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    PHOTO.save(tmp_path / "a.jpg", qtables=tables, subsampling=0, exif=exif)
    picture = read_image(tmp_path / "a.jpg")
    assert picture.jpeg.size == (80, 64)
    turned = np.reshape(tables[0], (8, 8)).T.flatten()
    assert picture.jpeg.tables[0] == tuple(turned.tolist())


# PNG


LARGE = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
LARGE = struct.pack(">I", len(LARGE) + 1_200_000) + LARGE[4:] + bytes(1_200_000)


@pytest.mark.parametrize("depth", [8, 16])
def test_large_texts_and_profiles_come_back(tmp_path, depth):
    metadata = Metadata(
        icc_profile=LARGE,
        xmp=packet("x" * 1_500_000),
        text=(("workflow", "x" * 1_500_000), ("prompt", "写" * 1_500_000)),
    )
    picture = Picture(np.full((8, 8, 3), 0.5, np.float32), depth, metadata=metadata)
    write_image(tmp_path / "a.png", picture)
    back = read_image(tmp_path / "a.png").metadata
    assert back.icc_profile == LARGE
    assert back.xmp == metadata.xmp
    assert back.text == metadata.text


@pytest.mark.parametrize("packed", [False, True])
def test_large_texts_of_others_are_read(tmp_path, packed):
    info = PngImagePlugin.PngInfo()
    info.add_text("latin", "é" * 1_500_000, zip=packed)
    info.add_itxt("unicode", "写" * 1_500_000, lang="ja", tkey="k", zip=packed)
    for number in range(70):
        info.add_text(f"k{number}", "x" * 1_000_000)
    (tmp_path / "a.png").write_bytes(encoded("PNG", pnginfo=info, icc_profile=LARGE))
    metadata = read_image(tmp_path / "a.png").metadata
    texts = dict(metadata.text)
    assert texts["latin"] == "é" * 1_500_000
    assert texts["unicode"] == "写" * 1_500_000
    assert len(texts) == 72
    assert metadata.icc_profile == LARGE


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"zTXt", b"k\0\0" + zlib.compress(bytes(300 << 20), 1)),  # a bomb
        (b"iCCP", b"k\0\0" + zlib.compress(bytes(300 << 20), 1)),
        (b"zTXt", b"k\0\0garbage"),
        (b"zTXt", b"k"),
        (b"iTXt", b"k\0\1"),
        (b"iCCP", b"k\0\0" + zlib.compress(bytes(1000))[:-5]),
    ],
)
def test_a_damaged_entry_does_not_cost_the_picture(tmp_path, caplog, name, content):
    data = encoded("PNG")
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(name, content) + data[33:])
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.rint(picture.pixels * 255), np.asarray(PHOTO))
    assert not picture.metadata.icc_profile
    assert "left out" in caplog.text


# What is no longer true


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_tags_of_the_size_say_the_size(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageWidth] = 64
    exif[ExifTags.IFD.Exif] = {40962: 64, 40963: 80, 36867: "2020:01:02 03:04:05"}
    said = packet(
        "<exif:PixelYDimension>80</exif:PixelYDimension>",
        'xmlns:exif="e" exif:PixelXDimension="64" xmlns:tiff="t" tiff:ImageWidth="64"',
    )
    PHOTO.save(tmp_path / "a.jpg", exif=exif, xmp=said)
    picture = read_image(tmp_path / "a.jpg")
    pixels = np.zeros((33, 100_000 if suffix == ".tif" else 70, 3), np.float32)
    for changed, width, height in (
        (picture, picture.width, picture.height),
        (replace(picture, pixels=pixels), pixels.shape[1], 33),
    ):
        write_image(tmp_path / f"b{suffix}", changed)
        back = read_image(tmp_path / f"b{suffix}").metadata
        block = Image.Exif()
        block.load(back.exif)
        nested = block.get_ifd(ExifTags.IFD.Exif)
        assert (nested[40962], nested[40963]) == (width, height)
        assert nested[36867] == "2020:01:02 03:04:05"
        assert block.get(ExifTags.Base.ImageWidth, width) == width
        assert f'exif:PixelXDimension="{width}"'.encode() in back.xmp
        assert f"<exif:PixelYDimension>{height}<".encode() in back.xmp
        assert f'tiff:ImageWidth="{width}"'.encode() in back.xmp


def test_a_derived_picture_keeps_what_belongs_to_it(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = Metadata(icc_profile=profile, dpi=(300.0, 300.0), record="x = 1", xmp=packet(""))
    picture = Picture(np.zeros((8, 9, 3), np.float32), 16, metadata=source)
    crop = picture.derived(np.full((4, 5, 3), 0.3, np.float32))
    write_image(tmp_path / "a.png", crop)
    back = read_image(tmp_path / "a.png")
    assert (back.height, back.width, back.bit_depth) == (4, 5, 16)
    assert back.metadata == replace(source, record="", dpi=back.metadata.dpi)
    assert back.metadata.dpi == pytest.approx((300, 300), abs=0.02)


def test_a_hostile_xmp_packet_is_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + packet("&a;").replace(b"x", b"y")
    assert xmp.remove_record(xmp.add_record(bomb, "r"))[1] == "r"
