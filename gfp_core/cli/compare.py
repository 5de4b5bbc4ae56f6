"""``gfp compare``."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Any

from ..options import Option, OptionError, RestoreOptions, find_option
from .console import Console, say
from .exit_codes import OK, CannotStart
from .flags import add_options, add_sources, read_options
from .loading import load, load_detector, load_restorer_network
from .paths import check_writable, path_argument

if TYPE_CHECKING:
    import torch

    from ..compare import Setting
    from ..weights.store import Weights

_OF_A_MODEL = ("fidelity", "seed", "steps", "color", "precision", "person_strength")
"""Options that each column may have for itself."""
_SHARED = (
    "detector",
    "device",
    "padding",
    "color_strength",
    "keep_monochrome",
    "engine",
    "provider",
)
"""Options that all columns have, beside those that find the faces."""
_SETTING = re.compile(r"(?P<model>.+?)(?::(?P<options>[a-z_]+=[^,:]*(?:,[a-z_]+=[^,:]*)*))?", re.S)


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        parents=[talk],
        usage="gfp compare INPUT -m MODEL [-m MODEL ...] -o FILE [FLAG ...]",
        help="restore the same faces in several ways, side by side",
        description="Restore the faces of a picture with several models or settings, write a "
        "picture that shows them side by side, and print how long each took.",
    )
    parser.add_argument("input", type=path_argument, metavar="INPUT", help="picture")
    parser.add_argument(
        "-m",
        "--model",
        dest="models",
        action="append",
        required=True,
        metavar="MODEL[:OPTION=VALUE,...]",
        help=f"name of weights or checkpoint file, and options: {', '.join(_OF_A_MODEL)} "
        '("codeformer:fidelity=0.7,color=match"); give it several times',
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path_argument,
        required=True,
        metavar="FILE",
        help="the picture to write",
    )
    add_sources(parser)
    add_options(parser, only=takes)
    parser.set_defaults(run=run)


def takes(option: Option) -> bool:
    """Whether the command has an option: what finds the faces, and what all columns share."""
    names = (*_SHARED, *_OF_A_MODEL)
    return option.group in ("detection", "selection") or option.name in names


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Compare restorers on the faces of a picture; returns the exit code.

    Raises:
        CannotStart: a setting is none, the picture or the networks cannot be read, or no face is
            found.
    """
    from ..align import align
    from ..compare import compare, comparison_sheet, comparison_table
    from ..io.images import from_frames, read_image, to_frames, write_image
    from .detect import find_faces

    options = read_options(arguments)
    columns = [parse_setting(text, options) for text in arguments.models]
    load(check_writable, arguments.output.parent)
    picture = load(read_image, arguments.input)
    device, weights, detector = load_detector(
        arguments, options.networks.detector, options.runtime.device
    )
    settings = [_load_setting(text, column, device, weights) for text, column in columns]
    faces = find_faces(detector, picture, options, lambda *_: None)
    frames = to_frames(picture)
    done = load(compare, lambda size: align(frames, faces, size, padding=options.padding), settings)
    sheet = picture.derived(from_frames(comparison_sheet(done)[None]).pixels)
    load(write_image, arguments.output, sheet)
    say(comparison_table(done))
    return OK


def parse_setting(text: str, base: RestoreOptions) -> tuple[str, RestoreOptions]:
    """``MODEL[:NAME=VALUE,...]`` as the options of a column, over those that all share.

    A model's path may hold colons, that of a drive among them.

    Raises:
        CannotStart: an option is unknown, or a value is none.
    """
    if base.color.mode == "reference":
        raise CannotStart("--color reference: a comparison has no such picture; choose another")
    match = _SETTING.fullmatch(text)
    if match is None or os.path.isfile(text):
        return text, base.replace(model=text)
    values: dict[str, Any] = {"model": match["model"]}
    for pair in filter(None, (match["options"] or "").split(",")):
        name, _, value = pair.partition("=")
        if name not in _OF_A_MODEL:
            raise CannotStart(f"{text}: {name!r} is none of the options {', '.join(_OF_A_MODEL)}")
        try:
            values[name] = find_option(name).parse(value)
        except OptionError as error:
            raise CannotStart(f"{text}: {error}") from None
        if values[name] == "reference":
            raise CannotStart(
                f"{text}: a comparison has no reference picture; choose another color"
            )
    return text, base.replace(**values)


def _load_setting(
    text: str, options: RestoreOptions, device: torch.device, weights: Weights
) -> Setting:
    """A column, with its network loaded.

    Raises:
        CannotStart: the network is not available.
    """
    from ..compare import Setting
    from ..restore import Restorer

    net = load_restorer_network(
        options.networks.model, weights, person_strength=options.person.person_strength
    )
    runtime = options.runtime
    restorer = load(
        Restorer,
        net,
        device=device,
        precision=runtime.precision,
        engine=runtime.engine,
        provider=runtime.provider,
    )
    return Setting(
        text,
        restorer,
        fidelity=options.fidelity,
        seed=options.seed,
        steps=options.steps,
        color=options.color.mode,
        color_strength=options.color.strength,
        keep_monochrome=options.color.keep_monochrome,
    )
