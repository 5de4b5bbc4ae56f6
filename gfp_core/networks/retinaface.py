"""RetinaFace, the face detector: network, priors and decoding.

Deng et al., "RetinaFace: Single-stage Dense Face Localization in the Wild" (CVPR 2020), in the form
of its PyTorch release, which published checkpoints obey: three feature levels with context modules,
two square priors a cell, and for each prior a class, a box and five landmarks.

The layers are in ``retinaface_net.py``. All works in pixels, where the release works in fractions
of the frame: the results agree, the rounding is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .retinaface_net import MobileNetBody, ResNetBody, RetinaFace
from .state import describe_difference

MEAN_BGR = (104.0, 117.0, 123.0)
"""Channel means, on the scale 0 to 255, that the network wants subtracted."""
STEPS = (8, 16, 32)
"""Pixels a cell, for each feature level."""
PRIOR_SIZES = ((16, 32), (64, 128), (256, 512))
"""Sides in pixels of the square priors of a cell, for each feature level."""
VARIANCES = (0.1, 0.2)
"""Scales of the regressed positions and of the regressed logarithmic sizes."""

_BACKBONES: dict[str, type[MobileNetBody] | type[ResNetBody]] = {
    "retinaface_mobile025": MobileNetBody,
    "retinaface_resnet50": ResNetBody,
}
NAMES = tuple(_BACKBONES)
"""The detectors there are."""
_SIGNATURES = {
    "retinaface_mobile025": "body.stage1.0.0.weight",
    "retinaface_resnet50": "body.layer1.0.conv1.weight",
}


def identify(state: Mapping[str, Tensor]) -> str | None:
    """The name of the RetinaFace that ``state`` belongs to, found by its keys; None if it is none.

    Returns:
        ``"retinaface_mobile025"``, ``"retinaface_resnet50"`` or None.
    """
    if "ssh1.conv7X7_2.0.weight" not in state:
        return None
    return next((name for name, key in _SIGNATURES.items() if key in state), None)


def build(name: str) -> RetinaFace:
    """An untrained RetinaFace, with the official checkpoints' keys and batch norms.

    Args:
        name: ``"retinaface_mobile025"`` or ``"retinaface_resnet50"``.

    Raises:
        ValueError: the name is neither.
    """
    if name not in _BACKBONES:
        raise ValueError(f"unknown detector {name!r}: choose one of {', '.join(NAMES)}")
    return RetinaFace(_BACKBONES[name]())


def from_state_dict(state: Mapping[str, Tensor]) -> RetinaFace:
    """The RetinaFace that ``state`` holds, in its fast form: batch norms folded, channels last.

    Args:
        state: tensors under the official keys, with batch norms, or with these already folded
            into the ``weight`` and ``bias`` of the convolutions before them.

    Raises:
        ValueError: the keys are no RetinaFace's, or tensors are missing, extra or wrongly shaped.
    """
    name = identify(state)
    if name is None:
        raise ValueError(f"the tensors are those of no detector ({', '.join(NAMES)})")
    folded = not any(key.endswith(".running_mean") for key in state)
    net = build(name)
    if folded:
        fold_batch_norm(net)
    difference = describe_difference(net.state_dict(), state)
    if difference:
        raise ValueError(f"not a state dict of {name}: {difference}")
    net.load_state_dict(state)
    if not folded:
        fold_batch_norm(net)
    # Channels last: 1.6 times as fast on a CPU, the same results.
    return net.eval().to(memory_format=torch.channels_last)


def fold_batch_norm(net: nn.Module) -> None:
    """Fold, in place, every batch norm of ``net`` into the convolution before it.

    Exact in evaluation but for rounding. A batch norm belongs to the convolution that was
    registered just before it, which holds for all of RetinaFace and its backbones.
    """
    last: tuple[nn.Module, str, nn.Conv2d] | None = None
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                last = (parent, name, child)
            elif isinstance(child, nn.BatchNorm2d) and last is not None and last[0] is parent:
                setattr(parent, last[1], fuse_conv_bn_eval(last[2].eval(), child.eval()))
                setattr(parent, name, nn.Identity())
                last = None


def preprocess(frames: Tensor) -> Tensor:
    """What the network wants to see of frames.

    Values that are no color cannot be judged: outside [0, 1] they are clipped, NaN becomes black.
    The frames themselves are left as they are.

    Args:
        frames: (B, 3 or more, H, W) floating point RGB in [0, 1]; more channels are ignored.

    Returns:
        (B, 3, H, W) float32 BGR on the scale 0 to 255 minus ``MEAN_BGR``.
    """
    # A copy, which may be changed in place, with channels last, as the network would make it.
    bgr = torch.stack([frames[:, channel] for channel in (2, 1, 0)], dim=-1).permute(0, 3, 1, 2)
    bgr = bgr.float()
    bgr.nan_to_num_(0.0, 1.0, 0.0).clamp_(0.0, 1.0).mul_(255.0)
    return bgr.sub_(bgr.new_tensor(MEAN_BGR).view(1, 3, 1, 1))


def priors(height: int, width: int) -> Tensor:
    """All priors of a frame of this size, in the order of the network's outputs.

    Returns:
        (P, 4) float32 on the CPU: center x, center y, width, height in pixels.
    """
    return priors_at(torch.arange(count_priors(height, width)), height, width)


def count_priors(height: int, width: int) -> int:
    """The number of priors of a frame of this size."""
    return sum(_counts(height, width))


def priors_at(index: Tensor, height: int, width: int) -> Tensor:
    """Some of the priors of a frame of this size: few of many thousands see a face.

    Args:
        index: (N,) their places in the network's outputs, on the CPU.
        height: of the frame.
        width: of the frame.

    Returns:
        (N, 4) float32, see `priors`.
    """
    ends = torch.tensor(_counts(height, width)).cumsum(0)
    level = torch.searchsorted(ends, index, right=True)
    within = index - (ends - torch.tensor(_counts(height, width)))[level]
    step = torch.tensor(STEPS)[level]
    columns = -(-width // step)
    cell, kind = within // 2, within % 2  # of the two sizes
    center = torch.stack([cell % columns, cell // columns], dim=1) + 0.5
    side = torch.tensor(PRIOR_SIZES, dtype=torch.float32)[level, kind]
    return torch.cat([center * step[:, None], side[:, None].expand(-1, 2)], dim=1)


def _counts(height: int, width: int) -> list[int]:
    """The numbers of priors of the levels."""
    return [2 * math.ceil(height / step) * math.ceil(width / step) for step in STEPS]


def decode_boxes(regressions: Tensor, prior: Tensor) -> Tensor:
    """Boxes from the network's regressions.

    Args:
        regressions: (N, 4), the first output of the network at N priors.
        prior: (N, 4), these priors.

    Returns:
        (N, 4) x1, y1, x2, y2 in pixels.
    """
    center = prior[:, :2] + regressions[:, :2] * VARIANCES[0] * prior[:, 2:]
    size = prior[:, 2:] * torch.exp(regressions[:, 2:] * VARIANCES[1])
    return torch.cat([center - size / 2, center + size / 2], dim=1)


def decode_landmarks(regressions: Tensor, prior: Tensor) -> Tensor:
    """Landmarks from the network's regressions.

    Args:
        regressions: (N, 10), the third output of the network at N priors.
        prior: (N, 4), these priors.

    Returns:
        (N, 5, 2) x, y in pixels: left eye, right eye, nose, left and right corner of the mouth,
        where left and right are those of the picture.
    """
    offsets = regressions.view(-1, 5, 2) * VARIANCES[0] * prior[:, None, 2:]
    return prior[:, None, :2] + offsets
