"""Declare every option of a restoration once: name, type, default, range, choices and help.

The command's flags, the nodes' inputs, the checks, the option files and the tables of the docs are
made from these declarations. Options are plain values: they can be compared, hashed, pickled, and
written to and read from TOML and JSON. Tensors that belong to frames are `pipeline.Extra`.

This module imports the standard library alone, so that ``gfp --help`` does not wait for PyTorch.

Example:
    >>> options = RestoreOptions.of(strength=0.8, grain=0.5)
    >>> options.blend.grain
    0.5
    >>> options == RestoreOptions.from_toml(options.to_toml())
    True
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import math
import numbers
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if typing.TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

T = TypeVar("T")

Order: TypeAlias = Literal[
    "score", "largest", "smallest", "left to right", "top to bottom", "centre"
]
Padding: TypeAlias = Literal["replicate", "reflect", "constant"]
MaskShape: TypeAlias = Literal["ellipse", "box", "hull", "parts"]
Occlusion: TypeAlias = Literal["auto", "on", "off"]
Part: TypeAlias = Literal[
    "skin", "brows", "eyes", "nose", "mouth", "ears", "neck", "glasses", "hair", "hat"
]
ColorMode: TypeAlias = Literal[
    "auto",
    "restorer",
    "input",
    "lightness",
    "match",
    "mean_std",
    "low_frequency",
    "reference",
    "enhance",
]
KeepMonochrome: TypeAlias = Literal["auto", "on", "off"]
Precision: TypeAlias = Literal["auto", "fp32", "fp16", "bf16"]
Engine: TypeAlias = Literal["auto", "plain", "openvino", "onnxruntime"]
Provider: TypeAlias = Literal[
    "auto", "cuda", "tensorrt", "directml", "migraphx", "rocm", "coreml", "openvino", "cpu"
]
Rotation: TypeAlias = Literal[0, 90, 180, 270]

PRESETS_FOLDER = Path(__file__).with_name("presets")
RECORD_TABLE = "made_by"
"""Table of an option file that says what made a result; not an option."""
AUTO = "auto"
"""Value of person_faces that leaves the choice to the embedder."""
CLIP_TABLE = "clip"
"""Table of the options of clips, which whoever restores pictures alone passes over."""


class OptionError(ValueError):
    """An option does not exist or its value is out of range; says which, and what is allowed."""


@dataclass(frozen=True)
class Option:
    """Describe one option, for whoever makes a flag, an input, a check or a row of a table."""

    name: str
    """The one name, unique among all options: keyword, flag (``--keep-monochrome``), TOML key."""
    path: tuple[str, ...]
    """Names of the attributes that lead to the value: ``("blend", "grain")``."""
    kind: type
    """Type of the value, or of the items where `is_list`: bool, int, float or str."""
    default: Any
    help: str
    """One sentence."""
    min: float | None = None
    max: float | None = None
    choices: tuple[Any, ...] = ()
    is_list: bool = False
    is_optional: bool = False
    """Whether None is a value; elsewhere None stands for the default."""
    metavar: str = ""
    """What stands for a value in the help of the command."""
    step: float | None = None
    """Step of a widget."""
    none: float | None = None
    """Number that stands for None in a widget, which has to hold a number."""
    bare: Any = None
    """Value of a flag that is given without one."""
    old_names: tuple[str, ...] = ()
    """Former names, which go on working as keywords, flags and keys."""
    node: str = ""
    """Name of the nodes' input, which saved workflows count on; by default `name`."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Surfaces ("command", "node") that do not offer the option, and why not."""
    changes_result: bool = True
    """Whether pixels depend on it by more than rounding."""
    validate: Callable[[Any], Any] | None = None
    """Brings a value of another form to the type first; raises OptionError."""

    @property
    def group(self) -> str:
        """Name of the group the option belongs to; empty for the options of no group."""
        return self.path[0] if len(self.path) > 1 else ""

    @property
    def node_id(self) -> str:
        """Name of the nodes' input."""
        return self.node or self.name

    def check(self, value: Any) -> Any:
        """Return a value as its exact type; None stands for the default.

        Raises:
            OptionError: the value is of another type, out of range, or none of the choices.
        """
        if value is None:
            return None if self.is_optional else self.default
        if self.is_list:
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                raise OptionError(f"{self.name} must be a list of {self.allowed}, not {value!r}")
            items = tuple(self._check_item(item) for item in value)
            if not items:
                raise OptionError(f"{self.name} must not be empty: name at least one")
            return items
        return self._check_item(value)

    def parse(self, text: str) -> Any:
        """Return the value that a text on a command line or in a table stands for.

        Raises:
            OptionError: the text stands for no value of this option.
        """
        text = text.strip()
        if self.is_optional and text.casefold() in ("none", ""):
            return None
        if self.is_list:
            return self.check(
                [self._parse_item(item) for item in re.split(r"[,\s]+", text) if item]
            )
        return self.check(self._parse_item(text))

    @property
    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        noun = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        words = noun[self.kind]
        # A whole number of twenty digits is written with all of them.
        low, high = (limit if isinstance(limit, int) else f"{limit:g}" for limit in self._limits)
        if self.min is not None and self.max is not None:
            words += f" from {low} to {high}"
        elif self.min is not None:
            words += f" from {low} on"
        return words

    @property
    def _limits(self) -> tuple[float, float]:
        low = -math.inf if self.min is None else self.min
        return low, math.inf if self.max is None else self.max

    def _check_item(self, value: Any) -> Any:
        if self.validate is not None:
            value = self.validate(value)
        typed = _as_type(value, self.kind)
        if self.choices:
            match = [choice for choice in self.choices if choice == typed]
            if not match:
                raise OptionError(f"{self.name} must be one of {self.allowed}, not {value!r}")
            return match[0]
        low, high = self._limits
        is_number = self.kind in (int, float)
        if typed is None or (is_number and not low <= typed <= high):
            raise OptionError(f"{self.name} must be {self.allowed}, not {value!r}")
        return typed

    def _parse_item(self, text: str) -> Any:
        if self.kind is bool:
            words = {"true": True, "yes": True, "on": True, "false": False, "no": False}
            return words.get(text.casefold(), False if text.casefold() == "off" else text)
        if self.kind is str:
            # "left-to-right" is "left to right": a flag's value needs no quotes then.
            spaced = text.replace("-", " ")
            return spaced if spaced in self.choices else text
        try:
            return int(text) if self.kind is int else float(text)
        except ValueError:
            return text


