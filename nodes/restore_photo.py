"""GFPRestorePhoto: image in, image with restored faces out."""

from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.pipeline import Extra, FaceRestorer
from ..gfp_core.weights.catalogue import Role
from . import inputs, sockets
from .comfy import models, pictures
from .comfy.models import Managed
from .comfy.node import Node, schema
from .comfy.progress import Bar


class GFPRestorePhoto(Node):
    """Finds the faces of an image, restores them and pastes them back."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer", "detector_model": "detector"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestorePhoto",
            display_name="Restore Photo (GFP)",
            category="GFP",
            description="Finds the faces of an image, restores them and pastes them back without a "
            "seam. Images without a face come out as they are. Put it after VAE Decode, or after "
            "Load Image for an old photo.",
            search_aliases=["face restoration", "gfpgan", "codeformer", "fix face", "old photo"],
            essentials_category="Image Tools",
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                *inputs.widgets(*inputs.PHOTO, required=["model", "strength"], shown=["upscale"]),
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
                    tooltip="From Restore Options (GFP): presets, masks by parts, blending, "
                    "certain people, frames of a video, the identity guard.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The restored faces, with crops before and after."
                ),
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
        **values: Any,
    ) -> io.NodeOutput:
        """Restore (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        further = sockets.FurtherOptions() if options is None else options
        chosen = inputs.to_options(values, further.options)
        restorer = restorer or models.last_used("restorer", values["model"])
        detector = detector or models.last_used("detector", values["detector_model"])
        frames = pictures.to_frames(image)
        background = None if upscaled is None else pictures.to_frames(upscaled)
        sizes = pictures.sizes(frames, background)
        bar = Bar()
        together = FaceRestorer(
            restorer.ready(models.working_memory(restorer, chosen.runtime.batch_size)),
            detector.ready(),
            parser=None if further.parser is None else further.parser.ready(),
            embedder=None if further.embedder is None else further.embedder.ready(),
        )
        people, reference = further.people, further.reference
        restored = together.restore(
            frames,
            chosen,
            extra=Extra(
                background=background,
                frame_mask=pictures.from_mask(further.frame_mask, *sizes),
                region=pictures.from_mask(further.region, sizes[0]),
                people=None if people is None else together.describe([*pictures.to_frames(people)]),
                reference=None if reference is None else pictures.to_frames(reference),
            ),
            progress=bar,
            preview=bar.preview,
        )
        return io.NodeOutput(
            pictures.to_image(restored.frames),
            pictures.to_mask(restored.mask),
            sockets.FacesOfImage(restored.faces, frames),
            ui=pictures.comparison(frames, restored.frames),
        )
