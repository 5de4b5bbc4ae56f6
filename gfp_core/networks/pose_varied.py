"""The pose-varied restorer: a codec with mixed multi-path residual blocks, and a StyleGAN2 prior.

Source: Hu et al., "Enhancing Quality of Pose-varied Face Restoration with Local Weak Feature
Sensing and GAN Prior" (sections 3.1 to 3.3, eq. 1 to 10). Its authors published neither code nor
weights, so the paper is the specification. The generator is GPEN's (`stylegan2.FeatureGenerator`),
as the paper says (4.2); what differs from `gpen.GPEN` is where its features come from: GPEN takes
the encoder's, this network those of a decoder behind it, cleaned by a loss of their own.

What the paper leaves open, and how it is read here:

- Widths: GPEN's (512 from 4 to 32 px, then 512, 256, 128, 64 up to 512 px), for the features at
  every scale must fit the generator's; ``narrow`` scales them all.
- Layers of the codec: GPEN's equalized ones, for which a learning rate of 2e-3 (4.2) is usual. The
  encoder is GPEN's: a 1x1 convolution, then strided 3x3 ones, each behind a smoothing filter.
- MMRB (3.2): one at each of 256, 128, 64, 32, 16 and 8 px ("all but the first and last scale"). Its
  two stages are called W1 and W2 alike in eq. 5 to 8, but their inputs have C/2 and C channels, so
  they share no weights. The second stage keeps C channels a branch, which leaves the 1x1 layer 2C
  to reduce, as the paper says it does. Convolutions have a bias; PReLU has a slope a channel, as in
  its own paper, and starts at 0.25.
- Z (eq. 1): GPEN's linear layer with activation on the encoder's 4x4 features. W (eq. 2): one code
  for all layers.
- Decoder: as the encoder without MMRB, upwards: a 3x3 convolution at 4 px, then bilinear doubling
  and a 3x3 convolution a scale. The encoder's features are added before each doubling, as in
  GFP-GAN's U-Net: through 4x4 features alone no texture could pass.
- Eq. 3: features come after the generator's own channels and before bias and activation, times a
  learned strength that starts at 0, as in GPEN, so that training begins with the prior as it is.
- Pyramid loss (3.1): a 1x1 convolution to RGB at each scale from 8 px up, as in GFP-GAN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor, nn

from .equalized import EqualConv2d, EqualConvUp, EqualLinear, conv_layer, down_layer, plain_conv
from .gpen import infer_hyperparameters
from .prior import to_basicsr, to_feature_generator
from .state import describe_difference, load_exactly, unfilled
from .stylegan2 import GPEN_FORM, FeatureGenerator, channel_table


class PReLUConv(nn.Module):
    """Convolution and PReLU: F of eq. 5 to 9."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = EqualConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W)."""
        result: Tensor = self.activation(self.conv(x))
        return result


