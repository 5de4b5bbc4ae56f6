"""``gfp bench``."""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from ..options import RestoreOptions
from .console import Console, say
from .exit_codes import OK, CannotStart
from .flags import add_options, read_options
from .loading import load, load_restorer_network, load_weights
from .paths import check_writable, path_argument

logger = logging.getLogger(__name__)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        parents=[talk],
        help="time each step on this machine",
        description="Time each step from photo to photo on this machine, and print a table.",
    )
    parser.add_argument(
        "photo",
        nargs="?",
        type=path_argument,
        metavar="PHOTO",
        help="picture with a face (default: the portrait of scikit-image, if it is installed)",
    )
    parser.add_argument(
        "--size",
        type=_count,
        nargs=2,
        default=(1920, 1080),
        metavar=("W", "H"),
        help="size to which the default portrait is enlarged (default: 1920 1080)",
    )
    parser.add_argument(
        "--rounds", type=_count, default=5, help="repetitions of each step (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=path_argument, metavar="FILE", help="also write all times to FILE"
    )
    parser.add_argument(
        "--gpu-report",
        type=path_argument,
        metavar="FILE",
        help="instead, compare the device with the CPU in all precisions and batches of 1 to 32, "
        "and write FILE, to be sent to us (docs/gpu.md)",
    )
    add_options(parser, only=lambda option: option.name in ("model", "device"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Time each step on this machine, print the table, and write JSON where asked.

    Raises:
        CannotStart: there is no photo, no face in it, or the networks cannot be loaded.
    """
    from ..evaluation.speed import Bench
    from ..evaluation.timing import machine, markdown, measure_step
    from ..io.atomic import write_text
    from ..pipeline import find_device, find_model

    options = read_options(arguments)
    if arguments.gpu_report is not None:
        return _report_on_gpu(arguments, options)
    if arguments.json is not None:
        load(check_writable, arguments.json.parent)
    photo, about = _photo(arguments)
    device = load(find_device, options.runtime.device)
    weights = load_weights(arguments)
    model, _ = load(find_model, options.networks.model, weights)
    bench = Bench(photo, model, device=device, weights=weights)
    load(lambda: bench.faces)
    report: dict[str, Any] = {
        "photo": f"{about}, {photo.shape[1]}x{photo.shape[0]}; model {options.networks.model}",
        "repetitions": arguments.rounds,
        "machine": {**machine(), "device": str(device)},
        "steps": [],
    }
    with console.progress("steps") as progress:
        for number, (name, make) in enumerate(bench.steps.items()):
            logger.debug("%s", name)
            progress(number, len(bench.steps))
            report["steps"].append(measure_step(make(), arguments.rounds))
    say(markdown(report).removesuffix("\n"))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(report, indent=1) + "\n")
    return OK


def _report_on_gpu(arguments: argparse.Namespace, options: RestoreOptions) -> int:
    """Measure the device beside the CPU, and write what was found as JSON."""
    from ..evaluation.gpu_report import BATCHES, gpu_report
    from ..io.atomic import write_text
    from ..pipeline import find_device
    from ..restore import Restorer

    load(check_writable, arguments.gpu_report.parent)
    device = load(find_device, options.runtime.device)
    net = load_restorer_network(options.networks.model, load_weights(arguments))
    restorer = load(Restorer, net, device="cpu")
    batches = BATCHES if device.type != "cpu" else BATCHES[:2]
    report = gpu_report(restorer, device, batches=batches, repetitions=arguments.rounds)
    write_text(arguments.gpu_report, json.dumps(report, indent=1) + "\n")
    logger.info("%s: %s on %s", arguments.gpu_report, restorer.name, device)
    return OK


def _photo(arguments: argparse.Namespace) -> tuple[Any, str]:
    """(H, W, 3) uint8 RGB, and what it is."""
    if arguments.photo is not None:
        import numpy as np

        from ..io.images import read_image

        pixels = np.clip(np.nan_to_num(load(read_image, arguments.photo).pixels[..., :3]), 0, 1)
        return (pixels * 255).round().astype(np.uint8), arguments.photo.name
    from ..evaluation.speed import tiled_astronaut

    try:
        return tiled_astronaut(*arguments.size), "scikit-image's astronaut, enlarged and tiled"
    except ImportError as error:
        raise CannotStart(
            "there is no photo to work on: name one with a face (gfp bench PHOTO), or install "
            "scikit-image, whose portrait is taken then"
        ) from error


def _count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)
