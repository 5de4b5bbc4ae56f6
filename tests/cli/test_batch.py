"""Files that overlap: what is read, worked on and written when, and what is said of it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfp_core.cli.batch import Batch, Steps
from gfp_core.cli.console import Console
from gfp_core.cli.exit_codes import CannotStart
from gfp_core.cli.paths import Job
from gfp_core.io.picture import NotEnoughMemoryError

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 20  # within which whoever waits for another thread gives up
logger = logging.getLogger("gfp_core.test")


def jobs(count: int) -> list[Job]:
    return [
        Job(Path(f"{number}.png"), Path("out"), Path(f"{number}.png")) for number in range(count)
    ]


def number_of(job: Job) -> int:
    return int(job.source.stem)


def test_the_next_is_read_and_the_last_written_meanwhile():
    # Each step waits for one of another file that only an overlapping run has begun.
    begun = {(step, number): threading.Event() for step in "rw" for number in range(4)}
    working = [threading.Event() for _ in range(4)]
    most, in_memory = [0], set()
    lock = threading.Lock()

    def read(job: Job) -> int:
        with lock:
            in_memory.add(number_of(job))
            most[0] = max(most[0], len(in_memory))
        begun["r", number_of(job)].set()
        return number_of(job)

    def work(job: Job, item: int, progress: object) -> int:
        assert threading.current_thread() is threading.main_thread()
        working[item].set()
        if item < 3:
            assert begun["r", item + 1].wait(SECONDS)
        if item > 0:
            assert begun["w", item - 1].wait(SECONDS)
        return item

    def write(job: Job, item: int) -> int:
        begun["w", item].set()
        if item < 3:
            assert working[item + 1].wait(SECONDS)
        with lock:
            in_memory.remove(item)
        return 1

    summary = Batch(Console(quiet=True), Steps(read, work, write)).run(jobs(4))
    assert (summary.with_faces, summary.failed) == (4, {})
    assert most[0] <= 3


def test_a_picture_without_room_beside_others_is_read_again_alone():
    attempts, in_memory = [], set()

    def read(job: Job) -> int:
        attempts.append(number_of(job))
        if in_memory or (number_of(job) == 1 and attempts.count(1) == 1):
            raise NotEnoughMemoryError(f"{job.source} needs more memory than is free")
        return number_of(job)

    def work(job: Job, item: int, progress: object) -> int:
        in_memory.add(item)
        return item

    def write(job: Job, item: int) -> int:
        in_memory.remove(item)
        return 1

    summary = Batch(Console(quiet=True), Steps(read, work, write)).run(jobs(3))
    assert (summary.with_faces, summary.failed) == (3, {})
    assert attempts.count(1) == 2


def test_messages_come_by_file_and_in_order(capsys):
    far = threading.Event()

    def read(job: Job) -> int | None:
        logger.warning("read")
        if number_of(job) == 1:
            raise ValueError("broken")
        if number_of(job) == 3:
            far.set()
            return None
        return number_of(job)

    def work(job: Job, item: int, progress: object) -> int:
        logger.info("worked")
        if item == 2:
            assert far.wait(SECONDS)  # the next one has spoken before this one is written
            raise RuntimeError("odd")
        return item

    def write(job: Job, item: int) -> int:
        logger.warning("written")
        return 0

    with Console() as console:
        summary = Batch(console, Steps(read, work, write)).run(jobs(4))
        logger.info("end")
    assert capsys.readouterr().err.splitlines() == [
        "warning: 0.png: read",
        "0.png: worked",
        "warning: 0.png: written",
        "warning: 1.png: read",
        "error: 1.png: broken",
        "warning: 2.png: read",
        "2.png: worked",
        "error: 2.png: RuntimeError('odd')",
        "warning: 3.png: read",
        "end",
    ]
    assert (summary.without_face, summary.skipped) == (1, 1)
    assert list(summary.failed) == [Path("1.png"), Path("2.png")]


@pytest.mark.parametrize("step", ["read", "work", "write"])
def test_what_cannot_start_ends_the_run(step):
    def refuse(job: Job, *arguments: object) -> int:
        raise CannotStart("no such model")

    def go_on(job: Job, *arguments: object) -> int:
        return 0

    steps = Steps(**{name: refuse if name == step else go_on for name in ("read", "work", "write")})
    with pytest.raises(CannotStart):
        Batch(Console(quiet=True), steps).run(jobs(3))


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_an_interrupt_lets_the_file_being_written_be_finished():
    writing, written = threading.Event(), []

    def work(job: Job, item: int, progress: object) -> int:
        if item == 1:
            assert writing.wait(SECONDS)
            signal.raise_signal(signal.SIGINT)
        return item

    def write(job: Job, item: int) -> int:
        writing.set()
        threading.Event().wait(0.2)
        written.append(item)
        return 1

    steps = Steps(number_of, work, write)
    # Python's own handler: what is started in the background of a shell ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        summary = Batch(Console(quiet=True), steps).run(jobs(4))
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(summary.stopped, KeyboardInterrupt)
    assert (summary.handled, written) == (1, [0])


def test_no_files():
    assert Batch(Console(quiet=True), Steps(number_of, None, None)).run([]).total == 0


MEMORY = """
import sys
from pathlib import Path
import gfp_core.pipeline as pipeline
from gfp_core.cli import main
sys.path.insert(0, "tests")
from conftest import FakeDetector, FakeRestorer

fake = pipeline.FaceRestorer(FakeRestorer(), FakeDetector())
pipeline.FaceRestorer.load = lambda *arguments, **options: fake
count, resident = 0, {}

def detect(frames, **options):
    global count
    count += 1
    status = Path("/proc/self/status").read_text().splitlines()
    resident[count] = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return FakeDetector.detect(fake.detector, frames, **options)

fake.detector.detect = detect
code = main(["restore", sys.argv[1], "-o", sys.argv[2], "--quiet"])
total = max(resident)
print((resident[total] - resident[total // 4]) / 1024)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_over_a_folder(tmp_path):
    """Over the last 150 of 200 pictures of 1 MB each (in floats) it grows by less than 8 MB."""
    samples = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    samples[:8, :8] = 255  # where the fake detector sees a face
    (tmp_path / "in").mkdir()
    for number in range(200):
        Image.fromarray(samples).save(tmp_path / "in" / f"{number:03}.jpg")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "in"), str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 200
    assert float(done.stdout) < 8
