"""Faces in the forms of other nodes: the core's boxes and landmarks, the Impact Pack's SEGS.

BOUNDING_BOX: a list for each frame of {x, y, width, height, label, score}, in pixels.
FACE_LANDMARKS: {frames: a list for each frame of faces, image_size: (height, width)}; a face is
{landmarks_xy (478 or 468, 2), bbox_xyxy, score}, in pixels of an image of that size.
SEGS: ((height, width), [segment, ...]) of one image; the segment's fields are those of `Segment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..gfp_core.detect import FaceDetector
from ..gfp_core.faces import Face, Faces, Progress

Box = tuple[float, float, float, float]
Size = tuple[int, int]

EYES = ((468,), (473,))
"""Points of the mesh at the middle of the irises, in the picture's order: left, right."""
EYE_CORNERS = ((33, 133), (362, 263))
"""The same without irises: in a mesh of 468 points."""
NOSE, MOUTH = 4, (61, 291)
SEGMENT_MARGIN = 2.0
"""Side of a segment's crop region over that of its box."""


class Segment(NamedTuple):
    """One part of an image, by the field names of the Impact Pack's SEG."""

    cropped_image: NDArray[np.float32] | None
    cropped_mask: NDArray[np.float32]
    """(h, w) in [0, 1], of the crop region."""
    confidence: float
    crop_region: tuple[int, int, int, int]
    """x1, y1, x2, y2 in pixels of the image, inside it."""
    bbox: tuple[int, int, int, int]
    label: str
    control_net_wrapper: Any = None


@dataclass(frozen=True, eq=False)
class GivenFaces(FaceDetector):
    """A detector that knows the faces already, from another node."""

    faces: Faces

    def detect(
        self,
        frames: Tensor,
        *,
        min_size: float = 0.0,
        max_size: float | None = None,
        progress: Progress | None = None,
        **_: Any,
    ) -> Faces:
        """Return the faces of the sizes asked for; their confidence is the other node's."""
        largest = float("inf") if max_size is None else max_size
        indices = [
            index
            for index, face in enumerate(self.faces.faces)
            if min_size <= max(face.width, face.height) <= largest
        ]
        if progress is not None:
            progress(len(frames), len(frames))
        return self.faces.select(indices)


def boxes_of(faces: Faces) -> list[list[dict[str, Any]]]:
    """Return boxes in the core's form: a list for each frame, also for those without a face."""
    frames: list[list[dict[str, Any]]] = [[] for _ in faces.frame_sizes]
    for face in faces.faces:
        box = {"x": face.box[0], "y": face.box[1], "width": face.width, "height": face.height}
        frames[face.frame].append({**box, "label": "face", "score": face.score})
    return frames


def segments_of(faces: Faces, mask: Tensor) -> tuple[Size, list[Segment]]:
    """Return the faces of one frame as SEGS.

    Args:
        faces: of a batch of one frame.
        mask: (1, H, W) in [0, 1]: where they are.
    """
    ((height, width),) = faces.frame_sizes
    segments = []
    for face in faces.faces:
        x1, y1, x2, y2 = bbox = _whole(face.box, (height, width))
        across, down = ((SEGMENT_MARGIN - 1) / 2 * side for side in (face.width, face.height))
        region = _whole(
            (
                face.box[0] - across,
                face.box[1] - down,
                face.box[2] + across,
                face.box[3] + down,
            ),
            (height, width),
        )
        inside = torch.zeros(height, width)
        inside[y1:y2, x1:x2] = mask[0, y1:y2, x1:x2]
        cut = inside[region[1] : region[3], region[0] : region[2]]
        segments.append(Segment(None, cut.numpy().copy(), face.score, region, bbox, "face"))
    return (height, width), segments


