"""Words into paths: which file becomes which, from what the command line names.

This is the one place that turns words into paths, and the one that makes names of results.
"""

from __future__ import annotations

import argparse
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..io.formats import CLIP_SUFFIXES, READABLE_SUFFIXES, SUFFIXES
from ..io.names import result_name

# An output with such an ending is meant to be a file, and so is one of a type of `_MEDIA`.
_FILE_ENDINGS = (".avif", ".heic", ".heif", ".jxl", ".jp2", ".exr", ".hdr", ".dng", ".raw", ".psd")
_MEDIA = ("image/", "video/", "audio/", "text/")


class UsageError(ValueError):
    """What the command line asks for is not possible as a whole; says what to ask for."""


@dataclass(frozen=True)
class Job:
    """One file to work on."""

    source: Path
    """The input."""
    output: Path
    """The output folder."""
    name: Path
    """The result's path below the output folder."""
    is_clip: bool = False
    """Whether the input is a clip, not a picture."""

    @property
    def target(self) -> Path:
        """The result's file."""
        return self.output / self.name

    def beside(self, folder: str) -> Path:
        """The same path in a tree of its own below the output folder."""
        return self.output / folder / self.name


@dataclass
class Plan:
    """What there is to do."""

    jobs: list[Job] = field(default_factory=list)
    """In order of their names, each input once."""
    problems: list[str] = field(default_factory=list)
    """What could not be looked into."""
    is_single: bool = False
    """Whether the output is a file, not a folder."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """Numbers of the files in folders that are of no format that is read, by their endings."""
    linked_folders: list[Path] = field(default_factory=list)
    """Links to folders in folders, which are not followed."""

    @property
    def notes(self) -> list[str]:
        """What was passed over, in words."""
        notes = []
        if self.passed_over:
            kinds = [f"{number} {kind}" for kind, number in self.passed_over.most_common(8)]
            more = ["..."] if len(self.passed_over) > len(kinds) else []
            files = self.passed_over.total()
            notes.append(
                f"Passed over {files} {'file' if files == 1 else 'files'} of other kinds "
                f"({', '.join(kinds + more)}); pictures among them must be converted first."
            )
        if self.linked_folders:
            names = ", ".join(map(str, self.linked_folders[:3]))
            more_links = ", ..." if len(self.linked_folders) > 3 else ""
            notes.append(f"Links to folders are not followed ({names}{more_links}): name them too.")
        return notes


def path_of(text: str) -> Path:
    """Return the path that a word means; a leading ``~`` is the home folder.

    Raises:
        UsageError: the word is empty, or means nothing here.
    """
    if not text.strip():
        raise UsageError("an empty text names no file; write . for the folder you are in")
    if "\0" in text:
        raise UsageError(f"{text!r} holds a null character, which no file's name may")
    if not text.startswith("~") or os.path.lexists(text):
        return Path(text)
    expanded = os.path.expanduser(text)
    if expanded == text and re.match(r"~(?:[/\\]|$)", text):
        raise UsageError(f"{text}: the home folder is not known here; write the path in full")
    return Path(expanded)


def path_argument(text: str) -> Path:
    """`path_of`, as the type of an argument."""
    try:
        return path_of(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_argument(text: str) -> str:
    """Check the word for an output, which `plan` makes a file or a folder of."""
    path_argument(text)
    return text


def plan(
    inputs: Sequence[Path],
    output: str | None,
    *,
    suffix: str | None = None,
    reserved: Sequence[str] = (),
    clips: bool = False,
) -> Plan:
    """Pair every input file with its output.

    A folder stands for the pictures below it (not those in hidden folders, nor what lies in the
    output folder); their paths below the output folder are the same.

    Args:
        inputs: files and folders.
        output: the output folder; or, for a single input file, a file with the ending of a
            picture. None where no output is wanted.
        suffix: ending of the outputs, with the dot; by default that of the inputs, or PNG where
            the inputs' format is read but not written.
        reserved: names of folders below the output that are used for something else.
        clips: whether clips are taken, too; they keep their endings.

    Raises:
        UsageError: an output would take the place of an input or of another output, or nothing
            is there to do.
    """
    folder = None if output is None else path_of(output)
    is_clip = _is_clip if clips else _is_no_clip
    if folder is not None and output is not None and _means_a_file(output, folder, inputs, is_clip):
        return Plan([_single(inputs, folder, suffix, is_clip)], is_single=True)
    planned = Plan()
    jobs: dict[str, Job] = {}
    for source_root in inputs:
        for source, name in _files(source_root, folder, planned, is_clip):
            if is_clip(source):
                clip = Job(source, folder or Path(), name, is_clip=True)
                jobs.setdefault(os.path.abspath(source), clip)
                continue
            name = result_name(name, suffix)
            jobs.setdefault(os.path.abspath(source), Job(source, folder or Path(), name))
    planned.jobs = list(jobs.values())
    if not jobs and not planned.problems:
        where = ", ".join(map(str, inputs))
        raise UsageError(" ".join([f"there is no picture in {where}.", *planned.notes]))
    if folder is not None:
        _refuse_collisions(planned.jobs, reserved)
        _refuse_overwriting_inputs(planned.jobs)
    return planned


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        UsageError: the folder cannot be made.
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
    from ..io import atomic

    make_folder(folder)
    try:
        atomic.check_writable(folder)
    except OSError as error:
        raise UsageError(_cannot_write(folder, error)) from error


def in_order(job: Job) -> tuple[Path, list[tuple[int, str]]]:
    """Sort by folder, and within each by name, with numbers as numbers: 2 before 10."""
    parts = re.split(r"([0-9]+)", job.source.name)
    return job.source.parent, [
        (int(run) if number % 2 else -1, run) for number, run in enumerate(parts)
    ]


def _cannot_write(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be written to ({error.strerror}); choose another output folder"


def _is_clip(path: Path) -> bool:
    """Whether a file is a clip by its name; a GIF is one if it moves."""
    ending = path.suffix.lower()
    if ending not in READABLE_SUFFIXES:
        return ending in CLIP_SUFFIXES
    return ending in CLIP_SUFFIXES and is_animated(path)


def _is_no_clip(path: Path) -> bool:
    return False


def is_animated(path: Path) -> bool:
    """Whether a picture file holds more than one picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False  # whoever reads it will say so


