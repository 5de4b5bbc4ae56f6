"""The 128-number face descriptor of dlib and face-api, as a differentiable net.

A residual net of 29 convolutions trained to put pictures of one person within 0.6 of each other
(Euclidean) and different people further apart. Layout and weights: the project
``vladmandic/face-api`` (MIT), files ``model/face_recognition_model.bin`` and its manifest; they
derive from dlib's ``dlib_face_recognition_resnet_model_v1`` (D. E. King, CC0).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

# Names, shapes and scales of the published file, which has none itself (MIT, see NOTICE).
_MANIFEST = Path(__file__).with_suffix(".json")
_MEAN = (122.782, 117.001, 104.298)  # RGB, of 255

# Name, output channels and stride of each residual block, in order.
_BLOCKS = (
    ("conv32_1", 32, 1),
    ("conv32_2", 32, 1),
    ("conv32_3", 32, 1),
    ("conv64_down", 64, 2),
    ("conv64_1", 64, 1),
    ("conv64_2", 64, 1),
    ("conv64_3", 64, 1),
    ("conv128_down", 128, 2),
    ("conv128_1", 128, 1),
    ("conv128_2", 128, 1),
    ("conv256_down", 256, 2),
    ("conv256_1", 256, 1),
    ("conv256_2", 256, 1),
    ("conv256_down_out", 256, 2),
)
_MIDDLE = ("conv32_3", "conv64_3", "conv128_2", "conv256_2")  # the last of each resolution


class _Block(nn.Module):
    """Two 3x3 convolutions beside a parameter-free skip."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # A block that halves does so without padding: an even side n becomes n / 2 - 1.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))  # zeros for the new channels
        return F.relu(x + y)


class FaceDescriptor(nn.Module):
    """Face crops to 128 numbers."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = nn.Conv2d(3, 32, 7, stride=2)
        self.blocks = nn.ModuleDict()
        channels = 32
        for name, outputs, stride in _BLOCKS:
            self.blocks[name] = _Block(channels, outputs, stride)
            channels = outputs
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) / 255)

    @classmethod
    def from_tfjs(cls, data: bytes, manifest: list[dict[str, Any]] | None = None) -> FaceDescriptor:
        """The net with the weights of a TensorFlow.js file, in evaluation mode.

        Args:
            data: the file ``face_recognition_model.bin``.
            manifest: what its manifest says of it; None for the published one.

        Raises:
            ValueError: the file does not hold this net.
        """
        if manifest is None:
            manifest = json.loads(_MANIFEST.read_text(encoding="utf-8"))
        net = cls()
        try:
            net.load_state_dict(_state(_tensors(manifest, data)))
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"does not hold the face descriptor: {error}") from error
        return net.eval()

    def activations(self, images: Tensor) -> list[Tensor]:
        """Last activations at strides 4, 8, 16 and 32 of (N, 3, H, W) RGB crops in [0, 1]."""
        return [x for name, x in self._walk(images) if name in _MIDDLE]

    def forward(self, images: Tensor) -> Tensor:
        """Descriptors of face crops.

        Args:
            images: (N, 3, 150, 150) float RGB in [0, 1], see `inner_face`.

        Returns:
            (N, 128), not normalized.
        """
        last = self._walk(images)[-1][1]
        descriptor: Tensor = self.fc(last.mean(dim=(2, 3)))
        return descriptor

    def _walk(self, images: Tensor) -> list[tuple[str, Tensor]]:
        x = F.max_pool2d(F.relu(self.conv32_down(images - self.mean)), 3, 2)
        activations = []
        for name, block in self.blocks.items():
            x = block(x)
            activations.append((name, x))
        return activations


def inner_face(crops: Tensor, *, resize: bool = True) -> Tensor:
    """The square of an FFHQ crop that the descriptor was trained to see.

    The descriptor's own alignment puts the mean of the two eyes and the mouth at (0.5, 0.43) of a
    square whose side is the distance from eye to mouth divided by 0.45; with the FFHQ template
    that is the square below.

    Args:
        crops: (N, 3, S, S) aligned to the FFHQ template.
        resize: whether to bring it to the descriptor's 150 pixels.
    """
    size = crops.shape[-1]
    side = round(0.631 * size)
    x1, top = round(0.185 * size), round(0.283 * size)
    inner = crops[:, :, top : top + side, x1 : x1 + side]
    if not resize:
        return inner
    return F.interpolate(inner, (150, 150), mode="bilinear", antialias=True, align_corners=False)


def _tensors(manifest: list[dict[str, Any]], data: bytes) -> dict[str, NDArray[np.float32]]:
    """The arrays of a TensorFlow.js weights file, their 8-bit quantization undone."""
    arrays: dict[str, NDArray[np.float32]] = {}
    start = 0
    for entry in manifest[0]["weights"]:
        quantized = entry.get("quantization")
        dtype = np.dtype(quantized["dtype"] if quantized else entry["dtype"]).newbyteorder("<")
        count = math.prod(entry["shape"])
        end = start + count * dtype.itemsize
        if end > len(data):
            raise ValueError(f"the weights file ends before {entry['name']}: it is truncated")
        array = np.frombuffer(data[start:end], dtype).astype(np.float32)
        if quantized:
            array = array * np.float32(quantized["scale"]) + np.float32(quantized["min"])
        arrays[entry["name"]] = array.reshape(entry["shape"])
        start = end
    if start != len(data):
        raise ValueError(f"the weights file is {len(data) - start} bytes longer than its manifest")
    return arrays


def _state(arrays: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """State dict of ``FaceDescriptor``; each convolution takes in the scale layer behind it."""
    state = {"fc.weight": torch.from_numpy(arrays["fc"].T.copy())}
    names = ["conv32_down", *(f"{name}/conv{i}" for name, _, _ in _BLOCKS for i in (1, 2))]
    for name in names:
        key = name if "/" not in name else "blocks." + name.replace("/", ".")
        scale = arrays[f"{name}/scale/weights"]
        kernel = arrays[f"{name}/conv/filters"] * scale  # [height, width, in, out]
        bias = arrays[f"{name}/conv/bias"] * scale + arrays[f"{name}/scale/biases"]
        state[f"{key}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{key}.bias"] = torch.from_numpy(bias)
    state["mean"] = torch.tensor(_MEAN).view(1, 3, 1, 1) / 255
    return state
