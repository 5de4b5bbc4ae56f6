"""The whole, once, in a process of its own: what the first result costs, and how much memory.

    python -m gfp_core.evaluation.alone ours MODEL PHOTO.npy

Each side imports, inside its function, only what it needs itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run_alone(side: str, model: Path, photo: Path, device: str, detector: Path) -> dict[str, Any]:
    """Restore a photo in a new process.

    Args:
        side: ``"reference"`` or ``"ours"``.
        model: checkpoint of the restorer.
        photo: NumPy file of (H, W, 3) uint8 RGB.
        device: where the networks run.
        detector: state dict of the reference's detector, with batch norms; we take the bundled one.

    Returns:
        ``seconds`` from before its start to its end, its ``cpu seconds`` and ``peak MiB`` (None
        where the system does not tell: it is read from Linux's /proc).

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", __name__, side, str(model), str(photo), device, str(detector)]
    begin = time.perf_counter()
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return {"seconds": time.perf_counter() - begin, **result}


def _ours(model: str, photo: str, device: str, detector: str) -> None:
    import numpy as np

    from ..devices import KEPT_FOR_PICTURES, keep_freed_memory
    from ..pipeline import FaceRestorer
    from .speed import our_whole

    keep_freed_memory(KEPT_FOR_PICTURES)  # as ``gfp restore`` does
    our_whole(FaceRestorer.load(model, device=device), np.load(photo))


def _reference(model: str, photo: str, device: str, detector: str) -> None:
    import numpy as np
    import torch

    from . import peers

    found = peers.small_detector(torch.load(detector), device)
    restorer = peers.restorer(Path(model), device)
    if restorer is None:
        raise SystemExit(f"spandrel finds no GFPGAN in {model}")
    peers.whole(found, restorer, np.load(photo))


def _peak_mib() -> int | None:
    status = Path("/proc/self/status")  # not getrusage, which counts the parent of a fork, too
    if not status.exists():
        return None
    peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak[0].split()[1]) // 1024


if __name__ == "__main__":
    {"ours": _ours, "reference": _reference}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"cpu seconds": time.process_time(), "peak MiB": _peak_mib()}))  # noqa: T201
