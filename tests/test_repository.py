"""What people meet first in the repository is whole: workflows, forms, links, commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gfp_core.cli.main import build_parser
from scripts import dev

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")


def workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pin_actions_and_may_read_only(path: Path) -> None:
    assert workflow(path)["permissions"] == {"contents": "read"}
    actions = [step["uses"] for step in steps(path) if "uses" in step]
    assert [action for action in actions if not PINNED.match(action)] == []
    checkouts = [step for step in steps(path) if "actions/checkout@" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert all("timeout-minutes" in job or "uses" in job for job in workflow(path)["jobs"].values())


def test_ci_runs_the_one_script_and_publishing_waits_for_it() -> None:
    ci = workflow(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert "bash .ci/run" in [step.get("run") for step in ci["linux"]["steps"]]
    release = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    assert release["ci"]["uses"].endswith("/ci.yml")
    assert release["build"]["needs"] == "ci"
    assert release["pypi"]["needs"] == release["comfy-registry"]["needs"] == "build"


def test_modules_and_commands_that_workflows_call_exist() -> None:
    called = [line for path in WORKFLOWS for step in steps(path) for line in lines(step)]
    door = [line for line in called if "scripts.dev" in line]
    assert door
    for line in door:
        assert set(line.partition("scripts.dev")[2].split()) <= set(dev.COMMANDS)
    for line in called:
        if line.startswith("gfp ") and "--version" not in line:
            build_parser().parse_args(line.split()[1:])


def lines(step: dict[str, Any]) -> list[str]:
    return [line.strip() for line in step.get("run", "").splitlines()]


def test_the_script_of_ci_is_the_door() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    called = re.findall(r"scripts\.dev (.*)", text)
    assert called
    assert set(" ".join(called).split()) <= set(dev.COMMANDS)


def test_the_door_says_what_there_is() -> None:
    command = [sys.executable, "-m", "scripts.dev", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in dev.COMMANDS if name not in told] == []


def test_the_door_fails_with_the_first_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fail() -> None:
        ran.append("check")
        raise dev.FailedError("check ended with exit code 3")

    monkeypatch.setitem(dev.COMMANDS, "check", fail)
    monkeypatch.setitem(dev.COMMANDS, "docs", lambda: ran.append("docs"))
    assert dev.main(["check", "docs"]) == 1
    assert ran == ["check"]


def test_forms_ask_for_what_the_program_says_of_itself() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/fault.yml").read_text(encoding="utf-8"))
    labels = {entry["id"]: entry for entry in form["body"]}
    assert labels["about"]["attributes"]["label"] == "gfp --version --verbose"
    assert labels["about"]["validations"]["required"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def test_the_page_scripts_are_checked_by_pinned_programs() -> None:
    package = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"][""]["devDependencies"] == package["devDependencies"]
    for script in (ROOT / "web" / "js").glob("*.js"):
        assert script.read_text(encoding="utf-8").startswith("// @ts-check\n"), script.name


def test_the_container_takes_files_that_are_there_and_is_nobody_of_rank() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M)
    sources = " ".join(copied).split()
    assert "gfp_core" in sources
    assert [path for path in sources if not (ROOT / path).exists() or path in ignored] == []
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    last = [re.findall(r"^USER (.*)$", stage, re.M)[-1:] for stage in stages[-2:]]
    assert last == [["1000"], ["1000"]]
    assert all("HEALTHCHECK" in stage for stage in stages[-2:])
    names = [stage.split()[2] for stage in stages]
    services = yaml.safe_load((ROOT / "compose.yml").read_text(encoding="utf-8"))["services"]
    assert {service["build"]["target"] for service in services.values()} <= set(names)
    assert services["comfyui"]["ports"] == ["127.0.0.1:8188:8188"]
    checked = re.findall(r'HEALTHCHECK.*?CMD \["gfp", (.*?)\]', text)
    build_parser().parse_args([word.strip('" ') for word in checked[0].split(",")])


def test_the_pages_call_the_nodes_by_their_names() -> None:
    definitions = json.loads((ROOT / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
    names = {node: definition["display_name"] for node, definition in definitions.items()}
    for page in PAGES:
        called = re.findall(r"\*([A-Z][\w ']* \(GFP\))\*", page.read_text(encoding="utf-8"))
        assert set(called) <= set(names.values()), page.name
    table = (ROOT / "docs" / "comfyui.md").read_text(encoding="utf-8")
    rows = re.findall(r"\[([\w ']+)\]\(\.\./web/docs/(\w+)\.md\)", table)
    assert {node: f"{name} (GFP)" for name, node in rows} == names
