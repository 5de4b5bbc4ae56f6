"""What is said never decides over the work, and nothing that a terminal would obey is printed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gfp_core.cli import main
from gfp_core.cli.console import printable, printable_name
from gfp_core.cli.exit_codes import FAILED, OK, USAGE

REPOSITORY = Path(__file__).resolve().parents[2]
EVIL = "\x1b]0;title\x07\x1b[31m\u202egnp\x9b2J\n"
POSIX = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which ``gfp`` is this tree's."""
    gfp = f"{sys.executable} -m gfp_core"
    return subprocess.run(
        ["bash", "-c", line.replace("gfp ", f"{gfp} ")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_printable() -> None:
    assert printable("plain\tätext 写\n") == "plain\tätext 写\n"
    assert printable("\x1b[0m\x7f\x9b\u202e\u2028\udc80") == (
        "\\x1b[0m\\x7f\\x9b\\u202e\\u2028\\udc80"
    )
    assert printable_name(Path("a\nb\rc")) == "a\\nb\\rc"


@POSIX
@pytest.mark.parametrize(
    "words",
    [
        ["restore", "{file}", "-o", "out"],
        ["restore", "{folder}", "-o", "out", "-v"],
        ["restore", "{folder}", "-o", "out"],
        ["restore", "missing" + EVIL, "-o", "out"],
        ["restore", "{file}", "-o", "out", "--model", "x" + EVIL],
        ["restore", "{file}", "-o", "out", "--preset", EVIL],
        ["restore", "{file}", "-o", "out", "--options", "x" + EVIL],
        ["restore", "{file}", "-o", "x" + EVIL + ".gif"],
        ["restore", "{file}", "-o", "out", "--mask", EVIL],
        ["restore", "{file}", "-o", "out", "--" + EVIL],
        ["detect", "{file}", "{folder}"],
        ["detect", "{folder}", "--json"],
        ["weights", "inspect", "{file}"],
        ["weights", "get", EVIL],
        [EVIL],
    ],
)
def test_names_that_a_terminal_would_obey(
    words: list[str], tmp_path: Path, monkeypatch, photo: Callable, loads, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"in{EVIL}"
    file = photo(folder / f"a{EVIL}.png")
    (folder / f"b{EVIL}.png").write_bytes(b"broken")
    (folder / f"c.p{EVIL}").write_bytes(b"other")
    (folder / f"link{EVIL}").symlink_to(tmp_path)
    main([word.format(file=file, folder=folder) for word in words])
    shown = capsys.readouterr()
    assert shown.out + shown.err
    for character in EVIL.replace("\n", ""):
        if not character.isprintable():
            assert character not in shown.out + shown.err


@POSIX
def test_a_line_feed_in_a_name_forges_no_message(tmp_path: Path, loads, capsys) -> None:
    bad = tmp_path / "a.png\nerror: forged.png"
    bad.write_bytes(b"broken")
    assert run("restore", bad, "-o", tmp_path / "out") == FAILED
    assert not any(line.startswith("error: forged") for line in capsys.readouterr().err.split("\n"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EBADF, errno.EPIPE, errno.EIO])
def test_standard_error_that_takes_nothing_stops_nothing(
    tmp_path: Path, photo: Callable, files: Callable, loads, monkeypatch, number: int
) -> None:
    class Full:
        encoding = "utf-8"

        def write(self, text: str = "") -> int:
            raise OSError(number, os.strerror(number))

        flush = write
        isatty = staticmethod(lambda: True)

    photo(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stderr", Full())
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / "out", "-v", "--which", "all") == OK
    assert files(tmp_path / "out") == ["a.png"]
    assert run("restore", tmp_path / "b.png", "-o", tmp_path / "out") == FAILED
    assert run("restore") == USAGE


def test_no_standard_streams_at_all(
    tmp_path: Path, photo: Callable, files: Callable, loads, monkeypatch
) -> None:
    photo(tmp_path / "a.png")
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert run("restore", tmp_path / "a.png", "-o", tmp_path / "out") == OK
    assert run("detect", tmp_path / "a.png") == OK
    assert files(tmp_path / "out") == ["a.png"]
    for stream in (sys.stdout, sys.stderr):  # those that lead nowhere
        stream.close()


@POSIX
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("gfp options 2>&-", OK, ""),
        ("gfp options >&-", OK, ""),
        ("gfp options <&- >&- 2>&-", OK, ""),
        ("gfp --help >&-", OK, ""),
        ("gfp --version 2>&- | cat", OK, ""),
        ("gfp options > /dev/full", FAILED, "standard output cannot be written (No space left"),
        ("gfp --help > /dev/full", FAILED, "standard output cannot be written (No space left"),
        ("gfp restore 2> /dev/full", USAGE, ""),
        ("set -o pipefail; gfp options | head -1 > /dev/null", None, ""),
    ],
)
@pytest.mark.parametrize("buffering", ["", "1"])
def test_streams_that_are_closed_or_full(
    line: str, code: int | None, said: str, buffering: str
) -> None:
    if "/dev/full" in line and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    done = shell(line, PYTHONUNBUFFERED=buffering)
    assert done.returncode in ((OK, FAILED) if code is None else (code,))
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@POSIX
def test_a_file_never_takes_the_number_of_a_closed_stream() -> None:
    program = (
        "import os, sys; from gfp_core.cli.console import open_streams; open_streams();"
        "descriptor = os.open('README.md', os.O_RDONLY); sys.exit(descriptor)"
    )
    line = f'{sys.executable} -c "{program}" <&- >&- 2>&-'
    assert shell(line).returncode > 2


def test_a_listing_that_nobody_reads_ends_the_run(
    tmp_path: Path, photo: Callable, loads, monkeypatch, capsys, fake_restorer
) -> None:
    class Closed:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = staticmethod(lambda: None)

    for number in range(9):
        photo(tmp_path / f"{number}.png")
    monkeypatch.setattr(sys, "stdout", Closed())
    assert run("detect", tmp_path) == FAILED
    assert len(fake_restorer.detector.calls) <= 3
    assert "error" not in capsys.readouterr().err


@POSIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_end_a_run_like_ctrl_c(
    name: str, tmp_path: Path, photo: Callable, files: Callable, loads, fake_restorer, capsys,
    monkeypatch,
) -> None:  # fmt: skip
    number = getattr(signal, name)
    restore = fake_restorer.restorer.restore
    done = []

    def interrupt(faces, **options):
        done.append(len(faces))
        if len(done) == 2:
            signal.raise_signal(number)
        return restore(faces, **options)

    monkeypatch.setattr(fake_restorer.restorer, "restore", interrupt)
    for letter in "abc":
        photo(tmp_path / "in" / f"{letter}.png")
    default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    before = signal.signal(number, default)
    try:
        assert run("restore", tmp_path / "in", "-o", tmp_path / "out") == 128 + number
        assert signal.getsignal(number) is default
    finally:
        signal.signal(number, before)
    said = capsys.readouterr().err
    assert "1 of 3 files are done. The same command goes on with the rest." in said
    assert files(tmp_path / "out") == ["a.png"]


@POSIX
def test_a_signal_that_is_ignored_stays_so(tmp_path: Path, photo: Callable, loads) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        photo(tmp_path / "a.png")
        assert run("restore", tmp_path / "a.png", "-o", tmp_path / "out") == OK
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_missing_library_is_one_line(tmp_path: Path, photo, loads, capsys, monkeypatch) -> None:
    reason = "libGL.so.1: cannot open shared object file"
    monkeypatch.setitem(sys.modules, "gfp_core.cli.restoring", None)
    assert run("restore", photo(tmp_path / "a.png"), "-o", tmp_path / "out") == USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: a package cannot be loaded")
    assert len(said.splitlines()) == 1

    def fail(*_: object) -> None:
        raise ImportError(reason)

    monkeypatch.setattr("gfp_core.cli.detect.read_options", fail)
    assert run("detect", tmp_path / "a.png") == USAGE
    assert f"({reason}): install the system's package libgl1" in capsys.readouterr().err


def test_the_version_and_what_it_runs_on(capsys) -> None:
    assert run("--version") == OK
    assert capsys.readouterr().out == "gfp 0.1.0\n"
    assert run("--version", "--verbose") == OK
    lines = capsys.readouterr().out.splitlines()
    starts = [line.split()[0] for line in lines]
    assert starts[:3] == ["gfp", "python", "torch"]
    assert {"program", "weights", "device", "downloads"} <= set(starts)
