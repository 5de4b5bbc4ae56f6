"""Pictures are measured before they are decoded; a full disk is an error of its own."""

from __future__ import annotations

import errno
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfp_core.io import atomic, images, memory
from gfp_core.io.images import (
    DiskFullError,
    ImageError,
    NotEnoughMemoryError,
    Picture,
    check_memory,
    read_header,
    read_image,
    write_image,
)


def large_png(path: Path, width: int, height: int) -> Path:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_picture_beyond_the_free_memory_is_refused_undecoded(tmp_path, monkeypatch):
    path = large_png(tmp_path / "big.png", 14_000, 14_000)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2_000_000_000)
    monkeypatch.setattr(images, "decode", None)
    message = r"big\.png needs about 5\.1 GB of memory to be read, and 2\.0 GB is free; make it"
    with pytest.raises(NotEnoughMemoryError, match=message):
        read_image(path)
    assert issubclass(NotEnoughMemoryError, ImageError)  # the next picture is tried


def test_where_nothing_says_how_much_is_free_pictures_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").width == 4


def test_the_need_for_a_restoration_grows_with_the_upscaling(tmp_path):
    header = read_header(large_png(tmp_path / "a.png", 1000, 1000))
    assert header.read_bytes < header.restore_bytes() < header.restore_bytes(2.0)
    assert header.restore_bytes(0.5) == header.restore_bytes()
    assert header.read_bytes <= header.restore_bytes(levels=True) < header.restore_bytes()
    with pytest.raises(NotEnoughMemoryError, match="to be restored"):
        check_memory("a.png", 1 << 60, "restored")


@pytest.mark.parametrize("head", [b"no picture", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_a_huge_file_is_not_read_to_see_that_it_is_none(tmp_path, monkeypatch, head):
    path = tmp_path / "x.jpg"
    path.write_bytes(head)
    os.truncate(path, 40 << 30)  # sparse
    if path.stat().st_blocks > 1000:
        pytest.skip("a file system without sparse files")
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 << 30)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"x\.jpg"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_and_those_above_count(tmp_path, version):
    own = tmp_path / "own"
    base = tmp_path if version == 2 else tmp_path / "memory"
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    own.write_text("0::/a/b\n" if version == 2 else "3:cpu:/a/b\n2:memory:/a/b\n")
    for group, limit in (("a", "1000"), ("a/b", "max")):
        (base / group).mkdir(parents=True)
        (base / group / names[0]).write_text(limit + "\n")
        (base / group / names[1]).write_text("700\n")
        (base / group / "memory.stat").write_text(f"anon 5\n{names[2]} 200\n")
    assert list(memory._cgroups(tmp_path, own)) == [500]
    assert list(memory._cgroups(tmp_path, tmp_path / "gone")) == []


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux")
def test_the_system_says_what_is_free():
    free = memory.available_bytes()
    assert free is not None
    assert 0 < free < 1 << 50


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_its_own(tmp_path, monkeypatch, number):
    def fail(path, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "write_bytes", fail)
    with pytest.raises(DiskFullError, match=r"a\.png .*disk is full; free some space"):
        write_image(tmp_path / "a.png", Picture(np.zeros((2, 2, 3), np.float32)))
