"""Write files whole or not at all: the only write-then-rename of the project.

A file is written under a temporary name in its own folder, flushed to the disk and renamed onto
its target, so that a reader, a crash or a power cut sees the old file or the new one, never half
of either. Temporary files are created anew (an existing file or link of that name is never
opened), removed after any exception, and swept by the next run where a killed run left them.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import secrets
import socket
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_BUSY = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY}
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between attempts to rename a busy file
_STALE = 86_400  # seconds without a change, after which a temporary of an unknown writer is stale
_DISK_FULL_ON_WINDOWS = 112  # ERROR_DISK_FULL

_RUN = secrets.token_hex(4)  # tells this process from an earlier one of the same number
_counter = itertools.count()
_PART = re.compile(r"\.gfp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<run>[0-9a-f]{8})-\d+\.part")
_swept: set[Path] = set()
_reported: set[str] = set()


@contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file for binary writing that becomes ``path`` when the block ends.

    After any exception in the block (Ctrl-C included) the temporary file is removed and an
    existing ``path`` is as it was.

    Args:
        path: the target; an existing file is replaced, and a link is replaced, not followed.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full (`is_disk_full`).
    """
    target = Path(path)
    temporary, descriptor = _create_part(target.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            _fsync(file.fileno())
        _rename(temporary, target)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block ends, for writers of paths.

    The temporary file exists and is empty; the writer may overwrite or replace it. The rights of
    the result are the usual ones, whatever the writer sets.

    Args:
        path: the target; an existing file is replaced, and a link is replaced, not followed.

    Raises:
        OSError: as `open_atomic`.
    """
    target = Path(path)
    temporary, descriptor = _create_part(target.parent)
    try:
        rights = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        yield temporary
        temporary.chmod(rights)
        commit(temporary, target)
    except BaseException:
        _remove(temporary)
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file of these bytes, whole or not at all; errors as `open_atomic`."""
    with open_atomic(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write a UTF-8 file with line ends as they are (``\n``), whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def commit(temporary: Path, target: Path) -> None:
    """Flush a finished file to the disk and rename it onto its target in the same file system.

    Args:
        temporary: a regular file, no link, as another writer left it.
        target: its final name; an existing file is replaced.

    Raises:
        OSError: the finished file is a link, is missing or cannot be renamed; nothing is changed.
    """
    descriptor = os.open(temporary, os.O_RDWR | _flags())
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)
    _rename(temporary, target)


def check_writable(folder: Path) -> None:
    """Create a temporary file in a folder and remove it.

    Raises:
        OSError: the folder is missing or not writable.
    """
    temporary, descriptor = _create_part(folder)
    try:
        os.close(descriptor)
    finally:
        temporary.unlink()


def lock(path: Path) -> BinaryIO:
    """Lock a file for this process, until the file returned is closed or the process ends.

    On a disk that knows no locks nothing is locked.

    Args:
        path: the file, which is created if it is not there, and stays.

    Raises:
        BlockingIOError: somebody else has it.
    """
    while True:
        file = _locked(path)
        # Whoever had it may have removed it meanwhile: then it keeps nobody out.
        with suppress(FileNotFoundError):
            if os.name != "posix" or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _locked(path: Path) -> BinaryIO:
    """Open a file and lock it, see `lock`."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            _report_once(f"the disk knows no locks ({error.strerror}): continuing without")
            return file
        file.close()
        raise BlockingIOError(errno.EAGAIN, f"{path} is in use") from error
    return file


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and (
            error.errno in _NO_SPACE or getattr(error, "winerror", None) == _DISK_FULL_ON_WINDOWS
        ):
            return True
        error = error.__cause__
    return False


def sweep(folder: Path) -> int:
    """Remove the temporary files that dead runs left in a folder; return their number.

    Files of running processes of this machine stay; those of other machines (a shared disk) go
    when nothing has changed them for a day. `open_atomic` and `atomic_path` do this by themselves,
    once a folder and process.
    """
    removed = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            if match is None or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # gone meanwhile, or held by its writer
                if _is_stale(entry, match):
                    os.unlink(entry.path)
                    removed += 1
    if removed:
        logger.info("%s: %d unfinished files of an earlier run were removed", folder, removed)
    return removed


def _is_stale(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    pid = int(match["pid"])
    if match["host"] == _host() and os.name == "posix":
        if pid == os.getpid():
            return match["run"] != _RUN
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OverflowError:  # no process has this number
            return True
        except PermissionError:  # somebody else's
            return False
        return False
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE


def _host() -> str:
    """Name the machine, and where there are several (containers) its space of process numbers."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(
                os.readlink(path) if "/ns/" in path else Path(path).read_text(encoding="ascii")
            )
    return f"{zlib.crc32('|'.join(parts).encode()):08x}"


def _create_part(folder: Path) -> tuple[Path, int]:
    """Create an empty temporary file; return its path and its descriptor."""
    resolved = Path(os.path.abspath(folder))
    if resolved not in _swept:
        _swept.add(resolved)
        sweep(resolved)
    # Short, and without the target's name: that may be as long as the file system allows.
    temporary = folder / f".gfp-{_host()}-{os.getpid()}-{_RUN}-{next(_counter)}.part"
    # Not tempfile: its files can be read by their owner only.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _flags()
    try:
        return temporary, os.open(temporary, flags, 0o666)
    except FileExistsError:
        raise
    except BaseException:  # Ctrl-C while the disk makes the file is raised when it is there
        _remove(temporary)
        raise


def _flags() -> int:
    return getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
        _report_once(f"the disk does not confirm writes ({error.strerror}): continuing without")


def _rename(temporary: Path, target: Path) -> None:
    for wait in (*_WAITS, None):
        try:
            os.replace(temporary, target)
            break
        except OSError as error:
            # A virus scanner or an indexer holds a new file for a moment.
            if wait is None or error.errno not in _BUSY or target.is_dir():
                raise
            time.sleep(wait)
    if os.name == "posix":
        _fsync_folder(target.parent)


def _fsync_folder(folder: Path) -> None:
    """Make a rename durable; the file is complete either way, so that errors are only logged."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _report_once(f"the disk does not confirm renames ({error.strerror}): continuing without")


def _report_once(message: str) -> None:
    if message not in _reported:
        _reported.add(message)
        logger.warning("%s", message)


def _remove(temporary: Path) -> None:
    """Remove a temporary file after an error, which is the one to be reported."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
