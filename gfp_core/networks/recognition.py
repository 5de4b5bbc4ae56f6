"""What a state dict is: a restorer of the registry, a detector or a parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from . import parsing, registry, retinaface
from .state import unfilled


class Unrecognized(ValueError):  # noqa: N818 -- of tensors, not of a fault
    """Tensors are those of no network of this package, by their names."""


@dataclass(frozen=True)
class Recognition:
    """What a state dict was recognized as."""

    role: Literal["restorer", "detector", "parser"]
    architecture: str
    """Name in the registry, or of the detector or the parser."""
    reason: str
    """How it was recognized."""
    net: nn.Module
    """The network with the tensors loaded: a copy, on the CPU."""
    parameters: int
    """Trainable numbers of the network as published."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """What was read from names and shapes."""
    size: int | None = None
    """Side in pixels of the crops that a restorer takes."""
    takes: str = ""
    """What the network's ``forward`` takes."""
    twins: tuple[str, ...] = ()
    """Architectures whose tensors have the same names, so that only who made it can tell."""


def recognize(state: Mapping[str, Tensor], architecture: str | None = None) -> Recognition:
    """Find out what a bare state dict is, and check all its tensors.

    Args:
        state: the tensors, under the official names.
        architecture: what it is said to be; None goes by the tensors' names alone.

    Raises:
        Unrecognized: a kind of ValueError: it is nothing that is known; names the nearest
            architecture and the first tensors that differ.
        ValueError: tensors are missing, too many or wrongly shaped, or it is not what it is said
            to be; names the first that differ.
    """
    detector, parser = retinaface.identify(state), parsing.identify(state)
    rows = {row.name: row for row in registry.ARCHITECTURES}
    name = architecture or detector or parser or _identify(state)
    if name in rows:
        return _restorer(rows[name], state, is_named=architecture is not None)
    if name in retinaface.NAMES:
        if name != detector:
            raise ValueError(f"its tensors are those of {detector or 'no detector'}")
        with unfilled():
            published = retinaface.build(name)  # the one loaded has its batch norms folded
        return Recognition(
            role="detector",
            architecture=name,
            reason="it has tensors that only this detector has",
            net=retinaface.from_state_dict(state),
            parameters=_count(published),
            hyperparameters={"folded": not any(key.endswith(".running_mean") for key in state)},
            takes="BGR from 0 to 255 minus the channels' means, of any size",
        )
    if name in parsing.NAMES:
        net = parsing.from_state_dict(state, name)
        return Recognition(
            role="parser",
            architecture=name,
            reason="it has tensors that only this parsing network has",
            net=net,
            parameters=_count(net),
            hyperparameters={"classes": parsing.CLASSES},
            takes="RGB in [0, 1], 512 x 512",
        )
    raise ValueError(f"this version has no network {name}")


def _restorer(
    row: registry.Architecture, state: Mapping[str, Tensor], is_named: bool
) -> Recognition:
    reason = f"it has the tensors {', '.join(map(repr, row.signature[:3]))}"
    try:
        net = row.network.from_state_dict(state)
    except ValueError as error:
        raise ValueError(f"the nearest is {row.name}, but it is {error}") from error
    twins = tuple(
        twin.name
        for twin in registry.ARCHITECTURES
        if twin is not row and twin.signature == row.signature
    )
    if twins:
        how = "taken for it as it is said to be" if is_named else "taken for the first of them"
        reason += f", as have those of {' and '.join(twins)}; {how}"
    return Recognition(
        role="restorer",
        architecture=row.name,
        reason=reason,
        net=net,
        parameters=_count(net),
        hyperparameters=row.hyperparameters(state),
        size=None if row.size is None else getattr(net, row.size),
        takes=row.preprocessing,
        twins=twins,
    )


def _identify(state: Mapping[str, Tensor]) -> str:
    """The architecture of a restorer.

    Raises:
        Unrecognized: it is none; names the nearest of all networks.
        NotRunError: it is one that is known and not run.
    """
    registry.refuse_not_run(state)
    for row in registry.ARCHITECTURES:
        if not row.only_by_name and all(key in state for key in row.signature):
            return row.name
    networks: dict[str, Callable[[], nn.Module]] = {
        row.name: row.network for row in registry.ARCHITECTURES
    }
    networks.update({name: partial(retinaface.build, name) for name in retinaface.NAMES})
    networks.update({name: partial(parsing.build, name) for name in parsing.NAMES})
    raise Unrecognized(registry.describe_unknown(state, networks))


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
