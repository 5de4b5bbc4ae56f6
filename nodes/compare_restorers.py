"""GFPCompareRestorers: the same faces through several restorers, on one sheet."""

from typing import Any

from comfy_api.latest import io

from ..gfp_core.compare import Setting, compare, comparison_sheet, comparison_table
from . import inputs, sockets
from .comfy import pictures
from .comfy.models import working_memory
from .comfy.node import Node, schema
from .comfy.progress import Bar

COUNT = 6


class GFPCompareRestorers(Node):
    """Shows what several restorers make of the same faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPCompareRestorers",
            display_name="Compare Restorers (GFP)",
            category="GFP",
            description="Restores the same faces with several restorers and shows them side by "
            "side with names and timings, to find the one that suits a picture.",
            search_aliases=["face restoration comparison", "xy plot"],
            inputs=[
                sockets.FacesType.Input("faces", tooltip="From Detect Faces (GFP)."),
                *(
                    sockets.Restorer.Input(
                        f"restorer_{number}",
                        optional=number > 1,
                        tooltip="From Load Face Restorer (GFP).",
                    )
                    for number in range(1, COUNT + 1)
                ),
                *inputs.widgets("fidelity", shown=["fidelity"]),
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
    def run(cls, *, faces: sockets.FacesOfImage, **values: Any) -> io.NodeOutput:
        """Restore in all ways; the faces given are not changed."""
        fidelity = inputs.to_options(values).fidelity
        columns = []
        for number in range(1, COUNT + 1):  # one after the other: each may need all of the memory
            restorer = values[f"restorer_{number}"]
            if restorer is None:
                continue
            runner = restorer.ready(working_memory(restorer, None))
            setting = Setting(restorer.name, runner, fidelity if runner.has_fidelity else None)
            columns += compare(faces.at_size, [setting], progress=Bar())
        sheet = comparison_sheet(columns)
        return io.NodeOutput(pictures.to_image(sheet[None]), comparison_table(columns))
