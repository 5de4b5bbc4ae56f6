"""``gfp setup``."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ..dependencies import commands, install
from .console import Console, say
from .exit_codes import FAILED, OK


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "setup",
        parents=[talk],
        help="install what is missing, over nothing that is there",
        description="Install OpenCV, the parsing networks and the default detector's weights where "
        "they are missing, with pip. An OpenCV or ONNX Runtime that is there stays as it is.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Install; with ``--no-download`` only say what would be installed."""
    missing = commands()
    if not missing:
        say("Nothing is missing.")
        return OK
    if arguments.no_download:
        for command in missing.values():
            say(shlex.join(command))
        return OK
    return FAILED if install() else OK
