"""``gfp restore --jobs N``: as with one process, though several work, break or are stopped."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from gfp_core.cli import jobs, main
from gfp_core.cli.console import Console
from gfp_core.cli.exit_codes import CannotStart, DiskFull
from gfp_core.cli.finished import MANIFEST
from gfp_core.cli.jobs import Jobs
from gfp_core.cli.paths import Job, Plan
from gfp_core.options import FileOptions
from tests.cli import process_stand_in

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch):
    """Runs files of these names in two processes; gives the summary."""
    monkeypatch.setattr(jobs, "work", process_stand_in.work)

    def run(*names: str, count: int = 2):
        plan = Plan([Job(Path(f"{name}.png"), Path("out"), Path(f"{name}.png")) for name in names])
        with Console() as console:
            return Jobs(console, argparse.Namespace(), FileOptions(), count).run(plan)

    return run


def test_what_becomes_of_files_is_said_in_their_order(run, capsys) -> None:
    summary = run("slow", "a", "broken", "done", "odd", "b")
    assert (summary.with_faces, summary.faces, summary.skipped) == (3, 3, 1)
    assert [path.name for path in summary.failed] == ["broken.png", "odd.png"]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert said == [f"warning: {name}.png: said of {name}" for name in ("slow", "a", "b")]


def test_a_process_that_ends_costs_its_file_alone(run) -> None:
    summary = run("a", "crash", "b", "c", "crash2", "d")
    assert summary.with_faces == 4
    reason = summary.failed[Path("crash.png")]
    assert reason.startswith("crash.png: the process that worked on it ended (signal 9)")
    assert len(summary.failed) == 2


def test_a_file_without_room_beside_others_comes_last_and_alone(run) -> None:
    # The same process gets it again: that is what the stand-in goes by.
    summary = run("large", "a", count=1)
    assert (summary.with_faces, summary.failed) == (2, {})


def test_a_full_disk_stops_the_run(run) -> None:
    summary = run("a", "full", *["wait"] * 2)
    assert isinstance(summary.stopped, DiskFull)
    assert summary.handled == 1


def test_networks_that_are_not_available_stop_the_run(run) -> None:
    with pytest.raises(CannotStart, match="no such model"):
        run("stop", "wait")


@pytest.fixture
def interrupts():
    """Python's own handler: what is started in the background of a shell ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_stopping_ends_all_processes(run, interrupts) -> None:
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    summary = run("wait", "wait2")
    timer.join()
    assert isinstance(summary.stopped, KeyboardInterrupt)


def test_frames_in_order_are_refused(photo, tmp_path: Path, capsys) -> None:
    photo(tmp_path / "in" / "a.png")
    words = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--jobs", "2", "--video"]
    assert main(words) == 2
    assert "--jobs and --video" in capsys.readouterr().err
    assert main([*words[:-2], "0"]) == 2


def pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    face = Image.fromarray(data.astronaut()).crop((150, 0, 300, 150))
    for number in range(count):
        face.resize((100 + number, 100 + number)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")


def command(folder: Path, out: str, *words: str) -> list[str]:
    paths = [str(folder / "in"), "-o", str(folder / out)]
    return [sys.executable, "-m", "gfp_core", "restore", *paths, *words]


@pytest.mark.slow
def test_results_records_and_exit_code_are_those_of_one_process(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 4)
    runs = []
    for out, jobs_count in (("one", "1"), ("two", "2")):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        if out == "one":  # each of two has half of the cores
            environment["OMP_NUM_THREADS"] = str(max(1, jobs._cores() // 2))
        runs.append(
            subprocess.run(
                command(tmp_path, out, "--jobs", jobs_count),
                env=environment,
                capture_output=True,
                text=True,
            )
        )
    assert [result.returncode for result in runs] == [1, 1]
    one, two = (result.stderr.replace(str(tmp_path), "") for result in runs)
    assert one == two
    for number in range(4):
        name = f"{number}.png"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    lines = (tmp_path / "two" / MANIFEST).read_text().splitlines()
    assert {json.loads(line)["name"] for line in lines} == {f"{number}.png" for number in range(4)}
    again = subprocess.run(
        command(tmp_path, "two"), env=environment, capture_output=True, text=True
    )
    assert "4 finished before" in again.stderr


@pytest.mark.slow
def test_ctrl_c_stops_all_and_leaves_nothing_half_written(tmp_path: Path, interrupts) -> None:
    import psutil

    pictures(tmp_path / "in", 60)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command(tmp_path, "out", "--jobs", "2"),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*.png")):
        assert time.monotonic() < end
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on with the rest" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(
        children, timeout=20
    )  # the last one waits for the first to be gone
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    assert list((tmp_path / "out").glob("*.part")) == []
