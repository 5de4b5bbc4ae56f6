"""GFPColorEnhance: the colours of restored faces, and of whole images."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.color import apply_color
from ..gfp_core.color.enhance import enhance
from . import inputs, sockets
from .comfy import pictures
from .comfy.node import Node, schema

IDS = {
    "color": "mode",
    "color_strength": "strength",
    "keep_monochrome": "grey",
    "color_smoothing": "smoothing",
}


class GFPColorEnhance(Node):
    """Gives restored faces the colours they should have, and images better ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPColorEnhance",
            display_name="Match Face Colors (GFP)",
            category="GFP",
            description="Gives restored faces the colours of the photograph, of a reference, or "
            "livelier ones. An image is enhanced as a whole: white balance, local contrast, "
            "saturation. Grey and sepia pictures stay so.",
            search_aliases=["color match", "white balance", "auto contrast", "color correction"],
            inputs=[
                sockets.FacesType.Input(
                    "faces", optional=True, tooltip="Restored faces, from Run Face Restorer (GFP)."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="Images to enhance, whatever the mode."
                ),
                *inputs.widgets(
                    "color",
                    "color_strength",
                    required=["color", "color_strength"],
                    ids=IDS,
                    color_strength={
                        "help": "Share of the change, for faces and image: 0 leaves the colors."
                    },
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="For the mode reference: one picture whose colours all faces take, or "
                    "one for each face in their order.",
                ),
                *inputs.widgets(
                    "keep_monochrome", "color_smoothing", ids=IDS, color_smoothing={"default": 0.0}
                ),
            ],
            outputs=[
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The faces with their new colours."
                ),
                io.Image.Output(display_name="image", tooltip="The enhanced images."),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        faces: sockets.FacesOfImage | None,
        image: Tensor | None,
        reference: Tensor | None,
        **values: Any,
    ) -> io.NodeOutput:
        """Change the colours; what is given is not changed."""
        if faces is None and image is None:
            raise ValueError(
                "Match Face Colors (GFP) has nothing to do: connect faces or an image."
            )
        color = inputs.to_options(values, ids=IDS).color
        colored: Any = pictures.nothing("it got no faces")
        enhanced: Any = pictures.nothing("it got no image")
        if faces is not None:
            changed = apply_color(
                faces.restored_faces,
                color.mode,
                strength=color.strength,
                keep_monochrome=color.keep_monochrome,
                reference=None if reference is None else pictures.to_frames(reference),
                smoothing=values["smoothing"],
            )
            colored = faces.with_faces(changed)
        if image is not None:
            enhanced = pictures.to_image(enhance(pictures.to_frames(image), color.strength))
        return io.NodeOutput(colored, enhanced)
