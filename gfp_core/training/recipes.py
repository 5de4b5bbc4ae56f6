"""Recipes: what is trained, on what, by which losses and for how long. Data, in TOML files.

A value of a recipe may be given twice, ``{ paper = ..., released = ... }``: as the paper states it
and as the authors' code has it. Which is taken is the trainer's choice.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..degradation import PAPER, DegradationRanges
from ..tables import build, parse_value, read_toml

FOLDER = Path(__file__).with_name("recipes")
VALUES = ("paper", "released")
Values = Literal["paper", "released"]


@dataclass(frozen=True)
class Term:
    """A loss's weight, and the steps during which it counts."""

    weight: float = 0.0
    start: int = 0
    stop: int | None = None
    """The first step without it; None for never."""

    @classmethod
    def from_plain(cls, weight: float) -> Term:
        """Make a term that counts at all steps: a recipe may give its weight alone."""
        return cls(weight)

    def at(self, step: int) -> float:
        """Its weight at a step."""
        return self.weight if self.start <= step and (self.stop is None or step < self.stop) else 0


@dataclass(frozen=True)
class Model:
    """The network that is trained."""

    name: str
    """Of a row of `networks.registry.ARCHITECTURES`."""
    args: dict[str, Any] = field(default_factory=dict)
    """Of its constructor."""
    start: str = ""
    """File to begin with: a checkpoint of this network, of its dictionary or its prior."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of parameters that are not trained."""
    fresh_noise: bool = False
    """GFP-GAN: new noise at every step, not the stored one."""


@dataclass(frozen=True)
class Discriminator:
    """The discriminator of whole pictures, if the adversarial loss has a weight at any step."""

    kind: Literal["stylegan2", "patch"] = "stylegan2"
    args: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    """File to begin with."""
    frozen: int = 0
    """Convolutions nearest to the picture that are not trained (FreezeD); stylegan2 only."""
    loss: Literal["logistic", "hinge"] = "logistic"
    adaptive: bool = False
    """Weigh the adversarial loss by the ratio of gradients besides, see `losses.adaptive_weight`"""
    r1: float = 10.0
    """Weight of the R1 penalty, 0 for none."""
    r1_every: int = 16
    """Steps from one penalty to the next, which counts that many times."""


@dataclass(frozen=True)
class Nets:
    """Nets whose features are compared, see `feature_nets`."""

    perceptual: str = "auto"
    perceptual_file: str = ""
    identity_file: str = ""


@dataclass(frozen=True)
class Losses:
    """Weights of the terms; those of 0 are not computed. Distances: `losses.DISTANCES`."""

    l1: Term = Term()
    pyramid: Term = Term()
    perceptual: Term = Term()
    perceptual_distance: str = "l1"
    perceptual_layers: tuple[float, ...] = ()
    """Weight of each layer of the perceptual net; empty for 1 each, divided by their number if the
    net is the stand-in, which has another number of them."""
    style: Term = Term()
    adversarial: Term = Term()
    component: Term = Term()
    component_style: Term = Term()
    component_distance: str = "l1"
    component_layers: tuple[float, ...] = (1.0, 1.0)
    component_width: float = 1.0
    """Factor on the widths of the component discriminators."""
    identity: Term = Term()
    identity_distance: str = "l1"
    descriptor: Term = Term()
    """Features of the identity net on the inner face, scaled to length 1 at each place."""
    tone: Term = Term()
    """Colors of the picture at a thirty-second of its size, see `losses.tone`: skin and light."""
    eye_tone: Term = Term()
    """Colors of the eyes' patches at 16 x 16 px: the irises."""
    parts: Term = Term()
    """L1 of the patches of eyes and mouth, mean over the three: they are small, and looked at."""
    codebook: Term = Term()
    commitment: Term = Term()
    prior: Term = Term()

    def __post_init__(self) -> None:
        from .losses import DISTANCES

        for name in ("perceptual_distance", "component_distance", "identity_distance"):
            if getattr(self, name) not in DISTANCES:
                raise ValueError(f"{name} must be one of {', '.join(DISTANCES)}")

    def terms(self) -> dict[str, Term]:
        """The terms that have a weight at any step, by name."""
        return {
            name: term
            for name, term in vars(self).items()
            if isinstance(term, Term) and term.weight
        }


@dataclass(frozen=True)
class Optimizer:
    """Adam, of the network and of its discriminators."""

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    groups: dict[str, float] = field(default_factory=dict)
    """Learning rates by the names of the network's ``parameter_groups``."""
    discriminator_lr: float = 2e-3
    discriminator_betas: tuple[float, float] = (0.0, 0.99)
    component_lr: float = 2e-3
    component_betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 0.0
    """Largest norm of the network's gradients; 0 for no limit."""


