"""Restoring nodes of other packs, which become ours in old workflows where they are not installed.

ComfyUI replaces them, in graphs and in prompts; see its `NodeReplace`. Their detectors, YOLOv5
among them, are not taken over: ours is the default.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from .comfy import folders


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
    defaults: tuple[tuple[str, Any], ...] = ()
    """Its inputs that a prompt may leave out."""


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
        ),
        (("model", "lite"), ("strength", 1.0)),
        defaults=(("codeformer_fidelity", 0.5),),
    ),
    Replacement(
        "ReActorRestoreFace",
        "GFPRestorePhoto",
        ("facedetection", "model", "visibility", "codeformer_weight"),
        (
            ("image", "image"),
            ("model", "model"),
            ("strength", "visibility"),
            ("fidelity", "codeformer_weight"),
        ),
        model="model",
        defaults=(("visibility", 1.0), ("codeformer_weight", 0.5)),
    ),
)


async def register() -> None:
    """Tell ComfyUI of the replacements, where it has them."""
    if not hasattr(io, "NodeReplace"):
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
                    *({"new_id": ours, "old_id": theirs} for ours, theirs in each.inputs),
                    *({"new_id": ours, "set_value": value} for ours, value in each.values),
                ],
                # No output mapping: the first output stays the first, and ComfyUI 0.33 fails where
                # a node and the one that it leads to are both replaced with one.
            )
        )


def prepare_prompt(request: dict[str, Any]) -> dict[str, Any]:
    """Bring the nodes of other packs in a prompt to the form in which ComfyUI replaces them."""
    installed = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    by_class = {each.old: each for each in REPLACEMENTS if each.old not in installed}
    prompt = request.get("prompt")
    for entry in prompt.values() if isinstance(prompt, dict) else ():
        inputs = entry.get("inputs") if isinstance(entry, dict) else None
        replacement = by_class.get(str(entry.get("class_type"))) if inputs else None
        if replacement is None or not isinstance(inputs, dict):
            continue
        entry.setdefault("_meta", {})
        for name, value in replacement.defaults:
            inputs.setdefault(name, value)
        if replacement.model in inputs:
            inputs[replacement.model] = folders.translate("restorer", inputs[replacement.model])
    return request
