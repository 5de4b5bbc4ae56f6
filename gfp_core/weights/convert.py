"""Checkpoints of any known kind to safetensors files that are the same bytes on every machine.

The writing is done here and not by the safetensors package, because that orders a file's metadata
by chance. The format is small: the length of the header, the header as JSON, the tensors.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..io.atomic import open_atomic
from . import WeightsError
from .catalogue import Entry
from .hashing import sha256_of
from .loading import load_state_dict

logger = logging.getLogger(__name__)

CONVERTER = "1"
"""Version of the conversion, in every file's metadata: raised when its bytes would change."""

_DTYPES = {
    torch.float32: ("F32", "<f4"),
    torch.int64: ("I64", "<i8"),
    torch.int32: ("I32", "<i4"),
    torch.int16: ("I16", "<i2"),
    torch.int8: ("I8", "<i1"),
    torch.uint8: ("U8", "<u1"),
    torch.bool: ("BOOL", "<u1"),
}


def convert(source: Path, target: Path, entry: Entry | None = None) -> str:
    """Convert a checkpoint to safetensors.

    Args:
        source: the checkpoint, see `loading.load_state_dict`.
        target: the file to write, whole or not at all.
        entry: what the catalogue knows of it. Without it the architecture is identified from the
            tensors' names.

    Returns:
        The architecture.

    Raises:
        WeightsError: the source cannot be read, or does not hold what it should.
        OSError: the target cannot be written.
    """
    state, _ = load_state_dict(source)
    architecture = check_architecture(state, entry.architecture if entry else None, source)
    metadata = {
        "format": "pt",  # what other readers of safetensors expect of tensors from PyTorch
        "architecture": architecture,
        "converter": f"gfp {CONVERTER}",
        "source_file": entry.file if entry else source.name,
        "source_sha256": (entry.sha256 if entry else None) or sha256_of(source),
        "licence": entry.licence if entry else "unknown",
    }
    if entry is not None:
        metadata["name"] = entry.name
        metadata["origin"] = entry.origin or "unknown"
        metadata["commercial_use"] = f"{entry.commercial}: {entry.reason}"
    write_safetensors(state, metadata, target)
    return architecture


def check_architecture(state: Mapping[str, Tensor], name: str | None, source: Path) -> str:
    """Make sure that a state dict is what it should be.

    Args:
        state: the bare state dict.
        name: the architecture it should be; None to find out.
        source: the file it is from, for messages.

    Returns:
        The architecture's name. One of which this version has no network cannot be checked, which
        a log line says.

    Raises:
        WeightsError: the tensors are not, or fit no architecture.
    """
    from ..networks import parsing, registry, retinaface
    from ..networks.recognition import recognize

    architectures = {row.name for row in registry.ARCHITECTURES}
    if name is not None and name not in architectures.union(retinaface.NAMES, parsing.NAMES):
        logger.warning(
            "%s: this version has no network %s to check the tensors against; they are "
            "converted as they are.",
            *(source, name),
        )
        return name
    try:
        return recognize(state, name).architecture
    except ValueError as error:
        raise WeightsError(f"{source}: not {name or 'convertible'}: {error}") from error


def write_safetensors(state: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write tensors so that equal content gives equal bytes.

    Args:
        state: tensors on the CPU: float32, integers or bool.
        metadata: texts that go into the header.
        path: the file, written whole or not at all, and on the disk when this returns.

    Raises:
        ValueError: a tensor has another type.
        OSError: the file cannot be written.
    """
    wrong = [key for key, tensor in state.items() if tensor.dtype not in _DTYPES]
    if wrong:
        raise ValueError(f"tensor {wrong[0]!r} has the type {state[wrong[0]].dtype}")
    # Wide types first, so that every tensor begins at a multiple of its item's size.
    keys = sorted(state, key=lambda key: (-state[key].element_size(), key))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for key in keys:
        end = offset + state[key].numel() * state[key].element_size()
        header[key] = {
            "dtype": _DTYPES[state[key].dtype][0],
            "shape": list(state[key].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in keys:
            array = state[key].detach().contiguous().numpy()
            file.write(array.astype(_DTYPES[state[key].dtype][1], copy=False).tobytes())
