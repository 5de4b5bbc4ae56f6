"""GFPCompareRestorers: the same faces through several restorers, on one sheet."""

import re
from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.compare import Setting, compare, comparison_sheet, comparison_table
from ..gfp_core.options import RestoreOptions
from ..gfp_core.pipeline import FaceRestorer
from . import inputs, sockets
from .comfy import folders, pictures
from .comfy.models import last_used, load_restorer, working_memory
from .comfy.node import GROWS, Node, schema
from .comfy.progress import Bar

COUNT, MAX_COUNT = 6, 24
"""Sockets for restorers: where they are fixed, and at most where they grow."""
NAMES = [f"restorer_{number}" for number in range(1, (MAX_COUNT if GROWS else COUNT) + 1)]
GROUP = "restorers"
RESTORER_TOOLTIP = "From Load Face Restorer (GFP); or name models."
NEEDS_RESTORER = "Compare Face Restorers (GFP) needs a restorer: connect one, or name models."
NEEDS_FACES = "Compare Face Restorers (GFP) needs faces or an image: connect one."


class GFPCompareRestorers(Node):
    """Shows what several restorers make of the same faces."""

    RENAMED: ClassVar[dict[str, str]] = (
        {name: f"{GROUP}.{name}" for name in NAMES[:COUNT]} if GROWS else {}
    )

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPCompareRestorers",
            display_name="Compare Face Restorers (GFP)",
            category="GFP",
            description="Restores the same faces with several restorers and shows them side by "
            "side with names and timings, to find the one that suits a picture.",
            search_aliases=["face restoration comparison", "compare face models", "xy plot"],
            is_output_node=True,
            inputs=[
                sockets.FacesType.Input(
                    "faces", optional=True, tooltip="From Detect Faces (GFP); or connect an image."
                ),
                *_restorers(),
                *inputs.widgets("fidelity", shown=["fidelity"]),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="In place of faces: an image whose faces are found first.",
                ),
                io.String.Input(
                    "models",
                    optional=True,
                    default="",
                    tooltip="Restorers by name, beside those that are connected: lite, gfpgan-1.4, "
                    "codeformer.",
                ),
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
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Run again when a file that is named was replaced."""
        return " ".join(
            folders.fingerprint("restorer", name) for name in _names(inputs.get("models"))
        )

    @classmethod
    def run(
        cls,
        *,
        faces: sockets.FacesOfImage | None,
        image: Tensor | None,
        models: str,
        **values: Any,
    ) -> io.NodeOutput:
        """Restore in all ways; the faces given are not changed."""
        fidelity = inputs.to_options(values).fidelity
        given = values.get(GROUP) or values  # a group where sockets grow
        connected = [given.get(name) for name in NAMES]
        restorers = [restorer for restorer in connected if restorer is not None]
        names = _names(models)
        if not restorers and not names:
            raise ValueError(NEEDS_RESTORER)
        for name in names:  # a wrong one is said before the work
            folders.find("restorer", name)
        if faces is None:
            if image is None:
                raise ValueError(NEEDS_FACES)
            faces = _detect(image)
        columns = []
        for restorer in [*restorers, *names]:  # one after the other: each may need all the memory
            if isinstance(restorer, str):
                restorer = load_restorer(restorer, "auto", "auto")
            runner = restorer.ready(working_memory(restorer, None))
            setting = Setting(restorer.name, runner, fidelity if runner.has_fidelity else None)
            columns += compare(faces.at_size, [setting], progress=Bar())
        sheet = comparison_sheet(columns)[None]
        return io.NodeOutput(
            pictures.to_image(sheet),
            comparison_table(columns),
            ui={"images": pictures.save_previews(sheet)},
        )


def _names(models: str | None) -> list[str]:
    """Return the names in the text of the input."""
    return [name.strip() for name in re.split(r"[,;\n]", models or "") if name.strip()]


def _restorers() -> list[Any]:
    """Make the sockets of the restorers."""
    tooltip = RESTORER_TOOLTIP
    if not GROWS:
        return [sockets.Restorer.Input(name, optional=True, tooltip=tooltip) for name in NAMES]
    socket = sockets.Restorer.Input("restorer", optional=True, tooltip=tooltip)
    template = io.Autogrow.TemplateNames(socket, names=NAMES, min=0)
    return [io.Autogrow.Input(GROUP, template=template, optional=True, tooltip=tooltip)]


def _detect(image: Tensor) -> sockets.FacesOfImage:
    """Find the faces of an image with the default detector and options."""
    frames = pictures.to_frames(image)
    finder = FaceRestorer(detector=last_used("detector", inputs.DETECTOR).ready())
    options = RestoreOptions(auto_strength=False)  # sharpness plays no part here
    return sockets.FacesOfImage(finder.find(frames, options, size=512, progress=Bar()), frames)
