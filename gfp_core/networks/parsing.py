"""Face parsing: which part of a face every pixel of a crop belongs to.

Two networks trained on CelebAMask-HQ (Lee et al., "MaskGAN", CVPR 2020), in the form of their
PyTorch releases: BiSeNet (Yu et al., ECCV 2018) and the ParseNet of Chen et al. ("Progressive
Semantic-Aware Style Transformation for Blind Face Restoration", CVPR 2021). The layers are
facexlib's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from .state import describe_difference

CLASSES = 19
"""Parts that are told apart: 0 is the background."""
NAMES = ("BiSeNet", "ParseNet")
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
    """An untrained parsing network on the CPU, with the official checkpoints' keys.

    Its forward takes (B, 3, 512, 512) RGB, for ParseNet in [-1, 1], for BiSeNet normalised by
    ImageNet's mean and deviation, and returns a tuple whose first part is (B, CLASSES, 512, 512):
    a score for each class, which is right where it is highest.

    Args:
        name: one of `NAMES`.

    Raises:
        ValueError: the name is none of these.
    """
    if name not in NAMES:
        raise ValueError(f"unknown parsing network {name!r}: choose one of {', '.join(NAMES)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        from facexlib.parsing import BiSeNet, ParseNet

        net: nn.Module = (
            BiSeNet(num_class=CLASSES)
            if name == "BiSeNet"
            else ParseNet(in_size=512, out_size=512, parsing_ch=CLASSES)
        )
    return net


def from_state_dict(state: Mapping[str, Tensor], name: str | None = None) -> nn.Module:
    """The parsing network that ``state`` holds, in evaluation mode on the CPU.

    Args:
        state: tensors under the official keys.
        name: the network it must be; None takes what the keys say.

    Raises:
        ValueError: it is none, another, or its tensors are missing, extra or wrongly shaped.
    """
    held = identify(state)
    if held is None or name not in (None, held):
        raise ValueError(f"the tensors are those of {held or 'no parsing network'}")
    net = build(held)
    difference = describe_difference(net.state_dict(), state)
    if difference:
        raise ValueError(f"the tensors do not fit {held}: {difference}")
    net.load_state_dict(dict(state))
    return net.eval()
