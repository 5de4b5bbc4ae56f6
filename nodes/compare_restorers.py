"""GFPCompareRestorers: the same faces through several restorers, on one sheet."""

from typing import Any

from comfy_api.latest import io

from ..gfp_core.compare import Setting, compare, comparison_sheet, comparison_table
from . import host, inputs

COUNT = 6


class GFPCompareRestorers(io.ComfyNode):
    """Shows what several restorers make of the same faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPCompareRestorers",
            display_name="Compare Restorers (GFP)",
            category="GFP",
            description="Restores the same faces with several restorers and shows them side by "
            "side with names and timings, to find the one that suits a picture.",
            search_aliases=["face restoration comparison", "xy plot"],
            inputs=[
                inputs.FacesType.Input("faces", tooltip="From Detect Faces (GFP)."),
                *(
                    inputs.Restorer.Input(
                        f"restorer_{number}",
                        optional=number > 1,
                        tooltip="From Load Face Restorer (GFP).",
                    )
                    for number in range(1, COUNT + 1)
                ),
                inputs.fidelity(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip="A row a face (12 at most): the input, then a column a restorer.",
                ),
                io.String.Output(display_name="timings", tooltip="A line a restorer."),
            ],
        )

    @classmethod
    def execute(
        cls, faces: inputs.FacesOfImage, fidelity: float = 0.5, **restorers: host.Managed[Any]
    ) -> io.NodeOutput:
        """Restore in all ways; the faces given are not changed."""
        columns = []
        for name in sorted(restorers):  # one after the other: each may need all of the memory
            restorer = restorers[name]
            runner = restorer.ready(host.working_memory(restorer, 0))
            setting = Setting(restorer.name, runner, host.fidelity_for(restorer, fidelity))
            columns += compare(faces.at_size, [setting], progress=host.Bar())
        sheet = comparison_sheet(columns)
        return io.NodeOutput(host.to_image(sheet[None]), comparison_table(columns))
