"""The page's scripts in Node.js, with a little of a browser in its place; in a browser they are
tested by tests/comfyui/test_page.py."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js")

APP = """export const extensions = [];
export const app = {
  graph: { nodes: [] },
  canvas: {},
  registerExtension: (extension) => extensions.push(extension),
  ui: { settings: { getSettingValue: () => "en" } },
};
"""
API = """export const api = Object.assign(new EventTarget(), { apiURL: (route) => route });
"""


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run a scenario of harness.mjs, as ComfyUI serves the scripts, and return what it returns."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (scripts / "app.js").write_text(APP, encoding="utf-8")
    (scripts / "api.js").write_text(API, encoding="utf-8")
    shutil.copy(HERE / "harness.mjs", tmp_path)
    shutil.copytree(HERE.parents[1] / "web" / "js", tmp_path / "extensions" / "pack" / "js")

    def scenario(name: str, argument: Any) -> Any:
        assert NODE is not None
        ended = subprocess.run(
            [NODE, "harness.mjs", name, json.dumps(argument)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return scenario


PAIR = {side: {"filename": f"{side}.jpg", "type": "temp"} for side in ("before", "after")}
FACE = {"number": 0, "box": [1, 1, 9, 9], "landmarks": [[2, 2]], "score": 0.9, "chosen": True}


@pytest.mark.parametrize(
    ("properties", "faces"),
    [
        ({"gfp_compare": [PAIR, PAIR]}, 0),  # of the first version
        ({"gfp_compare": [{**PAIR, "width": 10, "height": 10, "faces": [FACE]}]}, 1),
        ({"gfp_compare": [PAIR], "gfp_report": [{"key": "newer", "values": [1]}]}, 0),
    ],
    ids=["first version", "now", "later version"],
)
def test_a_workflow_saved_with_a_result_of_any_version_loads(
    properties: Any, faces: int, run: Any
) -> None:
    classes = run("saved", properties)
    assert "gfp-divider" in classes, "the slider"
    assert classes.count("gfp-face") == faces


@pytest.mark.parametrize("how", ["execution_interrupted", "execution_error"])
def test_a_run_that_was_cancelled_gives_the_last_result_back(how: str, run: Any) -> None:
    classes = run("ended", how)
    assert "gfp-face" not in classes["running"], "the picture of the progress is on show"
    assert classes["ended"] == classes["finished"]


def test_an_example_that_cannot_be_fetched_is_not_uploaded(run: Any) -> None:
    assert run("example", 404) == {"uploads": [], "offered": ["mine.jpg"]}
    answer = run("example", 200)
    assert answer == {"uploads": ["/upload/image"], "offered": ["mine.jpg", "gfp_photo.jpg"]}
