"""``gfp weights``."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..weights import WeightsError
from .console import Console, say
from .exit_codes import FAILED, OK
from .loading import load, load_weights
from .paths import path_argument

if TYPE_CHECKING:
    from ..weights.catalogue import Entry
    from ..weights.inspection import Inspection
    from ..weights.store import Weights


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command and its actions."""
    parser = commands.add_parser(
        "weights",
        help="list, fetch, check, inspect and convert weights",
        description="The weight files of models and detectors: which there are and on what terms, "
        "where they lie, and how to get them.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")

    def add(name: str, what: str, count: str | None = None) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(
            name, parents=[talk], help=what, description=f"{what}."
        )
        if count is not None:
            action.add_argument("names", nargs=count, metavar="NAME", help="as in the list")
        action.set_defaults(run=run)
        return action

    def add_for_files(name: str, what: str) -> argparse.ArgumentParser:
        action = add(name, what)
        action.add_argument(
            "files", nargs="+", type=path_argument, metavar="FILE", help="checkpoint"
        )
        return action

    listing = add("list", "show all weights with their terms")
    get = add("get", "fetch weights that are not on this machine, and print their files", "+")
    get.add_argument(
        "-o",
        "--output",
        type=path_argument,
        metavar="FOLDER",
        help="folder to search first and to save them in (default: the first of the settings)",
    )
    add("verify", "read files again and check them (default: all that are here)", "*")
    add("where", "print where files lie (default: the folders searched)", "*")
    inspect = add_for_files("inspect", "say what checkpoints are, and how one can tell")
    for action in (listing, inspect):
        action.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    convert = add_for_files("convert", "convert checkpoints to safetensors")
    convert.add_argument(
        "-o", "--output", type=path_argument, metavar="OUT", help="folder (default: each file's)"
    )
    convert.add_argument(
        "--architecture", help="instead of the one identified (GFPGANBilinear, say)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Do what ``arguments.action`` says; returns the exit code.

    Raises:
        CannotStart: the settings are wrong, or a name is unknown.
    """
    weights = load_weights(arguments)
    for name in getattr(arguments, "names", ()):
        load(weights.find, name)
    actions: dict[str, Callable[[argparse.Namespace, Console, Weights], int]] = {
        "list": _list,
        "get": _get,
        "verify": _verify,
        "where": _where,
        "inspect": _inspect,
        "convert": _convert,
    }
    return actions[arguments.action](arguments, console, weights)


def _list(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    rows = [(entry, weights.locate(entry.name)) for entry in weights.offered.entries]
    if arguments.json:
        say(json.dumps([_row(entry, path) for entry, path in rows], indent=1))
        return OK
    say(f"{'NAME':24} {'ROLE':9} {'SIZE':>8}  {'HERE':7} {'COMMERCIAL USE':15} LICENCE")
    for entry, path in rows:
        size = f"{entry.size / 1e6:.1f} MB" if entry.size else "-"
        is_here = "yes" if path else "by hand" if entry.by_hand_only else "no"
        say(
            f"{entry.name:24} {entry.role:9} {size:>8}  {is_here:7} {entry.commercial:15} "
            f"{entry.licence}"
        )
        lines = [f"terms: {entry.reason}", f"good for: {entry.good_for or '-'}"]
        if entry.by_hand_only:
            lines.append(
                f"put {entry.file} into a folder of weights by hand: no hash is known to check a "
                "download by"
            )
        for line in lines:
            say(textwrap.indent(textwrap.fill(line, 92), " " * 4))
    hidden = len(weights.catalogue.entries) - len(rows)
    if hidden:
        say(f"{hidden} more are hidden by the setting commercial_only.")
    return OK


def _row(entry: Entry, path: Path | None) -> dict[str, Any]:
    sources = [str(source) for source in entry.sources]
    return {**asdict(entry), "sources": sources, "path": str(path) if path else None}


def _get(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    from ..weights.store import Weights

    if arguments.output is not None:
        folders = (arguments.output, *weights.settings.folders)
        weights = Weights(replace(weights.settings, folders=folders))

    def get(name: str) -> None:
        say(weights.get(name))

    return _each(arguments.names, get, console)


def _verify(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    def verify(name: str) -> None:
        path = weights.verify(name)
        if path is not None:
            say(f"{name}: {path}: good")
        elif arguments.names:
            raise WeightsError(f"{name} is not on this machine")

    names = arguments.names or [entry.name for entry in weights.offered.entries]
    return _each(names, verify, console)


def _where(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    def where(name: str) -> None:
        path = weights.locate(name)
        if path is None:
            by_hand = weights.by_hand(weights.find(name))
            raise WeightsError(f"{name} is not on this machine.\n{by_hand}")
        say(path)

    if not arguments.names:
        for folder in weights.settings.folders:
            say(folder)
    return _each(arguments.names, where, console)


def _inspect(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    from ..weights.inspection import inspect

    inspections: list[Inspection] = []

    def look(file: Path) -> None:
        inspection = inspect(file, weights)
        inspections.append(inspection)
        if not arguments.json:
            for name, text in _lines(inspection):
                say(
                    textwrap.fill(
                        text, 96, initial_indent=f"{name:16} ", subsequent_indent=" " * 17
                    )
                )
            say()
        if inspection.role is None:
            raise WeightsError(f"{file}: not recognised: {inspection.reason}")

    code = _each(arguments.files, look, console)
    if arguments.json:
        say(json.dumps([inspection.as_dict() for inspection in inspections], indent=1))
    return code


def _lines(file: Inspection) -> Iterator[tuple[str, str]]:
    """What is said of a file: names and texts, those that do not apply left out."""
    yield "file", file.file
    if file.role is None:
        yield "what it is", "unknown"
    else:
        size = f", crops of {file.size} px" if file.size else ""
        yield "what it is", f"{file.role}, {file.architecture}"
        yield "known because", file.reason
        if file.takes:
            yield "takes", f"{file.takes}{size}"
    if file.hyperparameters:
        yield (
            "hyper-parameters",
            ", ".join(f"{key} {value}" for key, value in file.hyperparameters.items()),
        )
    packed = file.format
    if file.wrappers:
        packed += f", tensors under {' and in it '.join(map(repr, file.wrappers))}"
    if file.prefixes:
        packed += f", prefix {' and '.join(map(repr, file.prefixes))} removed from their names"
    if file.left_out:
        packed += f", {file.left_out} tensors beside the network left out"
    yield "format", packed
    if file.tensors is not None:
        types = ", ".join(f"{count} {name}" for name, count in file.dtypes.items())
        yield "tensors", f"{file.tensors} of {file.numbers:,} numbers (in the file: {types})"
    if file.parameters is not None:
        yield "parameters", f"{file.parameters:,}"
    yield "size", f"{file.bytes:,} bytes"
    yield "SHA-256", file.sha256
    yield "catalogue", file.catalogue or "knows no file of this hash"
    yield "licence", f"{file.licence}; commercial use: {file.commercial}"
    for key, value in file.metadata.items():
        yield "metadata", f"{key}: {value}"


def _convert(arguments: argparse.Namespace, console: Console, weights: Weights) -> int:
    def convert(file: Path) -> None:
        from ..io.atomic import atomic_path
        from ..weights.convert import convert

        entry = _entry_of(weights, file)
        folder = file.parent if arguments.output is None else arguments.output
        target = folder / (entry.usable_file if entry else f"{file.stem}.safetensors")
        if target.exists():
            raise WeightsError(f"{target} is there already; it is left as it is")
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.architecture:
            entry = replace(entry or _unknown(file), architecture=arguments.architecture)
        with atomic_path(target) as partial:
            architecture = convert(file, partial, entry)
        say(f"{target}: {architecture}{f', which is {entry.name}' if entry else ''}")

    return _each(arguments.files, convert, console)


def _entry_of(weights: Weights, file: Path) -> Entry | None:
    """The row of the catalogue whose file this is, by its hash."""
    if not file.is_file():
        return None
    return weights.by_hash(weights.hashes.sha256_of(file))


def _unknown(file: Path) -> Entry:
    from ..weights.catalogue import Entry

    return Entry(
        name=file.stem,
        role="restorer",
        architecture="",
        file=file.name,
        licence="unknown",
        commercial="unclear",
        reason="a file that the catalogue does not know",
    )


def _each(items: Iterable[Any], work: Callable[[Any], None], console: Console) -> int:
    """Work on every item; one that fails does not stop the others."""
    code = OK
    for item in items:
        try:
            work(item)
        except (WeightsError, OSError) as error:
            console.error(str(error))
            code = FAILED
    return code
