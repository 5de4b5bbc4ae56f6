"""One file from the first of its sources that gives it, verified before anything uses it.

What huggingface_hub is asked for are its public parts below `hf_hub_download`: the metadata of a
file, its address, and a transfer that can go on at a byte. `hf_hub_download` itself throws away
what had come when a download stops, and puts a file into its cache before a hash can be compared.
So its settings hold (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies, time limits), its progress bar
shows, and what lies in its cache is used (see `store`), but a download is kept here until its
SHA-256 is right.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import __version__
from . import WeightsError
from .catalogue import LARGEST, Entry, Source
from .hashing import sha256_of

if TYPE_CHECKING:
    from ..faces import Progress

logger = logging.getLogger(__name__)

SPARE = 64 * 2**20
"""Bytes that a download must leave free on the disk."""

_BY_STATUS = {
    401: "access denied (401): it needs a token (HF_TOKEN), or is not there",
    403: "access denied (403): accept its terms on its page, with a token (HF_TOKEN)",
    404: "not there (404)",
    429: "too many requests (429): try again later, or set HF_TOKEN",
}

_OTHER = "it holds another file: the SHA-256 is not the one in the catalogue"
# Names of the errors of a connection that was there, in requests, httpx and httpx2.
_BROKEN = re.compile("Timeout|RemoteProtocolError|ReadError|ChunkedEncodingError")


class _Unusable(Exception):  # noqa: N818 -- a reason to go on with the next source
    """This source does not give the file; says why."""


class _Spoiled(_Unusable):
    """What was there before, and has been thrown away, may be to blame."""


def download(
    entry: Entry,
    sources: Sequence[Source],
    part: Callable[[Source], Path],
    progress: Progress | None = None,
) -> tuple[Path, Source]:
    """Download a file from the first source that gives it.

    What an interrupted download left in its part file is gone on from, also from another source.

    Args:
        entry: the file.
        sources: where to look, in order.
        part: gives the path of the part file for what a source holds.
        progress: called with (bytes done, bytes in all); may raise to cancel.

    Returns:
        The part file, which is complete and has the right hash, and the source it is from.

    Raises:
        WeightsError: no source gives it, or the disk is full; lists each source with its reason.
    """
    failures: list[str] = []
    for source in sources:
        size, sha256 = expected(entry, source)
        if sha256 is None:
            failures.append(f"{source}: not asked, for the hash of what it holds is not known")
            continue
        place = part(source)
        if _is_complete(place, size, sha256):
            return place, source
        try:
            try:
                _transfer(source, place, size, sha256, progress)
            except _Spoiled as error:
                logger.warning("%s: %s; once more from the beginning.", source, error)
                _transfer(source, place, size, sha256, progress)
            return place, source
        except _Unusable as error:
            logger.warning("%s cannot be had from %s: %s", entry.file, source, error)
            failures.append(f"{source}: {error}")
    raise WeightsError("no source gives it:\n" + "\n".join(f"  {one}" for one in failures))


def expected(entry: Entry, source: Source) -> tuple[int | None, str | None]:
    """Size in bytes and SHA-256 of what a source of a file must hold, as far as known."""
    if source.converted:
        return entry.converted_size, entry.converted_sha256
    return entry.size, entry.sha256


def check_space(folder: Path, needed: int) -> None:
    """Make sure that a folder's disk has room.

    Raises:
        WeightsError: it has not; says how much is missing.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise WeightsError(
            f"{folder}: the disk has {free / 1e6:.0f} MB free, and {(needed + SPARE) / 1e6:.0f} MB "
            "are needed; make room, or name another folder in GFP_WEIGHTS_DIR"
        )


def _is_complete(place: Path, size: int | None, sha256: str) -> bool:
    """Whether a part file of an earlier run is whole; one that cannot be right is removed."""
    if not place.exists():
        return False
    there = place.stat().st_size
    if size is not None and there < size:
        return False
    if sha256_of(place) == sha256:
        return True
    if size is not None:
        place.unlink()
    return False


def _transfer(
    source: Source, place: Path, size: int | None, sha256: str, progress: Progress | None
) -> None:
    """Fill a part file from a source and verify it.

    Raises:
        _Unusable: the source does not give the right file. The part file is gone if its content
            was wrong, and stays if it is only not complete.
        WeightsError: the disk is full.
    """
    url, headers, told = _address(source, sha256)
    if size is not None and told not in (None, size):
        raise _Unusable(f"it holds another file: {told} bytes instead of {size}")
    size = size or told
    done = place.stat().st_size if place.exists() else 0
    check_space(place.parent, 0 if size is None else size - done)
    with place.open("ab") as file:
        receiver = _Receiver(file, size, progress)
        failed = _fetch(url, receiver, done, headers, size)
        while failed is not None and file.tell() > done and _is_passing(failed):
            logger.warning("%s: %s", source, _reason(failed))
            done = file.tell()
            failed = _fetch(url, receiver, done, headers, size)
    if failed is not None:
        if isinstance(failed, OSError) and failed.errno in (errno.ENOSPC, errno.EDQUOT):
            place.unlink()
            raise WeightsError(
                f"{place.parent}: the disk is full; make room, or name another folder in "
                "GFP_WEIGHTS_DIR"
            ) from failed
        wrong = isinstance(failed, _TooLongError) or _status(failed) == 416
        if wrong or place.stat().st_size == 0:
            place.unlink()
        raise (_Spoiled if wrong and done else _Unusable)(_reason(failed)) from failed
    if sha256_of(place) != sha256:
        place.unlink()
        raise (_Spoiled if done else _Unusable)(_OTHER)