def _means_a_file(
    text: str, output: Path, inputs: Sequence[Path], is_clip: Callable[[Path], bool]
) -> bool:
    """Whether the output is a file, not a folder.

    Raises:
        UsageError: a file is meant, of a format that is not written.
    """
    if output.is_dir() or text.endswith(("/", os.sep)):
        return False
    ending = output.suffix.lower()
    if ending in SUFFIXES:
        return True
    is_one = len(inputs) == 1 and not inputs[0].is_dir()
    if ending in CLIP_SUFFIXES and is_one and is_clip(inputs[0]):
        return True
    import mimetypes

    # As Python knows them, the same everywhere, without what the system adds.
    kind = mimetypes.MimeTypes().guess_type(f"a{ending}")[0] or ""
    if is_one and (kind.startswith(_MEDIA) or ending in _FILE_ENDINGS):
        raise UsageError(
            f"{output}: pictures are written as {', '.join(SUFFIXES)}; choose one of these "
            f"endings, or write {output}{os.sep} for a folder of this name"
        )
    return False


def _single(
    inputs: Sequence[Path], output: Path, suffix: str | None, is_clip: Callable[[Path], bool]
) -> Job:
    if len(inputs) > 1 or inputs[0].is_dir():
        raise UsageError(f"{output} is one file; give a folder as output for several pictures")
    ending = output.suffix.lower()
    is_one = is_clip(inputs[0]) and ending in CLIP_SUFFIXES
    if not is_one and is_clip(inputs[0]) and inputs[0].suffix.lower() not in READABLE_SUFFIXES:
        raise UsageError(
            f"{inputs[0]} is a clip, and {output} does not end like one; choose one of the endings "
            f"{', '.join(CLIP_SUFFIXES)}"
        )
    if not is_one and suffix is not None and SUFFIXES[suffix] != SUFFIXES[ending]:
        raise UsageError(f"{output} does not end in {suffix}; leave out --format or rename it")
    job = Job(inputs[0], output.parent, Path(output.name), is_clip=is_one)
    _refuse_overwriting_inputs([job])
    return job


