"""The inputs of nodes made from the declared options, and their values back as options.

An option is declared in `gfp_core.options` alone. Each node lists the names of those it offers, in
the order of its widgets, which saved workflows count on; what no list names is offered at the end
of GFPRestoreOptions without an edit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

from comfy_api.latest import io

from ..gfp_core.options import (
    EXTRAS,
    Option,
    Part,
    RestoreOptions,
    find_option,
    options_of,
    presets,
)
from ..gfp_core.weights.catalogue import Role
from .comfy import folders
from .comfy.node import GROWS, Choice, advanced

PHOTO = (
    "model",
    "strength",
    "upscale",
    "fidelity",
    "color",
    "order",
    "select",
    "score",
    "min_size",
    "max_size",
    "rotations",
    "mask",
    "feather",
    "detector",
    "seed",
    "batch_size",
)
"""Options of GFPRestorePhoto."""
CHOOSING = ("detail", "grain", "auto_strength", "max_sharpness", "video")
MASKING = ("identity_limit", "grow", "occlusion", "parts")
MORE = (
    "color_strength",
    "keep_monochrome",
    "color_smoothing",
    "multiband",
    "padding",
    "flip",
    "long_side",
    "people_limit",
    "steps",
    "steadiness",
    "person_strength",
    "person_faces",
)
"""Options of GFPRestoreOptions, in three groups between its sockets."""

PARTS: tuple[Part, ...] = get_args(Part)
NO_PRESET = "none"
UPRIGHT = "upright only"
ROTATIONS: dict[str, tuple[int, ...]] = {
    UPRIGHT: (0,),
    "also upside down": (0, 180),
    "all four turns": (0, 90, 180, 270),
}
"""Which turns of the frame faces are looked for in."""
DETECTOR: str = find_option("detector").default
"""The detector that works without a download."""

Ids = Mapping[str, str]
"""Inputs of a node that are called otherwise than in the other nodes, by the option's name."""


def widgets(
    *names: str,
    shown: Collection[str] = (),
    required: Collection[str] = (),
    ids: Ids | None = None,
    **changes: Mapping[str, Any],
) -> list[Any]:
    """Make the widgets of options.

    Args:
        *names: of the options.
        shown: those that are no advanced inputs; the required ones are none either.
        required: those that a prompt may not leave out; their place is before the optional ones.
        ids: other names of inputs.
        **changes: by name of an option: fields of its `Option` that differ in this node.
    """
    made = []
    for name in names:
        declared = dataclasses.replace(find_option(name, RestoreOptions), **changes.get(name, {}))
        for widget in _make(declared, (ids or {}).get(name, declared.node_id)):
            widget.optional = name not in required
            hidden = widget.optional and name not in shown
            made.append(advanced(widget) if hidden else widget)
    return made


def remaining() -> list[str]:
    """Return the names of the options that a node can offer and none of the lists names."""
    named = {find_option(name).name for name in (*PHOTO, *CHOOSING, *MASKING, *MORE)}
    return [
        each.name
        for each in options_of(RestoreOptions)
        if each.name not in named and "node" not in each.absent
    ]


def to_options(
    values: Mapping[str, Any], base: RestoreOptions | None = None, ids: Ids | None = None
) -> RestoreOptions:
    """Return the options that the values of a node's inputs stand for.

    Args:
        values: by the inputs' names; what belongs to no option is passed over.
        base: options of a preset or another node, which hold where a value is the default.
        ids: other names of inputs.

    Raises:
        OptionError: a value is out of range or none of the choices.
    """
    base = RestoreOptions() if base is None else base
    taken = set((ids or {}).values())
    changes = {}
    for each in options_of(type(base)):
        id = (ids or {}).get(each.name) or (each.node_id if each.node_id not in taken else "")
        if "node" in each.absent or not (id in values or each.name == "parts"):
            continue
        value = each.check(_read(each, values, id))
        if value != each.default:
            changes[each.name] = value
    return base.replace(**changes)


def preset() -> Any:
    """Make the choice of a preset."""
    reasons = "\n".join(f"{name}: {reason}" for name, reason in presets().items())
    return Choice(
        "preset",
        options=[NO_PRESET, *presets()],
        default=NO_PRESET,
        optional=True,
        tooltip="Options for a kind of picture. What you change from its default comes before the "
        f"preset.\n{reasons}",
    )


def from_preset(name: str) -> RestoreOptions:
    """Return the options of a preset, or the defaults."""
    return RestoreOptions() if name == NO_PRESET else RestoreOptions.preset(name)


def wrong(name: str, value: Any) -> str | None:
    """Return what is wrong with the text of an input, see `node.add_check`."""
    if value == "None":
        return f"{name}: 'None' is what null becomes; write none for no face, or all"
    try:
        _by_id()[name].check(value)
    except ValueError as error:
        return str(error).removeprefix(f"{_by_id()[name].name}: ")
    return None


def texts() -> set[str]:
    """Return the names of the inputs whose text has a form that ComfyUI cannot check."""
    return {id for id, each in _by_id().items() if each.validate is not None}


