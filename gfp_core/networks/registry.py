"""The architectures this package knows, and which of them a state dict belongs to.

Decided by the names of the tensors alone, never by a file's name. To add an architecture, add a
row to `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from .codeformer import CodeFormer
from .gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from .hq_dictionary import HQDictionary
from .lite import GFPGANLite
from .restoreformer import RestoreFormer, RestoreFormerPlusPlus
from .state import quote_some


class Network(Protocol):
    """A network class that builds itself from a state dict."""

    def __call__(self) -> nn.Module:
        """Construct it in its published size."""
        ...

    def from_state_dict(self, state: Mapping[str, Tensor]) -> nn.Module:
        """Build what ``state`` belongs to and load it; ValueError says what differs."""
        ...


@dataclass(frozen=True)
class Architecture:
    """One row of the registry."""

    name: str
    """Name of the class; what `build` takes as ``architecture`` and `restore.Restorer` reports."""
    network: Network
    signature: tuple[str, ...]
    """Names of tensors which, all present, mark a state dict as this architecture's."""
    licence: Literal["free", "unclear", "non-commercial"]
    """May the published weights be used commercially? The catalogue says more, file by file."""
    size: str | None = "out_size"
    """Attribute of the network that holds the side of its input in pixels; None if any will do."""
    preprocessing: str = "RGB in [-1, 1]"
    """What ``forward`` takes and, for a restorer, gives."""
    only_by_name: bool = False
    """Cannot be told from an earlier row: taken only when asked for."""


_GFPGAN = ("stylegan_decoder.constant_input.weight", "condition_scale.0.0.weight", "toRGB.0.weight")
_EQUALISED = ("conv_body_first.0.weight", "stylegan_decoder.style_conv1.activate.bias", *_GFPGAN)
_RESTOREFORMER = (
    "quantize.embedding.weight",
    "encoder.mid.attn_1.norm2.weight",
    "decoder.mid.attn_1.norm2.weight",
)

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="GFPGANClean",
        network=GFPGANClean,
        signature=("conv_body_first.weight", "stylegan_decoder.style_conv1.bias", *_GFPGAN),
        licence="unclear",
    ),
    Architecture(
        name="GFPGANv1",
        network=GFPGANv1,
        signature=_EQUALISED,
        licence="unclear",
    ),
    Architecture(
        name="GFPGANBilinear",
        network=GFPGANBilinear,
        signature=_EQUALISED,
        licence="unclear",
        only_by_name=True,
    ),
    Architecture(
        name="GFPGANLite",
        network=GFPGANLite,
        signature=("core.conv_body_first.weight", *(f"core.{key}" for key in _GFPGAN)),
        licence="free",
    ),
    Architecture(
        name="RestoreFormerPlusPlus",
        network=RestoreFormerPlusPlus,
        signature=("decoder.up.4.attn.0.q.weight", *_RESTOREFORMER),
        licence="unclear",
    ),
    Architecture(
        name="RestoreFormer",
        network=RestoreFormer,
        signature=_RESTOREFORMER,
        licence="unclear",
    ),
    Architecture(
        name="HQDictionary",
        network=HQDictionary,
        signature=_RESTOREFORMER,
        licence="unclear",
        only_by_name=True,
    ),
    Architecture(
        name="CodeFormer",
        network=CodeFormer,
        signature=("position_emb", "idx_pred_layer.1.weight", "quantize.embedding.weight"),
        licence="non-commercial",
    ),
)
"""In order of their test: the first whose signature is present is taken."""


def identify(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of a bare state dict.

    `GFPGANv1` and `GFPGANBilinear` have the same names and shapes; this gives the former.

    Raises:
        ValueError: none fits; names the nearest one and the first tensors that differ.
    """
    for architecture in ARCHITECTURES:
        if not architecture.only_by_name and all(key in state for key in architecture.signature):
            return architecture
    raise ValueError(_describe_unknown(state))


def build(state: Mapping[str, Tensor], architecture: str | None = None) -> nn.Module:
    """Build the network a state dict belongs to and load it: a copy, float32, on the CPU.

    Args:
        state: the bare state dict, under the official names; it is not changed.
        architecture: name of a row of `ARCHITECTURES`; by default it is identified.

    Raises:
        ValueError: no architecture has this name, or the state dict does not fit; says why.
    """
    if architecture is None:
        return identify(state).network.from_state_dict(state)
    rows = {row.name: row for row in ARCHITECTURES}
    if architecture not in rows:
        raise ValueError(f"unknown architecture '{architecture}'; known are {', '.join(rows)}")
    try:
        return rows[architecture].network.from_state_dict(state)
    except ValueError as error:
        raise ValueError(f"taken for {architecture} as asked: {error}") from error


def _describe_unknown(state: Mapping[str, Tensor]) -> str:
    """Which architecture shares most names with ``state``, and where they begin to differ."""
    known = ", ".join(row.name for row in ARCHITECTURES)
    nearest, names, shared = None, [], 0
    for row in ARCHITECTURES:
        with torch.device("meta"):
            published = list(row.network().state_dict())
        common = sum(key in state for key in published)
        if common > shared:
            nearest, names, shared = row, published, common
    if nearest is None:
        return f"no known architecture ({known}) has any of its tensors: {quote_some(state)}"
    missing = [key for key in names if key not in state]
    extra = [key for key in state if key not in set(names)]
    differences = [
        f"{what} {quote_some(keys)}"
        for what, keys in (("it lacks", missing), ("it has besides", extra))
        if keys
    ]
    return (
        f"no known architecture ({known}) fits; the nearest is {nearest.name}, "
        f"of whose {len(names)} tensors {shared} are there; {'; '.join(differences)}"
    )
