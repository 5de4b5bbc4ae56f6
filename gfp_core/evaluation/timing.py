"""Interleaved timing of one thing done by this library and by a peer, and the report of it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SIDES = ("reference", "ours")


@dataclass(frozen=True)
class Step:
    """One step of the work, done by this library and, if there is one, by a reference."""

    name: str
    ours: Callable[[], Any]
    reference: Callable[[], Any] | None = None
    difference: Callable[[Any, Any], str] | None = None
    """Of the results of the reference and of ours, in words: how far they are apart."""
    note: str = ""


def measure(step: Step, repetitions: int) -> dict[str, Any]:
    """Run both sides of a step in turn; the first run of each warms up and is compared.

    Each repetition runs both sides, and the one that starts alternates, so that a busy machine
    slows both alike. CPU time is that of all threads of the process.

    Returns:
        What the JSON report holds for the step; a ratio is reference / ours: above 1, ours is
        faster.
    """
    sides = {"ours": step.ours}
    if step.reference is not None:
        sides = {"reference": step.reference, **sides}
    first = [side() for side in sides.values()]
    row: dict[str, Any] = {"step": step.name, "note": step.note}
    if step.difference is not None and len(first) == 2:
        row["difference"] = step.difference(*first)
    del first
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in sides}
    for repetition in range(repetitions):
        order = list(sides) if repetition % 2 == 0 else list(reversed(sides))
        for name in order:
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            times[name]["wall"].append(time.perf_counter() - wall)
            times[name]["cpu"].append(time.process_time() - cpu)
    row["seconds"] = times
    if step.reference is not None:
        row["ratio"] = {clock: _ratio(times, clock) for clock in ("wall", "cpu")}
    return row


def _ratio(times: dict[str, dict[str, list[float]]], clock: str) -> dict[str, float]:
    reference, ours = times["reference"][clock], times["ours"][clock]
    each = [a / b for a, b in zip(reference, ours, strict=True)]
    return {
        "of medians": statistics.median(reference) / statistics.median(ours),
        "lowest": min(each),
        "highest": max(each),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on, to be kept with them."""
    import cv2
    import numpy
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load at the start (1 min)": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
            "facexlib": _version("facexlib"),
            "spandrel": _version("spandrel"),
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table with the machine and the differences under it.

    Times are medians in milliseconds, with the lowest and highest in brackets; ratios of CPU and
    of wall time are reference / ours, those of the medians.
    """
    about = report["machine"]
    lines = [
        "| step | reference, CPU ms | ours, CPU ms | ratio, CPU | ratio, wall (lowest, highest) |",
        "|---|---|---|---|---|",
    ]
    for row in report["steps"]:
        seconds = row["seconds"]
        cells = [_spread(seconds[side]["cpu"]) if side in seconds else "-" for side in SIDES]
        if "ratio" in row:
            cpu, wall = row["ratio"]["cpu"], row["ratio"]["wall"]
            cells.append(f"{cpu['of medians']:.2f}")
            cells.append(f"{wall['of medians']:.2f} ({wall['lowest']:.2f}, {wall['highest']:.2f})")
        else:
            cells += ["-", "-"]
        lines.append(f"| {' | '.join([row['step'], *cells])} |")
    lines.append("")
    for row in report["steps"]:
        said = [row["note"]] if row["note"] else []
        said += [f"Difference: {row['difference']}."] if "difference" in row else []
        if said:
            lines.append(f"- {row['step']}: {' '.join(said)}")
    for side, runs in report.get("alone", {}).items():
        times = _spread([run["seconds"] for run in runs])
        cpu = _spread([run["cpu seconds"] for run in runs])
        peak = max(run["peak MiB"] for run in runs)
        lines.append(
            f"- the whole in a process of its own, from its start to its end, {side}: "
            f"{times} ms, CPU {cpu} ms, peak memory {peak or 'unknown'} MiB."
        )
    load = about["load at the start (1 min)"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines += [
        "",
        f"{report['photo']}; medians of {report['repetitions']}, interleaved.",
        f"Machine: {about['cpu']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['capability']}, networks on {about['device']}; load at the start "
        f"{'unknown' if load is None else format(load, '.1f')}; "
        f"Python {about['python']}, {versions}.",
    ]
    return "\n".join(lines) + "\n"


def _spread(seconds: list[float]) -> str:
    """Median, lowest and highest, in milliseconds with three digits or all before the point."""
    low, middle, high = (
        f"{1000 * value:.3g}" if value < 1 else f"{1000 * value:.0f}"
        for value in (min(seconds), statistics.median(seconds), max(seconds))
    )
    return f"{middle} ({low}, {high})"
