"""Names and paths to weight files: what a user, a command or a node means by a word.

`refer` says what a word stands for, without fetching; `resolve` gives the file. Every loader of the
package (restorers, detectors, parsers, embedders) asks here, so that a word means the same to all.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from . import WeightsError
from .catalogue import Entry, Role
from .files import ENDINGS, is_regular, walk

if TYPE_CHECKING:
    from ..faces import Progress
    from .store import Weights

Name = str | os.PathLike[str]
_NOUNS: dict[Role, str] = {
    "restorer": "model",
    "detector": "detector",
    "parser": "parser",
    "embedder": "embedder",
    "upscaler": "upscaler",
}
_MAX_QUOTED = 120  # characters of a name that a message repeats


class Resolved(NamedTuple):
    """A weight file, and what it is used as."""

    file: Path
    role: Role
    architecture: str | None
    """As the catalogue says; None for a file of the user's, whose content says."""


@dataclass(frozen=True)
class Reference:
    """What a name or a path stands for: a row of the catalogue, or a file."""

    role: Role
    entry: Entry | None = None
    path: Path | None = None

    def fetch(self, weights: Weights, progress: Progress | None = None) -> Resolved:
        """Give the file, downloaded and converted if need be, see `Weights.get`.

        Raises:
            WeightsError: the weights are not available; says why and what to do.
        """
        if self.entry is None:
            assert self.path is not None
            return Resolved(self.path, self.role, None)
        file = weights.get(self.entry.name, progress=progress)
        return Resolved(file, self.role, self.entry.architecture)


def resolve(
    name: Name,
    role: Role,
    weights: Weights,
    *,
    folders: Sequence[Name] | None = None,
    progress: Progress | None = None,
) -> Resolved:
    """Resolve a name or a path to (file, role, architecture), fetching the file if need be.

    Args:
        name: see `refer`.
        role: what the weights are for.
        weights: the catalogue, and where its files are looked for.
        folders: see `refer`; None allows paths.
        progress: of a download, see `Weights.get`.

    Raises:
        WeightsError: there is no such file or name, the weights are for another role, or they are
            not available.
    """
    return refer(name, role, weights, folders=folders).fetch(weights, progress)


def refer(
    name: Name, role: Role, weights: Weights, *, folders: Sequence[Name] | None = None
) -> Reference:
    """Find what a name or a path stands for; nothing is fetched.

    A name of the catalogue's own, today's or an old one, comes first, then a file, then the file
    names of the catalogue ("GFPGANv1.4.pth"), which mean its row. A default that the setting
    commercial_only hides means its substitute, see `Weights.substitute`.

    Args:
        name: the word. With ``folders=None`` it may be any path of a file; a leading ``~`` is the
            home folder. An embedder may also be a folder or a package, see `load_descriptor`.
        role: what the weights are for.
        weights: whose catalogue is asked.
        folders: if given, *names only*: a name is the catalogue's, or a file's below one of these
            folders, written relative to that folder ("sub/mine.pth"), with an ending of weights.
            Absolute paths, drives, shares and ``..`` are refused, and the message is the same
            whether there is such a file or not. Links inside the folders are followed. Whoever
            takes names from outside (a node's input, a request) passes this.

    Returns:
        The row of the catalogue, or the file.

    Raises:
        WeightsError: there is no such file or name, the settings hide the weights, they are for
            another role, or this version has no network for them.
    """
    text = os.fspath(name)
    if not text.strip():
        raise WeightsError(f"the name of the {_NOUNS[role]} is empty")
    if weights.catalogue.find_named(text) is None:
        path = _path(text, role) if folders is None else find_below(text, folders)
        if path is not None:
            return Reference(role, path=path)
        if folders is not None and not any(e.is_called(text) for e in weights.catalogue.entries):
            names = ", ".join(e.name for e in weights.offered.entries if e.role == role)
            raise WeightsError(
                f"there is no {_NOUNS[role]} called {_quoted(text)}: choose one of the catalogue "
                f"({names}) or a file in the folders of the {_NOUNS[role]}s"
            )
        if os.path.basename(text) != text:
            raise WeightsError(f"there is no {_NOUNS[role]} file {text}")
    entry = weights.find(weights.substitute(text))
    if entry.role != role:
        raise WeightsError(f"{entry.name} is {_article(entry.role)}, not {_article(role)}")
    if entry.architecture not in _architectures(role):
        raise WeightsError(f"{entry.name}: this version has no network {entry.architecture}")
    return Reference(role, entry=entry)


def find_below(name: str, folders: Sequence[Name]) -> Path | None:
    """Find the weight file that a relative name means, below one of some folders.

    Letter case and Unicode form (NFC, NFD) may differ from the file's if only one file fits, so
    that a name saved on one system holds on another.

    Args:
        name: relative to a folder, with slashes or backslashes between its parts.
        folders: searched in order.

    Returns:
        The file; None if there is none, or ``name`` could lead out of the folders.
    """
    parts = _relative_parts(name)
    if parts is None or os.path.splitext(parts[-1])[1].lower() not in ENDINGS:
        return None
    for folder in folders:
        path = Path(folder, *parts)
        if is_regular(path):
            return path
    folded_name = _folded("/".join(parts))
    for folder in folders:
        matches = [
            path
            for path in walk(Path(folder))
            if _folded(path.relative_to(folder).as_posix()) == folded_name
        ]
        if len(matches) == 1:
            return matches[0]
    return None


def _relative_parts(name: str) -> list[str] | None:
    """The parts of a relative name; None if it could lead elsewhere on any system."""
    if not name.isprintable() or PureWindowsPath(name).anchor or PurePosixPath(name).anchor:
        return None
    parts = name.replace("\\", "/").split("/")
    dubious = any(part.strip() in ("", ".", "..") or ":" in part for part in parts)
    return None if dubious else parts


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _path(text: str, role: Role) -> Path | None:
    """The file that a path names, as it is or below the home folder; None if there is none."""
    for path in _spellings(text):
        if is_regular(path) or (role == "embedder" and os.path.isdir(path)):
            return path
    return None


def _spellings(text: str) -> Iterator[Path]:
    yield Path(text)
    expanded = os.path.expanduser(text)  # itself where there is no home
    if expanded != text:
        yield Path(expanded)


def _architectures(role: Role) -> set[str]:
    """The networks of this version for a role."""
    from ..networks import blazeface, embedding, mediapipe_parsing, parsing, registry, retinaface

    return {
        "restorer": {row.name for row in registry.ARCHITECTURES},
        "detector": {*retinaface.NAMES, "yunet", *blazeface.RELEASES},
        "parser": {*parsing.NAMES, *mediapipe_parsing.NETWORKS},
        "embedder": {"FaceDescriptor", *embedding.NAMES},
        "upscaler": {"spandrel"},
    }[role]


def _article(role: str) -> str:
    return f"an {role}" if role in ("embedder", "upscaler") else f"a {role}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "...")
