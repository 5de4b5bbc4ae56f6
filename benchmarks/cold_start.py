"""The cold start: the whole, once, in a process of its own. What the first result costs.

    python -m benchmarks.cold_start ours MODEL PHOTO.npy DEVICE DETECTOR

Each side imports, inside its function, only what it needs itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run_cold(side: str, model: Path, photo: Path, device: str, detector: Path) -> dict[str, Any]:
    """Restore a photo in a new process.

    Args:
        side: ``"baseline"`` or ``"ours"``.
        model: checkpoint of the restorer.
        photo: NumPy file of (H, W, 3) uint8 RGB.
        device: where the networks run.
        detector: state dict of the baseline's detector, with batch norms; we take the bundled one.

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

    from gfp_core.devices import KEPT_FOR_PICTURES, keep_freed_memory
    from gfp_core.evaluation.speed import restore_photo
    from gfp_core.pipeline import FaceRestorer

    keep_freed_memory(KEPT_FOR_PICTURES)  # as ``gfp restore`` does
    restore_photo(FaceRestorer.load(model, device=device), np.load(photo))


def _baseline(model: str, photo: str, device: str, detector: str) -> None:
    import numpy as np
    import torch

    from . import baselines

    net = baselines.small_detector(torch.load(detector), device)
    restorer = baselines.restorer(Path(model), device)
    if restorer is None:
        raise SystemExit(f"spandrel finds no GFPGAN in {model}")
    baselines.whole(net, restorer, np.load(photo))


def _peak_mib() -> int | None:
    status = Path("/proc/self/status")  # not getrusage, which counts the parent of a fork, too
    if not status.exists():
        return None
    peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak[0].split()[1]) // 1024


if __name__ == "__main__":
    {"ours": _ours, "baseline": _baseline}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps({"cpu seconds": time.process_time(), "peak MiB": _peak_mib()}))
