"""Atomic writing: whole or not at all, and nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gfp_core.io import atomic

posix = pytest.mark.skipif(os.name != "posix", reason="rights, links and signals of POSIX")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(atomic, "_swept", set())
    monkeypatch.setattr(atomic, "_reported", set())
    monkeypatch.setattr(atomic, "_WAITS", (0.0, 0.0))


def part_name(pid: int, run: str = "0" * 8, host: str | None = None) -> str:
    return f".gfp-{host or atomic._host()}-{pid}-{run}-0.part"


def test_bytes_and_text_replace_a_file(tmp_path):
    atomic.write_bytes(tmp_path / "a", b"one")
    atomic.write_bytes(tmp_path / "a", b"two")
    atomic.write_text(tmp_path / "b", "grüße\n")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert (tmp_path / "b").read_bytes() == "grüße\n".encode()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("context", [atomic.open_atomic, atomic.atomic_path])
def test_any_exception_leaves_the_folder_as_it_was(tmp_path, context, error):
    (tmp_path / "a").write_bytes(b"before")

    def fail():
        with context(tmp_path / "a"):
            assert len(os.listdir(tmp_path)) == 2
            raise error

    with pytest.raises(error):
        fail()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


@pytest.mark.parametrize("context", [atomic.open_atomic, atomic.atomic_path])
def test_ctrl_c_while_the_disk_makes_the_file_leaves_nothing(tmp_path, monkeypatch, context):
    make = os.open

    def interrupted(*arguments):
        os.close(make(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), context(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


@posix
def test_links_are_never_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "a").symlink_to(victim)
    atomic.write_bytes(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink()
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(atomic, "_counter", iter(range(7, 9)))
    (folder / f".gfp-{atomic._host()}-{os.getpid()}-{atomic._RUN}-7.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomic.write_bytes(folder / "b", b"new")
    (folder / "part").symlink_to(victim)
    with pytest.raises(OSError, match=r"."):
        atomic.commit(folder / "part", folder / "b")
    assert not (folder / "b").exists()
    assert victim.read_bytes() == b"precious"


@posix
@pytest.mark.parametrize("context", [atomic.open_atomic, atomic.atomic_path])
def test_the_result_has_the_usual_rights(tmp_path, context):
    with context(tmp_path / "a") as part:
        if isinstance(part, Path):
            part.unlink()
            part.touch(0o600)  # as some writers do
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    atomic.write_bytes(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_disk_without_fsync_is_reported_once(tmp_path, monkeypatch, caplog):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    for _ in range(3):
        atomic.write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert caplog.text.count("does not confirm writes") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_is_an_error(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        atomic.write_bytes(tmp_path / "a", b"x")
    assert atomic.is_disk_full(caught.value) == (number == errno.ENOSPC)
    assert os.listdir(tmp_path) == []


def test_a_file_held_for_a_moment_is_renamed_again(tmp_path, monkeypatch):
    calls, replace = [], os.replace

    def busy(source, target):
        calls.append(target)
        if len(calls) < 3:
            raise PermissionError(errno.EACCES, "held")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    atomic.write_bytes(tmp_path / "a", b"x")
    assert len(calls) == 3
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_held_for_good_is_an_error(tmp_path, monkeypatch):
    def busy(source, target):
        raise PermissionError(errno.EACCES, "held")

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(PermissionError, match="held"):
        atomic.write_bytes(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


@posix
def test_parts_of_killed_runs_are_swept_by_the_next(tmp_path):
    code = (
        "import os, signal, sys; from gfp_core.io.atomic import open_atomic\n"
        "with open_atomic(sys.argv[1]) as file:\n"
        "    file.write(b'x'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert done.returncode == -9
    assert len(os.listdir(tmp_path)) == 1
    atomic.write_bytes(tmp_path / "b", b"x")
    assert os.listdir(tmp_path) == ["b"]


@posix
def test_sweeping_spares_what_may_be_in_use(tmp_path):
    mine, parent = part_name(os.getpid(), atomic._RUN), part_name(os.getppid())
    other, photo = part_name(1, host="deadbeef"), ".gfp-photo.part"
    for name in (mine, parent, other, photo):
        (tmp_path / name).touch()
    link = part_name(os.getpid())  # of an earlier process of this number, but a link
    (tmp_path / link).symlink_to(photo)
    assert atomic.sweep(tmp_path) == 0
    os.utime(tmp_path / other, (0, 0))
    os.utime(tmp_path / mine, (0, 0))
    (tmp_path / part_name(os.getpid(), "1" * 8)).touch()  # its number is ours now: it is dead
    assert atomic.sweep(tmp_path) == 2
    assert sorted(os.listdir(tmp_path)) == sorted([mine, parent, photo, link])


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic.write_bytes(tmp_path / "gone" / "a", b"x")


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
def test_a_lock_that_was_removed_before_it_was_had_is_taken_anew(tmp_path, monkeypatch) -> None:
    """As by the run before, which ends at that moment: two runs would each have one."""
    import fcntl

    path, flock = tmp_path / "lock", fcntl.flock

    def remove_and_lock(file, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_and_lock)
    with atomic.lock(path), pytest.raises(BlockingIOError):
        atomic.lock(path)
    atomic.lock(path).close()
