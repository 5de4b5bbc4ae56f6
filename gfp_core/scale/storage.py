"""Folders and buckets: pictures listed and read, results and the tables of what is done written.

Any file system of pyarrow or fsspec serves. What is done stands in tables below the output, one a
part, each written whole: a run that is killed leaves parts that are done, and the next goes on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import tarfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..io import atomic
from ..io.formats import HEAD_BYTES, READABLE_SUFFIXES, SUFFIXES, sniff
from ..io.names import result_name
from ..io.picture import ImageError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

FILES, PARQUET, WEBDATASET = "files", "parquet", "webdataset"
KINDS = (FILES, PARQUET, WEBDATASET)
"""What pictures come from and go to: files, tables with a column of bytes, tars."""
NOTES = "_gfp"
"""Folder in the output with the tables of what is done, and the report."""
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ)
_OBJECT_STORES = ("s3", "gcs", "abfs")  # a file appears there when it is closed, and whole


@dataclass(frozen=True)
class Storage:
    """A folder of a file system, here or far away; picklable."""

    filesystem: FileSystem
    root: str
    """Path of the folder (or the one file) in its file system."""

    @classmethod
    def of(cls, text: str) -> Storage:
        """Open what a path or an address (``s3://bucket/folder``) names.

        Raises:
            ValueError: there is no such file system here, or the address is wrong.
        """
        from pyarrow import fs

        if "://" not in text:
            return cls(fs.LocalFileSystem(), Path(text).absolute().as_posix())
        try:
            filesystem, root = fs.FileSystem.from_uri(text)
        except (ValueError, OSError, NotImplementedError):
            try:
                import fsspec

                system, root = fsspec.core.url_to_fs(text)
                filesystem = fs.PyFileSystem(fs.FSSpecHandler(system))
            except (ValueError, ImportError, OSError) as error:
                raise ValueError(f"{without_secrets(text)} cannot be opened: {error}") from error
        return cls(filesystem, root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's disks."""
        return bool(self.filesystem.type_name == "local")

    def path(self, name: str) -> str:
        """The path of a file in the file system."""
        return f"{self.root}/{name}" if name else self.root

    def is_below(self, storage: Storage) -> bool:
        """Whether it is a folder in another one."""
        inside = self.root.startswith(storage.root.rstrip("/") + "/")
        return inside and self.filesystem.equals(storage.filesystem)

    def names(self, endings: Sequence[str], *, without: Storage | None = None) -> list[str]:
        """The paths of the files below, in order, but for hidden ones.

        Args:
            endings: of the files, in lower case, with the dot.
            without: a folder that is left out: the output.

        Raises:
            ValueError: the folder does not exist, or cannot be looked into.
        """
        from pyarrow import fs

        excluded = None
        if without is not None and without.is_below(self):
            excluded = without.root + "/"
        try:
            if self.filesystem.get_file_info(self.root).type == fs.FileType.File:
                return [""] if PurePosixPath(self.root).suffix.lower() in endings else []
            entries = self.filesystem.get_file_info(fs.FileSelector(self.root, recursive=True))
        except OSError as error:
            raise ValueError(f"{self.root} cannot be looked into: {error}") from error
        names = []
        for entry in entries:
            name = entry.path[len(self.root) :].lstrip("/")
            is_hidden = any(part.startswith((".", NOTES)) for part in name.split("/"))
            if entry.type != fs.FileType.File or is_hidden:
                continue
            if PurePosixPath(name).suffix.lower() in endings and not (
                excluded is not None and entry.path.startswith(excluded)
            ):
                names.append(name)
        return sorted(names)

    def read(self, name: str) -> bytes:
        """Read a file whole.

        Raises:
            OSError: it is missing, or cannot be read.
        """
        with self.filesystem.open_input_stream(self.path(name), compression=None) as stream:
            data: bytes = stream.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        path = self.path(name)
        if self.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, data)
            return
        temporary = path
        if self.filesystem.type_name not in _OBJECT_STORES:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            temporary = f"{path}.{os.getpid()}.part"
        with self.filesystem.open_output_stream(temporary, compression=None) as stream:
            stream.write(data)
        if temporary != path:
            self.filesystem.move(temporary, path)