def _address(source: Source, sha256: str) -> tuple[str, dict[str, str], int | None]:
    """Address of a source's file, the headers to ask with, and its size if that is told.

    Raises:
        _Unusable: it is not there, or is another file.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    agent: dict[str, Any] = {"library_name": "gfp-face-restoration", "library_version": __version__}
    if source.url:
        # A stranger to the Hub: it must not see the user's token.
        return source.url, build_hf_headers(token=False, **agent), None
    try:
        url = hub.hf_hub_url(
            source.repo, source.path, repo_type=source.repo_type, revision=source.revision
        )
        told = hub.get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, **agent)
    except Exception as error:  # of the library or of the HTTP client below it, which has changed
        raise _Unusable(_reason(error)) from error
    # The tag of a large file is its hash: what is wrong is known before it is downloaded.
    if told.etag is not None and len(told.etag) == 64 and told.etag != sha256:
        raise _Unusable(_OTHER)
    return url, build_hf_headers(**agent), told.size or None


def _fetch(
    url: str, receiver: _Receiver, done: int, headers: dict[str, str], size: int | None
) -> Exception | None:
    """Let huggingface_hub transfer the rest of a file; returns what went wrong, if anything.

    Raises:
        Whatever ``progress`` raises to cancel.
    """
    from huggingface_hub.file_download import http_get

    try:
        http_get(
            url,
            receiver,  # type: ignore[arg-type]
            resume_size=done,
            headers=headers,
            expected_size=size,
            displayed_filename=url.rsplit("/", 1)[-1],
        )
    except Exception as error:  # of the library or of the HTTP client below it
        if receiver.cancelled is not None:
            raise receiver.cancelled from None
        return error
    return None


class _TooLongError(OSError):
    """More comes than the file has bytes."""


class _Receiver:
    """A part file that lets nothing past its size, and reports progress."""

    def __init__(self, file: IO[bytes], size: int | None, progress: Progress | None) -> None:
        self._file, self._size, self._progress = file, size, progress
        self.cancelled: BaseException | None = None

    def write(self, data: bytes) -> int:
        done = self._file.tell() + len(data)
        if done > (self._size or LARGEST):
            raise _TooLongError(f"more than {self._size or LARGEST} bytes come")
        written = self._file.write(data)
        if self._progress is not None:
            try:
                self._progress(done, self._size or done)
            except BaseException as error:
                self.cancelled = error
                raise
        return written

    def __getattr__(self, name: str) -> Any:  # tell, seek, truncate, flush
        return getattr(self._file, name)


def _is_passing(error: Exception) -> bool:
    """Whether an error is of the connection, so that the transfer may go on."""
    return _status(error) is None and _BROKEN.search(_kinds([error])) is not None


def _kinds(chain: Sequence[BaseException]) -> str:
    """The names of the classes of errors: huggingface_hub has changed its HTTP client twice."""
    return " ".join(base.__name__ for error in chain for base in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    """What went wrong, in a line for people."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    status = next((code for one in chain if (code := _status(one)) is not None), None)
    if status is not None:
        return _BY_STATUS.get(status, f"the server fails ({status}); try again later")
    kinds = _kinds(chain)
    detail = (str(error).splitlines() or [""])[0][:150]
    if "OfflineModeIsEnabled" in kinds:
        return "not asked, for HF_HUB_OFFLINE forbids it"
    if "Timeout" in kinds:
        return "no answer in time (HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT set the limit)"
    if _BROKEN.search(kinds):
        return "the connection broke; the next attempt goes on from there"
    if "ConnectError" in kinds or "ConnectionError" in kinds:
        return f"cannot be reached: {detail}"
    return detail or type(error).__name__


def is_offline() -> bool:
    """Whether huggingface_hub has been told to stay offline (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def move_into_place(part: Path, target: Path) -> None:
    """Put a complete file in place in one step, overwriting.

    Raises:
        OSError: it cannot be done.
    """
    with part.open("r+b") as file:  # Windows wants a file that can be written
        os.fsync(file.fileno())
    part.replace(target)
