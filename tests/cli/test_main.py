"""The command line, with fakes in place of the networks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from gfp_core import identity
from gfp_core.cli import main
from gfp_core.cli.exit_codes import STOPPED
from gfp_core.cli.finished import MANIFEST
from gfp_core.cli.restore import FORMATS
from gfp_core.io import memory
from gfp_core.io.images import Picture, read_image, write_image
from gfp_core.options import RestoreOptions

REPOSITORY = Path(__file__).resolve().parents[2]


def photo(path: Path, face: bool = True, size=(80, 96), mode: str = "RGB", **options) -> Path:
    """A random picture; the fake detector sees a face where the first pixel is red."""
    samples = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    samples[:8, :8, :3] = 255 if face else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples).convert("RGB" if mode != "RGBA" else mode).convert(mode).save(
        path, **options
    )
    return path


def files(folder: Path) -> list[str]:
    """All files below a folder but what notes which results are finished."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(str(path.relative_to(folder)) for path in paths)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


# The program


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["restore", "--help"]])
def test_help_does_not_wait_for_torch(arguments):
    code = (
        "import sys; from gfp_core.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'cv2', 'numpy', 'PIL'} & set(sys.modules); sys.exit(str(heavy) if heavy"
        " else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "gfp" in done.stdout


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "gfp_core", "--version"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "gfp 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["restore", "a.png"], "--output"),
        (["restore", "-o", "out"], "INPUT"),
        (["restore", "a.png", "-o", "b", "--strength", "1.5"], "from 0 to 1, not 1.5"),
        (["restore", "a.png", "-o", "b", "--strength", "nan"], "must be a number"),
        (["restore", "a.png", "-o", "b", "--fidelity", "-0.1"], "from 0 to 1, not -0.1"),
        (["restore", "a.png", "-o", "b", "--upscale", "0"], "from 0.01 to 16"),
        (["restore", "a.png", "-o", "b", "--format", "gif"], "--format"),
        (["restore", "a.png", "-o", "b", "--mask", "hat"], "--mask"),
        (["restore", "a.png", "-o", "b", "--color", "sepia"], "--color"),
        (["restore", "a.png", "-o", "b", "--color-strength", "2"], "from 0 to 1"),
        (["restore", "a.png", "-o", "b", "--reference", "c.png"], "belong together"),
        (["restore", "a.png", "-o", "b", "--color", "reference"], "belong together"),
        (["restore", "a.png", "-o", "b", "-q", "-v"], "not allowed with"),
    ],
)
def test_wrong_usage(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


# Restoring


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.JPEG"])
def test_one_file_keeps_its_format(tmp_path, loads, name, capsys):
    photo(tmp_path / name, quality=95)
    assert run("restore", tmp_path / name, "-o", tmp_path / "out") == 0
    assert files(tmp_path) == sorted([name, f"out/{name}"])
    with Image.open(tmp_path / name) as before, Image.open(tmp_path / "out" / name) as after:
        assert after.format == before.format
        difference = np.asarray(after, float) - np.asarray(before, float)
    assert np.abs(difference)[40:56, 32:48].mean() > 30
    assert np.abs(difference)[80:, :16].mean() < 12
    assert "1 file: 1 restored (1 face), 0 without a face, 0 failed." in capsys.readouterr().err


def test_colours_from_a_reference(tmp_path, loads, capsys):
    source, reference = photo(tmp_path / "a.png"), tmp_path / "red.png"
    Image.new("RGB", (64, 64), (250, 90, 60)).save(reference)
    options = ("--color", "reference", "--reference", reference, "--grey", "off")
    assert run("restore", source, "-o", tmp_path / "red", *options) == 0
    assert run("restore", source, "-o", tmp_path / "plain", "--color", "restorer") == 0
    red, plain = (
        np.asarray(Image.open(tmp_path / out / "a.png"), float)[40:56, 32:48].mean(axis=(0, 1))
        for out in ("red", "plain")
    )
    assert red[0] - red[2] > 60 + plain[0] - plain[2]
    missing = tmp_path / "missing.png"
    options = ("--color", "reference", "--reference", missing)
    assert run("restore", source, "-o", tmp_path / "out", *options) == 2
    assert "missing.png" in capsys.readouterr().err


def test_one_file_to_one_file(tmp_path, loads):
    source = photo(tmp_path / "a.jpg")
    assert run("restore", source, "-o", tmp_path / "new" / "b.png") == 0
    assert files(tmp_path) == ["a.jpg", "new/b.png"]
    assert read_image(tmp_path / "new" / "b.png").format == "PNG"


def test_folder_keeps_its_tree(tmp_path, loads):
    source = tmp_path / "in"
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.webp", ".hidden/d.png", ".e.png"):
        photo(source / name)
    (source / "notes.txt").write_text("no picture")
    # A result of an earlier run must not be restored again.
    photo(source / "out" / "old.png")
    assert run("restore", source, "-o", source / "out") == 0
    assert files(source / "out") == ["a.png", "old.png", "sub/b.jpg", "sub/deep/c.webp"]


def test_the_model_is_loaded_once_and_late(tmp_path, loads):
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name)
    model, detector = tmp_path / "m.pth", tmp_path / "d.pth"
    model.write_bytes(b"model")
    detector.write_bytes(b"detector")
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    arguments += ("--detector", detector)
    assert run(*arguments, "--device", "cpu") == 0
    expected = {"parser": None, "embedder": None, "background_model": None, "device": "cpu"}
    expected |= {"engine": "auto", "provider": "auto", "precision": "auto"}
    assert loads == [(str(model), str(detector), expected)]
    assert run(*arguments) == 0
    (tmp_path / "bad.png").touch()
    assert run("restore", tmp_path / "bad.png", "-o", tmp_path / "out") == 1
    assert len(loads) == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_untouched_pixels_depth_and_alpha_stay(tmp_path, loads, suffix, depth):
    samples = np.random.default_rng(0).integers(0, 2**depth, (96, 80, 4))
    samples[0, 0, 0] = 2**depth - 1
    pixels = samples.astype(np.float32) / np.float32(2**depth - 1)
    source = tmp_path / f"a{suffix}"
    write_image(source, Picture(pixels, depth))
    assert run("restore", source, "-o", tmp_path / "out") == 0
    result = read_image(tmp_path / "out" / source.name)
    assert result.bit_depth == depth
    np.testing.assert_array_equal(result.pixels[..., 3], pixels[..., 3])
    changed = (result.pixels != pixels).any(axis=2)
    assert 0.05 < changed.mean() < 0.5
    assert not changed[:20].any()


