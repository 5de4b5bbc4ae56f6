"""Weights brought to the machines of a cluster: once a machine, and verified there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import atomic
from ..options import RestoreOptions
from ..recipe import embedder_of_person, networks_of
from ..weights.hashing import sha256_of
from ..weights.settings import Settings, cache_folder
from ..weights.store import Weights

if TYPE_CHECKING:
    from ..weights.catalogue import Role

_OPTIONS: dict[Role, str] = {
    "restorer": "model",
    "detector": "detector",
    "parser": "parser",
    "embedder": "embedder",
    "upscaler": "background_model",
}
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Parcel:
    """One file of weights on its way; picklable."""

    option: str
    """Name of the option that asks for it."""
    name: str
    """Of the file."""
    sha256: str
    is_named: bool
    """Whether the option holds a name of the catalogue, which finds the file; else its path."""
    content: Any
    """Handle of the bytes, for whoever opens parcels."""


def pack(
    options: RestoreOptions, weights: Weights, put: Callable[[bytes], Any]
) -> tuple[Parcel, ...]:
    """Pack the weights that options need, but for those that are part of the installation.

    Args:
        options: name them.
        weights: where they are found here; those that are missing are downloaded.
        put: takes the bytes of a file, and gives a handle for them.

    Raises:
        WeightsError: they are not available.
    """
    parcels = []
    for role, path, is_named in _files(options, weights):
        if path is None or path.resolve().is_relative_to(_PACKAGE):
            continue
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        parcels.append(Parcel(_OPTIONS[role], path.name, digest, is_named, put(data)))
    return tuple(parcels)


def _files(options: RestoreOptions, weights: Weights) -> Iterator[tuple[Role, Path | None, bool]]:
    """Yield the files of weights, what they are for, and whether a name finds them."""
    from ..weights.resolve import refer

    for role, name in networks_of(options, people=False).items():
        reference = refer(name, role, weights)
        if reference.entry is not None and reference.entry.name == "retinaface_mobile025":
            yield role, weights.locate(reference.entry.name), True  # else a package brings it
            continue
        path = reference.fetch(weights).file
        yield role, path, reference.entry is not None
        if role == "restorer":
            yield from _files_of_person(path, options, weights)


def _files_of_person(
    path: Path, options: RestoreOptions, weights: Weights
) -> Iterator[tuple[Role, Path | None, bool]]:
    """Yield what a person's file needs beside itself: its base, and what tells people apart."""
    from ..weights.difference import find_base
    from ..weights.files import is_graph
    from ..weights.loading import read_difference

    difference = None if is_graph(path) else read_difference(path)
    if difference is None:
        return
    yield "restorer", find_base(difference, path, weights), True
    if options.identity.identity_limit is not None:  # the embedder is among the networks then
        return
    if (embedder := embedder_of_person(path, options, weights)) is not None:
        yield "embedder", *embedder


def unpack(
    options: RestoreOptions, parcels: Sequence[Parcel], get: Callable[[Any], bytes]
) -> tuple[RestoreOptions, Settings]:
    """Put the weights where this machine keeps such files, unless they are there.

    Args:
        options: those of `pack`.
        parcels: the weights.
        get: takes a handle, and gives the bytes.

    Returns:
        The options with the paths of files, and the settings for `Weights`.

    Raises:
        ValueError: a file arrived damaged.
        OSError: it cannot be written.
    """
    from filelock import FileLock

    cache = cache_folder() or Path(tempfile.gettempdir(), "gfp")
    folders = []
    for parcel in parcels:
        folder = cache / "shipped" / parcel.sha256
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / parcel.name
        with FileLock(folder / "lock"):
            if not path.is_file() or sha256_of(path) != parcel.sha256:
                data = get(parcel.content)
                if hashlib.sha256(data).hexdigest() != parcel.sha256:
                    raise ValueError(f"{parcel.name} arrived damaged; run the same command again")
                atomic.write_bytes(path, data)
        folders.append(folder)
        if not parcel.is_named:
            options = options.replace(**{parcel.option: str(path)})
    return options, Settings.load(folders, downloads=not parcels)
