"""Clips on the command line: results, finished ones, cancelled ones, what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

from gfp_core import clips
from gfp_core.cli.main import main
from gfp_core.io.images import read_image
from gfp_core.io.video import read_record
from tests.io.clip_maker import make_clip, packets_of, stamps_of


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "SEGMENT", 5)


SCORE = ("--score", "0.5")


def gfp(*words: Any) -> int:
    return main([*map(str, words)])


def test_a_clip_is_restored_into_a_file(
    tmp_path: Path, loads: Any, caplog: Any, capsys: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=7)
    target = tmp_path / "out.mp4"
    assert gfp("restore", source, "-o", target, *SCORE, "--scenes") == 0
    assert stamps_of(target) == stamps_of(source)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert any(
        text.startswith("7 frames, 7 faces in 7 of them, 0 cuts") for text in caplog.messages
    )
    assert capsys.readouterr().out == f"{source}\t1\t0.000\t7\t7\n"
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def test_what_was_done_stands_in_the_clip_and_is_read_again(
    tmp_path: Path, loads: Any, capsys: Any, caplog: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=3)
    for ending in ("mp4", "mkv", "mov", "avi"):
        target = tmp_path / f"out.{ending}"
        flags = (*SCORE, "--strength", "0.5", "--crf", "21")
        assert gfp("restore", source, "-o", target, *flags) == 0
        assert "source_sha256" in (read_record(target) or "")
        capsys.readouterr()
        assert gfp("options", "--options", target, "--changed", "--no-comments") == 0
        printed = capsys.readouterr().out
        assert "strength = 0.5" in printed
        assert "[clip]\ncrf = 21.0" in printed
        caplog.clear()
        assert gfp("restore", source, "-o", target, *flags) == 0
        assert any("1 finished before" in text for text in caplog.messages)
    assert gfp("restore", source, "-o", tmp_path / "no.mp4", *SCORE, "--no-record") == 0
    assert read_record(tmp_path / "no.mp4") is None


def test_a_folder_may_mix_pictures_and_clips(
    tmp_path: Path, loads: Any, photo: Any, files: Any, caplog: Any
) -> None:
    photo(tmp_path / "in" / "a.png")
    make_clip(tmp_path / "in" / "b.mkv", frames=3)
    make_clip(tmp_path / "in" / "c.mp4", frames=3, face=False)
    words = ("restore", tmp_path / "in", "-o", tmp_path / "out", *SCORE)
    assert gfp(*words) == 0
    assert files(tmp_path / "out") == ["a.png", "b.mkv", "c.mp4"]
    assert (tmp_path / "out/c.mp4").read_bytes() == (tmp_path / "in/c.mp4").read_bytes()
    assert any("2 restored (4 faces), 1 without a face" in text for text in caplog.messages)
    caplog.clear()
    assert gfp(*words) == 0
    assert any("3 finished before" in text for text in caplog.messages)
    caplog.clear()
    assert gfp(*words, "--crf", "30") == 0  # of no account for the picture
    assert any("1 finished before" in text for text in caplog.messages)


def test_a_moving_gif_is_a_clip_and_another_a_picture(
    tmp_path: Path, loads: Any, photo: Any, files: Any
) -> None:
    photo(tmp_path / "in" / "still.gif")
    make_clip(tmp_path / "moving.mp4", frames=3, sound=0)
    assert (
        gfp("restore", tmp_path / "moving.mp4", "-o", tmp_path / "in" / "moving.gif", *SCORE) == 0
    )
    assert gfp("restore", tmp_path / "in", "-o", tmp_path / "out", *SCORE) == 0
    assert files(tmp_path / "out") == ["moving.gif", "still.gif.png"]
    assert gfp("restore", tmp_path / "in/moving.gif", "-o", tmp_path / "first.png", *SCORE) == 0
    assert read_image(tmp_path / "first.png").pixels.shape == (48, 64, 3)


def test_a_cancelled_clip_plays_and_the_same_command_goes_on(
    tmp_path: Path, loads: Any, fake_restorer: Any, monkeypatch: Any, caplog: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    target = tmp_path / "out.mp4"
    restore, calls = fake_restorer.restore, [0]

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:
            raise KeyboardInterrupt
        return restore(*arguments, **more)

    monkeypatch.setattr(fake_restorer, "restore", interrupted)
    assert gfp("restore", source, "-o", target, *SCORE) == 130
    assert not target.exists()
    assert stamps_of(tmp_path / "out.part.mp4") == stamps_of(source)[:7]
    assert any("The same command goes on" in text for text in caplog.messages)
    assert gfp("restore", source, "-o", target, *SCORE) == 0
    assert any("5 frames finished before" in text for text in caplog.messages)
    assert stamps_of(target) == stamps_of(source)
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def test_without_the_library_one_error_names_the_extra(
    tmp_path: Path, loads: Any, photo: Any, files: Any, monkeypatch: Any, caplog: Any
) -> None:
    photo(tmp_path / "in" / "a.png")
    for name in ("b.mp4", "c.mp4"):
        make_clip(tmp_path / "in" / name, frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    assert gfp("restore", tmp_path / "in", "-o", tmp_path / "out", *SCORE) == 1
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith("2 clips left out, such as")
    assert "pip install 'gfp-face-restoration[video]'" in errors[0]
    assert files(tmp_path / "out") == ["a.png"]
    assert gfp("restore", tmp_path / "in/b.mp4", "-o", tmp_path / "b.mp4", *SCORE) == 2


def test_clips_and_pictures_are_not_mixed_up(
    tmp_path: Path, loads: Any, photo: Any, caplog: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2)
    assert gfp("restore", source, "-o", tmp_path / "out.png") == 2
    assert "is a clip, and" in caplog.messages[-1]
    assert gfp("restore", photo(tmp_path / "a.png"), "-o", tmp_path / "out.mp4") == 2
    assert gfp("restore", source, "-o", source) == 2
    assert "is an input and would be overwritten" in caplog.messages[-1]
    assert gfp("detect", source) == 1  # clips are for `gfp restore`


def test_a_full_disk_ends_the_run(
    tmp_path: Path, loads: Any, monkeypatch: Any, caplog: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=3)

    def full(*_: Any) -> None:
        raise OSError(28, "no space left on the disk of x")

    monkeypatch.setattr("gfp_core.io.video.Segment.write", full)
    assert gfp("restore", source, "-o", tmp_path / "out.mp4", *SCORE) == 3
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="no such signals")
def test_a_terminated_clip_plays_and_goes_on(
    tmp_path: Path, loads: Any, fake_restorer: Any, monkeypatch: Any, caplog: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    target = tmp_path / "out.mp4"
    restore, calls = fake_restorer.restore, [0]

    def terminated(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return restore(*arguments, **more)

    monkeypatch.setattr(fake_restorer, "restore", terminated)
    assert gfp("restore", source, "-o", target, *SCORE) == 128 + signal.SIGTERM
    assert not target.exists()
    shown = stamps_of(tmp_path / "out.part.mp4")
    assert shown == stamps_of(source)[: len(shown)]
    assert len(shown) >= 6
    assert gfp("restore", source, "-o", target, *SCORE) == 0
    assert any("5 frames finished before" in text for text in caplog.messages)
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]
