"""``gfp restore``."""

from __future__ import annotations

import argparse
import logging
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..cli import COMPARE, CROPS, FORMATS
from ..io.images import (
    MAX_PIXELS,
    SUFFIXES,
    ImageError,
    Picture,
    copy_image,
    from_frames,
    read_image,
    to_frames,
    write_image,
)
from .jobs import Job, check_writable, make_folder, plan
from .running import CannotStart, Console, Steps, load, load_weights

if TYPE_CHECKING:
    from ..faces import Faces, Progress
    from ..options import Blend, Mask
    from ..pipeline import FaceRestorer, Restoration
    from ..track import Tracks

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace, console: Console) -> int:
    """Restore the faces of pictures; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or the networks cannot be loaded.
    """
    if (options.color == "reference") != (options.reference is not None):
        raise CannotStart("--color reference and --reference FILE belong together: give both")
    mask, blend = load(_mask, options), load(_blend, options)
    how: dict[str, Any] = {"mask": mask, "blend": blend}
    if options.reference is not None:
        how["reference"] = to_frames(load(read_image, options.reference))
    if options.region is not None:
        how["region"] = to_frames(load(read_image, options.region))[:, :3].mean(dim=1)
    persons = [to_frames(load(read_image, path))[0] for path in options.person or ()]
    compares = bool(persons) or options.identity is not None
    reserved = [CROPS] * options.save_crops + [COMPARE] * options.compare
    suffix = FORMATS.get(options.format)
    jobs, problems = load(plan, options.inputs, options.output, suffix=suffix, reserved=reserved)
    if options.frames:
        jobs.sort(key=_in_order)
    if jobs:
        load(check_writable, jobs[0].output)

    @cache
    def restorer() -> FaceRestorer:
        from ..devices import KEPT_FOR_PICTURES, keep_freed_memory
        from ..pipeline import FaceRestorer

        keep_freed_memory(KEPT_FOR_PICTURES)
        loaded = load(
            FaceRestorer.load,
            options.model,
            options.detector,
            parser=options.parser or ("bisenet" if mask.needs_parser else None),
            embedder=options.embedder if compares else None,
            device=options.device,
            precision=options.precision,
            engine=options.engine,
            weights=load_weights(options),
        )
        if persons:
            how["people"] = load(loaded.describe, persons)
        return loaded

    before = {job.source: earlier.source for earlier, job in pairwise(jobs)}
    skipped: set[Path] = set()  # what `read` found finished, which runs ahead of `work`
    following: dict[Path, Tracks | None] = {}  # what is known of the frames so far, by folder

    def read(job: Job) -> Picture | None:
        if not options.overwrite and _is_finished(job, options.compare):
            skipped.add(job.source)
            return None
        picture = read_image(job.source)
        _check_output(job, picture, options.upscale)
        return picture

    def work(job: Job, picture: Picture, progress: Progress) -> tuple[Picture, Restoration]:
        folder = job.source.parent
        if options.frames:
            how["tracks"] = _tracks(following, folder, before.get(job.source) in skipped)
        result = _restore(picture, options, restorer(), how, progress)
        following[folder] = result.tracks
        return picture, result

    def write(job: Job, done: tuple[Picture, Restoration]) -> int:
        return _write(job, *done, options)

    again = " without --overwrite" if options.overwrite else ""
    hint = f"The same command{again} goes on with the rest."
    return console.conclude(
        console.work_through(jobs, Steps(read, work, write)), problems, "restored", hint
    )


def _mask(options: argparse.Namespace) -> Mask:
    from ..options import Mask

    parts = Mask().parts if options.parts is None else options.parts
    return Mask(options.mask, options.feather, options.grow, parts, options.occlusion)


def _blend(options: argparse.Namespace) -> Blend:
    from ..options import Blend

    return Blend(detail=options.detail, grain=options.grain)


def _is_finished(job: Job, compare: bool) -> bool:
    """Whether the outputs are there: each appears whole, and the result itself last."""
    return job.target.exists() and (not compare or job.beside(COMPARE).exists())


def _restore(
    picture: Picture,
    options: argparse.Namespace,
    restorer: FaceRestorer,
    how: dict[str, Any],
    progress: Progress,
) -> Restoration:
    """Restore one picture; ``how`` are options of `FaceRestorer.restore` ready for all files."""
    chosen = {} if options.score is None else {"score": options.score}
    return restorer.restore(
        to_frames(picture),
        strength=options.strength,
        fidelity=options.fidelity,
        upscale=options.upscale,
        auto_strength=options.auto_strength,
        color=options.color,
        color_strength=options.color_strength,
        keep_monochrome=options.grey,
        order=options.order.replace("-", " "),
        select=options.which,
        min_size=options.min_size,
        max_size=options.max_size,
        rotations=(0, 90, 180, 270) if options.turned else (0,),
        max_sharpness=options.max_sharpness,
        identity_limit=options.identity,
        in_place=True,
        progress=progress,
        **how,
        **chosen,
    )


def _write(job: Job, picture: Picture, result: Restoration, options: argparse.Namespace) -> int:
    """Write what became of one file; returns the number of its faces."""
    restored = from_frames(result.frames, picture)
    if options.save_crops:
        _save_crops(result.faces, job.beside(CROPS))
    if options.compare:
        _save_comparison(picture, restored, job.beside(COMPARE))
    make_folder(job.target.parent)
    same_format = SUFFIXES[job.target.suffix.lower()] == picture.format
    if not len(result.faces) and options.upscale == 1 and same_format:
        copy_image(job.source, job.target)  # as it is: not even encoded once more
    else:
        write_image(job.target, restored)
    return len(result.faces)


def _in_order(job: Job) -> tuple[Path, list[tuple[int, str]]]:
    """Folder by folder, and within each by name, with numbers as numbers: 2 before 10."""
    parts = re.split(r"(\d+)", job.source.name)
    return job.source.parent, [(int(part) if part.isdigit() else -1, part) for part in parts]


def _tracks(following: dict[Path, Tracks | None], folder: Path, skipped: bool) -> Tracks:
    """What is known of the frames of a folder before the next; nothing, if the last was skipped."""
    from ..track import Tracks

    if not skipped:
        return following.get(folder) or Tracks()
    logger.info("The frames before were finished earlier: faces are followed from here on.")
    return Tracks()


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


def _save_crops(faces: Faces, place: Path) -> None:
    for name, crops in (("input", faces.crops), ("restored", faces.restored)):
        if crops is None:  # no face
            return
        make_folder(place.parent)
        for number in range(len(faces)):
            crop = from_frames(crops[number : number + 1])
            write_image(place.with_name(f"{place.name}.face{number}.{name}.png"), crop)


def _save_comparison(before: Picture, after: Picture, place: Path) -> None:
    left: NDArray[Any] = before.pixels
    if left.shape[:2] != after.pixels.shape[:2]:
        left = cv2.resize(left, (after.width, after.height), interpolation=cv2.INTER_CUBIC)
    make_folder(place.parent)
    write_image(place, replace(after, pixels=np.concatenate([left, after.pixels], axis=1)))
