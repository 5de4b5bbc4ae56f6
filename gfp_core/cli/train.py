"""``gfp train``."""

from __future__ import annotations

import argparse
import logging
import math
from typing import TYPE_CHECKING, Any

from .console import Console
from .exit_codes import OK, CannotStart
from .flags import add_options, read_options
from .loading import load
from .paths import path_argument

if TYPE_CHECKING:
    from ..training.trainer import Trainer

logger = logging.getLogger(__name__)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        parents=[talk],
        help="train a model by a recipe",
        description="Train a model. The same command goes on with a run that was stopped.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or a TOML file")
    parser.add_argument(
        "--data", type=path_argument, required=True, help="folder made by gfp prepare"
    )
    parser.add_argument(
        "--run", dest="training", type=path_argument, required=True, help="folder of the run"
    )
    parser.add_argument(
        "--values",
        choices=("paper", "released"),
        default="paper",
        help="which to take where paper and released code differ (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipe: --set data.batch=4",
    )
    parser.add_argument("--minutes", type=float, help="stop after so long, with a checkpoint")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU")
    add_options(parser, only=lambda option: option.name == "device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Train, or go on training; returns the exit code.

    Raises:
        CannotStart: recipe, faces or run cannot be used.
    """
    import torch

    from ..devices import keep_freed_memory
    from ..pipeline import find_device
    from ..training.processes import find_processes

    device = read_options(arguments).runtime.device
    keep_freed_memory()
    if arguments.threads is not None:
        load(torch.set_num_threads, arguments.threads)
    if device is not None:
        load(find_device, device)
    processes = load(find_processes, device)
    console.quiet = console.quiet or not processes.first
    trainer: Trainer = load(_trainer, arguments, processes)
    logger.info(
        "Training on %s, %d faces a step, from step %d to %d; sheets, log and checkpoints in %s.",
        processes.device,
        trainer.recipe.data.batch * processes.count,
        trainer.step,
        trainer.recipe.schedule.steps,
        arguments.training,
    )
    minutes = math.inf if arguments.minutes is None else arguments.minutes
    with console.progress("steps", trainer.step) as progress:
        try:
            finished = load(trainer.train, minutes=minutes, progress=progress)
        except FloatingPointError as error:  # it says what to do
            raise CannotStart(str(error)) from error
    if not finished:
        logger.info("Step %d; the same command goes on.", trainer.step)
    return OK


def _trainer(arguments: argparse.Namespace, processes: object) -> Trainer:
    from ..training.pack import FacePack
    from ..training.processes import Processes
    from ..training.recipes import load_recipe
    from ..training.trainer import Trainer

    assert isinstance(processes, Processes)
    recipe = load_recipe(arguments.recipe, arguments.values, arguments.changes)
    return Trainer(recipe, FacePack(arguments.data), arguments.training, processes)
