"""``gfp restore``."""

from __future__ import annotations

import argparse
import logging
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import EXTRAS, RestoreOptions
from .batch import Batch, Steps
from .console import Console
from .exit_codes import CannotStart
from .flags import add_options, add_sources, read_options
from .loading import load, load_weights
from .paths import (
    Job,
    check_writable,
    extended,
    in_order,
    make_folder,
    output_argument,
    path_argument,
    plan,
)

if TYPE_CHECKING:
    from ..faces import Faces, Progress
    from ..io.images import Picture
    from ..pipeline import FaceRestorer, Restoration
    from ..track import Tracks

logger = logging.getLogger(__name__)

FORMATS = {
    "png": ".png",
    "jpg": ".jpg",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tif": ".tif",
    "tiff": ".tif",
}
"""The choices of ``--format``, and the endings of the files written then."""
CROPS, COMPARE = "crops", "compare"
"""Folders in the output folder, of ``--save-crops`` and ``--compare``."""
EXTRA_FLAGS = {
    "region": "--region",
    "reference": "--reference",
    "people": "--person",
    "frame_mask": "--frame-mask",
    "background": "--background",
}
"""The flags of what belongs to the pictures, see `options.EXTRAS`."""


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "restore",
        parents=[talk],
        usage="gfp restore INPUT [INPUT ...] -o OUT [FLAG ...]",
        help="restore the faces of pictures",
        description="Restore the faces of pictures (PNG, JPEG, WebP, TIFF, BMP). Files that are "
        "already finished are skipped, so an interrupted run goes on where it stopped.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=path_argument,
        metavar="INPUT",
        help="picture, or folder of pictures",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=output_argument,
        required=True,
        metavar="OUT",
        help="folder for the results; or, for one picture, a file",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="format of the results (default: that of each picture)",
    )
    parser.add_argument(
        "--save-crops",
        action="store_true",
        help=f"save each face before and after in OUT/{CROPS}",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"save each picture before and after, side by side, in OUT/{COMPARE}",
    )
    parser.add_argument("--overwrite", action="store_true", help="redo files already finished")
    add_sources(parser)
    add_extras(parser)
    add_options(parser)
    parser.set_defaults(run=run)


