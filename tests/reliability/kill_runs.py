"""Run ``gfp restore`` again and again, each time killed a little later; for test_reliability.py.

Everything is imported once; each run is a fork of this process, with fakes in place of the
networks, so that a run takes as long as reading, pasting and writing do.

Usage: kill_runs.py FOLDER OUT MOMENTS, in which MOMENTS are seconds, with commas. After each kill a
line is printed: the moment, and the names of the files in OUT.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import FakeDetector, FakeRestorer

from gfp_core.cli import main
from gfp_core.pipeline import FaceRestorer


def run(folder: str, out: str) -> int:
    """Restore a folder with the fakes."""
    torch.set_num_threads(1)
    fake = FaceRestorer(FakeRestorer(), FakeDetector())  # type: ignore[arg-type]
    FaceRestorer.load = classmethod(lambda *_, **__: fake)  # type: ignore[assignment, method-assign]
    return main(["restore", folder, "-o", out, "-q", "--score", "0.5"])


def kill_after(folder: str, out: str, seconds: float) -> None:
    """Start a run, and kill it after a time."""
    child = os.fork()
    if not child:
        os._exit(run(folder, out))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    folder, out, moments = sys.argv[1:]
    for moment in moments.split(","):
        kill_after(folder, out, float(moment))
        names = sorted(path.name for path in Path(out).glob("*")) if Path(out).is_dir() else []
        print(moment, *names, flush=True)  # noqa: T201
    sys.exit(run(folder, out))
