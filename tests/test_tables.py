"""Dataclasses from the tables of TOML files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gfp_core.tables import TableError, build, checked, parse_value, read_toml


def even(name: str, value: Any) -> int:
    if value % 2:
        raise TableError(f"{name!r} must be even")
    return value


@dataclass(frozen=True)
class Weight:
    value: float
    start: int = 0

    @classmethod
    def from_plain(cls, value: float) -> "Weight":
        return cls(value)


@dataclass(frozen=True)
class Table:
    name: str
    kind: Literal["a", "b"] = "a"
    size: int | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()
    on: bool = False
    weight: Weight = Weight(1.0)
    extra: dict[str, Any] = field(default_factory=dict)
    number: int = checked(even, default=0)


def test_values_come_as_the_types_of_the_fields() -> None:
    table = {"name": "x", "pair": [1, 2], "names": ["a"], "weight": 3, "extra": {"any": 1}}
    built = build(Table, table)
    assert built == Table("x", pair=(1.0, 2.0), names=("a",), weight=Weight(3.0), extra={"any": 1})
    assert build(Table, {"name": "x", "weight": {"value": 2, "start": 5}}).weight == Weight(2.0, 5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "'name' is missing"),
        ({"name": "x", "siez": 1}, "no key 'siez'; the nearest is 'size'; there are name, kind"),
        ({"name": "x", "zzz": 1}, "no key 'zzz'; there are name"),
        ({"name": 3}, "'name' cannot be 3; it is a text"),
        ({"name": "x", "kind": "c"}, "'kind' must be one of a, b, not 'c'"),
        ({"name": "x", "size": True}, "'size' cannot be True; it is a whole number"),
        ({"name": "x", "pair": [1]}, r"'pair' cannot be \[1\]; it is a list of 2, of which each"),
        ({"name": "x", "names": [1]}, "'names' cannot be 1; it is a text"),
        ({"name": "x", "on": 1}, "'on' cannot be 1; it is true or false"),
        ({"name": "x", "number": 3}, "'number' must be even"),
        ({"name": "x", "weight": {"start": 1}}, "weight: 'value' is missing"),
        ({"name": "x", "weight": {"value": 1, "strat": 1}}, "weight has no key 'strat'; the near"),
        ({"name": "x", "extra": 1}, "'extra' cannot be 1; it is a table"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: dict[str, Any], message: str) -> None:
    with pytest.raises(TableError, match=message):
        build(Table, table)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    with pytest.raises(TableError, match=r"a\.toml: cannot be read: No such file"):
        read_toml(file)
    for content in (b"a = ", b"a = '\xff'"):
        file.write_bytes(content)
        with pytest.raises(TableError, match=r"a\.toml: no TOML"):
            read_toml(file)


def test_a_single_value_may_be_a_bare_word() -> None:
    assert parse_value("3") == 3
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value(" word ") == "word"
