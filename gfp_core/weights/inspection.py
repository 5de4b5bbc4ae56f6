"""What a checkpoint file is, and how one can tell."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..networks import spandrel_adapter
from ..networks.recognition import Unrecognized, recognize
from . import WeightsError
from .catalogue import Entry
from .difference import about_of
from .files import is_graph
from .loading import Checkpoint, read_checkpoint
from .store import Weights


@dataclass(frozen=True)
class Inspection:
    """What a file is, as `inspect` finds out."""

    file: str
    bytes: int
    sha256: str
    catalogue: str | None
    """Name of the row of the catalogue whose file this is, by its hash."""
    licence: str
    """Of the weights, as the catalogue or else the file itself says."""
    commercial: str
    """May it be used commercially, and why."""
    role: str | None = None
    """``restorer``, ``detector`` or ``parser``; None if it was not recognized."""
    architecture: str | None = None
    reason: str = ""
    """How it was recognized, or why not: the nearest architecture and where it differs."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    """Side in pixels of the crops that a restorer takes; None if any will do."""
    takes: str = ""
    """What the network's ``forward`` takes."""
    format: str = "ONNX"
    wrappers: tuple[str, ...] = ()
    """Keys under which the tensors were found in the file, the outermost first."""
    prefixes: tuple[str, ...] = ()
    """What was taken from the front of the tensors' names."""
    left_out: int = 0
    """Number of tensors in the file that are none of the network's."""
    tensors: int | None = None
    numbers: int | None = None
    """Numbers in all tensors, buffers among them."""
    parameters: int | None = None
    """Trainable numbers of the network as published."""
    dtypes: dict[str, int] = field(default_factory=dict)
    """Number of tensors in the file of each type."""
    metadata: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give all fields, ready for JSON."""
        return asdict(self)


def inspect(path: str | os.PathLike[str], weights: Weights | None = None) -> Inspection:
    """Look into a checkpoint file.

    Args:
        path: the file, see `loading.read_checkpoint`; of ONNX and TensorFlow files only those
            that the catalogue knows are recognized, by their hash.
        weights: whose catalogue is asked; by default that of the user's settings.

    Returns:
        What it is. A file that is read but not recognized has no ``role``, and ``reason`` says why.

    Raises:
        WeightsError: it cannot be read, or is no checkpoint.
    """
    path = Path(path)
    weights = Weights() if weights is None else weights
    try:
        digest, size = weights.hashes.sha256_of(path), path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    entry = weights.by_hash(digest)
    by_hash = is_graph(path) or (entry is not None and entry.format == "tfjs")
    checkpoint = None if by_hash else read_checkpoint(path)
    fields: dict[str, Any] = {
        "file": str(path),
        "bytes": size,
        "sha256": digest,
        "catalogue": entry.name if entry else None,
        "licence": entry.licence if entry else "unknown",
        "commercial": f"{entry.commercial}: {entry.reason}" if entry else "unclear",
    }
    if checkpoint is None:
        return Inspection(**fields, **_by_hash(entry))
    metadata = checkpoint.metadata
    if entry is None:
        fields["licence"] = metadata.get("licence", fields["licence"])
        fields["commercial"] = metadata.get("commercial_use", fields["commercial"])
    claimed = entry.architecture if entry else metadata.get("architecture")
    return Inspection(**fields, **_packing(checkpoint), **_meaning(checkpoint, claimed))


def _by_hash(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        reason = "networks in ONNX and TensorFlow Lite files are recognized by their hash only"
        return {"reason": f"{reason}; the catalogue lacks this"}
    return {
        "role": entry.role,
        "architecture": entry.architecture,
        "reason": "the catalogue knows its hash",
    }


def _packing(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": checkpoint.format,
        "wrappers": checkpoint.wrappers,
        "prefixes": checkpoint.prefixes,
        "left_out": checkpoint.unused,
        "tensors": len(checkpoint.state),
        "numbers": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "dtypes": checkpoint.dtypes,
        "metadata": checkpoint.metadata,
    }


def _meaning(checkpoint: Checkpoint, claimed: str | None) -> dict[str, Any]:
    """Tell what the tensors are.

    Args:
        checkpoint: the file.
        claimed: what the catalogue or the file's metadata say it is. Only the tensors are believed,
            except where they leave a choice.
    """
    about = about_of(checkpoint.metadata)
    if about is not None:
        return {
            "role": "restorer",
            "architecture": about.get("architecture"),
            "reason": f"it holds what was learned of a person, to be added to {about.get('base')}",
        }
    try:
        match = recognize(checkpoint.state)
        if claimed in match.twins:
            match = recognize(checkpoint.state, claimed)
    except Unrecognized as error:
        return _foreign(checkpoint, str(error))
    except ValueError as error:
        return {"reason": str(error)}
    return {
        "role": match.role,
        "architecture": match.architecture,
        "reason": match.reason,
        "hyperparameters": match.hyperparameters,
        "size": match.size,
        "takes": match.takes,
        "parameters": match.parameters,
    }


def _foreign(checkpoint: Checkpoint, unknown: str) -> dict[str, Any]:
    """Tell what tensors are that no network of this package has, and how one can tell."""
    try:
        net = spandrel_adapter.from_state_dict(checkpoint.state)
    except (ImportError, ValueError) as error:
        return {"reason": f"{unknown}; {error}"}
    return {
        "role": "restorer",
        "architecture": f"spandrel's {net.architecture}",
        "reason": "no network of this package fits, but spandrel knows it",
        "hyperparameters": {"tags": net.descriptor.tags},
        "size": net.out_size,
        "takes": "RGB in [-1, 1]",
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
