"""What all nodes have in common: defaults for what is left out, checks, old versions of ComfyUI."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from comfy_api.latest import io

from ...gfp_core.weights.catalogue import Role
from . import folders

Check = Callable[[str, Any], "str | None"]
"""Returns what is wrong with the value of an input, in words; None if nothing is."""


CHECKS_CHOICES = hasattr(io, "DynamicCombo")
"""Whether ComfyUI checks the choices of an `io.Combo`; older versions check a list of them only."""
GROWS = hasattr(io, "Autogrow")
"""Whether a node can have as many sockets as are connected; such versions also have a choice of
several that the page shows (`io.MultiCombo`)."""


class Node(io.ComfyNode):
    """A node in whose `run` every input has a value.

    What a prompt leaves out, and null, which an empty field of a template becomes, is the schema's
    default, or None for a socket that nothing is connected to.
    """

    MODELS: ClassVar[dict[str, Role]] = {}
    """Inputs that name weights, and what these are for."""
    RENAMED: ClassVar[dict[str, str]] = {}
    """Inputs by the names that saved workflows have for them."""

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Work on the inputs, all of them; the values given are not changed."""
        raise NotImplementedError

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        """Run with defaults for what is left out or null."""
        values = {name: value for name, value in inputs.items() if value is not None}
        return cls.run(**defaults(cls) | values)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Run again when the user's file was replaced; what is linked is not known here."""
        names = {name: inputs.get(name) for name in cls.MODELS}
        return " ".join(
            folders.fingerprint(cls.MODELS[id], name) for id, name in names.items() if name
        )


def schema(*, shows: bool = False, **arguments: Any) -> io.Schema:
    """Make a node's schema, without what this version of ComfyUI does not take.

    Args:
        shows: whether the node shows something of what passes through it. Older versions can only
            be told that it is an output, which makes them run it wherever it stands.
        **arguments: of `io.Schema`.
    """
    accepted = inspect.signature(io.Schema).parameters
    if shows:
        name = "has_intermediate_output"
        arguments[name if name in accepted else "is_output_node"] = True
    return io.Schema(**{name: value for name, value in arguments.items() if name in accepted})


def advanced(widget: Any) -> Any:
    """Mark an input as shown only to who asks for advanced ones; headless it can be left out."""
    widget.optional = True
    if "advanced" in inspect.signature(type(widget)).parameters:
        widget.advanced = True
    else:  # 0.3.75 hands unknown properties on to the page, which knows this one
        widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


def defaults(node: type[io.ComfyNode]) -> dict[str, Any]:
    """Return the default of every input of a node; None where there is none."""
    return {each.id: getattr(each, "default", None) for each in node.define_schema().inputs}


class Choice(io.Combo.Input):
    """A choice of which ComfyUI refuses what is not offered, in every version."""

    def get_io_type(self) -> Any:
        """Return the type, in the form in which this version of ComfyUI checks the values."""
        return super().get_io_type() if CHECKS_CHOICES else list(self.options)


def add_check(node: type[io.ComfyNode], check: Check, names: set[str]) -> None:
    """Give a node the `validate_inputs` that refuses wrong values before anything runs.

    ComfyUI repeats what it says for every input that the function's signature names, and leaves
    its own checks of these out. So the signature names no more than needed: of ``names``, those
    that the node has.
    """
    named = [each.id for each in node.define_schema().inputs if each.id in names]
    if not named:
        return

    def validate_inputs(cls: Any, **values: Any) -> bool | str:
        for name, value in values.items():
            # None: another node brings it.
            if value is not None and (message := check(name, value)):
                return message
        return True

    # ComfyUI asks `inspect.getfullargspec`, which leaves out keyword-only parameters.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("cls", kind)]
    parameters += [inspect.Parameter(name, kind, default=None) for name in named]
    validate_inputs.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    as_method: Any = classmethod(validate_inputs)  # type: ignore[arg-type]
    node.validate_inputs = as_method


def prompt_handler(nodes: list[type[Node]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a handler that ComfyUI asks before it checks a prompt.

    Null becomes the input's default, where ComfyUI would refuse it or make the text "None" of it;
    the file names of other packs become the catalogue's names.
    """
    classes = {node.define_schema().node_id: node for node in nodes}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        prompt = request.get("prompt")
        for entry in prompt.values() if isinstance(prompt, dict) else ():
            inputs = entry.get("inputs") if isinstance(entry, dict) else None
            node = classes.get(str(entry.get("class_type"))) if isinstance(inputs, dict) else None
            if node is not None and inputs is not None:
                for old in node.RENAMED.keys() & inputs.keys():
                    inputs.setdefault(node.RENAMED[old], inputs.pop(old))
                _fill_nulls(node, inputs)
                _translate_names(node, inputs)
        return request

    return handle


def _fill_nulls(node: type[Node], inputs: dict[str, Any]) -> None:
    nulls = [name for name, value in inputs.items() if value is None]
    values = defaults(node) if nulls else {}
    for name in nulls:
        del inputs[name]
        # ComfyUI takes a list for a link; what is left out gets its default in `Node.execute`.
        if values.get(name) is not None and not isinstance(values[name], (list, tuple)):
            inputs[name] = values[name]


def _translate_names(node: type[Node], inputs: dict[str, Any]) -> None:
    for id, role in node.MODELS.items():
        if id in inputs:
            inputs[id] = folders.translate(role, inputs[id])