@dataclass(frozen=True)
class Schedule:
    """How long, and how the learning rates change."""

    steps: int
    warmup: int = 0
    """Steps of a linear rise."""
    milestones: tuple[int, ...] = ()
    """Steps at which the rates are multiplied by ``gamma``."""
    gamma: float = 0.5
    cosine_from: float = 1.0
    """Share of the steps after which the rates fall along a cosine to a hundredth."""
    ema: float = 0.998
    """Decay of the averaged weights; a young average forgets faster."""


@dataclass(frozen=True)
class Data:
    """What a step sees."""

    size: int = 512
    """Side of the faces; `prepare` must have cut them so."""
    batch: int = 12
    """Faces a step of one process."""
    degraded: bool = True
    """False: the network's input is the clean face (the dictionary)."""
    degrade_on: Literal["workers", "device"] = "workers"
    workers: int = 4
    mirror: bool = True
    turn: float = 0.0
    """Most degrees either way."""
    zoom: float = 0.0
    """Most that the face is made larger or smaller, as a share."""
    move: float = 0.0
    """Most that it is moved, as a share of its side."""
    warp: float = 0.0
    """Standard deviation of smooth, symmetric shifts that make another person of a face, as a share
    of its side."""
    tint: bool = False
    """Change exposure, contrast and cast, of both faces of a pair."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Shares of the kinds of degradation of `wild.KINDS`; empty for ``degradation`` alone."""
    window: int = 0
    """Side in pixels of the square that the perceptual net and the judge of pictures see, about an
    eye, the mouth or anywhere in the middle of the face; 0 for the whole picture."""

    def __post_init__(self) -> None:
        from ..wild import check_mixture

        check_mixture(self.mixture)
        if self.mixture and self.degrade_on == "device":
            raise ValueError("data.mixture is made by workers: set data.degrade_on to workers")
        if not 0 <= self.window <= self.size:
            raise ValueError(f"data.window is from 0 to {self.size} px, not {self.window}")


@dataclass(frozen=True)
class Run:
    """How it runs, with no influence on what is aimed at."""

    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    channels_last: bool = False
    log_every: int = 100
    sheet_every: int = 5000
    """Steps from one picture sheet of the validation faces to the next."""
    sheet_faces: int = 6
    save_every: int = 5000
    keep: int = 3
    """Checkpoints kept."""


@dataclass(frozen=True)
class Recipe:
    """All that a training needs to know besides the faces."""

    about: str
    model: Model
    schedule: Schedule
    discriminator: Discriminator = Discriminator()
    nets: Nets = Nets()
    data: Data = Data()
    degradation: DegradationRanges = PAPER
    loss: Losses = Losses()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()

    def as_dict(self) -> dict[str, Any]:
        """All values, ready for JSON."""
        return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(self))))


def names() -> list[str]:
    """The recipes that come with the library."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_recipe(
    recipe: str | Path, values: Values = "paper", changes: Sequence[str] = ()
) -> Recipe:
    """Read a recipe.

    Args:
        recipe: name of one of the library's, or a TOML file.
        values: which of two values to take where a recipe has two.
        changes: ``table.key=value`` each, the value in TOML's form; a bare word is a string.

    Raises:
        ValueError: there is no such recipe, or it has a key or a value that it cannot have; says
            which.
    """
    file = FOLDER / f"{recipe}.toml" if str(recipe) in names() else Path(recipe)
    if not file.is_file():
        raise ValueError(f"no recipe {recipe}; there are {', '.join(names())}, or give a file")
    table = choose_values(read_toml(file), values)
    for change in changes:
        _change(table, change)
    try:
        return build(Recipe, renamed(table))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def choose_values(table: Any, values: Values) -> Any:
    """A recipe's table with one of two values wherever it has two."""
    if not isinstance(table, Mapping):
        return table
    if set(table) == set(VALUES):
        return table[values]
    return {key: choose_values(value, values) for key, value in table.items()}


_OLD_NAMES = {"optimiser": "optimizer", "grey_chance": "gray_chance"}
"""Keys of recipes and of checkpoints of one version before."""


def renamed(table: Any) -> Any:
    """A table with today's names of its keys."""
    if not isinstance(table, Mapping):
        return table
    return {_OLD_NAMES.get(key, key): renamed(value) for key, value in table.items()}


def _change(table: dict[str, Any], change: str) -> None:
    """Set one value, in place."""
    key, equals, text = change.partition("=")
    *path, last = key.strip().split(".")
    if not equals or not path:
        raise ValueError(f"a change is written table.key=value, not {change}")
    value = parse_value(text)
    for name in path:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):  # loss.adversarial.start=5, where there was but a weight
            inner = table[name] = {"weight": inner}
        table = inner
    table[last] = value
