"""Timing of steps on this machine, and the table of it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

Times: TypeAlias = dict[str, list[float]]
"""Seconds of each repetition by clock: ``"wall"`` and ``"cpu"``, that of all threads."""


@dataclass(frozen=True)
class Step:
    """One step of the work."""

    name: str
    run: Callable[[], Any]
    note: str = ""


def measure(sides: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Times]:
    """Time several ways to do one thing in turn.

    Each repetition runs every side, and the one that starts alternates, so that a busy machine
    slows all alike. Nothing warms up: call each side once before.

    Returns:
        The times by side.
    """
    times: dict[str, Times] = {name: {"wall": [], "cpu": []} for name in sides}
    for repetition in range(repetitions):
        order = list(sides) if repetition % 2 == 0 else list(sides)[::-1]
        for name in order:
            wall, cpu = time.perf_counter(), time.process_time()
            sides[name]()
            times[name]["wall"].append(time.perf_counter() - wall)
            times[name]["cpu"].append(time.process_time() - cpu)
    return times


def measure_step(step: Step, repetitions: int) -> dict[str, Any]:
    """Time a step after one run that warms up; returns what the JSON report holds for it."""
    step.run()
    seconds = measure({"ours": step.run}, repetitions)["ours"]
    return {"step": step.name, "note": step.note, "seconds": seconds}


def machine() -> dict[str, Any]:
    """Describe what the figures depend on, to be kept with them."""
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
    """Write the report as a Markdown table with the machine and the steps' notes under it.

    Times are medians in milliseconds, with the lowest and highest in brackets.
    """
    lines = ["| step | wall ms | CPU ms |", "|---|---|---|"]
    for row in report["steps"]:
        cells = [spread(row["seconds"][clock]) for clock in ("wall", "cpu")]
        lines.append(f"| {' | '.join([row['step'], *cells])} |")
    notes = [f"- {row['step']}: {row['note']}" for row in report["steps"] if row["note"]]
    return "\n".join([*lines, "", *notes, *footer(report)]) + "\n"


def write_report(report: dict[str, Any], text: str, out: Path | None) -> None:
    """Write a report as OUT.json and OUT.md; nothing without OUT."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1))
        out.with_name(out.name + ".md").write_text(text)


def footer(report: dict[str, Any]) -> list[str]:
    """Describe the report's photo, repetitions and machine, line by line."""
    about = report["machine"]
    load = about["load at the start (1 min)"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return [
        "",
        f"{report['photo']}; medians of {report['repetitions']}.",
        f"Machine: {about['cpu']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['capability']}, networks on {about['device']}; load at the start "
        f"{'unknown' if load is None else format(load, '.1f')}; "
        f"Python {about['python']}, {versions}.",
    ]


def spread(seconds: list[float]) -> str:
    """Median, lowest and highest, in milliseconds with three digits or all before the point."""
    low, middle, high = (
        f"{1000 * value:.3g}" if value < 1 else f"{1000 * value:.0f}"
        for value in (min(seconds), statistics.median(seconds), max(seconds))
    )
    return f"{middle} ({low}, {high})"
