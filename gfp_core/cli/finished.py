"""Which results of earlier runs are finished, and which are made again: by what made them.

A result counts as finished if it is whole and was made of the same picture, with the same options
and the same networks. What made it stands in its own record (`io.images.read_record`) and, for a
folder of results, in a small file there, a line a result: pictures that were copied as they are, or
written without a record, have no other place for it. Without that file records alone count.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.formats import CLIP_SUFFIXES
from ..options import RECORD_TABLE
from ..recipe import Recipe, sha256_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from .paths import Job

logger = logging.getLogger(__name__)

MANIFEST = ".gfp-restore.jsonl"
"""Name of the file in the output folder."""
RESULT = "result"
"""The one output that is always made."""


@dataclass(frozen=True)
class Entry:
    """What made a result, and its files as they were then."""

    source: tuple[int, ...]
    """Size and time of change of the picture, and of what belongs to it alone."""
    recipe: Recipe
    kinds: tuple[str, ...]
    """Which outputs were made: `RESULT` and others."""
    files: Mapping[str, tuple[int, int]]
    """Sizes and times of change of the outputs, by their paths below the output folder."""


@dataclass(frozen=True)
class Todo:
    """What of a job's outputs is to be made."""

    kinds: frozenset[str]
    reason: str = ""
    """Why it is made again; empty for the first time."""


class Results:
    """The results in an output folder, and what made them."""

    def __init__(self, folder: Path, recipe: Recipe, *, manifest: bool = True) -> None:
        """Read what is known of a folder.

        Args:
            folder: of the results.
            recipe: of this run.
            manifest: whether results are noted in a file there.
        """
        self.recipe = recipe
        self._folder = folder
        self._file = folder / MANIFEST if manifest else None
        self._entries: dict[str, Entry] = {}
        self._needs_line_feed = False
        self._warned = False
        if self._file is not None:
            self._read(self._file)

    def todo(self, job: Job, kinds: frozenset[str], beside: Iterable[Path] = ()) -> Todo:
        """What of a job is not finished.

        Args:
            job: the picture and its result.
            kinds: which outputs are wanted.
            beside: other files that belong to this picture alone.

        Raises:
            ValueError: a file has the result's name, and what made it is not known.
        """
        if not os.path.lexists(job.target):
            return Todo(kinds)
        if not job.target.is_file():
            raise ValueError(f"{job.target} is a folder or a device; rename it, or the input")
        entry = self._entries.get(job.name.as_posix())
        if entry is None:
            return self._todo_by_record(job, kinds)
        if entry.source != stamps_of([job.source, *beside]):
            return Todo(kinds, "the picture is another than before")
        if reason := _difference(entry.recipe, self.recipe):
            return Todo(kinds, reason)
        if not self._is_whole(entry, job.target):
            return Todo(kinds, f"{job.target} is damaged")
        missing = {
            kind for kind in kinds if kind not in entry.kinds or not self._is_there(entry, kind)
        }
        return Todo(frozenset(missing))

    def note(self, job: Job, files: Mapping[str, Iterable[Path]], beside: Iterable[Path]) -> None:
        """Note what was made of a picture.

        Args:
            job: the picture and its result.
            files: the outputs, by their kinds.
            beside: other files that belong to this picture alone.

        Raises:
            OSError: the disk is full.
        """
        if self._file is None:
            return
        name = job.name.as_posix()
        before = self._entries.get(name)
        kinds = set(files)
        stamps: dict[str, Any] = {}
        if RESULT not in files and before is not None:
            kinds |= set(before.kinds)
            stamps.update(before.files)
        for paths in files.values():
            for path in paths:
                size, time = stamps_of([path])
                stamps[path.relative_to(self._folder).as_posix()] = (size, time)
        source = stamps_of([job.source, *beside])
        entry = Entry(source, self.recipe, tuple(sorted(kinds)), stamps)
        self._entries[name] = entry
        self._append(self._file, _line(name, entry))

    def _todo_by_record(self, job: Job, kinds: frozenset[str]) -> Todo:
        """What of a job is not finished, where its own file alone says what made it."""
        if _is_damaged(job.target):
            return Todo(kinds, f"{job.target} is damaged")
        record = _record_of(job.target)
        if record is None:
            if _same_content(job.source, job.target):  # a copy: nothing is lost
                return Todo(kinds)
            raise ValueError(
                f"{job.target} is there already, and what made it is not known: "
                "--overwrite replaces it, or choose another output"
            )
        if not job.source.is_file():  # whoever reads it will say so
            return Todo(kinds)
        if record.get("source_sha256") != sha256_of(job.source):
            return Todo(kinds, "the picture is another than before")
        recipe = Recipe(str(record.get("options")), str(record.get("networks")))
        if reason := _difference(recipe, self.recipe):
            return Todo(kinds, reason)
        return Todo(kinds - {RESULT})

    def _is_whole(self, entry: Entry, target: Path) -> bool:
        """Whether a result is as it was written, or, if somebody changed it, still a picture."""
        key = target.relative_to(self._folder).as_posix()
        if entry.files.get(key) == stamps_of([target]):
            return True
        if _is_damaged(target):
            return False
        logger.info("The result was changed since it was made: left as it is.")
        return True

    def _is_there(self, entry: Entry, kind: str) -> bool:
        """Whether the outputs of a kind are as they were written."""
        if kind == RESULT:
            return True
        inside = {name: stamp for name, stamp in entry.files.items() if name.startswith(f"{kind}/")}
        return all(stamps_of([self._folder / name]) == stamp for name, stamp in inside.items())

    def _read(self, file: Path) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY | _NO_LINKS)
        except FileNotFoundError:
            return
        except OSError as error:
            self._warn(error)
            return
        with open(descriptor, "rb") as stream:
            lines = stream.read().split(b"\n")
        self._needs_line_feed = lines[-1] != b""  # of a run that was killed
        for line in lines:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                name, entry = _parse(json.loads(line))
                self._entries[name] = entry
        if len(lines) > 1000 and len(lines) > 2 * len(self._entries):
            self._rewrite(file)

    def _rewrite(self, file: Path) -> None:
        """Leave out lines that later ones replace."""
        from ..io.atomic import write_text

        with suppress(OSError):  # a convenience
            write_text(file, "".join(_line(*item) for item in self._entries.items()))
            self._needs_line_feed = False

    def _append(self, file: Path, line: str) -> None:
        from ..io.atomic import is_disk_full

        data = ("\n" * self._needs_line_feed + line).encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINKS
        try:
            descriptor = os.open(file, flags, 0o666)
            try:
                os.write(descriptor, data)  # at once: another run may write there, too
            finally:
                os.close(descriptor)
            self._needs_line_feed = False
        except OSError as error:
            if is_disk_full(error):
                raise
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s is not available (%s): what made the results is not noted there",
                self._file,
                error.strerror,
            )


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def stamps_of(paths: Iterable[Path]) -> tuple[int, ...]:
    """Sizes and times of change of files, -1 where one is missing."""
    stamps: list[int] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            stamps += [-1, -1]
        else:
            stamps += [status.st_size, status.st_mtime_ns]
    return tuple(stamps)