def option(
    default: T, help: str, min: float | None = None, max: float | None = None, **more: Any
) -> T:
    """Declare one option as a field of a group.

    Args:
        default: the value without any word of the user.
        help: one sentence that says what the option does.
        min: least value of a number.
        max: greatest value.
        **more: further fields of `Option`. Name, type and choices come from the annotation.
    """
    declared = {"help": help, "min": min, "max": max, **more}
    return field(default=default, metadata={"option": declared})


class _TakesFormerNames(type):
    """Lets a group be made with former names of its options."""

    if not typing.TYPE_CHECKING:  # checkers know the fields, and the former names are to go

        def __call__(cls, *values, **named):
            for name in named.keys() - cls.__dataclass_fields__.keys():
                for each in options_of(cls):
                    if name in each.old_names and len(each.path) == 1:
                        field_name = find_option(name, cls).path[0]  # which is logged
                        if field_name in named:
                            raise OptionError(f"{name} is now called {field_name}: give one")
                        named[field_name] = named.pop(name)
            return super().__call__(*values, **named)


class Options(metaclass=_TakesFormerNames):
    """Base of the groups: checked when made, and changed by flat names."""

    def __post_init__(self) -> None:
        """Bring every value to its type.

        Raises:
            OptionError: a value is none.
        """
        for declared in options_of(type(self)):
            if len(declared.path) == 1:
                checked = declared.check(getattr(self, declared.path[0]))
                object.__setattr__(self, declared.path[0], checked)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Make options from flat names: ``RestoreOptions.of(strength=0.8, grain=0.5)``.

        Raises:
            OptionError: a name is unknown, or a value is none.
        """
        return cls().replace(**values)

    def replace(self, **values: Any) -> Self:
        """Return these options with others of the flat names given; None is the default.

        Raises:
            OptionError: a name is unknown, or a value is none.
        """
        groups: dict[str, dict[str, Any]] = {}
        changes: dict[str, Any] = {}
        for name, value in values.items():
            declared = find_option(name, type(self))
            path = declared.path
            inside = changes if len(path) == 1 else groups.setdefault(path[0], {})
            inside[path[-1]] = declared.check(value)
        for group, inside in groups.items():
            changes[group] = dataclasses.replace(getattr(self, group), **inside)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def get(self, name: str) -> Any:
        """Return the value of an option by its flat name."""
        value: Any = self
        for attribute in find_option(name, type(self)).path:
            value = getattr(value, attribute)
        return value

    def flat(self, *, changed: bool = False) -> dict[str, Any]:
        """Return all values by their flat names, or those alone that differ from the default."""
        values = {each.name: self.get(each.name) for each in options_of(type(self))}
        if not changed:
            return values
        return {
            each.name: values[each.name]
            for each in options_of(type(self))
            if values[each.name] != each.default
        }

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that are equal where results are equal up to rounding."""
        relevant = {each.name for each in options_of(type(self)) if each.changes_result}
        values = {name: value for name, value in self.flat().items() if name in relevant}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON, by flat names; `of` and `from_dict` read them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.flat().items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: Self | None = None) -> Self:
        """Make options from flat names, or from a table for each group, over ``base``.

        Raises:
            OptionError: a name is unknown, or a value is none.
        """
        flat: dict[str, Any] = {}
        groups = {each.group for each in options_of(cls)}
        for key, value in values.items():
            if key == RECORD_TABLE or (key == CLIP_TABLE and key not in groups):
                continue
            if isinstance(value, Mapping):
                for inner, item in value.items():
                    flat[_option_in_group(key, inner, cls).name] = item
            else:
                flat[key] = value
        return (cls() if base is None else base).replace(**flat)

    def to_toml(self, *, changed: bool = False, comments: bool = False) -> str:
        """Return the options as TOML, a table for each group.

        Args:
            changed: leave out options that have their default.
            comments: write the help of each option above it; an option that is not set, which TOML
                has no value for, then stands there as a comment.
        """
        lines: list[str] = []
        values = self.flat(changed=changed)
        group = ""
        for each in options_of(type(self)):
            if each.name not in values:
                continue
            value = values[each.name]
            if value is None and not comments:
                continue
            if each.group != group:
                group = each.group
                lines += ["", f"[{group}]"] if lines else [f"[{group}]"]
            if comments:
                lines.append(f"# {each.help}")
            row = f"{each.path[-1]} = "
            lines.append(f"# {row}(not set)" if value is None else row + _toml(value))
        return "\n".join(lines) + "\n" if lines else ""

    @classmethod
    def from_toml(cls, text: str, base: Self | None = None) -> Self:
        """Make options from TOML, as `to_toml` writes it or with flat names, over ``base``.

        Raises:
            OptionError: the text is no TOML, a name is unknown, or a value is none.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise OptionError(f"no TOML: {error}") from None
        return cls.from_dict(values, base)


@dataclass(frozen=True)
class Networks(Options):
    """Which networks work."""

    model: str = option(
        "lite",
        "Restorer: a name of `gfp weights list`, or a checkpoint file.",
        metavar="MODEL",
    )
    detector: str = option(
        "retinaface_mobile025",
        "Face detector: a name of `gfp weights list`, or a file.",
        metavar="MODEL",
        node="detector_model",
    )
    parser: str | None = option(
        None,
        "Face parser for masks by parts, such as bisenet: a name of `gfp weights list`, or a file; "
        "bisenet where the mask is parts, else none.",
        metavar="MODEL",
        absent={"node": "connected by a socket, from Load Face Parser"},
    )
    embedder: str = option(
        "face-descriptor",
        "What tells people apart, for certain people and the identity guard: a name of "
        "`gfp weights list`, or a file.",
        metavar="MODEL",
        absent={"node": "connected by a socket, from Load Face Embedder"},
    )
    background_model: str | None = option(
        None,
        "Model that enlarges the rest of the picture, such as realesrgan-x4plus: a name of "
        "`gfp weights list`, or a file that spandrel knows. The result is as large as the model "
        "makes it, or as upscale says.",
        metavar="MODEL",
        absent={"node": "the input background takes a picture from ComfyUI's own upscalers"},
    )


@dataclass(frozen=True)
class Detection(Options):
    """Which faces are detected."""

    score: float = option(
        0.9,
        "Confidence above which a detection is a face; a lower one finds more faces, and more that "
        "are none.",
        0,
        1,
        step=0.01,
    )
    min_size: float = option(
        0.0,
        "Smallest face: longer side of the box in pixels.",
        0,
        16384,
        metavar="PIXELS",
        step=1,
        none=0,
    )
    max_size: float | None = option(
        None,
        "Largest face: longer side of the box in pixels; without it there is no limit.",
        0,
        16384,
        metavar="PIXELS",
        step=1,
        none=0,
    )
    rotations: tuple[Rotation, ...] = option(
        (0,),
        "Turns of the picture, in degrees, in which faces are looked for; more find faces that lie "
        "or stand on their head, and take as many times longer.",
        metavar="DEGREES",
    )
    flip: bool = option(
        False,
        "Look at the mirrored picture as well: more exact landmarks, in twice the time.",
    )
    long_side: int | None = option(
        None,
        "Reduce pictures to this long side in pixels for detection: faster, but small faces are "
        "lost.",
        0,
        16384,
        metavar="PIXELS",
        step=32,
        none=0,
    )


def parse_selection(text: str | Sequence[int]) -> range | frozenset[int]:
    """Return the numbers of faces that a selection names: "all", "none", "first 2", "0, 2", [0, 2].

    Raises:
        OptionError: the text is none of these forms; says which there are.
    """
    if not isinstance(text, str):
        if any(isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < 0 for n in text):
            raise OptionError(
                f"select: numbers of faces are whole numbers from 0 on, not {list(text)}"
            )
        return frozenset(int(number) for number in text)
    words = text.strip().casefold()
    if words == "all":
        return range(sys.maxsize)
    if words == "none":
        return frozenset()
    if first := re.fullmatch(r"first(?:\s+([0-9]+))?", words):
        return range(int(first[1] or 1))
    if re.fullmatch(r"[0-9]+(\s*[,;\s]\s*[0-9]+)*", words):
        return frozenset(int(number) for number in re.findall(r"[0-9]+", words))
    raise OptionError(
        f"select: {text!r} does not say which faces: write all, none, first 2, or the numbers of "
        "the faces, 0, 2"
    )


def _check_selection(value: Any) -> str:
    if not isinstance(value, Sequence):
        value = [value]
    parse_selection(value)
    return value if isinstance(value, str) else ", ".join(map(str, value)) or "none"


@dataclass(frozen=True)
class Selection(Options):
    """Which of the faces detected are restored."""

    select: str = option(
        "all",
        "Faces to restore: all, none, first 2, or their numbers in this order, from 0: 0, 2; for "
        "each picture by itself.",
        metavar="FACES",
        old_names=("which",),
        node="which",
        validate=_check_selection,
    )
    order: Order = option("largest", "In which order the faces of a picture are numbered, from 0.")
    max_sharpness: float | None = option(
        None,
        "Leave faces alone that are sharper than this: 0.5 leaves those with more detail than half "
        "a crop of 512 pixels can show.",
        0,
        1,
        metavar="SHARPNESS",
        step=0.05,
        none=1,
    )


@dataclass(frozen=True)
class Mask(Options):
    """What of each face is restored; where a `Mask` is taken, the shape's name alone is too."""

    shape: MaskShape = option(
        "ellipse",
        "Outline inside which a face is restored: an ellipse about the mean face, the box of the "
        "whole crop, the hull of this face's landmarks, or the parts that a parser finds.",
        name="mask",
    )
    feather: float = option(
        0.1,
        "Width of the fade inside the outline, as a share of the crop's side.",
        0,
        0.5,
        step=0.01,
    )
    grow: float = option(
        0.0,
        "Move the outline outwards, or inwards below 0, by this share of the crop's side.",
        -0.5,
        0.5,
        step=0.01,
    )
    parts: tuple[Part, ...] = option(
        ("skin", "brows", "eyes", "nose", "mouth", "ears", "glasses"),
        "Parts of a face that are restored, where a parser tells the parts apart.",
        metavar="PARTS",
    )
    occlusion: Occlusion = option(
        "auto",
        "Leave what stands before the face, such as hands, hair and glasses that the restorer "
        "erased. auto: if there is a parser; on: without one too, by tone, less surely.",
    )

    @property
    def needs_parser(self) -> bool:
        """Whether the mask cannot be made without a parser."""
        return self.shape == "parts"


