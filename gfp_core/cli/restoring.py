"""What `gfp restore` does with each file: read, restore, write, note what made the result."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import memory
from ..io.images import (
    MAX_PIXELS,
    SUFFIXES,
    ImageError,
    Picture,
    check_memory,
    copy_image,
    from_frames,
    read_header,
    read_image,
    to_frames,
    write_image,
)
from ..io.names import extended
from ..io.writing import check_side
from ..options import FileOptions
from ..recipe import Record, network_hashes, recipe_of
from .clips import Clips
from .console import count
from .exit_codes import CannotStart
from .finished import RESULT, Results, Todo
from .loading import load, load_weights
from .paths import Job, Plan, check_writable, make_folder
from .restore import COMPARE, CROPS

if TYPE_CHECKING:
    from torch import Tensor

    from ..clips import ClipSummary
    from ..faces import Faces, Progress, Tracks
    from ..pipeline import FaceRestorer, Restoration

logger = logging.getLogger(__name__)

_LARGEST_SCALE = 4.0  # of the usual models for backgrounds


@dataclass(frozen=True)
class Item:
    """A picture that was read, and what is to be made of it."""

    picture: Picture
    todo: Todo
    background: Picture | None = None


class Restoring:
    """One run over many files: what is loaded once, and what is known from file to file."""

    def __init__(self, arguments: argparse.Namespace, options: FileOptions) -> None:
        """Read what belongs to all pictures.

        Raises:
            CannotStart: options do not go together, or a picture cannot be read.
        """
        self.arguments, self.options, self.file_options = arguments, options.restoration, options
        if arguments.background is not None and self.options.networks.background_model is not None:
            raise CannotStart("give --background or --background-model, not both")
        if (options.color.mode == "reference") != (arguments.reference is not None):
            raise CannotStart("--color reference and --reference FILE belong together: give both")
        self.extras: dict[str, Any] = {}
        if arguments.reference is not None:
            self.extras["reference"] = _frames_of(arguments.reference)
        for name in ("region", "frame_mask"):
            if (path := getattr(arguments, name)) is not None:
                self.extras[name] = _frames_of(path)[:, :3].mean(dim=1)
        self.people = [_frames_of(path)[0] for path in arguments.people]
        kinds = {RESULT, CROPS * arguments.save_crops, COMPARE * arguments.compare}
        self._kinds = frozenset(kind for kind in kinds if kind)
        self._before: dict[Path, Path] = {}
        self._skipped: set[Path] = set()  # what `read` passed by, which runs ahead of `work`
        self._tracks: dict[Path, Tracks | None] = {}  # of the frames so far, by folder

    def begin(self, plan: Plan) -> None:
        """Check what all pictures need before any is read, and look at earlier results.

        Raises:
            CannotStart: there is no such model or device, or nothing can be written.
        """
        self._leave_out_clips_without_library(plan)
        if not plan.jobs:
            return
        output = plan.jobs[0].output
        load(check_writable, output)
        if self.options.runtime.device is not None:
            from ..devices import pick

            load(pick, self.options.runtime.device)
        self._weights = load_weights(self.arguments)
        networks: Mapping[str, str] = load(
            network_hashes, self.options, self._weights, people=bool(self.people)
        )
        recipe = load(recipe_of, self.options, networks, self._others())
        self._results = Results(output, recipe, manifest=not plan.is_single)
        names = tuple(name for name, paths in self._others().items() if paths)
        self._record = Record(self.options, recipe, networks, names)
        if any(job.is_clip for job in plan.jobs):
            recipe = load(recipe_of, self.file_options, networks, self._others())
            results = Results(output, recipe, manifest=not plan.is_single)
            record = Record(self.file_options, recipe, networks, names)
            self._clips = Clips(self.arguments, self.file_options, results, record)
        pictures = [job for job in plan.jobs if not job.is_clip]
        self._before = {job.source: earlier.source for earlier, job in pairwise(pictures)}

    def _leave_out_clips_without_library(self, plan: Plan) -> None:
        """Leave clips out of a plan where they cannot be read, and say so once.

        Raises:
            CannotStart: nothing else is to be done.
        """
        clips = [job for job in plan.jobs if job.is_clip]
        if not clips:
            return
        from ..io.video import VideoError, import_av

        try:
            import_av()
        except VideoError as error:
            plan.jobs[:] = [job for job in plan.jobs if not job.is_clip]
            message = f"{count(len(clips), 'clip')} left out, such as {clips[0].source}: {error}"
            if not plan.jobs:
                raise CannotStart(message) from error
            plan.problems.append(message)

    def _others(self) -> dict[str, list[Path]]:
        """The pictures that belong to all pictures, by what they are for."""
        values = {name: getattr(self.arguments, name) for name in ("reference", "region")}
        values["frame_mask"] = self.arguments.frame_mask
        others = {name: [] if path is None else [path] for name, path in values.items()}
        return {**others, "people": list(self.arguments.people)}

    @cached_property
    def restorer(self) -> FaceRestorer:
        """The networks, loaded when the first picture needs them."""
        from ..devices import KEPT_FOR_PICTURES, keep_freed_memory
        from ..pipeline import FaceRestorer

        keep_freed_memory(KEPT_FOR_PICTURES)
        loaded = load(
            FaceRestorer.load_for,
            self.options,
            people=bool(self.people),
            weights=self._weights,
        )
        if self.people:
            self.extras["people"] = self._describe(loaded)
        return loaded

    def _describe(self, restorer: FaceRestorer) -> Tensor:
        """Embed the people of ``--person``.

        Raises:
            CannotStart: a picture shows no face; names the file.
        """
        import torch

        rows = []
        for path, picture in zip(self.arguments.people, self.people, strict=True):
            try:
                rows.append(restorer.describe([picture]))
            except ValueError as error:
                raise CannotStart(f"--person {path}: {error}") from error
        return torch.cat(rows)

    def read(self, job: Job) -> Item | Job | None:
        """Read a picture, or see what a clip needs; None if it is finished."""
        if job.is_clip:
            return self._clips.read(job)
        background = self._background_of(job)
        todo = Todo(self._kinds)
        if not self.arguments.overwrite:
            todo = self._results.todo(job, self._kinds, _listed(background))
            if not todo.kinds:
                self._skipped.add(job.source)
                return None
            if todo.reason:
                logger.info("Restored again: %s.", todo.reason)
            elif RESULT not in todo.kinds:
                logger.info("Finished before: %s to be added.", " and ".join(sorted(todo.kinds)))
        levels = self._takes_levels(background)
        needed = read_header(job.source).restore_bytes(self._upscale, levels=levels)
        if "restorer" not in vars(self):  # not loaded yet
            needed += memory.NETWORK_BYTES
        check_memory(job.source, needed, "restored")
        picture = read_image(job.source, levels=levels)
        _check_output(job, picture, self._upscale)
        _check_sides(job, picture, self.options.upscale, compare=COMPARE in todo.kinds)
        return Item(picture, todo, read_image(background) if background else None)

    def _takes_levels(self, background: Path | None) -> bool:
        """Whether pictures stay in whole numbers: where nothing is enlarged or steadied."""
        options = self.options
        plain = options.upscale == 1 and options.networks.background_model is None
        return plain and background is None and not options.video.video

    @property
    def _upscale(self) -> float:
        """How many times as large results become; before the upscaler is loaded, at most."""
        upscale = self.options.upscale
        if self.options.networks.background_model is None or upscale != 1:
            return upscale
        loaded = vars(self).get("restorer")
        return float(loaded.upscaler.scale) if loaded is not None else _LARGEST_SCALE

    def work(
        self, job: Job, item: Item | Job, progress: Progress
    ) -> tuple[Item, Restoration] | ClipSummary:
        """Restore a picture, or a clip, which is written as well."""
        from ..pipeline import Extra

        if isinstance(item, Job):
            restorer = self.restorer  # which describes the people
            return self._clips.work(job, restorer, self.extras, progress)
        extras: dict[str, Any] = {}
        if self.options.video.video:
            extras["tracks"] = self._tracks_before(job)
        if item.background is not None:
            extras["background"] = to_frames(item.background)
        restorer = self.restorer  # which describes the people
        # Frames of whole numbers share the picture's memory, which the comparison shows as it was.
        in_place = not (item.picture.has_levels and COMPARE in item.todo.kinds)
        extra = Extra(**self.extras, **extras, in_place=in_place)
        result = restorer.restore(
            to_frames(item.picture), self.options, extra=extra, progress=progress
        )
        self._tracks[job.source.parent] = result.tracks
        return item, result

    def write(self, job: Job, done: tuple[Item, Restoration] | ClipSummary) -> int:
        """Write what became of one file; returns the number of its faces."""
        if not isinstance(done, tuple):
            return self._clips.write(job, done)
        item, result = done
        restored = from_frames(result.frames, item.picture)
        files: dict[str, list[Path]] = {}
        if CROPS in item.todo.kinds:
            files[CROPS] = _save_crops(item.picture, result.faces, job.beside(CROPS))
        if COMPARE in item.todo.kinds:
            files[COMPARE] = _save_comparison(item.picture, restored, job.beside(COMPARE))
        if RESULT in item.todo.kinds:
            make_folder(job.target.parent)
            if not len(result.faces) and _is_unchanged(job, item, restored):
                copy_image(job.source, job.target)  # as it is: not even encoded once more
            else:
                record = self._record.text(job.source) if self.arguments.record else ""
                write_image(job.target, restored, record=record)
            files[RESULT] = [job.target]
        self._results.note(job, files, _listed(self._background_of(job)))
        return len(result.faces)

    def _tracks_before(self, job: Job) -> Tracks:
        """What is known of the frames of a folder so far; nothing, if the last was skipped."""
        from ..faces import Tracks

        if self._before.get(job.source) not in self._skipped:
            return self._tracks.get(job.source.parent) or Tracks()
        logger.info("The frames before were finished earlier: faces are followed from here on.")
        return Tracks()

    def _background_of(self, job: Job) -> Path | None:
        """The picture that ``--background`` names for a file.

        Raises:
            ImageError: its folder has none.
        """
        path: Path | None = self.arguments.background
        if path is None or not path.is_dir():
            return path
        exact = path / job.name
        for candidate in (exact, *(exact.with_suffix(suffix) for suffix in SUFFIXES)):
            if candidate.is_file():
                return candidate
        raise ImageError(f"there is no picture {exact} for --background; make it, or leave it out")


def _listed(path: Path | None) -> list[Path]:
    return [] if path is None else [path]


def _is_unchanged(job: Job, item: Item, restored: Picture) -> bool:
    """Whether a result without a face is the picture itself, and in its format."""
    same_format = SUFFIXES[job.target.suffix.lower()] == item.picture.format
    same_size = restored.pixels.shape == item.picture.pixels.shape
    return same_format and same_size and item.background is None


def _frames_of(path: Path) -> Any:
    return to_frames(load(read_image, path))


def _check_output(job: Job, picture: Picture, upscale: float) -> None:
    """Refuse before the work what could not be written after it."""
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


def _check_sides(job: Job, picture: Picture, upscale: float, *, compare: bool) -> None:
    """Refuse before the work what its format has no room for; a comparison is twice as wide."""
    width, height = round(picture.width * upscale), round(picture.height * upscale)
    kind = SUFFIXES[job.target.suffix.lower()]
    try:
        check_side(width * (1 + compare), height, kind)
    except ValueError as error:
        what = "the comparison" if compare else "the result"
        raise ImageError(
            f"{job.source}: {what} cannot be written as {kind} ({error}); choose --format png"
        ) from error


def _save_crops(picture: Picture, faces: Faces, path: Path) -> list[Path]:
    """Write each face before and after; returns the files."""
    files = []
    for name, crops in (("input", faces.crops), ("restored", faces.restored)):
        if crops is None:  # no face
            return []
        make_folder(path.parent)
        for number in range(len(faces)):
            file = extended(path, f".face{number}.{name}.png")
            crop = from_frames(crops[number : number + 1])
            write_image(file, picture.derived(crop.pixels), record="")
            files.append(file)
    return files


def _save_comparison(before: Picture, after: Picture, path: Path) -> list[Path]:
    """Write a picture before and after, side by side; returns the file."""
    import numpy as np

    from ..tensors import resize

    resized = from_frames(resize(to_frames(before), after.height, after.width)).pixels
    make_folder(path.parent)
    both = after.derived(np.concatenate([resized, after.pixels], axis=1))
    write_image(path, both, record="")
    return [path]
