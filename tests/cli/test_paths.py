"""Words into paths: what is no path is refused, and results have names that every disk holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gfp_core.cli import main, paths
from gfp_core.cli.compare import parse_setting
from gfp_core.cli.exit_codes import CannotStart
from gfp_core.cli.paths import Job, UsageError, in_order, path_of, plan
from gfp_core.io.images import read_image
from gfp_core.io.names import extended
from gfp_core.options import RestoreOptions


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "", "-o", "out"],
        ["restore", " ", "-o", "out"],
        ["restore", "in", "-o", ""],
        ["restore", "in", "-o", "out", "--region", ""],
        ["restore", "in", "-o", "out", "--person", ""],
        ["restore", "in", "-o", "out", "--options", ""],
        ["restore", "in", "-o", "out", "--model", ""],
        ["detect", ""],
        ["compare", "", "-m", "lite", "-o", "sheet.png"],
        ["weights", "inspect", ""],
    ],
)
def test_an_empty_word_is_not_the_folder_one_is_in(
    words: list[str], tmp_path: Path, monkeypatch, photo: Callable, files: Callable, capsys, loads
) -> None:
    photo(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert "empty" in capsys.readouterr().err
    assert files(tmp_path) == ["in/a.png"]


def test_a_tilde_is_the_home_folder_unless_a_file_is_called_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert path_of("~/a.png") == tmp_path / "home" / "a.png"
    assert path_of("~no-such-user") == Path("~no-such-user")
    (tmp_path / "~").mkdir()
    assert path_of("~") == Path("~")
    assert path_of("a~b") == Path("a~b")


def test_without_a_home_folder_a_tilde_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)
    with pytest.raises(UsageError, match="the home folder is not known here"):
        path_of("~/a.png")


def test_a_null_character_is_refused() -> None:
    with pytest.raises(UsageError, match="null character"):
        path_of("a\0.png")


@pytest.mark.parametrize("name", ["x.gif", "x.heic", "x.avif", "x.mp4", "x.txt", "x.jp2", "x.svg"])
def test_an_ending_that_is_not_written_makes_no_folder(
    tmp_path: Path, name: str, photo: Callable, files: Callable, capsys, loads
) -> None:
    photo(tmp_path / "a.png")
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / name) == 2
    said = capsys.readouterr().err
    assert "pictures are written as .png, .jpg" in said
    assert os.listdir(tmp_path) == ["a.png"]
    assert run("restore", tmp_path / "a.png", "-o", f"{tmp_path / name}/") == 0
    assert files(tmp_path / name) == ["a.png"]
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / name) == 0  # there is one


@pytest.mark.parametrize("name", ["out", "out.2026-01", "results.old", "v1.2", "2024.06.01"])
def test_a_folder_may_have_a_dot_in_its_name(
    tmp_path: Path, name: str, photo: Callable, files: Callable, loads
) -> None:
    photo(tmp_path / "a.png")
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / name) == 0
    assert files(tmp_path / name) == ["a.png"]


@pytest.mark.parametrize("stem", ["a" * 251, "ä" * 125, "写" * 83, "a" * 237])
def test_long_names(tmp_path: Path, stem: str, photo: Callable, files: Callable, loads) -> None:
    photo(tmp_path / "in" / f"{stem}.png")
    photo(tmp_path / "in" / f"{stem[:-1]}b.png")
    arguments = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--save-crops", "--compare")
    assert run(*arguments) == 0
    names = files(tmp_path / "out")
    assert len([name for name in names if name.startswith("crops")]) == 4
    assert max(len(os.fsencode(Path(name).name)) for name in names) <= 255
    assert read_image(tmp_path / "out" / f"{stem}.png").width == 80


def test_names_that_were_cut_stay_apart() -> None:
    long = "x" * 250
    one, other = (extended(Path(f"{long}{letter}.png"), ".face0.input.png") for letter in "ab")
    assert one != other
    assert len(one.name) <= 255
    assert extended(Path("d/a.png"), ".x.png") == Path("d/a.png.x.png")


@pytest.mark.parametrize("name", ["a²", "٣", "a1²", "๑2", "①", "", "-1"])
def test_digits_that_are_no_decimals_are_letters(name: str) -> None:
    job = Job(Path(f"{name}.png"), Path("out"), Path("a.png"))
    ten = Job(Path("a10.png"), Path("out"), Path("a.png"))
    two = Job(Path("a2.png"), Path("out"), Path("a.png"))
    assert sorted([ten, job, two], key=in_order).index(two) < sorted(
        [ten, job, two], key=in_order
    ).index(ten)


@pytest.mark.parametrize(
    ("one", "other", "fold"),
    [("Bild.png", "bild.PNG", str.casefold), ("ä.png", "a\u0308.png", paths._nfc)],
)
def test_names_that_one_disk_tells_apart_and_another_does_not(
    tmp_path: Path,
    monkeypatch,
    photo: Callable,
    one: str,
    other: str,
    fold: Callable,
    loads,
    capsys,
) -> None:
    for folder, name in (("x", one), ("y", other)):
        photo(tmp_path / folder / name)
    inputs = (tmp_path / "x", tmp_path / "y")
    arguments = ("restore", *inputs, "-o", tmp_path / "out")
    monkeypatch.setattr(paths, "_folding", lambda jobs: fold)
    assert run(*arguments) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_the_disk_tells_apart_is_found_out_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "Case").touch()
    is_same = (tmp_path / "cASE").exists()
    fold = paths._folding([Job(Path("a"), tmp_path / "not" / "there", Path("a"))])
    assert (fold("Name") == fold("nAME")) == is_same
    assert os.listdir(tmp_path) == ["Case"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_what_a_folder_holds_beside_pictures_is_said(
    tmp_path: Path, photo: Callable, files: Callable, loads, capsys
) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "in" / "2020").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    for name in ("b.jpg_large", "c.psd", "d.psd", "README", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"x")
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "Passed over 4 files of other kinds (2 .psd, " in said
    assert "1 .jpg_large" in said
    assert "1 without an ending" in said
    assert f"Links to folders are not followed ({tmp_path}/in/2020, {tmp_path}/in/loop)" in said
    assert files(tmp_path / "out") == ["a.png"]
    assert run("restore", tmp_path / "in" / "2020", "-o", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["a.png", "b.png"]


def test_a_folder_with_other_files_alone_names_their_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.psd").touch()
    with pytest.raises(UsageError, match=r"there is no picture in .* \(1 \.psd\)"):
        plan([tmp_path], None)


@pytest.mark.parametrize(
    ("text", "model", "fidelity"),
    [
        ("codeformer:fidelity=0.7,color=match", "codeformer", 0.7),
        ("C:\\nets\\a.pth", "C:\\nets\\a.pth", None),
        ("C:\\nets\\a.pth:fidelity=0.5", "C:\\nets\\a.pth", 0.5),
        ("C:/nets/a.pth:color=match", "C:/nets/a.pth", None),
        ("a:b.pth", "a:b.pth", None),
        ("a:b.pth:fidelity=1", "a:b.pth", 1),
        ("12:30/a=b.pth", "12:30/a=b.pth", None),
    ],
)
def test_a_model_s_path_may_hold_colons(text: str, model: str, fidelity: float | None) -> None:
    options = parse_setting(text, RestoreOptions())[1]
    assert (options.networks.model, options.fidelity) == (model, fidelity)


def test_a_model_file_whose_name_looks_like_options(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lite:color=match").touch()
    assert parse_setting("lite:color=match", RestoreOptions())[1].networks.model != "lite"
    with pytest.raises(CannotStart, match="'blur' is none of the options"):
        parse_setting("lite:blur=1", RestoreOptions())


@pytest.mark.parametrize("output", [".", "a.png"])
def test_comparisons_take_no_input_s_place(
    tmp_path, monkeypatch, loads, photo, caplog, output
) -> None:
    source = photo(tmp_path / "compare" / "a.png")
    before = source.read_bytes()
    monkeypatch.chdir(tmp_path)
    assert main(["restore", "compare/a.png", "-o", output, "--compare"]) == 2
    assert "compare/a.png is an input" in caplog.text
    assert source.read_bytes() == before


def test_what_its_format_has_no_room_for_is_refused_before_the_work(
    tmp_path, loads, photo, caplog
) -> None:
    source = photo(tmp_path / "a.webp", size=(8200, 16), lossless=True)
    out = tmp_path / "out"
    words = ["restore", str(source), "-o", str(out)]
    assert main([*words, "--compare"]) == 1
    assert "the comparison cannot be written as WEBP (16400x16 is more than" in caplog.text
    assert main([*words, "--upscale", "2"]) == 1
    assert "the result cannot be written as WEBP (16400x32 is more than" in caplog.text
    assert not loads
    assert main([*words, "--compare", "--format", "png"]) == 0