@dataclass(frozen=True)
class Blend(Options):
    """How restored faces go into the picture."""

    detail: float = option(
        1.0,
        "Share of the picture's own fine detail that faces keep where they are larger than the "
        "restorer's crop, without its noise and JPEG blocks.",
        0,
        1,
        step=0.05,
    )
    multiband: bool = option(
        True,
        "Fade low frequencies over a wider band than high ones, so that a difference in tone "
        "leaves no edge.",
        old_names=("seam",),
    )
    grain: float = option(
        0.0,
        "Share of the picture's grain that restored faces are given again, so that they do not "
        "look smoother than the rest.",
        0,
        1,
        step=0.05,
    )


@dataclass(frozen=True)
class Color(Options):
    """Which colors restored faces take."""

    mode: ColorMode = option(
        "auto",
        "Whose colors the faces take. auto: the picture's, without its noise. restorer: the "
        "network's own. input: exactly the picture's chroma. lightness: the picture's lightness "
        "with the network's colors. match, mean_std, low_frequency: the picture's as a whole, by "
        "covariance, by deviation, or place by place. reference: those of another picture. "
        "enhance: livelier ones.",
        name="color",
    )
    strength: float = option(
        1.0,
        "Share of the correction of colors.",
        0,
        1,
        step=0.05,
        name="color_strength",
    )
    keep_monochrome: KeepMonochrome = option(
        "auto",
        "Which faces keep the picture's chroma. auto: those in black and white, sepia or yellowed "
        "(none where color is restorer); on: all; off: none.",
        old_names=("grey",),
    )


