"""Interleaved timing of two ways to do one thing, and the report of it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of the work, done by the reference and by this project."""

    name: str
    reference: Callable[[], Any]
    ours: Callable[[], Any]
    difference: Callable[[Any, Any], str]
    """Of both results, in words: how far they are apart."""
    note: str = ""


def measure(step: Step, repetitions: int) -> dict[str, Any]:
    """Run both sides of a step in turn; the first run of each warms up and is compared.

    Each repetition runs both sides, and the one that starts alternates, so that a busy machine
    slows both alike. CPU time is that of all threads of the process.

    Returns:
        What the JSON report holds for the step; a ratio is reference / ours: above 1, ours is
        faster.
    """
    sides = {"reference": step.reference, "ours": step.ours}
    difference = step.difference(*(side() for side in sides.values()))
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in sides}
    for repetition in range(repetitions):
        order = list(sides) if repetition % 2 == 0 else list(reversed(sides))
        for name in order:
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            times[name]["wall"].append(time.perf_counter() - wall)
            times[name]["cpu"].append(time.process_time() - cpu)
    ratios = {}
    for clock in ("wall", "cpu"):
        reference, ours = times["reference"][clock], times["ours"][clock]
        each = [a / b for a, b in zip(reference, ours, strict=True)]
        ratios[clock] = {
            "of medians": statistics.median(reference) / statistics.median(ours),
            "lowest": min(each),
            "highest": max(each),
        }
    return {
        "step": step.name,
        "note": step.note,
        "difference": difference,
        "seconds": times,
        "ratio": ratios,
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
            "facexlib": version("facexlib"),
            "spandrel": version("spandrel"),
        },
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table with the machine and the differences under it."""
    about = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        "| step | CPU time, s: reference | ours | ratio | ratio of wall time (lowest, highest) |",
        "|---|---|---|---|---|",
    ]
    for row in report["steps"]:
        seconds = [statistics.median(clocks["cpu"]) for clocks in row["seconds"].values()]
        cpu, wall = row["ratio"]["cpu"], row["ratio"]["wall"]
        lines.append(
            f"| {row['step']} | {seconds[0]:.3g} | {seconds[1]:.3g} | {cpu['of medians']:.2f} "
            f"| {wall['of medians']:.2f} ({wall['lowest']:.2f}, {wall['highest']:.2f}) |"
        )
    lines.append("")
    for row in report["steps"]:
        note = f" {row['note']}" if row["note"] else ""
        lines.append(f"- {row['step']}:{note} Difference: {row['difference']}.")
    for name, peak in report.get("memory", {}).items():
        lines.append(
            f"- peak memory of the whole, {name}: {peak['peak MiB']} MiB, of which "
            f"{peak['before MiB']} MiB before the run (libraries, both sides' networks, photo)."
        )
    load = about["load at the start (1 min)"]
    lines += [
        "",
        f"{report['photo']}; medians of {report['repetitions']}, interleaved.",
        f"Machine: {about['cpu']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['capability']}; load at the start "
        f"{'unknown' if load is None else format(load, '.1f')}; "
        f"Python {about['python']}, {versions}.",
    ]
    return "\n".join(lines) + "\n"
