"""Nets whose features the losses compare: they are never trained.

The papers take VGG-19, whose weights (torchvision's, trained on ImageNet, 548 MB) must be there:
given by path, or in PyTorch's cache. The offline stand-in is MobileNetV2.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from ..metrics.distances import IMAGENET_MEAN, IMAGENET_STD, FeatureDistance
from ..networks.face_descriptor import inner_face
from ..weights.loading import load_descriptor, load_pickle

logger = logging.getLogger(__name__)

VGG_FILE = "vgg19-dcbb9e9d.pth"
VGG_LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")
"""The last convolution of each of five stages, before its activation: GFP-GAN's conv1 to conv5."""
_VGG_STAGES = (2, 2, 4, 4, 4)  # convolutions a stage, of VGG-19
MOBILENET_STAGES = (1, 3, 6, 10, 13, 16)
"""Blocks of MobileNetV2: 256, 128, 64, 32, 32 and 16 px of a 512 px face."""


class VGGFeatures(nn.Module):
    """Features of VGG-19 before activation (Simonyan and Zisserman 2015)."""

    mean: Tensor
    std: Tensor

    def __init__(self, layers: tuple[str, ...] = VGG_LAYERS, *, narrow: float = 1.0) -> None:
        """Build it with random weights.

        Args:
            layers: names such as ``conv3_4``: the fourth convolution of the third stage.
            narrow: factor on all widths.

        Raises:
            ValueError: VGG-19 has no layer of such a name.
        """
        super().__init__()
        built: list[nn.Module] = []
        indices: dict[str, int] = {}
        before = 3
        for stage, count in enumerate(_VGG_STAGES, start=1):
            width = int(narrow * min(64 * 2 ** (stage - 1), 512))
            for number in range(1, count + 1):
                indices[f"conv{stage}_{number}"] = len(built)
                built += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            built.append(nn.MaxPool2d(2))
        unknown = [name for name in layers if name not in indices]
        if unknown:
            raise ValueError(f"VGG-19 has no layer {unknown[0]}; it has {', '.join(indices)}")
        self.places = {indices[name] for name in layers}
        self.features = nn.Sequential(*built[: max(self.places) + 1])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: Path, layers: tuple[str, ...] = VGG_LAYERS) -> VGGFeatures:
        """Read torchvision's weights.

        Raises:
            ValueError: the file does not hold them; names it.
        """
        net = cls(layers)
        state = load_pickle(path)
        needed = {key: state[key] for key in net.state_dict() if key in state}
        try:
            net.load_state_dict({**needed, "mean": net.mean, "std": net.std})
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold torchvision's VGG-19: {error}") from error
        return net

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1] -> features of each layer, fine to coarse."""
        x = (images - self.mean) / self.std
        features = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.places:
                features.append(x)
        return features


class MobileNetFeatures(nn.Module):
    """Features of MobileNetV2, the C channels of each place scaled to length sqrt(C).

    Without that its layers, which have no common scale, would count by their size. The mean squared
    difference of a layer is then that of `metrics.FeatureDistance`.
    """

    def __init__(self, source: Path | None = None) -> None:
        """Read the weights; `FileNotFoundError` says which package has them."""
        super().__init__()
        self.net = FeatureDistance(source, stages=MOBILENET_STAGES)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1] -> features of each stage, fine to coarse."""
        features = [x.float() for x in self.net.activations(images)]
        return [nn.functional.normalize(x, dim=1, eps=1e-6) * x.shape[1] ** 0.5 for x in features]


class IdentityFeatures(nn.Module):
    """The face descriptor of `embed`, which stands in for the papers' ArcFace."""

    def __init__(self, source: Path) -> None:
        """Read the weights; see `weights.loading.load_descriptor`."""
        super().__init__()
        self.descriptor = load_descriptor(source).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) aligned RGB in [0, 1] -> (N, 128)."""
        descriptors: Tensor = self.descriptor(inner_face(images))
        return descriptors

    def activations(self, images: Tensor) -> list[Tensor]:
        """(N, 3, S, S) aligned RGB in [0, 1] -> the net's features of the inner face, full size."""
        found: list[Tensor] = self.descriptor.activations(inner_face(images, resize=False))
        return found


def load_perceptual(name: str, path: str = "") -> nn.Module:
    """The net of the perceptual loss.

    Args:
        name: ``vgg19``; ``mobilenet_v2``; or ``auto``: VGG-19 if its weights are at hand, else
            MobileNetV2, which the log says.
        path: file of the weights; by default PyTorch's cache or the installed package.

    Raises:
        ValueError: no such name.
        FileNotFoundError: the weights are not there; says how to get them.
    """
    if name not in ("auto", "vgg19", "mobilenet_v2"):
        raise ValueError(f"the perceptual net is auto, vgg19 or mobilenet_v2, not {name}")
    vgg = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if name == "vgg19" or (name == "auto" and (path or vgg.is_file())):
        if not vgg.is_file():
            raise FileNotFoundError(
                f"the perceptual loss needs VGG-19's weights, torchvision's {VGG_FILE}: put them "
                f"at {vgg}, give nets.perceptual_file, or set nets.perceptual to mobilenet_v2"
            )
        return VGGFeatures.load(vgg)
    if name == "auto":
        logger.warning(
            "VGG-19's weights are not at %s: MobileNetV2 takes its place in the perceptual loss, "
            "whose values are then of another size than the papers'.",
            vgg,
        )
    return MobileNetFeatures(Path(path) if path else None)


def load_identity(path: str = "") -> nn.Module:
    """The net of the identity loss.

    Args:
        path: see `weights.loading.load_descriptor`; by default the copy that ``gfp weights get``
            fetched.

    Raises:
        FileNotFoundError: it is not there; says how to get it, and how to do without.
    """
    from ..embed import NAME
    from ..weights.store import Weights

    source = Path(path) if path else Weights().locate(NAME)
    if source is None or not source.exists():
        raise FileNotFoundError(
            f"the identity loss needs the weights {NAME}: run `gfp weights get {NAME}`, give "
            "nets.identity_file, or set loss.identity to 0"
        )
    return IdentityFeatures(source)
