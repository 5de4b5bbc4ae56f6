"""Small ONNX files in protobuf's wire format, with the field numbers of onnx.proto."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    return bytes([*result, number])


def _field(number: int, value: int | float | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: Array) -> bytes:
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = b"".join(_field(1, int(side)) for side in array.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def _attribute(name: str, value: Any) -> bytes:
    head = _field(1, name)
    if isinstance(value, int):
        return head + _field(3, value) + _field(20, 2)
    if isinstance(value, float):
        return head + _field(2, value) + _field(20, 1)
    return head + b"".join(_field(8, int(item)) for item in value) + _field(20, 7)


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> bytes:
    """Write one node of the graph; it is named after its first output."""
    return (
        b"".join(_field(1, name) for name in inputs)
        + b"".join(_field(2, name) for name in outputs)
        + _field(3, outputs[0])
        + _field(4, kind)
        + b"".join(_field(5, _attribute(name, value)) for name, value in attributes.items())
    )


def _value(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_field(1, _field(1, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def model(
    nodes: Sequence[bytes],
    weights: Mapping[str, Array],
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, Sequence[int]],
) -> bytes:
    """Write an ONNX file of the nodes, with float32 inputs and outputs of these shapes."""
    graph = (
        b"".join(_field(1, each) for each in nodes)
        + _field(2, "net")
        + b"".join(_field(5, _tensor(name, array)) for name, array in weights.items())
        + b"".join(_field(11, _value(name, shape)) for name, shape in inputs.items())
        + b"".join(_field(12, _value(name, shape)) for name, shape in outputs.items())
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))
