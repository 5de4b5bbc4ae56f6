"""GFPRestoreFaces: aligned faces through a restorer."""

from typing import Any

from comfy_api.latest import io

from ..gfp_core.pipeline import FaceRestorer
from . import inputs, sockets
from .comfy import pictures
from .comfy.models import Managed, working_memory
from .comfy.node import Node, schema
from .comfy.progress import Bar


class GFPRestoreFaces(Node):
    """Restores the faces that were detected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestoreFaces",
            display_name="Run Face Restorer (GFP)",
            category="GFP",
            description="Restores the faces that were found; paste them back with Paste Faces Back "
            "(GFP).",
            search_aliases=["face restoration", "gfpgan", "codeformer", "restoreformer"],
            inputs=[
                sockets.FacesType.Input("faces", tooltip="From Detect Faces (GFP)."),
                sockets.Restorer.Input("restorer", tooltip="From Load Face Restorer (GFP)."),
                *inputs.widgets("fidelity", "seed", "batch_size", "steps", shown=["fidelity"]),
            ],
            outputs=[
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The faces with their restored crops."
                ),
                io.Image.Output(
                    display_name="restored",
                    tooltip="The restored crops; one black picture if there is no face.",
                ),
            ],
        )

    @classmethod
    def run(
        cls, *, faces: sockets.FacesOfImage, restorer: Managed[Any], **values: Any
    ) -> io.NodeOutput:
        """Restore; the faces given are not changed."""
        options = inputs.to_options(values)
        crops = faces.at_size(restorer.runner.size)
        bar = Bar()
        memory = working_memory(restorer, options.runtime.batch_size, len(crops))
        runner = restorer.ready(memory)
        restored = FaceRestorer(runner).restore_faces(
            crops,
            options.replace(color="restorer"),  # Match Face Colors (GFP) gives others
            progress=bar,
            preview=bar.preview,
        )
        return io.NodeOutput(
            sockets.FacesOfImage(restored, faces.frames),
            pictures.crops_to_image(restored, restored.restored),
        )
