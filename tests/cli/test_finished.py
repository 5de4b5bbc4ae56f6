"""Finished is what the same picture, options and model made, whole; all else is made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfp_core import pipeline
from gfp_core.cli import main
from gfp_core.cli.finished import MANIFEST
from gfp_core.io.images import read_image, read_record
from gfp_core.options import RestoreOptions


@pytest.fixture(autouse=True)
def restorer(monkeypatch, fake_restorer):
    """Fakes in place of the networks."""
    monkeypatch.setattr(pipeline.FaceRestorer, "load", lambda *_, **__: fake_restorer)
    return fake_restorer


def photo(path: Path, face: bool = True, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).integers(0, 256, (96, 80, 3), np.uint8)
    samples[:8, :8] = 255 if face else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples).save(path)
    return path


class Case:
    """Two pictures, one with a face, and how they are restored."""

    def __init__(self, tmp_path: Path, restorer, capsys) -> None:
        self.folder, self.out = tmp_path / "in", tmp_path / "out"
        photo(self.folder / "a.png")
        photo(self.folder / "sub" / "b.png", face=False)
        self.restorer, self.capsys = restorer, capsys

    def run(self, *flags: object, code: int = 0) -> str:
        """What a run says."""
        words = ["restore", self.folder, "-o", self.out, *flags]
        self.restorer.detector.calls.clear()
        assert main([str(word) for word in words]) == code
        return self.capsys.readouterr().err

    @property
    def worked_on(self) -> int:
        """How many pictures the last run looked at."""
        return len(self.restorer.detector.calls)


@pytest.fixture
def case(tmp_path, restorer, capsys) -> Case:
    case = Case(tmp_path, restorer, capsys)
    case.run()
    return case


def test_the_same_again_is_finished(case):
    before = {path: path.stat().st_mtime_ns for path in case.out.rglob("*.png")}
    said = case.run()
    assert "2 finished before" in said
    assert case.worked_on == 0
    assert {path: path.stat().st_mtime_ns for path in case.out.rglob("*.png")} == before


@pytest.mark.parametrize("flags", [["--strength", "0.5"], ["--score", "0.5"], ["--upscale", "2"]])
def test_other_options_make_it_again_and_say_so(case, flags):
    before = read_image(case.out / "a.png").pixels
    said = case.run(*flags)
    assert said.count("Restored again: other options made it.") == 2
    assert case.worked_on == 2
    after = read_image(case.out / "a.png").pixels
    assert ("--score" in flags) == np.array_equal(before, after)
    assert "2 finished before" in case.run(*flags)


def test_how_it_is_computed_makes_no_difference(case):
    assert "2 finished before" in case.run("--device", "cpu", "--batch-size", "4")


def test_another_model_makes_it_again_and_a_missing_one_ends_the_run_at_once(case, tmp_path):
    for flags in (["--model", "missing.pth"], ["--device", "nonsense"], ["--parser", "nix.pth"]):
        said = case.run(*flags, code=2)
        assert flags[1] in said
        assert "finished" not in said
        assert case.worked_on == 0
    model = tmp_path / "model.pth"
    model.write_bytes(b"one")
    assert case.run("--model", model).count("another model made it") == 2
    assert "2 finished before" in case.run("--model", model)
    model.write_bytes(b"other")  # trained on, under its name
    assert case.run("--model", model).count("another model made it") == 2


def test_a_picture_that_was_changed_is_restored_again(case):
    photo(case.folder / "a.png", seed=1)
    said = case.run()
    assert "a.png: Restored again: the picture is another than before." in said
    assert case.worked_on == 1


def test_another_picture_of_the_name_is_restored(case, tmp_path):
    case.folder = tmp_path / "other"
    photo(case.folder / "a.png", seed=2)
    assert "the picture is another than before" in case.run()
    assert case.worked_on == 1


@pytest.mark.parametrize("content", [b"", b"no picture", None])
@pytest.mark.parametrize("manifest", [True, False])
def test_what_is_damaged_is_made_again(case, content, manifest):
    whole = (case.out / "a.png").read_bytes()
    (case.out / "a.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    if not manifest:
        (case.out / MANIFEST).unlink()
    assert "a.png is damaged" in case.run()
    assert (case.out / "a.png").read_bytes() == whole


def test_a_result_that_somebody_changed_stays(case):
    with Image.open(case.out / "a.png") as picture:
        turned = picture.rotate(180)
    turned.save(case.out / "a.png")
    changed = (case.out / "a.png").read_bytes()
    said = case.run()
    assert "The result was changed since it was made: left as it is." in said
    assert "2 finished before" in said
    assert (case.out / "a.png").read_bytes() == changed


def test_without_the_manifest_records_tell(case):
    (case.out / MANIFEST).unlink()
    assert "1 finished before" in case.run()
    assert case.worked_on == 1  # the copy of the picture without a face, which has no record
    (case.out / MANIFEST).unlink()
    assert case.run("--strength", "0.5").count("other options made it") == 1
    (case.out / MANIFEST).unlink()
    photo(case.folder / "a.png", seed=1)
    assert "the picture is another than before" in case.run("--strength", "0.5")


@pytest.mark.parametrize("garbage", [b"\xff\x00{", b"[]\n1\n{}\n", b'{"name": "a.png", "so'])
def test_a_damaged_manifest_is_no_obstacle(case, garbage):
    (case.out / MANIFEST).write_bytes(garbage)
    case.run()
    assert "2 finished before" in case.run()
    names = set()
    for line in (case.out / MANIFEST).read_bytes().splitlines():
        try:
            names.add(json.loads(line)["name"])
        except (ValueError, KeyError, TypeError):
            continue
    assert names >= {"sub/b.png"}


def test_a_file_that_nobody_knows_is_not_overwritten(case):
    (case.out / MANIFEST).unlink()
    own = photo(case.out / "a.png", seed=9).read_bytes()
    said = case.run(code=1)
    assert "a.png is there already, and what made it is not known: --overwrite" in said
    assert (case.out / "a.png").read_bytes() == own
    case.run("--overwrite")
    assert (case.out / "a.png").read_bytes() != own


def test_a_comparison_later_is_added_and_overwrites_nothing(case):
    before = (case.out / "a.png").stat().st_mtime_ns
    said = case.run("--compare")
    assert "a.png: Finished before: compare to be added." in said
    assert (case.out / "a.png").stat().st_mtime_ns == before
    both = read_image(case.out / "compare" / "a.png").pixels
    np.testing.assert_array_equal(both[:, 80:], read_image(case.out / "a.png").pixels)
    case.run("--save-crops")
    assert len(list((case.out / "crops").iterdir())) == 2
    assert "2 finished before" in case.run("--save-crops", "--compare")
    next((case.out / "crops").iterdir()).unlink()
    case.run("--save-crops", "--compare")
    assert case.worked_on == 1
    assert len(list((case.out / "crops").iterdir())) == 2


def test_other_pictures_count_by_their_content(case, tmp_path):
    region = tmp_path / "region.png"
    Image.new("L", (80, 96), 255).save(region)
    assert case.run("--region", region).count("other options made it") == 2
    assert "2 finished before" in case.run("--region", region)
    Image.new("L", (80, 96), 0).save(region)
    assert case.run("--region", region).count("other options made it") == 2
    grounds = tmp_path / "grounds"
    for name in ("a.png", "sub/b.webp"):
        photo(grounds / name, seed=3)
    case.run("--background", grounds)
    assert "2 finished before" in case.run("--background", grounds)
    photo(grounds / "a.png", seed=4)
    assert "the picture is another than before" in case.run("--background", grounds)
    assert case.worked_on == 1
    (grounds / "a.png").unlink()
    assert "there is no picture" in case.run("--background", grounds, code=1)


def test_the_record_says_what_was_done_and_repeats_it(case, tmp_path, restorer):
    flags = ["--strength", "0.5", "--grain", "0.25", "--batch-size", "3"]
    case.run(*flags)
    result = case.out / "a.png"
    record = read_record(result)
    assert 'model = "lite"\nmodel_sha256 = "' in record
    made = RestoreOptions.from_toml(record)
    assert made == RestoreOptions.of(strength=0.5, grain=0.25)
    other = photo(tmp_path / "other.png", seed=5)
    for number, source in enumerate((flags, ["--options", result])):
        words = ["restore", other, "-o", tmp_path / f"{number}.png", *source]
        assert main([str(word) for word in words]) == 0
    first, second = (read_image(tmp_path / f"{number}.png").pixels for number in range(2))
    np.testing.assert_array_equal(first, second)
    case.run("--strength", "0.5", "--no-record")
    assert read_record(result) is None
    assert "2 finished before" in case.run("--strength", "0.5")


def test_one_file_leaves_no_manifest(case, tmp_path):
    target = tmp_path / "one.png"
    words = ["restore", str(case.folder / "a.png"), "-o", str(target)]
    assert main(words) == 0
    assert not (tmp_path / MANIFEST).exists()
    case.capsys.readouterr()
    assert main(words) == 0
    assert "1 finished before" in case.capsys.readouterr().err
    assert main([*words, "--strength", "0"]) == 0
    assert "other options made it" in case.capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_the_manifest_is_never_written_through_a_link(case, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (case.out / MANIFEST).unlink()
    (case.out / MANIFEST).symlink_to(elsewhere)
    assert "what made the results is not noted there" in case.run()
    assert elsewhere.read_text() == "mine"


def test_many_lines_are_left_out_when_later_ones_replace_them(case):
    line = (case.out / MANIFEST).read_text().splitlines()[0]
    (case.out / MANIFEST).write_text(f"{line}\n" * 2000)
    case.run()
    assert len((case.out / MANIFEST).read_text().splitlines()) < 10
