"""Checkpoints of a run: written whole or not at all, found again, and thinned out."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..io.atomic import open_atomic
from ..weights import WeightsError
from ..weights.loading import load_pickle

FOLDER = "checkpoints"


def save(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint, and remove the oldest beyond ``keep``.

    A stop in the middle leaves those before in place.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}.pt"
    with open_atomic(path) as file:
        torch.save(state, file)
    for old in _all(run)[: -max(keep, 1)]:
        old.unlink()
    return path


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run; None if there is none."""
    checkpoints = _all(run)
    return checkpoints[-1] if checkpoints else None


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ValueError: it cannot be read; names it.
    """
    try:
        state: dict[str, Any] = load_pickle(path, device=device)
    except WeightsError as error:
        raise ValueError(
            f"{path} cannot be read ({error}); remove it to go on from the one before"
        ) from error
    return state


def random_states() -> dict[str, Any]:
    """Where the random numbers of Python, NumPy and PyTorch are."""
    return {
        "python": repr(random.getstate()),
        "numpy": [
            value.tolist() if isinstance(value, np.ndarray) else value
            for value in np.random.get_state()  # noqa: NPY002 -- of other packages, which use it
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Go on from `random_states`."""
    import ast

    random.setstate(ast.literal_eval(states["python"]))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def _all(run: Path) -> list[Path]:
    """Checkpoints from the oldest to the newest."""
    paths = (run / FOLDER).glob("step_*.pt")
    return sorted(path for path in paths if re.fullmatch(r"step_\d+\.pt", path.name))
