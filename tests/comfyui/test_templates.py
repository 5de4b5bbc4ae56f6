"""The graphs in example_workflows/ as the real page reads them."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium")

# What starts the browser; this import mode of pytest has no relative imports between tests.
_spec = importlib.util.spec_from_file_location("page", Path(__file__).with_name("test_page.py"))
assert _spec is not None
assert _spec.loader is not None
test_page = sys.modules["page"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(test_page)
driver, opened, page, photos = (
    getattr(test_page, name) for name in ("driver", "opened", "page", "photos")
)

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (REPOSITORY / "example_workflows").glob("*.json"))
LOAD = """
const [graph, done] = arguments;
app.loadGraphData(graph).then(() => app.graphToPrompt()).then(({output}) => done(output));
"""
WITHOUT_FILES = ("06", "09", "10")
"""Templates of files that ComfyUI does not bring: it offers to download them."""
UPDATE = "GFP_UPDATE_DOCS"


@pytest.mark.parametrize("name", NAMES)
def test_page_opens_the_graph_and_sends_the_prompt(name: str, opened: Any, comfyui: Any) -> None:
    """No node is missing, and every choice is there.

    What the page would send, up to its own upload buttons, is the file in workflows/api/.
    """
    path = REPOSITORY / "example_workflows" / f"{name}.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    types = {node["type"] for node in graph["nodes"]} - {"MarkdownNote"}
    lacking = sorted(types - set(comfyui.object_info()))
    assert not any(type.startswith("GFP") for type in lacking)
    if lacking:
        pytest.skip(f"this ComfyUI has no {', '.join(lacking)}")
    made = opened.driver.execute_async_script(LOAD, graph)
    if not name.startswith(WITHOUT_FILES):
        assert not opened.js(RED)
        opened.wait(lambda: opened.js(WRONG) == [], f"every choice of {name} to be there", 20)
    check_sockets(opened.js(SOCKETS), comfyui.object_info())
    slug = name.split(" ", 1)[1].lower().replace(" ", "_")
    file = REPOSITORY / "workflows/api" / f"{slug}.json"
    if os.environ.get(UPDATE):
        for node in made.values():
            for preview in ("video-preview", "preview"):
                node["inputs"].pop(preview, None)
        file.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    wanted = json.loads(file.read_text(encoding="utf-8"))
    for id, node in made.items():  # ComfyUI's own nodes get more inputs with time
        if not node["class_type"].startswith("GFP"):
            known = wanted[id]["inputs"]
            node["inputs"] = {key: node["inputs"][key] for key in node["inputs"] if key in known}
    assert made == wanted, f"{UPDATE}=1 writes it anew"


def check_sockets(nodes: list[list[Any]], info: dict[str, Any]) -> None:
    """Each input of our nodes is there, and once."""
    for type, sockets in nodes:
        labels = [label for _, label in sockets]
        assert len(set(labels)) == len(labels), f"{type}: {labels}"
        names = [name for name, _ in sockets]
        order = info[type]["input_order"]
        for id in (*order.get("required", []), *order.get("optional", [])):
            assert any(name == id or name.startswith(f"{id}.") for name in names), f"{type}: {id}"


SOCKETS = """
return app.graph.nodes.filter(({type}) => type.startsWith("GFP")).map(({type, inputs}) =>
  [type, inputs.map(({name, label, localized_name}) => [name, label ?? localized_name ?? name])]);
"""
RED = "return app.graph.nodes.filter((node) => node.has_errors).length"
WRONG = """
return app.graph.nodes.flatMap((node) => (node.widgets ?? []).filter(({options, value, type}) =>
  type === "combo" && Array.isArray(options?.values) && !options.values.includes(value)
).map(({name, value}) => `${node.type}: ${name} = ${value}`));
"""


def test_page_offers_the_templates(comfyui: Any) -> None:
    # Once each: ComfyUI looks into workflows/, too, but not into workflows/api/.
    assert sorted(comfyui.get("/api/workflow_templates")[comfyui.pack]) == NAMES
    for path in (REPOSITORY / "example_workflows").iterdir():
        name = urllib.parse.quote(path.name)
        served = comfyui.file(f"/api/workflow_templates/{comfyui.pack}/{name}")
        assert served == path.read_bytes()


BLUEPRINTS = {
    "Restore faces": {"GFPRestorePhoto"},
    "Restore faces in a video": {"GFPRestoreVideo"},
    "Upscale and restore": {"GFPRestorePhoto", "ImageUpscaleWithModel", "UpscaleModelLoader"},
}


def test_page_offers_the_blueprints(comfyui: Any, opened: Any) -> None:
    """ComfyUI finds the files in subgraphs/; in the page each is its nodes, at their defaults."""
    entries = comfyui.get("/global_subgraphs")
    ours = {
        entry["name"]: id
        for id, entry in entries.items()
        if entry["info"]["node_pack"] == f"custom_nodes.{comfyui.pack}"
    }
    assert set(ours) == set(BLUEPRINTS)
    info = comfyui.object_info()
    for name, types in BLUEPRINTS.items():
        blueprint = json.loads(comfyui.get(f"/global_subgraphs/{ours[name]}")["data"])
        assert blueprint["definitions"]["subgraphs"][0]["description"]
        made = opened.driver.execute_async_script(LOAD, blueprint)
        assert {node["class_type"] for node in made.values()} == types
        assert name == "Upscale and restore" or not opened.js(RED)
        for node in made.values():
            known = info[node["class_type"]]["input"]
            for id, spec in {**known["required"], **known.get("optional", {})}.items():
                if id in node["inputs"] and id != "model_name" and "default" in spec[1]:
                    assert node["inputs"][id] == spec[1]["default"], f"{name}: {id}"
