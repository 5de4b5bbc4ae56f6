"""What a network learned beyond its base: stored small, found with its base, added to it.

A file of one person's restorer (`person.learn`) holds the difference to the weights that the
learning began with, and names these by their hash. Matrices are stored as products of two thin ones
(as in Hu et al. 2021, "LoRA", section 4.1, but cut from the learned difference by its singular
values), all in half precision, and so fit into a given number of bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ..io.atomic import write_bytes
from . import WeightsError

if TYPE_CHECKING:
    from .store import Weights

KIND = "gfp difference 1"
"""Value of ``kind`` in the metadata of such a file."""
MAX_BYTES = 2_000_000
"""Size that the tensors of a difference are cut to."""
LEFT, RIGHT = ".left", ".right"
"""Endings of the names of a matrix's two factors."""
EMBEDDING = "person.embedding"
"""Name of the tensor that says who the person is; it belongs to no network."""


@dataclass(frozen=True, eq=False)
class Difference:
    """What was learned, and to which weights it is to be added."""

    tensors: Mapping[str, Tensor]
    """Half precision: thin factors (O, r) and (r, I) of a matrix under its name with `LEFT` and
    `RIGHT`, whole tensors under their own names."""
    base: str
    """Name of the base's weights in the catalogue, or of their file."""
    base_sha256: str
    """`hash_of` the base's tensors."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Further metadata: steps, photographs, seed."""
    embedding: Tensor | None = None
    """(D,) float32 of length 1: who the person is, for the embedder that ``about`` names."""

    @property
    def rows(self) -> int:
        """Number of tensors of the base that change."""
        return sum(not name.endswith(LEFT) for name in self.tensors)

    def added_to(self, state: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """Add the difference to a state dict.

        Args:
            state: tensors of the base, float32, on the CPU. Not changed.
            strength: share of the difference; 0 gives the base itself, bit for bit.

        Returns:
            The state dict with new tensors where the base changes.

        Raises:
            WeightsError: the state dict is of another network.
        """
        changed = dict(state)
        if strength == 0:
            return changed
        for name in self.tensors:
            if name.endswith(RIGHT):
                continue
            target = name.removesuffix(LEFT)
            if target not in state:
                raise WeightsError(f"the base has no tensor {target!r}, which the person's changes")
            if name.endswith(LEFT):
                second = self.tensors.get(target + RIGHT)
                if second is None:
                    raise WeightsError(f"the person's file lacks the tensor {target + RIGHT!r}")
                first = self.tensors[name]
                if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[0]:
                    raise WeightsError(f"the two factors of the person's {target!r} do not fit")
                change = first.float() @ second.float()
            else:
                change = self.tensors[name].float()
            if change.numel() != state[target].numel():
                raise WeightsError(f"the person's tensor {target!r} does not fit its base")
            changed[target] = state[target] + strength * change.reshape(state[target].shape)
        return changed

    def save(self, path: Path) -> int:
        """Write the difference as safetensors, whole or not at all; returns the bytes of the file.

        Equal differences give equal bytes.

        Raises:
            OSError: the file cannot be written.
        """
        about = {
            **self.about,
            "kind": KIND,
            "base": self.base,
            "base_sha256": self.base_sha256,
        }
        tensors = {name: self.tensors[name].contiguous() for name in sorted(self.tensors)}
        if self.embedding is not None:
            tensors[EMBEDDING] = self.embedding.float().contiguous()
        # One text, for safetensors orders several by chance.
        content = to_safetensors(tensors, {"gfp": json.dumps(about, sort_keys=True)})
        write_bytes(path, content)
        return len(content)


def hash_of(state: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of a state dict's content: names, shapes and float32 values.

    A checkpoint and the safetensors file made from it have the same.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def about_of(metadata: Mapping[str, str]) -> dict[str, str] | None:
    """Return what a file's metadata say if the file is a difference; else None."""
    if "gfp" not in metadata:
        return None
    try:
        about = json.loads(metadata["gfp"])
    except ValueError:
        return None
    if not isinstance(about, dict) or about.get("kind") != KIND:
        return None
    return {str(key): str(value) for key, value in about.items()}


def difference_of(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path
) -> Difference | None:
    """Return the difference that a file holds, or None if the file is another.

    Args:
        state: the file's tensors.
        metadata: the file's.
        path: the file, for messages.

    Raises:
        WeightsError: it is a difference of an unknown form.
    """
    about = about_of(metadata)
    if about is None:
        return None
    missing = [key for key in ("base", "base_sha256") if not about.get(key)]
    if missing:
        raise WeightsError(f"{path}: damaged: the person's file does not name its {missing[0]}")
    tensors = dict(state)
    embedding = tensors.pop(EMBEDDING, None)
    return Difference(tensors, about["base"], about["base_sha256"], about, embedding)


def find_base(difference: Difference, path: Path, weights: Weights | None = None) -> Path:
    """Find the file of a difference's base: a row of the catalogue, or a file near the difference.

    Raises:
        WeightsError: there is none; says what to do.
    """
    if weights is None:
        from .store import Weights

        weights = Weights()
    name = difference.base
    if any(entry.name == name for entry in weights.catalogue.entries):
        return weights.get(name)
    folders = [path.parent, *weights.settings.folders]
    for folder in folders:
        if (folder / os.path.basename(name)).is_file():
            return folder / os.path.basename(name)
    raise WeightsError(
        f"{path}: its base {name} is not here: put that file beside the person's, "
        f"or into {folders[-1]}"
    )


def check_base(difference: Difference, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a base that the difference was not learned on.

    Raises:
        WeightsError: the base's tensors are others.
    """
    if hash_of(state) != difference.base_sha256:
        raise WeightsError(
            f"{path}: learned on other weights than the {difference.base} that is here (SHA-256 "
            f"{difference.base_sha256[:12]}... of their tensors): learn the person again with "
            "gfp learn, or bring back the weights of then"
        )


def compressed(
    base: Mapping[str, Tensor], learned: Mapping[str, Tensor], max_bytes: int = MAX_BYTES
) -> dict[str, Tensor]:
    """Cut the difference of two state dicts to a number of bytes, the largest parts first.

    A component of a matrix (a singular value with its two vectors) goes in by the square of its
    value over its size, which is the best there is for the sum of squares.

    Args:
        base: tensors of the base, float32 where they are numbers.
        learned: tensors of the same names and shapes.
        max_bytes: that the result may hold.

    Returns:
        Tensors in half precision, see `Difference.tensors`.
    """
    small: dict[str, Tensor] = {}
    factors: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    parts: list[tuple[float, int, str]] = []  # energy by size, size in numbers, name
    for name in sorted(base):
        if not base[name].is_floating_point():
            continue
        change = learned[name].detach().cpu().float() - base[name].cpu().float()
        if not change.any():
            continue
        matrix = _as_matrix(change)
        if min(matrix.shape) <= 4 or matrix.numel() <= 256:
            small[name] = change.half()
            parts.append((float(change.square().mean()), change.numel(), name))
            continue
        factors[name] = torch.linalg.svd(matrix, full_matrices=False)
        size = sum(matrix.shape)
        parts += [(float(value) ** 2 / size, size, name) for value in factors[name][1]]
    room = max_bytes // 2
    tensors: dict[str, Tensor] = {}
    ranks = dict.fromkeys(factors, 0)
    for _, size, name in sorted(parts, key=lambda part: (-part[0], part[2])):
        if size > room:
            continue
        room -= size
        if name in small:
            tensors[name] = small[name]
        else:
            ranks[name] += 1
    for name, rank in ranks.items():
        if rank:
            u, s, v = factors[name]
            root = s[:rank].sqrt()  # shared, so that both factors fit into half precision
            tensors[name + LEFT] = (u[:, :rank] * root).half()
            tensors[name + RIGHT] = (root[:, None] * v[:rank]).half()
    return tensors


def _as_matrix(tensor: Tensor) -> Tensor:
    """(..., O, I, k, k) -> (O, I k k); leading dimensions of length 1 are passed over."""
    shape = [length for length in tensor.shape if length > 1] or [1]
    return tensor.reshape(shape[0], math.prod(shape[1:]))