def test_metadata_stays_and_the_picture_is_upright(tmp_path, loads):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.Base.Orientation] = 6
    source = photo(tmp_path / "a.jpg", exif=exif, dpi=(300, 300))
    # Turned by the orientation, the first pixel comes from the bottom left corner.
    assert run("restore", source, "-o", tmp_path / "out", "--upscale", 2) == 0
    with Image.open(tmp_path / "out" / "a.jpg") as result:
        assert result.size == (192, 160)
        assert result.getexif()[ExifTags.Base.Make] == "maker"
        assert result.getexif()[ExifTags.Base.Orientation] == 1
        assert result.info["dpi"] == (300, 300)


def test_a_picture_without_a_face_is_copied_as_it_is(tmp_path, loads, capsys):
    source = photo(tmp_path / "a.jpg", face=False, quality=30)
    assert run("restore", source, "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "a.jpg").read_bytes() == source.read_bytes()
    said = capsys.readouterr().err
    assert f"{source}: No face found: the image is left as it is." in said
    assert "0 restored (0 faces), 1 without a face" in said
    assert run("restore", source, "-o", tmp_path / "out", "--format", "png") == 0
    assert read_image(tmp_path / "out" / "a.png").format == "PNG"
    assert run("restore", source, "-o", tmp_path / "big", "--upscale", "1.5") == 0
    assert read_image(tmp_path / "big" / "a.jpg").pixels.shape == (144, 120, 3)


def test_a_wrong_ending_is_not_copied(tmp_path, loads):
    os.rename(photo(tmp_path / "a.png", face=False), tmp_path / "a.jpg")
    assert run("restore", tmp_path / "a.jpg", "-o", tmp_path / "out") == 0
    assert read_image(tmp_path / "out" / "a.jpg").format == "JPEG"


@pytest.mark.parametrize("choice", ["png", "jpg", "jpeg", "webp", "tif", "tiff"])
def test_format(tmp_path, loads, choice):
    photo(tmp_path / "in" / "a.png")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out", "--format", choice) == 0
    suffix = FORMATS[choice]
    assert files(tmp_path / "out") == [f"a{suffix}"]


def test_options_change_the_result(tmp_path, loads, fake_restorer):
    source = photo(tmp_path / "a.png")
    results = []
    for number, options in enumerate(
        ([], ["--strength", "0.5"], ["--strength", "0"], ["--mask", "box"], ["--score", "0.3"])
    ):
        target = tmp_path / f"{number}.png"
        assert run("restore", source, "-o", target, *options) == 0
        results.append(read_image(target).pixels)
    plain, half, none, box, scored = results
    before = read_image(source).pixels
    np.testing.assert_array_equal(none, before)
    middle = (slice(44, 52), slice(36, 44))
    mixed = (plain[middle] + before[middle]) / 2
    np.testing.assert_allclose(half[middle], mixed, atol=0.01)
    assert (box != before).sum() > (plain != before).sum()
    np.testing.assert_array_equal(scored, plain)
    assert [call.get("score") for call in fake_restorer.detector.calls][-1] == 0.3


def test_fidelity_reaches_the_restorer(tmp_path, loads, fake_restorer):
    source = photo(tmp_path / "a.png")
    for number, options in enumerate(([], ["--fidelity", "0"], ["--fidelity", "0.7"])):
        assert run("restore", source, "-o", tmp_path / f"{number}.png", *options) == 0
    assert fake_restorer.restorer.fidelities == [None, 0, 0.7]


# Resuming


def test_finished_files_are_skipped(tmp_path, loads, capsys):
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name)
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out")
    assert run(*arguments) == 0
    before = (tmp_path / "out" / "a.png").stat()
    os.remove(tmp_path / "out" / "b.png")
    capsys.readouterr()
    assert run(*arguments) == 0
    said = capsys.readouterr().err
    assert "2 files: 1 restored (1 face), 0 without a face, 1 finished before" in said
    assert (tmp_path / "out" / "a.png").stat().st_ino == before.st_ino
    assert run(*arguments, "--overwrite") == 0
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns > before.st_mtime_ns
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_interrupted_run_goes_on(tmp_path, loads, capsys, fake_restorer, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / "in" / name)
    restore = fake_restorer.restorer.restore
    calls = []

    def interrupt(faces, *, progress, **options):
        calls.append(len(faces))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return restore(faces, **options)

    monkeypatch.setattr(fake_restorer.restorer, "restore", interrupt)
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out")
    assert run(*arguments) == 130
    said = capsys.readouterr().err
    assert "Interrupted: 1 of 3 files are done. The same command goes on with the rest." in said
    assert files(tmp_path / "out") == ["a.png"]
    assert run(*arguments) == 0
    assert files(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    assert len(calls) == 4


def test_interrupt_while_writing_leaves_nothing_half(tmp_path, loads, monkeypatch):
    source = photo(tmp_path / "a.png")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    assert run("restore", source, "-o", tmp_path / "out") == 130
    assert files(tmp_path / "out") == []


# Crops and comparison


def test_crops_and_comparison(tmp_path, loads):
    photo(tmp_path / "in" / "sub" / "a.png")
    photo(tmp_path / "in" / "sub" / "a.jpg")
    photo(tmp_path / "in" / "b.png", face=False)
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--save-crops", "--compare")
    arguments += ("--color", "restorer")
    assert run(*arguments, "--upscale", "1.5") == 0
    crops = [f"sub/a.{x}.face0.{y}.png" for x in ("jpg", "png") for y in ("input", "restored")]
    assert files(tmp_path / "out" / "crops") == crops
    assert files(tmp_path / "out" / "compare") == ["b.png", "sub/a.jpg", "sub/a.png"]
    before, after = (read_image(tmp_path / "out" / "crops" / name).pixels for name in crops[2:])
    assert before.shape == (64, 64, 3)
    np.testing.assert_allclose(after, 1 - before, atol=0.01)
    both = read_image(tmp_path / "out" / "compare" / "sub" / "a.png").pixels
    result = read_image(tmp_path / "out" / "sub" / "a.png").pixels
    assert both.shape == (144, 240, 3)
    np.testing.assert_array_equal(both[:, 120:], result)
    os.remove(tmp_path / "out" / "compare" / "b.png")
    loads.clear()
    assert run(*arguments, "--upscale", "1.5") == 0
    assert len(loads) == 1
    assert (tmp_path / "out" / "compare" / "b.png").exists()


def test_derived_pictures_keep_profile_and_resolution(tmp_path, loads):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photo(tmp_path / "a.tif", icc_profile=profile, dpi=(300, 300))
    arguments = (source, "-o", tmp_path / "out")
    assert run("restore", *arguments, "--save-crops", "--compare") == 0
    assert run("detect", source, "-o", tmp_path / "drawn") == 0
    for name in (
        "out/crops/a.tif.face0.input.png",
        "out/crops/a.tif.face0.restored.png",
        "out/compare/a.tif",
        "drawn/a.tif",
    ):
        metadata = read_image(tmp_path / name).metadata
        assert metadata.icc_profile == profile, name
        assert metadata.dpi == pytest.approx((300, 300), abs=0.02), name


def test_a_cut_out_has_no_fringe_in_the_comparison(tmp_path, loads):
    samples = np.zeros((64, 64, 4), np.uint8)
    samples[16:48, 16:48] = (230, 200, 180, 255)
    Image.fromarray(samples).save(tmp_path / "a.png")
    arguments = ("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--upscale", "2")
    assert run(*arguments, "--compare") == 0
    left = read_image(tmp_path / "out" / "compare" / "a.png").pixels[:, :128]
    visible = left[..., 3] > 0.02
    np.testing.assert_allclose(left[visible, :3] * 255, [[230, 200, 180]] * visible.sum(), atol=2)


def test_pictures_of_formats_that_are_not_written_become_png(tmp_path, loads):
    photo(tmp_path / "in" / "a.gif")
    photo(tmp_path / "in" / "a.png")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["a.gif.png", "a.png"]
    assert run("restore", tmp_path / "in", "-o", tmp_path / "jpg", "--format", "jpg") == 2
    os.remove(tmp_path / "in" / "a.png")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "jpg", "--format", "jpg") == 0
    assert files(tmp_path / "jpg") == ["a.jpg"]


