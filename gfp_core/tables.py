"""Build dataclasses from the tables of TOML files: the only reader of TOML besides `options`.

A dataclass says which keys there are, of which types and with which defaults; a field may have a
check of its own (`checked`). Standard library alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_CHECK = "check"


class TableError(ValueError):
    """A table cannot be read, or has a key or a value that it cannot have; says which."""


def checked(check: Callable[[str, Any], Any], **arguments: Any) -> Any:
    """Declare a field of a dataclass whose value a function checks and brings to its type.

    Args:
        check: takes the field's name and the value as TOML has it, and returns the field's value;
            raises ValueError.
        arguments: of `dataclasses.field`, such as ``default``.
    """
    return dataclasses.field(metadata={_CHECK: check}, **arguments)


def read_toml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        TableError: the file cannot be read or is no TOML; names the file.
    """
    try:
        # Not waiting for a writer, as opening a FIFO would.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            return tomllib.load(opened)
    except OSError as error:
        raise TableError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TableError(f"{file}: no TOML: {error}") from error


def parse_value(text: str) -> Any:
    """Read a single value in TOML's form; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def unknown(key: str, keys: Iterable[str], noun: str = "key", where: str = "") -> TableError:
    """Make the error for a key that does not exist, with the nearest that does."""
    keys = list(keys)
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    return TableError(
        f"{where + ' has' if where else 'there is'} no {noun} {key!r}{hint}; "
        f"there are {', '.join(keys)}"
    )


def build(kind: type[T], table: Any, where: str = "", noun: str = "key") -> T:
    """Build a dataclass from a table.

    A nested dataclass is a nested table; one that has a function ``from_plain`` may also be
    a plain value.

    Args:
        kind: the dataclass. Types of its fields: dataclasses, bool, int, float, str, Literal,
            ``X | None``, ``tuple[X, ...]``, ``tuple[X, X]``, and dict (unchecked inside).
        table: what `read_toml` gives, or a part of it.
        where: name of the table, for messages.
        noun: what a key is called in messages.

    Raises:
        TableError: a key is unknown or missing, or a value is of the wrong type or none of the
            choices.
    """
    return cast(T, _value(kind, table, where, noun))


def _value(kind: Any, value: Any, where: str, noun: str) -> Any:
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return _simple(kind, value, where)
    from_plain = getattr(kind, "from_plain", None)
    if from_plain is not None and not isinstance(value, Mapping):
        return from_plain(_simple(float, value, where))
    if not isinstance(value, Mapping):
        raise TableError(f"{where or 'the content'} must be a table, not {value!r}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in fields:
            raise unknown(key, fields, noun, where)
    required = dataclasses.MISSING
    for name, field in fields.items():
        if field.default is field.default_factory is required and name not in value:
            raise TableError(f"{where + ': ' if where else ''}{name!r} is missing")
    values = {}
    for key, item in value.items():
        path = f"{where}.{key}".lstrip(".")
        check = fields[key].metadata.get(_CHECK)
        values[key] = check(key, item) if check else _value(hints[key], item, path, noun)
    return cast(Any, kind)(**values)


def _simple(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value in arguments and type(value) in {type(choice) for choice in arguments}:
            return value
        choices = ", ".join(map(str, arguments))
        raise TableError(f"{where!r} must be one of {choices}, not {value!r}")
    if origin is tuple:
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        if isinstance(value, list) and (repeated or len(value) == len(arguments)):
            return tuple(_value(arguments[0], item, where, "key") for item in value)
    elif origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not type(None)]
        return None if value is None else _simple(kinds[0], value, where)
    elif origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise TableError(f"{where!r} cannot be {value!r}; it is {_describe(kind)}")


def _describe(kind: Any) -> str:
    """What a value of a type is, for people."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if get_origin(kind) is tuple:
        arguments = get_args(kind)
        if arguments[-1] is Ellipsis:
            return f"a list, of which each is {_describe(arguments[0])}"
        return f"a list of {len(arguments)}, of which each is {_describe(arguments[0])}"
    return names.get(kind, "a table")
