"""``gfp detect``."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import Option, RestoreOptions
from .console import Console, printable_name, say
from .flags import add_options, add_sources, read_options
from .loading import load, load_detector
from .paths import Job, check_writable, make_folder, output_argument, path_argument, plan

if TYPE_CHECKING:
    from ..detect import FaceDetector
    from ..faces import Face, Faces, Progress
    from ..io.images import Picture


_CROP = 512  # the usual crop of restorers, in which sharpness is measured


def add_parser(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "detect",
        parents=[talk],
        usage="gfp detect INPUT [INPUT ...] [FLAG ...]",
        help="print the faces of pictures",
        description="Print the boxes, scores and landmarks of all faces, in pixels of the upright "
        "picture with (0, 0) at the center of its top left pixel.",
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
        metavar="OUT",
        help="also draw them into pictures in OUT",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list, for programs")
    add_sources(parser)
    add_options(parser, only=takes)
    parser.set_defaults(run=run)


def takes(option: Option) -> bool:
    """Whether the command has an option: those of detecting and selecting."""
    return option.group in ("detection", "selection") or option.name in ("detector", "device")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print the faces of pictures, and draw them where asked; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or the network cannot be loaded.
    """
    from .batch import Batch, Steps

    options = read_options(arguments)
    todo = load(plan, arguments.inputs, arguments.output)
    if todo.jobs and arguments.output is not None:
        load(check_writable, todo.jobs[0].output)
    entries: dict[Path, dict[str, Any]] = {}

    @cache
    def detector() -> FaceDetector:
        return load_detector(arguments, options.networks.detector, options.runtime.device)[2]

    def read(job: Job) -> Picture:
        from ..io.images import read_image

        return read_image(job.source)

    def work(job: Job, picture: Picture, progress: Progress) -> tuple[Picture, Faces]:
        return picture, find_faces(detector(), picture, options, progress)

    def write(job: Job, done: tuple[Picture, Faces]) -> int:
        picture, faces = done
        if arguments.output is not None:
            _draw(picture, faces, job.target)
        entries[job.source] = _entry(job.source, picture, faces)
        if not arguments.json:
            _print_entry(entries[job.source])
        return len(faces)

    summary = Batch(console, Steps(read, work, write)).run(todo.jobs)
    if arguments.json:
        for source, reason in summary.failed.items():
            entries[source] = _entry(source, error=reason)
        rows = [entries[job.source] for job in todo.jobs if job.source in entries]
        say(json.dumps(rows, indent=1))
    return summary.conclude(todo, "with faces")


def find_faces(
    detector: FaceDetector, picture: Picture, options: RestoreOptions, progress: Progress
) -> Faces:
    """The faces of a picture that the options select, in their order."""
    from ..io.images import to_frames
    from ..pipeline import FaceRestorer

    options = options.replace(auto_strength=False)  # which would be looked at for nothing
    facade = FaceRestorer(detector=detector)
    return facade.find(to_frames(picture), options, size=_CROP, progress=progress)


def _draw(picture: Picture, faces: Faces, target: Path) -> None:
    from ..draw import draw_faces
    from ..io.images import write_image

    make_folder(target.parent)
    write_image(target, picture.derived(draw_faces(picture.pixels, faces.faces)))


def _entry(
    source: Path, picture: Picture | None = None, faces: Faces | None = None, error: str = ""
) -> dict[str, Any]:
    """What is said of a file: the same keys for every file."""
    return {
        "file": str(source),
        "width": picture.width if picture else None,
        "height": picture.height if picture else None,
        "faces": [_face(face) for face in faces.faces] if faces else [],
        "error": error or None,
    }


def _face(face: Face) -> dict[str, Any]:
    return {
        "box": [round(float(value), 3) for value in face.box],
        "score": round(float(face.score), 6),
        "landmarks": [[round(float(value), 3) for value in point] for point in face.landmarks],
    }


def _print_entry(entry: dict[str, Any]) -> None:
    count = len(entry["faces"])
    say(f"{printable_name(entry['file'])}: {count} face{'' if count == 1 else 's'}")
    for number, face in enumerate(entry["faces"]):
        box = " ".join(f"{value:.1f}" for value in face["box"])
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in face["landmarks"])
        say(f"  {number}: score {face['score']:.3f}  box {box}  landmarks {points}")
