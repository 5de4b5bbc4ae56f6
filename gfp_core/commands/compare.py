"""``gfp compare``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, cast

import torch

from ..cli import OK
from ..io.images import from_frames, read_image, to_frames, write_image
from .jobs import check_writable
from .running import CannotStart, Console, load, load_detector

if TYPE_CHECKING:
    from ..compare import Setting
    from ..options import ColorMode, Precision
    from ..weights.store import Weights

_OPTIONS = {"fidelity": float, "seed": int, "color": str, "precision": str}


def run(options: argparse.Namespace, console: Console) -> int:
    """Compare restorers on the faces of a picture; returns the exit code.

    Raises:
        CannotStart: a setting is none, the picture or the networks cannot be read, or no face is
            found.
    """
    from ..align import align
    from ..compare import compare, comparison_sheet, comparison_table
    from ..find import find_faces
    from ..options import Detection
    from ..select import select

    load(check_writable, options.output.parent)
    frames = to_frames(load(read_image, options.input))
    place, weights, detector = load_detector(options)
    settings = [_setting(text, place, weights) for text in options.models]
    chosen = {} if options.score is None else {"score": options.score}
    found = find_faces(detector, frames, Detection(**chosen))
    faces = select(found, order="largest", numbers=options.which)
    columns = load(compare, lambda size: align(frames, faces, size), settings)
    load(write_image, options.output, from_frames(comparison_sheet(columns)[None]))
    print(comparison_table(columns))
    return OK


def _setting(text: str, place: torch.device, weights: Weights) -> Setting:
    """``MODEL[:NAME=VALUE,...]`` as a setting, with its network loaded.

    Raises:
        CannotStart: it is none, or the network cannot be had.
    """
    from ..compare import Setting
    from ..pipeline import find_model
    from ..restore import Restorer
    from ..weights.loading import load_network

    model, _, listed = text.partition(":")
    if not model or ":\\" in text:  # a path of Windows has a colon of its own
        model, listed = text, ""
    given: dict[str, Any] = {}
    for part in filter(None, listed.split(",")):
        name, _, value = part.partition("=")
        if name not in _OPTIONS:
            raise CannotStart(f"{text}: {name!r} is none of the options {', '.join(_OPTIONS)}")
        try:
            given[name] = _OPTIONS[name](value)
        except ValueError:
            raise CannotStart(f"{text}: {name} cannot be {value!r}") from None
    precision = cast("Precision", given.pop("precision", "auto"))
    net = load(load_network, *load(find_model, model, weights))
    return Setting(
        text,
        load(Restorer, net, device=place, precision=precision),
        fidelity=given.get("fidelity"),
        seed=given.get("seed"),
        color=cast("ColorMode", given.get("color", "auto")),
    )
