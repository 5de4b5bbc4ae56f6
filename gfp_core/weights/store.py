"""The weights of this machine: found where they lie, or fetched, and then kept as safetensors.

The search goes from near to far: what is bundled, the user's model folders, the cache of
huggingface_hub, and, if that is allowed, the sources of the catalogue. A file of another pack is
found by its content, whatever its name, and used where it is.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import WeightsError
from .catalogue import BUILT_IN, Catalogue, Entry, Source, read_catalogue
from .download import check_space, download, is_offline, move_into_place
from .files import is_regular, walk
from .hashing import HashMemory, sha256_of
from .settings import Settings, cache_folder

if TYPE_CHECKING:
    from ..faces import Progress

logger = logging.getLogger(__name__)

STAGING = ".gfp-download"
"""Folder, in a folder of weights, for what is not complete yet."""


class Weights:
    """Finds and fetches weights by their name in the catalogue."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Read the catalogue; nothing is searched or fetched yet.

        Args:
            settings: by default those of the environment and the user's file.

        Raises:
            WeightsError: the settings or the user's catalogue are wrong.
        """
        self.settings = Settings.load() if settings is None else settings
        users = [self.settings.catalogue_file] if self.settings.catalogue_file else []
        self.catalogue: Catalogue = read_catalogue(BUILT_IN, *users)
        """All rows, whatever their terms."""
        self.hashes = HashMemory(cache_folder() / "hashes.json")

    @property
    def offered(self) -> Catalogue:
        """The rows that the settings allow to be used."""
        return self.catalogue.for_commerce() if self.settings.commercial_only else self.catalogue

    def find(self, name: str) -> Entry:
        """The row of the catalogue called ``name``.

        Raises:
            WeightsError: there is none, or the settings hide it.
        """
        entry = self.catalogue.find(name)
        if entry not in self.offered.entries:
            left = [one.name for one in self.offered.entries if one.role == entry.role]
            raise WeightsError(
                f"{entry.name} is hidden by the setting commercial_only: commercial use is "
                f"{entry.commercial} ({entry.reason}); it leaves {', '.join(left) or 'none'}"
            )
        return entry

    def by_hash(self, digest: str) -> Entry | None:
        """The row of the catalogue, hidden or not, whose file has this SHA-256; None if none has.

        The file may be the official one, the one converted from it, or a bundled one.
        """
        for entry in self.catalogue.entries:
            if digest in (entry.sha256, entry.converted_sha256):
                return entry
            bundled = BUILT_IN.with_name(entry.file)
            if entry.bundled and bundled.is_file() and self.hashes.sha256_of(bundled) == digest:
                return entry
        return None

    def locate(self, name: str) -> Path | None:
        """Where a usable file of these weights lies on this machine; None if there is none.

        Raises:
            WeightsError: the catalogue has no such row, or the settings hide it.
        """
        entry = self.find(name)
        if entry.bundled:
            path = BUILT_IN.with_name(entry.file)
            return path if path.is_file() else None
        for folder in self.settings.folders:
            found = self._in_folder(entry, folder)
            if found is not None:
                return found
        return self._in_hub_cache(entry)

    def get(self, name: str, *, progress: Progress | None = None) -> Path:
        """A usable file of these weights, which is downloaded and converted if need be.

        Another process that fetches the same file is waited for.

        Args:
            name: of the weights, see `catalogue.Entry.is_called`.
            progress: called with (bytes done, bytes in all) while downloading; may raise to cancel.

        Returns:
            A safetensors file, an ONNX file, or a checkpoint of another pack.

        Raises:
            WeightsError: they cannot be had; says why, and how to put the file in place by hand.
        """
        entry = self.find(name)
        found = self.locate(entry.name)
        if found is not None:
            return found
        try:
            return self._fetch(entry, progress)
        except WeightsError as error:
            raise WeightsError(f"{entry.name}: {error}\n{self.by_hand(entry)}") from error

    def convert(self, name: str) -> Path:
        """A safetensors file of these weights: the one there is, or one made from what there is.

        Raises:
            WeightsError: the weights are not on this machine, or not of a kind that is converted.
        """
        entry = self.find(name)
        path = self.locate(entry.name)
        if path is None:
            raise WeightsError(f"{entry.name} is not on this machine")
        if path.suffix == ".safetensors":
            return path
        if entry.format != "pytorch":
            raise WeightsError(f"{entry.name}: {path.name} is not converted, but used as it is")
        folder = self.target_folder()
        with _lock(folder / STAGING / f"{entry.name}.lock", None):
            return self._convert(entry, path, folder)

    def _convert(self, entry: Entry, source: Path, folder: Path) -> Path:
        from .convert import convert

        check_space(folder / STAGING, source.stat().st_size)
        converted = folder / STAGING / f"{entry.usable_file}.part"
        convert(source, converted, entry)
        move_into_place(converted, folder / entry.usable_file)
        return folder / entry.usable_file

    def verify(self, name: str) -> Path | None:
        """Read a file again from end to end and check it: its bytes, and what it holds.

        Returns:
            The file; None if there is none on this machine.

        Raises:
            WeightsError: it is damaged; says what to do.
        """
        entry = self.find(name)
        path = self.locate(entry.name)
        if path is None:
            return None
        remembered, digest = self.hashes.remembered(path), sha256_of(path)
        wanted = entry.sha256
        if entry.format == "pytorch" and path.name == entry.usable_file:
            wanted = entry.converted_sha256 or remembered
        if wanted not in (None, digest):
            raise WeightsError(
                f"{path}: damaged: its SHA-256 is {digest} instead of {wanted}; delete it, and "
                f"get it again with: gfp weights get {entry.name}"
            )
        if entry.format == "tfjs":
            from .loading import load_descriptor

            load_descriptor(path)
        elif entry.format != "onnx":
            from .convert import check_architecture
            from .loading import load_state_dict

            check_architecture(load_state_dict(path)[0], entry.architecture, path)
        self.hashes.remember(path, digest)
        return path

    def by_hand(self, entry: Entry) -> str:
        """How to put a file in place by hand."""
        if entry.bundled:
            return "It comes with this package: install that again."
        hash_ = f"SHA-256 {entry.sha256}" if entry.sha256 else "its SHA-256 is not known"
        size = f", {entry.size} bytes" if entry.size else ""
        places = "".join(f"\n  {_link(source)}" for source in entry.sources)
        return (
            f"By hand: download {entry.file} ({hash_}{size}) into the folder "
            f"{self.settings.folders[0]}, from one of{places}"
        )

    def sources(self, entry: Entry) -> list[Source]:
        """Where a file can be downloaded, in the order of trial."""
        repo = self.settings.hub_repo
        own = [Source(repo=repo, path=entry.usable_file, converted=True)]
        return [*(own if repo and entry.format == "pytorch" else []), *entry.sources]

    def target_folder(self) -> Path:
        """The first folder that can be written, which is made if it is missing.

        Raises:
            WeightsError: none can.
        """
        reasons = []
        for folder in self.settings.folders:
            try:
                (folder / STAGING).mkdir(parents=True, exist_ok=True)
                if not os.access(folder / STAGING, os.W_OK, effective_ids=_EFFECTIVE):
                    raise PermissionError(None, "Permission denied")
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror or error}")
                logger.debug("%s cannot be written: %s", folder, error)
                continue
            if reasons:
                logger.warning("%s. Downloads go to %s instead.", "; ".join(reasons), folder)
            return folder
        raise WeightsError(
            f"no folder of weights can be written ({'; '.join(reasons)}); name one in "
            "GFP_WEIGHTS_DIR"
        )

    def _in_folder(self, entry: Entry, folder: Path) -> Path | None:
        converted = folder / entry.usable_file
        if (
            entry.format == "pytorch"
            and is_regular(converted)
            and self._is_converted(entry, converted)
        ):
            return converted
        for path in walk(folder):
            if self._is_original(entry, path):
                return path
        return None

    def _is_converted(self, entry: Entry, path: Path) -> bool:
        """Whether a file is this row's, made by the conversion here or downloaded as such."""
        if read_metadata(path).get("source_sha256") == (entry.sha256 or "") or not entry.sha256:
            return True
        if entry.converted_sha256 and self.hashes.sha256_of(path) == entry.converted_sha256:
            return True
        logger.warning("%s was not made from %s: it is not used.", path, entry.file)
        return False

    def _is_original(self, entry: Entry, path: Path) -> bool:
        """Whether a file is this row's, by size and hash; by its name where these are not known."""
        named = path.name.casefold() in (name.casefold() for name in entry.file_names)
        if entry.sha256 is None:
            if named:
                logger.warning(
                    "%s is used unverified: the hash of %s is not known.", path, entry.name
                )
            return named
        try:
            if not named and (entry.size is None or path.stat().st_size != entry.size):
                return False
            same = self.hashes.sha256_of(path) == entry.sha256
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error.strerror or error)
            return False
        if named and not same:
            logger.warning(
                "%s has the name but not the content of %s: it is not used.", path, entry.file
            )
        return same

    def _in_hub_cache(self, entry: Entry) -> Path | None:
        """A file that huggingface_hub downloaded for someone else."""
        from huggingface_hub import try_to_load_from_cache

        for source in self.sources(entry):
            if source.url:
                continue
            cached = try_to_load_from_cache(
                source.repo, source.path, revision=source.revision, repo_type=source.repo_type
            )
            wanted = entry.converted_sha256 if source.converted else entry.sha256
            if isinstance(cached, str) and wanted is not None:
                if self.hashes.sha256_of(Path(cached)) == wanted:
                    return Path(cached)
                logger.debug("%s is another file than %s", cached, entry.file)
        return None

    def _fetch(self, entry: Entry, progress: Progress | None) -> Path:
        """Download and convert, as the only process that does."""
        if entry.bundled:
            raise WeightsError("its file is missing from the installation")
        if not self.settings.downloads:
            raise WeightsError("not on this machine, and downloads are forbidden (GFP_NO_DOWNLOAD)")
        if is_offline():
            raise WeightsError("not on this machine, and HF_HUB_OFFLINE forbids downloads")
        folder = self.target_folder()
        try:
            with _lock(folder / STAGING / f"{entry.name}.lock", progress):
                # Another process may have fetched it while this one waited.
                return self.locate(entry.name) or self._fetch_locked(entry, folder, progress)
        except OSError as error:
            raise WeightsError(f"{folder}: cannot be written: {error.strerror or error}") from error

    def _fetch_locked(self, entry: Entry, folder: Path, progress: Progress | None) -> Path:
        staging, target = folder / STAGING, folder / entry.usable_file

        def part(source: Source) -> Path:
            kind = ".converted" if source.converted else ""
            return staging / f"{entry.name}{kind}.part"

        # A part of this name may be of other weights, if the user's catalogue has changed; then
        # the hash is wrong and it is downloaded anew.
        complete, source = download(entry, self.sources(entry), part, progress)
        if source.converted or entry.format != "pytorch":
            move_into_place(complete, target)
        else:
            self._convert(entry, complete, folder)
        for other in (part(Source()), part(Source(converted=True))):
            other.unlink(missing_ok=True)
        self.hashes.remember(target, sha256_of(target))
        logger.info("%s is now in %s.", entry.name, target)
        return target


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors; empty if it has none.

    Also empty if the file is no safetensors file, which loading it will say.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:  # the format's own limit
                return {}
            metadata = json.loads(file.read(length)).get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, struct.error, AttributeError, RecursionError) as error:
        logger.debug("%s: no metadata: %s", path, error)
        return {}


_EFFECTIVE = os.access in os.supports_effective_ids


def _link(source: Source) -> str:
    if source.url:
        return source.url
    from huggingface_hub import hf_hub_url

    return hf_hub_url(
        source.repo, source.path, repo_type=source.repo_type, revision=source.revision
    )


@contextmanager
def _lock(path: Path, progress: Progress | None) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when a process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    waited = False
    while True:
        try:
            lock.acquire(timeout=1 if waited else 0)
            break
        except NotImplementedError:
            logger.warning("%s: this disk has no locks; run no second download.", path.parent)
            break
        except Timeout:
            if not waited:
                logger.info("Another process fetches the same file; waiting for it.")
            waited = True
            if progress is not None:
                progress(0, 1)
    try:
        yield
    finally:
        lock.release()