@dataclass(frozen=True)
class Identity(Options):
    """Who is who."""

    identity_limit: float | None = option(
        None,
        "Take back what makes a face another person's, from this angle in degrees between "
        "embeddings on; 22 is a good limit. Needs an embedder.",
        0,
        180,
        metavar="DEGREES",
        step=0.5,
        none=0,
        bare=22.0,
        old_names=("identity",),
    )
    people_limit: float = option(
        22.0,
        "How far from the pictures of certain people a face may be, in degrees between embeddings.",
        0,
        180,
        metavar="DEGREES",
        step=0.5,
    )


def _check_person_faces(value: Any) -> str:
    if isinstance(value, str) and value.strip().casefold() == AUTO:
        return AUTO
    try:
        return _check_selection(value)
    except OptionError:
        raise OptionError(
            f"person_faces: {value!r} does not say which faces: write auto, all, none, first 2, or "
            "the numbers of the faces, 0, 2"
        ) from None


@dataclass(frozen=True)
class Person(Options):
    """Whose face gets what a person's restorer has learned; the others get its base."""

    person_strength: float = option(
        1.0,
        "Share of what a person's restorer has learned; 0 is the restorer that it began with.",
        0,
        1,
        step=0.05,
    )
    person_faces: str = option(
        AUTO,
        "Faces that are the person a restorer was learned for: auto, numbers as for select, all or "
        "none. auto: the face like the person's, where what tells people apart is there; else the "
        "only face of a picture.",
        metavar="FACES",
        validate=_check_person_faces,
    )

    @property
    def can_compare(self) -> bool:
        """Whether an embedder has something to tell."""
        return self.person_faces == AUTO and self.person_strength > 0