def without_secrets(address: str) -> str:
    """An address without user, password and query, for messages."""
    parts = urllib.parse.urlsplit(address)
    if "://" not in address:
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class Parts:
    """The results in an output, in parts; what is done stands in a table a part. Picklable."""

    storage: Storage
    kind: str
    """One of `KINDS`."""
    key: str
    """Of options, networks and format: results of others are not in the way."""
    suffix: str | None = None
    """Ending of the results' names; None for that of each picture."""

    @property
    def folder(self) -> str:
        """The folder of the tables, below the output."""
        return f"{NOTES}/options={self.key}" if self.kind == FILES else f"options={self.key}"

    def file_of(self, name: str) -> str:
        """Give the path of a row's result, below the output or in its tar."""
        path = PurePosixPath(name)
        return str(result_name(path, self.suffix)) if path.name else name

    def place_of(self, name: str) -> str:
        """Give what a row takes for itself in the output: its file, sample or row."""
        if self.kind == PARQUET:
            return name
        file = self.file_of(name)
        return _sample_name(file) if self.kind == WEBDATASET else file

    def done(self) -> dict[str, str]:
        """The ids that are done, and their errors; a success counts more than an error."""
        import pyarrow.parquet as pq

        done: dict[str, str] = {}
        for name in self._tables():
            with self.storage.filesystem.open_input_file(self.storage.path(name)) as file:
                table = pq.read_table(file, columns=["id", "error"])
            for row in zip(*(table[key].to_pylist() for key in ("id", "error")), strict=True):
                if row[1] == "" or row[0] not in done:
                    done[row[0]] = row[1]
        return done

    def sweep(self) -> int:
        """Remove tars without their table, which a run that was killed left; returns how many."""
        tables = {name.removesuffix(".parquet") for name in self._tables()}
        tars = [name for name in self._below(".tar") if name.removesuffix(".tar") not in tables]
        for name in tars:
            self.storage.filesystem.delete_file(self.storage.path(name))
        return len(tars)

    def write(self, rows: Mapping[str, Any]) -> list[str]:
        """Write the results of some rows, and then the table that says that they are done.

        The part's name depends on the rows alone: written again, it takes its own place.

        Args:
            rows: columns id, restored, faces, seconds, error; ``beside`` of tars.

        Returns:
            The errors of the rows; a name that no file may have is one.

        Raises:
            OSError: nothing can be written.
        """
        ids = [str(name) for name in rows["id"]]
        part = "part-" + hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        files = [self.file_of(name) for name in ids]
        if self.kind == WEBDATASET and "beside" not in rows:  # no names of samples yet
            files = [_member(*pair) for pair in zip(files, rows["restored"], strict=True)]
        errors = [str(error) for error in rows["error"]]
        if self.kind != PARQUET:
            errors = [error or _wrong_name(file) for file, error in zip(files, errors, strict=True)]
        rows = {**rows, "error": errors}
        if self.kind == FILES:
            for index, (file, data) in enumerate(zip(files, rows["restored"], strict=True)):
                errors[index] = errors[index] or self._write_file(file, bytes(data))
        elif self.kind == WEBDATASET:
            self.storage.write(f"{self.folder}/{part}.tar", _tar(files, rows))
        columns: dict[str, Any] = {
            "id": ids,
            "file": ["" if error else file for file, error in zip(files, errors, strict=True)],
            **{name: list(rows[name]) for name in ("faces", "seconds")},
            "error": errors,
        }
        if self.kind == PARQUET:
            columns["bytes"] = [bytes(data) for data in rows["restored"]]
        self.storage.write(f"{self.folder}/{part}.parquet", _parquet(columns))
        return errors

    def _write_file(self, name: str, data: bytes) -> str:
        """Write a result; returns what is wrong with its name, empty if nothing."""
        try:
            self.storage.write(name, data)
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise
            return f"{name} cannot be written ({error.strerror}); rename the picture"
        return ""

    def _tables(self) -> list[str]:
        return self._below(".parquet")

    def _below(self, ending: str) -> list[str]:
        from pyarrow import fs

        selector = fs.FileSelector(self.storage.path(self.folder), allow_not_found=True)
        entries = self.storage.filesystem.get_file_info(selector)
        names = [entry.base_name for entry in entries if entry.base_name.endswith(ending)]
        return sorted(f"{self.folder}/{name}" for name in names)


