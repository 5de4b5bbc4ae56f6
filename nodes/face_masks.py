"""GFPFaceMasks: what of each face is restored."""

from typing import Any, get_args

from comfy_api.latest import io

from ..gfp_core.masks import make_masks
from ..gfp_core.options import Mask, MaskShape
from . import host, inputs


class GFPFaceMasks(io.ComfyNode):
    """Makes the masks under which restored faces are pasted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPFaceMasks",
            display_name="Face Masks (GFP)",
            category="GFP",
            description="Makes a mask for each restored face: its outline or, with a parser, its "
            "parts, without the glasses, hands and hair that stand before it. For Paste Faces Back "
            "(GFP), as it is or worked on by other nodes.",
            search_aliases=["face parsing", "face mask", "occlusion mask"],
            inputs=[
                inputs.FacesType.Input("faces", tooltip="Restored faces."),
                inputs.Parser.Input(
                    "parser",
                    optional=True,
                    tooltip="From Load Face Parser (GFP). Without it there are no parts, and only "
                    "outlines.",
                ),
                io.Combo.Input(
                    "shape",
                    options=list(get_args(MaskShape)),
                    default="ellipse",
                    tooltip="The outline: an ellipse about the mean face, the whole crop, the hull "
                    "of this face's landmarks, or only the parts that the parser finds.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the fade inside the outline, as a share of the crop's side.",
                ),
                inputs.grow(),
                inputs.occlusion(),
                *inputs.parts(),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="face_masks",
                    tooltip="A mask for each face, in its crop; an empty one if there is no face.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, shape: Any = None, occlusion: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, shape=shape, occlusion=occlusion)

    @classmethod
    def execute(
        cls,
        faces: inputs.FacesOfImage,
        shape: Any,
        feather: float,
        grow: float = 0.0,
        occlusion: Any = "auto",
        parser: host.Managed[Any] | None = None,
        **parts: bool,
    ) -> io.NodeOutput:
        """Make the masks; the faces given are not changed."""
        chosen = inputs.chosen_parts(parts)
        masks = make_masks(
            faces.faces,
            Mask(shape, feather, grow, chosen, occlusion),
            parser=None if parser is None else parser.ready(),
            progress=host.Bar(),
        )
        return io.NodeOutput(host.to_mask(masks if len(masks) else masks.new_zeros(1, 64, 64)))
