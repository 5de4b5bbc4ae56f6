"""``gfp learn``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import Option
from .console import Console, count
from .exit_codes import OK, CannotStart
from .flags import add_options, read_options
from .loading import load, load_detector
from .paths import path_argument

if TYPE_CHECKING:
    from torch import Tensor

    from ..embed import FaceEmbedder
    from ..weights.store import Weights

logger = logging.getLogger(__name__)

_OPTIONS = ("model", "detector", "embedder", "device", "select", "order")


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "learn",
        parents=[talk],
        usage="gfp learn PHOTO [PHOTO ...] -o PERSON.safetensors [FLAG ...]",
        help="learn one person from a few good photographs",
        description="Tune a restorer on good photographs of one person, so that poor ones look "
        "more like that person: gfp restore --model PERSON.safetensors. Only of people who agree, "
        "or of your own family; a restored face is a likeness, not evidence.",
    )
    parser.add_argument(
        "photographs",
        nargs="+",
        type=path_argument,
        metavar="PHOTO",
        help="one to twenty photographs, or a folder of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_argument,
        required=True,
        metavar="FILE",
        help="file for what is learned, .safetensors",
    )
    parser.add_argument("--steps", type=int, default=160, help="at most (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, help="at most; the result then depends on the machine"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where the same command was stopped, if it was",
    )
    add_options(parser, only=_takes)
    parser.set_defaults(run=run)


def _takes(option: Option) -> bool:
    return option.name in _OPTIONS


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Learn a person; returns the exit code.

    Raises:
        CannotStart: a photograph, a network or the output cannot be used.
    """
    from ..devices import keep_freed_memory
    from ..person.learn import Learning
    from ..person.make import learn_person, load_base

    options = read_options(arguments)
    output: Path = arguments.output
    if output.suffix != ".safetensors":
        raise CannotStart(f"{output}: the name of the output ends with .safetensors")
    files = load(_files, arguments.photographs)
    load(_check_folder, output)
    keep_freed_memory()
    device, weights, detector = load_detector(
        arguments, options.networks.detector, options.runtime.device
    )
    learning = load(Learning, steps=arguments.steps, minutes=arguments.minutes, seed=arguments.seed)
    base = load(load_base, options.networks.model, weights)
    embedder = load(_embedder, options.networks.embedder, weights, device)
    checkpoint = output.with_name(f".{output.name}.learning")
    if not arguments.resume:
        checkpoint.unlink(missing_ok=True)
    with console.progress("steps") as progress:
        try:
            lesson = load(
                learn_person,
                base,
                _photographs(files),
                detector,
                learning,
                embedder=embedder,
                about={} if embedder is None else {"embedder": options.networks.embedder},
                faces=options.selection.select,
                order=options.selection.order,
                device=device,
                checkpoint=checkpoint,
                progress=progress,
            )
        except KeyboardInterrupt:
            if checkpoint.is_file():
                logger.warning("Stopped; the same command with --resume goes on.")
            raise
        except FloatingPointError as error:
            raise CannotStart(str(error)) from error
    size = load(lesson.difference.save, output)
    learned = lesson.learned
    logger.info(
        "%s: %.1f MB, learned from %s in %d steps (%.0f s); held faces %.0f %% nearer.",
        output,
        size / 1e6,
        count(len(lesson.portraits), "photograph"),
        learned.steps,
        learned.seconds,
        100 * (1 - learned.after / learned.before),
    )
    return OK


def _check_folder(output: Path) -> None:
    from .paths import check_writable, make_folder

    make_folder(output.parent)
    check_writable(output.parent)


def _files(paths: list[Path]) -> list[Path]:
    """List the photographs, those of folders in the order of their names.

    Raises:
        CannotStart: there are too many.
    """
    from ..io.names import pictures_in
    from ..person.photographs import MAX_PHOTOGRAPHS

    files: list[Path] = []
    for path in paths:
        files += pictures_in(path) if path.is_dir() else [path]
    if len(files) > MAX_PHOTOGRAPHS:
        raise CannotStart(
            f"{len(files)} photographs, more than {MAX_PHOTOGRAPHS}: give the best of them"
        )
    return files


def _photographs(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """Read photographs one at a time; a damaged one is left out, with a line that says why."""
    from ..io.images import ImageError, read_image, to_frames

    for file in files:
        try:
            frames = to_frames(read_image(file))
        except ImageError as error:
            if not file.is_file():  # a name that is written wrongly
                raise
            logger.warning("%s It is left out.", f"{error}".rstrip(".") + ".")
            continue
        yield str(file), frames


def _embedder(name: str, weights: Weights, device: Any) -> FaceEmbedder | None:
    """Load what tells people apart, where it is on this machine: it is not fetched for this."""
    from ..embed import load_embedder
    from ..weights.resolve import refer

    entry = refer(name, "embedder", weights).entry
    if entry is not None and weights.locate(entry.name) is None:
        logger.info(
            "%s is not on this machine: learning goes without. With it (gfp weights get %s) people "
            "are told apart, here and in groups.",
            entry.name,
            entry.name,
        )
        return None
    return load_embedder(name, device=device, weights=weights)