def add_extras(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the pictures that belong to the pictures."""
    section = parser.add_argument_group("other pictures")
    for name, flag in EXTRA_FLAGS.items():
        words = EXTRAS[name].removesuffix(".").replace("%", "%%")
        if name == "people":
            section.add_argument(
                flag,
                dest=name,
                type=path_argument,
                action="append",
                default=[],
                metavar="FILE",
                help=f"{words}; may be given again, for another person or another picture",
            )
        elif name == "background":
            section.add_argument(
                flag,
                dest=name,
                type=path_argument,
                metavar="PATH",
                help=f"{words}. A picture, or a folder with a picture of the same name for each",
            )
        else:
            section.add_argument(flag, dest=name, type=path_argument, metavar="FILE", help=words)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Restore the faces of pictures; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or the networks cannot be loaded.
    """
    run = _Run(arguments, read_options(arguments))
    todo = load(
        plan,
        arguments.inputs,
        arguments.output,
        suffix=FORMATS.get(arguments.format),
        reserved=[CROPS] * arguments.save_crops + [COMPARE] * arguments.compare,
    )
    if run.options.video.video:
        todo.jobs.sort(key=in_order)
    if todo.jobs:
        load(check_writable, todo.jobs[0].output)
    run.begin(todo.jobs)
    summary = Batch(console, Steps(run.read, run.work, run.write)).run(todo.jobs)
    again = " without --overwrite" if arguments.overwrite else ""
    hint = f"The same command{again} goes on with the rest."
    return summary.conclude(todo, "restored", hint)


class _Run:
    """One run over many files: what is loaded once, and what is known from file to file."""

    def __init__(self, arguments: argparse.Namespace, options: RestoreOptions) -> None:
        """Read what belongs to all pictures.

        Raises:
            CannotStart: options do not go together, or a picture cannot be read.
        """
        self.arguments, self.options = arguments, options
        if (options.color.mode == "reference") != (arguments.reference is not None):
            raise CannotStart("--color reference and --reference FILE belong together: give both")
        self.extras: dict[str, Any] = {}
        if arguments.reference is not None:
            self.extras["reference"] = _frames_of(arguments.reference)
        for name in ("region", "frame_mask"):
            if (path := getattr(arguments, name)) is not None:
                self.extras[name] = _frames_of(path)[:, :3].mean(dim=1)
        self.people = [_frames_of(path)[0] for path in arguments.people]
        self._before: dict[Path, Path] = {}
        self._skipped: set[Path] = set()  # what `read` passed by, which runs ahead of `work`
        self._tracks: dict[Path, Tracks | None] = {}  # of the frames so far, by folder

    def begin(self, jobs: list[Job]) -> None:
        """Note the order of the files."""
        self._before = {job.source: earlier.source for earlier, job in pairwise(jobs)}

    @cached_property
    def restorer(self) -> FaceRestorer:
        """The networks, loaded when the first picture needs them."""
        from ..devices import KEPT_FOR_PICTURES, keep_freed_memory
        from ..pipeline import FaceRestorer

        keep_freed_memory(KEPT_FOR_PICTURES)
        weights = load_weights(self.arguments)
        loaded = load(
            FaceRestorer.load_for, self.options, people=bool(self.people), weights=weights
        )
        if self.people:
            self.extras["people"] = load(loaded.describe, self.people)
        return loaded

    def read(self, job: Job) -> Picture | None:
        """Read a picture; None if it is finished."""
        from ..io.images import check_memory, read_header, read_image

        if not self.arguments.overwrite and self._is_finished(job):
            self._skipped.add(job.source)
            return None
        needed = read_header(job.source).restore_bytes(self.options.upscale)
        check_memory(job.source, needed, "restored")
        picture = read_image(job.source)
        _check_output(job, picture, self.options.upscale)
        return picture

    def work(self, job: Job, picture: Picture, progress: Progress) -> tuple[Picture, Restoration]:
        """Restore a picture."""
        from ..io.images import to_frames
        from ..pipeline import Extra

        folder = job.source.parent
        extras: dict[str, Any] = {}
        if self.options.video.video:
            extras["tracks"] = self._tracks_before(job)
        if self.arguments.background is not None:
            extras["background"] = to_frames(self._background(job))
        restorer = self.restorer  # which describes the people
        extra = Extra(**self.extras, **extras, in_place=True)
        result = restorer.restore(to_frames(picture), self.options, extra=extra, progress=progress)
        self._tracks[folder] = result.tracks
        return picture, result

    def write(self, job: Job, done: tuple[Picture, Restoration]) -> int:
        """Write what became of one file; returns the number of its faces."""
        from ..io.images import SUFFIXES, copy_image, from_frames, write_image

        picture, result = done
        restored = from_frames(result.frames, picture)
        if self.arguments.save_crops:
            _save_crops(picture, result.faces, job.beside(CROPS))
        if self.arguments.compare:
            _save_comparison(picture, restored, job.beside(COMPARE))
        make_folder(job.target.parent)
        same_format = SUFFIXES[job.target.suffix.lower()] == picture.format
        same_size = restored.pixels.shape[:2] == picture.pixels.shape[:2]
        if not len(result.faces) and same_size and same_format and not self.arguments.background:
            copy_image(job.source, job.target)  # as it is: not even encoded once more
        else:
            write_image(job.target, restored)
        return len(result.faces)

    def _is_finished(self, job: Job) -> bool:
        """Whether the outputs are there: each appears whole, and the result itself last."""
        return job.target.exists() and (not self.arguments.compare or job.beside(COMPARE).exists())

    def _tracks_before(self, job: Job) -> Tracks:
        """What is known of the frames of a folder so far; nothing, if the last was skipped."""
        from ..track import Tracks

        if self._before.get(job.source) not in self._skipped:
            return self._tracks.get(job.source.parent) or Tracks()
        logger.info("The frames before were finished earlier: faces are followed from here on.")
        return Tracks()

    def _background(self, job: Job) -> Picture:
        from ..io.images import SUFFIXES, ImageError, read_image

        path: Path = self.arguments.background
        if not path.is_dir():
            return read_image(path)
        exact = path / job.name
        candidates = [exact, *(exact.with_suffix(suffix) for suffix in SUFFIXES)]
        for candidate in candidates:
            if candidate.is_file():
                return read_image(candidate)
        raise ImageError(f"there is no picture {exact} for --background; make it, or leave it out")


def _frames_of(path: Path) -> Any:
    from ..io.images import read_image, to_frames

    return to_frames(load(read_image, path))


def _check_output(job: Job, picture: Picture, upscale: float) -> None:
    """Refuse before the work what could not be written after it."""
    from ..io.images import MAX_PIXELS, SUFFIXES, ImageError

    if job.target.suffix.lower() not in SUFFIXES:
        raise ImageError(
            f"{job.source} is a {picture.format} picture, but its name does not end like one; "
            "say with --format what to write"
        )
    if picture.height * picture.width * upscale**2 > MAX_PIXELS:
        raise ImageError(
            f"{job.source} would become larger than {MAX_PIXELS / 1e6:.0f} megapixels; "
            "choose a smaller --upscale"
        )


def _save_crops(picture: Picture, faces: Faces, path: Path) -> None:
    from ..io.images import from_frames, write_image

    for name, crops in (("input", faces.crops), ("restored", faces.restored)):
        if crops is None:  # no face
            return
        make_folder(path.parent)
        for number in range(len(faces)):
            crop = picture.derived(from_frames(crops[number : number + 1]).pixels)
            write_image(extended(path, f".face{number}.{name}.png"), crop)


def _save_comparison(before: Picture, after: Picture, path: Path) -> None:
    import numpy as np

    from ..io.images import from_frames, to_frames, write_image
    from ..tensors import resize

    left = from_frames(resize(to_frames(before), after.height, after.width)).pixels
    make_folder(path.parent)
    write_image(path, after.derived(np.concatenate([left, after.pixels], axis=1)))
