"""From photographs to what a restorer learns of the person: the way of commands and nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..detect import FaceDetector
from ..embed import FaceEmbedder
from ..faces import Preview, Progress
from ..io.memory import RESERVE, available_bytes
from ..networks import registry
from ..options import Order
from ..weights import WeightsError
from ..weights.difference import Difference, hash_of
from ..weights.loading import load_state_dict, read_difference
from ..weights.resolve import refer
from ..weights.store import Weights
from .learn import Learned, Learning, learn, needed_bytes
from .photographs import Portraits, gather

logger = logging.getLogger(__name__)

_WORTH_SAYING = 2e9
"""Bytes from which the memory that learning takes is said in a warning."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """A person, learned."""

    difference: Difference
    portraits: Portraits
    learned: Learned


@dataclass(frozen=True, eq=False)
class Base:
    """The restorer that learning begins with."""

    name: str
    """In the catalogue, or of its file."""
    state: dict[str, Tensor]
    architecture: str
    size: int
    """Side of its crop in pixels."""
    path: Path

    def needed_bytes(self, batch: int = Learning.batch) -> int:
        """Estimate the memory that tuning takes, see `learn.needed_bytes`."""
        net = registry.build(self.state, self.architecture)
        return needed_bytes(net, self.size, batch)


def load_base(model: str | Path, weights: Weights, folders: Sequence[str] | None = None) -> Base:
    """Load what learning begins with.

    Args:
        model: name of a restorer in the catalogue, or a file.
        weights: where named weights are looked for.
        folders: see `resolve.refer`; None allows paths.

    Raises:
        WeightsError: there is no such restorer, or it cannot be tuned.
    """
    reference = refer(model, "restorer", weights, folders=folders)
    path, _, architecture = reference.fetch(weights)
    name = path.name if reference.entry is None else reference.entry.name
    if path.suffix != ".onnx" and read_difference(path) is not None:
        raise WeightsError(f"{path}: a person's restorer already: begin with its base")
    state, metadata = load_state_dict(path)
    try:
        row = next((row for row in registry.ARCHITECTURES if row.name == architecture), None)
        if row is None:
            named = metadata.get("architecture")
            row = next((row for row in registry.ARCHITECTURES if row.name == named), None)
        row = row or registry.identify(state)
        net = row.network.from_state_dict(state)
    except ValueError as error:
        raise WeightsError(f"{path}: cannot be tuned: {error}") from error
    size = getattr(net, "out_size", None)
    if not isinstance(size, int):
        raise WeightsError(f"{path}: {row.name} is no restorer")
    return Base(name, state, row.name, size, path)


def check_memory(base: Base, learning: Learning) -> int:
    """Say how much memory tuning takes, and refuse more than there is; returns the bytes.

    Raises:
        ValueError: there is not as much.
    """
    needed = base.needed_bytes(learning.batch)
    level = logging.WARNING if needed > _WORTH_SAYING else logging.INFO
    logger.log(level, "Learning with %s takes about %.1f GB of memory.", base.name, needed / 1e9)
    free = available_bytes()
    if free is not None and needed > free * (1 - RESERVE):
        raise ValueError(
            f"{base.name} needs about {needed / 1e9:.1f} GB of memory to be tuned, and "
            f"{free / 1e9:.1f} GB is free; take a smaller model, such as lite"
        )
    return needed


def learn_person(
    base: Base,
    photographs: Iterable[tuple[str, Tensor]],
    detector: FaceDetector,
    learning: Learning | None = None,
    *,
    embedder: FaceEmbedder | None = None,
    faces: str | Sequence[int] = "all",
    order: Order = "largest",
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    about: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Lesson:
    """Find a person in photographs and tune a restorer on them.

    Args:
        base: what to begin with.
        photographs: name and (1, 3 or 4, H, W) in [0, 1] of each.
        detector: finds the faces.
        learning: how.
        embedder: tells people apart, and judges likeness, see `learn.learn`.
        faces: which face of a photograph is the person's, see `photographs.gather`.
        order: in which faces are numbered.
        device: where to tune.
        checkpoint: see `learn.learn`.
        about: further metadata for the file, such as the embedder's name.
        progress: called with (steps done, steps); may raise to cancel.
        preview: called with held faces as restored by now.

    Raises:
        ValueError: no photograph can be used, memory does not suffice, or nothing was learned.
    """
    learning = learning or Learning()
    portraits = gather(
        photographs, detector, base.size, embedder=embedder, faces=faces, order=order
    )
    is_local = torch.device(device).type == "cpu"
    if is_local:
        check_memory(base, learning)
    learned = learn(
        base.state,
        portraits,
        learning,
        architecture=base.architecture,
        device=device,
        embedder=embedder,
        checkpoint=checkpoint,
        progress=progress,
        preview=preview,
    )
    facts = {
        **(about or {}),
        "architecture": base.architecture,
        "made_by": f"gfp {__version__}",
        "photographs": str(len(portraits)),
        "seed": str(learning.seed),
        "steps": str(learned.steps),
        "gain": f"{1 - learned.after / learned.before:.3f}",
    }
    difference = Difference(
        learned.tensors, base.name, hash_of(base.state), facts, portraits.embedding
    )
    return Lesson(difference, portraits, learned)
