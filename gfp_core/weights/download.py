"""One file from the first of its sources that gives it, verified before anything uses it.

What huggingface_hub is asked for are its public parts below `hf_hub_download`: the metadata of a
file, its address, and its HTTP session. `hf_hub_download` itself throws away what had come when a
download stops, puts a file into its cache before a hash can be compared, and waits without end for
a source that sends a byte now and then. So its settings hold (HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, proxies, time limits), its progress bar shows, and what lies in its cache is used
(see `store`), but a download is kept here until its SHA-256 is right.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import __version__
from ..io.atomic import is_disk_full
from . import WeightsError
from .catalogue import LARGEST, Entry, Source
from .files import open_part, remove_foreign
from .hashing import sha256_of

if TYPE_CHECKING:
    from ..faces import Progress

logger = logging.getLogger(__name__)

SPARE = 64 * 2**20
"""Bytes that a download must leave free on the disk."""
MAX_UNKNOWN = 2 * 2**30
"""Bytes that come at most where neither the catalogue nor the source says how many."""
MIN_RATE = 10_000
"""Bytes a second that a source must give, on average over `PATIENCE`."""
PATIENCE = 60.0
"""Seconds over which a source's rate is measured."""
MAX_SECONDS = 12 * 3600.0
"""Seconds that one source gets in all."""
BLOCK = 2**20
"""Most bytes that are written at once, after which progress is reported and may cancel."""
_SPACE_EVERY = 64 * 2**20  # bytes after which free space is looked at again

_BY_STATUS = {
    401: "access denied (401): it needs a token (HF_TOKEN), or is not there",
    403: "access denied (403): accept its terms on its page, with a token (HF_TOKEN)",
    404: "not there (404)",
    429: "too many requests (429): try again later, or set HF_TOKEN",
}

_OTHER = "it holds another file: the SHA-256 is not the one in the catalogue"
# Names of the errors of a connection that was there, in requests, urllib3, httpx and httpx2.
_BROKEN = re.compile("Timeout|ProtocolError|ReadError|IncompleteRead|ChunkedEncoding|_CutError")
# Variables that name files with certificates, for the HTTP clients and OpenSSL.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class _Unusable(Exception):  # noqa: N818 -- a reason to go on with the next source
    """This source does not give the file; says why."""


class _Spoiled(_Unusable):
    """What was there before, and has been thrown away, may be to blame."""


