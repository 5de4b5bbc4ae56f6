"""Make the flags of commands from the declarations in `options`, and options from flags.

A new option is a flag of every command that takes its group, with its help, values and range,
without another edit. Former names go on working, and are not in the help.
"""

from __future__ import annotations

import argparse
import logging
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from ..io.formats import CLIP_SUFFIXES
from ..options import Option, OptionError, Options, RestoreOptions, options_of, presets
from .console import STDERR, printable
from .exit_codes import CannotStart
from .paths import path_argument

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=RestoreOptions)

FORMER_FLAGS = {"--turned": ("rotations", (0, 90, 180, 270))}
"""Former flags that stand for a value of an option of another name."""


class Parser(argparse.ArgumentParser):
    """An argument parser that prints nothing that a terminal would obey, and never fails at it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if not message:
            return
        if file is None or file is sys.stderr:
            STDERR.write(printable(message))
            return
        from .console import say

        say(message.removesuffix("\n"))


def add_options(
    parser: argparse.ArgumentParser,
    group: type[Options] = RestoreOptions,
    *,
    only: Callable[[Option], bool] = lambda option: True,
) -> None:
    """Add a flag for each option that is not absent from the command.

    Args:
        parser: of the command.
        group: declares the options.
        only: which of them.
    """
    titles = _titles(group)
    sections: dict[str, Any] = {}
    for option in options_of(group):
        if "command" in option.absent or not only(option):
            continue
        if option.group not in sections:
            sections[option.group] = parser.add_argument_group(titles[option.group])
        _add_flag(sections[option.group], option)
    for flag, (name, value) in FORMER_FLAGS.items():
        if any(option.name == name and only(option) for option in options_of(group)):
            parser.add_argument(
                flag, action=_Former, nargs=0, option_name=name, const=value, **_HIDDEN
            )


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add ``--preset`` and ``--options``, over which the flags of `add_options` win."""
    sources = parser.add_argument_group("where options come from; flags win over both")
    sources.add_argument(
        "--preset", metavar="NAME", help=f"a set of options: {', '.join(presets())}"
    )
    sources.add_argument(
        "--options",
        dest="options_file",
        type=path_argument,
        metavar="FILE",
        help="a TOML file of options, as `gfp options` prints it, or a picture or clip that this "
        "command made, whose options are taken; wins over --preset",
    )


@overload
def read_options(arguments: argparse.Namespace) -> RestoreOptions: ...
@overload
def read_options(arguments: argparse.Namespace, group: type[T]) -> T: ...
def read_options(
    arguments: argparse.Namespace, group: type[RestoreOptions] = RestoreOptions
) -> RestoreOptions:
    """The options that a command line asks for: the preset, the file over it, the flags over both.

    Raises:
        CannotStart: there is no such preset, or the file cannot be read or holds no options.
    """
    for former, flag in getattr(arguments, "former_flags", None) or ():
        logger.warning("%s is now called %s; the old name will go.", former, flag)
    options = group()
    try:
        if getattr(arguments, "preset", None) is not None:
            options = group.preset(arguments.preset)
        if getattr(arguments, "options_file", None) is not None:
            options = _from_file(arguments.options_file, group, options)
        return options.replace(**(getattr(arguments, "option_values", None) or {}))
    except OptionError as error:
        raise CannotStart(str(error)) from error


def _from_file(path: Path, group: type[T], base: T) -> T:
    try:
        is_clip = path.suffix.lower() in CLIP_SUFFIXES
        text = _record_of(path) if is_clip else path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = _record_of(path)
    except OSError as error:
        raise CannotStart(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        return group.from_toml(text, base)
    except OptionError as error:
        raise CannotStart(f"{path}: {error}") from error


def _record_of(path: Path) -> str:
    from .finished import read_record

    try:
        record = read_record(path)
    except ValueError as error:
        raise CannotStart(f"{error}; --options takes a TOML file, or a result") from error
    if record is None:
        raise CannotStart(f"{path} does not say what was done to it; name a TOML file of options")
    return record


def _titles(group: type[Options]) -> dict[str, str]:
    """The headings of the help: the first words of each group's description."""
    titles = {"": "how faces are restored"}
    for name, hint in typing.get_type_hints(group).items():
        if isinstance(hint, type) and issubclass(hint, Options):
            sentence = (hint.__doc__ or name).partition("\n")[0].partition(";")[0].rstrip(".")
            titles[name] = sentence[:1].lower() + sentence[1:]
    return titles


class _Store(argparse.Action):
    """Keeps the value of an option, and whether a former name was used for it."""

    def __init__(self, *arguments: Any, option_name: str, flag: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.option_name, self.flag = option_name, flag

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.nargs == 0:
            values = self.const if self.const is not None else not _is_no(option_string or "")
        before = getattr(namespace, "option_values", None) or {}
        namespace.option_values = {**before, self.option_name: values}
        if self.help is argparse.SUPPRESS and option_string:
            flag = "--no-" + self.flag[2:] if _is_no(option_string) else self.flag
            former = [*(getattr(namespace, "former_flags", None) or ()), (option_string, flag)]
            namespace.former_flags = former


class _Former(_Store):
    """A former flag that stands for a value."""

    def __init__(self, *arguments: Any, option_name: str, const: Any, **more: Any) -> None:
        flag = f"{_flag(option_name)} {','.join(map(str, const))}"
        super().__init__(*arguments, option_name=option_name, flag=flag, const=const, **more)


_HIDDEN: dict[str, Any] = {
    "help": argparse.SUPPRESS,
    "default": argparse.SUPPRESS,
    "dest": "option_values",
}


def _add_flag(section: Any, option: Option) -> None:
    flag = _flag(option.name)
    settings: dict[str, Any] = {
        "action": _Store,
        "option_name": option.name,
        "flag": flag,
        "dest": "option_values",
        "default": argparse.SUPPRESS,
    }
    if option.kind is bool and not option.is_list:
        settings["nargs"] = 0
    else:
        settings |= {"type": _parser_of(option), "metavar": _metavar(option)}
        if option.bare is not None:
            settings |= {"nargs": "?", "const": option.bare}
    for name in (option.name, *option.old_names):
        flags = [_flag(name)]
        if settings.get("nargs") == 0:
            flags.append("--no-" + _flag(name)[2:])
        help_text = _help(option) if name == option.name else argparse.SUPPRESS
        section.add_argument(*flags, help=help_text, **settings)


def _parser_of(option: Option) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return option.parse(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _metavar(option: Option) -> str:
    if option.choices and not option.is_list:
        return "{" + ",".join(str(choice).replace(" ", "-") for choice in option.choices) + "}"
    return option.metavar or {int: "NUMBER", float: "NUMBER"}.get(option.kind, "TEXT")


def _help(option: Option) -> str:
    """The option's sentence, its values where they do not stand before it, and its default."""
    notes = []
    if option.is_list:
        notes.append(f"some of {','.join(map(str, option.choices))}")
    elif option.kind in (int, float) and option.min is not None:
        notes.append(option.allowed.partition(" from ")[2].removeprefix("from "))
    if option.default is not None:
        notes.append(f"default: {_value_text(option.default)}")
    if option.bare is not None:
        notes.append(f"without a value: {_value_text(option.bare)}")
    text = option.help.removesuffix(".")
    return (f"{text} ({'; '.join(notes)})" if notes else text).replace("%", "%%")


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "-")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_no(flag: str) -> bool:
    return flag.startswith("--no-")


def flags_of(parser: argparse.ArgumentParser) -> Sequence[str]:
    """The flags of a parser, for tests and tables."""
    return [flag for action in parser._actions for flag in action.option_strings]
