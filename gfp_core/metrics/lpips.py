"""LPIPS, the learned perceptual distance.

R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018. Its
weights are other people's: the trunk is torchvision's ImageNet net, a download; the linear heads
come with the package lpips (BSD), version 0.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.loading import load_pickle
from ..weights.packages import find_package
from .pixels import check_pair

Trunk = Literal["vgg", "alex"]

TRUNK_FILES: dict[Trunk, str] = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
}
_LAYERS: dict[Trunk, tuple[int, ...]] = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
_SHIFT = (-0.030, -0.088, -0.188)  # of pictures in [-1, 1]
_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """The distance (eq. 1) on VGG-16, as the papers' tables have it, or AlexNet. Differentiable."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk = "vgg", *, file: Path | None = None) -> None:
        """Read the weights.

        Args:
            trunk: which net.
            file: its weights, torchvision's; by default those in PyTorch's cache.

        Raises:
            FileNotFoundError: weights are not there; says which and where to put them.
        """
        advice = "pip install --no-deps lpips"
        heads = find_package("lpips", advice) / "weights" / "v0.1" / f"{trunk}.pth"
        path = file or cached(TRUNK_FILES[trunk])
        for needed in (heads, path):
            if not needed.is_file():
                raise FileNotFoundError(f"LPIPS needs {needed.name}: put it at {needed}")
        self._build(
            trunk,
            load_pickle(path),
            load_pickle(heads),
        )

    @classmethod
    def of(cls, trunk: Trunk, trunk_state: dict[str, Tensor], heads: dict[str, Tensor]) -> LPIPS:
        """From state dicts: torchvision's of the trunk and the package's of the heads."""
        net = cls.__new__(cls)
        net._build(trunk, trunk_state, heads)
        return net

    def _build(self, trunk: Trunk, state: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision import models  # slow to import; the extra train brings it

        with torch.device("meta"):  # its classifier is large, and not needed
            net = models.vgg16(weights=None) if trunk == "vgg" else models.alexnet(weights=None)
        net.features.load_state_dict(
            {
                key.removeprefix("features."): value.clone()
                for key, value in state.items()
                if key.startswith("features.")
            },
            assign=True,
        )
        self.layers = _LAYERS[trunk]
        self.features = net.features[: self.layers[-1] + 1]
        for module in self.features:
            if isinstance(module, nn.ReLU):
                module.inplace = False
        for number in range(len(self.layers)):
            self.register_buffer(f"head{number}", heads[f"lin{number}.model.1.weight"].clone())
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: (N, 3, H, W) float RGB in [0, 1].
            b: the same shape.

        Returns:
            (N,), 0 for equal pictures.

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        total = torch.zeros(a.shape[0], device=a.device)
        pairs = zip(self._activations(a), self._activations(b), strict=True)
        for number, (x, y) in enumerate(pairs):
            difference = (_unit(x) - _unit(y)) ** 2
            total = total + F.conv2d(difference, self.get_buffer(f"head{number}")).mean((1, 2, 3))
        return total

    def _activations(self, images: Tensor) -> list[Tensor]:
        x = (images * 2 - 1 - self.shift) / self.scale
        activations = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.layers:
                activations.append(x)
        return activations


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def cached(file: str) -> Path:
    """Where PyTorch keeps a downloaded file of that name."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file
