"""``gfp options``: the options that a command line of ``gfp restore`` means, as TOML."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ..options import FileOptions, presets
from .console import Console, say
from .exit_codes import OK
from .flags import add_options, add_sources, read_options


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "options",
        parents=[talk],
        usage="gfp options [--presets] [FLAG ...]",
        help="print the options of `gfp restore` as TOML, and the presets",
        description="Print the options that the same flags mean to `gfp restore`, as a TOML file "
        "for its flag --options.",
    )
    parser.add_argument("--presets", action="store_true", help="print the presets and their sense")
    parser.add_argument(
        "--changed", action="store_true", help="print those alone that differ from the default"
    )
    parser.add_argument(
        "--no-comments",
        dest="comments",
        action="store_false",
        help="leave out what each option does",
    )
    add_sources(parser)
    add_options(parser, FileOptions)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print options or presets; returns the exit code.

    Raises:
        CannotStart: there is no such preset, or the option file is none.
    """
    if arguments.presets:
        for name, reason in presets().items():
            lines = textwrap.wrap(reason, 76)
            say(f"{name:16}" + f"\n{' ' * 16}".join(lines))
        return OK
    options = read_options(arguments, FileOptions)
    text = options.to_toml(changed=arguments.changed, comments=arguments.comments)
    say(text.removesuffix("\n"))
    return OK