def test_a_picture_without_room_in_memory_does_not_end_the_run(
    tmp_path, loads, monkeypatch, capsys
):
    photo(tmp_path / "in" / "a.png", size=(1200, 1000))
    photo(tmp_path / "in" / "b.png")
    monkeypatch.setattr(memory, "available_bytes", lambda: 20_000_000)
    monkeypatch.setattr(memory, "NETWORK_BYTES", 0)
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 1
    assert files(tmp_path / "out") == ["b.png"]
    assert "a.png needs about 0.1 GB of memory to be restored" in capsys.readouterr().err


def test_folders_for_crops_are_not_mixed_with_results(tmp_path, loads, capsys):
    photo(tmp_path / "in" / "crops" / "a.png")
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out")
    assert run(*arguments, "--save-crops") == 2
    assert "crops" in capsys.readouterr().err
    assert run(*arguments) == 0


# Collisions


def test_two_inputs_for_one_output_are_refused(tmp_path, loads, capsys):
    for name in ("x/a.png", "x/a.jpg", "y/a.png"):
        photo(tmp_path / name)
    out = tmp_path / "out"
    assert run("restore", tmp_path / "x", "-o", out, "--format", "webp") == 2
    said = capsys.readouterr().err
    assert "a.jpg" in said
    assert "a.png would both be written to" in said
    assert run("restore", tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", "-o", out) == 2
    assert not out.exists()
    assert run("restore", tmp_path / "x", tmp_path / "x" / "a.png", "-o", out) == 0
    assert files(out) == ["a.jpg", "a.png"]


@pytest.mark.parametrize("link", ["none", "symlink", "hardlink"])
def test_an_input_is_never_overwritten(tmp_path, loads, capsys, link):
    source = photo(tmp_path / "in" / "a.png")
    before = source.read_bytes()
    target = source
    if link != "none":
        target = tmp_path / "other" / "a.png"
        target.parent.mkdir()
        (target.symlink_to if link == "symlink" else target.hardlink_to)(source)
    for output in (target, target.parent):
        assert run("restore", source, "-o", output, "--overwrite") == 2
        assert "overwritten" in capsys.readouterr().err
    assert run("restore", source.parent, "-o", target.parent, "--overwrite") == 2
    assert source.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_links_in_a_folder_are_pictures_too(tmp_path, loads):
    source = photo(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to(source)
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_one_output_file_for_several_inputs(tmp_path, loads, capsys):
    photo(tmp_path / "in" / "a.png")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out.png") == 2
    assert "one file" in capsys.readouterr().err
    source = tmp_path / "in" / "a.png"
    assert run("restore", source, "-o", tmp_path / "out.png", "--format", "jpg") == 2
    assert files(tmp_path) == ["in/a.png"]


def test_a_folder_without_pictures(tmp_path, loads, capsys):
    (tmp_path / "in").mkdir()
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 2
    assert f"no picture in {tmp_path / 'in'}" in capsys.readouterr().err


# Bad input


def make_bad(path: Path) -> Path:
    kind = path.stem
    if kind == "zero":
        path.touch()
    elif kind == "truncated":
        data = photo(path).read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif kind == "text":
        path.write_text("This is no picture.")
    elif kind == "folder":
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "empty.png").touch()
    return path


@pytest.mark.parametrize(
    "name", ["zero.png", "truncated.jpg", "truncated.png", "text.webp", "missing.tif", "folder.png"]
)
def test_a_broken_file_does_not_stop_the_others(tmp_path, loads, capsys, name):
    first, last = photo(tmp_path / "a.png"), photo(tmp_path / "z.png")
    bad = make_bad(tmp_path / name)
    assert run("restore", first, bad, last, "-o", tmp_path / "out") == 1
    assert {"a.png", "z.png"} == set(files(tmp_path / "out"))
    said = capsys.readouterr().err
    assert "3 files: 2 restored (2 faces), 0 without a face, 1 failed." in said
    assert f"error: {bad}" in said
    assert f"failed: {bad}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("face", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3)])
def test_tiny_pictures(tmp_path, loads, size, face):
    source = photo(tmp_path / "a.png", face=face, size=size)
    assert run("restore", source, "-o", tmp_path / "out", "--compare", "--save-crops") == 0
    assert read_image(tmp_path / "out" / "a.png").pixels.shape[:2] == size[::-1]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("L", "a.jpg"),
        ("L", "a.tif"),
        ("RGBA", "a.png"),
        ("RGBA", "a.webp"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("P", "a.png"),
        ("1", "a.png"),
    ],
)
def test_kinds_of_pixels(tmp_path, loads, mode, name):
    source = photo(tmp_path / name, mode=mode)
    assert run("restore", source, "-o", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / name) as result:
        kept = {"CMYK": "RGB", "P": "RGB", "1": "L"}
        assert result.mode == kept.get(mode, mode)


