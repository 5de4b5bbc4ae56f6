"""What docs/reliability.md promises: damaged files, kills at any moment, any mix of options.

Short by default. GFP_FUZZ=N takes N times as many files and mixes, from other seeds.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gfp_core.io.images import ImageError, Picture, read_image
from gfp_core.options import Option, RestoreOptions, options_of

TIMES = int(os.environ.get("GFP_FUZZ", "1"))
FORMATS = {"png": {}, "jpeg": {"quality": 90}, "webp": {}, "tiff": {}, "bmp": {}, "gif": {}}
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def encoded(kind: str, seed: int = 0) -> bytes:
    """Return a small picture of a format, with metadata where the format has it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    options: dict[str, Any] = dict(FORMATS[kind])
    if kind in ("png", "jpeg", "webp", "tiff"):
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a description"
        options["exif"] = exif
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return bytes cut short, overwritten, lengthened, or with a part moved."""
    broken = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(max(1, len(broken)))
        length = chance.choice([1, 2, 4, 16, 64])
        kind = chance.choice(["cut", "noise", "zeros", "insert", "repeat", "delete"])
        if kind == "cut":
            del broken[place:]
        elif kind == "noise":
            broken[place : place + length] = chance.randbytes(length)
        elif kind == "zeros":
            broken[place : place + length] = bytes(length)
        elif kind == "insert":
            broken[place:place] = chance.randbytes(length)
        elif kind == "repeat":
            broken[place:place] = broken[place : place + length]
        else:
            del broken[place : place + length]
    return bytes(broken)


def read_or_error(path: Path) -> Picture | str:
    """Return the picture, or what the one error says that a file may raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that read the file
        try:
            return read_image(path)
        except ImageError as error:
            return str(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_a_picture_or_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{kind}"
    data = encoded(kind)
    for number in range(60 * TIMES):
        path.write_bytes(damaged(data, random.Random(f"{kind} {TIMES} {number}")))
        outcome = read_or_error(path)
        if isinstance(outcome, Picture):
            assert outcome.pixels.size > 0
        else:
            assert str(path) in outcome, number
            assert "\n" not in outcome, number


def test_a_tiff_whose_width_is_of_no_type_is_one_clear_error(tmp_path: Path) -> None:
    data = bytearray(encoded("tiff"))
    entry = data.index((256).to_bytes(2, "little") + (4).to_bytes(2, "little"))
    data[entry + 2] = 200
    path = tmp_path / "photo.tiff"
    path.write_bytes(data)
    assert isinstance(read_or_error(path), (Picture, str))


def value_of(option: Option, chance: random.Random) -> Any:
    """Return some value that an option allows."""
    if option.is_optional and chance.random() < 0.3:
        return None
    if option.choices:
        if option.is_list:
            return chance.sample(option.choices, chance.randint(1, len(option.choices)))
        return chance.choice(option.choices)
    if option.kind is bool:
        return chance.random() < 0.5
    if option.name in ("select", "person_faces"):
        return chance.choice(["all", "none", "first", "first 2", "0, 2", [1]])
    low, high = option.min or 0.0, min(option.max or 1.0, 4000.0)
    share = chance.choice([0.0, 1.0, chance.random()])
    number = low + share * (high - low)
    return int(number) if option.kind is int else number


SKIPPED = {
    "model", "detector", "parser", "embedder", "background_model",  # loaded before
    "device", "precision", "engine", "provider",
    "identity_limit",  # needs an embedder
    "upscale",  # chosen below, for its range would fill the memory
}  # fmt: skip


def mixed_options(chance: random.Random) -> RestoreOptions:
    """Return some options, each other than its default or not."""
    options = [each for each in options_of(RestoreOptions) if each.name not in SKIPPED]
    values = {each.name: value_of(each, chance) for each in chance.sample(options, 8)}
    if values.get("mask") == "parts":
        values["mask"] = "hull"  # parts need a parser
    if values.get("color") == "reference":
        values["color"] = "match"  # needs a reference
    values["upscale"] = chance.choice([1, 1, 0.5, 1.7, 2])
    return RestoreOptions.of(score=0.5).replace(**values)


def test_any_mix_of_options_restores_or_says_why(fake_restorer: Any) -> None:
    for number in range(40 * TIMES):
        chance = random.Random(f"options {TIMES} {number}")
        options = mixed_options(chance)
        height, width = chance.choice([(64, 48), (97, 131), (33, 200)])
        generator = torch.Generator().manual_seed(number)
        frames = torch.rand(chance.choice([0, 1, 2]), chance.choice([3, 4]), height, width,
                            generator=generator)  # fmt: skip
        frames[:, 0, 0, 0] = 1.0  # where the fake detector sees a face
        before = frames.clone()
        result = fake_restorer.restore(frames, options)
        assert torch.equal(frames, before), options
        assert result.frames.shape[:2] == frames.shape[:2], options
        assert result.frames.isfinite().all(), options
        assert not result.frames.numel() or result.frames.min() >= 0, options
        if options.upscale == 1 and len(frames):
            outside = (result.mask == 0)[:, None].expand_as(frames)
            assert torch.equal(result.frames[outside], frames[outside]), options


@POSIX
@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_whole_files_and_goes_on(tmp_path: Path) -> None:
    folder, out, calm = tmp_path / "in", tmp_path / "out", tmp_path / "calm"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (300, 400, 3), np.uint8)
        pixels[:8, :8] = (255, 90, 90)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    moments = [f"{0.02 + 0.04 * number:.2f}" for number in range(30)]
    script = [sys.executable, str(Path(__file__).with_name("kill_runs.py")), str(folder)]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for target, times in ((calm, "0.01"), (out, ",".join(moments))):
        done = subprocess.run(
            [*script, str(target), times], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(moments)
    names = sorted(path.name for path in calm.iterdir())
    assert sorted(path.name for path in out.iterdir()) == names  # no parts of killed runs
    for name in names:
        if name.endswith(".png"):
            assert (out / name).read_bytes() == (calm / name).read_bytes()
