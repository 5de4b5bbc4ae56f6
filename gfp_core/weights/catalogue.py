"""The catalogue: what is known of every weight file, as data.

The rows are in ``catalogue.toml`` beside this file; a user's own file adds rows, or corrects single
fields of these. Every row is checked when it is read, because its names become paths.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..tables import TableError, build, checked, read_toml, unknown
from . import WeightsError

BUILT_IN = Path(__file__).with_name("catalogue.toml")
LARGEST = 8 * 2**30
"""Bytes above which no file is believed to be weights of a face network."""

Role = Literal["restorer", "detector", "parser", "embedder", "upscaler"]
Commercial = Literal["yes", "no", "unclear"]
# Names that Windows gives to devices, whatever ending they have.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_repo(field: str, value: Any) -> str:
    """Check the name of a repository, OWNER/NAME.

    Raises:
        WeightsError: the value is none.
    """
    segment = r"[A-Za-z0-9](?:[\w.-]*\w)?"
    if not isinstance(value, str) or not re.fullmatch(f"{segment}/{segment}", value, re.ASCII):
        raise WeightsError(f"{field!r} must be a repository OWNER/NAME, not {value!r}")
    return value


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise WeightsError(f"{field!r} must be a line of text, not {value!r}")
    return value


def _file_name(field: str, value: Any) -> str:
    """Check a bare file name, which leads nowhere else, on any system."""
    allowed = isinstance(value, str) and re.fullmatch(r"[\w+][\w+. -]*", value, re.ASCII)
    if not allowed or value[-1] in ". " or _RESERVED.fullmatch(value):
        raise WeightsError(
            f"{field!r} must be a bare file name of letters, digits and . _ + -, not {value!r}"
        )
    return str(value)


def _hub_path(field: str, value: Any) -> str:
    """Check a path inside a repository: file names joined by ``/``."""
    for name in _text(field, value).split("/"):
        _file_name(field, name)
    return str(value)


def _url(field: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/\s@]+/\S+", value):
        raise WeightsError(f"{field!r} must be an http or https address, not {value!r}")
    return value


def _sha256(field: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value.lower()):
        raise WeightsError(f"{field!r} must be 64 hexadecimal digits, not {value!r}")
    return value.lower()


def _size(field: str, value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST:
        raise WeightsError(f"{field!r} must be a number of bytes up to {LARGEST}, not {value!r}")
    return value


def _names(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise WeightsError(f"{field!r} must be a list of file names, not {value!r}")
    return tuple(_file_name(field, name) for name in value)


@dataclass(frozen=True)
class Source:
    """Where a file can be downloaded: a file of a repository on the Hub, or a plain address."""

    repo: str = checked(check_repo, default="")
    path: str = checked(_hub_path, default="")
    revision: str = checked(_hub_path, default="main")
    repo_type: Literal["model", "dataset"] = "model"
    url: str = checked(_url, default="")
    converted: bool = False
    """Whether the file there is the safetensors file that conversion gives."""

    def __str__(self) -> str:
        if self.url:
            return self.url
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{kind}{self.repo} on the Hub, {self.path} at {self.revision}"


def _sources(field: str, rows: Any) -> tuple[Source, ...]:
    if not isinstance(rows, list):
        raise WeightsError(f"{field!r} must be a list, not {rows!r}")
    return tuple(map(_source, rows))


def _source(row: object) -> Source:
    if not isinstance(row, dict):
        raise WeightsError(f"a source is a table such as {{ repo = ..., path = ... }}, not {row!r}")
    keys = ("url",) if "url" in row else ("repo", "path", "revision", "repo_type")
    for key in row:
        if key not in keys:
            raise unknown(key, keys, "field", "a source")
    for key in keys[:2]:
        if key not in row:
            raise WeightsError(f"{key!r} is missing in a source")
    return build(Source, row)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row: a weight file."""

    name: str = checked(_file_name)
    role: Role
    architecture: str = checked(_text)
    file: str = checked(_file_name)
    licence: str = checked(_text)
    commercial: Commercial
    reason: str = checked(_text)
    title: str = checked(_text, default="")
    good_for: str = checked(_text, default="")
    old_names: tuple[str, ...] = checked(_names, default=())
    """Names of rows that this one has taken the place of, which saved things may hold."""
    substitute: str = checked(_file_name, default="")
    """Name of the row that is used where commercial_only hides this one, which is a default."""
    format: Literal["pytorch", "safetensors", "onnx", "tflite", "tfjs"] = "pytorch"
    aliases: tuple[str, ...] = checked(_names, default=())
    size: int | None = checked(_size, default=None)
    sha256: str | None = checked(_sha256, default=None)
    converted_size: int | None = checked(_size, default=None)
    converted_sha256: str | None = checked(_sha256, default=None)
    sources: tuple[Source, ...] = checked(_sources, default=())
    origin: str = checked(_text, default="")
    bundled: bool = False

    @property
    def by_hand_only(self) -> bool:
        """Tell whether the file is never downloaded, because no hash is known to check it by."""
        return not (self.bundled or self.sha256 or self.converted_sha256)

    @property
    def usable_file(self) -> str:
        """Name the file that is used in the end: the converted one, where it is converted."""
        return f"{self.name}.safetensors" if self.format == "pytorch" else self.file

    @property
    def file_names(self) -> tuple[str, ...]:
        """List the names under which the official file may lie in a folder."""
        return (self.file, *self.aliases)

    def is_called(self, name: str) -> bool:
        """Tell whether ``name`` means this row: its name, or a file's, with or without ending."""
        names = [self.name, *self.file_names, *(Path(file).stem for file in self.file_names)]
        return name.casefold() in set(map(str.casefold, names))


