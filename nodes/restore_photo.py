"""GFPRestorePhoto: image in, image with restored faces out."""

from dataclasses import replace
from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions
from ..gfp_core.pipeline import Extra, FaceRestorer, Restoration
from ..gfp_core.select import sort
from ..gfp_core.weights.catalogue import Role
from . import inputs, sockets
from .comfy import models, pictures
from .comfy.memory import DETECTED, RESTORED
from .comfy.models import Managed
from .comfy.node import Node, schema
from .comfy.progress import Bar
from .keys import detection_key, restoration_key
from .picker import picker_frames
from .report import as_text, for_page, report
from .restore_options import NEEDS_EMBEDDER

NEEDS_PARSER = (
    "The mask parts needs a parser: connect Load Face Parser (GFP) to Face Restore Options (GFP), "
    "and that to options."
)
DETECTION_SHARE, RESTORATION_SHARE = 0.2, 0.9
"""How far the bar is after detection, and after restoration."""


SEARCH_ALIASES = [
    "face",
    "face enhance",
    "face enhancer",
    "face detailer",
    "face fix",
    "face restoration",
    "restore",
    "fix face",
    "restore photo",
    "restore face",
    "upscale face",
    "old photo",
    "gfpgan",
    "codeformer",
    "restoreformer",
    "gpen",
    "reactor",
]
"""What people search for who mean this node."""


class GFPRestorePhoto(Node):
    """Finds the faces of an image, restores them and pastes them back."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer", "detector_model": "detector"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestorePhoto",
            display_name="Face Restore (GFP)",
            category="GFP",
            description="Finds the faces of an image, restores them and pastes them back without a "
            "seam. Images without a face come out as they are. Put it after VAE Decode, or after "
            "Load Image for an old photo.",
            search_aliases=SEARCH_ALIASES,
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                *inputs.widgets(
                    *inputs.PHOTO, required=["model", "strength"], shown=["upscale", "select"]
                ),
                inputs.image("upscaled", "background"),
                sockets.Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="A loaded restorer, in place of the one named by model.",
                ),
                sockets.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="A loaded detector, in place of the one named by detector_model.",
                ),
                sockets.Options.Input(
                    "options",
                    optional=True,
                    tooltip="From Face Restore Options (GFP): masks by parts, blending, certain "
                    "people, frames of a video, the identity guard.",
                ),
                inputs.preset(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The restored faces, with crops before and after."
                ),
                io.String.Output(display_name="report", tooltip="What was done, in a sentence."),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        image: Tensor,
        upscaled: Tensor | None,
        restorer: Managed[Any] | None,
        detector: Managed[Any] | None,
        options: sockets.FurtherOptions | None,
        preset: str,
        **values: Any,
    ) -> io.NodeOutput:
        """Restore (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        further = sockets.FurtherOptions() if options is None else options
        base = inputs.from_preset(preset).replace(**further.options.flat(changed=True))
        chosen = inputs.to_options(values, base)
        if chosen.mask.needs_parser and further.parser is None:
            raise ValueError(NEEDS_PARSER)
        if chosen.identity.identity_limit and further.embedder is None:
            raise ValueError(NEEDS_EMBEDDER)
        restorer = restorer or models.last_used("restorer", values["model"])
        detector = detector or models.last_used("detector", values["detector_model"])
        candidates, result = _restore(image, upscaled, restorer, detector, further, chosen)
        frames = pictures.to_frames(image)
        statements = report(candidates, result.faces, result.strengths, chosen)
        comparison = pictures.comparison(frames, result.frames)
        entries = picker_frames(candidates, chosen.selection.select, len(comparison))
        return io.NodeOutput(
            pictures.to_image(result.frames),
            pictures.to_mask(result.mask),
            sockets.FacesOfImage(result.faces, frames),
            as_text(statements),
            ui={
                "gfp_compare": [
                    {**pair, **entry} for pair, entry in zip(comparison, entries, strict=True)
                ],
                "gfp_report": for_page(statements),
            },
        )


def _restore(
    image: Tensor,
    upscaled: Tensor | None,
    restorer: Managed[Any],
    detector: Managed[Any],
    further: sockets.FurtherOptions,
    options: RestoreOptions,
) -> tuple[Faces, Restoration]:
    """Return all faces, in the order in which they are numbered, and the restoration of some."""
    frames = pictures.to_frames(image)
    background = None if upscaled is None else pictures.to_frames(upscaled)
    sizes = pictures.sizes(frames, background)
    together = FaceRestorer(
        restorer.ready(models.working_memory(restorer, options.runtime.batch_size)),
        detector.ready(),
        parser=None if further.parser is None else further.parser.ready(),
        embedder=None if further.embedder is None else further.embedder.ready(),
    )
    people, reference = further.people, further.reference
    extra = Extra(
        background=background,
        frame_mask=pictures.from_mask(further.frame_mask, *sizes),
        region=pictures.from_mask(further.region, sizes[0]),
        people=None if people is None else together.describe([*pictures.to_frames(people)]),
        reference=None if reference is None else pictures.to_frames(reference),
    )
    bar, size = Bar(), restorer.runner.size
    key = detection_key(image, options, extra, size, detector, further.embedder)
    progress = bar.stage(0, DETECTION_SHARE)
    candidates = DETECTED.get(
        image,
        key,
        lambda: together.detect(frames, options, extra=extra, size=size, progress=progress),
    )
    selected = together.select(frames, candidates, options, size=size)
    progress_of_faces = bar.stage(DETECTION_SHARE, RESTORATION_SHARE)
    faces = RESTORED.get(
        image,
        restoration_key(key, selected, options, extra, restorer),
        lambda: together.restore_faces(
            selected, options, extra=extra, progress=progress_of_faces, preview=bar.preview
        ),
    )
    # What selecting measured belongs to these options, what restoring made to the key.
    faces = replace(faces, sharpness=selected.sharpness)
    result = together.paste(
        frames, faces, options, extra=extra, progress=bar.stage(RESTORATION_SHARE, 1)
    )
    bar.stage(0, 1)(1, 1)
    return sort(candidates, options.selection.order), result
