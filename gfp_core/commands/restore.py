"""``gfp restore``."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..cli import COMPARE, CROPS, FORMATS
from ..images import (
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
from .running import CannotStart, Console, load, load_weights

if TYPE_CHECKING:
    from ..faces import Faces
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
    inputs: dict[str, Any] = {}
    if options.reference is not None:
        inputs["reference"] = to_frames(load(read_image, options.reference))
    if options.region is not None:
        inputs["region"] = to_frames(load(read_image, options.region))[:, :3].mean(dim=1)
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
        from ..pipeline import FaceRestorer

        loaded = load(
            FaceRestorer.load,
            options.model,
            options.detector,
            embedder=options.embedder if compares else None,
            device=options.device,
            weights=load_weights(options),
        )
        if persons:
            inputs["people"] = load(loaded.describe, persons)
        return loaded

    following: dict[Path, Tracks | None] = {}  # by folder; None behind frames that were skipped

    def work(job: Job, progress: Callable[[int, int], None]) -> int | None:
        folder = job.source.parent
        if not options.overwrite and _is_finished(job, options.compare):
            following[folder] = None
            return None
        if options.frames:
            inputs["tracks"] = _tracks(following, folder)
        result = _restore_file(job, options, restorer, inputs, progress)
        following[folder] = result.tracks
        return len(result.faces)

    again = " without --overwrite" if options.overwrite else ""
    hint = f"The same command{again} goes on with the rest."
    return console.conclude(console.work_through(jobs, work), problems, "restored", hint)


def _is_finished(job: Job, compare: bool) -> bool:
    """Whether the outputs are there: each appears whole, and the result itself last."""
    return job.target.exists() and (not compare or job.beside(COMPARE).exists())


def _restore_file(
    job: Job,
    options: argparse.Namespace,
    restorer: Callable[[], FaceRestorer],
    inputs: dict[str, Any],
    progress: Callable[[int, int], None],
) -> Restoration:
    """Restore one file; returns what became of it."""
    picture = read_image(job.source)
    _check_output(job, picture, options.upscale)
    chosen = {} if options.score is None else {"score": options.score}
    result = restorer().restore(  # loading it adds the people to the inputs
        to_frames(picture),
        strength=options.strength,
        fidelity=options.fidelity,
        upscale=options.upscale,
        mask=options.mask,
        color=options.color,
        color_strength=options.color_strength,
        grey=options.grey,
        order=options.order.replace("-", " "),
        which=options.which,
        min_size=options.min_size,
        max_size=options.max_size,
        rotations=(0, 90, 180, 270) if options.turned else (0,),
        max_sharpness=options.max_sharpness,
        identity_limit=options.identity,
        progress=progress,
        **inputs,
        **chosen,
    )
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
    return result


def _in_order(job: Job) -> tuple[Path, list[tuple[int, str]]]:
    """Folder by folder, and within each by name, with numbers as numbers: 2 before 10."""
    parts = re.split(r"(\d+)", job.source.name)
    return job.source.parent, [(int(part) if part.isdigit() else -1, part) for part in parts]


def _tracks(following: dict[Path, Tracks | None], folder: Path) -> Tracks:
    """What is known of the frames of a folder before the next."""
    from ..track import Tracks

    known = following.get(folder, Tracks())
    if known is None:
        logger.info("The frames before were finished earlier: faces are followed from here on.")
        return Tracks()
    return known


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
