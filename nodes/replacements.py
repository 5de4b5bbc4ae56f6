"""Restoring nodes of other packs, which become ours in old workflows where they are not installed.

In a graph the page replaces them, where ComfyUI has `NodeReplace`; in a prompt of the API we do it,
in every version.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..gfp_core.weights import WeightsError
from .comfy import folders

logger = logging.getLogger(__name__)

Inputs = dict[str, Any]
HAS_NODE_REPLACE = hasattr(io, "NodeReplace")  # came with 0.16


def _no_more(_: Inputs) -> Inputs:
    return {}


@dataclass(frozen=True)
class Replacement:
    """One node of another pack."""

    old: str
    new: str
    widgets: tuple[str, ...]
    """Its widgets, in the order of a workflow's values."""
    inputs: tuple[tuple[str, str], ...]
    """Pairs of our input and theirs."""
    values: tuple[tuple[str, Any], ...] = ()
    """What our other inputs are set to."""
    model: str = ""
    """Its input that names a restorer's file."""
    detector: str = ""
    """Its input that names a detector."""
    defaults: tuple[tuple[str, Any], ...] = ()
    """Its inputs that a prompt may leave out."""
    more: Callable[[Inputs], Inputs] = _no_more
    """Makes further inputs of ours from theirs, in prompts alone."""
    page: tuple[tuple[str, str], ...] = ()
    """Further pairs, in graphs alone: the page hands values on one by one."""


_ORDERS = {
    ("area", False): "smallest",
    ("area", True): "largest",
    ("x_position", False): "left to right",
    ("y_position", False): "top to bottom",
    ("detection_confidence", True): "score",
}
"""Our orders, by what ReActor sorts by and whether it reverses that."""


def _chosen_faces(inputs: Inputs) -> Inputs:
    """Return which faces ReActorRestoreFaceAdvanced restores, by what its inputs say.

    What cannot be said with ours stays as it is, so that ComfyUI refuses it.
    """
    selection = inputs.get("face_selection", "all")
    if selection not in ("filter", "largest"):
        return {"which": selection}
    key = str(inputs.get("sort_by", "area")), bool(inputs.get("reverse_order"))
    order = "largest" if selection == "largest" else _ORDERS.get(key)
    start, count = inputs.get("take_start", 0), inputs.get("take_count", 1)
    if order is None or not isinstance(start, int) or not isinstance(count, int):
        return {"which": selection}  # sorted in a way that we do not have, or by another node
    numbers = range(max(start, 0), max(start, 0) + max(count, 0))
    return {"order": order, "which": ", ".join(map(str, numbers)) or "none"}


_RESTORE_FACE = (
    ("image", "image"),
    ("model", "model"),
    ("strength", "visibility"),
    ("fidelity", "codeformer_weight"),
    ("detector_model", "facedetection"),
)
_RESTORE_FACE_DEFAULTS = (
    ("model", "GFPGANv1.4.pth"),
    ("visibility", 1.0),
    ("codeformer_weight", 0.5),
    ("facedetection", "retinaface_mobile0.25"),
)
REPLACEMENTS = (
    Replacement(
        "FaceRestoreModelLoader",  # facerestore_cf
        "GFPLoadRestorer",
        ("model_name",),
        (("model", "model_name"),),
        model="model_name",
    ),
    Replacement(
        "FaceRestoreCFWithModel",  # facerestore_cf
        "GFPRestorePhoto",
        ("facedetection", "codeformer_fidelity"),
        (
            ("restorer", "facerestore_model"),
            ("image", "image"),
            ("fidelity", "codeformer_fidelity"),
            ("detector_model", "facedetection"),
        ),
        (("model", "lite"), ("strength", 1.0)),
        detector="facedetection",
        defaults=(("codeformer_fidelity", 0.5), ("facedetection", "retinaface_mobile0.25")),
    ),
    Replacement(
        "ReActorRestoreFace",
        "GFPRestorePhoto",
        ("facedetection", "model", "visibility", "codeformer_weight"),
        _RESTORE_FACE,
        model="model",
        detector="facedetection",
        defaults=_RESTORE_FACE_DEFAULTS,
    ),
    Replacement(
        "ReActorRestoreFaceAdvanced",
        "GFPRestorePhoto",
        (
            "facedetection",
            "model",
            "visibility",
            "codeformer_weight",
            "face_selection",
            "sort_by",
            "reverse_order",
            "take_start",
            "take_count",
        ),
        _RESTORE_FACE,
        model="model",
        detector="facedetection",
        defaults=_RESTORE_FACE_DEFAULTS,
        more=_chosen_faces,
        page=(("which", "face_selection"),),  # "largest" by the page's script; "filter" is refused
    ),
)


async def register() -> None:
    """Tell ComfyUI of the replacements, where it has them."""
    if not HAS_NODE_REPLACE:
        return
    from comfy_api.latest import ComfyAPI

    manager = ComfyAPI().node_replacement
    for each in REPLACEMENTS:
        await manager.register(
            io.NodeReplace(
                new_node_id=each.new,
                old_node_id=each.old,
                old_widget_ids=list(each.widgets),
                input_mapping=[
                    *(
                        {"new_id": ours, "old_id": theirs}
                        for ours, theirs in (*each.inputs, *each.page)
                    ),
                    *({"new_id": ours, "set_value": value} for ours, value in each.values),
                ],
                # For the page. In a prompt ComfyUI 0.33 fails with one where a node and the one
                # that it leads to are both replaced; `prepare_prompt` has replaced them by then.
                output_mapping=[{"new_idx": 0, "old_idx": 0}],
            )
        )


def prepare_prompt(request: dict[str, Any]) -> dict[str, Any]:
    """Replace the nodes of other packs in a prompt, before ComfyUI misses them."""
    prompt = request.get("prompt")
    if not isinstance(prompt, dict):
        return request
    server_nodes = sys.modules.get("nodes")  # ComfyUI's
    installed = {} if server_nodes is None else server_nodes.NODE_CLASS_MAPPINGS
    by_class = {each.old: each for each in REPLACEMENTS if each.old not in installed}
    for entry in prompt.values():
        inputs = entry.get("inputs") if isinstance(entry, dict) else None
        if isinstance(inputs, dict) and entry.get("class_type") in by_class:
            replacement = by_class[entry["class_type"]]
            entry["class_type"] = replacement.new
            entry["inputs"] = replaced_inputs(replacement, inputs)
            logger.info("%s is not installed: %s in its place.", replacement.old, replacement.new)
    return request


def _detector(name: str) -> str:
    try:
        return folders.nearest_detector(name)
    except WeightsError:  # ComfyUI says that this is no choice
        return name


def replaced_inputs(replacement: Replacement, theirs: Inputs) -> Inputs:
    """Return our node's inputs from those of the node that it takes the place of."""
    theirs = {**dict(replacement.defaults), **theirs}
    ours = {new: theirs[old] for new, old in replacement.inputs if old in theirs}
    ours |= dict(replacement.values) | replacement.more(theirs)
    if isinstance(theirs.get(replacement.detector), str):
        ours["detector_model"] = _detector(theirs[replacement.detector])
    if replacement.model in theirs:
        name = theirs[replacement.model]
        if name == "none":  # theirs gives the image back then
            ours |= {"model": "lite", "which": "none"}
        else:
            ours["model"] = folders.translate("restorer", name)
    return ours
