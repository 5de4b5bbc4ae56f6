"""Weight files on disk: only regular files are read, and folders are walked through links."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

ENDINGS = frozenset({".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".onnx", ".tflite"})
"""Endings, in lower case, of files that may be weights."""
GRAPHS = (".onnx", ".tflite")
"""Endings of files that hold a network with its weights, and are used as they are."""


def is_graph(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file holds a network with its weights."""
    return os.fspath(path).lower().endswith(GRAPHS)


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path leads to a regular file: no folder, FIFO, socket or device.

    Links are followed. What cannot be looked at (a name too long, no permission) is none.
    """
    return os.path.isfile(path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, never waiting for a writer as a FIFO would.

    Raises:
        OSError: the file cannot be opened, or is no regular file.
    """
    return open(path, "rb", opener=_opener)


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", path)
    return descriptor


def open_part(path: Path) -> BinaryIO:
    """Open an unfinished file of ours for appending; anything else of that name is removed first.

    A link would lead the bytes to another file.

    Raises:
        OSError: the file cannot be opened, or a folder has its name.
    """
    remove_foreign(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def remove_foreign(path: Path) -> None:
    """Remove what this program does not make: a link, a file of two names, a FIFO.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        logger.warning("%s is no file of this program: removed.", path)
        os.unlink(path)


def walk(folder: Path) -> Iterator[Path]:
    """Walk the regular files below a folder that may be weights, those near the top first.

    Links to files and folders are followed, each folder once; hidden folders are passed over.
    """
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        identity = _identity(parent)
        if identity is None or identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in ENDINGS:
                path = Path(parent, name)
                if is_regular(path):
                    yield path
                else:
                    logger.debug("%s is no regular file: passed over.", path)


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError as error:
        logger.debug("%s cannot be read: %s", folder, error.strerror or error)
        return None
    return status.st_dev, status.st_ino
