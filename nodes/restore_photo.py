"""GFPRestorePhoto: image in, image with restored faces out."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions
from ..gfp_core.pipeline import Extra, FaceRestorer, Restoration
from ..gfp_core.select import sort
from ..gfp_core.weights.catalogue import Role
from . import inputs, sockets
from .comfy import models, pictures
from .comfy.memory import DETECTED, RESTORED
from .comfy.models import Managed
from .comfy.node import Node, schema
from .comfy.progress import Bar
from .keys import Key, detection_key, restoration_key
from .picker import picker_frames
from .report import as_text, for_page, report
from .restore_options import NEEDS_EMBEDDER

NEEDS_PARSER = (
    "The mask parts needs a parser: connect Load Face Parser (GFP) to Face Restore Options (GFP), "
    "and that to options."
)
DETECTION_SHARE, RESTORATION_SHARE = 0.2, 0.9
"""How far the bar is after detection, and after restoration."""


SEARCH_ALIASES = [
    "face",
    "face enhance",
    "face enhancer",
    "face detailer",
    "face fix",
    "face restoration",
    "restore",
    "fix face",
    "restore photo",
    "restore face",
    "upscale face",
    "old photo",
    "gfpgan",
    "codeformer",
    "restoreformer",
    "gpen",
    "reactor",
]
"""What people search for who mean this node."""


class GFPRestorePhoto(Node):
    """Finds the faces of an image, restores them and pastes them back."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer", "detector_model": "detector"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestorePhoto",
            display_name="Face Restore (GFP)",
            category="GFP",
            description="Finds the faces of an image, restores them and pastes them back without a "
            "seam. Images without a face come out as they are. Put it after VAE Decode, or after "
            "Load Image for an old photo.",
            search_aliases=SEARCH_ALIASES,
            shows=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                *inputs.widgets(
                    *inputs.PHOTO, required=["model", "strength"], shown=["upscale", "select"]
                ),
                inputs.image("upscaled", "background"),
                sockets.Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="A loaded restorer, in place of the one named by model.",
                ),
                sockets.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="A loaded detector, in place of the one named by detector_model.",
                ),
                sockets.Options.Input(
                    "options",
                    optional=True,
                    tooltip="From Face Restore Options (GFP): masks by parts, blending, certain "
                    "people, frames of a video, the identity guard.",
                ),
                inputs.preset(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The image with restored faces."),
                io.Mask.Output(
                    display_name="mask", tooltip="Where, and how much, restored faces cover it."
                ),
                sockets.FacesType.Output(
                    display_name="faces", tooltip="The restored faces, with crops before and after."
                ),
                io.String.Output(display_name="report", tooltip="What was done, in a sentence."),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        image: Tensor,
        upscaled: Tensor | None,
        restorer: Managed[Any] | None,
        detector: Managed[Any] | None,
        options: sockets.FurtherOptions | None,
        preset: str,
        **values: Any,
    ) -> io.NodeOutput:
        """Restore (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        further = sockets.FurtherOptions() if options is None else options
        base = inputs.from_preset(preset).replace(**further.options.flat(changed=True))
        chosen = inputs.to_options(values, base)
        if chosen.mask.needs_parser and further.parser is None:
            raise ValueError(NEEDS_PARSER)
        if chosen.identity.identity_limit and further.embedder is None:
            raise ValueError(NEEDS_EMBEDDER)
        restorer = restorer or models.last_used("restorer", values["model"])
        detector = detector or models.last_used("detector", values["detector_model"])
        frames = pictures.to_frames(image)
        background = None if upscaled is None else pictures.to_frames(upscaled)
        steps = _Steps(image, frames, background, restorer, detector, further, chosen)
        candidates, result = _restore(steps)
        statements = report(candidates, result.faces, result.strengths, chosen)
        comparison = pictures.comparison(frames, result.frames)
        entries = picker_frames(candidates, chosen.selection.select, len(comparison))
        # Nothing may be connected to the faces: their crops are made when somebody asks.
        known = replace(result.faces, crops=None, restored=None)
        return io.NodeOutput(
            pictures.to_image(result.frames),
            pictures.to_mask(result.mask),
            sockets.FacesOfImage(known, frames, make=partial(steps.again, known)),
            as_text(statements),
            ui={
                "gfp_compare": [
                    {**pair, **entry} for pair, entry in zip(comparison, entries, strict=True)
                ],
                "gfp_report": for_page(statements),
            },
        )


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps from an image to its restored faces, which can be taken again at any time."""

    image: Tensor
    frames: Tensor
    background: Tensor | None
    restorer: Managed[Any]
    detector: Managed[Any]
    further: sockets.FurtherOptions
    options: RestoreOptions

    def networks(self) -> FaceRestorer:
        """Bring the networks to their devices."""
        memory = models.working_memory(self.restorer, self.options.runtime.batch_size)
        parser, embedder = self.further.parser, self.further.embedder
        return models.join(self.restorer, self.detector, parser, embedder, memory=memory)

    def extra(self, networks: FaceRestorer) -> Extra:
        """Return what belongs to the frames.

        Raises:
            ValueError: something does not.
        """
        sizes = pictures.sizes(self.frames, self.background)
        people, reference = self.further.people, self.further.reference
        extra = Extra(
            background=self.background,
            frame_mask=pictures.from_mask(self.further.frame_mask, *sizes),
            region=pictures.from_mask(self.further.region, sizes[0]),
            people=None if people is None else networks.describe([*pictures.to_frames(people)]),
            reference=None if reference is None else pictures.to_frames(reference),
        )
        extra.check(len(self.frames), self.options)
        return extra

    def detect(self, networks: FaceRestorer, extra: Extra, bar: Bar) -> tuple[Faces, Key]:
        """Return all faces, and the key of their detection."""
        size = self.restorer.runner.size
        key = detection_key(
            self.image, self.options, extra, size, self.detector, self.further.embedder
        )
        faces = DETECTED.get(
            self.image,
            key,
            lambda: networks.detect(
                self.frames,
                self.options,
                extra=extra,
                size=size,
                progress=bar.stage(0, DETECTION_SHARE),
            ),
        )
        return faces, key

    def restore(
        self, networks: FaceRestorer, candidates: Faces, key: Key, extra: Extra, bar: Bar
    ) -> Faces:
        """Return the selected ones of all faces, restored."""
        size = self.restorer.runner.size
        selected = networks.select(self.frames, candidates, self.options, size=size)

        def make() -> Faces:
            restored = networks.restore_faces(
                selected,
                self.options,
                extra=extra,
                progress=bar.stage(DETECTION_SHARE, RESTORATION_SHARE),
                preview=bar.preview,
            )
            return replace(restored, crops=None)

        # The crops are cut anew: what is kept is half as large.
        restored = RESTORED.get(
            self.image, restoration_key(key, selected, self.options, extra, self.restorer), make
        )
        # What selecting measured belongs to these options, what restoring made to the key.
        return replace(restored, crops=selected.crops, sharpness=selected.sharpness)

    def again(self, known: Faces) -> Faces:
        """Return faces that are known without their crops, with them."""
        networks, bar = self.networks(), Bar()
        extra = self.extra(networks)
        candidates, key = self.detect(networks, extra, bar)
        restored = self.restore(networks, candidates, key, extra, bar)
        return replace(known, crops=restored.crops, restored=restored.restored)


def _restore(steps: _Steps) -> tuple[Faces, Restoration]:
    """Return all faces, in the order in which they are numbered, and the restoration of some."""
    networks, bar = steps.networks(), Bar()
    extra = steps.extra(networks)
    candidates, key = steps.detect(networks, extra, bar)
    faces = steps.restore(networks, candidates, key, extra, bar)
    result = networks.paste(
        steps.frames,
        faces,
        steps.options,
        extra=extra,
        progress=bar.stage(RESTORATION_SHARE, 1),
    )
    bar.stage(0, 1)(1, 1)
    return sort(candidates, steps.options.selection.order), result