class MMRB(nn.Module):
    """Mixed multi-path residual block (section 3.2, eq. 4 to 10).

    Raises:
        ValueError: ``channels`` is odd, so that they cannot be split in two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"an MMRB splits its channels in two: {channels} is odd")
        half = channels // 2
        self.first3 = PReLUConv(half, half, 3)
        self.first5 = PReLUConv(half, half, 5)
        self.second3 = PReLUConv(channels, channels, 3)
        self.second5 = PReLUConv(channels, channels, 5)
        self.fuse = PReLUConv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x1, x2 = x.chunk(2, dim=1)  # eq. 4
        c1 = torch.cat([self.first3(x1), self.first5(x2)], dim=1)  # eq. 5, 6
        c2 = torch.cat([self.second3(c1), self.second5(c1)], dim=1)  # eq. 7, 8
        result: Tensor = x + self.fuse(c2)  # eq. 9, 10
        return result


class Encoder(nn.Module):
    """From the picture to features of every scale, with an MMRB at all but the first and last."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        sizes = sorted(channels, reverse=True)
        self.first = conv_layer(3, channels[sizes[0]], 1, GPEN_FORM)
        self.down = nn.ModuleList(
            down_layer(channels[2 * size], channels[size], 3, GPEN_FORM) for size in sizes[1:]
        )
        self.mmrb = nn.ModuleDict({str(size): MMRB(channels[size]) for size in sizes[1:-1]})

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, size, size) in [-1, 1] -> (B, C, H, W) at 4, 8, ..., size / 2 px."""
        x = self.first(x)
        features = []
        sizes = [2**power for power in range(len(self.down) + 1, 1, -1)]  # numbers in an export too
        for layer, size in zip(self.down, sizes, strict=True):
            x = layer(x)
            if str(size) in self.mmrb:
                x = self.mmrb[str(size)](x)
            features.append(x)
        return features[::-1]


class Decoder(nn.Module):
    """From the encoder's features to clean ones at every scale, and to a picture of each."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        sizes = sorted(channels)
        self.first = conv_layer(channels[4], channels[4], 3, GPEN_FORM)
        self.up = nn.ModuleList(
            EqualConvUp(channels[size // 2], channels[size], 3, activate=True) for size in sizes[1:]
        )
        self.to_rgb = nn.ModuleList(
            plain_conv(channels[size], 3, 1, GPEN_FORM) for size in sizes[1:]
        )

    def forward(self, encoded: list[Tensor]) -> list[Tensor]:
        """Features of the encoder at 4, ..., size / 2 px -> clean ones at 4, ..., size px."""
        x = self.first(encoded[0])
        features = [x]
        for layer, skip in zip(self.up, encoded, strict=True):
            x = layer(x + skip)
            features.append(x)
        return features

    def rgb_pyramid(self, features: list[Tensor]) -> list[Tensor]:
        """RGB at 8, 16, ..., size px from the clean features."""
        return [head(feature) for head, feature in zip(self.to_rgb, features[1:], strict=True)]


class PoseVaried(nn.Module):
    """The asymmetric codec and the StyleGAN2 prior, joined at every resolution.

    Raises:
        ValueError: ``out_size`` is not a power of two of at least 8, or ``narrow`` gives an odd
            number of channels where an MMRB stands.
    """

    def __init__(
        self,
        out_size: int = 512,  # side of input and output in pixels
        num_style_feat: int = 512,  # length of a style code
        channel_multiplier: float = 2,  # of the widths from 64 px up
        num_mlp: int = 8,  # layers of the mapping network
        narrow: float = 1.0,  # factor on all widths
    ) -> None:
        super().__init__()
        self.out_size = out_size
        channels = channel_table(out_size, narrow, channel_multiplier)
        self.encoder = Encoder(channels)
        self.latent = EqualLinear(channels[4] * 4 * 4, num_style_feat, activate=True)
        self.decoder = Decoder(channels)
        self.generator = FeatureGenerator(channels, num_style_feat, num_mlp)

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The codec (eq. 1).

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1].

        Returns:
            Clean features at 4, 8, ..., ``out_size`` px, and latent codes (B, S) in Z.
        """
        encoded = self.encoder(x)
        return self.decoder(encoded), self.latent(encoded[0].flatten(1))

    @overload
    def forward(self, x: Tensor, return_pyramid: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_pyramid: Literal[True]) -> tuple[Tensor, list[Tensor]]: ...

    def forward(
        self, x: Tensor, return_pyramid: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Restore faces.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1]: aligned faces.
            return_pyramid: also give the decoder's pictures, which training needs (section 3.1).

        Returns:
            (B, 3, out_size, out_size) RGB, about [-1, 1], not clamped; with ``return_pyramid`` also
            the pyramid, (B, 3, 8, 8) first and as large as the result last.
        """
        features, z = self.encode(x)
        image = self.generator(z, features)
        return (image, self.decoder.rgb_pyramid(features)) if return_pyramid else image

    def forward_with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`forward` with the pyramid, under the name that the GFP-GAN networks give it."""
        return self.forward(x, return_pyramid=True)

    def load_prior(self, state: Mapping[str, Tensor]) -> None:
        """Take the generator from a `gpen.GPEN` of the same size and widths (section 4.2).

        A StyleGAN2 generator serves as well; it may be larger.

        Args:
            state: GPEN's state dict, or that of a generator in rosinality's, BasicSR's or NVIDIA's
                naming, see ``prior.py``; it is not changed.

        Raises:
            ValueError: its generator is another one; says what differs.
        """
        prefix = "generator."
        prior = {
            key.removeprefix(prefix): tensor
            for key, tensor in state.items()
            if key.startswith(prefix)
        }
        plain = to_basicsr(state) or state
        if "constant_input.weight" in plain:
            prior = to_feature_generator(plain, self.generator.state_dict())
        difference = describe_difference(self.generator.state_dict(), prior)
        if difference:
            raise ValueError(f"not the prior of this {type(self).__name__}: {difference}")
        self.generator.load_state_dict(prior)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by the learning rate that section 4.2 gives them.

        Returns:
            "codec" (2e-3), "prior" (StyleGAN2: 2e-4) and "noise" (strengths of the noise branches:
            2e-3); every parameter is in one of them.
        """
        groups: dict[str, list[nn.Parameter]] = {"codec": [], "prior": [], "noise": []}
        for name, parameter in self.named_parameters():
            if not name.startswith("generator."):
                groups["codec"].append(parameter)
            else:
                groups["noise" if name.endswith(".noise.weight") else "prior"].append(parameter)
        return groups

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> PoseVaried:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        with unfilled():
            net = cls(**infer_hyperparameters(state))
        return load_exactly(net, state)
