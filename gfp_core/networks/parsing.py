"""Face parsing: which part of a face every pixel of a crop belongs to.

Two networks trained on CelebAMask-HQ (Lee et al., "MaskGAN", CVPR 2020), in the form of their
PyTorch releases: BiSeNet (Yu et al., ECCV 2018) and the ParseNet of Chen et al. ("Progressive
Semantic-Aware Style Transformation for Blind Face Restoration", CVPR 2021). The layers are
facexlib's. The two want their input normalized in different ways and number the parts differently;
`FaceParsing` makes them one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .state import describe_difference


class FacePart(IntEnum):
    """The parts that are told apart, numbered as CelebAMask-HQ numbers them (its g_mask.py).

    Left and right are as in the data set. The public training code of BiSeNet mirrors pictures
    without exchanging them, so do not rely on the side that it gives: take both.
    """

    BACKGROUND = 0
    SKIN = 1
    NOSE = 2
    GLASSES = 3
    LEFT_EYE = 4
    RIGHT_EYE = 5
    LEFT_BROW = 6
    RIGHT_BROW = 7
    LEFT_EAR = 8
    RIGHT_EAR = 9
    MOUTH = 10
    """Inside of the mouth, without the lips."""
    UPPER_LIP = 11
    LOWER_LIP = 12
    HAIR = 13
    HAT = 14
    EARRING = 15
    NECKLACE = 16
    NECK = 17
    CLOTHES = 18


_PARSING = "_gfp_facexlib_parsing"  # what facexlib's parsing modules are imported as

CLASSES = len(FacePart)
"""Number of parts, the background among them."""


class _Convention(NamedTuple):
    """What a network takes and gives."""

    mean: tuple[float, float, float]  # of RGB in [0, 1], subtracted
    deviation: tuple[float, float, float]  # divided by
    order: tuple[FacePart, ...]  # part that each channel of the scores stands for


# Source of both: facexlib's inference_parsing.py for BiSeNet (the order of
# zllrunning/face-parsing.PyTorch), inference_parsing_parsenet.py for ParseNet (CelebAMask-HQ's).
_CONVENTIONS = {
    "BiSeNet": _Convention(
        (0.485, 0.456, 0.406),  # ImageNet's
        (0.229, 0.224, 0.225),
        (
            FacePart.BACKGROUND,
            FacePart.SKIN,
            FacePart.LEFT_BROW,
            FacePart.RIGHT_BROW,
            FacePart.LEFT_EYE,
            FacePart.RIGHT_EYE,
            FacePart.GLASSES,
            FacePart.LEFT_EAR,
            FacePart.RIGHT_EAR,
            FacePart.EARRING,
            FacePart.NOSE,
            FacePart.MOUTH,
            FacePart.UPPER_LIP,
            FacePart.LOWER_LIP,
            FacePart.NECK,
            FacePart.NECKLACE,
            FacePart.CLOTHES,
            FacePart.HAIR,
            FacePart.HAT,
        ),
    ),
    "ParseNet": _Convention((0.5,) * 3, (0.5,) * 3, tuple(FacePart)),
}
NAMES = tuple(_CONVENTIONS)
"""The networks there are."""
_SIGNATURES = {
    "BiSeNet": ("cp.resnet.conv1.weight", "ffm.convblk.conv.weight"),
    "ParseNet": ("encoder.0.conv2d.weight", "out_mask_conv.conv2d.weight"),
}


def identify(state: Mapping[str, Tensor]) -> str | None:
    """The name of the network that ``state`` belongs to, by its keys; None if it is none."""
    for name, keys in _SIGNATURES.items():
        if all(key in state for key in keys):
            return name
    return None


def build(name: str) -> nn.Module:
    """An untrained parsing network of facexlib on the CPU, with the official checkpoints' keys.

    Its forward takes (B, 3, 512, 512) RGB, for ParseNet in [-1, 1], for BiSeNet normalized by
    ImageNet's mean and deviation, and returns a tuple whose first part is (B, CLASSES, 512, 512):
    a score for each class, in an order of its own. `FaceParsing` hides what differs.

    Args:
        name: one of `NAMES`.

    Raises:
        ValueError: the name is none of these.
    """
    if name not in NAMES:
        raise ValueError(f"unknown parsing network {name!r}: choose one of {', '.join(NAMES)}")
    if name == "BiSeNet":
        net: nn.Module = _facexlib("bisenet").BiSeNet(num_class=CLASSES)
    else:
        parsenet = _facexlib("parsenet").ParseNet
        net = parsenet(in_size=512, out_size=512, parsing_ch=CLASSES)
    return net


def _facexlib(name: str) -> Any:
    """Import one module of facexlib's parsing networks, without the package around it.

    Importing facexlib itself imports numba and matplotlib, for what is not used here, and fails
    where the package was installed without them.

    Raises:
        ImportError: facexlib is not installed.
    """
    spec = importlib.util.find_spec("facexlib")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "face parsers need the package facexlib: run `gfp setup` once, or in ComfyUI the "
            "pack's install.py"
        )
    package = sys.modules.setdefault(_PARSING, ModuleType(_PARSING))
    package.__path__ = [str(Path(spec.submodule_search_locations[0], "parsing"))]
    return importlib.import_module(f"{_PARSING}.{name}")


class FaceParsing(nn.Module):
    """Either network, with one convention for what goes in and what comes out."""

    mean: Tensor
    deviation: Tensor
    channels: Tensor  # channel of the network's scores for each part

    def __init__(self, net: nn.Module, name: str) -> None:
        """Join a network and its convention.

        Args:
            net: the network, as `build` makes it.
            name: which it is, one of `NAMES`.
        """
        super().__init__()
        mean, deviation, order = _CONVENTIONS[name]
        self.net = net
        self.name = name
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False
        )
        channels = torch.tensor([order.index(face_part) for face_part in FacePart])
        self.register_buffer("channels", channels, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Score the parts.

        Args:
            x: (B, 3, H, W) RGB in [0, 1]; faces aligned in 512 x 512 are what it was trained on.

        Returns:
            (B, CLASSES, H, W) scores in the order of `FacePart`; the highest is right.
        """
        scores: Tensor = self.net((x - self.mean) / self.deviation)[0]
        return scores[:, self.channels]


def from_state_dict(state: Mapping[str, Tensor], name: str | None = None) -> FaceParsing:
    """The parsing network that ``state`` holds, in evaluation mode on the CPU.

    Args:
        state: tensors under the official keys.
        name: the network it must be; None takes what the keys say.

    Raises:
        ValueError: it is none, another, or its tensors are missing, extra or wrongly shaped.
    """
    recognition = identify(state)
    if recognition is None or name not in (None, recognition):
        raise ValueError(f"the tensors are those of {recognition or 'no parsing network'}")
    net = build(recognition)
    difference = describe_difference(net.state_dict(), state)
    if difference:
        raise ValueError(f"the tensors do not fit {recognition}: {difference}")
    net.load_state_dict(dict(state))
    return FaceParsing(net, recognition).eval()
