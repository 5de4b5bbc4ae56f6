"""What is said on standard error and standard output, and how: the log, bars, printed lines.

What a run says never decides over its work: where standard error is closed or full, messages are
lost and the work goes on. Standard output is different: a command that prints its result ends
where nobody takes it (`OutputLost`).
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from .exit_codes import OutputLost

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..faces import Progress

logger = logging.getLogger(__name__)

# Control characters (C0 but for tab and line feed, DEL, C1), marks that turn the direction of
# writing, and halves of surrogate pairs: names of files may hold them, terminals obey them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object) -> str:
    r"""Return a text without what a terminal would obey: an escape stands as ``\x1b``."""
    return _UNSAFE.sub(lambda match: _escaped(match[0]), str(text))


def printable_name(path: object) -> str:
    """Return a file's name on one line, see `printable`."""
    return printable(path).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def say(text: object = "") -> None:
    """Print a line on standard output.

    Raises:
        OutputLost: nobody takes it; without words where the reader has seen enough.
    """
    stream = sys.stdout
    if stream is None:
        return
    # A file's name may hold what the terminal cannot show.
    encoding = getattr(stream, "encoding", None) or "utf-8"
    encoded = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    with _output():
        stream.write(encoded + "\n")


def flush_output() -> None:
    """Write out what was printed; errors as `say`."""
    if sys.stdout is not None:
        with _output():
            sys.stdout.flush()


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever reads has seen enough
        _discard(sys.stdout)
        raise OutputLost from None
    except OSError as error:
        _discard(sys.stdout)
        raise OutputLost(
            f"standard output cannot be written ({error.strerror}); direct it elsewhere"
        ) from error


def open_streams() -> None:
    """Give the three standard streams somewhere to lead to where they are closed.

    Otherwise the next file opened takes the number of one, and what a C library says of a broken
    picture is written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The least free number is the one that is closed.
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # without a console, too: pythonw, a service
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _discard(stream: Any) -> None:
    """Let a stream lead nowhere, so that the interpreter's end does not stumble over it."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _ErrorStream:
    """Standard error, where that takes what is written; else nowhere."""

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def fileno(self) -> int:
        return int(sys.stderr.fileno())

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def _try(self, name: str, *arguments: str) -> Any:
        stream = sys.stderr
        try:
            return getattr(stream, name)(*arguments)
        except UnicodeError:
            text = arguments[0].encode(self.encoding, "backslashreplace").decode(self.encoding)
            return self._try(name, text)
        except (OSError, ValueError, AttributeError):  # closed, full, or none at all
            _discard(stream)
            return None


STDERR = _ErrorStream()
"""Standard error, which never fails."""


class Console(logging.Handler):
    """Shows the library's log on standard error, above the bar, with the file it speaks of.

    Several files are worked on at once, each step in a thread of its own: what is said of a file
    waits until all is said of those before.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        """Make a console.

        Args:
            quiet: shows errors only, and no bar.
            verbose: shows everything.
        """
        super().__init__(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
        self.quiet, self.verbose = quiet, verbose
        self._thread = threading.local()  # its `file`: number and path of that of the thread
        self._turn = 0  # number of the first file that is not finished
        self._waiting: defaultdict[int, list[tuple[logging.LogRecord, Path | None]]] = defaultdict(
            list
        )
        self._levels: list[tuple[logging.Logger, int]] = []

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Console:
        """The console that the flags ask for."""
        quiet, verbose = getattr(arguments, "quiet", False), getattr(arguments, "verbose", False)
        return cls(quiet=quiet, verbose=verbose)

    def __enter__(self) -> Console:
        logging.captureWarnings(True)
        names = [__package__.partition(".")[0]] + ["py.warnings"] * self.verbose
        for name in names:
            source = logging.getLogger(name)
            self._levels.append((source, source.level))
            source.addHandler(self)
            source.setLevel(self.level)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for source, level in self._levels:
            source.removeHandler(self)
            source.setLevel(level)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message, or keep it until the files before have had their say.

        Called under the handler's lock, as is usual.
        """
        number, file = getattr(self._thread, "file", (self._turn, None))
        if number > self._turn:
            self._waiting[number].append((record, file))
        else:
            self._show(record, file)

    def error(self, message: str) -> None:
        """Show an error."""
        logger.error("%s", message)

    @contextmanager
    def speaking_of(self, number: int, file: Path) -> Iterator[None]:
        """Let this thread's messages be about a file, the ``number``-th of the run."""
        self._thread.file = number, file
        try:
            yield
        finally:
            del self._thread.file

    def begin(self, number: int = 0) -> None:
        """Let the messages about the files before the ``number``-th one, and about this, out."""
        with cast(threading.RLock, self.lock):
            self._turn = number
            for record, file in self._waiting.pop(number, ()):
                self._show(record, file)

    @contextmanager
    def bar(self, **options: Any) -> Iterator[tqdm[Any]]:
        """A bar on standard error, on a terminal only; ``options`` are tqdm's."""
        from tqdm import tqdm

        with tqdm(
            file=STDERR,
            disable=True if self.quiet else None,  # None: shown on a terminal only
            leave=False,
            **options,
        ) as bar:
            yield bar

    @contextmanager
    def progress(self, unit: str, first: int = 0) -> Iterator[Progress]:
        """A bar for one long task, as the ``progress`` that it takes.

        Args:
            unit: what is counted.
            first: what was done before.
        """
        with self.bar(unit=f" {unit}", initial=first) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield progress

    def _show(self, record: logging.LogRecord, file: Path | None) -> None:
        from tqdm import tqdm

        message = self.format(record)
        if file is not None:
            message = with_name(file, message)
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        tqdm.write(printable(message), file=STDERR)


def with_name(file: Path, message: str) -> str:
    """Return a message that names its file, once."""
    name = printable_name(file)
    message = message.replace(str(file), name)
    return message if name in message else f"{name}: {message}"


def count(number: int, noun: str) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
