"""``gfp weights``."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import FAILED, OK
from ..io.atomic import atomic_path
from ..weights import WeightsError
from ..weights.catalogue import Entry
from ..weights.store import Weights
from .running import Console, load, load_weights

if TYPE_CHECKING:
    from ..weights.inspection import Inspection


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what ``options.action`` says; returns the exit code.

    Raises:
        CannotStart: the settings are wrong, or a name is unknown.
    """
    weights = load_weights(options)
    for name in getattr(options, "names", ()):
        load(weights.find, name)
    actions: dict[str, Callable[[argparse.Namespace, Console, Weights], int]] = {
        "list": _list,
        "get": _get,
        "verify": _verify,
        "where": _where,
        "inspect": _inspect,
        "convert": _convert,
        "publish": _publish,
    }
    return actions[options.action](options, console, weights)


def _list(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    rows = [(entry, weights.locate(entry.name)) for entry in weights.offered.entries]
    if options.json:
        print(json.dumps([_row(entry, path) for entry, path in rows], indent=1))
        return OK
    print(f"{'NAME':24} {'ROLE':9} {'SIZE':>8}  {'HERE':5} {'COMMERCIAL USE':15} LICENCE")
    for entry, path in rows:
        size = f"{entry.size / 1e6:.1f} MB" if entry.size else "-"
        here = "yes" if path else "no"
        print(
            f"{entry.name:24} {entry.role:9} {size:>8}  {here:5} {entry.commercial:15} "
            f"{entry.licence}"
        )
        for line in (f"terms: {entry.reason}", f"good for: {entry.good_for or '-'}"):
            print(textwrap.indent(textwrap.fill(line, 92), " " * 4))
    hidden = len(weights.catalogue.entries) - len(rows)
    if hidden:
        print(f"{hidden} more are hidden by the setting commercial_only.")
    return OK


def _row(entry: Entry, path: Path | None) -> dict[str, Any]:
    sources = [str(source) for source in entry.sources]
    return {**asdict(entry), "sources": sources, "path": str(path) if path else None}


def _get(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    def get(name: str) -> None:
        print(weights.get(name))

    return _each(options.names, get, console)


def _verify(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    def verify(name: str) -> None:
        path = weights.verify(name)
        if path is not None:
            print(f"{name}: {path}: good")
        elif options.names:
            raise WeightsError(f"{name} is not on this machine")

    names = options.names or [entry.name for entry in weights.offered.entries]
    return _each(names, verify, console)


def _where(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    def where(name: str) -> None:
        path = weights.locate(name)
        if path is None:
            by_hand = weights.by_hand(weights.find(name))
            raise WeightsError(f"{name} is not on this machine.\n{by_hand}")
        print(path)

    if not options.names:
        for folder in weights.settings.folders:
            print(folder)
    return _each(options.names, where, console)


def _inspect(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    from ..weights.inspection import inspect

    found: list[Inspection] = []

    def look(file: Path) -> None:
        inspection = inspect(file, weights)
        found.append(inspection)
        if not options.json:
            for name, text in _lines(inspection):
                print(
                    textwrap.fill(
                        text, 96, initial_indent=f"{name:16} ", subsequent_indent=" " * 17
                    )
                )
            print()
        if inspection.role is None:
            raise WeightsError(f"{file}: not recognised: {inspection.reason}")

    code = _each(options.files, look, console)
    if options.json:
        print(json.dumps([one.as_dict() for one in found], indent=1))
    return code


def _lines(one: Inspection) -> Iterator[tuple[str, str]]:
    """What is said of a file: names and texts, those that do not apply left out."""
    yield "file", one.file
    if one.role is None:
        yield "what it is", "unknown"
    else:
        size = f", crops of {one.size} px" if one.size else ""
        yield "what it is", f"{one.role}, {one.architecture}"
        yield "known because", one.reason
        if one.takes:
            yield "takes", f"{one.takes}{size}"
    if one.hyperparameters:
        yield (
            "hyper-parameters",
            ", ".join(f"{key} {value}" for key, value in one.hyperparameters.items()),
        )
    packed = one.format
    if one.wrappers:
        packed += f", tensors under {' and in it '.join(map(repr, one.wrappers))}"
    if one.prefixes:
        packed += f", prefix {' and '.join(map(repr, one.prefixes))} removed from their names"
    if one.left_out:
        packed += f", {one.left_out} tensors beside the network left out"
    yield "format", packed
    if one.tensors is not None:
        types = ", ".join(f"{count} {name}" for name, count in one.dtypes.items())
        yield "tensors", f"{one.tensors} of {one.numbers:,} numbers (in the file: {types})"
    if one.parameters is not None:
        yield "parameters", f"{one.parameters:,}"
    yield "size", f"{one.bytes:,} bytes"
    yield "SHA-256", one.sha256
    yield "catalogue", one.catalogue or "knows no file of this hash"
    yield "licence", f"{one.licence}; commercial use: {one.commercial}"
    for key, value in one.metadata.items():
        yield "metadata", f"{key}: {value}"


def _convert(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    def convert(file: Path) -> None:
        from ..weights.convert import convert

        known = _known(weights, file)
        folder = file.parent if options.output is None else options.output
        target = folder / (known.usable_file if known else f"{file.stem}.safetensors")
        if target.exists():
            raise WeightsError(f"{target} is there already; it is left as it is")
        folder.mkdir(parents=True, exist_ok=True)
        if options.architecture:
            known = replace(known or _unknown(file), architecture=options.architecture)
        with atomic_path(target) as part:
            architecture = convert(file, part, known)
        print(f"{target}: {architecture}{f', which is {known.name}' if known else ''}")

    return _each(options.files, convert, console)


def _known(weights: Weights, file: Path) -> Entry | None:
    """The row of the catalogue whose file this is, by its hash."""
    if not file.is_file():
        return None
    return weights.by_hash(weights.hashes.sha256_of(file))


def _unknown(file: Path) -> Entry:
    return Entry(
        name=file.stem,
        role="restorer",
        architecture="",
        file=file.name,
        licence="unknown",
        commercial="unclear",
        reason="a file that the catalogue does not know",
    )


def _publish(options: argparse.Namespace, console: Console, weights: Weights) -> int:
    from ..weights.publish import card, catalogue_rows, prepare, publish

    files = load(prepare, weights, options.names)
    print(card(files) if options.dry_run else load(publish, files, options.repo, options.private))
    print("\nRows for the catalogue, so that these files are believed:\n")
    print(catalogue_rows(files))
    return OK


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
