"""GFPFaceMasks: what of each face is restored."""

from typing import Any

from comfy_api.latest import io

from ..gfp_core.masks import make_masks
from . import inputs, sockets
from .comfy import pictures
from .comfy.models import Managed
from .comfy.node import Node, schema
from .comfy.progress import Bar

IDS = {"mask": "shape"}


class GFPFaceMasks(Node):
    """Makes the masks under which restored faces are pasted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPFaceMasks",
            display_name="Mask Faces (GFP)",
            category="GFP",
            description="Makes a mask for each restored face: its outline or, with a parser, its "
            "parts, without the glasses, hands and hair that stand before it. For Paste Faces Back "
            "(GFP), as it is or worked on by other nodes.",
            search_aliases=["face parsing", "face mask", "occlusion mask"],
            inputs=[
                sockets.FacesType.Input("faces", tooltip="Restored faces."),
                sockets.Parser.Input(
                    "parser",
                    optional=True,
                    tooltip="From Load Face Parser (GFP). Without it there are no parts, and only "
                    "outlines.",
                ),
                *inputs.widgets("mask", "feather", required=["mask", "feather"], ids=IDS),
                *inputs.widgets("grow", "occlusion", "parts", shown=["grow", "occlusion"]),
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
    def run(
        cls, *, faces: sockets.FacesOfImage, parser: Managed[Any] | None, **values: Any
    ) -> io.NodeOutput:
        """Make the masks; the faces given are not changed."""
        options = inputs.to_options(values, ids=IDS).mask
        if options.needs_parser and parser is None:
            raise ValueError("The shape parts needs a parser: connect Load Face Parser (GFP).")
        masks = make_masks(
            faces.restored_faces,
            options,
            parser=None if parser is None else parser.ready(),
            progress=Bar(),
        )
        return io.NodeOutput(pictures.to_mask(masks if len(masks) else masks.new_zeros(1, 64, 64)))
