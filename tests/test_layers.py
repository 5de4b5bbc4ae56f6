"""What the node pack loads when ComfyUI starts, and what its archive holds."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEVELOPERS_ONLY = (
    "gfp_core.evaluation",
    "gfp_core.metrics",
    "gfp_core.scale",
    "gfp_core.training",
)
ONLY_TO_LEARN = ("gfp_core.degradation", "gfp_core.wild", "gfp_core.person.learn")
"""In the archive, but not loaded when ComfyUI starts."""


def modules_the_nodes_import() -> list[str]:
    names = set()
    for file in (ROOT / "nodes").rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:  # what functions import waits
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gfp_core"):
                names.add(node.module)
    return sorted(names)


def loaded_after_importing(
    names: list[str], unwanted: tuple[str, ...] = DEVELOPERS_ONLY
) -> list[str]:
    """The modules of ``unwanted`` that a fresh interpreter holds after it imported ``names``."""
    program = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(json.dumps([m for m in sys.modules if m.startswith({unwanted!r})]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout)


def test_starting_comfyui_loads_no_metric_and_no_training_code() -> None:
    names = modules_the_nodes_import()
    assert "gfp_core.compare" in names
    assert loaded_after_importing(names, DEVELOPERS_ONLY + ONLY_TO_LEARN) == []


@pytest.mark.slow
def test_the_archive_leaves_out_what_only_developers_need_and_imports_without_it() -> None:
    ignored = [
        line.rstrip("/")
        for line in (ROOT / ".comfyignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for name in DEVELOPERS_ONLY:
        path = name.replace(".", "/")
        assert path in ignored or f"{path}.py" in ignored
    files = [
        file.relative_to(ROOT)
        for file in (ROOT / "gfp_core").rglob("*.py")
        if file.name != "__main__.py"
    ]
    archived = [file for file in files if not any(file.is_relative_to(path) for path in ignored)]
    assert len(archived) < len(files)
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in archived]
    assert loaded_after_importing(names) == []
