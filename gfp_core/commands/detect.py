"""``gfp detect``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.images import Picture, read_image, to_frames, write_image
from .jobs import Job, check_writable, make_folder, plan
from .running import Console, Steps, load, load_detector

if TYPE_CHECKING:
    from ..detect import FaceDetector
    from ..faces import Face, Faces, Progress


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the faces of pictures, and draw them where asked; returns the exit code.

    Raises:
        CannotStart: the command makes no sense, or the network cannot be loaded.
    """
    jobs, problems = load(plan, options.inputs, options.output)
    if jobs and options.output is not None:
        load(check_writable, jobs[0].output)
    entries: dict[Path, dict[str, Any]] = {}

    @cache
    def detector() -> FaceDetector:
        return load_detector(options)[2]

    def read(job: Job) -> Picture:
        return read_image(job.source)

    def work(job: Job, picture: Picture, progress: Progress) -> tuple[Picture, Faces]:
        chosen = {} if options.score is None else {"score": options.score}
        return picture, detector().detect(to_frames(picture), progress=progress, **chosen)

    def write(job: Job, done: tuple[Picture, Faces]) -> int:
        picture, faces = done
        if options.output is not None:
            _draw(picture, faces, job.target)
        entries[job.source] = _entry(job.source, picture, faces)
        if not options.json:
            _print_entry(entries[job.source])
        return len(faces)

    summary = console.work_through(jobs, Steps(read, work, write))
    if options.json:
        for source, reason in summary.failed.items():
            entries[source] = _entry(source, error=reason)
        print(json.dumps([entries[job.source] for job in jobs if job.source in entries], indent=1))
    return console.conclude(summary, problems, "with faces")


def _draw(picture: Picture, faces: Faces, target: Path) -> None:
    from ..draw import draw_faces

    make_folder(target.parent)
    write_image(target, replace(picture, pixels=draw_faces(picture.pixels, faces.faces)))


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
    lines = [f"{entry['file']}: {count} face{'' if count == 1 else 's'}"]
    for number, face in enumerate(entry["faces"]):
        box = " ".join(f"{value:.1f}" for value in face["box"])
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in face["landmarks"])
        lines.append(f"  {number}: score {face['score']:.3f}  box {box}  landmarks {points}")
    # A file's name may hold what the terminal cannot show.
    encoding = sys.stdout.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "backslashreplace").decode(encoding))
