"""``gfp prepare``, ``gfp train`` and ``gfp export``."""

from __future__ import annotations

import argparse
import logging
import math
from typing import TYPE_CHECKING

from ..cli import OK
from .bar import bar_progress
from .running import CannotStart, Console, load, load_detector

if TYPE_CHECKING:
    from ..training.trainer import Trainer

logger = logging.getLogger(__name__)


def run_prepare(options: argparse.Namespace, console: Console) -> int:
    """Make faces for training from photographs; returns the exit code.

    Raises:
        CannotStart: there is no usable face, or the detector cannot be loaded.
    """
    from ..training.prepare import prepare

    _, _, detector = load_detector(options)
    with bar_progress(console, "photographs") as progress:
        done = load(
            prepare,
            options.photographs,
            options.out,
            detector,
            size=options.size,
            quality=options.quality,
            least_size=options.least_size,
            least_sharpness=options.least_sharpness,
            split_by=options.split_by,
            person=options.person,
            every=options.every,
            landmarks=options.landmarks,
            long_side=options.long_side,
            progress=progress,
        )
    logger.info("%d faces in %s, %d left out.", done.faces, options.out, len(done.left_out))
    return OK


def run_train(options: argparse.Namespace, console: Console) -> int:
    """Train, or go on training; returns the exit code.

    Raises:
        CannotStart: recipe, faces or run cannot be used.
    """
    import torch

    from ..devices import keep_freed_memory
    from ..pipeline import find_device
    from ..training.processes import find_processes

    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.device is not None:
        load(find_device, options.device)
    processes = load(find_processes, options.device)
    console.quiet = console.quiet or not processes.first
    trainer: Trainer = load(_trainer, options, processes)
    logger.info(
        "Training on %s, %d faces a step, from step %d to %d; sheets, log and checkpoints in %s.",
        processes.device,
        trainer.recipe.data.batch * processes.count,
        trainer.step,
        trainer.recipe.schedule.steps,
        options.training,
    )
    minutes = math.inf if options.minutes is None else options.minutes
    with bar_progress(console, "steps", trainer.step) as progress:
        try:
            finished = load(trainer.train, minutes=minutes, progress=progress)
        except FloatingPointError as error:  # it says what to do
            raise CannotStart(str(error)) from error
    if not finished:
        logger.info("Step %d; the same command goes on.", trainer.step)
    return OK


def _trainer(options: argparse.Namespace, processes: object) -> Trainer:
    from ..training.pack import FacePack
    from ..training.processes import Processes
    from ..training.recipes import load_recipe
    from ..training.trainer import Trainer

    assert isinstance(processes, Processes)
    recipe = load_recipe(options.recipe, options.values, options.changes)
    return Trainer(recipe, FacePack(options.data), options.training, processes)


def run_export(options: argparse.Namespace, console: Console) -> int:
    """Write a trained model; returns the exit code.

    Raises:
        CannotStart: there is no checkpoint, or a note is none.
    """
    from ..training.export import export

    notes = dict(_note(note) for note in options.note)
    about = load(export, options.training, options.output, half=options.half, metadata=notes)
    logger.info("%s: %s, step %s", options.output, about["architecture"], about["steps"])
    return OK


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise CannotStart(f"--note is written KEY=TEXT, not {text}")
    return key, value
