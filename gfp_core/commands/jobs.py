"""Which file becomes which: from what the command line names to pairs of input and output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io import atomic
from ..io.images import SUFFIXES


class UsageError(ValueError):
    """What the command line asks for cannot be done as a whole; says what to ask for."""


@dataclass(frozen=True)
class Job:
    """One file to work on."""

    source: Path
    """The input."""
    output: Path
    """The output folder."""
    place: Path
    """Where the result lies below the output folder."""

    @property
    def target(self) -> Path:
        """The result's file."""
        return self.output / self.place

    def beside(self, folder: str) -> Path:
        """The same place in a tree of its own below the output folder."""
        return self.output / folder / self.place


def plan(
    inputs: Sequence[str | os.PathLike[str]],
    output: Path | None,
    *,
    suffix: str | None = None,
    reserved: Sequence[str] = (),
) -> tuple[list[Job], list[str]]:
    """Pair every input file with its output.

    A folder stands for the pictures below it (not those in hidden folders, nor what lies in the
    output folder); their places below the output folder are the same.

    Args:
        inputs: files and folders.
        output: the output folder; or, for a single input file, a file with the ending of a
            picture. None where no output is wanted.
        suffix: ending of the outputs, with the dot; by default that of the inputs.
        reserved: names of folders below the output that are used for something else.

    Returns:
        The jobs in order of their names, each input once, and what could not be looked into.

    Raises:
        UsageError: an output would take the place of an input or of another output, or nothing
            is there to do.
    """
    if output is not None and SUFFIXES.get(output.suffix.lower()) and not output.is_dir():
        return [_single(inputs, output, suffix)], []
    problems: list[str] = []
    jobs: dict[str, Job] = {}
    for given in map(Path, inputs):
        for source, place in _files(given, output, problems):
            if suffix is not None and SUFFIXES.get(place.suffix.lower()) != SUFFIXES[suffix]:
                place = place.with_suffix(suffix)
            jobs.setdefault(os.path.abspath(source), Job(source, output or Path(), place))
    if not jobs and not problems:
        raise UsageError(f"there is no picture in {', '.join(map(str, inputs))}")
    found = list(jobs.values())
    if output is not None:
        _refuse_collisions(found, reserved)
        _refuse_overwriting_inputs(found)
    return found, problems


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(_cannot_write(folder, error)) from error


def check_writable(folder: Path) -> None:
    """Make the output folder, and find out whether files can be written there.

    Raises:
        UsageError: they cannot.
    """
    make_folder(folder)
    try:
        atomic.check_writable(folder)
    except OSError as error:
        raise UsageError(_cannot_write(folder, error)) from error


def _cannot_write(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written to ({error.strerror}); choose another output folder"


def _single(inputs: Sequence[str | os.PathLike[str]], output: Path, suffix: str | None) -> Job:
    if len(inputs) > 1 or Path(inputs[0]).is_dir():
        raise UsageError(f"{output} is one file; give a folder as output for several pictures")
    if suffix is not None and SUFFIXES[suffix] != SUFFIXES[output.suffix.lower()]:
        raise UsageError(f"{output} does not end in {suffix}; leave out --format or rename it")
    job = Job(Path(inputs[0]), output.parent, Path(output.name))
    _refuse_overwriting_inputs([job])
    return job


def _files(given: Path, output: Path | None, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """The files that an input stands for, and their places below the output folder."""
    if not given.is_dir():
        yield given, Path(given.name)
        return
    skipped = None if output is None else output.resolve()
    if skipped == given.resolve():
        raise UsageError(f"{given} is input and output; choose another output folder")

    def note(error: OSError) -> None:
        problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

    for folder, below, names in os.walk(given, onerror=note):
        here = Path(folder)
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".") and (skipped is None or (here / name).resolve() != skipped)
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield here / name, (here / name).relative_to(given)


def _refuse_collisions(jobs: Sequence[Job], reserved: Sequence[str]) -> None:
    by_target: dict[str, Job] = {}
    for job in jobs:
        other = by_target.setdefault(os.path.normcase(job.target), job)
        if other is not job:
            raise UsageError(
                f"{other.source} and {job.source} would both be written to {job.target}; "
                "rename one of them, or write them to separate folders"
            )
        if job.place.parts[0] in reserved:
            raise UsageError(
                f"{job.source} would be written to {job.target}, in the folder that is used for "
                f"other results ({job.place.parts[0]}); rename the input's folder"
            )


def _refuse_overwriting_inputs(jobs: Sequence[Job]) -> None:
    # The files themselves are compared: one may have several names (links, letter case).
    sources = {identity for job in jobs if (identity := _identity(job.source))}
    for job in jobs:
        if _identity(job.target) in sources:
            raise UsageError(
                f"{job.target} is an input and would be overwritten; choose another output"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # not there: whoever reads it will say so
        return None
    return found.st_dev, found.st_ino