def model_choice(role: Role, default: str, id: str = "model") -> Any:
    """Make the choice of the weights of a role."""
    names = folders.choices(role) or [default]  # where all are hidden, loading says why
    default = folders.default(role, default)
    where = " or ".join(f"models/{folder}" for folder in folders.FOLDERS[role])
    own = "your own files in that folder come first; " if role == "restorer" else ""
    choice = Choice(
        id,
        options=names,
        default=default if default in names else names[0],
        tooltip=f"From {where}: {own}names of the catalogue are found there or downloaded and "
        f"checked.\n{folders.describe(role)}",
    )
    choice.extra_dict = {  # for the page
        "gfp_labels": folders.labels(role),
        "gfp_names": folders.names_elsewhere(role) if role in ("restorer", "detector") else {},
    }
    return choice


PARTS_TOOLTIP = f"{find_option('parts').help} A change here comes before the switches."


def parts() -> list[Any]:
    """Make the choice of parts in one list, where the page shows such lists."""
    if not GROWS:
        return []
    declared = find_option("parts")
    return [
        io.MultiCombo.Input(
            "parts",
            options=list(PARTS),
            default=list(declared.default),
            optional=True,
            tooltip=PARTS_TOOLTIP,
        )
    ]


def runtime(name: str, **changes: Any) -> Any:
    """Make the choice of how a network runs: its precision, engine or provider.

    Args:
        name: of the option, which is declared for the restorer.
        **changes: fields of its `Option` that differ in this node.
    """
    declared = dataclasses.replace(find_option(name), **changes)
    return advanced(
        Choice(
            name,
            options=list(declared.choices),
            default=declared.default,
            tooltip=declared.help,
        )
    )


def device() -> Any:
    """Make the choice of where a network runs."""
    return advanced(
        Choice(
            "device",
            options=["auto", "cpu"],
            default="auto",
            tooltip="auto: ComfyUI's device; the network makes room when others need the memory.",
        )
    )


def mask(id: str) -> Any:
    """Make a socket for one of the masks that belong to frames."""
    return io.Mask.Input(id, optional=True, tooltip=EXTRAS[id])


def image(id: str, extra: str = "") -> Any:
    """Make a socket for one of the pictures that belong to frames."""
    return io.Image.Input(id, optional=True, tooltip=EXTRAS[extra or id])


def _make(declared: Option, id: str) -> Iterable[Any]:
    """Make the inputs of one option; of most it is one."""
    default, tooltip = _widget_value(declared, declared.default), declared.help
    if declared.none is not None and declared.is_optional:
        tooltip += f" {declared.none:g}: not set."
    common: dict[str, Any] = {"default": default, "tooltip": tooltip}
    if declared.name in ("model", "detector"):
        yield model_choice("restorer" if declared.name == "model" else "detector", default, id)
    elif declared.name == "rotations":
        yield Choice(id, options=list(ROTATIONS), default=UPRIGHT, tooltip=tooltip)
    elif declared.name == "parts":
        for part in PARTS:
            words = f"Restore the {part}, where a parser tells the parts apart."
            yield io.Boolean.Input(part, default=part in default, tooltip=words)
    elif declared.is_list:
        yield io.String.Input(id, default=", ".join(map(str, default)), tooltip=tooltip)
    elif declared.choices:
        yield Choice(id, options=list(declared.choices), **common)
    elif declared.kind is bool:
        yield io.Boolean.Input(id, **common)
    elif declared.kind is str:
        yield io.String.Input(id, **common)
    elif declared.kind is int or _is_whole(declared.step):
        limits = (None if x is None else int(x) for x in _limits(declared))
        whole_low, whole_high, whole_step = limits
        # A seed that went up by itself after each run would compute everything anew.
        fixed = {"control_after_generate": False} if declared.name == "seed" else {}
        yield io.Int.Input(
            id,
            min=whole_low,
            max=whole_high,
            step=whole_step,
            **{**common, "default": int(default)},
            **fixed,
        )
    else:
        low, high, step = _limits(declared)
        yield io.Float.Input(id, min=low, max=high, step=step, **common)


def _read(declared: Option, values: Mapping[str, Any], id: str) -> Any:
    """Return the value of an option from those of a node's inputs."""
    if declared.name == "parts":
        names = values.get("parts") or declared.default
        names = declared.parse(names) if isinstance(names, str) else declared.check(names)
        if set(names) != set(declared.default):
            return tuple(part for part in PARTS if part in names)
        return tuple(part for part in PARTS if values.get(part, part in declared.default))
    value = values[id]
    if declared.name == "rotations":
        return ROTATIONS[value] if value in ROTATIONS else declared.parse(str(value))
    if declared.is_list and isinstance(value, str):
        return declared.parse(value)
    return None if declared.none is not None and value == declared.none else value


def _widget_value(declared: Option, value: Any) -> Any:
    return declared.none if value is None and declared.none is not None else value


def _limits(declared: Option) -> tuple[float | None, float | None, float | None]:
    return declared.min, declared.max, declared.step


def _is_whole(step: float | None) -> bool:
    return step is not None and step == int(step)


def _by_id() -> dict[str, Option]:
    return {each.node_id: each for each in options_of(RestoreOptions)}
