"""``gfp queue`` with two real servers, one of which is killed on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from gfp_core.cli import main
from gfp_core.cli import queue as command

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "api" / "restore_a_photo.json"


def test_a_killed_server_costs_no_file(comfyui, photos, tmp_path: Path, monkeypatch) -> None:
    names = [f"{number}.png" for number in range(6)]
    (tmp_path / "in").mkdir()
    face = Image.open(photos / "second.png")
    for number, name in enumerate(names):
        face.crop((number, number, 200 + number, 200 + number)).save(tmp_path / "in" / name)
    (tmp_path / "server").mkdir()
    second = type(comfyui)(comfyui.core, tmp_path / "server")
    killed = []
    take = command._next

    def kill_after_the_first(feeder):
        done = take(feeder)
        if done is not None and not killed:
            second.process.kill()
            killed.append(done)
        return done

    monkeypatch.setattr(command, "_next", kill_after_the_first)
    words = ["queue", str(WORKFLOW), str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    try:
        second.start()
        assert main([*words, "--servers", second.url, comfyui.url]) == 0
    finally:
        second.stop()
    assert killed
    for name in names:
        before = np.asarray(Image.open(tmp_path / "in" / name).convert("RGB"))
        after = np.asarray(Image.open(tmp_path / "out" / name).convert("RGB"))
        assert before.shape == after.shape
        assert (before != after).any()
        assert np.array_equal(before[:2], after[:2])  # of its own file: no face is there
    stamps = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names}
    assert main([*words, "--servers", comfyui.url]) == 0
    assert stamps == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names}
    shutil.rmtree(comfyui.base / "input" / "gfp-queue", ignore_errors=True)
