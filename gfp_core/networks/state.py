"""Loading a state dict into a network: all of it or a clear account of what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Net = TypeVar("Net", bound=nn.Module)


class OwnState(dict[str, Tensor]):
    """A state dict that nobody else uses: a network keeps its tensors in place of copies."""


@contextmanager
def unfilled() -> Iterator[None]:
    """Build networks on the meta device, whose first values are not drawn.

    To draw them there PyTorch would import its compiler: 180 MiB and seconds, for no numbers.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves out what draws and scales the first values: only shapes count on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor as it is where ``func`` would change nothing but values."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        if func in (torch.randn, torch.rand) and not kwargs:
            return torch.empty(*args, **kwargs)
        if func in _SCALES and not isinstance(args[1], Tensor):
            return args[0]
        return func(*args, **kwargs)


_DRAWS = (Tensor.normal_, Tensor.uniform_)
_SCALES = (Tensor.mul, Tensor.mul_, Tensor.div, Tensor.pow)


def quote_some(names: Iterable[str], limit: int = 3) -> str:
    """The first names, quoted, and how many more there are: ``'a', 'b', 'c' and 7 more``."""
    listed = list(names)
    quoted = ", ".join(
        repr(name[:80]) for name in listed[:limit]
    )  # with what a terminal obeys escaped
    return quoted if len(listed) <= limit else f"{quoted} and {len(listed) - limit} more"


def width_of(state: Mapping[str, Tensor], key: str, dimension: int) -> int:
    """Length of one dimension of the tensor ``key``.

    Raises:
        ValueError: there is no such tensor, or it has no such dimension; names it.
    """
    if key not in state:
        raise ValueError(f"tensor '{key}' is missing")
    shape = state[key].shape
    if dimension >= len(shape) or shape[dimension] == 0:
        raise ValueError(f"tensor '{key}' cannot have the shape {tuple(shape)}")
    return shape[dimension]


def describe_difference(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> str:
    """Say what keeps ``actual`` from being loaded as ``expected``; empty if nothing does.

    Args:
        expected: the network's own state dict; its tensors may be on the meta device.
        actual: the state dict to load.

    Returns:
        One line that counts missing, left-over and wrongly shaped tensors and names the first.
    """
    missing = [key for key in expected if key not in actual]
    extra = [key for key in actual if key not in expected]
    shapes = [
        f"'{key}' is {tuple(actual[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in actual and actual[key].shape != tensor.shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(expected)} tensors missing: {quote_some(missing)}")
    if extra:
        parts.append(f"{len(extra)} tensors too many: {quote_some(extra)}")
    if shapes:
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        parts.append(f"{len(shapes)} of another shape: {', '.join(shapes[:3])}{more}")
    return "; ".join(parts)


def load_exactly(net: Net, state: Mapping[str, Tensor]) -> Net:
    """Fill a network built on the meta device with a copy of ``state``, on the CPU.

    Half-precision tensors become the network's float32.

    Args:
        net: the empty network; all it holds must be in its state dict.
        state: tensors under the network's names; an `OwnState` is not copied.

    Returns:
        ``net``.

    Raises:
        ValueError: tensors are missing, too many or of another shape; says which.
    """
    difference = describe_difference(net.state_dict(), state)
    if difference:
        raise ValueError(f"not a state dict of {type(net).__name__}: {difference}")
    own = isinstance(state, OwnState)
    if own and all(tensor.device.type == "cpu" for tensor in state.values()):
        expected = net.state_dict()
        state = {key: tensor.to(expected[key].dtype) for key, tensor in state.items()}
        net.load_state_dict(state, assign=True)
        return net
    net.to_empty(device="cpu").load_state_dict(state)
    return net
