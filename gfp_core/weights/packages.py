"""Files of other people's packages, read where they lie."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from . import WeightsError

_DAMAGED = (EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, NotImplementedError)


def find_package(name: str, advice: str) -> Path:
    """Find the folder of an installed package, without importing the package.

    Raises:
        FileNotFoundError: not installed; the message ends with ``advice``.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {name} is not installed: {advice}")
    return Path(spec.origin).parent


def read_member(source: str | Path, member: str, advice: str) -> BinaryIO:
    """Open a file of a package for reading, with its whole content in memory.

    Args:
        source: a wheel or zip, a tar archive (``.tgz``), a folder that holds ``member`` or its
            last part, or the file itself.
        member: path of the file within the package, with forward slashes.
        advice: what to do when there is no such file; the end of the message.

    Raises:
        FileNotFoundError: no such source, or no such file in it.
        WeightsError: the archive is damaged or truncated.
        OSError: it cannot be read.
    """
    source = Path(source)
    try:
        return _read_member(source, member, advice)
    except _DAMAGED as error:
        raise WeightsError(f"{source}: a damaged or truncated archive: {error}") from error


def _read_member(source: Path, member: str, advice: str) -> BinaryIO:
    name = member.rsplit("/", 1)[-1]
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: {advice}")
    if source.is_dir():
        for candidate in (source / member, source / name):
            if candidate.is_file():
                return io.BytesIO(candidate.read_bytes())
    elif source.name == name:
        return io.BytesIO(source.read_bytes())
    elif source.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(source) as archive:
            if member in archive.namelist():
                return io.BytesIO(archive.read(member))
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            if member in archive.getnames():
                stream = archive.extractfile(member)
                if stream is not None:
                    return io.BytesIO(stream.read())
    raise FileNotFoundError(f"{source} holds no {member}: {advice}")
