"""One door to what developers run, on every system.

    python -m scripts.dev quick            # style, and the tests that are not slow
    python -m scripts.dev test             # all tests that can run here
    python -m scripts.dev check            # style, layers, types, workflows: what .ci/run checks
    python -m scripts.dev docs             # the site, in build/site; a warning is an error
    python -m scripts.dev coverage         # which lines the quick tests do not reach
    python -m scripts.dev bench            # how fast each step is on this machine
    python -m scripts.dev check docs       # several, one after the other

The programs are those of the environment that runs this; the first that fails ends it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"


class FailedError(Exception):
    """A program ended with another exit code than 0."""


def run(module: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> None:
    """Run a module of this environment, after saying so.

    Raises:
        FailedError: the program failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    print("+ python", shlex.join(command[1:]), flush=True)
    code = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, check=False).returncode
    if code:
        raise FailedError(f"{module} ended with exit code {code}")


def program(name: str, *arguments: str) -> None:
    """Run a program that stands beside this environment's Python."""
    path = Path(sys.executable).with_name(name + (".exe" if os.name == "nt" else ""))
    print("+", name, shlex.join(arguments), flush=True)
    if code := subprocess.run([str(path), *arguments], cwd=ROOT, check=False).returncode:
        raise FailedError(f"{name} ended with exit code {code}")


def style() -> None:
    """Run ruff: the project's rules, those that the Comfy Registry asks for, and the format."""
    run("ruff", "check", ".")
    run("ruff", "check", "--quiet", "--select", "S102,S307,E702", ".")
    run("ruff", "format", "--check", ".")


def check() -> None:
    """Check style, layers, types and workflows."""
    style()
    program("lint-imports", "--no-logo")
    run("mypy")
    # The nodes import the library relatively, as ComfyUI loads them: they are a package's.
    package = BUILD / "types" / "pack"
    package.parent.mkdir(parents=True, exist_ok=True)
    if not package.exists():
        package.symlink_to(Path("..", ".."), target_is_directory=True)
    config = str(ROOT / "pyproject.toml")
    run("mypy", "--config-file", config, "-p", "pack.nodes", cwd=package.parent, MYPYPATH=".")
    program("zizmor", "--offline", "--quiet", ".github")


def quick() -> None:
    """Check the style, and run the tests that are not marked as slow."""
    style()
    run("pytest", "-q", "-m", "not slow", *_parallel())


def test() -> None:
    """Run all tests; those of ComfyUI where `.ci/comfyui` has brought it."""
    run("pytest", "-q", *_parallel())


def _parallel() -> list[str]:
    return ["-n", "auto"] if importlib.util.find_spec("xdist") else []


def docs() -> None:
    """Build the site of docs/; links that lead nowhere and other warnings are errors."""
    run("mkdocs", "build", "--quiet", "--strict", "--site-dir", str(BUILD / "site"))


def coverage() -> None:
    """Run the quick tests, and print which lines they do not reach."""
    data = {"COVERAGE_FILE": str(BUILD / "coverage" / "data")}
    Path(data["COVERAGE_FILE"]).parent.mkdir(parents=True, exist_ok=True)
    run("coverage", "erase", **data)
    run("coverage", "run", "-m", "pytest", "-q", "-m", "not slow", **data)
    run("coverage", "combine", "--quiet", **data)
    run("coverage", "report", **data)
    run("coverage", "html", "--quiet", "--directory", str(BUILD / "coverage" / "html"), **data)


def bench() -> None:
    """Time each step on this machine."""
    run("gfp_core", "bench")


COMMANDS: dict[str, Callable[[], None]] = {
    command.__name__: command for command in (quick, test, check, docs, coverage, bench)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named commands in their order; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.dev",
        description="What developers run.",
        epilog="\n".join(f"{name:10}{call.__doc__}" for name, call in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("commands", nargs="+", choices=COMMANDS, metavar="COMMAND")
    try:
        for name in parser.parse_args(arguments).commands:
            COMMANDS[name]()
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
