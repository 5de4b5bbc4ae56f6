"""``gfp export``."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from .console import Console
from .exit_codes import OK, CannotStart
from .loading import load, load_restorer_network, load_weights
from .paths import check_writable, path_argument

logger = logging.getLogger(__name__)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        parents=[talk],
        help="write a trained model as safetensors, or any model as ONNX",
        description="Write the averaged weights of a run's newest checkpoint as safetensors, or a "
        "restorer as ONNX for other programs.",
    )
    parser.add_argument(
        "source",
        type=path_argument,
        metavar="RUN|MODEL",
        help="folder of the run; with --onnx the name or file of a restorer",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", type=path_argument, metavar="FILE")
    target.add_argument(
        "--onnx",
        type=path_argument,
        metavar="FILE",
        help="write MODEL as ONNX: faces (N, 3, S, S) RGB in [-1, 1] to the same",
    )
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
    """Write a model; returns the exit code.

    Raises:
        CannotStart: there is no checkpoint or no such model, or a note is none.
    """
    if arguments.onnx is not None:
        return _write_onnx(arguments)
    from ..training.export import export

    notes = dict(_note(note) for note in arguments.note)
    about = load(export, arguments.source, arguments.output, half=arguments.half, metadata=notes)
    logger.info("%s: %s, step %s", arguments.output, about["architecture"], about["steps"])
    return OK


def _write_onnx(arguments: argparse.Namespace) -> int:
    """Write a restorer's fast form as ONNX."""
    from ..engines import EngineError
    from ..io.atomic import write_bytes
    from ..onnx_engine import export_restorer
    from ..restore import Restorer

    if arguments.half or arguments.note:
        raise CannotStart("--half and --note go with -o, not with --onnx")
    load(check_writable, arguments.onnx.parent)
    net = load_restorer_network(str(arguments.source), load_weights(arguments))
    restorer = load(Restorer, net)
    try:
        model = export_restorer(restorer.net, restorer.size)
    except (ImportError, EngineError) as error:
        raise CannotStart(str(error)) from error
    write_bytes(arguments.onnx, model)
    logger.info("%s: %s, %d pixels", arguments.onnx, restorer.name, restorer.size)
    return OK


def _note(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise CannotStart(f"--note is written KEY=TEXT, not {text}")
    return key, value
