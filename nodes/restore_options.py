"""GFPRestoreOptions: what GFPRestorePhoto can do beyond its own inputs."""

from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.identity import LIMIT
from ..gfp_core.options import Blend, Mask
from ..gfp_core.track import Tracks
from . import host, inputs


@dataclass(frozen=True, eq=False)
class RestoreOptions:
    """What a GFP_OPTIONS socket carries."""

    mask: Mask = field(default_factory=Mask)
    """Its shape and feather are those of GFPRestorePhoto."""
    parser: host.Managed[Any] | None = None
    embedder: host.Managed[Any] | None = None
    people: Tensor | None = None
    """Pictures (R, H, W, C)."""
    given: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `FaceRestorer.restore`."""


NO_OPTIONS = RestoreOptions()


class GFPRestoreOptions(io.ComfyNode):
    """Further options for GFPRestorePhoto."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPRestoreOptions",
            display_name="Restore Options (GFP)",
            category="GFP",
            description="Further options for Restore Photo (GFP): masks that leave glasses and "
            "hands, detail and grain of the photo, certain people only, frames of a video, and the "
            "identity guard.",
            search_aliases=["face restore options"],
            inputs=[
                *inputs.blending(),
                *inputs.choosing_more(),
                io.Float.Input(
                    "identity_limit",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=180.0,
                    step=0.5,
                    tooltip="Degrees from which on a face that became someone else is taken back; "
                    f"{LIMIT:g} is a good limit. Needs an embedder. 0: no guard.",
                ),
                inputs.grow(),
                inputs.occlusion(),
                *inputs.parts(),
                inputs.allowed(),
                inputs.Parser.Input(
                    "parser",
                    optional=True,
                    tooltip="From Load Face Parser (GFP): masks hold the chosen parts only, and "
                    "leave the glasses, hands and hair before a face.",
                ),
            ],
            outputs=[
                inputs.Options.Output(
                    display_name="options", tooltip="For the input options of Restore Photo (GFP)."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, occlusion: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, occlusion=occlusion)

    @classmethod
    def execute(
        cls,
        detail: float = 1.0,
        grain: float = 0.0,
        auto_strength: bool = True,
        max_sharpness: float = 1.0,
        video: bool = False,
        region: Tensor | None = None,
        people: Tensor | None = None,
        embedder: host.Managed[Any] | None = None,
        identity_limit: float = 0.0,
        grow: float = 0.0,
        occlusion: Any = "auto",
        frame_mask: Tensor | None = None,
        parser: host.Managed[Any] | None = None,
        **parts: bool,
    ) -> io.NodeOutput:
        """Put them together."""
        if embedder is None and (people is not None or identity_limit):
            raise ValueError(inputs.NEEDS_EMBEDDER)
        given = {
            "blend": Blend(detail=detail, grain=grain),
            "auto_strength": auto_strength,
            "max_sharpness": max_sharpness if max_sharpness < 1 else None,
            "tracks": Tracks() if video else None,
            "region": region,
            "identity_limit": identity_limit or None,
            "frame_mask": frame_mask,
        }
        mask = Mask(grow=grow, parts=inputs.chosen_parts(parts), occlusion=occlusion)
        return io.NodeOutput(RestoreOptions(mask, parser, embedder, people, given))
