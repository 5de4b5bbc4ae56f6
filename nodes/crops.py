"""GFPFacesFromCrops and GFPCropsFromFaces: the way for other nodes to work on the crops."""

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.crops import CropKind, exchange_crops, faces_from_crops
from . import sockets
from .comfy import pictures
from .comfy.node import Choice, Node, schema


class GFPCropsFromFaces(Node):
    """Hands out the crops that faces carry."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPCropsFromFaces",
            display_name="Crops from Faces (GFP)",
            category="GFP",
            description="The aligned crops of faces, before and after restoration, as images for "
            "any other node. Bring them back with Faces from Crops (GFP).",
            search_aliases=["face crops"],
            inputs=[sockets.FacesType.Input("faces", tooltip="Faces from any of the GFP nodes.")],
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
    def run(cls, *, faces: sockets.FacesOfImage) -> io.NodeOutput:
        """Hand out the crops before and after."""
        carried = faces.faces
        before = carried.crops
        after = before if carried.restored is None else carried.restored
        return io.NodeOutput(
            pictures.crops_to_image(carried, before),
            pictures.crops_to_image(carried, after),
        )


class GFPFacesFromCrops(Node):
    """Takes aligned crops, from anywhere or worked on by other nodes, as faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
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
                sockets.FacesType.Input(
                    "faces",
                    optional=True,
                    tooltip="The faces the crops came from, in the same order. Without it each "
                    "picture is an image of its own.",
                ),
                Choice(
                    "use_as",
                    options=list(get_args(CropKind)),
                    default="restored",
                    tooltip="restored: what is pasted back. input: what a restorer is given.",
                ),
            ],
            outputs=[
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The faces with these crops."
                )
            ],
        )

    @classmethod
    def run(
        cls, *, crops: Tensor, use_as: Any, faces: sockets.FacesOfImage | None
    ) -> io.NodeOutput:
        """Take (N, S, S, C) float RGB in [0, 1]; the crops given are not changed."""
        changed = pictures.to_frames(crops)[:, :3].clamp(0, 1)
        origin = faces_from_crops(changed) if faces is None else faces.faces
        if not len(origin):
            # What came is the black picture that stands for no face.
            return io.NodeOutput(sockets.FacesOfImage(origin, None))
        return io.NodeOutput(sockets.FacesOfImage(exchange_crops(origin, changed, use_as), None))
