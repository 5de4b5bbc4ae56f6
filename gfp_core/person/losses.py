"""What a person's restorer is tuned by: terms that need no download, but for likeness.

Plain differences alone smooth, and a smooth face is less like the person, not more. So the strength
of fine detail is compared place by place, and in windows of the pictures the base judges itself, by
the features of its first layers (a perceptual loss, Johnson et al. 2016, eq. 2), as does a small
discriminator that is trained along (`networks.patch_discriminator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks.face_descriptor import FaceDescriptor, inner_face
from ..networks.gfpgan import GFPGAN
from ..networks.lite import PHASES, GFPGANLite


@dataclass(frozen=True)
class Weights:
    """How much each term counts."""

    pixels: float = 1.0
    edges: float = 1.0
    detail: float = 3.0
    features: float = 0.3
    adversarial: float = 0.03
    identity: float = 2.0
    """Of the angle to the photograph, where there is an embedder that gradients pass through."""
    descriptor: float = 0.3
    """Of that embedder's features of the inner face."""


def absolute(restored: Tensor, clean: Tensor) -> Tensor:
    """Compute the mean absolute difference of each picture, (B,)."""
    return (restored - clean).abs().flatten(1).mean(dim=1)


def edges(restored: Tensor, clean: Tensor) -> Tensor:
    """Compute the mean absolute difference of both gradients, (B,)."""
    apart = restored - clean
    along = (apart[..., 1:] - apart[..., :-1]).abs().flatten(1).mean(dim=1)
    return along + (apart[..., 1:, :] - apart[..., :-1, :]).abs().flatten(1).mean(dim=1)


def detail(restored: Tensor, clean: Tensor, cell: int = 8) -> Tensor:
    """Compare how strong fine detail is in each cell, whatever its phase, at two scales, (B,).

    Detail is luma minus its mean over 3 x 3 pixels. A net that is not sure where a hair lies is
    told by plain differences to draw none; by this, to draw as much as there is.

    Args:
        restored: (B, 3, H, W).
        clean: of the same shape.
        cell: side of a cell in pixels, of each scale.
    """
    total = restored.new_zeros(len(restored))
    first, second = restored.mean(dim=1, keepdim=True), clean.mean(dim=1, keepdim=True)
    for _ in range(2):
        strengths = [F.avg_pool2d(_high(x).abs(), cell, cell // 2) for x in (first, second)]
        total = total + absolute(*strengths)
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return total


def features(restored: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Compare features, the C channels of each place scaled to length sqrt(C); scalar.

    Args:
        restored: (B, C, h, w) a layer.
        clean: of the same shapes; no gradient goes to them.
    """
    parts = []
    for first, second in zip(restored, clean, strict=True):
        unit = F.normalize(first.float(), dim=1, eps=1e-6)
        target = F.normalize(second.detach().float(), dim=1, eps=1e-6)
        parts.append((unit - target).square().sum(dim=1).mean())
    return torch.stack(parts).mean()


class FirstLayers(nn.Module):
    """The features that a network of GFP-GAN's class makes first, of pictures of any size."""

    def __init__(self, net: nn.Module, stages: int = 4) -> None:
        """Share the layers of a network.

        Args:
            net: the base.
            stages: of its encoder, each at half the resolution of the one before.

        Raises:
            ValueError: the network is of another class.
        """
        super().__init__()
        core = net.core if isinstance(net, GFPGANLite) else net
        if not isinstance(core, GFPGAN):
            raise ValueError(f"{type(net).__name__} is not of GFP-GAN's class")
        self.phases = PHASES if core is not net else 1
        self.layers = nn.ModuleList([core.conv_body_first, *core.conv_body_down[:stages]])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [-1, 1], sides divisible by 2 ** (stages + 1), to its features."""
        x = F.pixel_unshuffle(x, self.phases)
        stages = []
        for layer in self.layers:
            x = layer(x)
            stages.append(x)
        return stages


class Likeness(nn.Module):
    """How far faces are from being the same person's, by the face descriptor."""

    def __init__(self, net: FaceDescriptor) -> None:
        """Copy the descriptor: one that was loaded in inference mode lets no gradient through."""
        super().__init__()
        self.net = FaceDescriptor()
        self.net.load_state_dict(net.state_dict())
        self.net.eval().requires_grad_(False)

    def identity(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Compute 1 - the cosine between descriptors (GFP-GAN eq. 8 takes their L1), scalar.

        Args:
            restored: (B, 3, S, S) RGB in [-1, 1], aligned.
            clean: of the same shape; no gradient goes to it.
        """
        with torch.no_grad():
            target = self.net(inner_face(clean / 2 + 0.5))
        described = self.net(inner_face(restored / 2 + 0.5))
        return (1 - F.cosine_similarity(described, target, dim=1)).mean()

    def features(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Compare the descriptor's features of the inner face, at its own size if that will do."""
        is_small = clean.shape[-1] < 256
        with torch.no_grad():
            target = self.net.activations(inner_face(clean / 2 + 0.5, resize=is_small))
        described = self.net.activations(inner_face(restored / 2 + 0.5, resize=is_small))
        return features(described, target)


def _high(x: Tensor) -> Tensor:
    return x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
