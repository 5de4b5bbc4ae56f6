"""GFPFacesFromCrops and GFPCropsFromFaces: the way for other nodes to work on the crops."""

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.crops import CropKind, exchange_crops, faces_from_crops
from . import host, inputs


class GFPCropsFromFaces(io.ComfyNode):
    """Hands out the crops that faces carry."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPCropsFromFaces",
            display_name="Crops from Faces (GFP)",
            category="GFP",
            description="The aligned crops of faces, before and after restoration, as images for "
            "any other node. Bring them back with Faces from Crops (GFP).",
            search_aliases=["face crops"],
            inputs=[inputs.FacesType.Input("faces", tooltip="Faces from any of the GFP nodes.")],
            outputs=[
                io.Image.Output(
                    display_name="crops",
                    tooltip="The faces as they were found; one black picture if there is none.",
                ),
                io.Image.Output(
                    display_name="restored",
                    tooltip="The restored faces, or the crops again before a restorer.",
                ),
            ],
        )

    @classmethod
    def execute(cls, faces: inputs.FacesOfImage) -> io.NodeOutput:
        """The crops before and after."""
        held = faces.faces
        after = held.crops if held.restored is None else held.restored
        return io.NodeOutput(
            host.crops_to_image(held, held.crops), host.crops_to_image(held, after)
        )


class GFPFacesFromCrops(io.ComfyNode):
    """Takes aligned crops, from anywhere or worked on by other nodes, as faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPFacesFromCrops",
            display_name="Faces from Crops (GFP)",
            category="GFP",
            description="Takes a batch of aligned faces as GFP faces. With the faces the crops "
            "came from, they keep their place in the image: so other nodes (upscalers, face "
            "swappers, diffusion) can work between restoring and pasting.",
            search_aliases=["aligned faces", "replace crops"],
            inputs=[
                io.Image.Input(
                    "crops", tooltip="Square pictures of aligned faces, of any size, one a face."
                ),
                inputs.FacesType.Input(
                    "faces",
                    optional=True,
                    tooltip="The faces the crops came from, in the same order. Without it each "
                    "picture is an image of its own.",
                ),
                io.Combo.Input(
                    "use_as",
                    options=list(get_args(CropKind)),
                    default="restored",
                    tooltip="restored: what is pasted back. input: what a restorer is given.",
                ),
            ],
            outputs=[
                inputs.FacesType.Output(display_name="faces", tooltip="The faces with these crops.")
            ],
        )

    @classmethod
    def validate_inputs(cls, use_as: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, use_as=use_as)

    @classmethod
    def execute(
        cls, crops: Tensor, use_as: Any, faces: inputs.FacesOfImage | None = None
    ) -> io.NodeOutput:
        """Take (N, S, S, C) float RGB in [0, 1]; the crops given are not changed."""
        pictures = host.to_frames(crops)[:, :3].clamp(0, 1)
        if faces is None:
            held = faces_from_crops(pictures)
        else:
            held = faces.faces
            if not len(held):  # what came is the black picture that stands for no face
                pictures = pictures[:0]
        return io.NodeOutput(inputs.FacesOfImage(exchange_crops(held, pictures, use_as), None))
