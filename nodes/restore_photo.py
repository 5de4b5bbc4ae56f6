"""GFPRestorePhoto: image in, image with restored faces out."""

from typing import Any, get_args

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from torch import Tensor

from ..gfp_core.color import ColorMode
from ..gfp_core.detect import DEFAULT_SCORE
from ..gfp_core.pipeline import FaceRestorer
from . import host, inputs

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
            enable_expand=True,
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
                host.advanced(inputs.detector_choice("detector_model")),
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
        if restorer is None or detector is None:
            named = {"model": model, "detector_model": detector_model}
            return _with_loaders(
                image, named, restorer, detector, {**options, "strength": strength}
            )
        return _restore(image, restorer, detector, strength=strength, **options)


def _with_loaders(
    image: Tensor, named: dict[str, str], restorer: Any, detector: Any, options: dict[str, Any]
) -> io.NodeOutput:
    """This node again, behind the loaders it lacks.

    So the loaded networks stay in the executor's cache, as those of any loader, from one image to
    the next, and this node keeps none.
    """
    graph = GraphBuilder()
    if restorer is None:
        restorer = graph.node("GFPLoadRestorer", model=named["model"]).out(0)
    if detector is None:
        detector = graph.node("GFPLoadDetector", model=named["detector_model"]).out(0)
    node = graph.node(
        "GFPRestorePhoto", image=image, restorer=restorer, detector=detector, **named, **options
    )
    return io.NodeOutput(node.out(0), node.out(1), node.out(2), expand=graph.finalize())


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
    upscaled: Tensor | None = None,
    **options: Any,
) -> io.NodeOutput:
    frames = host.to_frames(image)
    bar = host.Bar()
    both = FaceRestorer(restorer.ready(host.working_memory(restorer, batch)), detector.ready())
    restored = both.restore(
        frames,
        background=None if upscaled is None else host.to_frames(upscaled),
        **inputs.detection_options(score, min_size, max_size, rotations),
        fidelity=fidelity if restorer.runner.has_fidelity else None,
        seed=seed or None,
        chunk=batch or None,
        progress=bar,
        preview=bar.preview,
        **options,
    )
    return io.NodeOutput(
        host.to_image(restored.frames),
        host.to_mask(restored.mask),
        inputs.FacesOfImage(restored.faces, frames),
        ui=host.comparison(frames, restored.frames),
    )
