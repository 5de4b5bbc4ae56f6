"""What the tests of many pictures share: small files, and fakes in place of networks."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gfp_core import pipeline


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Hashes of files are remembered in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def bucket(tmp_path_factory) -> Iterator[str]:
    """Address of an empty bucket, of a server on this machine that speaks S3's protocol (moto)."""
    folder = Path(os.environ.get("GFP_MOTO") or Path(sys.prefix) / "moto")
    if not folder.is_dir():
        pytest.skip(f"no moto in {folder}: .ci/run puts it there")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    log = tmp_path_factory.mktemp("moto") / "log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, **keys, "PYTHONPATH": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/photos", method="PUT")
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    break
            except OSError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        endpoint = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        yield f"s3://test:test@photos?{endpoint}"
    finally:
        server.terminate()
        server.wait()


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
