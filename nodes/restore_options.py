"""GFPRestoreOptions: what GFPRestorePhoto can do beyond its own inputs."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.options import RestoreOptions, presets
from . import inputs, sockets
from .comfy.models import Managed
from .comfy.node import Node, schema

NO_PRESET = "none"
NEEDS_EMBEDDER = "Comparing faces needs an embedder: connect Load Face Embedder (GFP) as well."


class GFPRestoreOptions(Node):
    """Further options for GFPRestorePhoto."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestoreOptions",
            display_name="Restore Options (GFP)",
            category="GFP",
            description="Further options for Restore Photo (GFP): presets, masks that leave "
            "glasses and hands, detail and grain of the photo, certain people only, frames of a "
            "video, and the identity guard.",
            search_aliases=["face restore options", "face restore preset"],
            inputs=[
                *inputs.widgets(*inputs.CHOOSING),
                inputs.mask("region"),
                inputs.image("people"),
                sockets.Embedder.Input(
                    "embedder",
                    optional=True,
                    tooltip="From Load Face Embedder (GFP): tells who is who.",
                ),
                *inputs.widgets(*inputs.MASKING, shown=["identity_limit", "grow", "occlusion"]),
                inputs.mask("frame_mask"),
                sockets.Parser.Input(
                    "parser",
                    optional=True,
                    tooltip="From Load Face Parser (GFP): masks hold the chosen parts only, and "
                    "leave the glasses, hands and hair before a face.",
                ),
                inputs.image("reference"),
                io.Combo.Input(
                    "preset",
                    options=[NO_PRESET, *presets()],
                    default=NO_PRESET,
                    optional=True,
                    tooltip=_presets_in_words(),
                ),
                *inputs.widgets(*inputs.MORE, *inputs.remaining()),
            ],
            outputs=[
                sockets.Options.Output(
                    display_name="options", tooltip="For the input options of Restore Photo (GFP)."
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
        base = None if preset == NO_PRESET else RestoreOptions.preset(preset)
        options = inputs.to_options(values, base)
        if embedder is None and (people is not None or options.identity.identity_limit):
            raise ValueError(NEEDS_EMBEDDER)
        return io.NodeOutput(
            sockets.FurtherOptions(options, parser, embedder, region, frame_mask, people, reference)
        )


def _presets_in_words() -> str:
    reasons = "\n".join(f"{name}: {reason}" for name, reason in presets().items())
    return (
        "Options for a kind of picture. What differs from its default, here or in Restore Photo "
        f"(GFP), comes before the preset.\n{reasons}"
    )
