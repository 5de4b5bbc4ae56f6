"""GFPRestorePhoto: image in, image with restored faces out."""

import torch
from comfy_api.latest import io

from ..gfp_core.pipeline import FaceRestorer
from . import host


class GFPRestorePhoto(io.ComfyNode):
    """Finds the faces of an image, restores them and pastes them back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return io.Schema(
            node_id="GFPRestorePhoto",
            display_name="Restore Photo (GFP)",
            category="GFP",
            description="Finds the faces of an image, restores them with the bundled lite model "
            "and pastes them back without a seam. Images without a face come out as they are.",
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the restored face: 0 leaves the image as it is.",
                ),
                io.Float.Input(
                    "upscale",
                    default=1.0,
                    min=1.0,
                    max=8.0,
                    step=0.5,
                    tooltip="Size of the result relative to the image.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, strength: float, upscale: float) -> io.NodeOutput:
        """Restore (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        # The networks are small and quick to load: none is kept when the node is done.
        faces = FaceRestorer.load(device=host.device())
        restored = faces.restore(
            image.movedim(-1, 1), strength=strength, upscale=upscale, progress=host.progress()
        )
        place = host.output_device()
        return io.NodeOutput(
            restored.frames.movedim(1, -1).contiguous().to(place), restored.mask.to(place)
        )
