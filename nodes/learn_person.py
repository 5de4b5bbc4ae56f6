"""GFPLearnPerson: a few good pictures of one person in, a restorer that knows the person out."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.options import Precision
from ..gfp_core.restore import Restorer
from ..gfp_core.weights.catalogue import Role
from ..gfp_core.weights.difference import Difference
from ..gfp_core.weights.loading import read_difference
from . import inputs, sockets
from .comfy import folders, models, pictures
from .comfy.memory import STATELESS, digest, is_stateless
from .comfy.models import Managed
from .comfy.node import Node, schema
from .comfy.progress import Bar

MORE = ("images_2", "images_3")
"""Further sockets for pictures, which may have other sizes."""
FOLDER = "persons"
"""Folder of saved persons, below ComfyUI's folder of restorers."""
FORBIDDEN = (
    f"save: this server keeps nothing from one prompt to the next ({STATELESS}); switch save off"
)
MAX_KEPT = 4
LEARNED: OrderedDict[str, Difference] = OrderedDict()
"""What was learned lately, by what it was learned from: the same pictures are learned once."""


def _learning() -> list[Any]:
    """Make the widgets of how long is learned, and of what becomes of it."""
    return [
        io.Int.Input(
            "steps",
            default=160,
            min=1,
            max=5000,
            optional=True,
            tooltip="At most; learning ends early where held faces come no nearer.",
        ),
        io.Float.Input(
            "minutes",
            default=0.0,
            min=0.0,
            max=600.0,
            step=0.5,
            optional=True,
            tooltip="At most; the result then depends on the machine. 0: as many as the "
            "steps take.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            optional=True,
            tooltip="Of all that is drawn: the same seed gives the same restorer.",
        ),
        io.Boolean.Input(
            "save",
            default=False,
            optional=True,
            tooltip=f"Save what was learned (2 MB) in the folder {FOLDER} of the "
            "restorers, for Load Face Restorer (GFP).",
        ),
        io.String.Input(
            "name",
            default="person",
            optional=True,
            tooltip="Name of the saved file, without its ending.",
        ),
    ]


class GFPLearnPerson(Node):
    """Learns one person from a few good pictures."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPLearnPerson",
            display_name="Learn a Person's Face (GFP)",
            category="GFP",
            description="Tunes a restorer on a few good pictures of one person, in minutes, so "
            "that poor pictures look more like that person. Only of people who agree, or of your "
            "own family; a restored face is a likeness, not evidence.",
            search_aliases=["personal restorer", "identity", "likeness", "train face", "fine-tune"],
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="One good picture of the person, or a batch: sharp, the face at least "
                    "200 pixels wide. The largest face counts; poor pictures are left out.",
                ),
                *(
                    io.Image.Input(
                        name, optional=True, tooltip="Further pictures, of any other size."
                    )
                    for name in MORE
                ),
                *inputs.widgets("model", required=["model"]),
                *_learning(),
                sockets.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="A loaded detector, in place of the bundled one.",
                ),
                sockets.Embedder.Input(
                    "embedder",
                    optional=True,
                    tooltip="From Load Face Embedder (GFP): leaves out pictures of other people, "
                    "and finds the person in a group.",
                ),
                inputs.runtime("precision"),
                inputs.device(),
            ],
            outputs=[
                sockets.Restorer.Output(
                    display_name="restorer",
                    tooltip="For the restoring nodes: what was learned for the person, its base "
                    "for others.",
                ),
                io.String.Output(display_name="report", tooltip="What was learned, in a sentence."),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        images: Tensor,
        model: str,
        save: bool,
        name: str,
        precision: Precision,
        device: Any,
        detector: Managed[Any] | None,
        embedder: Managed[Any] | None,
        **values: Any,
    ) -> io.NodeOutput:
        """Learn, unless these pictures were learned before; the images given are not changed."""
        if save and is_stateless():
            raise ValueError(FORBIDDEN)
        batches = [images, *(values[name] for name in MORE if values[name] is not None)]
        target = _file(name) if save else None
        mark = "/".join(
            [
                *map(digest, batches),
                folders.fingerprint("restorer", model),
                *(str(values[each]) for each in ("steps", "minutes", "seed")),
                "" if embedder is None else folders.fingerprint("embedder", embedder.name),
                # Saved persons of the bundled detector have no more than this in their marks.
                *([] if detector is None else [folders.fingerprint("detector", detector.name)]),
            ]
        )
        difference = None if is_stateless() else LEARNED.get(mark)
        if difference is None and target is not None and target.is_file():
            saved = read_difference(target)
            difference = saved if saved is not None and saved.about.get("mark") == mark else None
        if difference is None:
            difference = _learn(batches, model, mark, detector, embedder, device, **values)
        if not is_stateless():
            LEARNED[mark] = difference
        while len(LEARNED) > MAX_KEPT:
            LEARNED.popitem(last=False)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            difference.save(target)
        managed: Managed[Restorer] = models.manage_person(difference, name, precision, device)
        return io.NodeOutput(managed, _report(difference, target))


def _learn(
    batches: list[Tensor],
    model: str,
    mark: str,
    detector: Managed[Any] | None,
    embedder: Managed[Any] | None,
    device: Any,
    *,
    steps: int,
    minutes: float,
    seed: int,
    **_: Any,
) -> Difference:
    """Tune the restorer, with a bar, previews of a held face, and the user's cancel."""
    # Not when ComfyUI starts: nothing else needs them.
    from ..gfp_core.person.learn import Learning
    from ..gfp_core.person.make import learn_person, load_base

    weights = folders.weights("restorer")
    base = load_base(models.fetched("restorer", model), weights)
    detector = detector or models.last_used("detector", inputs.DETECTOR)
    where = models.device_of(device)
    models.make_room(base.needed_bytes(), where)
    together = models.join(detector=detector, embedder=embedder)
    assert together.detector is not None
    bar = Bar()
    lesson = learn_person(
        base,
        _photographs(batches),
        together.detector,
        Learning(steps=steps, minutes=minutes or None, seed=seed),
        embedder=together.embedder,
        device=where,
        about={"mark": mark, "embedder": "" if embedder is None else embedder.name},
        progress=bar,
        preview=lambda crops: bar.preview(crops[:1]),
    )
    return lesson.difference


def _photographs(batches: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    number = 0
    for batch in batches:
        for frame in pictures.to_frames(batch):
            number += 1
            yield f"picture {number}", frame[None]


def _file(name: str) -> Path:
    """Return where a person is saved.

    Raises:
        ValueError: the name has characters that a file's name had better not have.
    """
    stem = name.strip()
    if not re.fullmatch(r"[\w][\w .-]{0,80}", stem) or stem.endswith("."):
        raise ValueError(f"name: {name!r} is no name of a file; take letters, digits, - and _")
    return Path(folders.paths("restorer")[0]) / FOLDER / f"{stem}.safetensors"


def _report(difference: Difference, target: Path | None) -> str:
    about = difference.about
    text = (
        f"Learned from {about['photographs']} picture(s) in {about['steps']} steps on "
        f"{difference.base}; held faces come {100 * float(about['gain']):.0f} % nearer."
    )
    return text if target is None else f"{text} Saved as {FOLDER}/{target.name}."
