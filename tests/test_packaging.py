"""What installers read agrees with itself."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_requirements_are_the_dependencies_without_torch() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if not line.startswith("#")]
    dependencies = PROJECT["project"]["dependencies"]
    assert required == [one for one in dependencies if not one.startswith("torch")]


def test_torch_is_not_pinned() -> None:
    assert [one for one in PROJECT["project"]["dependencies"] if one.startswith("torch")] == [
        "torch>=2.4"
    ]


@pytest.mark.parametrize("needed", ["gfp_core/weights", "nodes", "web", "__init__.py", "NOTICE"])
def test_the_archive_of_the_registry_holds_what_the_pack_needs(needed: str) -> None:
    ignored = (ROOT / ".comfyignore").read_text().split()
    assert (ROOT / needed).exists()
    assert not any(needed.startswith(one.rstrip("/")) for one in ignored if not one.startswith("#"))
