"""Measure `gfp scale` on this machine: faults, throughput and memory; the figures of docs/scale.md.

    python -m benchmarks.scale faults        300 pictures, the bundled model; an actor killed, a
                                             machine removed; beside a plain `gfp restore`
    python -m benchmarks.scale throughput    1 and 2 actors beside a plain loop
    python -m benchmarks.scale memory        2,000 pictures; driver and actors

Throughput and memory use a stand-in for the networks, which takes 0.5 s a picture, or no time.
Machines are three nodes of Ray on this one, of one CPU and an object store of 100 MB each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gfp_core.io.images import decode_image, encode_image
from gfp_core.scale import FaceRestorerBatch
from gfp_core.scale.ray_data import Report, ScaleJob, Worker, run

STORE = 100_000_000
PIDS = "GFP_BENCHMARK_PIDS"
SECONDS = "GFP_BENCHMARK_SECONDS"


class Noted(Worker):
    """The real worker; its process can be found."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        note_process()


class StandIn(FaceRestorerBatch):
    """Decodes, takes the time of a restoration, and encodes."""

    def __init__(self, parcels: Any = (), **settings: Any) -> None:
        super().__init__(**settings)
        note_process()

    def _load(self) -> Any:
        return None

    def _restore(self, name: str, picture: Any) -> tuple[bytes, str]:
        before = decode_image(bytes(picture), name)
        time.sleep(float(os.environ.get(SECONDS, "0")))
        return encode_image(before, "JPEG", name), "[]"


def note_process() -> None:
    """Leave the number of this process where the driver finds it."""
    Path(os.environ[PIDS], str(os.getpid())).touch()


@contextmanager
def cluster(machines: int) -> Any:
    """Nodes of Ray on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
    )
    others = [nodes.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(machines - 1)]
    nodes.connect()
    try:
        yield nodes, others
    finally:
        ray.shutdown()
        nodes.shutdown()


def make_pictures(folder: Path, count: int, side: int) -> None:
    """Write small JPEG files of one photograph, each cut and blurred in another way."""
    from PIL import Image
    from skimage import data

    source = Image.fromarray(data.astronaut())
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        x, y = generator.integers(90, 150), generator.integers(0, 30)
        small = source.crop((x, y, x + 200, y + 200)).resize((48 + number % 40,) * 2)
        small.resize((side, side)).save(folder / f"{number:05}.jpg", quality=60 + number % 35)


def poison(folder: Path) -> list[str]:
    """Write files that are no pictures, and return their names."""
    whole = (folder / "00000.jpg").read_bytes()
    bomb = bytearray(b"BM" + bytes(52))
    bomb[14:18] = (40).to_bytes(4, "little")
    bomb[18:22] = bomb[22:26] = (100_000).to_bytes(4, "little")
    files = {"bomb.bmp": bytes(bomb), "truncated.jpg": whole[:300], "empty.jpg": b""}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sorted(files)


def faults(work: Path, count: int) -> dict[str, Any]:
    """Lose an actor and a machine, and compare with a plain run."""
    make_pictures(work / "in", count, 128)
    broken = poison(work / "in")
    lost: list[str] = []
    with cluster(3) as (nodes, others):

        def interfere(report: Report) -> None:
            if report.done >= count // 5 and not lost:
                for entry in Path(os.environ[PIDS]).iterdir():
                    with suppress(ProcessLookupError):
                        os.kill(int(entry.name), signal.SIGKILL)
                        lost.append("actor")
                        break
            elif report.done >= count // 2 and len(lost) == 1:
                nodes.remove_node(others.pop())
                lost.append("machine")

        job = ScaleJob(str(work / "in"), str(work / "out"), part_rows=16, actors=(2, 3))
        report = run(job, progress=interfere, worker=Noted)
        again = run(job)
    command = [sys.executable, "-m", "gfp_core", "restore", str(work / "in"), "-q"]
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "-o", str(work / "plain")], env=environment, check=False)
    plain_seconds = time.monotonic() - began
    names = [path.name for path in (work / "plain").glob("*.*") if path.suffix == ".jpg"]
    different = [
        name
        for name in names
        if (work / "plain" / name).read_bytes() != (work / "out" / name).read_bytes()
    ]
    return {
        "lost": lost,
        "report": report.to_dict(),
        "broken": broken,
        "plain_results": len(names),
        "plain_seconds": plain_seconds,
        "different_from_plain": different,
        "second_run": {"skipped": again.skipped, "done": again.done},
    }


def throughput(work: Path, count: int) -> dict[str, Any]:
    """Seconds a picture between the first part and nine tenths, beside a plain loop."""
    make_pictures(work / "in", count, 512)
    os.environ[SECONDS] = "0.5"
    restore = StandIn()
    began = time.monotonic()
    for path in sorted((work / "in").iterdir())[: count // 2]:
        rows = restore({"id": [path.name], "bytes": [path.read_bytes()]})
        (work / path.name).write_bytes(rows["restored"][0])
    table: dict[str, Any] = {"plain_loop": (time.monotonic() - began) / (count // 2)}
    for actors in (1, 2):
        with cluster(2):
            stamps: list[tuple[float, int]] = []

            def note(report: Report, stamps: list[tuple[float, int]] = stamps) -> None:
                stamps.append((time.monotonic(), report.done))

            job = ScaleJob(
                str(work / "in"), str(work / f"out{actors}"), part_rows=4, actors=(actors, actors)
            )
            report = run(job, progress=note, worker=StandIn)
        # Without the start, and without the end, when Ray takes the stages apart.
        full = [stamp for stamp in stamps if stamp[1] <= 0.9 * count]
        (first, before), (last, after) = full[0], full[-1]
        table[f"{actors}_actors"] = {
            "seconds_per_picture": (last - first) / (after - before),
            "with_start": report.wall_seconds / report.done,
        }
    return table


def memory(work: Path, count: int) -> dict[str, Any]:
    """The memory of driver and actors, without what they share, in the course of a job."""
    import psutil

    make_pictures(work / "in", count, 512)
    samples: list[dict[str, Any]] = []
    with cluster(2) as _:
        import ray

        def note(report: Report) -> None:
            share = report.done / count
            if len(samples) > int(share * 8):
                return
            entry: dict[str, Any] = {"done": report.done, "actors": []}
            entry["driver"] = psutil.Process().memory_full_info().uss >> 20
            for path in Path(os.environ[PIDS]).iterdir():
                with suppress(psutil.NoSuchProcess):
                    uss = psutil.Process(int(path.name)).memory_full_info().uss
                    entry["actors"].append(uss >> 20)
            free = ray.available_resources().get("object_store_memory", 0)
            entry["object_store_used"] = int(2 * STORE - free) >> 20
            samples.append(entry)

        job = ScaleJob(str(work / "in"), str(work / "out"), part_rows=16, actors=(2, 2))
        report = run(job, progress=note, worker=StandIn)
    return {"done": report.done, "seconds": report.wall_seconds, "megabytes": samples}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    measures = {"faults": (faults, 300), "throughput": (throughput, 120), "memory": (memory, 2000)}
    parser.add_argument("measure", choices=tuple(measures))
    parser.add_argument("--count", type=int, help="pictures")
    arguments = parser.parse_args()
    function, count = measures[arguments.measure]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "pids").mkdir()
        os.environ[PIDS] = str(work / "pids")
        result = function(work, arguments.count or count)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
