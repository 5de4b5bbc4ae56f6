"""What the server says of every node: documented, known in other languages, and never broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gfp_core.weights.catalogue import BUILT_IN, read_catalogue

REPOSITORY = Path(__file__).resolve().parents[2]
LOCALES = REPOSITORY / "locales"
SNAPSHOT = Path(__file__).with_name("schema.json")
SAVED = Path(__file__).with_name("schema_of_saved_workflows.json")
"""The schema of the first workflows, which is never written anew."""
UPDATE = "GFP_UPDATE_SCHEMA"


@pytest.fixture(scope="module")
def ours(comfyui: Any) -> dict[str, Any]:
    """The pack's nodes by id, as /object_info has them."""
    return {
        name: kind
        for name, kind in comfyui.object_info().items()
        if kind["python_module"] == f"custom_nodes.{comfyui.pack}"
    }


def inputs_of(kind: dict[str, Any]) -> dict[str, list[Any]]:
    """The inputs of a node in the order of their sockets and widgets."""
    return {
        name: kind["input"][part][name]
        for part in ("required", "optional")
        for name in kind["input_order"].get(part, [])
    }


def schema_of(kind: dict[str, Any]) -> dict[str, Any]:
    """What saved workflows rely on."""
    inputs = []
    for name, spec in inputs_of(kind).items():
        options = spec[1] if len(spec) > 1 else {}
        known = {
            key: options[key] for key in ("default", "min", "max", "options") if key in options
        }
        of_type = "COMBO" if isinstance(spec[0], list) else spec[0]  # a list is the older form
        inputs.append({"name": name, "type": of_type, **known})
    outputs = zip(kind["output_name"], kind["output"], strict=True)
    return {"inputs": inputs, "outputs": [{"name": name, "type": type} for name, type in outputs]}


