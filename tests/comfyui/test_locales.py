"""What the page shows of the nodes, in every language; English is the nodes' own schema.

``locales/LANGUAGE/texts.json`` holds a translation of each English text once. The language's
nodeDefs.json, and the tables of inputs in the help pages, are written from it and from the server's
schema: GFP_UPDATE_DOCS=1 pytest tests/comfyui/test_locales.py
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from gfp_core.options import Part, find_option

REPOSITORY = Path(__file__).resolve().parents[2]
LOCALES = REPOSITORY / "locales"
HELP = REPOSITORY / "web" / "docs"
LANGUAGES = sorted(path.name for path in LOCALES.iterdir() if (path / "texts.json").is_file())
AGAIN = "write it anew: GFP_UPDATE_DOCS=1 pytest tests/comfyui/test_locales.py"
WEIGHTS = "Weights by name: hover over the input for what there is, and under which terms."
PARTS = find_option("parts").help
INPUT, OUTPUT = "input", "output"
NEWER = {
    "GFPFaceMasks": {"parts": f"{PARTS} A change here comes before the switches."},
    "GFPCompareRestorers": {"restorers": "From Load Face Restorer (GFP); or name models."},
}
"""Tooltips of inputs that nodes have in newer versions of ComfyUI alone."""


def english(object_info: dict[str, Any]) -> dict[str, Any]:
    """English nodeDefs.json, in the frontend's form.

    A tooltip that lists the catalogue is left out, so that the page shows the server's: that one
    has the rows that the user has added, and hides what the user has hidden.
    """
    nodes = {}
    for name, info in object_info.items():
        if not name.startswith("GFP"):
            continue
        given = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        inputs = {}
        for id, (_, options) in given.items():
            inputs[id] = {"name": options.get("display_name") or id}
            if "commercial use:" not in options["tooltip"]:
                inputs[id]["tooltip"] = options["tooltip"]
        for id, tooltip in NEWER.get(name, {}).items():
            inputs.setdefault(id, {"name": id, "tooltip": tooltip})
        names = zip(info["output_name"], info["output_tooltips"], strict=True)
        nodes[name] = {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": inputs,
            "outputs": {
                str(index): {"name": output, "tooltip": tooltip}
                for index, (output, tooltip) in enumerate(names)
            },
        }
    return nodes


def texts(nodes: dict[str, Any]) -> list[str]:
    """Every English text once, in order."""
    found = [INPUT, OUTPUT, WEIGHTS, PARTS]

    def walk(entry: dict[str, Any]) -> None:
        for value in entry.values():
            walk(value) if isinstance(value, dict) else found.append(value)

    walk(nodes)
    return list(dict.fromkeys(found))


def translated(entry: Any, words: dict[str, str]) -> Any:
    """The same with every text in another language."""
    if isinstance(entry, dict):
        return {key: translated(value, words) for key, value in entry.items()}
    return words.get(entry, entry)


def with_tables(page: str, node: dict[str, Any], words: dict[str, str]) -> str:
    """A help page with its tables of inputs and outputs, made from the schema's texts."""
    parts = get_args(Part)
    rows, switches = [], []
    for id, entry in node["inputs"].items():
        if id in parts:
            switches.append(entry["name"])
        else:
            tooltip = entry.get("tooltip") or words.get(WEIGHTS, WEIGHTS)
            rows.append((entry["name"], tooltip))
    if switches:
        rows.append((", ".join(switches), words.get(PARTS, PARTS)))
    outputs = [(entry["name"], entry["tooltip"]) for entry in node["outputs"].values()]
    for title, table in ((INPUT, rows), (OUTPUT, outputs)):
        lines = [f"| {words.get(title, title)} | |", "|---|---|"]
        for name, text in table:
            cell = re.sub(r"\n+", "<br>", text).replace("|", "\\|")
            lines.append(f"| {name} | {cell} |")
        head = re.escape(lines[0])
        pattern = rf"^{head}\n(?:\|.*\n)+"
        assert re.search(pattern, page, re.MULTILINE), f"no table with the head {lines[0]}"
        page = re.sub(pattern, lambda _, lines=lines: "\n".join(lines) + "\n", page, flags=re.M)
    return page


def hold(file: Path, wanted: str) -> None:
    """A file has this content, or is given it."""
    if os.environ.get("GFP_UPDATE_DOCS"):
        file.write_text(wanted, encoding="utf-8")
    found = file.read_text(encoding="utf-8")
    assert found == wanted, f"{file.relative_to(REPOSITORY)} is old; {AGAIN}"


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@pytest.fixture(scope="module")
def nodes(comfyui: Any) -> dict[str, Any]:
    """The English texts of all nodes."""
    return english(comfyui.object_info())


def test_english_is_the_schema(nodes: dict[str, Any]) -> None:
    hold(LOCALES / "en" / "nodeDefs.json", as_json(nodes))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language: str, nodes: dict[str, Any]) -> None:
    file = LOCALES / language / "texts.json"
    words = json.loads(file.read_text(encoding="utf-8"))
    wanted = texts(nodes)
    missing = [text for text in wanted if not words.get(text)]
    if os.environ.get("GFP_UPDATE_DOCS"):
        words = {text: words.get(text, "") for text in wanted}
        file.write_text(as_json(words), encoding="utf-8")
    assert not missing, f"{file.relative_to(REPOSITORY)} has no translation of {missing}"
    assert list(words) == wanted, f"{file.relative_to(REPOSITORY)} has texts of the past; {AGAIN}"
    hold(LOCALES / language / "nodeDefs.json", as_json(translated(nodes, words)))


@pytest.mark.parametrize("language", ["en", "de"])
def test_tables_of_the_help_are_the_schema(language: str, nodes: dict[str, Any]) -> None:
    words = {}
    if language != "en":
        words = json.loads((LOCALES / language / "texts.json").read_text(encoding="utf-8"))
    for name, node in translated(nodes, words).items():
        file = HELP / (f"{name}.md" if language == "en" else f"{name}/{language}.md")
        hold(file, with_tables(file.read_text(encoding="utf-8"), node, words))


def test_the_server_gives_all_languages(comfyui: Any) -> None:
    served = comfyui.get("/i18n")
    for folder in LOCALES.iterdir():
        file = folder / "nodeDefs.json"
        assert served[folder.name]["nodeDefs"] == json.loads(file.read_text(encoding="utf-8"))
        assert served[folder.name]["nodeCategories"]
