"""What the tests of the command line share: fakes in place of the networks, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gfp_core import pipeline
from gfp_core.cli.finished import MANIFEST


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Hashes of files are remembered in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def loads(monkeypatch, fake_restorer) -> list[tuple]:
    """Puts the fakes in place of the networks; lists how often and as what they were loaded."""
    calls: list[tuple] = []

    def load(*arguments: Any, weights: Any, **options: Any) -> Any:
        calls.append((*arguments, options))
        return fake_restorer

    def find_detector(name: str, *, weights: Any, device: Any = None) -> Any:
        calls.append((name, {"device": device}))
        return fake_restorer.detector

    monkeypatch.setattr(pipeline.FaceRestorer, "load", load)
    monkeypatch.setattr(pipeline, "find_detector", find_detector)
    return calls


@pytest.fixture
def photo() -> Any:
    """Writes a random picture; the fake detector sees a face where the first pixel is red."""

    def write(
        path: Path, face: bool = True, size=(80, 96), mode: str = "RGB", seed: int = 0, **options
    ) -> Path:
        samples = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
        samples[:8, :8, :3] = 255 if face else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(samples).convert("RGB" if mode != "RGBA" else mode)
        picture.convert(mode).save(path, **options)
        return path

    return write


@pytest.fixture
def files() -> Any:
    """Lists all files below a folder but what notes which results are finished."""

    def find(folder: Path) -> list[str]:
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        return sorted(str(path.relative_to(folder)) for path in paths)

    return find
