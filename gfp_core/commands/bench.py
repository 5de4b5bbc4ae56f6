"""``gfp bench``."""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..cli import OK
from ..io.atomic import write_text
from ..io.images import read_image
from .jobs import check_writable
from .running import CannotStart, Console, load, load_weights

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace, console: Console) -> int:
    """Time each step on this machine, print the table, and write JSON where asked.

    Raises:
        CannotStart: there is no photo, no face in it, or the networks cannot be loaded.
    """
    from ..evaluation.speed import Bench
    from ..evaluation.timing import machine, markdown, measure_step
    from ..pipeline import find_device, find_model

    if options.json is not None:
        load(check_writable, options.json.parent)
    photo, about = _photo(options)
    device = load(find_device, options.device)
    model, _ = load(find_model, options.model, load_weights(options))
    bench = Bench(photo, model, device=device)
    load(lambda: bench.faces)
    report: dict[str, Any] = {
        "photo": f"{about}, {photo.shape[1]}x{photo.shape[0]}; model {options.model}",
        "repetitions": options.rounds,
        "machine": {**machine(), "device": str(device)},
        "steps": [],
    }
    for name, make in tqdm(bench.steps.items(), disable=True if console.quiet else None):
        logger.debug("%s", name)
        report["steps"].append(measure_step(make(), options.rounds))
    print(markdown(report), end="")
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return OK


def _photo(options: argparse.Namespace) -> tuple[NDArray[np.uint8], str]:
    """(H, W, 3) uint8 RGB, and what it is."""
    if options.photo is not None:
        pixels = np.clip(np.nan_to_num(load(read_image, options.photo).pixels[..., :3]), 0, 1)
        return (pixels * 255).round().astype(np.uint8), options.photo.name
    from ..evaluation.speed import tiled_astronaut

    try:
        return tiled_astronaut(*options.size), "scikit-image's astronaut, enlarged and tiled"
    except ImportError as error:
        raise CannotStart(
            "there is no photo to work on: name one with a face (gfp bench PHOTO), or install "
            "scikit-image, whose portrait is taken then"
        ) from error