def test_nan_and_infinite_pixels(tmp_path, loads):
    pixels = np.random.default_rng(0).random((96, 80, 3), np.float32)
    pixels[0, 0, 0] = 1
    pixels[2, 3] = np.nan
    pixels[90, 7, 1] = np.inf
    write_image(tmp_path / "a.tif", Picture(pixels, 32))
    assert run("restore", tmp_path / "a.tif", "-o", tmp_path / "out") == 0
    result = read_image(tmp_path / "out" / "a.tif").pixels
    np.testing.assert_array_equal(result[:20], pixels[:20])
    assert result[90, 7, 1] == np.inf
    assert not np.array_equal(result[40:56], pixels[40:56])
    assert run("restore", tmp_path / "a.tif", "-o", tmp_path / "out", "--format", "png") == 1
    assert files(tmp_path / "out") == ["a.tif"]


def test_masks_and_blending_have_their_options(tmp_path, loads):
    photo(tmp_path / "a.png")
    arguments = ("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--overwrite")
    for options in (
        ("--mask", "hull", "--grow", "-0.05", "--feather", "0.05", "--occlusion", "on"),
        ("--detail", "0", "--grain", "1", "--no-auto-strength"),
        ("--parser", "bisenet", "--parts", "skin, nose"),
    ):
        assert run(*arguments, *options) == 0
    assert loads[-1][-1]["parser"] == "bisenet"
    assert loads[0][-1]["parser"] is None
    for options in (("--parts", "tail"), ("--grow", "2"), ("--feather", "0.9")):
        assert run(*arguments, *options) == 2


