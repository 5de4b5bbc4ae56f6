"""``gfp restore --shard``: parts that are disjoint, whole, and the same on every machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from gfp_core.cli import main
from gfp_core.cli.finished import MANIFEST
from gfp_core.cli.shards import Shard, part_of


def test_the_part_of_a_file_depends_on_its_path_alone() -> None:
    assert part_of(PurePosixPath("2024/summer/a.jpg"), 16) == 9
    assert part_of(PureWindowsPath("2024\\summer\\a.jpg"), 16) == 9
    assert part_of(PurePosixPath("Mu\u0308nchen.jpg"), 16) == part_of(
        PurePosixPath("M\u00fcnchen.jpg"), 16
    )


def test_parts_are_of_about_the_same_size() -> None:
    names = [PurePosixPath(f"{number:05}.jpg") for number in range(8000)]
    sizes = [sum(part_of(name, 8) == part for name in names) for part in range(1, 9)]
    assert sum(sizes) == 8000
    assert max(sizes) < 1.1 * min(sizes)


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "-1/4", "a/b", "1/4/4"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="16"):
        Shard.parse(text)


def test_the_parts_together_are_what_one_run_makes(loads, photo, files, tmp_path: Path) -> None:
    for number in range(12):
        photo(tmp_path / "in" / f"{number % 3}" / f"{number}.png", seed=number)
    assert main(["restore", str(tmp_path / "in"), "-o", str(tmp_path / "one"), "-q"]) == 0
    parts = []
    for part in (1, 2, 3):
        words = ["-o", str(tmp_path / "parts"), "--shard", f"{part}/3", "-q"]
        assert main(["restore", str(tmp_path / "in"), *words]) == 0
        lines = (tmp_path / "parts" / MANIFEST).read_text().splitlines()
        parts.append(len(lines))
    assert parts[-1] == 12  # each file was noted once: no part did what another had done
    assert 0 < parts[0] < parts[1] < 12
    assert len({json.loads(line)["name"] for line in lines}) == 12
    assert files(tmp_path / "parts") == files(tmp_path / "one")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_part_without_a_file_is_done_at_once(loads, photo, tmp_path: Path, caplog) -> None:
    photo(tmp_path / "in" / "a.png")
    part = part_of(Path("a.png"), 4)
    words = ["-o", str(tmp_path / "out"), "--shard", f"{part % 4 + 1}/4"]
    assert main(["restore", str(tmp_path / "in"), *words]) == 0
    assert loads == []


def test_frames_in_order_stay_together(loads, photo, tmp_path: Path) -> None:
    for folder in ("x", "y", "z", "w"):
        for number in range(3):
            photo(tmp_path / "in" / folder / f"{number}.png", seed=number)
    out = tmp_path / "out"
    words = ["restore", str(tmp_path / "in"), "-o", str(out), "--video", "-q", "--shard", "1/2"]
    assert main(words) == 0
    counts = {
        folder.name: len(list(folder.iterdir())) for folder in out.iterdir() if folder.is_dir()
    }
    assert set(counts.values()) == {3}
    assert 0 < len(counts) < 4