def download(
    entry: Entry,
    sources: Sequence[Source],
    part_path: Callable[[Source], Path],
    progress: Progress | None = None,
) -> tuple[Path, Source]:
    """Download a file from the first source that gives it.

    What an interrupted download left in its part file is gone on from, also from another source.

    Args:
        entry: the file.
        sources: where to look, in order.
        part_path: gives the path of the part file for what a source holds.
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
        path = part_path(source)
        remove_foreign(path)
        if _is_complete(path, size, sha256):
            return path, source
        try:
            try:
                _transfer(source, path, size, sha256, progress)
            except _Spoiled as error:
                logger.warning("%s: %s; once more from the beginning.", source, error)
                _transfer(source, path, size, sha256, progress)
            return path, source
        except _Unusable as error:
            logger.warning("%s is not available from %s: %s", entry.file, source, error)
            failures.append(f"{source}: {error}")
    raise WeightsError("no source gives it:\n" + "\n".join(f"  {line}" for line in failures))


def expected(entry: Entry, source: Source) -> tuple[int | None, str | None]:
    """Give size in bytes and SHA-256 of what a source of a file must hold, as far as known."""
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


def _is_complete(path: Path, size: int | None, sha256: str) -> bool:
    """Tell whether a part file of an earlier run is whole; one that cannot be right is removed."""
    if not path.exists():
        return False
    size_so_far = path.stat().st_size
    if size is not None and size_so_far < size:
        return False
    if sha256_of(path) == sha256:
        return True
    if size is not None:
        path.unlink()
    return False


def _transfer(
    source: Source, path: Path, size: int | None, sha256: str, progress: Progress | None
) -> None:
    """Fill a part file from a source and verify it.

    Raises:
        _Unusable: the source does not give the right file. The part file is gone if its content
            was wrong, and stays if it is only not complete.
        WeightsError: the disk is full.
    """
    url, headers, source_size = _address(source, sha256)
    if size is not None and source_size not in (None, size):
        raise _Unusable(f"it holds another file: {source_size} bytes instead of {size}")
    size = size or source_size
    done = path.stat().st_size if path.exists() else 0
    check_space(path.parent, 0 if size is None else size - done)
    with open_part(path) as file:
        receiver = _Receiver(file, path.parent, size, progress)
        failure = _fetch(url, receiver, done, headers)
        while failure is not None and file.tell() > done and _is_passing(failure):
            logger.warning("%s: %s", source, _reason(failure))
            done = file.tell()
            failure = _fetch(url, receiver, done, headers)
    if isinstance(failure, WeightsError) or is_disk_full(failure):
        path.unlink()
        if isinstance(failure, WeightsError):
            raise failure
        raise WeightsError(
            f"{path.parent}: the disk is full; make room, or name another folder in GFP_WEIGHTS_DIR"
        ) from failure
    if failure is not None:
        wrong = isinstance(failure, _WrongSizeError) or _status(failure) == 416
        if wrong or path.stat().st_size == 0:
            path.unlink()
        raise (_Spoiled if wrong and done else _Unusable)(_reason(failure)) from failure
    if sha256_of(path) != sha256:
        path.unlink()
        raise (_Spoiled if done else _Unusable)(_OTHER)


def _address(source: Source, sha256: str) -> tuple[str, dict[str, str], int | None]:
    """Give a source's address, the headers to ask with, and the size if the source says it.

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
        metadata = hub.get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, **agent)
    except Exception as error:  # of the library or of the HTTP client below it, which has changed
        raise _Unusable(_reason(error)) from error
    # The tag of a large file is its hash: what is wrong is known before it is downloaded.
    if metadata.etag is not None and len(metadata.etag) == 64 and metadata.etag != sha256:
        raise _Unusable(_OTHER)
    return url, build_hf_headers(**agent), metadata.size or None


