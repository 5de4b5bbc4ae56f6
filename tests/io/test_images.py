"""Files in and out: round trips, metadata, bad input."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps

from gfp_core.io import memory, reading, tiff
from gfp_core.io.images import (
    ImageError,
    Picture,
    copy_image,
    from_frames,
    read_image,
    to_frames,
    write_image,
)
from gfp_core.io.metadata import Metadata

QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(shape: tuple[int, ...], depth: int, seed: int = 0) -> np.ndarray:
    high = 256 if depth == 8 else 65536
    return np.random.default_rng(seed).integers(0, high, shape).astype(f"uint{depth}")


def floats(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)


def photo(path: Path, seed: int = 0, **options: object) -> Path:
    """A smooth little RGB picture, so that JPEG keeps it nearly as it is."""
    small = Image.fromarray(levels((4, 3, 3), 8, seed))
    small.resize((48, 64), Image.Resampling.BICUBIC).save(path, **options)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def foreign_png16(samples: np.ndarray, colour: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG as the specification says, without any code of ours."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


# Round trips


@QUICK
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([3, 4]),
    depth=st.sampled_from([8, 16]),
    suffix=st.sampled_from([".png", ".tif"]),
    seed=st.integers(0, 99),
)
def test_whole_numbers_come_back_bit_by_bit(tmp_path, height, width, channels, depth, suffix, seed):
    pixels = floats(levels((height, width, channels), depth, seed))
    path = tmp_path / f"a{suffix}"
    write_image(path, Picture(pixels, depth))
    back = read_image(path)
    assert back.bit_depth == depth
    assert not back.gray
    assert back.pixels.dtype == np.float32
    np.testing.assert_array_equal(back.pixels, pixels)


@QUICK
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    alpha=st.booleans(),
    seed=st.integers(0, 99),
)
def test_lossless_webp_comes_back_bit_by_bit(tmp_path, height, width, alpha, seed):
    pixels = floats(levels((height, width, 4 if alpha else 3), 8, seed))
    if alpha:
        pixels[0, 0, 3] = 0  # the colour of a transparent pixel is kept too
        pixels[-1, -1, 3] = 0.2
    write_image(tmp_path / "a.webp", Picture(pixels, lossless=True))
    back = read_image(tmp_path / "a.webp")
    assert back.lossless
    write_image(tmp_path / "a.webp", replace(back, metadata=full_metadata()))
    assert read_image(tmp_path / "a.webp").lossless
    np.testing.assert_array_equal(back.pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_grey_stays_grey_as_long_as_it_is(tmp_path, suffix, depth, alpha):
    grey = levels((9, 7, 1), depth)
    samples = np.concatenate([grey] * 3 + ([levels((9, 7, 1), depth, 1)] if alpha else []), 2)
    picture = Picture(floats(samples), depth, gray=True)
    path = tmp_path / f"a{suffix}"
    write_image(path, picture)
    back = read_image(path)
    assert back.bit_depth == depth
    assert back.gray == (not (suffix == ".tif" and depth == 16 and alpha))
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    samples[2, 3, 0] ^= 1
    coloured = floats(samples)
    write_image(path, replace(picture, pixels=coloured))
    back = read_image(path)
    assert not back.gray
    np.testing.assert_array_equal(back.pixels, coloured)


@pytest.mark.parametrize("channels", [3, 4])
def test_float_tiff_keeps_values_beyond_one(tmp_path, channels):
    pixels = np.random.default_rng(0).normal(0.5, 2, (13, 9, channels)).astype(np.float32)
    write_image(tmp_path / "a.tiff", Picture(pixels, 32))
    back = read_image(tmp_path / "a.tiff")
    assert back.bit_depth == 32
    np.testing.assert_array_equal(back.pixels, pixels)


def test_large_tiff_of_many_strips_is_read_by_others(tmp_path):
    samples = levels((700, 1100, 3), 16)
    write_image(tmp_path / "a.tif", Picture(floats(samples), 16))
    assert len(tiff.first_directory((tmp_path / "a.tif").read_bytes())[273]) > 3
    seen = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen[..., ::-1], samples)
    write_image(tmp_path / "b.tif", Picture(floats(samples), 8))
    with Image.open(tmp_path / "b.tif") as seen:
        np.testing.assert_array_equal(np.asarray(seen), np.rint(floats(samples) * 255))


def test_png16_is_read_by_others(tmp_path):
    samples = levels((31, 17, 4), 16)
    write_image(tmp_path / "a.png", Picture(floats(samples), 16))
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen[..., [2, 1, 0, 3]], samples)
    with Image.open(tmp_path / "a.png") as seen:
        seen.load()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_are_near(tmp_path, suffix):
    picture = read_image(photo(tmp_path / "a.png"))
    write_image(tmp_path / f"b{suffix}", replace(picture, lossless=False))
    back = read_image(tmp_path / f"b{suffix}")
    assert not back.lossless
    assert np.abs(back.pixels - picture.pixels).mean() < 0.02


def test_jpeg_keeps_the_chroma_at_full_size(tmp_path):
    write_image(tmp_path / "a.jpg", read_image(photo(tmp_path / "a.png")))
    with Image.open(tmp_path / "a.jpg") as seen:
        assert {layer[1:3] for layer in seen.layer} == {(1, 1)}


def test_writing_clips_but_does_not_change_the_picture(tmp_path):
    pixels = np.array([[[-0.5, 0.5, 1.5], [0, np.inf, 1]]], np.float32)
    picture = Picture(pixels.copy())
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(picture.pixels, pixels)
    expected = [[[0, 128 / 255, 1], [0, 1, 1]]]
    np.testing.assert_allclose(read_image(tmp_path / "a.png").pixels, expected, atol=1e-6)


# What other programs write


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_16_bit_png_of_every_colour_type(tmp_path, colour, channels):
    samples = levels((6, 5, channels), 16)
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))  # must not be applied
    (tmp_path / "a.png").write_bytes(foreign_png16(samples, colour, gamma))
    picture = read_image(tmp_path / "a.png")
    assert (picture.bit_depth, picture.gray) == (16, colour in (0, 4))
    order = {1: [0, 0, 0], 2: [0, 0, 0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    np.testing.assert_array_equal(picture.pixels, floats(samples[..., order]))
    write_image(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as seen:
        assert seen.info["gamma"] == 1.0


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_16_bit_png_with_a_transparent_colour(tmp_path, colour, channels):
    samples = levels((6, 5, channels), 16)
    key = samples[2, 3]
    transparency = chunk(b"tRNS", struct.pack(f">{channels}H", *key.tolist()))
    (tmp_path / "a.png").write_bytes(foreign_png16(samples, colour, transparency))
    pixels = read_image(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(pixels[..., 3] == 0, (samples == key).all(2))
    np.testing.assert_array_equal(pixels[..., :3], np.broadcast_to(floats(samples), (6, 5, 3)))


def test_palette_and_its_transparency(tmp_path):
    colours = levels((6, 5, 3), 8)
    palette = Image.fromarray(colours).quantize(30, dither=Image.Dither.NONE)
    expected = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, floats(expected))
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((1, 2)))
    picture = read_image(tmp_path / "b.png")
    assert picture.pixels.shape == (6, 5, 4)
    assert picture.pixels[2, 1, 3] == 0
    np.testing.assert_array_equal(picture.pixels[..., :3], floats(expected))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_every_mode_of_pillow(tmp_path, mode, suffix):
    if suffix == ".bmp" and "A" in mode:
        pytest.skip("BMP has no alpha here")
    channels = 4 if "A" in mode else 3
    image = Image.fromarray(levels((6, 5, channels), 8)).convert(mode)
    image.save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    wanted = "RGBA" if "A" in mode else "RGB"
    np.testing.assert_array_equal(picture.pixels, floats(np.asarray(image.convert(wanted))))
    assert picture.gray == (mode in ("1", "L", "LA"))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("profile", [False, True])
def test_cmyk_becomes_rgb(tmp_path, suffix, profile, monkeypatch):
    used = []
    if profile:  # no CMYK profile is at hand: look at what is asked of the colour engine

        def convert(image, source, target, outputMode):  # noqa: N803
            used.append((image.mode, outputMode))
            return image.convert("RGB")

        monkeypatch.setattr(reading.ImageCms, "profileToProfile", convert)
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    image.save(tmp_path / f"a{suffix}", icc_profile=SRGB if profile else None)
    picture = read_image(tmp_path / f"a{suffix}")
    assert used == [("CMYK", "RGB")] * profile
    assert picture.metadata.icc_profile == b""
    np.testing.assert_allclose(picture.pixels, np.broadcast_to([1.0, 0, 0], (8, 8, 3)), atol=0.02)


def test_cmyk_with_a_profile_that_cannot_be_used(tmp_path, caplog):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    image.save(tmp_path / "a.jpg", icc_profile=SRGB)
    pixels = read_image(tmp_path / "a.jpg").pixels
    np.testing.assert_allclose(pixels, np.broadcast_to([1.0, 0, 0], (8, 8, 3)), atol=0.02)
    assert "CMYK profile cannot be used" in caplog.text


def test_premultiplied_16_bit_tiff_becomes_straight(tmp_path):
    straight = levels((6, 5, 4), 16)
    straight[..., 3] |= 0x8000
    multiplied = straight.copy()
    multiplied[..., :3] = np.rint(straight[..., :3] * (straight[..., 3:] / 65535))
    data = bytearray(tiff.encode_tiff(multiplied))
    entry = data.index(struct.pack("<HHIH", 338, 3, 1, 2))
    struct.pack_into("<H", data, entry + 8, 1)
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").pixels, floats(straight), atol=3e-5)


def test_animated_files_give_their_first_frame_and_a_warning(tmp_path, caplog):
    first, second = (Image.fromarray(levels((8, 8, 3), 8, seed)) for seed in (0, 1))
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {})):
        caplog.clear()
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        picture = read_image(tmp_path / name)
        np.testing.assert_array_equal(picture.pixels, floats(np.asarray(first)))
        assert name in caplog.text
        assert "first" in caplog.text


# Orientation and metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_once_and_for_all(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "maker"
    source = photo(tmp_path / f"a{suffix}", exif=exif, dpi=(100, 200))
    with Image.open(source) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = read_image(source)
    np.testing.assert_array_equal(picture.pixels, floats(expected))
    write_image(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as back:
        assert back.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert back.getexif()[ExifTags.Base.Make] == "maker"
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(back)), expected)
        if suffix != ".webp":  # holds no resolution
            assert (back.info["dpi"][0] > 150) == (orientation > 4)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_of_deep_tiff(tmp_path, orientation):
    samples = levels((6, 5, 3), 16)
    data = bytearray(tiff.encode_tiff(samples))
    struct.pack_into("<H", data, data.index(struct.pack("<HHIH", 274, 3, 1, 1)) + 8, orientation)
    (tmp_path / "a.tif").write_bytes(data)
    turns = {1: 0, 3: 2, 6: -1}[orientation]
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif").pixels, np.rot90(floats(samples), turns)
    )


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" dc:x="y"/></x:xmpmeta>'


def test_orientation_said_by_xmp_alone(tmp_path):
    photo(tmp_path / "a.jpg", xmp=XMP)
    picture = read_image(tmp_path / "a.jpg")
    assert (picture.height, picture.width) == (48, 64)
    write_image(tmp_path / "b.jpg", picture)
    again = read_image(tmp_path / "b.jpg")
    assert (again.height, again.width) == (48, 64)
    assert b'tiff:Orientation="1" dc:x="y"' in again.metadata.xmp


def full_metadata() -> Metadata:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.Base.Orientation] = 1
    exif[ExifTags.IFD.Exif] = {36867: "2020:01:02 03:04:05", 33434: 0.125}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (51.0, 30.0, 12.0)}
    return Metadata(
        exif=exif.tobytes()[6:],
        icc_profile=SRGB,
        xmp=XMP.replace(b'"6"', b'"1"'),
        photoshop=b"8BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x78\0\x03abc",
        dpi=(300.0, 150.0),
        text=(("workflow", '{"nodes": []}'), ("Comment", "grüße 写真")),
    )


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_metadata_survives_where_the_format_has_a_place(tmp_path, suffix, depth):
    source = full_metadata()
    picture = Picture(floats(levels((8, 8, 3), depth)), depth, metadata=source)
    write_image(tmp_path / f"a{suffix}", picture)
    back = read_image(tmp_path / f"a{suffix}").metadata
    assert back.icc_profile == source.icc_profile
    assert back.xmp == source.xmp
    exif = Image.Exif()
    exif.load(back.exif)
    assert exif[ExifTags.Base.Make] == "maker"
    assert exif.get_ifd(ExifTags.IFD.Exif)[36867] == "2020:01:02 03:04:05"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (51.0, 30.0, 12.0)
    if suffix != ".tif":
        assert back.exif == source.exif
    if suffix != ".webp":
        assert back.dpi == pytest.approx(source.dpi, abs=0.02)
    if suffix in (".tif", ".jpg"):
        assert back.photoshop == source.photoshop
    if suffix == ".png":
        assert back.text == source.text
    if suffix == ".jpg":
        assert back.text == (("Comment", "grüße 写真"),)


def test_the_thumbnail_of_the_unrestored_picture_is_not_kept(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    block = bytearray(exif.tobytes()[6:])
    # Pillow writes no second directory: add an empty one, linked from the first.
    little = block[:2] == b"II"
    (count,) = struct.unpack_from("<H" if little else ">H", block, 8)
    struct.pack_into("<I" if little else ">I", block, 10 + 12 * count, len(block))
    thumbnail = struct.pack("<HHHIII" if little else ">HHHIII", 1, 513, 4, 1, 99, 0)
    photo(tmp_path / "a.jpg", exif=b"Exif\0\0" + bytes(block) + thumbnail)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {513: 99}
    write_image(tmp_path / "b.jpg", read_image(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1) == {}
        assert image.getexif()[ExifTags.Base.Make] == "maker"


def test_damaged_exif_does_not_cost_the_picture(tmp_path, caplog):
    for number, block in enumerate((b"garbage", b"II*\0\xff\xff\0\0", b"MM\0*\0\0\0\x08\0\x09ab")):
        photo(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
        picture = read_image(tmp_path / "a.jpg")
        assert picture.pixels.shape == (64, 48, 3), number
        for suffix in (".png", ".jpg", ".webp", ".tif"):
            write_image(tmp_path / f"b{suffix}", picture)
            read_image(tmp_path / f"b{suffix}")


def test_metadata_too_long_for_jpeg_is_left_out_and_said(tmp_path, caplog):
    photo(tmp_path / "a.png")
    picture = replace(read_image(tmp_path / "a.png"), metadata=Metadata(xmp=b"x" * 70_000))
    write_image(tmp_path / "a.jpg", picture)
    assert read_image(tmp_path / "a.jpg").metadata.xmp == b""
    assert "70000 bytes of xmp" in caplog.text


def test_grey_profile_is_left_out_when_colour_comes_in(tmp_path, caplog):
    profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    pixels = np.full((4, 4, 3), 0.5, np.float32)
    picture = Picture(pixels, gray=True, metadata=Metadata(icc_profile=profile))
    write_image(tmp_path / "a.tif", picture)
    assert read_image(tmp_path / "a.tif").metadata.icc_profile == profile
    pixels[0, 0, 0] = 1
    write_image(tmp_path / "a.tif", picture)
    assert read_image(tmp_path / "a.tif").metadata.icc_profile == b""
    assert "profile" in caplog.text


# Sizes


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_slim_pictures(tmp_path, shape, suffix):
    pixels = np.full((*shape, 3), 0.2, np.float32)
    write_image(tmp_path / f"a{suffix}", Picture(pixels))
    np.testing.assert_allclose(read_image(tmp_path / f"a{suffix}").pixels, pixels, atol=0.01)


@pytest.mark.slow
def test_huge_photograph(tmp_path):
    Image.new("L", (8192, 8192), 77).save(tmp_path / "a.png", compress_level=1)
    picture = read_image(tmp_path / "a.png")
    assert (picture.width, picture.height) == (8192, 8192)
    assert picture.pixels[-1, -1, 2] == np.float32(77) / np.float32(255)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_photograph_beyond_the_limit_of_pillow_is_no_bomb(tmp_path, suffix, monkeypatch):
    path = photo(tmp_path / f"a{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(path).pixels.shape == (64, 48, 3)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    data = bytearray(foreign_png16(levels((1, 1, 3), 16), 2))
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data[8:33] = chunk(b"IHDR", header)
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"bomb\.png .*40000x40000.*1000 megapixels"):
        read_image(tmp_path / "bomb.png")


def test_sides_beyond_the_format(tmp_path):
    picture = Picture(np.zeros((1, 20_000, 3), np.float32))
    write_image(tmp_path / "a.jpg", picture)
    with pytest.raises(ImageError, match=r"a\.webp .*16383"):
        write_image(tmp_path / "a.webp", picture)
    assert sorted(os.listdir(tmp_path)) == ["a.jpg"]


# Bad input


def test_missing_empty_folder_and_no_picture(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.jpg is no PNG"):
        read_image(tmp_path / "text.jpg")


def test_path_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"a\.png cannot be read"):
        read_image(tmp_path / "file" / "a.png")
    with pytest.raises(ImageError, match=r"a\.png cannot be written .*another place"):
        write_image(tmp_path / "file" / "a.png", Picture(np.zeros((2, 2, 3), np.float32)))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets in the file system")
def test_a_device_does_not_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        with pytest.raises(ImageError, match="folder or a device"):
            read_image("s.png")


def test_unreadable(tmp_path, monkeypatch):
    photo(tmp_path / "a.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(memory, "open_regular", refuse)
    with pytest.raises(ImageError, match=r"a\.png cannot be read \(Permission denied\)"):
        read_image(tmp_path / "a.png")


FORMATS = {
    "jpg": {"format": "JPEG"},
    "progressive": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "plain tif": {"format": "TIFF"},
    "bmp": {"format": "BMP"},
}


def pixels_or_error(path: Path) -> np.ndarray | None:
    """The pixels; None where reading ends in the one clear error. Others get through."""
    message = ""
    try:
        return read_image(path).pixels
    except ImageError as error:
        message = str(error)
    assert path.name in message
    return None


@QUICK
@given(kind=st.sampled_from([*FORMATS, "png16", "tif16"]), part=st.floats(0, 1))
def test_a_file_cut_short_is_an_error_or_whole(tmp_path, kind, part):
    path = tmp_path / "a.bin"
    if kind in FORMATS:
        photo(path, **FORMATS[kind])
    else:
        deep = tmp_path / f"a.{kind[:3]}"
        write_image(deep, Picture(floats(levels((64, 48, 3), 16)), 16))
        os.replace(deep, path)
    whole = read_image(path).pixels
    data = path.read_bytes()
    path.write_bytes(data[: min(int(part * len(data)), len(data) - 1)])
    read = pixels_or_error(path)
    if read is not None:  # only what does not belong to the pixels was cut off
        np.testing.assert_array_equal(read, whole)


@QUICK
@given(kind=st.sampled_from(list(FORMATS)), at=st.floats(0, 1), garbage=st.binary(min_size=8))
def test_damaged_files_give_a_picture_or_one_clear_error(tmp_path, kind, at, garbage):
    path = photo(tmp_path / "a.bin", **FORMATS[kind])
    data = bytearray(path.read_bytes())
    start = int(at * len(data))
    data[start : start + len(garbage)] = garbage
    path.write_bytes(data)
    read = pixels_or_error(path)
    assert read is None or read.ndim == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_pixels_stay_in_tiff(tmp_path, bad):
    pixels = np.full((4, 5, 3), 0.25, np.float32)
    pixels[1, 2, 0] = bad
    picture = Picture(pixels, 32)
    write_image(tmp_path / "a.tif", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pixels)
    if np.isnan(bad):
        with pytest.raises(ImageError, match=r"b\.png .*NaN"):
            write_image(tmp_path / "b.png", picture)
        assert not (tmp_path / "b.png").exists()


def test_unknown_ending(tmp_path):
    with pytest.raises(ImageError, match=r"a\.gif ends in none of \.png"):
        write_image(tmp_path / "a.gif", Picture(np.zeros((2, 2, 3), np.float32)))


def test_alpha_is_left_out_of_jpeg_and_said(tmp_path, caplog):
    pixels = floats(levels((8, 8, 4), 8))
    write_image(tmp_path / "a.jpg", Picture(pixels))
    assert read_image(tmp_path / "a.jpg").pixels.shape == (8, 8, 3)
    assert "no alpha" in caplog.text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written(tmp_path, monkeypatch, error):
    target = photo(tmp_path / "a.png")
    before = target.read_bytes()

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    expected = ImageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_image(target, Picture(np.zeros((2, 2, 3), np.float32)))
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_written_files_have_the_usual_rights(tmp_path):
    write_image(tmp_path / "a.png", Picture(np.zeros((2, 2, 3), np.float32)))
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_copy_is_byte_by_byte(tmp_path):
    photo(tmp_path / "a.jpg")
    copy_image(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ImageError, match="does not exist"):
        copy_image(tmp_path / "gone.jpg", tmp_path / "c.jpg")


# Tensors


@pytest.mark.parametrize("channels", [3, 4])
def test_frames_there_and_back(channels):
    picture = Picture(floats(levels((5, 7, channels), 16)), 16, metadata=full_metadata())
    frames = to_frames(picture)
    assert frames.shape == (1, channels, 5, 7)
    assert frames.dtype == torch.float32
    assert frames[0, 1, 2, 3] == picture.pixels[2, 3, 1]
    frames += 0  # its own memory
    back = from_frames(frames, picture)
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    assert back.metadata == picture.metadata
    with pytest.raises(ValueError, match=r"\(2, 3, 5, 7\)"):
        from_frames(torch.zeros(2, 3, 5, 7), picture)


def test_frames_own_their_memory():
    picture = Picture(np.zeros((2, 2, 3), np.float32))
    to_frames(picture).fill_(1)
    assert not picture.pixels.any()


def test_images_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, gfp_core.io.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("depth", "suffix"), [(8, ".png"), (16, ".png"), (16, ".tif"), (8, ".jpg")]
)
def test_whole_numbers_are_read_and_written_as_they_are(
    tmp_path: Path, depth: int, suffix: str
) -> None:
    source = tmp_path / f"source{suffix}"
    picture = Picture(floats(levels((20, 30, 3), depth)), bit_depth=depth)
    write_image(source, picture)
    as_floats, as_levels = read_image(source), read_image(source, levels=True)
    assert as_levels.pixels.dtype == f"uint{depth}"
    np.testing.assert_array_equal(floats(as_levels.pixels), as_floats.pixels)
    frames = to_frames(as_levels)
    assert np.shares_memory(frames.numpy(), as_levels.pixels)
    for target in (suffix, ".jpg"):  # which may hold fewer bits
        write_image(tmp_path / f"a{target}", as_floats)
        write_image(tmp_path / f"b{target}", from_frames(frames, as_levels))
        assert (tmp_path / f"a{target}").read_bytes() == (tmp_path / f"b{target}").read_bytes()


def test_floats_stay_floats_where_whole_numbers_are_asked_for(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", Picture(floats(levels((4, 5, 3), 8)), bit_depth=32))
    assert read_image(tmp_path / "a.tif", levels=True).pixels.dtype == np.float32
