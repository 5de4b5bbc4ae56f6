"""The faces of frames that the pipeline goes on with: those found that can be aligned."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from .align import align
from .choose import LIKE, inside, like
from .detect import DEFAULT_SCORE, FaceDetector
from .embed import FaceEmbedder
from .faces import Faces
from .geometry import fit_similarity
from .track import CONTINUES, Tracks, track

logger = logging.getLogger(__name__)

EMBEDDER_ADVICE = (
    'FaceRestorer.load(embedder="face-descriptor"), with weights that '
    "`gfp weights get face-descriptor` fetches"
)
"""How to come by an embedder."""
_CROP = 256  # enough for an embedding, which sees 150 pixels of it


def find_candidates(
    detector: FaceDetector,
    frames: Tensor,
    *,
    tracks: Tracks | None = None,
    region: Tensor | None = None,
    people: Tensor | None = None,
    people_limit: float = LIKE,
    embedder: FaceEmbedder | None = None,
    **options: Any,
) -> Faces:
    """The faces among which is chosen: those of a region and of certain people, if asked for.

    Args:
        detector: finds them.
        frames: (B, C, H, W), see `FaceDetector.detect`.
        tracks: for frames in order, see `find_in_order`; else None.
        region: see `choose.inside`; None for the whole frame.
        people: (R, D) embeddings, see `choose.like`; None for everybody.
        people_limit: how far from them a face may be, in degrees.
        embedder: needed for people.
        **options: of `FaceDetector.detect`.

    Returns:
        The faces; where frames are in order with their tracks.

    Raises:
        ValueError: frames or region are none, an option is out of range, or people are to be
            found without an embedder.
    """
    if people is not None and embedder is None:
        raise ValueError(f"finding certain people needs an embedder: {EMBEDDER_ADVICE}")
    if tracks is None:
        faces = find_faces(detector, frames, **options)
    else:
        faces = find_in_order(detector, frames, tracks, embedder=embedder, **options)
    if region is not None:
        faces = inside(faces, region)
    if people is not None and embedder is not None:
        faces = like(align(frames, faces, _CROP), people, embedder, limit=people_limit)
    return faces


def find_faces(detector: FaceDetector, frames: Tensor, **options: Any) -> Faces:
    """The faces of a batch of frames that can be aligned; the log names frames without any.

    Args:
        detector: finds them.
        frames: (B, C, H, W), see `FaceDetector.detect`.
        **options: of `FaceDetector.detect`.

    Raises:
        ValueError: the frames are no such tensor, or an option is out of range.
    """
    faces = drop_what_is_no_face(detector.detect(frames, **options))
    _report_frames_without_face(faces)
    return faces


def find_in_order(
    detector: FaceDetector,
    frames: Tensor,
    tracks: Tracks,
    *,
    embedder: FaceEmbedder | None = None,
    score: float = DEFAULT_SCORE,
    **options: Any,
) -> Faces:
    """The faces of successive frames of a video, followed and steadied, see `track.track`.

    Args:
        detector: finds them.
        frames: (B, C, H, W), in order.
        tracks: those of the frames before; ``Tracks()`` for the first.
        embedder: tells who is who, where faces overlap or jump; None goes by place alone.
        score: confidence that a face not seen before needs. One seen before may have less.
        **options: of `FaceDetector.detect`.

    Raises:
        ValueError: the frames are no such tensor, or an option is out of range.
    """
    seen = detector.detect(frames, score=min(score, CONTINUES), **options)
    faces = drop_what_is_no_face(seen)
    embeddings = None
    if embedder is not None:
        crops = align(frames, faces, _CROP).crops
        assert crops is not None
        embeddings = embedder.embed(crops)
    faces = track(frames, faces, tracks, score=score, embeddings=embeddings)
    _report_frames_without_face(faces)
    return faces


def drop_what_is_no_face(faces: Faces) -> Faces:
    """Leave out false detections that cannot be aligned, so that they do not stop the others."""
    kept = []
    for index, face in enumerate(faces.faces):
        try:
            fit_similarity(face.landmarks)
            kept.append(index)
        except ValueError as error:
            box = ", ".join(f"{edge:.0f}" for edge in face.box)
            logger.warning(
                "The face at (%s) of frame %d is left as it is: %s", box, face.frame, error
            )
    return faces if len(kept) == len(faces) else faces.select(kept)


def _report_frames_without_face(faces: Faces) -> None:
    seen = {face.frame for face in faces.faces}
    missing = [index for index in range(len(faces.frame_sizes)) if index not in seen]
    if missing and len(faces.frame_sizes) == 1:
        logger.info("No face found: the image is left as it is.")
    elif missing:
        logger.info(
            "No face found in %d of %d frames (%s): they are left as they are.",
            len(missing),
            len(faces.frame_sizes),
            ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else ""),
        )
