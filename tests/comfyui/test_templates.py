"""The graphs in example_workflows/ as the real page reads them."""

from __future__ import annotations

import importlib.util
import json
import sys
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


@pytest.mark.parametrize("name", NAMES)
def test_page_makes_the_same_prompt_of_the_graph(name: str, opened: Any) -> None:
    """What the page would send, up to its own upload buttons, is the file in workflows/api/."""
    graph = (REPOSITORY / "example_workflows" / f"{name}.json").read_text(encoding="utf-8")
    made = opened.driver.execute_async_script(LOAD, json.loads(graph))
    for node in made.values():
        node["inputs"].pop("video-preview", None)
    wanted = (REPOSITORY / "workflows/api" / f"{name}.json").read_text(encoding="utf-8")
    assert made == json.loads(wanted)


def test_page_offers_the_templates(comfyui: Any) -> None:
    # Once each: ComfyUI looks into workflows/, too, but not into workflows/api/.
    assert sorted(comfyui.get("/api/workflow_templates")[comfyui.pack]) == NAMES
    for path in (REPOSITORY / "example_workflows").iterdir():
        served = comfyui.file(f"/api/workflow_templates/{comfyui.pack}/{path.name}")
        assert served == path.read_bytes()
