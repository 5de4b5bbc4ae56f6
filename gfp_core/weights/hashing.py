"""SHA-256 of files, remembered by path, size and time of change: big files are read once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_BLOCK = 2**20


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class HashMemory:
    """The hashes of files seen before, in a small JSON file.

    Two processes that write at once may lose one another's additions, which costs a second reading
    of a file and nothing else.
    """

    def __init__(self, file: Path) -> None:
        """Use ``file``, which need not exist."""
        self.file = file

    def sha256_of(self, path: Path) -> str:
        """The hash of a file, read anew only if its size or time of change differ.

        Raises:
            OSError: it cannot be read.
        """
        known = self.remembered(path)
        if known is not None:
            return known
        before = _stamp(path)
        digest = sha256_of(path)
        if _stamp(path) == before:
            self.remember(path, digest)
        return digest

    def remembered(self, path: Path) -> str | None:
        """The hash a file had, if it has not been touched since."""
        size, time, digest = self._read().get(_key(path), (None, None, None))
        return digest if (size, time) == _stamp(path) else None

    def remember(self, path: Path, digest: str) -> None:
        """Note the hash of a file as it is now."""
        table = {key: row for key, row in self._read().items() if os.path.exists(key)}
        table[_key(path)] = (*_stamp(path), digest)
        temporary = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(table), encoding="utf-8")
            temporary.replace(self.file)
        except OSError as error:  # only a convenience is lost
            logger.debug("%s: hashes cannot be remembered: %s", self.file, error)

    def _read(self) -> dict[str, tuple[int, int, str]]:
        try:
            table = json.loads(self.file.read_text(encoding="utf-8"))
            return {str(key): (int(row[0]), int(row[1]), str(row[2])) for key, row in table.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, IndexError, TypeError) as error:
            logger.debug("%s: not readable, begun anew: %s", self.file, error)
            return {}


def _key(path: Path) -> str:
    return str(path.absolute())


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
