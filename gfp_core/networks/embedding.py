"""Networks that turn a face into numbers that say who it is, in the form the field shares.

They see a face in a square of 112 pixels, aligned by five landmarks (Deng et al., "ArcFace", CVPR
2019, and its published code). `AlignedEmbedder` cuts that square out of a crop of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .opencv_net import OpenCVNet

SIZE = 112
"""Side of the square that the networks see."""
# Square of an FFHQ crop that becomes ArcFace's, in shares of the crop's side: the least-squares
# similarity from the FFHQ template to ArcFace's five points (38.29, 51.70), (73.53, 51.50),
# (56.03, 71.74), (41.55, 92.37), (70.73, 92.20), without its turn of 0.1 degree.
_LEFT, _TOP, _SIDE = 0.1266, 0.1194, 0.7489


class _Convention(NamedTuple):
    """What a network takes and gives; RGB throughout."""

    scale: float  # of values in [0, 1]
    offset: float
    dimensions: int


# Sources: insightface's arcface_onnx.py for AuraFace, which is in its form; OpenCV's
# face_recognize.cpp for SFace, whose file normalizes by itself.
_CONVENTIONS = {
    "AuraFace": _Convention(2.0, -1.0, 512),
    "SFace": _Convention(255.0, 0.0, 128),
}
NAMES = tuple(_CONVENTIONS)
"""The networks there are."""


class AlignedEmbedder(nn.Module):
    """The network of an ONNX file, on the CPU."""

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        """Load the file.

        Args:
            path: the ONNX file.
            name: one of `NAMES`; None takes what the length of the embedding says.

        Raises:
            ValueError: the file cannot be read, or holds another network.
        """
        super().__init__()
        self._net = OpenCVNet(path)
        self.dimensions = self._net.run(np.zeros((1, 3, SIZE, SIZE), np.float32))[0].size
        """Numbers of an embedding."""
        match = [key for key, row in _CONVENTIONS.items() if row.dimensions == self.dimensions]
        if not match or name not in (None, match[0]):
            raise ValueError(
                f"{path}: gives {self.dimensions} numbers for a face, which is not "
                f"{name or ' or '.join(NAMES)}"
            )
        self.name = match[0]
        self._convention = _CONVENTIONS[self.name]

    def forward(self, crops: Tensor) -> Tensor:
        """Embed FFHQ-aligned crops (N, 3, S, S), RGB in [0, 1]: (N, dimensions)."""
        squares = aligned_square(crops.cpu().float())
        x = squares * self._convention.scale + self._convention.offset
        rows = [self._net.run(face[None].numpy())[0].reshape(-1) for face in x]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, self.dimensions)


def aligned_square(crops: Tensor) -> Tensor:
    """Cut ArcFace's square out of FFHQ-aligned crops (N, 3, S, S): (N, 3, 112, 112)."""
    size = crops.shape[-1]
    left, top, side = (round(share * size) for share in (_LEFT, _TOP, _SIDE))
    square = crops[:, :, max(top, 0) : top + side, max(left, 0) : left + side]
    return F.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