def _difference(before: Recipe, now: Recipe) -> str:
    if before.networks != now.networks:
        return "another model made it"
    return "" if before.options == now.options else "other options made it"


def read_record(path: Path) -> str | None:
    """What was done to a picture or a clip; None where nothing says it.

    Raises:
        ValueError: the file cannot be read.
    """
    if path.suffix.lower() in CLIP_SUFFIXES:
        from ..io import video

        return video.read_record(path)
    from ..io import images

    return images.read_record(path)


def _is_damaged(path: Path) -> bool:
    try:
        if path.suffix.lower() in CLIP_SUFFIXES:
            from ..io.video import Clip

            with Clip(path) as clip:
                next(iter(clip.frames()))
        else:
            from ..io.images import read_image

            read_image(path)
    except ValueError:
        return True
    return False


def _record_of(path: Path) -> dict[str, Any] | None:
    with suppress(ValueError):
        table = tomllib.loads(read_record(path) or "").get(RECORD_TABLE)
        return table if isinstance(table, dict) else None
    return None


def _same_content(first: Path, second: Path) -> bool:
    try:
        same_size = first.stat().st_size == second.stat().st_size
        return same_size and sha256_of(first) == sha256_of(second)
    except OSError:
        return False


def _line(name: str, entry: Entry) -> str:
    return json.dumps({"name": name, **asdict(entry)}) + "\n"


def _parse(row: Any) -> tuple[str, Entry]:
    recipe = Recipe(str(row["recipe"]["options"]), str(row["recipe"]["networks"]))
    files = {str(name): (int(size), int(time)) for name, (size, time) in row["files"].items()}
    source = tuple(map(int, row["source"]))
    return str(row["name"]), Entry(source, recipe, tuple(map(str, row["kinds"])), files)
