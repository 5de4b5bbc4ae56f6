"""``gfp export``."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from .console import Console
from .exit_codes import OK, CannotStart
from .loading import load
from .paths import path_argument

logger = logging.getLogger(__name__)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        parents=[talk],
        help="write a trained model as safetensors",
        description="Write the averaged weights of a run's newest checkpoint as safetensors.",
    )
    parser.add_argument("training", type=path_argument, metavar="RUN", help="folder of the run")
    parser.add_argument("-o", "--output", type=path_argument, required=True, metavar="FILE")
    parser.add_argument("--half", action="store_true", help="in half precision")
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="put into the file's metadata: licence, data, results",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Write a trained model; returns the exit code.

    Raises:
        CannotStart: there is no checkpoint, or a note is none.
    """
    from ..training.export import export

    notes = dict(_note(note) for note in arguments.note)
    about = load(export, arguments.training, arguments.output, half=arguments.half, metadata=notes)
    logger.info("%s: %s, step %s", arguments.output, about["architecture"], about["steps"])
    return OK


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise CannotStart(f"--note is written KEY=TEXT, not {text}")
    return key, value
