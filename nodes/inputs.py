"""The types of the pack's sockets, and the inputs that several nodes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.align import align
from ..gfp_core.crops import resize_crops
from ..gfp_core.detect import DEFAULT_SCORE
from ..gfp_core.faces import Faces
from ..gfp_core.masks import DEFAULT_PARTS, PARTS
from ..gfp_core.options import MaskShape, Occlusion, Order, Part, Precision, parse_selection
from . import host

Restorer = io.Custom("GFP_RESTORER")
Detector = io.Custom("GFP_DETECTOR")
FacesType = io.Custom("GFP_FACES")
Parser = io.Custom("GFP_PARSER")
Embedder = io.Custom("GFP_EMBEDDER")
Options = io.Custom("GFP_OPTIONS")

NEEDS_EMBEDDER = "Comparing faces needs an embedder: connect Load Face Embedder (GFP) as well."
BoundingBox = io.Custom("BOUNDING_BOX")  # the core's, which older versions have no class for


@dataclass(frozen=True)
class FacesOfImage:
    """What a GFP_FACES socket carries."""

    faces: Faces
    frames: Tensor | None
    """The frames (B, C, H, W) they were cut from, upstream's own and never changed; None where
    another node has worked on the crops, so that they must not be cut anew."""

    def at_size(self, size: int) -> Faces:
        """The faces with crops of ``size`` pixels, cut anew where that is possible."""
        crops = self.faces.crops
        if crops is None or crops.shape[-1] == size:
            return self.faces
        if self.frames is None:
            return resize_crops(self.faces, size)
        return align(self.frames, self.faces, size)


DETECTOR = "retinaface_mobile025"
"""The detector that works without a download."""
UPRIGHT = "upright only"
ROTATIONS = {
    UPRIGHT: (0,),
    "also upside down": (0, 180),
    "all four turns": (0, 90, 180, 270),
}
"""Which turns of the frame faces are looked for in."""


def restorer_choice(id: str = "model") -> Any:
    """Which restorer."""
    names = host.choices("restorer")
    return io.Combo.Input(
        id,
        options=names,
        default=names[0],
        tooltip="Names of the catalogue are found in models/facerestore_models or downloaded and "
        "checked; below them are your own files in that folder.\n" + host.describe("restorer"),
    )


def model_choice(role: host.Role, default: str, id: str = "model") -> Any:
    """Which weights of a role whose files are found by the catalogue alone."""
    names = host.choices(role) or [default]  # where all are hidden, loading says why
    folders = " or ".join(f"models/{folder}" for folder in host.FOLDERS[role])
    return io.Combo.Input(
        id,
        options=names,
        default=default if default in names else names[0],
        tooltip=f"Found in {folders}, or downloaded and checked.\n" + host.describe(role),
    )


def precision() -> Any:
    """In which precision the restorer computes."""
    return host.advanced(
        io.Combo.Input(
            "precision",
            options=list(get_args(Precision)),
            default="auto",
            tooltip="auto: fp16 where the GPU is faster with it, else fp32. bf16 saves time with "
            "large models on CPUs that have it. Faces that overflow are computed again in fp32.",
        )
    )


def device() -> Any:
    """Where a network runs."""
    return host.advanced(
        io.Combo.Input(
            "device",
            options=["auto", "cpu"],
            default="auto",
            tooltip="auto: ComfyUI's device; the network makes room when others need the memory.",
        )
    )


def detection() -> list[Any]:
    """How faces are found."""
    return [
        io.Float.Input(
            "score",
            optional=True,
            default=DEFAULT_SCORE,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Confidence above which a detection counts as a face. Lower finds more, and "
            "more that is none.",
        ),
        host.advanced(
            io.Int.Input(
                "min_size",
                default=0,
                min=0,
                max=16384,
                tooltip="Leave out faces smaller than this: longer side of the box, in pixels.",
            )
        ),
        host.advanced(
            io.Int.Input(
                "max_size",
                default=0,
                min=0,
                max=16384,
                tooltip="Leave out faces larger than this, in pixels. 0: no limit.",
            )
        ),
        host.advanced(
            io.Combo.Input(
                "rotations",
                options=list(ROTATIONS),
                default=UPRIGHT,
                tooltip="Turns of the image in which faces are looked for: more find faces that "
                "lie or stand on their head, and take as many times longer.",
            )
        ),
    ]


def choosing() -> list[Any]:
    """Which of the faces go on."""
    return [
        io.Combo.Input(
            "order",
            optional=True,
            options=list(get_args(Order)),
            default="largest",
            tooltip="How the faces of an image are numbered: from 0, the first in this order.",
        ),
        io.String.Input(
            "which",
            optional=True,
            default="all",
            tooltip="Which faces go on: all, none, first 2, or their numbers: 0, 2. "
            "For each image of a batch by itself.",
        ),
    ]


def check(node: type[io.ComfyNode], **values: Any) -> bool | str:
    """What a node's `validate_inputs` gives: True, or which choice is none and why.

    ComfyUI 0.3.75 lets any text pass as a choice. An input named here loses ComfyUI's own checks,
    so only choices and ``which`` are to be named. A value that comes from another node is None.
    """
    options = {
        one.id: one.options
        for one in node.define_schema().inputs
        if isinstance(one, io.Combo.Input)
    }
    for name, value in values.items():
        if value is not None and name in options and value not in options[name]:
            return f"{name}: {value!r} is not one of {', '.join(map(str, options[name]))}"
    if values.get("which") is not None:
        try:
            parse_selection(values["which"])
        except ValueError as error:
            return str(error)
    return True


def detection_options(score: float, min_size: int, max_size: int, rotations: str) -> dict[str, Any]:
    """The values of `detection` as `FaceDetector.detect` takes them."""
    return {
        "score": score,
        "min_size": min_size,
        "max_size": max_size or None,
        "rotations": ROTATIONS[rotations],
    }


def strength() -> Any:
    """How much of the restored face shows."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="Share of the restored face: 0 leaves the image as it is.",
    )


