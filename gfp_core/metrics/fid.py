"""FID, the Fréchet distance of two sets of pictures: M. Heusel et al. 2017, eq. 6.

Features are those of the Inception v3 that the published numbers are made with, TensorFlow's of
2015, in the PyTorch file that the project pytorch-fid gives out. It must be there: given by path,
or in PyTorch's cache. Its pooling differs from torchvision's net in two ways, see `FIDInception`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tensors import check_images
from ..weights.loading import load_pickle
from .lpips import cached

FILE = "pt_inception-2015-12-05-6726825d.pth"


class _WithoutBorder(nn.Module):
    """A 3x3 average that counted zeros around the picture becomes one that does not."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) pooled with zeros -> what ``behind`` makes of it, pooled without."""
        ones = torch.ones_like(x[:1, :1])
        result: Tensor = self.behind(x / F.avg_pool2d(ones, 3, stride=1, padding=1))
        return result


class _MaxPooled(nn.Module):
    """The last block, whose pooling branch takes the maximum instead of the average."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2048, H, W) -> the same shape."""
        block = self.block
        three = block.branch3x3_1(x)
        double = block.branch3x3dbl_2(block.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat(
            [
                block.branch1x1(x),
                block.branch3x3_2a(three),
                block.branch3x3_2b(three),
                block.branch3x3dbl_3a(double),
                block.branch3x3dbl_3b(double),
                block.branch_pool(pooled),
            ],
            dim=1,
        )


class FIDInception(nn.Module):
    """Pictures to the 2048 features that FID compares."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the weights.

        Args:
            file: by default the copy in PyTorch's cache.

        Raises:
            FileNotFoundError: they are not there; says where to put them.
        """
        path = file or cached(FILE)
        if not path.is_file():
            raise FileNotFoundError(f"FID needs pytorch-fid's {FILE}: put it at {path}")
        self._build(load_pickle(path))

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> FIDInception:
        """From a state dict."""
        net = cls.__new__(cls)
        net._build(state)
        return net

    def _build(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models import inception_v3  # slow to import; the extra train brings it

        net: Any = inception_v3(
            weights=None, num_classes=1008, aux_logits=False, init_weights=False
        )
        net.load_state_dict(state)
        for name, block in net.named_children():
            if name.startswith("Mixed_") and name not in ("Mixed_6a", "Mixed_7a", "Mixed_7c"):
                block.branch_pool = _WithoutBorder(block.branch_pool)
        net.Mixed_7c = _MaxPooled(net.Mixed_7c)
        net.fc = nn.Identity()
        net.dropout = nn.Identity()
        self.net = net
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) float RGB in [0, 1] -> (N, 2048)."""
        check_images(images)
        resized = F.interpolate(
            images.clamp(0, 1), (299, 299), mode="bilinear", align_corners=False
        )
        features: Tensor = self.net(resized * 2 - 1)
        return features


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of the Gaussians of two sets of features.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64. The last trace is the sum of the roots
    of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric.

    Args:
        first: (N, D), a row a picture.
        second: (M, D).

    Raises:
        ValueError: a set has fewer than two rows, or they differ in width.
    """
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"cannot compare sets of shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
    a, b = first.double(), second.double()
    covariance, covariance_of_other = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(torch.atleast_2d(covariance))
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ torch.atleast_2d(covariance_of_other) @ root
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    traces = torch.atleast_2d(covariance).trace() + torch.atleast_2d(covariance_of_other).trace()
    squared = (a.mean(0) - b.mean(0)).square().sum()
    return float(squared + traces - 2 * shared)
