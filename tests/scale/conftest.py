"""What the tests of many pictures share: small files, and fakes in place of networks."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gfp_core import pipeline


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

    monkeypatch.setattr(pipeline.FaceRestorer, "load", load)
    return calls


def picture_bytes(seed: int, kind: str = "PNG", face: bool = True, size: int = 64) -> bytes:
    """A file of a random picture; the fake detector sees a face where the first pixel is red."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    pixels[:8, :8] = 255 if face else 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 100000 x 100000."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


POISON = {
    "bomb.png": bomb(),
    "truncated.jpg": picture_bytes(1, "JPEG")[:400],
    "empty.jpg": b"",
    "text.png": b"no picture at all",
}
"""Files that are no pictures, by their names."""
