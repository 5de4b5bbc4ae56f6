"""What the page shows of the nodes, in every language; English is the nodes' own schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parents[2] / "locales"


def expected(object_info: dict[str, Any]) -> dict[str, Any]:
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


def test_english_is_the_schema(comfyui: Any) -> None:
    file = LOCALES / "en" / "nodeDefs.json"
    wanted = expected(comfyui.object_info())
    if os.environ.get("GFP_UPDATE_DOCS"):
        file.write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    again = "write it anew: GFP_UPDATE_DOCS=1 pytest tests/comfyui/test_locales.py"
    assert found == wanted, f"{again}, then translate what changed in locales/de/nodeDefs.json"


def test_the_server_gives_all_languages(comfyui: Any) -> None:
    served = comfyui.get("/i18n")
    for folder in LOCALES.iterdir():
        file = folder / "nodeDefs.json"
        assert served[folder.name]["nodeDefs"] == json.loads(file.read_text(encoding="utf-8"))
        assert served[folder.name]["nodeCategories"]