@pytest.mark.slow
def test_huge_picture(tmp_path, loads):
    Image.new("L", (8192, 8192), 200).save(tmp_path / "a.png", compress_level=1)
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "a.png") as result:
        assert result.size == (8192, 8192)
        assert result.getpixel((5, 5)) == 200


def test_larger_than_may_be_written(tmp_path, loads, capsys, monkeypatch):
    source = photo(tmp_path / "a.png")
    monkeypatch.setattr("gfp_core.cli.restoring.MAX_PIXELS", 50_000)
    assert run("restore", source, "-o", tmp_path / "out", "--upscale", "4") == 1
    assert "smaller --upscale" in capsys.readouterr().err
    assert loads == []


def test_output_that_cannot_be_written(tmp_path, loads, capsys, monkeypatch):
    source = photo(tmp_path / "a.png")
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "out", tmp_path / "file", tmp_path / "file" / "b.png"):
        assert run("restore", source, "-o", output) == 2
        assert "choose another output folder" in capsys.readouterr().err

    def refuse(folder):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("gfp_core.io.atomic.check_writable", refuse)
    assert run("restore", source, "-o", tmp_path / "out") == 2
    assert "(Read-only file system)" in capsys.readouterr().err
    assert loads == []


def test_a_full_disk_ends_the_run(tmp_path, loads, capsys, monkeypatch, fake_restorer):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    for number in range(5):
        photo(tmp_path / "in" / f"{number}.png")
    monkeypatch.setattr(os, "fsync", fail)
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == STOPPED
    said = capsys.readouterr().err
    assert "0.png cannot be written: the disk is full" in said
    assert "The disk is full, and the run stopped: 0 of 5 files are done." in said
    assert len(fake_restorer.restorer.fidelities) <= 3
    assert files(tmp_path / "out") == []


