"""The table of docs/training.md is what the recipes hold."""

from pathlib import Path
from typing import Any

from gfp_core.training.recipes import Recipe, Term, load_recipe

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def cell(recipe: Recipe, key: str) -> str:
    table, name = key.split(".")
    value: Any = getattr(getattr(recipe, table), name)
    if table == "degradation" and not recipe.data.degraded:
        return "-"
    if isinstance(value, Term):
        if not value.weight:
            return "-"
        start = f" from {value.start}" if value.start else ""
        stop = f" to {value.stop}" if value.stop else ""
        return f"{value.weight:g}{start}{stop}"
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, dict):
        return ", ".join(f"{part} {rate:g}" for part, rate in value.items()) or "-"
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" if not isinstance(one, str) else one for one in value) or "-"
    if isinstance(value, int):
        return str(value) if value else "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_is_that_of_the_recipes():
    lines = TEXT.split("<!-- recipes -->\n", 1)[1].split("\n\n")[0].splitlines()
    head, *rows = [[part.strip() for part in line.split("|")[1:-1]] for line in lines]
    names = head[1:]
    assert len(rows) > 30
    for key, *found in rows[1:]:
        for name, text in zip(names, found, strict=True):
            paper, released = (cell(load_recipe(name, v), key) for v in ("paper", "released"))
            assert text == (paper if paper == released else f"{paper} / {released}"), (key, name)
