"""From a run's checkpoint to a file that the loader takes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..io.atomic import atomic_path
from ..networks.gfpgan_state import bilinear_to_clean
from . import checkpoints


def export(
    run: Path, out: Path, *, half: bool = False, metadata: dict[str, str] | None = None
) -> dict[str, str]:
    """Write the averaged weights of a run's newest checkpoint as safetensors.

    The bilinear, equalized form of GFP-GAN becomes the clean one, without loss.

    Args:
        run: the run's folder.
        out: the file; written whole or not at all.
        half: float16 instead of float32.
        metadata: added to the file's: licence, credits for the data, results.

    Returns:
        The file's metadata.

    Raises:
        ValueError: the run has no checkpoint.
    """
    path = checkpoints.latest(run)
    if path is None:
        raise ValueError(f"{run} holds no checkpoint: is it the folder given to `gfp train --run`?")
    state = checkpoints.load(path)
    recipe = json.loads(state["recipe"])
    weights, architecture = state["average"], recipe["model"]["name"]
    if architecture == "GFPGANBilinear":
        weights, architecture = bilinear_to_clean(weights), "GFPGANClean"
    about = {
        "architecture": architecture,
        "origin": f"trained with gfp train; {recipe['about']}",
        "steps": str(state["step"]),
        "recipe": state["recipe"],
        **(metadata or {}),
    }
    kind = torch.float16 if half else torch.float32
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        tensors = {key: tensor.to(kind).contiguous() for key, tensor in weights.items()}
        save_file(tensors, temporary, about)
    return about