def safe_name(name: str) -> str:
    """Return a name that stays below its folder.

    Raises:
        ValueError: it would lead out of it.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file below the output")
    return name


def _wrong_name(name: str) -> str:
    """Say what is wrong with a name, empty if nothing."""
    try:
        safe_name(name)
    except ValueError as error:
        return str(error)
    return ""


def samples_of(storage: Storage, name: str) -> Iterator[dict[str, Any]]:
    """The samples of a webdataset's tar, one at a time, as they come: files of one stem.

    Args:
        storage: of the tars.
        name: of the tar.

    Yields:
        ``id`` (the tar's stem and the picture's name), ``bytes``, ``error``, and ``beside``: a tar
        of the sample's other files. A tar that breaks off ends with a row that says so.
    """
    stem = name.removesuffix(".tar")
    files: dict[str, bytes] = {}
    key = None
    try:
        with (
            storage.filesystem.open_input_stream(storage.path(name), compression=None) as stream,
            tarfile.open(fileobj=_Readable(stream), mode="r|") as archive,
        ):
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                sample = f"{folder}/{base.partition('.')[0]}"
                if files and sample != key:
                    yield _sample(stem, files)
                    files = {}
                key = sample
                content = archive.extractfile(member)
                assert content is not None
                files[member.name] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        yield {"id": stem, "bytes": b"", "error": f"{name}: {error}", "beside": b""}
    if files:
        yield _sample(stem, files)


class _Readable(io.RawIOBase):
    """A stream of pyarrow as tarfile wants it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(None if size < 0 else size)
        return data


def _sample(stem: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    for picture in files:
        if PurePosixPath(picture).suffix.lower() in READABLE_SUFFIXES:
            others = {f"{stem}/{name}": data for name, data in files.items() if name != picture}
            beside = _archive(others) if others else b""
            row = {"id": f"{stem}/{picture}", "bytes": files[picture], "error": ""}
            return {**row, "beside": beside}
    names = ", ".join(files)
    error = f"{stem}.tar: the sample of {names} holds no picture"
    return {"id": f"{stem}/{next(iter(files))}", "bytes": b"", "error": error, "beside": b""}


def _sample_name(file: str) -> str:
    """Name the sample that a picture becomes: a webdataset's sample ends at the first dot."""
    path = PurePosixPath(file)
    if not path.name:
        return file
    ending = path.suffix if path.suffix.lower() in SUFFIXES else ""
    return str(path.with_name(path.name.removesuffix(ending).replace(".", "_")))


def _member(file: str, data: bytes) -> str:
    """Name a picture in a tar: its sample, and the ending of its format."""
    ending = PurePosixPath(file).suffix
    if ending.lower() not in SUFFIXES:
        kind = sniff(data[:HEAD_BYTES])
        ending = next((suffix for suffix, name in SUFFIXES.items() if name == kind), "")
    return _sample_name(file) + ending


def _tar(files: Sequence[str], rows: Mapping[str, Any]) -> bytes:
    """A webdataset's tar of the rows without an error: picture, its faces, what came with it."""
    members: dict[str, bytes] = {}
    besides = rows.get("beside", [b""] * len(files))
    for file, data, faces, error, beside in zip(
        files, rows["restored"], rows["faces"], rows["error"], besides, strict=True
    ):
        if error:
            continue
        members[file] = bytes(data)
        members.update(_members(bytes(beside or b"")))
        path = PurePosixPath(file)
        sample = path.with_name(path.name.partition(".")[0])  # a sample ends at the first dot
        members[f"{sample}.faces.json"] = str(faces).encode()
    return _archive(members)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                yield member.name, content.read()


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A tar whose bytes depend on its files alone."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(dict(columns), schema=_schema("bytes" in columns)), stream)
    return stream.getvalue()


def _schema(with_bytes: bool) -> pa.Schema:
    import pyarrow as pa

    fields = [("id", pa.string()), ("file", pa.string()), ("faces", pa.string())]
    fields += [("seconds", pa.float64()), ("error", pa.string())]
    return pa.schema(fields + [("bytes", pa.large_binary())] * with_bytes)


def read_row(storage: Storage, name: str) -> tuple[bytes, str]:
    """Read a file: its bytes, and what is wrong with it, empty if nothing."""
    try:
        return storage.read(name), ""
    except FileNotFoundError:
        return b"", f"{name} does not exist; check the name"
    except (OSError, ValueError, ImageError) as error:
        return b"", f"{name} cannot be read ({error}); check its rights, and the connection"


def make_writable(storage: Storage) -> None:
    """Find out whether files can be written in a folder.

    Raises:
        ValueError: they cannot.
    """
    name = f"{NOTES}/.probe-{os.getpid()}"
    try:
        storage.write(name, b"")
        with contextlib.suppress(OSError):
            storage.filesystem.delete_file(storage.path(name))
    except OSError as error:
        raise ValueError(f"{storage.root} cannot be written to: {error}") from error