@dataclass(frozen=True)
class Video(Options):
    """What is steadied where frames are in order."""

    video: bool = option(
        False,
        "The pictures are frames of a video in order: follow the faces and steady them, so that "
        "they do not flicker.",
        old_names=("frames",),
    )
    color_smoothing: float = option(
        0.8,
        "Share of the past in the colors of faces, where frames are in order.",
        0,
        1,
        step=0.05,
    )
    steadiness: float = option(
        0.7,
        "Share of the past in restored faces, where frames are in order and nothing but noise "
        "changes; what moves is followed, and what is new is taken over at once.",
        0,
        0.95,
        step=0.05,
    )


@dataclass(frozen=True)
class Runtime(Options):
    """How it is computed; results differ by rounding alone."""

    device: str | None = option(
        None,
        "Where the networks run: cpu, cuda, cuda:1, xpu, mps; by default a GPU if there is one.",
        metavar="DEVICE",
        absent={"node": "ComfyUI chooses the device; the loader nodes can say cpu"},
        changes_result=False,
    )
    precision: Precision = option(
        "auto",
        "Precision of the restorer. auto: fp16 on a GPU that is faster with it, else fp32; bf16 "
        "saves time with large models on CPUs that have it. Faces that overflow are computed again "
        "in fp32.",
        absent={"node": "an input of Load Face Restorer"},
    )
    engine: Engine = option(
        "auto",
        "What runs the restorer. auto: its fast form; plain: the published form; openvino: faster "
        "on a CPU, after an export of a minute at its first use; onnxruntime: for cards that "
        "PyTorch does not know.",
        absent={"node": "an input of Load Face Restorer and Load Face Detector"},
        changes_result=False,
    )
    provider: Provider = option(
        "auto",
        "What the engine onnxruntime runs on; auto: the first that works of those in the installed "
        "build of onnxruntime.",
        absent={"node": "an input of Load Face Restorer and Load Face Detector"},
        changes_result=False,
    )
    batch_size: int | None = option(
        None,
        "Faces that go through the network at once; by default 8 on a GPU and 1 on a CPU. Halved "
        "when memory runs out.",
        0,
        64,
        step=1,
        none=0,
        old_names=("chunk", "batch"),
        node="batch",
        changes_result=False,
    )


