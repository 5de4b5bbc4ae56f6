"""``gfp``: from the words of a command line to its exit code.

Nothing heavy is imported before it is needed: ``gfp --help`` must not wait for PyTorch.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from .. import __version__
from ..dependencies import PACKAGES
from . import (
    bench,
    compare,
    detect,
    evaluate,
    export,
    learn,
    options,
    prepare,
    queue,
    restore,
    scale,
    setup,
    train,
    weights,
)
from .console import STDERR, Console, flush_output, open_streams, say
from .exit_codes import INTERRUPTED, USAGE, Stop
from .flags import Parser

COMMANDS = (
    restore,
    learn,
    detect,
    compare,
    options,
    weights,
    setup,
    scale,
    queue,
    bench,
    prepare,
    train,
    export,
    evaluate,
)
"""The modules of the commands, in the order of the help; each has ``add_parser``."""


class Terminated(KeyboardInterrupt):
    """A signal asks the program to end; works like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Ended by {signal.Signals(number).name}")
        self.code = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind ``gfp``; by default what the program was called with.

    Returns:
        The exit code, see `exit_codes`: 0 all done, 1 some files failed, 2 wrong usage, 3 disk
        full, 130 and other codes above 128 for the signal that ended the run.
    """
    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _signals():
            code = _run(words)
            flush_output()
    except Stop as stop:  # of printing: nobody takes what is said
        if str(stop):
            STDERR.write(f"error: {stop}\n")
        return stop.code
    except KeyboardInterrupt as interrupt:
        STDERR.write(f"{str(interrupt) or 'Interrupted'}.\n")
        return int(getattr(interrupt, "code", INTERRUPTED))
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run`` to its function.

    Such a function takes the parsed arguments and the `Console`, and returns the exit code.
    """
    parser = Parser(prog="gfp", description="Face restoration with a generative facial prior.")
    parser.add_argument(
        "--version",
        action="store_true",
        help="print the version; with --verbose also what it runs on, for a report of a fault",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    talk = argparse.ArgumentParser(add_help=False)
    talk.add_argument(
        "--no-download", action="store_true", help="fail rather than download weights"
    )
    amount = talk.add_mutually_exclusive_group()
    amount.add_argument("-q", "--quiet", action="store_true", help="say errors only")
    amount.add_argument("-v", "--verbose", action="store_true", help="say everything")
    for module in COMMANDS:
        module.add_parser(commands, talk)
    return parser


def _run(words: Sequence[str]) -> int:
    if "--version" in words and set(words) <= {"--version", "--verbose", "-v"}:
        return _version(verbose=len(set(words)) > 1)
    try:
        arguments = build_parser().parse_args(words)
    except SystemExit as stop:  # --help, and wrong usage
        return stop.code if isinstance(stop.code, int) else USAGE
    # Before OpenCV is imported: what it says of a broken file, the error says better.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    with Console.of(arguments) as console:
        try:
            run: Callable[[argparse.Namespace, Console], int] = arguments.run
            return run(arguments, console)
        except Stop as stop:
            if str(stop):
                console.error(str(stop))
            return stop.code
        except ImportError as error:
            console.error(_advice(error))
            return USAGE


def _version(*, verbose: bool) -> int:
    say(f"gfp {__version__}")
    if verbose:
        from .about import lines

        for line in lines():
            say(line)
    return 0


def _advice(error: ImportError) -> str:
    """Say what helps where a package or a library of the system is missing."""
    reason = str(error)
    if "libGL" in reason or "libgthread" in reason:
        return (
            f"OpenCV cannot be loaded ({reason}): install the system's package libgl1, or "
            "opencv-python-headless in place of opencv-python"
        )
    if error.name in PACKAGES:
        return f"{error.name} is missing: run `gfp setup` once, which lays it over nothing"
    return f"a package cannot be loaded ({reason}): install it, or install this program anew"


@contextmanager
def _signals() -> Iterator[None]:
    """Let signals that end the program work like Ctrl-C, so that nothing is left half done.

    A signal that is ignored, as ``nohup`` has it, stays so.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                handlers[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