def _files(
    root: Path, output: Path | None, planned: Plan, is_clip: Callable[[Path], bool]
) -> Iterator[tuple[Path, Path]]:
    """The files that an input stands for, and their paths below the output folder."""
    if not root.is_dir():
        yield root, Path(root.name)
        return
    excluded = None if output is None else output.resolve()
    if excluded == root.resolve():
        raise UsageError(f"{root} is input and output; choose another output folder")

    def note(error: OSError) -> None:
        planned.problems.append(f"{error.filename} cannot be looked into ({error.strerror})")

    for parent, below, names in os.walk(root, onerror=note):
        folder = Path(parent)
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".")
            and (excluded is None or (folder / name).resolve() != excluded)
        )
        planned.linked_folders += [folder / name for name in below if (folder / name).is_symlink()]
        for name in sorted(name for name in names if not name.startswith(".")):
            ending = Path(name).suffix.lower()
            if ending in READABLE_SUFFIXES or is_clip(folder / name):
                yield folder / name, (folder / name).relative_to(root)
            else:
                planned.passed_over[ending or "without an ending"] += 1


def _refuse_collisions(jobs: Sequence[Job], reserved: Sequence[str]) -> None:
    fold = _folding(jobs) if _would_clash(jobs) else os.path.normcase
    by_target: dict[str, Job] = {}
    for job in jobs:
        earlier = by_target.setdefault(fold(os.fspath(job.target)), job)
        if earlier is not job:
            raise UsageError(
                f"{earlier.source} and {job.source} would both be written to {job.target}; "
                "rename one of them, or write them to separate folders"
            )
        if job.name.parts[0] in reserved:
            raise UsageError(
                f"{job.source} would be written to {job.target}, in the folder that is used for "
                f"other results ({job.name.parts[0]}); rename the input's folder"
            )


def _would_clash(jobs: Sequence[Job]) -> bool:
    """Whether names differ in letter case or Unicode form alone, which some disks do not hold."""
    return len({_nfc(str(job.name).casefold()) for job in jobs}) < len(jobs)


def _folding(jobs: Sequence[Job]) -> Callable[[str], str]:
    """What the output's file system takes for one name, found out by a file made there."""
    folder = jobs[0].output
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    stem = f".gfp-{os.urandom(8).hex()}-"
    probe = folder / f"{stem}\u00c4.part"
    case = form = False
    with suppress(OSError):
        probe.touch()
        try:
            case = (folder / f"{stem}\u00e4.PART").exists()
            form = (folder / f"{stem}A\u0308.part").exists()
        finally:
            probe.unlink()

    def fold(name: str) -> str:
        name = _nfc(name) if form else name
        return name.casefold() if case else os.path.normcase(name)

    return fold


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _refuse_overwriting_inputs(jobs: Sequence[Job]) -> None:
    # The files themselves are compared: one may have several names (links, letter case).
    sources = {identity for job in jobs if (identity := _identity(job.source))}
    for job in jobs:
        if _identity(job.target) in sources:
            raise UsageError(
                f"{job.target} is an input and would be overwritten; choose another output"
            )


def refuse_comparisons_over_inputs(jobs: Sequence[Job], folder: str) -> None:
    """Refuse jobs of which a file beside a result would take the place of an input.

    Args:
        jobs: what there is to do.
        folder: of the files beside the results, see `Job.beside`.

    Raises:
        UsageError: says which input.
    """
    sources = {identity for job in jobs if (identity := _identity(job.source))}
    for job in jobs:
        if _identity(job.beside(folder)) in sources:
            raise UsageError(
                f"{job.beside(folder)} is an input, and what --{folder} makes would be written "
                "over it; choose another output"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # not there: whoever reads it will say so
        return None
    return status.st_dev, status.st_ino
