"""The weights of this machine: found where they lie, or fetched, and then kept as safetensors.

The search goes from near to far: what is bundled, the user's model folders, the cache of
huggingface_hub, and, if that is allowed, the sources of the catalogue. A file of another pack is
found by its content, whatever its name, and used where it is.

A hash is all that is believed: a file's is that of the official file, or that of a converted file
which the catalogue has or which was made here (see `hashing.HashMemory`). What a file says of
itself counts for nothing.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..io.atomic import commit
from . import WeightsError, get_command
from .catalogue import BUILT_IN, Catalogue, Entry, Source, read_catalogue
from .download import check_space, download, is_offline
from .files import is_regular, open_regular, remove_foreign, walk
from .hashing import HashMemory, sha256_of
from .settings import Settings, cache_folder

if TYPE_CHECKING:
    from ..faces import Progress

logger = logging.getLogger(__name__)

STAGING = ".gfp-download"
"""Folder, in a folder of weights, for what is not complete yet."""
_STALE = 7 * 86_400  # seconds without a change, after which no download goes on from a part file
_HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors format itself


class Weights:
    """Finds and fetches weights by their name in the catalogue."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Read the catalogue; nothing is searched or fetched yet.

        Args:
            settings: by default those of the environment and the user's file.

        Raises:
            WeightsError: the settings or the user's catalogue are wrong; with settings that are
                not strict only when weights are asked for that are not bundled.
        """
        self.settings = Settings.load() if settings is None else settings
        self.problem = self.settings.problem
        """What is wrong with the user's settings or catalogue; empty if nothing is."""
        user_files = [self.settings.catalogue_file] if self.settings.catalogue_file else []
        try:
            self.catalogue: Catalogue = read_catalogue(BUILT_IN, *user_files)
            """All rows, whatever their terms."""
        except WeightsError as error:
            if self.settings.strict:
                raise
            self.problem = str(error)
            self.catalogue = read_catalogue(BUILT_IN)
        if self.problem:
            _report_once(self.problem)
        cache = cache_folder()
        self.hashes = HashMemory(None if cache is None else cache / "hashes.json")

    @property
    def offered(self) -> Catalogue:
        """The rows that the settings allow to be used."""
        return self.catalogue.for_commerce() if self.settings.commercial_only else self.catalogue

    def find(self, name: str) -> Entry:
        """Find the row of the catalogue called ``name``.

        Raises:
            WeightsError: there is none, the settings hide it, or they are wrong.
        """
        entry = self.catalogue.find(name)
        if name in entry.old_names:
            _say_replaced(name, entry.name)
        if self.problem and not entry.bundled:
            raise WeightsError(self.problem)
        if entry not in self.offered.entries:
            visible = [row.name for row in self.offered.entries if row.role == entry.role]
            raise WeightsError(
                f"{entry.name} is hidden by the setting commercial_only: commercial use is "
                f"{entry.commercial} ({entry.reason}); it leaves {', '.join(visible) or 'none'}. "
                "Whoever has cleared them says so in a catalogue of their own: "
                'commercial = "yes", and the reason'
            )
        return entry

    def substitute(self, name: str) -> str:
        """Name what is used in place of a default that the setting commercial_only hides.

        Returns:
            The name of the row's `Entry.substitute`, which a log line says; ``name`` where there is
            none, or nothing is hidden.
        """
        entry = self.catalogue.find(name)
        offered = {row.name for row in self.offered.entries}
        if entry.name in offered or entry.substitute not in offered:
            return name
        _say_substituted(entry, entry.substitute)
        return entry.substitute

    def by_hash(self, digest: str) -> Entry | None:
        """Find the row of the catalogue, hidden or not, whose file has this SHA-256, if one has.

        The file may be the official one, the one converted from it, or a bundled one.
        """
        source = self.hashes.source_of(digest)
        for entry in self.catalogue.entries:
            if digest in (entry.sha256, entry.converted_sha256):
                return entry
            if source is not None and source == entry.sha256:
                return entry
            bundled = BUILT_IN.with_name(entry.file)
            if entry.bundled and bundled.is_file() and self.hashes.sha256_of(bundled) == digest:
                return entry
        return None

    def locate(self, name: str) -> Path | None:
        """Find a usable file of these weights on this machine; None if there is none.

        Raises:
            WeightsError: the catalogue has no such row, or the settings hide it.
        """
        entry = self.find(name)
        if entry.bundled:
            path = BUILT_IN.with_name(entry.file)
            return path if path.is_file() else None
        for folder in self.settings.folders:
            in_folder = self._in_folder(entry, folder)
            if in_folder is not None:
                return in_folder
        return self._in_hub_cache(entry)

    def get(self, name: str, *, progress: Progress | None = None) -> Path:
        """Give a usable file of these weights, downloaded and converted if need be.

        Another process that fetches the same file is waited for.

        Args:
            name: of the weights, see `catalogue.Entry.is_called`.
            progress: called with (bytes done, bytes in all) while downloading; may raise to cancel.

        Returns:
            A safetensors file, an ONNX or TensorFlow Lite file, or a checkpoint of another pack.

        Raises:
            WeightsError: they are not available; says why, and how to put the file in place by
                hand.
        """
        entry = self.find(name)
        path = self.locate(entry.name)
        if path is not None:
            return path
        try:
            return self._fetch(entry, progress)
        except WeightsError as error:
            raise WeightsError(f"{entry.name}: {error}\n{self.by_hand(entry)}") from error

    def convert(self, name: str) -> Path:
        """Give a safetensors file of these weights: the one there is, or one made from theirs.

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
        converted = folder / STAGING / entry.usable_file
        convert(source, converted, entry)
        digest = sha256_of(converted)
        commit(converted, folder / entry.usable_file)
        if entry.sha256 is not None:
            self.hashes.remember_source(digest, entry.sha256)
        return folder / entry.usable_file

    def verify(self, name: str) -> Path | None:
        """Read a file again from end to end and check its bytes, and what they hold.

        Returns:
            The file; None if there is none on this machine.

        Raises:
            WeightsError: the file is damaged, or another under that name; says what to do.
        """
        entry = self.find(name)
        path = self.locate(entry.name)
        if path is None:
            self._refuse_others(entry)
            return None
        digest = sha256_of(path)
        if not (entry.bundled or entry.sha256 is None or self._is_trusted(entry, digest)):
            raise WeightsError(_damaged(entry, path, digest))
        if entry.format == "tfjs":
            from .loading import load_descriptor

            load_descriptor(path)
        elif entry.format not in ("onnx", "tflite"):
            from .convert import check_architecture
            from .loading import load_state_dict

            check_architecture(load_state_dict(path)[0], entry.architecture, path)
        self.hashes.remember(path, digest)
        return path

    def _refuse_others(self, entry: Entry) -> None:
        """Speak of files that have the name of a row but not its content.

        Raises:
            WeightsError: there is one.
        """
        for folder in self.settings.folders:
            for path in walk(folder):
                if _has_name(path, (entry.usable_file, *entry.file_names)):
                    raise WeightsError(_damaged(entry, path, self.hashes.sha256_of(path)))

    def _is_trusted(self, entry: Entry, digest: str) -> bool:
        """Whether content of this hash is the official file's, or was converted from that."""
        if digest in (entry.sha256, entry.converted_sha256):
            return True
        return entry.sha256 is not None and self.hashes.source_of(digest) == entry.sha256

    def by_hand(self, entry: Entry) -> str:
        """Say how to put a file in place by hand."""
        if entry.bundled:
            return "It comes with this package: install that again."
        hash_ = f"SHA-256 {entry.sha256}" if entry.sha256 else "its SHA-256 is not known"
        size = f", {entry.size} bytes" if entry.size else ""
        links = "".join(f"\n  {_link(source)}" for source in entry.sources)
        folders = self.settings.folders
        folder = f"the folder {folders[0]}" if folders else "a folder named by GFP_WEIGHTS_DIR"
        origin = f", from one of{links}" if links else f" ({entry.origin or 'no source is known'})"
        published = {source.path.split("/")[-1] for source in entry.sources if source.path}
        named = not published or published & set(entry.file_names)
        name = entry.file if named else f"{min(published)} as {entry.file}"
        return f"By hand: download {name} ({hash_}{size}) into {folder}{origin}"

    def sources(self, entry: Entry) -> list[Source]:
        """List where a file can be downloaded, in the order of trial."""
        repo = self.settings.hub_repo
        own = [Source(repo=repo, path=entry.usable_file, converted=True)]
        return [*(own if repo and entry.format == "pytorch" else []), *entry.sources]

    def target_folder(self) -> Path:
        """Give the first folder that can be written, made if it is missing.

        Raises:
            WeightsError: none can.
        """
        reasons = []
        for folder in self.settings.folders:
            staging = folder / STAGING
            try:
                staging.mkdir(parents=True, exist_ok=True)
                if staging.is_symlink():
                    raise OSError(None, f"{STAGING} in it is a link, which is not followed")
                if not os.access(staging, os.W_OK, effective_ids=_EFFECTIVE):
                    raise PermissionError(None, "Permission denied")
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror or error}")
                logger.debug("%s cannot be written: %s", folder, error)
                continue
            if reasons:
                logger.warning("%s. Downloads go to %s instead.", "; ".join(reasons), folder)
            return folder
        raise WeightsError(
            f"no folder of weights can be written ({'; '.join(reasons) or 'none is set'}); name "
            "one in GFP_WEIGHTS_DIR"
        )

    def _in_folder(self, entry: Entry, folder: Path) -> Path | None:
        paths = list(walk(folder))
        if entry.format == "pytorch":
            for path in paths:
                if _has_name(path, (entry.usable_file,)) and self._is_converted(entry, path):
                    return path
        return next((path for path in paths if self._is_original(entry, path)), None)

    def _is_converted(self, entry: Entry, path: Path) -> bool:
        """Whether a file is this row's, made by the conversion here or downloaded as such."""
        if entry.sha256 is None:
            _say_unverified(entry, path)
            return True
        digest = self._hash(path)
        if digest is None:
            return False
        if not self._is_trusted(entry, digest):
            logger.warning(
                "%s is not used: that it was made from %s is not known here. Delete it, or, if you "
                'trust where it comes from, write converted_sha256 = "%s" into a row %r of your '
                "catalogue (docs/weights.md).",
                *(path, entry.file, digest, entry.name),
            )
            return False
        return True

    def _is_original(self, entry: Entry, path: Path) -> bool:
        """Whether a file is this row's, by size and hash; by its name where these are not known."""
        named = _has_name(path, entry.file_names)
        if entry.sha256 is None:
            if named:
                _say_unverified(entry, path)
            return named
        try:
            if not named and (entry.size is None or path.stat().st_size != entry.size):
                return False
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error.strerror or error)
            return False
        same = self._hash(path) == entry.sha256
        if named and not same:
            logger.warning(
                "%s has the name but not the content of %s: it is not used.", path, entry.file
            )
        return same

    def _hash(self, path: Path) -> str | None:
        """The SHA-256 of a file; None, with a line in the log, if it cannot be read."""
        try:
            return self.hashes.sha256_of(path)
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error.strerror or error)
            return None

    def _in_hub_cache(self, entry: Entry) -> Path | None:
        """A file that huggingface_hub downloaded for someone else."""
        from huggingface_hub import try_to_load_from_cache

        for source in self.sources(entry):
            if source.url:
                continue
            cached = try_to_load_from_cache(
                source.repo, source.path, revision=source.revision, repo_type=source.repo_type
            )
            expected = entry.converted_sha256 if source.converted else entry.sha256
            if isinstance(cached, str) and expected is not None and is_regular(cached):
                if self._hash(Path(cached)) == expected:
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
            _sweep(folder / STAGING)
            with _lock(folder / STAGING / f"{entry.name}.lock", progress):
                # Another process may have fetched it while this one waited.
                return self.locate(entry.name) or self._fetch_locked(entry, folder, progress)
        except OSError as error:
            raise WeightsError(f"{folder}: cannot be written: {error.strerror or error}") from error

    def _fetch_locked(self, entry: Entry, folder: Path, progress: Progress | None) -> Path:
        staging, target = folder / STAGING, folder / entry.usable_file

        def part_path(source: Source) -> Path:
            kind = ".converted" if source.converted else ""
            return staging / f"{entry.name}{kind}.part"

        # A part of this name may be of other weights, if the user's catalogue has changed; then
        # the hash is wrong and it is downloaded anew.
        complete, source = download(entry, self.sources(entry), part_path, progress)
        if source.converted or entry.format != "pytorch":
            commit(complete, target)
        else:
            self._convert(entry, complete, folder)
        for leftover in (part_path(Source()), part_path(Source(converted=True))):
            leftover.unlink(missing_ok=True)
        self.hashes.remember(target, sha256_of(target))
        logger.info("%s is now in %s.", entry.name, target)
        return target