@dataclass(frozen=True)
class Catalogue:
    """All rows, by name, in order."""

    entries: tuple[Entry, ...]

    def find(self, name: str) -> Entry:
        """Find the row called ``name``; a row's name comes before an old one, that before a file's.

        Raises:
            WeightsError: there is none; lists those there are.
        """
        entry = self.find_named(name)
        if entry is not None:
            return entry
        for entry in self.entries:
            if entry.is_called(name):
                return entry
        names = ", ".join(entry.name for entry in self.entries)
        raise WeightsError(f"the catalogue has no weights called {name!r}; it has {names}")

    def find_named(self, name: str) -> Entry | None:
        """Find the row that has, or had, exactly this name, whatever its file's."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        return next((entry for entry in self.entries if name in entry.old_names), None)

    def for_commerce(self) -> Catalogue:
        """Keep only the rows whose commercial use is known to be allowed."""
        return Catalogue(tuple(entry for entry in self.entries if entry.commercial == "yes"))


def read_catalogue(*files: str | os.PathLike[str]) -> Catalogue:
    """Read catalogue files, each of which may add rows and correct fields of earlier rows.

    Args:
        files: TOML files with a table ``[[weights]]`` for each row, see ``catalogue.toml``.

    Raises:
        WeightsError: a file cannot be read, or a row is wrong; names the file, row and field.
    """
    return _read(tuple((Path(file), *_version(Path(file))) for file in files))


def _version(file: Path) -> tuple[int, int]:
    """Return the time of a file's last change in ns, and its bytes."""
    try:
        status = file.stat()
    except (OSError, ValueError):  # said by who reads the file
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=8)  # the nodes' schemas ask for it hundreds of times
def _read(versions: tuple[tuple[Path, int, int], ...]) -> Catalogue:
    """Read catalogue files; (file, time of its last change in ns, bytes) each."""
    rows: dict[str, dict[str, Any]] = {}
    origin: dict[str, Path] = {}
    for file, *_ in versions:
        for number, row in enumerate(_rows(file), start=1):
            name = row.get("name")
            if not isinstance(name, str):
                raise WeightsError(f"{file}: row {number} of the weights has no name")
            if origin.get(name) == file:
                raise WeightsError(f"{file}: two rows are called {name!r}")
            origin[name] = file
            rows[name] = {**rows.get(name, {}), **row}
    entries = []
    for name, row in rows.items():
        try:
            entries.append(_entry(row))
        except ValueError as error:
            raise WeightsError(f"{origin[name]}: weights {name!r}: {error}") from error
    return Catalogue(tuple(entries))


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        rows = read_toml(file).get("weights", [])
    except TableError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WeightsError(f"{file}: each row begins with a line [[weights]]")
    return rows


def _entry(row: Mapping[str, Any]) -> Entry:
    """Check a row.

    Raises:
        ValueError: says which field is wrong and what it must be.
    """
    entry = build(Entry, row, noun="field")
    if entry.bundled and entry.sources:
        raise WeightsError("a bundled file has no sources")
    return entry
