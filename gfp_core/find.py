"""Find the faces of frames that the pipeline goes on with: those detected that can be aligned."""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import Tensor

from .align import align, drop_what_is_no_face
from .detect import FaceDetector
from .embed import FaceEmbedder
from .faces import Faces, Progress, Tracks
from .options import Detection
from .track import CONTINUES, track

logger = logging.getLogger(__name__)

EMBEDDER_ADVICE = (
    'FaceRestorer.load(embedder="face-descriptor"), with weights that '
    "`gfp weights get face-descriptor` fetches"
)
"""How to come by an embedder."""
_TRACKING_CROP = 256  # enough for an embedding, which sees 150 pixels of it


def find_faces(
    detector: FaceDetector,
    frames: Tensor,
    detection: Detection | None = None,
    *,
    progress: Progress | None = None,
) -> Faces:
    """Detect the faces of a batch of frames that can be aligned; the log names frames without any.

    Args:
        detector: detects them.
        frames: (B, C, H, W), see `FaceDetector.detect`.
        detection: how; None for the defaults.
        progress: called with (frames done, frames in all); may raise to cancel.

    Raises:
        ValueError: the frames are no such tensor.
    """
    faces = _detect(detector, frames, detection or Detection(), progress)
    _report_frames_without_face(faces)
    return faces


def find_in_order(
    detector: FaceDetector,
    frames: Tensor,
    tracks: Tracks,
    detection: Detection | None = None,
    *,
    embedder: FaceEmbedder | None = None,
    progress: Progress | None = None,
) -> Faces:
    """Detect the faces of successive frames of a video, follow and steady them, see `track.track`.

    Args:
        detector: detects them.
        frames: (B, C, H, W), in order.
        tracks: those of the frames before; ``Tracks()`` for the first.
        detection: how; None for the defaults. The score is the confidence that a face that was not
            there before needs; the others may have less.
        embedder: tells who is who, where faces overlap or jump; None goes by place alone.
        progress: called with (frames done, frames in all); may raise to cancel.

    Returns:
        The faces with their tracks, and with embeddings if there is an embedder.

    Raises:
        ValueError: the frames are no such tensor.
    """
    detection = detection or Detection()
    lenient = replace(detection, score=min(detection.score, CONTINUES))
    faces = _detect(detector, frames, lenient, progress)
    if embedder is not None:
        # Crops of their own: where a face lies in its steady crop, its track decides.
        crops = align(frames, faces, _TRACKING_CROP).crops
        assert crops is not None
        faces = replace(faces, embeddings=embedder.embed(crops))
    faces = track(frames, faces, tracks, score=detection.score)
    _report_frames_without_face(faces)
    return faces


def _detect(
    detector: FaceDetector, frames: Tensor, detection: Detection, progress: Progress | None
) -> Faces:
    faces = detector.detect(
        frames,
        score=detection.score,
        min_size=detection.min_size,
        max_size=detection.max_size,
        long_side=detection.long_side,
        rotations=detection.rotations,
        flip=detection.flip,
        progress=progress,
    )
    return drop_what_is_no_face(faces)


def _report_frames_without_face(faces: Faces) -> None:
    with_face = {face.frame for face in faces.faces}
    missing = [index for index in range(len(faces.frame_sizes)) if index not in with_face]
    if missing and len(faces.frame_sizes) == 1:
        logger.info("No face found: the image is left as it is.")
    elif missing:
        logger.info(
            "No face found in %d of %d frames (%s): they are left as they are.",
            len(missing),
            len(faces.frame_sizes),
            ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else ""),
        )
