"""GFPRestorePhoto: image in, image with restored faces out."""

from dataclasses import replace
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.detect import DEFAULT_SCORE
from ..gfp_core.options import ColorMode
from ..gfp_core.pipeline import FaceRestorer
from . import host, inputs
from .restore_options import NO_OPTIONS, RestoreOptions

COLORS = [mode for mode in get_args(ColorMode) if mode != "reference"]


class GFPRestorePhoto(io.ComfyNode):
    """Finds the faces of an image, restores them and pastes them back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPRestorePhoto",
            display_name="Restore Photo (GFP)",
            category="GFP",
            description="Finds the faces of an image, restores them and pastes them back without a "
            "seam. Images without a face come out as they are. Put it after VAE Decode, or after "
            "Load Image for an old photo.",
            search_aliases=["face restoration", "gfpgan", "codeformer", "fix face", "old photo"],
            essentials_category="Image Tools",
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                inputs.restorer_choice(),
                inputs.strength(),
                inputs.upscale(),
                host.advanced(inputs.fidelity()),
                host.advanced(inputs.color_mode("color", COLORS)),
                *map(host.advanced, inputs.choosing()),
                *map(host.advanced, inputs.detection()),
                *inputs.outline(),
                host.advanced(inputs.model_choice("detector", inputs.DETECTOR, "detector_model")),
                inputs.seed(),
                inputs.batch(),
                inputs.upscaled(),
                inputs.Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="A loaded restorer, in place of the one named by model.",
                ),
                inputs.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="A loaded detector, in place of the one named by detector_model.",
                ),
                inputs.Options.Input(
                    "options",
                    optional=True,
                    tooltip="From Restore Options (GFP): masks by parts, blending, certain people, "
                    "frames of a video, the identity guard.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
                inputs.FacesType.Output(
                    display_name="faces", tooltip="The restored faces, with crops before and after."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: Any = None,
        detector_model: Any = None,
        mask: Any = None,
        color: Any = None,
        order: Any = None,
        rotations: Any = None,
        which: Any = None,
    ) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(
            cls,
            model=model,
            detector_model=detector_model,
            mask=mask,
            color=color,
            order=order,
            rotations=rotations,
            which=which,
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> str:
        """Run again when the user's file was replaced."""
        return host.fingerprint("restorer", model)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        model: str,
        strength: float,
        detector_model: str = inputs.DETECTOR,
        restorer: host.Managed[Any] | None = None,
        detector: host.Managed[Any] | None = None,
        **options: Any,
    ) -> io.NodeOutput:
        """Restore (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        return _restore(
            image,
            restorer or host.last_used("restorer", model),
            detector or host.last_used("detector", detector_model),
            strength=strength,
            **options,
        )


def _restore(
    image: Tensor,
    restorer: host.Managed[Any],
    detector: host.Managed[Any],
    *,
    fidelity: float = 0.5,
    score: float = DEFAULT_SCORE,
    min_size: int = 0,
    max_size: int = 0,
    rotations: str = inputs.UPRIGHT,
    seed: int = 0,
    batch: int = 0,
    mask: Any = "ellipse",
    feather: float = 0.1,
    upscaled: Tensor | None = None,
    options: RestoreOptions = NO_OPTIONS,
    **more: Any,
) -> io.NodeOutput:
    frames = host.to_frames(image)
    bar = host.Bar()
    find = detector.ready()
    together = FaceRestorer(
        restorer.ready(host.working_memory(restorer, batch)),
        find,
        parser=None if options.parser is None else options.parser.ready(),
        embedder=None if options.embedder is None else options.embedder.ready(),
    )
    restored = together.restore(
        frames,
        people=host.people(options.people, options.embedder, find),
        background=None if upscaled is None else host.to_frames(upscaled),
        **inputs.detection_options(score, min_size, max_size, rotations),
        fidelity=host.fidelity_for(restorer, fidelity),
        mask=replace(options.mask, shape=mask, feather=feather),
        seed=seed or None,
        batch_size=batch or None,
        progress=bar,
        preview=bar.preview,
        **options.given,
        **more,
    )
    return io.NodeOutput(
        host.to_image(restored.frames),
        host.to_mask(restored.mask),
        inputs.FacesOfImage(restored.faces, frames),
        ui=host.comparison(frames, restored.frames),
    )