@dataclass(frozen=True)
class RestoreOptions(Options):
    """Every option of a restoration."""

    strength: float = option(
        1.0,
        "Share of the restored face; 0 leaves the picture as it is.",
        0,
        1,
        step=0.05,
    )
    auto_strength: bool = option(
        True,
        "Restore faces less that are sharp already, tiny, or doubtful; the log says how much.",
    )
    fidelity: float | None = option(
        None,
        "For models that let one choose, such as CodeFormer: the finest face (0) or the most "
        "faithful to the picture (1); by default the model's own. Others ignore it.",
        0,
        1,
        step=0.05,
        none=0.5,
    )
    upscale: float = option(
        1.0,
        "Size of the result relative to the picture, which is resampled.",
        0.01,
        16,
        step=0.5,
    )
    padding: Padding = option(
        "replicate",
        "What the restorer is shown beyond the picture's edge.",
        old_names=("border",),
    )
    seed: int | None = option(
        None,
        "Seed of the fine noise that GFP-GAN and GPEN add to skin and hair, and of the noise that "
        "PMRF starts from; by default the noise stored with the weights. Networks without noise "
        "ignore it.",
        0,
        2**64 - 1,
        none=0,
    )
    steps: int | None = option(
        None,
        "For models that restore in steps, such as PMRF: how many; fewer are faster, more give "
        "finer skin and hair. By default the model's own. Others ignore it.",
        1,
        200,
        none=25,
    )
    networks: Networks = field(default_factory=Networks)
    detection: Detection = field(default_factory=Detection)
    selection: Selection = field(default_factory=Selection)
    mask: Mask = field(default_factory=Mask)
    blend: Blend = field(default_factory=Blend)
    color: Color = field(default_factory=Color)
    identity: Identity = field(default_factory=Identity)
    video: Video = field(default_factory=Video)
    runtime: Runtime = field(default_factory=Runtime)
    person: Person = field(default_factory=Person)

    @classmethod
    def preset(cls, name: str) -> RestoreOptions:
        """Return the options of a preset, see `presets`.

        Raises:
            OptionError: there is no such preset.
        """
        return cls.from_toml(_preset_file(name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class ClipOptions(Options):
    """How a clip is encoded, and which part of it is taken."""

    codec: str | None = option(
        None,
        "Codec of the moving pictures: h264, h265, av1, vp9, prores, ffv1 (lossless), or an "
        "encoder of FFmpeg such as h264_nvenc; by default that of the clip.",
    )
    crf: float | None = option(
        None,
        "Constant quality of the encoder, the lower the better; by default one that looks like "
        "the clip at about its size.",
        0,
        63,
    )
    encoder_preset: str | None = option(
        None,
        "Speed of the encoder, as FFmpeg calls it: slow, medium, fast; by default the encoder's.",
    )
    start: float = option(
        0.0, "Seconds from the clip's beginning at which to begin.", 0, 1e6, metavar="SECONDS"
    )
    end: float | None = option(
        None,
        "Seconds from the clip's beginning at which to stop.",
        0,
        1e6,
        metavar="SECONDS",
        none=0,
    )
    first: float | None = option(
        None,
        "Only so many seconds, to see what becomes of the clip.",
        0,
        1e6,
        metavar="SECONDS",
        none=0,
        name="preview_seconds",
    )


@dataclass(frozen=True)
class FileOptions(RestoreOptions):
    """Every option of a restoration of files, clips among them."""

    clip: ClipOptions = field(default_factory=ClipOptions)

    @property
    def restoration(self) -> RestoreOptions:
        """The options of the restoration alone."""
        names = [each.name for each in dataclasses.fields(RestoreOptions)]
        return RestoreOptions(**{name: getattr(self, name) for name in names})


EXTRAS = {
    "background": "The same pictures brought to another size by an upscaler: the faces are pasted "
    "into them, and the result has their size.",
    "frame_mask": "Where the pictures may be touched at all: white, or above 0.5; of the pictures' "
    "size or the result's.",
    "region": "Only faces whose middle, or half of whose box, lies in this mask.",
    "reference": "Picture for the color reference: its largest face gives the colors, or all of it "
    "if it shows no face.",
    "people": "Only the faces of these people: one picture of each, whose largest face counts. "
    "Needs an embedder.",
}
"""Help of what belongs to frames and travels beside the options, see `pipeline.Extra`."""


def presets() -> dict[str, str]:
    """Return the names of the presets, and the reason of each, which its file begins with."""
    reasons = {}
    for path in sorted(PRESETS_FOLDER.glob("*.toml")):
        comment = path.read_text(encoding="utf-8").split("\n\n")[0]
        lines = [line.removeprefix("#").strip() for line in comment.splitlines()]
        reasons[path.stem] = " ".join(line for line in lines if line)
    return reasons


def options_of(group: type[Options]) -> tuple[Option, ...]:
    """Return the declarations of a group and of the groups in it, in their order."""
    return _options_of(group)


def find_option(name: str, group: type[Options] = RestoreOptions) -> Option:
    """Return the declaration of an option by its name; a former name is logged.

    Raises:
        OptionError: there is no such option; names the nearest one.
    """
    declared = options_of(group)
    for each in declared:
        if each.name == name:
            return each
    for each in declared:
        if name in each.old_names:
            _say_once(f"{name} is now called {each.name}; the old name will go.")
            return each
    raise _unknown(name, [each.name for each in declared])


def markdown_table(group: type[Options] = RestoreOptions) -> str:
    """Return the table of the options for the docs, a row an option."""
    rows = ["| option | default | values | |", "|---|---|---|---|"]
    for each in options_of(group):
        default = "-" if each.default is None else _toml(each.default).replace("|", "\\|")
        values = f"some of {each.allowed}" if each.is_list else each.allowed
        rows.append(f"| `{each.name}` | {default} | {values} | {each.help} |")
    return "\n".join(rows) + "\n"


@cache
def _options_of(group: Any) -> tuple[Option, ...]:
    return tuple(_declarations(group, ()))


def _declarations(group: type[Options], path: tuple[str, ...]) -> Iterator[Option]:
    hints = typing.get_type_hints(group)
    for each in dataclasses.fields(group):  # type: ignore[arg-type]
        hint = hints[each.name]
        if isinstance(hint, type) and issubclass(hint, Options):
            yield from _declarations(hint, (*path, each.name))
            continue
        declared = dict(each.metadata["option"])
        name = declared.pop("name", each.name)
        inner, is_optional = _without_none(hint)
        is_list = get_origin(inner) is tuple
        inner = get_args(inner)[0] if is_list else inner
        choices = get_args(inner) if get_origin(inner) is Literal else ()
        kind = type(choices[0]) if choices else inner
        yield Option(
            name,
            (*path, each.name),
            kind,
            each.default,
            choices=choices,
            is_list=is_list,
            is_optional=is_optional,
            **declared,
        )


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    inner = [each for each in get_args(hint) if each is not type(None)]
    return inner[0], True


def _as_type(value: Any, kind: type) -> Any:
    """Return the value as ``kind``, or None where the value is of another kind."""
    if kind is bool:
        is_numpy = str(getattr(value, "dtype", "")) == "bool"
        return bool(value) if isinstance(value, bool) or is_numpy else None
    if kind is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if not math.isfinite(value):
        return None
    if kind is int:
        return math.floor(value) if value == math.floor(value) else None
    return float(value)


def _option_in_group(group: str, key: str, root: type[Options]) -> Option:
    inside = [each for each in options_of(root) if each.group == group]
    if not inside:
        groups = {each.group for each in options_of(root)} - {""}
        raise _unknown(f"[{group}]", [f"[{name}]" for name in groups], "table")
    for each in inside:
        if key in (each.path[-1], each.name, *each.old_names):
            return each
    raise _unknown(key, [each.path[-1] for each in inside])


def _unknown(name: str, names: Sequence[str], noun: str = "option") -> OptionError:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return OptionError(f"there is no {noun} {name}; the nearest is {near[0]}")


def _preset_file(name: str) -> Path:
    names = list(presets())
    if name not in names:
        raise OptionError(f"there is no preset {name!r}; there are {', '.join(names)}")
    return PRESETS_FOLDER / f"{name}.toml"


def _toml(value: Any) -> str:
    """Return a value as TOML; JSON's texts and numbers are TOML's too."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@cache
def _say_once(message: str) -> None:
    logger.warning("%s", message)