def test_a_picture_whose_name_does_not_say_so(tmp_path, loads, capsys):
    os.rename(photo(tmp_path / "a.png"), tmp_path / "a")
    assert run("restore", tmp_path / "a", "-o", tmp_path / "out") == 1
    assert "say with --format" in capsys.readouterr().err
    assert run("restore", tmp_path / "a", "-o", tmp_path / "out", "--format", "png") == 0
    assert files(tmp_path / "out") == ["a.png"]


def test_unknown_model(tmp_path, capsys):
    source = photo(tmp_path / "a.png")
    for arguments in (["--model", "nothing.pth"], ["--device", "nonsense"]):
        assert run("restore", source, "-o", tmp_path / "out", *arguments) == 2
        assert arguments[1] in capsys.readouterr().err
    assert files(tmp_path / "out") == []


def test_unexpected_errors_are_named_and_shown_in_full_when_asked(
    tmp_path, loads, capsys, fake_restorer, monkeypatch
):
    def fail(faces, **options):
        raise RuntimeError("the network is broken")

    monkeypatch.setattr(fake_restorer.restorer, "restore", fail)
    source = photo(tmp_path / "a.png")
    assert run("restore", source, "-o", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"error: {source}: RuntimeError('the network is broken')" in said
    assert "Traceback" not in said
    assert run("restore", source, "-o", tmp_path / "out", "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err


# What is shown


def test_quiet(tmp_path, loads, capsys):
    source = photo(tmp_path / "a.png", face=False)
    assert run("restore", source, "-o", tmp_path / "out", "--quiet") == 0
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "")
    (tmp_path / "b.png").touch()
    assert run("restore", tmp_path / "b.png", "-o", tmp_path / "out", "--quiet") == 1
    seen = capsys.readouterr()
    assert seen.err.count("b.png is empty") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(tmp_path, loads, monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    source = photo(tmp_path / "a.png")
    assert run("restore", source, "-o", tmp_path / "out") == 0
    assert ("%|" in stream.getvalue()) == terminal
    assert ("1/1 a.png" in stream.getvalue()) == terminal


# Detecting


def test_detect_json(tmp_path, loads, capsys):
    source, plain = photo(tmp_path / "a.png"), photo(tmp_path / "b.jpg", face=False)
    bad = make_bad(tmp_path / "zero.png")
    assert run("detect", source, plain, bad, "--json") == 1
    seen = capsys.readouterr()
    entries = json.loads(seen.out)
    assert [entry["file"] for entry in entries] == [str(source), str(plain), str(bad)]
    keys = {"file", "width", "height", "faces", "error"}
    assert all(set(entry) == keys for entry in entries)
    first, second, third = entries
    assert (first["width"], first["height"], first["error"]) == (80, 96, None)
    (face,) = first["faces"]
    assert set(face) == {"box", "score", "landmarks"}
    assert face["box"] == [20, 28, 60, 68]
    assert face["score"] == 0.75
    assert np.array(face["landmarks"]).shape == (5, 2)
    assert second["faces"] == third["faces"] == []
    assert "empty" in third["error"]
    assert third["width"] is None
    assert len(loads) == 1
    assert files(tmp_path) == ["a.png", "b.jpg", "zero.png"]


def test_detect_text_and_drawing(tmp_path, loads, capsys):
    source = photo(tmp_path / "in" / "a.png", size=(200, 240))
    assert run("detect", source.parent, "-o", tmp_path / "out") == 0
    seen = capsys.readouterr()
    assert seen.out.startswith(f"{source}: 1 face\n  0: score 0.750  box 50.0 70.0 150.0 170.0  la")
    assert "1 file: 1 with faces (1 face), 0 without a face, 0 failed." in seen.err
    drawn, before = read_image(tmp_path / "out" / "a.png").pixels, read_image(source).pixels
    changed = (drawn != before).any(axis=2)
    assert 0.005 < changed.mean() < 0.5
    assert run("detect", source, "-o", source.parent) == 2


def test_names_that_the_terminal_cannot_show(tmp_path, loads, monkeypatch):
    source = photo(tmp_path / "写真.png")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run("detect", source) == 0
    stream.flush()
    assert b"\\u5199\\u771f.png: 1 face\n" in stream.buffer.getvalue()


def test_detect_options(tmp_path, loads, fake_restorer, capsys):
    source = photo(tmp_path / "a.png")
    arguments = ("--detector", "d.pth", "--score", "0.25", "--device", "cpu")
    assert run("detect", source, *arguments) == 0
    assert [(name, str(options["device"])) for name, options in loads] == [("d.pth", "cpu")]
    assert [call["score"] for call in fake_restorer.detector.calls] == [0.25]
    few = ("--which", "none", "--min-size", 5, "--rotations", "0,90")
    assert run("detect", source, *few) == 0
    assert fake_restorer.detector.calls[-1]["rotations"] == (0, 90)
    assert capsys.readouterr().out.endswith("a.png: 0 faces\n")


# Timing


def test_bench_refuses_what_it_cannot_time(tmp_path, capsys):
    source = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(source)
    for arguments, said in (
        ([tmp_path / "b.png"], "b.png does not exist"),
        ([source], "no face"),
        ([source, "--model", "nothing.pth"], "nothing.pth"),
        ([source, "--rounds", "0"], "whole number"),
        ([source, "--json", source / "a.json"], "cannot be written to"),
    ):
        assert run("bench", *arguments) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_bench_prints_and_writes_the_same(tmp_path, capsys):
    assert run("bench", "--size", 320, 240, "--rounds", 1, "--json", tmp_path / "a.json") == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "a.json").read_text())
    names = [row["step"] for row in report["steps"]]
    assert len(names) == 7
    assert all(f"| {name} |" in said for name in names)
    assert all(row["seconds"]["cpu"][0] > 0 for row in report["steps"])