def outline() -> list[Any]:
    """Where the restored face shows."""
    return [
        host.advanced(
            io.Combo.Input(
                "mask",
                options=[shape for shape in get_args(MaskShape) if shape != "parts"],
                default="ellipse",
                tooltip="Outline inside which a face is restored: an ellipse about the mean face, "
                "the whole crop, or the hull of this face's landmarks.",
            )
        ),
        host.advanced(
            io.Float.Input(
                "feather",
                default=0.1,
                min=0.0,
                max=0.5,
                step=0.01,
                tooltip="Width of the mask's fade, as a share of the crop's side.",
            )
        ),
    ]


def allowed() -> Any:
    """Where the image may be touched."""
    return io.Mask.Input(
        "frame_mask",
        optional=True,
        tooltip="Where the image may be touched at all: painted by you or made by other nodes. Of "
        "the image's size or the result's; one for all frames, or one each.",
    )


def grow() -> Any:
    """Larger or smaller masks."""
    return io.Float.Input(
        "grow",
        optional=True,
        default=0.0,
        min=-0.5,
        max=0.5,
        step=0.01,
        tooltip="Moves the mask's outline outwards, or inwards below 0: share of the crop's side.",
    )


def occlusion() -> Any:
    """What stands before a face."""
    return io.Combo.Input(
        "occlusion",
        options=list(get_args(Occlusion)),
        optional=True,
        default="auto",
        tooltip="Leave what stands before the face, such as hands, hair and glasses that the "
        "restorer erased. auto: if there is a parser. on: without one too, by what differs too "
        "much. off: no.",
    )


def parts() -> list[Any]:
    """A switch for each part of a face."""
    return [
        host.advanced(
            io.Boolean.Input(
                part,
                default=part in DEFAULT_PARTS,
                tooltip=f"Restore the {part}, where a parser tells the parts apart.",
            )
        )
        for part in PARTS
    ]


def chosen_parts(switches: dict[str, bool]) -> tuple[Part, ...]:
    """The parts that the switches of `parts` leave on."""
    return tuple(part for part in PARTS if switches.get(part, part in DEFAULT_PARTS))


