"""GFPPasteBack: restored faces laid into their image."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.crops import resize_masks
from ..gfp_core.pipeline import Extra, FaceRestorer
from . import inputs, sockets
from .comfy import pictures
from .comfy.node import Node, schema
from .comfy.progress import Bar

OUTLINES = ("ellipse", "box", "hull")


class GFPPasteBack(Node):
    """Lays restored faces into the image they came from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPPasteBack",
            display_name="Paste Faces Back (GFP)",
            category="GFP",
            description="Lays restored faces into the image they came from, without a seam. Pixels "
            "that no face touches keep their exact values.",
            search_aliases=["paste face", "face composite", "uncrop face"],
            shows=True,
            inputs=[
                io.Image.Input("image", tooltip="The image, or batch, the faces were found in."),
                sockets.FacesType.Input("faces", tooltip="Restored faces."),
                *inputs.widgets("strength", required=["strength"]),
                *inputs.widgets(
                    "mask",
                    "feather",
                    mask={
                        "choices": OUTLINES,
                        "help": "Outline inside which a face is restored: an ellipse about the "
                        "mean face, the box of the whole crop, or the hull of this face's "
                        "landmarks. Masks by parts come from Mask Faces (GFP).",
                    },
                ),
                inputs.image("upscaled", "background"),
                *inputs.widgets("detail", "grain", "auto_strength"),
                inputs.mask("frame_mask"),
                io.Mask.Input(
                    "face_masks",
                    optional=True,
                    tooltip="A mask for each face, in its crop, from Mask Faces (GFP); in place of "
                    "mask and feather.",
                ),
                *inputs.widgets("multiband"),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        image: Tensor,
        faces: sockets.FacesOfImage,
        upscaled: Tensor | None,
        frame_mask: Tensor | None,
        face_masks: Tensor | None,
        **values: Any,
    ) -> io.NodeOutput:
        """Paste into (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        options = inputs.to_options(values)
        frames, restored = pictures.to_frames(image), faces.restored_faces
        background = None if upscaled is None else pictures.to_frames(upscaled)
        face_masks = pictures.from_mask(face_masks)
        if face_masks is None and options.mask.needs_parser:
            raise ValueError("The mask parts needs Mask Faces (GFP): connect it to face_masks.")
        if face_masks is not None:
            if len(face_masks) == 1:  # one serves all; of no face there is one, too
                face_masks = face_masks.expand(len(restored), -1, -1)
            face_masks = resize_masks(face_masks, restored)
        extra = Extra(
            background=background,
            frame_mask=pictures.from_mask(frame_mask, *pictures.sizes(frames, background)),
            face_masks=face_masks,
        )
        pasted = FaceRestorer().paste(frames, restored, options, extra=extra, progress=Bar())
        return io.NodeOutput(
            pictures.to_image(pasted.frames),
            pictures.to_mask(pasted.mask),
            ui={"gfp_compare": pictures.comparison(frames, pasted.frames)},
        )