def renamed(choice: Any) -> Any:
    """The choice that the pack makes of a saved one: a row's name of today for an old name."""
    rows = read_catalogue(BUILT_IN).entries
    return next((row.name for row in rows if choice in row.old_names), choice)


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of an old schema a new one would break, in words."""
    found = []
    for part in ("inputs", "outputs"):
        for place, was in enumerate(old[part]):
            now = new[part][place] if place < len(new[part]) else None
            if now is None or now["name"] != was["name"]:
                there = "nothing" if now is None else now["name"]
                found.append(f"{part}: {was['name']} was at place {place}, where {there} is now")
                continue
            for key in ("type", "default"):
                if was.get(key) != now.get(key):
                    found.append(f"{was['name']}: {key} {was.get(key)} is now {now.get(key)}")
            offers = now.get("options", [])
            if lost := [one for one in was.get("options", []) if renamed(one) not in offers]:
                found.append(f"{was['name']}: no longer offers {lost}")
            if "min" in was and (now["min"] > was["min"] or now["max"] < was["max"]):
                found.append(f"{was['name']}: allows less than {was['min']} to {was['max']}")
    return found


def test_saved_workflows_keep_working(ours: dict[str, Any]) -> None:
    """Ids, names, types, order and defaults are promises: see schema.json."""
    now = {name: schema_of(kind) for name, kind in sorted(ours.items())}
    was = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
    assert set(was) <= set(now), "nodes are gone: workflows that hold them no longer open"
    broken = {name: breaks(was[name], now[name]) for name in was}
    assert not any(broken.values()), (
        "this breaks saved workflows, whose values go by place: add inputs and outputs at the end "
        f"only, and keep names, types and defaults: {broken}"
    )
    if os.environ.get(UPDATE):
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    elif now != was:
        pytest.fail(
            "nodes, inputs or outputs were added, which breaks nothing. Write them down: run this "
            f"test once with {UPDATE}=1 in the environment and commit {SNAPSHOT.name}"
        )


def test_the_first_workflows_keep_working(ours: dict[str, Any]) -> None:
    """Whatever schema.json has become since: ids, types, order and defaults are as they were."""
    now = {name: schema_of(kind) for name, kind in ours.items()}
    was = json.loads(SAVED.read_text(encoding="utf-8"))
    assert {name: breaks(was[name], now[name]) for name in was} == {name: [] for name in was}


OLD = {
    "inputs": [
        {"name": "image", "type": "IMAGE"},
        {"name": "mask", "type": "COMBO", "default": "box", "options": ["box", "hull"]},
        {"name": "feather", "type": "FLOAT", "default": 0.1, "min": 0, "max": 0.5},
    ],
    "outputs": [{"name": "image", "type": "IMAGE"}, {"name": "mask", "type": "MASK"}],
}


@pytest.mark.parametrize(
    ("change", "breaking"),
    [
        (lambda new: None, False),
        (lambda new: new["inputs"].append({"name": "seed", "type": "INT"}), False),
        (lambda new: new["outputs"].append({"name": "faces", "type": "GFP_FACES"}), False),
        (lambda new: new["inputs"][1]["options"].append("ellipse"), False),
        (lambda new: new["inputs"][2].update(max=1), False),
        (lambda new: new["inputs"].insert(1, {"name": "seed", "type": "INT"}), True),
        (lambda new: new["inputs"].reverse(), True),
        (lambda new: new["inputs"].pop(), True),
        (lambda new: new["outputs"].pop(0), True),
        (lambda new: new["inputs"][0].update(name="picture"), True),
        (lambda new: new["inputs"][0].update(type="MASK"), True),
        (lambda new: new["inputs"][2].update(default=0.2), True),
        (lambda new: new["inputs"][2].update(max=0.4), True),
        (lambda new: new["inputs"][1]["options"].remove("hull"), True),
    ],
)
def test_the_guard_of_schemas_tells_what_breaks(change: Any, breaking: bool) -> None:
    new = json.loads(json.dumps(OLD))
    change(new)
    assert bool(breaks(OLD, new)) is breaking


def test_every_node_explains_itself(ours: dict[str, Any]) -> None:
    for name, kind in ours.items():
        assert kind["description"], name
        assert kind["category"] == "GFP"
        assert "Face" in kind["display_name"], "who looks for a face finds the whole pack"
        for input_name, spec in inputs_of(kind).items():
            assert spec[1].get("tooltip"), f"{name}: {input_name}"
        assert len(kind["output_tooltips"]) == len(kind["output"])
        assert all(kind["output_tooltips"]), name


def test_every_node_has_a_help_page(ours: dict[str, Any], comfyui: Any) -> None:
    """As the page fetches it, and with a word on every input and output."""
    for name, kind in ours.items():
        help_page = comfyui.file(f"/extensions/{comfyui.pack}/docs/{name}.md").decode()
        missing = [one for one in (*inputs_of(kind), *kind["output_name"]) if one not in help_page]
        assert not missing, f"{name}.md says nothing of {missing}"


@pytest.mark.parametrize("language", sorted(path.name for path in LOCALES.iterdir()))
def test_every_node_is_known_in_every_language(
    language: str, ours: dict[str, Any], comfyui: Any
) -> None:
    translated = comfyui.get("/i18n")[language]["nodeDefs"]
    assert set(translated) >= set(ours)
    for name, kind in ours.items():
        entry = translated[name]
        assert entry["display_name"], name
        assert entry["description"], name
        labels = [each["name"] for each in entry["inputs"].values()]
        assert len(set(labels)) == len(labels), f"{name}: two inputs of one name"
        newer = {"parts", "restorers"}  # which this ComfyUI may not have
        assert set(inputs_of(kind)) <= set(entry["inputs"]) <= {*inputs_of(kind), *newer}, name
        assert len(entry["outputs"]) == len(kind["output"]), name


def test_licences_are_in_the_loaders_tooltip(ours: dict[str, Any]) -> None:
    model = inputs_of(ours["GFPLoadRestorer"])["model"][1]
    for name in model["options"]:
        assert f"{name}: " in model["tooltip"]
    assert "lite: Apache-2.0; commercial use: yes." in model["tooltip"]
    assert "codeformer: S-Lab License 1.0; commercial use: no." in model["tooltip"]


WITHOUT_SWITCHES = ("twice", "detect_again", "go_with_their_image")
"""Words in the names of the tests that are of what the switches forbid."""


@pytest.mark.parametrize(
    "forbidden", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["usual", "forbidden"]
)
def test_nodes_from_within(forbidden: bool, comfyui: Any) -> None:
    """`inside_comfyui.py`, in a process of its own; also with all forbidden that can be."""
    switches = comfyui.SWITCHES if forbidden else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if switches:
        command += ["-k", " and ".join(f"not {word}" for word in WITHOUT_SWITCHES)]
    environment = {"GFP_COMFYUI": str(comfyui.core), "GFP_NO_DOWNLOAD": "1", **switches}
    ended = subprocess.run(
        [*command, str(Path(__file__).with_name("inside_comfyui.py"))],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