# With the real networks


@pytest.mark.slow
def test_real_networks_from_file_to_file(tmp_path, capsys):
    from skimage.data import astronaut

    Image.fromarray(astronaut()).save(tmp_path / "astronaut.png")
    assert run("restore", tmp_path, "-o", tmp_path / "out", "--save-crops", "--compare") == 0
    assert "1 restored (1 face)" in capsys.readouterr().err
    result = np.asarray(Image.open(tmp_path / "out" / "astronaut.png"))
    changed = (result != astronaut()).any(axis=2)
    assert 0.01 < changed.mean() < 0.2
    assert not changed[250:].any()
    assert len(files(tmp_path / "out" / "crops")) == 2
    assert run("detect", tmp_path / "astronaut.png", "--json", "--quiet") == 0
    ((face,),) = (entry["faces"] for entry in json.loads(capsys.readouterr().out))
    assert face["score"] > 0.9


# Choosing, identity, frames in order


def spied(monkeypatch, fake_restorer) -> list[dict]:
    """The arguments of each call of `FaceRestorer.restore`."""
    calls: list[dict] = []
    restore = type(fake_restorer).restore

    def spy(self, frames, options, *, extra, progress):
        calls.append({"frames": frames, "options": options, "extra": extra})
        return restore(self, frames, options, extra=extra, progress=progress)

    monkeypatch.setattr(type(fake_restorer), "restore", spy)
    return calls


