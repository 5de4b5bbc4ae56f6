"""GFPRestoreFaces: aligned faces through a restorer."""

from typing import Any

from comfy_api.latest import io

from . import host, inputs


class GFPRestoreFaces(io.ComfyNode):
    """Restores the faces that were found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPRestoreFaces",
            display_name="Restore Faces (GFP)",
            category="GFP",
            description="Restores the faces that were found; paste them back with Paste Faces Back "
            "(GFP).",
            search_aliases=["face restoration", "gfpgan", "codeformer", "restoreformer"],
            inputs=[
                inputs.FacesType.Input("faces", tooltip="From Detect Faces (GFP)."),
                inputs.Restorer.Input("restorer", tooltip="From Load Face Restorer (GFP)."),
                inputs.fidelity(),
                inputs.seed(),
                inputs.batch(),
            ],
            outputs=[
                inputs.FacesType.Output(
                    display_name="faces", tooltip="The faces with their restored crops."
                ),
                io.Image.Output(
                    display_name="restored",
                    tooltip="The restored crops; one black picture if there is no face.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        faces: inputs.FacesOfImage,
        restorer: host.Managed[Any],
        fidelity: float = 0.5,
        seed: int = 0,
        batch: int = 0,
    ) -> io.NodeOutput:
        """Restore; the faces given are not changed."""
        crops = faces.at_size(restorer.runner.size)
        restored = host.restore(restorer, crops, fidelity=fidelity, seed=seed, batch=batch)
        return io.NodeOutput(
            inputs.FacesOfImage(restored, faces.frames),
            host.crops_to_image(restored, restored.restored),
        )
