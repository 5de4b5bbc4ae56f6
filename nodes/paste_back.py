"""GFPPasteBack: restored faces laid into their image."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.paste import paste
from . import host, inputs


class GFPPasteBack(io.ComfyNode):
    """Lays restored faces into the image they came from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPPasteBack",
            display_name="Paste Faces Back (GFP)",
            category="GFP",
            description="Lays restored faces into the image they came from, without a seam. Pixels "
            "that no face touches keep their exact values.",
            search_aliases=["paste face", "face composite", "uncrop face"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The image, or batch, the faces were found in."),
                inputs.FacesType.Input("faces", tooltip="Restored faces."),
                inputs.strength(),
                *inputs.outline(),
                inputs.upscaled(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, mask: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, mask=mask)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        faces: inputs.FacesOfImage,
        strength: float,
        mask: Any = "ellipse",
        feather: float = 0.1,
        upscaled: Tensor | None = None,
    ) -> io.NodeOutput:
        """Paste into (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        frames = host.to_frames(image)
        pasted, covered = paste(
            frames,
            faces.faces,
            mask=mask,
            feather=feather,
            strength=strength,
            background=None if upscaled is None else host.to_frames(upscaled),
            progress=host.Bar(),
        )
        return io.NodeOutput(
            host.to_image(pasted), host.to_mask(covered), ui=host.comparison(frames, pasted)
        )