def test_choices_reach_the_restorer(tmp_path, loads, fake_restorer, fake_embedder, monkeypatch):
    calls = spied(monkeypatch, fake_restorer)
    fake_restorer.embedder = fake_embedder
    monkeypatch.setattr(
        type(fake_embedder), "describe", lambda *_: torch.ones(1, 3) / 3**0.5, raising=False
    )
    source = photo(tmp_path / "a.png")
    Image.new("L", (80, 96), 255).save(tmp_path / "region.png")
    choice = ["--order", "left-to-right", "--which", "first 2", "--min-size", 5, "--turned"]
    choice += ["--max-size", 500, "--region", tmp_path / "region.png", "--max-sharpness", 1]
    (tmp_path / "e.bin").write_bytes(b"embedder")
    choice += ["--person", source, "--identity", "--embedder", tmp_path / "e.bin"]
    assert run("restore", source, "-o", tmp_path / "out", *choice) == 0
    assert loads[0][-1]["embedder"] == str(tmp_path / "e.bin")
    (call,) = calls
    assert call["options"] == RestoreOptions.of(
        order="left to right",
        select="first 2",
        min_size=5,
        max_size=500,
        max_sharpness=1,
        rotations=(0, 90, 180, 270),
        identity_limit=identity.LIMIT,
        embedder=str(tmp_path / "e.bin"),
    )
    assert call["extra"].region.shape == (1, 96, 80)
    assert call["extra"].people.shape == (1, 3)
    assert call["extra"].tracks is None


def test_a_picture_of_a_person_without_a_face_is_named(
    tmp_path, loads, fake_restorer, monkeypatch, capsys
):
    def describe(pictures):
        if pictures[0][0, 0, 0] < 0.5:
            raise ValueError("no face found in picture 0 of reference: give another")
        return torch.ones(1, 3)

    monkeypatch.setattr(fake_restorer, "describe", describe, raising=False)
    (tmp_path / "e.bin").write_bytes(b"embedder")
    Image.new("RGB", (80, 96)).save(tmp_path / "nobody.png")
    source = photo(tmp_path / "a.png")
    people = ["--person", source, "--person", tmp_path / "nobody.png"]
    out = ("-o", tmp_path / "out", "--embedder", tmp_path / "e.bin")
    assert run("restore", source, *out, *people) == 2
    assert f"--person {tmp_path / 'nobody.png'}: no face found" in capsys.readouterr().err


def test_a_person_without_the_weights_says_how_to_get_them(tmp_path, capsys):
    source = photo(tmp_path / "a.png")
    out = ("-o", tmp_path / "out", "--no-download", "--person", source)
    assert run("restore", source, *out, "--embedder", "face-descriptor") == 2
    assert "gfp weights get face-descriptor" in capsys.readouterr().err


def test_frames_are_taken_in_order_and_followed_folder_by_folder(
    tmp_path, loads, fake_restorer, monkeypatch, capsys
):
    calls = spied(monkeypatch, fake_restorer)
    for folder, names in (("a", ("10.png", "9.png", "2.png")), ("b", ("1.png",))):
        for name in names:
            photo(tmp_path / "in" / folder / name, size=(80 + int(name[:-4]), 96))
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--frames", "--score", 0.7)
    assert run(*arguments) == 0
    assert [call["frames"].shape[3] for call in calls] == [82, 89, 90, 81]
    assert [call["extra"].tracks.count for call in calls] == [
        0,
        1,
        2,
        0,
    ]
    (tmp_path / "out" / "a" / "9.png").unlink()
    calls.clear()
    assert run(*arguments) == 0
    assert [call["extra"].tracks.count for call in calls] == [0]
    assert "faces are followed from here on" in capsys.readouterr().err
