"""GFPRestoreOptions: what GFPRestorePhoto can do beyond its own inputs."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from . import inputs, sockets
from .comfy.models import Managed
from .comfy.node import Node, schema

NEEDS_EMBEDDER = "Comparing faces needs an embedder: connect Load Face Embedder (GFP) as well."


class GFPRestoreOptions(Node):
    """Further options for GFPRestorePhoto."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestoreOptions",
            display_name="Face Restore Options (GFP)",
            category="GFP",
            description="Further options for Face Restore (GFP): presets, masks that leave "
            "glasses and hands, detail and grain of the photo, certain people only, frames of a "
            "video, and the identity guard.",
            search_aliases=["face restore options", "face restore preset"],
            inputs=[
                *inputs.widgets(
                    *inputs.CHOOSING, shown=["grain", "auto_strength", "max_sharpness", "video"]
                ),
                inputs.mask("region"),
                inputs.image("people"),
                sockets.Embedder.Input(
                    "embedder",
                    optional=True,
                    tooltip="From Load Face Embedder (GFP): tells who is who.",
                ),
                *inputs.widgets(*inputs.MASKING, shown=["identity_limit"]),
                inputs.mask("frame_mask"),
                sockets.Parser.Input(
                    "parser",
                    optional=True,
                    tooltip="From Load Face Parser (GFP): masks hold the chosen parts only, and "
                    "leave the glasses, hands and hair before a face.",
                ),
                inputs.image("reference"),
                inputs.preset(),
                *inputs.widgets(*inputs.MORE, *inputs.remaining()),
            ],
            outputs=[
                sockets.Options.Output(
                    display_name="options", tooltip="For the input options of Face Restore (GFP)."
                )
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        preset: str,
        parser: Managed[Any] | None,
        embedder: Managed[Any] | None,
        region: Tensor | None,
        frame_mask: Tensor | None,
        people: Tensor | None,
        reference: Tensor | None,
        **values: Any,
    ) -> io.NodeOutput:
        """Put the options together."""
        options = inputs.to_options(values, inputs.from_preset(preset))
        if embedder is None and (people is not None or options.identity.identity_limit):
            raise ValueError(NEEDS_EMBEDDER)
        return io.NodeOutput(
            sockets.FurtherOptions(options, parser, embedder, region, frame_mask, people, reference)
        )
