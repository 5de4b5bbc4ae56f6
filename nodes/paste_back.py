"""GFPPasteBack: restored faces laid into their image."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.crops import resize_masks
from ..gfp_core.options import Blend, Mask
from ..gfp_core.paste import paste
from ..gfp_core.sharpness import auto_strength as strengths_of
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
                *inputs.blending(),
                inputs.allowed(),
                io.Mask.Input(
                    "face_masks",
                    optional=True,
                    tooltip="A mask for each face, in its crop, from Face Masks (GFP); in place of "
                    "mask and feather.",
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
        detail: float = 1.0,
        grain: float = 0.0,
        auto_strength: bool = True,
        frame_mask: Tensor | None = None,
        face_masks: Tensor | None = None,
    ) -> io.NodeOutput:
        """Paste into (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        frames = host.to_frames(image)
        shares = torch.full((len(faces.faces),), strength)
        if auto_strength:
            shares *= strengths_of(frames, faces.faces)
        if face_masks is not None:
            # One empty mask stands for no face.
            face_masks = resize_masks(face_masks[: len(faces.faces)], faces.faces)
        pasted, covered = paste(
            frames,
            faces.faces,
            mask=Mask(mask, feather) if face_masks is None else face_masks,
            frame_mask=frame_mask,
            blend=Blend(detail=detail, grain=grain),
            strength=shares,
            background=None if upscaled is None else host.to_frames(upscaled),
            progress=host.Bar(),
        )
        return io.NodeOutput(
            host.to_image(pasted), host.to_mask(covered), ui=host.comparison(frames, pasted)
        )
