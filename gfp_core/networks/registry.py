"""The architectures this package knows, and which of them a state dict belongs to.

Decided by the names of the tensors alone, never by a file's name. To add an architecture, add a
row to `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from . import codeformer, gfpgan_state, gpen, lite, pmrf, restoreformer
from .codeformer import CodeFormer
from .gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from .gpen import GPEN
from .hq_dictionary import HQDictionary
from .lite import GFPGANLite
from .pmrf import PMRF
from .pose_varied import PoseVaried
from .restoreformer import RestoreFormer, RestoreFormerPlusPlus
from .state import quote_some, unfilled


class NotRunError(ValueError):
    """A state dict is of a network that is known and not run; says which, and what to take."""


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
    hyperparameters: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    """Reads constructor arguments from a state dict's names and shapes."""
    licence: Literal["free", "unclear", "non-commercial"]
    """May the published weights be used commercially? The catalogue says more, file by file."""
    size: str | None = "out_size"
    """Attribute of the network that holds the side of its input in pixels; None if any will do."""
    preprocessing: str = "RGB in [-1, 1]"
    """What ``forward`` takes and, for a restorer, gives."""
    only_by_name: bool = False
    """Cannot be told from an earlier row: taken only when asked for."""


_GFPGAN = ("stylegan_decoder.constant_input.weight", "condition_scale.0.0.weight", "toRGB.0.weight")
_EQUALIZED = ("conv_body_first.0.weight", "stylegan_decoder.style_conv1.activate.bias", *_GFPGAN)
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
        hyperparameters=gfpgan_state.infer_hyperparameters,
        licence="unclear",
    ),
    Architecture(
        name="GFPGANv1",
        network=GFPGANv1,
        signature=_EQUALIZED,
        hyperparameters=gfpgan_state.infer_hyperparameters,
        licence="unclear",
    ),
    Architecture(
        name="GFPGANBilinear",
        network=GFPGANBilinear,
        signature=_EQUALIZED,
        hyperparameters=gfpgan_state.infer_hyperparameters,
        licence="unclear",
        only_by_name=True,
    ),
    Architecture(
        name="GFPGANLite",
        network=GFPGANLite,
        signature=("core.conv_body_first.weight", *(f"core.{key}" for key in _GFPGAN)),
        hyperparameters=lite.infer_hyperparameters,
        licence="free",
    ),
    Architecture(
        name="GPEN",
        network=GPEN,
        signature=("generator.input.input", "generator.conv1.noise.weight", "ecd0.0.0.weight"),
        hyperparameters=gpen.infer_hyperparameters,
        licence="non-commercial",
    ),
    Architecture(
        name="PoseVaried",
        network=PoseVaried,
        signature=("generator.input.input", "generator.conv1.noise.weight", "latent.weight"),
        hyperparameters=gpen.infer_hyperparameters,
        licence="free",  # there are no published weights, only those that one trains
    ),
    Architecture(
        name="RestoreFormerPlusPlus",
        network=RestoreFormerPlusPlus,
        signature=("decoder.up.4.attn.0.q.weight", *_RESTOREFORMER),
        hyperparameters=restoreformer.infer_hyperparameters,
        licence="unclear",
    ),
    Architecture(
        name="RestoreFormer",
        network=RestoreFormer,
        signature=_RESTOREFORMER,
        hyperparameters=restoreformer.infer_hyperparameters,
        licence="unclear",
    ),
    Architecture(
        name="HQDictionary",
        network=HQDictionary,
        signature=_RESTOREFORMER,
        hyperparameters=restoreformer.infer_hyperparameters,
        licence="unclear",
        only_by_name=True,
    ),
    Architecture(
        name="CodeFormer",
        network=CodeFormer,
        signature=("position_emb", "idx_pred_layer.1.weight", "quantize.embedding.weight"),
        hyperparameters=codeformer.infer_hyperparameters,
        licence="non-commercial",
    ),
    Architecture(
        name="PMRF",
        network=PMRF,
        signature=("model.patch_in.proj.weight", "mmse_model.conv_first.1.weight"),
        hyperparameters=pmrf.infer_hyperparameters,
        licence="unclear",
    ),
)
"""In order of their test: the first whose signature is present is taken."""


# Networks that are known and have no class here, by a tensor that only they have.
_NOT_RUN = {
    "final_extend_linear.weight": "this is GFPGAN-1024, which takes 512 px and gives 1024; it is "
    "not run here: take gfpgan-1.4, or gpen-1024 for faces of 1024 px"
}


def refuse_not_run(state: Mapping[str, Tensor]) -> None:
    """Refuse a network that is known and has no class here.

    Raises:
        NotRunError: the state dict is of one; says which, and what to take.
    """
    for key, what in _NOT_RUN.items():
        if key in state:
            raise NotRunError(what)


def identify(state: Mapping[str, Tensor]) -> Architecture:
    """The architecture of a bare state dict.

    `GFPGANv1` and `GFPGANBilinear` have the same names and shapes; this gives the former.

    Raises:
        ValueError: none fits; names the nearest one and the first tensors that differ, or, as a
            `NotRunError`, the network.
    """
    refuse_not_run(state)
    for architecture in ARCHITECTURES:
        if not architecture.only_by_name and all(key in state for key in architecture.signature):
            return architecture
    raise ValueError(describe_unknown(state, {row.name: row.network for row in ARCHITECTURES}))


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


def describe_unknown(
    state: Mapping[str, Tensor], networks: Mapping[str, Callable[[], nn.Module]]
) -> str:
    """Which network shares most names with ``state``, and where they begin to differ.

    Args:
        state: a state dict that none of them fits.
        networks: by name, what builds them in their published size.
    """
    with unfilled():
        published = {name: list(network().state_dict()) for name, network in networks.items()}
    prefix, bare = "", set(state)
    while True:  # the names as they are, then without what they all begin with
        shared = {name: len(bare.intersection(keys)) for name, keys in published.items()}
        nearest = max(shared, key=lambda name: shared[name])
        first, dot, _ = next(iter(bare), "").partition(".")
        if shared[nearest] or not dot or not all(key.startswith(first + dot) for key in bare):
            break
        prefix += first + dot
        bare = {key.removeprefix(first + dot) for key in bare}
    architectures = ", ".join(networks)
    if not shared[nearest]:
        return (
            f"no known architecture ({architectures}) has any of its tensors: {quote_some(state)}"
        )
    names = published[nearest]
    missing = [prefix + key for key in names if key not in bare]
    extra = [key for key in state if key.removeprefix(prefix) not in set(names)]
    differences = [
        f"{what} {quote_some(keys)}"
        for what, keys in (("it lacks", missing), ("it has besides", extra))
        if keys
    ]
    nearness = (
        f"the nearest is {nearest}, of whose {len(names)} tensors {shared[nearest]} are there"
    )
    if prefix:
        nearness += f", but under names that begin with '{prefix}'"
    return "; ".join([f"no known architecture ({architectures}) fits", nearness, *differences])
