"""GFPIdentityGuard: restored faces that became someone else are taken back."""

from typing import Any

from comfy_api.latest import io

from ..gfp_core.identity import LIMIT, compare, take_back
from . import sockets
from .comfy.models import Managed
from .comfy.node import Node, schema


class GFPIdentityGuard(Node):
    """Compares restored faces with what they were."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPIdentityGuard",
            display_name="Guard Face Identity (GFP)",
            category="GFP",
            description="Measures how far each restored face has turned from whom it showed, and "
            "takes it back beyond a limit, smoothly, down to the input.",
            search_aliases=["face similarity", "identity"],
            inputs=[
                sockets.FacesType.Input("faces", tooltip="Restored faces."),
                sockets.Embedder.Input("embedder", tooltip="From Load Face Embedder (GFP)."),
                io.Float.Input(
                    "limit",
                    default=LIMIT,
                    min=1.0,
                    max=180.0,
                    step=0.5,
                    tooltip="Degrees from which on a face is taken back; from 1.5 times this on "
                    "nothing of the restored face is left.",
                ),
            ],
            outputs=[
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The faces, restored as far as they are alike."
                ),
                io.String.Output(
                    display_name="report", tooltip="A line for each face: degrees and share kept."
                ),
            ],
        )

    @classmethod
    def run(
        cls, *, faces: sockets.FacesOfImage, embedder: Managed[Any], limit: float
    ) -> io.NodeOutput:
        """Compare; the faces given are not changed."""
        restored = faces.restored_faces
        likeness = compare(restored, embedder.ready(), limit=limit)
        lines = [
            f"face {index}, frame {face.frame}: {angle:.1f} degrees, {share:.0%} kept"
            for index, (face, angle, share) in enumerate(
                zip(restored.faces, *(values.tolist() for values in likeness), strict=True)
            )
        ]
        guarded = take_back(restored, likeness.strengths)
        return io.NodeOutput(faces.with_faces(guarded), "\n".join(lines))
