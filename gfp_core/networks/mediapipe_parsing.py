"""Face parsing by networks of Google's MediaPipe, whose terms allow commercial use.

*Face mesh* (Kartynnik, Ablavatski, Grishchenko, Grundmann, "Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs", 2019) gives 468 or 478 landmarks, whose outlines are drawn here:
face, eyes, brows, nose and mouth. *Selfie multiclass* tells hair, skin of face and body, clothes
and accessories apart. Both answer as the networks of ``parsing.py`` do, with scores of a `FacePart`
for every pixel. They run on the CPU.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .opencv_net import Array, OpenCVNet
from .parsing import CLASSES, FacePart

# Landmarks along the outlines, as MediaPipe numbers them (its face_mesh_connections.py); the sides
# are those of the picture, while MediaPipe's names are the person's.
_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
_LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    *(409, 270, 269, 267, 0, 37, 39, 40, 185),
)
_MOUTH = (
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    *(415, 310, 311, 312, 13, 82, 81, 80, 191),
)
_UPPER_LIP = (*_LIPS[10:], 61, 78, *reversed(_MOUTH[10:]))
_EYE_AT_LEFT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
_EYE_AT_RIGHT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
_BROW_AT_LEFT = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
_BROW_AT_RIGHT = (276, 283, 282, 295, 285, 336, 296, 334, 293, 300)
_NOSE = (
    *(168, 122, 174, 198, 49, 48, 219, 64, 98, 97, 2),
    *(326, 327, 294, 439, 278, 279, 420, 399, 351),
)
# In the order of drawing: what comes later lies on top. CelebAMask-HQ's left is the picture's.
_OUTLINES = (
    (FacePart.SKIN, _OVAL),
    (FacePart.NOSE, _NOSE),
    (FacePart.LEFT_BROW, _BROW_AT_LEFT),
    (FacePart.RIGHT_BROW, _BROW_AT_RIGHT),
    (FacePart.LEFT_EYE, _EYE_AT_LEFT),
    (FacePart.RIGHT_EYE, _EYE_AT_RIGHT),
    (FacePart.LOWER_LIP, _LIPS),
    (FacePart.UPPER_LIP, _UPPER_LIP),
    (FacePart.MOUTH, _MOUTH),
)
_MESHES = {256: 478, 192: 468}  # side of the input: number of landmarks
_SHIFT = 4  # bits of a pixel's fraction when outlines are drawn

# What selfie multiclass tells apart (its model card). "Others" are accessories: glasses, hats,
# headphones; as a hat, they are never painted over by the default parts of a mask.
_SELFIE = (
    FacePart.BACKGROUND,
    FacePart.HAIR,
    FacePart.NECK,
    FacePart.SKIN,
    FacePart.CLOTHES,
    FacePart.HAT,
)
_SELFIE_SIZE = 256
_ABSENT = -1e4  # score of a part that a network does not know


class FaceMesh(nn.Module):
    """Parts of a face from the outlines of its landmarks."""

    def __init__(self, net: OpenCVNet) -> None:
        """Take the loaded network.

        Raises:
            ValueError: it is another one.
        """
        super().__init__()
        for size, count in _MESHES.items():
            shapes = [(1, 3, size, size), (1, size, size, 3)]
            shape = net.first_fit(shapes, partial(_has_points, count))
            if shape is not None:
                self._net, self._shape, self._count = net, shape, count
                return
        raise ValueError(f"{net.path}: not the face mesh: it gives no 468 or 478 landmarks")

    def landmarks(self, crop: Tensor) -> NDArray[np.float64]:
        """Find the landmarks of a face: (468 or 478, 2) pixels of its (3, S, S) crop in [0, 1]."""
        size = max(self._shape)
        points = _points(self._net.run(_shaped(crop, size, self._shape)), self._count)
        assert points is not None
        # The network counts pixels from the corner of the top left one.
        return points[:, :2].astype(np.float64) * (crop.shape[-1] / size) - 0.5

    def forward(self, crops: Tensor) -> Tensor:
        """Score the parts of crops (N, 3, S, S), RGB in [0, 1]: (N, CLASSES, S, S), 1 or 0."""
        maps = [_drawn(self.landmarks(crop), crop.shape[-1]) for crop in crops.cpu().float()]
        labels = torch.from_numpy(np.stack(maps)).to(crops.device, torch.long)
        return F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).float()


class SelfieMulticlass(nn.Module):
    """Hair, skin, clothes and accessories."""

    def __init__(self, net: OpenCVNet) -> None:
        """Take the loaded network.

        Raises:
            ValueError: it is another one.
        """
        super().__init__()
        side = _SELFIE_SIZE
        shapes = [(1, side, side, 3), (1, 3, side, side)]
        shape = net.first_fit(shapes, lambda outputs: _selfie_scores(outputs) is not None)
        if shape is None:
            raise ValueError(f"{net.path}: not selfie multiclass: it tells no six classes apart")
        self._net, self._shape = net, shape

    def forward(self, crops: Tensor) -> Tensor:
        """Score the parts of crops (N, 3, S, S), RGB in [0, 1]: (N, CLASSES, S, S)."""
        rows = []
        for crop in crops.cpu().float():
            row = _selfie_scores(self._net.run(_shaped(crop, _SELFIE_SIZE, self._shape)))
            assert row is not None
            rows.append(torch.from_numpy(row))
        selfie = torch.stack(rows).to(crops.device)
        selfie = F.interpolate(selfie, crops.shape[2:], mode="bilinear", align_corners=False)
        scores = selfie.new_full((len(crops), CLASSES, *crops.shape[2:]), _ABSENT)
        scores[:, list(_SELFIE)] = selfie
        return scores


NETWORKS = {"FaceMesh": FaceMesh, "SelfieMulticlass": SelfieMulticlass}
"""The networks there are, by their names in the catalogue."""


def load(path: str | Path, name: str | None = None) -> nn.Module:
    """Load the parsing network of an ONNX or TensorFlow Lite file.

    Args:
        path: the file.
        name: one of `NETWORKS`; None takes what the outputs say.

    Raises:
        ValueError: the file cannot be read, or holds another network.
    """
    net = OpenCVNet(path)
    if name is not None:
        return NETWORKS[name](net)
    reasons = []
    for network in NETWORKS.values():
        try:
            return network(net)
        except ValueError as error:
            reasons.append(str(error).removeprefix(f"{path}: "))
    raise ValueError(f"{path}: no parsing network: {'; '.join(reasons)}")


def _shaped(crop: Tensor, size: int, shape: tuple[int, ...]) -> Array:
    """Bring a crop (3, S, S) to the input's size, and to its order of axes."""
    x = F.interpolate(
        crop[None], (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return (x if shape[1] == 3 else x.permute(0, 2, 3, 1)).contiguous().numpy()


def _points(outputs: list[Array], count: int) -> Array | None:
    """Select the landmarks (count, 3) among outputs; None if there are none."""
    for output in outputs:
        if output.size == 3 * count:
            return output.reshape(count, 3)
    return None


def _has_points(count: int, outputs: list[Array]) -> bool:
    return _points(outputs, count) is not None


def _selfie_scores(outputs: list[Array]) -> Array | None:
    """Select the scores (6, 256, 256) among outputs; None if there are none."""
    side, classes = _SELFIE_SIZE, len(_SELFIE)
    for output in outputs:
        if output.shape == (1, classes, side, side):
            return np.asarray(output[0])
        if output.shape == (1, side, side, classes):
            classes_first: Array = np.ascontiguousarray(output[0].transpose(2, 0, 1))
            return classes_first
    return None


def _drawn(points: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Draw the outlines of landmarks: the label map (size, size) of a face."""
    labels = np.full((size, size), int(FacePart.BACKGROUND), np.uint8)
    fixed = (np.clip(points, -size, 2 * size) * 2**_SHIFT).round().astype(np.int32)
    for face_part, outline in _OUTLINES:
        cv2.fillPoly(labels, [fixed[list(outline)]], int(face_part), cv2.LINE_8, _SHIFT)
    return labels
