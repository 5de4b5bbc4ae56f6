"""What the steps that run networks share: memory that runs out, and results that repeat."""

from __future__ import annotations

import ctypes
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_ALIASES = {"rocm": "cuda", "hip": "cuda", "gpu": None, "auto": None, "directml": "privateuseone"}
"""What users call devices, and PyTorch's name; None: the fastest there is."""

KEPT_FOR_PICTURES = 256 * 2**20
"""Bytes of `keep_freed_memory` with which restoring takes a tenth less time and no more memory."""


def pick(device: torch.device | str | None = None) -> torch.device:
    """Pick the device to run on, and make sure that the device works.

    Args:
        device: a device or its name: PyTorch's, as "cpu" or "cuda:1"; "rocm", which PyTorch calls
            "cuda"; or "directml", which needs the package torch-directml. None and "auto" take the
            first that is there of CUDA (or ROCm), XPU, MPS and the CPU.

    Raises:
        ValueError: there is no such device here; one line.
    """
    name = str(device).strip().lower() if device is not None else "auto"
    kind, colon, index = name.partition(":")
    known_kind = _ALIASES.get(kind, kind)
    if known_kind is None:
        return _fastest()
    kind = known_kind
    try:
        if kind == "privateuseone":
            return _directml(int(index) if index else None)
        picked = torch.device(kind + colon + index)
        torch.zeros(1, device=picked).cpu()  # fails where the device is missing or holds no numbers
    except (ImportError, RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        logger.debug("Device %s: %s", name, error)
        # PyTorch's own messages go on for pages: only a short first sentence is worth repeating.
        reason = re.split(r"\. |[\n;!]", str(error).strip(), maxsplit=1)[0].rstrip(".")
        detail = f" ({reason})" if len(reason) < 80 and "aten" not in reason else ""
        raise ValueError(
            f"device {device} cannot be used here{detail}; there is: {', '.join(_available())}"
        ) from error
    return picked


def _available() -> list[str]:
    """List the kinds of devices that work here, the fastest first."""
    accelerators: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "xpu": torch.xpu.is_available,
        "mps": torch.backends.mps.is_available,
    }
    return [name for name, is_available in accelerators.items() if is_available()] + ["cpu"]


def _fastest() -> torch.device:
    return torch.device(_available()[0])


def _directml(index: int | None) -> torch.device:
    """Open a DirectML device, which is a package's and not PyTorch's own."""
    try:
        import torch_directml
    except ImportError as error:
        raise ImportError("the package torch-directml is not installed") from error
    return torch.device(torch_directml.device(index))


def in_chunks(
    run: Callable[[int, int], Result], total: int, chunk: int, device: torch.device, hint: str
) -> Iterator[Result]:
    """Run over ``total`` items, some at a time, and half as many whenever memory runs out.

    Args:
        run: called as ``run(start, stop)``; its results are yielded in order.
        total: number of items.
        chunk: items to begin with at a time, at least 1.
        device: where ``run`` works.
        hint: logged when one item alone is too much: what the user can do then.

    Raises:
        Exception: whatever ``run`` raises; the lack of memory too, when it is down to one item.
    """
    done = 0
    while done < total:
        count = min(chunk, total - done)
        results = []
        try:
            results.append(run(done, done + count))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if count == 1:
                logger.error("Out of memory on %s: %s", device, hint)
                raise
        if results:
            yield results[0]
            done += count
        else:  # only here, for the exception had kept the tensors of the failed attempt alive
            release_memory(device)
            chunk = count // 2
            logger.warning("Out of memory on %s: going on with %d at a time.", device, chunk)


def in_threads(run: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Run over items in as many threads as PyTorch has; the results come in order.

    Few of them wait to be taken, so that not all are in memory at once. An exception of ``run``, or
    of who takes the results, ends it: what has begun is waited for.
    """
    workers = min(torch.get_num_threads(), len(items))
    if workers < 2:
        yield from map(run, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            if len(waiting) > workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(run, item))
        while waiting:
            yield waiting.popleft().result()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says, by its type or its message, that a device or the host is full."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return bool(
        re.search(r"out of memory|not enough memory|allocate memory|ALLOC_FAILED", str(error))
    )


def release_memory(device: torch.device) -> None:
    """Give cached blocks back, which may be of the wrong size for a smaller chunk."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def trim_memory() -> None:
    """Give memory that was freed back to the system, where the C library is glibc.

    It keeps what lies between blocks in use: after a network was loaded and laid out anew, about as
    much as its weights.
    """
    if (trim := _from_glibc("malloc_trim")) is not None:
        trim(0)


def keep_freed_memory(limit: int | None = None) -> None:
    """Let the C library keep what this process frees, where it is glibc.

    It gives large blocks back to the system and takes new ones, whose pages the system must clear
    first, tensor for tensor: a tenth of the time of GFPGAN on a CPU, a third of lite's training.

    Args:
        limit: bytes that it may keep at the end of its heap; what is larger than 32 MiB does not
            lie there. None: everything.
    """
    if (mallopt := _from_glibc("mallopt")) is None:
        return
    trim_threshold, top_pad, mmap_threshold, mmap_max = -1, -2, -3, -4  # of malloc.h
    if limit is None:
        options = {mmap_max: 0, trim_threshold: -1, top_pad: 2**28}
    else:
        options = {mmap_threshold: 32 * 2**20, trim_threshold: limit}
    for option, value in options.items():
        mallopt(option, value)


def _from_glibc(name: str) -> Any:
    """One of its functions; None where the C library is another."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # on Windows there is no None
        logger.debug("This C library has no %s.", name)
        return None


def deterministic(device: torch.device, *, allow_tf32: bool) -> AbstractContextManager[None]:
    """Make cuDNN choose algorithms that give the same bits every time, with or without TF32."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=allow_tf32
    )