@functools.cache
def _report_once(problem: str) -> None:
    logger.error("%s; until that is mended only bundled weights are used.", problem)


@functools.cache  # once in a process, which may ask for each frame
def _say_replaced(old: str, new: str) -> None:
    logger.warning("%s is an old name: %s, which has taken its place, is used.", old, new)


@functools.cache
def _say_substituted(entry: Entry, name: str) -> None:
    logger.warning(
        "%s is hidden by the setting commercial_only (%s): %s is used in its place.%s",
        *(entry.name, entry.reason, name),
        " Its angles are larger: choose --people-limit and --identity-limit for it."
        if entry.role == "embedder"
        else "",
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file without its tensors; empty if it has none.

    Also empty if the file is no safetensors file, which loading it will say.
    """
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                return {}
            metadata = json.loads(file.read(length)).get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (OSError, ValueError, struct.error, AttributeError, RecursionError) as error:
        logger.debug("%s: no metadata: %s", path, error)
        return {}


_EFFECTIVE = os.access in os.supports_effective_ids


def _has_name(path: Path, names: tuple[str, ...]) -> bool:
    return path.name.casefold() in {name.casefold() for name in names}


def _say_unverified(entry: Entry, path: Path) -> None:
    logger.warning("%s is used unverified: the hash of %s is not known.", path, entry.name)


def _damaged(entry: Entry, path: Path, digest: str) -> str:
    return (
        f"{path}: damaged, or another file: its SHA-256 is {digest}, which is neither that of "
        f"{entry.file} ({entry.sha256 or 'not known'}) nor of what was converted from it here; "
        f"delete it, and get it again with: {get_command(entry.name)}"
    )


def _sweep(staging: Path) -> None:
    """Remove parts that no download has gone on from for a week.

    What a killed conversion left is swept by `io.atomic`, at the next.
    """
    for path in staging.glob("*.part"):
        try:
            if time.time() - os.lstat(path).st_mtime > _STALE:
                path.unlink()
                logger.info("%s: left by an earlier run, removed", path)
        except OSError as error:
            logger.debug("%s: %s", path, error)


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

    remove_foreign(path)  # a link would have another file emptied
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