def blending() -> list[Any]:
    """How restored faces go into the image."""
    return [
        host.advanced(
            io.Float.Input(
                "detail",
                default=1.0,
                min=0.0,
                max=1.0,
                step=0.05,
                tooltip="Of faces larger than the restorer's crop: share of the image's own fine "
                "detail that they keep, without its noise and JPEG blocks.",
            )
        ),
        host.advanced(
            io.Float.Input(
                "grain",
                default=0.0,
                min=0.0,
                max=1.0,
                step=0.05,
                tooltip="Share of the image's grain that restored faces are given again, so that "
                "they do not look smoother than the rest.",
            )
        ),
        host.advanced(
            io.Boolean.Input(
                "auto_strength",
                default=True,
                tooltip="Restore faces less that are sharp already, tiny, or hardly sure to be "
                "faces; the log says how much. Off: all at the full strength.",
            )
        ),
    ]


def choosing_more() -> list[Any]:
    """Which faces are counted at all."""
    return [
        host.advanced(
            io.Float.Input(
                "max_sharpness",
                default=1.0,
                min=0.0,
                max=1.0,
                step=0.05,
                tooltip="Leave out faces sharper than this: 1 leaves out none, 0.5 those with more "
                "detail than half a crop of 512 pixels can show.",
            )
        ),
        host.advanced(
            io.Boolean.Input(
                "video",
                default=False,
                tooltip="The images of the batch are frames of a video in order: follow the faces "
                "and steady them, so that they do not flicker.",
            )
        ),
        io.Mask.Input(
            "region",
            optional=True,
            tooltip="Only faces whose middle, or half of whose box, lies in this mask.",
        ),
        io.Image.Input(
            "people",
            optional=True,
            tooltip="Only the faces of these people: one picture of each (the largest face "
            "counts). Needs an embedder.",
        ),
        Embedder.Input(
            "embedder",
            optional=True,
            tooltip="From Load Face Embedder (GFP): tells who is who.",
        ),
    ]


def upscale() -> Any:
    """Size of the result."""
    return io.Float.Input(
        "upscale",
        optional=True,
        default=1.0,
        min=1.0,
        max=8.0,
        step=0.5,
        tooltip="Size of the result relative to the image, which is resampled. For a better "
        "background connect an upscaler's image to upscaled instead.",
    )


def upscaled() -> Any:
    """The image in another size, to paste into."""
    return io.Image.Input(
        "upscaled",
        optional=True,
        tooltip="The same image brought to any other size by an upscaler: the faces are pasted "
        "into it, and the result has its size.",
    )


def fidelity() -> Any:
    """Between the prior and the input."""
    return io.Float.Input(
        "fidelity",
        optional=True,
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="Only for networks that have it (CodeFormer): 0 the finest face, 1 the most "
        "faithful to the input. Others ignore it.",
    )


def color_mode(id: str, modes: Sequence[str]) -> Any:
    """Whose colours restored faces take."""
    return io.Combo.Input(
        id,
        options=list(modes),
        default="auto",
        tooltip="Whose colours the faces take. auto: the photograph's, without its noise. "
        "restorer: the network's own. input: exactly the photograph's chroma. lightness: the "
        "photograph's lightness with the network's colours. match, mean_std, low_frequency: the "
        "photograph's as a whole, by its covariance, by its deviation, or place by place. "
        + ("reference: those of another picture. " if "reference" in modes else "")
        + "enhance: livelier ones.",
    )


def seed() -> Any:
    """Of the network's noise."""
    return host.advanced(
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,
            tooltip="Of the fine noise that GFP-GAN and GPEN add to skin and hair. 0: the noise "
            "stored with the weights. Networks without noise ignore it.",
        )
    )


def batch() -> Any:
    """Faces at once."""
    return host.advanced(
        io.Int.Input(
            "batch",
            default=0,
            min=0,
            max=64,
            tooltip="Faces that go through the network at once. 0: 8 on a GPU, 1 on a CPU. It is "
            "halved by itself when memory runs out.",
        )
    )
