"""What is recognized, read, and told in words: kinds of files and their odd members."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from gfp_core.io import formats
from gfp_core.io.images import ImageError, Picture, read_header, read_image, write_image
from tests import needs

PHOTO = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)).resize(
        (64, 80), Image.Resampling.BICUBIC
    )
)


def levels(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).astype(np.uint8)


# GIF, AVIF, HEIC, and what is no picture


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_first_frame_of_a_gif_is_read_and_said(tmp_path, caplog, frames, mode):
    images = [Image.fromarray(np.roll(PHOTO, n * 9, 0)).convert(mode) for n in range(frames)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    picture = read_image(tmp_path / "a.gif")
    assert picture.format == "GIF"
    assert picture.gray == (mode == "L")
    np.testing.assert_array_equal(levels(picture.pixels), np.asarray(images[0].convert("RGB")))
    assert ("first frame" in caplog.text) == (frames > 1)


def test_a_see_through_gif_has_alpha(tmp_path):
    image = Image.fromarray(PHOTO).quantize(8)
    image.save(tmp_path / "a.gif", transparency=image.getpixel((3, 2)))
    pixels = read_image(tmp_path / "a.gif").pixels
    assert pixels[2, 3, 3] == 0
    assert pixels[..., 3].max() == 1


NO_AVIF = "avif" not in features.get_supported_modules()


@pytest.mark.skipif(NO_AVIF, reason="a Pillow without AVIF")
def test_avif_is_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(tmp_path / "a.avif", quality=95, exif=exif)
    header = read_header(tmp_path / "a.avif")
    assert (header.format, header.width, header.height) == ("AVIF", 64, 80)
    picture = read_image(tmp_path / "a.avif")
    assert (picture.width, picture.height) == (80, 64)  # upright
    assert np.abs(picture.pixels - np.rot90(PHOTO, -1) / 255).mean() < 0.03
    write_image(tmp_path / "b.png", picture)
    assert read_image(tmp_path / "b.png").pixels.shape == (64, 80, 3)


def test_avif_without_a_decoder_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x20ftypavif" + bytes(100))
    monkeypatch.setattr(features, "get_supported_modules", list)
    with pytest.raises(ImageError, match=r"a\.avif is an AVIF picture, which needs Pillow 11\.3"):
        read_image(tmp_path / "a.avif")


HEIC = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100)


def test_heic_without_a_decoder_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"IMG_1\.HEIC is a HEIC picture: pip install .*\[heif\]"):
        read_image(tmp_path / "IMG_1.HEIC")


def test_heic_is_read_through_the_decoder(tmp_path, monkeypatch, caplog):
    def decoder(stream):
        assert stream.read() == HEIC
        image = Image.fromarray(PHOTO)
        image.info["bit_depth"] = 10
        return image

    (tmp_path / "a.heic").write_bytes(HEIC)
    fake = type(sys)("pi_heif")
    fake.HeifImageFile = decoder
    monkeypatch.setitem(sys.modules, "pi_heif", fake)
    picture = read_image(tmp_path / "a.heic")
    assert (picture.format, picture.lossless) == ("HEIF", False)
    np.testing.assert_array_equal(levels(picture.pixels), PHOTO)
    assert "10 bits are read as 8" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\xff\x0a\0", "a JPEG XL picture"),
        (b"\0\0\0\x18ftypcrx \0", "a camera's raw file"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\n <!DOCTYPE html>", "a web page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ],
)
def test_well_known_kinds_are_named_with_a_way_out(tmp_path, content, words):
    (tmp_path / "a.jpg").write_bytes(content + bytes(64))
    with pytest.raises(ImageError, match=rf"a\.jpg is .*{words}"):
        read_image(tmp_path / "a.jpg")


def test_endings_are_told_apart_by_what_is_written():
    assert formats.READABLE_SUFFIXES.items() > formats.SUFFIXES.items()
    assert formats.READABLE_SUFFIXES[".heic"] == "HEIF"
    assert ".gif" not in formats.SUFFIXES
    assert formats.FALLBACK_SUFFIX in formats.SUFFIXES


@pytest.mark.parametrize("suffix", [*formats.SUFFIXES, ".gif"])
def test_the_header_says_the_size(tmp_path, suffix):
    Image.fromarray(PHOTO).save(tmp_path / f"a{suffix}")
    header = read_header(tmp_path / f"a{suffix}")
    assert header.format == formats.READABLE_SUFFIXES[suffix]
    assert (header.width, header.height) == (64, 80)
    assert header.file_bytes == (tmp_path / f"a{suffix}").stat().st_size


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"exif": b"Exif\0\0II"}])
def test_the_header_of_every_webp_says_the_size(tmp_path, options):
    Image.fromarray(PHOTO).save(tmp_path / "a.webp", **options)
    header = read_header(tmp_path / "a.webp")
    assert (header.width, header.height) == (64, 80)


# TIFF: channels and kinds

tifffile = pytest.importorskip("tifffile")


def tiff(path: Path, samples: np.ndarray, **options: object) -> Picture:
    tifffile.imwrite(path, samples, **options)
    return read_image(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("extra", "alpha"),
    [
        ((), None),
        (("unspecified",), None),
        (("unassalpha",), 0),
        (("unspecified", "unspecified"), None),
        (("unspecified", "unassalpha"), 1),
        (("unassalpha", "unspecified"), 0),
    ],
)
@needs.newer_pillow
def test_only_alpha_is_read_as_alpha(tmp_path, caplog, dtype, planar, extra, alpha):
    largest = 1 if dtype == "float32" else np.iinfo(dtype).max
    color = (PHOTO / 255 * largest).astype(dtype)
    others = [np.full(PHOTO.shape[:2], largest * (n + 2) // 5, dtype) for n in range(len(extra))]
    samples = np.dstack([color, *others])
    if planar == "separate":
        samples = np.moveaxis(samples, 2, 0)
    options = {"extrasamples": extra} if extra else {}
    picture = tiff(tmp_path / "a.tif", samples, photometric="rgb", planarconfig=planar, **options)
    np.testing.assert_allclose(picture.pixels[..., :3], color / largest, atol=1e-6)
    assert picture.pixels.shape[2] == (3 if alpha is None else 4)
    if alpha is not None:
        np.testing.assert_allclose(picture.pixels[..., 3], others[alpha] / largest, atol=1e-6)
    elif extra:
        assert "not color or alpha" in caplog.text


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("extra", ["unspecified", "unassalpha", "assocalpha"])
def test_gray_with_a_second_channel(tmp_path, dtype, extra):
    largest = np.iinfo(dtype).max
    gray = (PHOTO[..., 0] / 255 * largest).astype(dtype)
    second = np.full_like(gray, largest // 2)
    stored = gray // 2 if extra == "assocalpha" else gray
    picture = tiff(
        tmp_path / "a.tif",
        np.dstack([stored, second]),
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[extra],
    )
    assert picture.gray
    assert picture.bit_depth == 8 * np.dtype(dtype).itemsize
    atol = 0.01 if extra == "assocalpha" else 1e-6
    np.testing.assert_allclose(picture.pixels[..., 1], gray / largest, atol=atol)
    assert picture.pixels.shape[2] == (3 if extra == "unspecified" else 4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_white_is_zero(tmp_path, dtype):
    largest = 1 if dtype == "float32" else np.iinfo(dtype).max
    stored = (PHOTO[..., 0] / 255 * largest).astype(dtype)
    picture = tiff(tmp_path / "a.tif", stored, photometric="miniswhite")
    expected = np.repeat((largest - stored)[..., None] / np.float32(largest), 3, axis=2)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)


def test_half_floats(tmp_path):
    samples = (PHOTO / 255 * 3).astype(np.float16)
    picture = tiff(tmp_path / "a.tif", samples, photometric="rgb")
    assert picture.bit_depth == 32
    np.testing.assert_array_equal(picture.pixels, samples.astype(np.float32))


def test_32_bit_whole_numbers(tmp_path):
    samples = PHOTO.astype(np.uint32) * 0x01010101
    picture = tiff(tmp_path / "a.tif", samples, photometric="rgb")
    np.testing.assert_allclose(picture.pixels, PHOTO / 255, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 16])
def test_lab_becomes_rgb(tmp_path, depth):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = np.asarray(ImageCms.profileToProfile(Image.fromarray(PHOTO), *profiles, outputMode="LAB"))
    if depth == 16:  # a and b are signed
        signed = (lab[..., 1:].view(np.int8).astype(np.int16) * 256).view(np.uint16)
        lab = np.dstack([lab[..., 0].astype(np.uint16) * 257, signed])
    picture = tiff(tmp_path / "a.tif", lab, photometric="cielab")
    assert np.abs(picture.pixels - PHOTO / 255).mean() < 0.02
    assert not picture.metadata.icc_profile


def test_kinds_that_are_not_read_are_named(tmp_path):
    for name, samples, options, words in (
        ("signed", PHOTO.astype(np.int16), {"photometric": "rgb"}, "3 channels of 16 signed bits"),
        ("complex", PHOTO[..., 0].astype(np.complex64), {}, "complex bits"),
    ):
        with pytest.raises(ImageError, match=rf"{name}\.tif is a TIFF of .*{words}.*save it as"):
            tiff(tmp_path / f"{name}.tif", samples, **options)


def test_without_tifffile_the_kind_and_the_extra_are_named(tmp_path, monkeypatch):
    samples = np.moveaxis(PHOTO.astype(np.uint16), 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", planarconfig="separate")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    message = r"a\.tif is a TIFF of RGB with 3 channels of 16 bits in planes: .*\[tiff\]"
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.tif")


def test_a_raw_file_is_not_mistaken_for_its_preview(tmp_path):
    tags = [(50706, "B", 4, (1, 4, 0, 0), False)]
    tifffile.imwrite(tmp_path / "a.dng", PHOTO, photometric="rgb", extratags=tags)
    with pytest.raises(ImageError, match=r"a\.dng is a DNG raw file; develop it"):
        read_image(tmp_path / "a.dng")


# JPEG without its end


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("restarts", [0, 1, 3])
def test_a_jpeg_is_read_without_its_end_if_no_pixel_is_missing(
    tmp_path, caplog, progressive, subsampling, restarts
):
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(
        stream,
        "JPEG",
        progressive=progressive,
        subsampling=subsampling,
        restart_marker_blocks=restarts,
        quality=90,
    )
    data, path = stream.getvalue(), tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path).pixels
    for cut in (1, 2):
        caplog.clear()
        path.write_bytes(data[:-cut])
        np.testing.assert_array_equal(read_image(path).pixels, whole)
        assert "lacks its last bytes" in caplog.text
    for cut in (*range(3, 40), *range(40, len(data), 97)):
        path.write_bytes(data[:-cut])
        with suppress(ImageError):
            np.testing.assert_array_equal(read_image(path).pixels, whole, err_msg=f"less {cut}")
