"""What ``gfp bench --gpu-report`` measures: whether a card computes what a CPU does, and how fast.

No card was at hand when the library was written. One report from one says what the tests cannot.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..detect import load_detector
from ..devices import deterministic, is_out_of_memory, release_memory
from ..networks import retinaface
from ..restore import Restorer
from .timing import machine

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BATCHES = (1, 2, 4, 8, 16, 32)
LIMITS = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.4}
"""Largest difference from the CPU's float32 that counts as correct, in [-1, 1]."""


def gpu_report(
    restorer: Restorer,
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    repetitions: int = 5,
) -> dict[str, Any]:
    """Measure a restorer and the bundled detector on a device.

    Args:
        restorer: on the CPU; it stays there.
        device: what to measure.
        batches: numbers of faces at once; where memory runs out the larger ones are left out.
        repetitions: of each timing, after two runs that warm up.

    Returns:
        What the JSON file holds: ``machine``, ``detector``, a row of ``precisions`` for each of
        them, and ``graphs`` and ``compile``. What fails has an ``error`` in place of numbers.
    """
    net = copy.deepcopy(restorer.net).to(device)
    faces = _faces(max(batches), restorer.size)
    with torch.inference_mode():
        expected = restorer.net(faces[:1])
    report: dict[str, Any] = {
        "machine": machine() | _about(device),
        "network": restorer.name,
        "detector": _guarded(lambda: _detector(device)),
        "precisions": {},
    }
    for name, dtype in PRECISIONS.items():
        if device.type == "cpu" and name == "fp16":
            continue  # emulated there, and of no use
        logger.info("%s", name)

        def row(dtype: torch.dtype = dtype, name: str = name) -> dict[str, Any]:
            return _correctness(net, faces[:1], expected, device, dtype, LIMITS[name]) | {
                "batches": list(_batches(net, faces, device, dtype, batches, repetitions))
            }

        report["precisions"][name] = _guarded(row)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    face = faces[:1].to(device)
    for name, make in (("graphs", _graphed), ("compile", _compiled)):
        logger.info("%s", name)
        report[name] = _guarded(partial(_beside, make, net, face, dtype, repetitions))
    return report


def _faces(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _about(device: torch.device) -> dict[str, Any]:
    about: dict[str, Any] = {"device": str(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "name": properties.name,
            "capability of the card": f"{properties.major}.{properties.minor}",
            "memory, MiB": properties.total_memory // 2**20,
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "cudnn": torch.backends.cudnn.version(),
        }
    return about


def _guarded(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure; what goes wrong is a result, too."""
    try:
        return measure()
    except Exception as error:
        logger.warning("%s: %s", type(error).__name__, str(error).partition("\n")[0])
        return {"error": f"{type(error).__name__}: {str(error)[:500]}"}


@contextmanager
def _arithmetic(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run as `Restorer` does, without autocast's copies of weights, which no graph can hold."""
    is_half = dtype != torch.float32
    with (
        torch.no_grad(),
        torch.autocast(device.type, dtype, enabled=is_half, cache_enabled=False),
        deterministic(device, allow_tf32=is_half),
    ):
        yield


def _wait(device: torch.device) -> None:
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).synchronize()


def _seconds(run: Callable[[], Any], device: torch.device, repetitions: int) -> float:
    for _ in range(2):
        run()
    times = []
    for _ in range(repetitions):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _detector(device: torch.device) -> dict[str, Any]:
    """Compare the detector's raw outputs, and time one look at 1280 x 720."""
    ours, theirs = load_detector(device="cpu").net, load_detector(device=device).net
    x = torch.rand(1, 3, 720, 1280, generator=torch.Generator().manual_seed(0))
    moved = x.to(device)

    def look() -> Sequence[Tensor]:
        result: Sequence[Tensor] = theirs(moved, prepare=retinaface.preprocess)
        return result

    with torch.inference_mode(), deterministic(device, allow_tf32=False):
        pairs = zip(ours(x, prepare=retinaface.preprocess), look(), strict=True)
        difference = max(float((a - b.cpu()).abs().max()) for a, b in pairs)
        seconds = _seconds(look, device, 5)
    return {"difference": difference, "correct": difference <= 1e-3, "seconds": seconds}


def _correctness(
    net: nn.Module,
    x: Tensor,
    expected: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    limit: float,
) -> dict[str, Any]:
    with _arithmetic(device, dtype):
        results = [net(x.to(device)).float().cpu() for _ in range(2)]
    difference = (results[0] - expected).abs()
    return {
        "largest difference": float(difference.max()),
        "mean difference": float(difference.mean()),
        "correct": bool(difference.max() <= limit),  # false for NaN
        "repeats to the bit": torch.equal(*results),
    }


def _batches(
    net: nn.Module,
    faces: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    batches: Sequence[int],
    repetitions: int,
) -> Iterator[dict[str, Any]]:
    """Time batches until memory runs out."""
    for count in batches:
        release_memory(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            with _arithmetic(device, dtype):
                x = faces[:count].to(device)
                seconds = _seconds(partial(net, x), device, repetitions)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield {"faces": count, "error": "out of memory"}
            return
        row: dict[str, Any] = {"faces": count, "seconds a face": seconds / count}
        if device.type == "cuda":
            row["peak memory, MiB"] = torch.cuda.max_memory_allocated(device) // 2**20
        yield row


def _beside(
    make: Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]],
    net: nn.Module,
    x: Tensor,
    dtype: torch.dtype,
    repetitions: int,
) -> dict[str, Any]:
    """Compare another way to run one face with the plain one, and time both."""
    device = x.device
    with _arithmetic(device, dtype):
        expected = net(x).clone()
        start = time.perf_counter()
        run = make(net, x)
        result = run(x).clone()
        making = time.perf_counter() - start
        return {
            "difference": float((result - expected).abs().max()),
            "seconds to make": making,
            "seconds": _seconds(lambda: run(x), device, repetitions),
            "seconds of the plain form": _seconds(lambda: net(x), device, repetitions),
        }


def _graphed(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Record a forward pass as a CUDA graph, which spares the launches of its 465 operations.

    Raises:
        RuntimeError: the device has no such graphs.
    """
    if x.device.type != "cuda":
        raise RuntimeError("CUDA graphs need CUDA")
    static = x.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            net(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = net(static)

    def run(face: Tensor) -> Tensor:
        static.copy_(face)
        graph.replay()
        output: Tensor = result
        return output

    return run


def _compiled(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Compile a network; on a CPU that takes minutes and has no use.

    Raises:
        RuntimeError: the device is a CPU.
    """
    if x.device.type == "cpu":
        raise RuntimeError("torch.compile is of use on a GPU only")
    compiled: Callable[[Tensor], Tensor] = torch.compile(net, dynamic=False)
    return compiled
