"""GFPColorEnhance: the colours of restored faces, and of whole images."""

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.color import apply_color
from ..gfp_core.color.enhance import enhance
from ..gfp_core.options import ColorMode, KeepMonochrome
from . import host, inputs


class GFPColorEnhance(io.ComfyNode):
    """Gives restored faces the colours they should have, and images better ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPColorEnhance",
            display_name="Enhance Colors (GFP)",
            category="GFP",
            description="Gives restored faces the colours of the photograph, of a reference, or "
            "livelier ones. An image is enhanced as a whole: white balance, local contrast, "
            "saturation. Grey and sepia pictures stay so.",
            search_aliases=["color match", "white balance", "auto contrast", "color correction"],
            inputs=[
                inputs.FacesType.Input(
                    "faces", optional=True, tooltip="Restored faces, from Restore Faces (GFP)."
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="Images to enhance, whatever the mode."
                ),
                inputs.color_mode("mode", get_args(ColorMode)),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the change, for faces and image: 0 leaves the colours.",
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="For the mode reference: one picture whose colours all faces take, or "
                    "one for each face in their order.",
                ),
                host.advanced(
                    io.Combo.Input(
                        "grey",
                        options=list(get_args(KeepMonochrome)),
                        default="auto",
                        tooltip="auto: faces of black-and-white, sepia or yellowed pictures stay "
                        "so. on: every face keeps the photograph's chroma. off: none.",
                    )
                ),
                host.advanced(
                    io.Float.Input(
                        "smoothing",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        tooltip="For frames of a video in order: share of the past in the colours, "
                        "so that they do not flicker.",
                    )
                ),
            ],
            outputs=[
                inputs.FacesType.Output(
                    display_name="faces", tooltip="The faces with their new colours."
                ),
                io.Image.Output(display_name="image", tooltip="The enhanced images."),
            ],
        )

    @classmethod
    def validate_inputs(cls, mode: Any = None, grey: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, mode=mode, grey=grey)

    @classmethod
    def execute(
        cls,
        mode: Any,
        strength: float,
        faces: inputs.FacesOfImage | None = None,
        image: Tensor | None = None,
        reference: Tensor | None = None,
        grey: Any = "auto",
        smoothing: float = 0.0,
    ) -> io.NodeOutput:
        """Change the colours; what is given is not changed."""
        if faces is None and image is None:
            raise ValueError("Enhance Colors (GFP) has nothing to do: connect faces or an image.")
        colored: Any = host.nothing("it got no faces")
        enhanced: Any = host.nothing("it got no image")
        if faces is not None:
            changed = apply_color(
                faces.faces,
                mode,
                strength=strength,
                keep_monochrome=grey,
                reference=None if reference is None else host.to_frames(reference),
                smoothing=smoothing,
            )
            colored = replace(faces, faces=changed)
        if image is not None:
            enhanced = host.to_image(enhance(host.to_frames(image), strength))
        return io.NodeOutput(colored, enhanced)