def _fetch(url: str, receiver: _Receiver, done: int, headers: dict[str, str]) -> Exception | None:
    """Transfer the rest of a file; returns what went wrong, if anything.

    Raises:
        Whatever ``progress`` raises to cancel.
    """
    from huggingface_hub.utils import hf_raise_for_status

    # As it is: a server that packed it would say another size, and could not go on at a byte.
    headers = {**headers, "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        with _responding(url, headers) as (response, blocks):
            hf_raise_for_status(response)
            if done and response.status_code == 200:  # the server knows no ranges
                receiver.restart()
                done = 0
            receiver.expect(done, response.headers.get("Content-Length"))
            with _bar(url, done, receiver.size) as bar:
                for block in blocks:
                    for start in range(0, len(block), BLOCK):
                        bar.update(receiver.write(block[start : start + BLOCK]))
            receiver.check_complete()
    except Exception as error:  # of the HTTP client below huggingface_hub, or of the disk
        if receiver.cancelled is not None:
            raise receiver.cancelled from None
        return error
    return None


@contextmanager
def _responding(url: str, headers: dict[str, str]) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """Open an answer, and its bytes as they come, from huggingface_hub's session.

    That is of httpx or its successor, before version 1 of requests.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if not callable(getattr(session, "stream", None)):  # a requests.Session has a flag of that name
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            read = getattr(response.raw, "read1", None)  # of urllib3 2: what has come
            if read is None:
                yield response, response.iter_content(1024)  # small: it waits until one is full
            else:
                yield response, iter(lambda: read(BLOCK), b"")
        return
    with session.stream(
        "GET", url, headers=headers, timeout=timeout, follow_redirects=True
    ) as response:
        yield response, response.iter_bytes()


def _bar(url: str, done: int, size: int | None) -> Any:
    """Make the progress bar of huggingface_hub, shown on terminals unless that forbids it."""
    from huggingface_hub.utils import are_progress_bars_disabled, tqdm

    quiet = sys.stderr is None or are_progress_bars_disabled()
    return tqdm(
        desc=url.rsplit("/", 1)[-1][-40:],
        initial=done,
        total=size,
        unit="B",
        unit_scale=True,
        disable=True if quiet else None,
    )


class _WrongSizeError(OSError):
    """The file that comes has another size."""


class _CutError(OSError):
    """The connection ended before the file did."""


class _TooSlowError(OSError):
    """The source is slower than it may be."""


class _Receiver:
    """A part file that lets nothing past its size, holds the source to a rate, and reports."""

    def __init__(
        self, file: IO[bytes], folder: Path, size: int | None, progress: Progress | None
    ) -> None:
        self._file, self._folder, self._progress = file, folder, progress
        self.size = size
        self.cancelled: BaseException | None = None
        self._begun = self._window = time.monotonic()
        self._in_window = self._since_space = 0

    def restart(self) -> None:
        """Throw away what is there."""
        self._file.seek(0)
        self._file.truncate()

    def expect(self, done: int, length: str | None) -> None:
        """Hear how many bytes will come after the first ``done``.

        Raises:
            _WrongSizeError: too many or too few.
            WeightsError: there is no room for them.
        """
        if length is None or not length.isdecimal():
            return
        total = done + int(length)
        if self.size is not None and total != self.size:
            raise _WrongSizeError(f"it holds another file: {total} bytes instead of {self.size}")
        if total > LARGEST:
            raise _WrongSizeError(f"it holds {total} bytes, which no weights of faces have")
        self.size = total
        check_space(self._folder, total - done)

    def write(self, data: bytes) -> int:
        """Append bytes.

        Raises:
            _WrongSizeError: more come than the file has.
            _TooSlowError: the source is too slow.
            WeightsError: the disk is filling up.
        """
        done = self._file.tell() + len(data)
        limit = self.size or MAX_UNKNOWN
        if done > limit:
            raise _WrongSizeError(f"more than {limit} bytes come")
        self._check_pace(len(data))
        self._since_space += len(data)
        if self._since_space >= _SPACE_EVERY:
            self._since_space = 0
            check_space(self._folder, 0)
        written = self._file.write(data)
        self._file.flush()
        if self._progress is not None:
            try:
                self._progress(done, self.size or done)
            except BaseException as error:
                self.cancelled = error
                raise
        return written

    def check_complete(self) -> None:
        """Hear that no more bytes come.

        Raises:
            _CutError: there should be more.
        """
        if self.size is not None and self._file.tell() < self.size:
            raise _CutError(f"{self._file.tell()} of {self.size} bytes came")

    def _check_pace(self, count: int) -> None:
        now = time.monotonic()
        self._in_window += count
        if now - self._begun > MAX_SECONDS:
            raise _TooSlowError(f"not done in {MAX_SECONDS / 3600:.0f} hours")
        if now - self._window > PATIENCE:
            rate = self._in_window / (now - self._window)
            if rate < MIN_RATE:
                raise _TooSlowError(f"too slow ({rate / 1000:.1f} kB a second)")
            self._window, self._in_window = now, 0


def _is_passing(error: Exception) -> bool:
    """Tell whether an error is of the connection, so that the transfer may go on."""
    return _status(error) is None and _BROKEN.search(_kinds([error])) is not None


def _kinds(chain: Sequence[BaseException]) -> str:
    """Name the classes of errors: huggingface_hub has changed its HTTP client twice."""
    return " ".join(base.__name__ for error in chain for base in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    """Say what went wrong, in a line for people."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    status = next((code for link in chain if (code := _status(link)) is not None), None)
    if status is not None:
        return _BY_STATUS.get(status, f"the server fails ({status}); try again later")
    kinds = _kinds(chain)
    detail = (str(error).splitlines() or [""])[0][:150]
    if isinstance(error, (_WrongSizeError, _TooSlowError)):
        return detail
    missing = [name for name in _CERTIFICATES if not os.path.exists(os.environ.get(name) or "/")]
    if missing:
        return (
            f"the variable {missing[0]} names certificates that are not there "
            f"({os.environ[missing[0]]}): correct or unset it"
        )
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
    """Tell whether huggingface_hub has been told to stay offline (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
