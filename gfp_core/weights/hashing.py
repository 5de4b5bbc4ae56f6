"""SHA-256 of files, remembered so that a large file is read once; and what was made from what."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..io.atomic import lock, write_text
from .files import open_regular

logger = logging.getLogger(__name__)

_BLOCK = 2**20
_FILES, _CONVERTED = "files", "converted"
_PATIENCE, _PAUSE = 10.0, 0.02  # seconds that an addition waits for others', in all and at a time


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Compute the SHA-256 of a regular file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class HashMemory:
    """Remember the hashes of files, and which converted content was made from which source.

    A file's hash holds as long as its size, times of change (of content and of inode) and inode are
    the same. All is kept in a small JSON file, to which one process adds at a time: what was
    converted counts only as long as its row is there, and its source is deleted.
    """

    def __init__(self, file: Path | None) -> None:
        """Use ``file``, which need not exist; None remembers for the life of this object only."""
        self.file = file
        self._own: dict[str, dict[str, list[object]]] = {_FILES: {}, _CONVERTED: {}}

    def sha256_of(self, path: Path) -> str:
        """Compute the hash of a file, read anew only if the file has changed since.

        Raises:
            OSError: the file cannot be read, or is no regular file.
        """
        remembered = self.remembered(path)
        if remembered is not None:
            return remembered
        before = _stamp(path)
        digest = sha256_of(path)
        if _stamp(path) == before:
            self.remember(path, digest)
        return digest

    def remembered(self, path: Path) -> str | None:
        """Return the hash that a file had, if the file has not been touched since."""
        row = self._read()[_FILES].get(_key(path))
        if row is None or len(row) != 5 or row[:4] != _stamp(path):
            return None
        return str(row[4])

    def remember(self, path: Path, digest: str) -> None:
        """Note the hash of a file as the file is now."""
        row: list[object] = [*_stamp(path), digest]
        with self._locked():
            table = self._read()
            table[_FILES] = {key: old for key, old in table[_FILES].items() if os.path.exists(key)}
            table[_FILES][_key(path)] = row
            self._write(table)

    def source_of(self, digest: str) -> str | None:
        """Return the SHA-256 of the file from which content of this hash was made here.

        None if the content is from elsewhere.
        """
        row = self._read()[_CONVERTED].get(digest)
        return str(row[0]) if row else None

    def remember_source(self, digest: str, source: str) -> None:
        """Note that content of the hash ``digest`` was made here from that of ``source``."""
        with self._locked():
            table = self._read()
            table[_CONVERTED][digest] = [source]
            self._write(table)
        if self.file is None:
            logger.warning(
                "What was converted cannot be remembered for the next run, which will convert "
                "again: set XDG_CACHE_HOME to a folder that can be written"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process or thread write between a reading of the file and its writing."""
        if self.file is None:
            yield
            return
        path, until = self.file.with_suffix(".lock"), time.monotonic() + _PATIENCE
        file = None
        while file is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = lock(path)
            except BlockingIOError:
                if time.monotonic() > until:
                    logger.debug("%s: in use for long: writing all the same", path)
                    break
                time.sleep(_PAUSE)
            except OSError as error:  # writing will say the same
                logger.debug("%s: cannot be locked: %s", path, error)
                break
        try:
            yield
        finally:
            if file is not None:
                file.close()

    def _write(self, table: dict[str, dict[str, list[object]]]) -> None:
        self._own = table
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(table))
        except OSError as error:
            logger.debug("%s: hashes cannot be remembered: %s", self.file, error)
            self.file = None

    def _read(self) -> dict[str, dict[str, list[object]]]:
        if self.file is None:
            return self._own
        tables: dict[str, dict[str, list[object]]] = {_FILES: {}, _CONVERTED: {}}
        try:
            with open_regular(self.file) as file:
                content = json.load(file)
            for name, table in tables.items():
                table.update({str(key): list(row) for key, row in content.get(name, {}).items()})
        except FileNotFoundError:
            return self._own
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            logger.debug("%s: not readable, begun anew: %s", self.file, error)
        return tables


def _key(path: Path) -> str:
    return str(path.absolute())


def _stamp(path: Path) -> list[object]:
    """What changes when a file's content does: size, both times of change, and inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