def faces_of_landmarks(landmarks: Mapping[str, Any], sizes: Sequence[Size]) -> Faces:
    """Return the faces that FACE_LANDMARKS hold.

    Args:
        landmarks: see above.
        sizes: (height, width) of each frame.

    Raises:
        ValueError: they are not of as many frames.
    """
    if not isinstance(landmarks, Mapping) or not {"frames", "image_size"} <= landmarks.keys():
        raise ValueError(
            "landmarks must be those of Detect Face Landmarks (MediaPipe): frames and their "
            "image_size"
        )
    frames = landmarks["frames"]
    if len(frames) != len(sizes):
        raise ValueError(f"landmarks are of {len(frames)} pictures, the image has {len(sizes)}")
    faces = []
    for index, (frame, (height, width)) in enumerate(zip(frames, sizes, strict=True)):
        was_height, was_width = landmarks["image_size"]
        scale = np.array([width / was_width, height / was_height])
        for each in frame:
            mesh = np.asarray(each["landmarks_xy"], np.float64) * scale
            eyes = EYES if len(mesh) > EYES[1][0] else EYE_CORNERS
            points = [*(mesh[list(eye)].mean(0) for eye in eyes), mesh[NOSE], *mesh[list(MOUTH)]]
            x1, y1, x2, y2 = np.asarray(each["bbox_xyxy"], np.float64) * np.tile(scale, 2)
            box = (float(x1), float(y1), float(x2), float(y2))
            faces.append(Face(index, box, float(each["score"]), np.array(points, np.float32)))
    return Faces(tuple(faces), tuple(sizes))


def region_of_boxes(boxes: Any, sizes: Sequence[Size]) -> Tensor:
    """Return a mask (B, H, W) that is 1 in the boxes.

    Args:
        boxes: BOUNDING_BOX: one box, those of one frame, or a list of them for each frame.
        sizes: (height, width) of each frame, all the same.

    Raises:
        ValueError: they are not of as many frames, nor of one.
    """
    if isinstance(boxes, Mapping):
        boxes = [boxes]
    if not boxes or isinstance(boxes[0], Mapping):
        boxes = [boxes]
    fields = {"x", "y", "width", "height"}
    for each in (each for frame in boxes for each in frame):
        if not isinstance(each, Mapping) or not fields <= each.keys():
            raise ValueError(f"boxes must be of x, y, width and height each, not {each!r:.60}")
    if len(boxes) not in (1, len(sizes)):
        raise ValueError(f"boxes are of {len(boxes)} pictures, the image has {len(sizes)}")
    rows = [
        [
            (each["x"], each["y"], each["x"] + each["width"], each["y"] + each["height"])
            for each in frame
        ]
        for frame in boxes
    ]
    return _filled(rows, sizes[0])


def region_of_segments(segments: tuple[Size, Sequence[Any]], sizes: Sequence[Size]) -> Tensor:
    """Return a mask (1, H, W) that is 1 in the boxes of SEGS.

    Args:
        segments: see above; of an image of another size they are brought to this one.
        sizes: (height, width) of each frame, all the same.
    """
    if len(segments) != 2:
        raise ValueError("SEGS must be ((height, width), segments), as the Impact Pack gives them")
    (was_height, was_width), found_segments = segments
    height, width = sizes[0]
    if not found_segments:  # an empty one of the Impact Pack has no size
        return torch.zeros(1, height, width)
    scale = np.tile([width / was_width, height / was_height], 2)
    rows = [tuple(np.asarray(each.bbox, np.float64) * scale) for each in found_segments]
    return _filled([rows], (height, width))


def _filled(frames: Sequence[Sequence[Sequence[float]]], size: Size) -> Tensor:
    mask = torch.zeros(len(frames), *size)
    for index, boxes in enumerate(frames):
        for box in boxes:
            x1, y1, x2, y2 = _whole(box, size)
            mask[index, y1:y2, x1:x2] = 1
    return mask


def _whole(box: Sequence[float], size: Size) -> tuple[int, int, int, int]:
    """Round a box to whole pixels inside a picture of this (height, width)."""
    height, width = size
    x1, y1, x2, y2 = box
    return (
        min(max(int(np.floor(x1)), 0), width),
        min(max(int(np.floor(y1)), 0), height),
        min(max(int(np.ceil(x2)), 0), width),
        min(max(int(np.ceil(y2)), 0), height),
    )
