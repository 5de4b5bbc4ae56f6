"""GFPDetectFaces: the faces of an image, in order, and those of them that were chosen."""

import functools
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.options import RestoreOptions
from ..gfp_core.paste import face_mask
from ..gfp_core.pipeline import Extra, FaceRestorer
from ..gfp_core.select import sort
from . import exchange, inputs, sockets
from .comfy import pictures
from .comfy.memory import DETECTED
from .comfy.models import Managed, join
from .comfy.node import Node, advanced, schema
from .comfy.progress import Bar
from .keys import Key, detection_key, faces_key
from .picker import picker_frames
from .restore_options import NEEDS_EMBEDDER

DETECTION = ("score", "min_size", "max_size", "rotations", "order", "select")
CHOOSING = ("max_sharpness", "video")
MORE = ("flip", "long_side", "people_limit")


def _faces_of_others() -> list[Any]:
    """Make the sockets for faces that other nodes found."""
    return [
        sockets.BoundingBox.Input(
            "boxes_in",
            optional=True,
            tooltip="Boxes from another node: only faces whose middle, or half of whose "
            "box, lies in one.",
            extra_dict={"forceInput": True},
        ),
        sockets.Segs.Input(
            "segs_in",
            optional=True,
            tooltip="SEGS from the Impact Pack: only faces whose middle, or half of whose "
            "box, lies in the box of one.",
        ),
        sockets.FaceLandmarks.Input(
            "landmarks",
            optional=True,
            tooltip="From Detect Face Landmarks (MediaPipe): these faces, in place of "
            "those that the detector finds.",
        ),
    ]


class GFPDetectFaces(Node):
    """Finds faces, numbers them and hands on those that were chosen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPDetectFaces",
            display_name="Detect Faces (GFP)",
            category="GFP",
            description="Finds the faces of an image or of each frame of a batch, shows them "
            "numbered, and hands on those you choose: click them in the preview.",
            search_aliases=["face detection", "face crop", "align faces", "face picker"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                sockets.Detector.Input("detector", tooltip="From Load Face Detector (GFP)."),
                *inputs.widgets(*DETECTION, shown=["score", "order", "select"]),
                advanced(
                    io.Int.Input(
                        "crop_size",
                        default=512,
                        min=64,
                        max=2048,
                        step=64,
                        tooltip="Side of the aligned crops in pixels. A restorer of another size "
                        "cuts its own from the image.",
                    )
                ),
                *inputs.widgets(*CHOOSING),
                inputs.mask("region"),
                inputs.image("people"),
                sockets.Embedder.Input(
                    "embedder",
                    optional=True,
                    tooltip="From Load Face Embedder (GFP): tells who is who.",
                ),
                *inputs.widgets(*MORE),
                *_faces_of_others(),
            ],
            outputs=[
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The chosen faces, tied to their frames."
                ),
                io.Image.Output(
                    display_name="crops",
                    tooltip="The chosen faces cut out and aligned; one black picture if there is "
                    "none.",
                ),
                sockets.BoundingBox.Output(
                    display_name="boxes",
                    tooltip="The chosen faces' boxes, a list for each frame: x, y, width, height, "
                    "label, score.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="An ellipse about each chosen face, by frame.",
                ),
                io.Int.Output(display_name="count", tooltip="How many faces were chosen."),
                sockets.Segs.Output(
                    display_name="segs",
                    tooltip="The chosen faces for nodes of the Impact Pack; of one image only.",
                ),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        image: Tensor,
        detector: Managed[Any],
        crop_size: int,
        region: Tensor | None,
        people: Tensor | None,
        embedder: Managed[Any] | None,
        boxes_in: Any,
        segs_in: Any,
        landmarks: Any,
        **values: Any,
    ) -> io.NodeOutput:
        """Detect in (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        frames = pictures.to_frames(image)
        # Sharpness is measured where faces are pasted, unless it selects them here.
        options = inputs.to_options(values).replace(auto_strength=False)
        finder = join(detector=detector, embedder=embedder)
        if people is not None and embedder is None:
            raise ValueError(NEEDS_EMBEDDER)
        extra = Extra(
            region=_region(region, boxes_in, segs_in, frames),
            people=None if people is None else finder.describe([*pictures.to_frames(people)]),
        )
        key: Key = detection_key(image, options, extra, crop_size, detector, embedder)
        if landmarks is not None:
            faces = exchange.faces_of_landmarks(landmarks, _sizes(frames))
            finder = FaceRestorer(detector=exchange.GivenFaces(faces), embedder=finder.embedder)
            key = (key, faces_key(faces))
        candidates = DETECTED.get(
            image,
            key,
            lambda: finder.detect(frames, options, extra=extra, size=crop_size, progress=Bar()),
        )
        chosen = finder.select(frames, candidates, options, size=crop_size)
        mask = face_mask(chosen)
        previews = pictures.save_previews(frames)
        candidates = sort(candidates, options.selection.order)
        entries = picker_frames(candidates, options.selection.select, len(previews))
        return io.NodeOutput(
            sockets.FacesOfImage(chosen, frames),
            pictures.crops_to_image(chosen, chosen.crops),
            exchange.boxes_of(chosen),
            pictures.to_mask(mask),
            len(chosen),
            exchange.segments_of(chosen, mask)
            if len(frames) == 1
            else pictures.nothing("SEGS are of one image"),
            ui={
                "gfp_faces": [
                    {**entry, "image": image, "count": len(frames)}
                    for entry, image in zip(entries, previews, strict=True)
                ]
            },
        )


def _sizes(frames: Tensor) -> list[tuple[int, int]]:
    return [(frames.shape[-2], frames.shape[-1])] * len(frames)


def _region(mask: Tensor | None, boxes: Any, segments: Any, frames: Tensor) -> Tensor | None:
    """Return where faces may lie: in all of mask, boxes and segments that are given."""
    regions = [pictures.from_mask(mask, *pictures.sizes(frames))]
    if boxes is not None:
        regions.append(exchange.region_of_boxes(boxes, _sizes(frames)))
    if segments is not None:
        regions.append(exchange.region_of_segments(segments, _sizes(frames)))
    masks = [region.cpu() for region in regions if region is not None]
    for region in masks:  # else they do not go together
        Extra(region=region).check(len(frames), RestoreOptions())
    return functools.reduce(torch.minimum, masks) if masks else None
