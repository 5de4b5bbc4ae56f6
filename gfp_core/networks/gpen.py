"""GPEN: a U-shaped network whose decoder is a StyleGAN2 generator.

Source: Yang et al., "GAN Prior Embedded Network for Blind Face Restoration in the Wild" (2021),
section 3. Its authors give no licence for code or weights: this is written from the paper and from
the published tensors' names and shapes, which it keeps.

The encoder's last feature map becomes the latent code, and its feature maps at every resolution
take the place of StyleGAN2's noise (`stylegan2.FeatureGenerator`). Nothing is random.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .equalized import EqualLinear, conv_layer, down_layer
from .state import load_exactly, unfilled, width_of
from .stylegan2 import GPEN_FORM, FeatureGenerator, channel_table, multiplier_of


class GPEN(nn.Module):
    """Encoder and generator, joined at every resolution.

    The releases: 512, 1024 and 2048 px with the default widths, 256 px with ``narrow`` 0.5 and
    ``channel_multiplier`` 1.

    Raises:
        ValueError: ``out_size`` is not a power of two of at least 8.
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
        sizes = sorted(channels, reverse=True)
        self.levels = len(sizes)
        self.generator = FeatureGenerator(channels, num_style_feat, num_mlp)
        self.ecd0 = nn.Sequential(conv_layer(3, channels[out_size], 1, GPEN_FORM))
        for level, size in enumerate(sizes[1:], start=1):
            layer = down_layer(channels[2 * size], channels[size], 3, GPEN_FORM)
            self.add_module(f"ecd{level}", nn.Sequential(layer))
        self.final_linear = nn.Sequential(
            EqualLinear(channels[4] * 4 * 4, num_style_feat, activate=True)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1].

        Returns:
            Latent codes (B, S) in Z, and the features at 4, 8, ..., ``out_size`` px.
        """
        features = []
        for level in range(self.levels):
            x = self.get_submodule(f"ecd{level}")(x)
            features.append(x)
        return self.final_linear(x.flatten(1)), features[::-1]

    def forward(self, x: Tensor) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1]: aligned faces.

        Returns:
            (B, 3, out_size, out_size) RGB, about [-1, 1], not clamped.
        """
        result: Tensor = self.generator(*self.encode(x))
        return result

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> GPEN:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Args:
            state: all parameters and FIR kernels, under their official names.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        with unfilled():
            net = cls(**infer_hyperparameters(state))
        return load_exactly(net, state)


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments of a network with a `FeatureGenerator`, from names and shapes.

    Args:
        state: the state dict of a `GPEN` or a `pose_varied.PoseVaried`.

    Raises:
        ValueError: a tensor that is needed for this is missing or of a shape that makes no sense.
    """
    levels = _count(state, r"generator\.to_rgbs\.\d+\.bias")
    narrow = width_of(state, "generator.input.input", 1) / 512
    channel_multiplier: float = 2
    if levels >= 4:  # 64 px and up, where the multiplier acts
        width = width_of(state, "generator.to_rgbs.3.conv.weight", 2) // 2
        channel_multiplier = multiplier_of(width, narrow)
    return {
        "out_size": 4 * 2**levels,
        "num_style_feat": width_of(state, "generator.conv1.conv.modulation.weight", 1),
        "channel_multiplier": channel_multiplier,
        "num_mlp": _count(state, r"generator\.style\.\d+\.weight"),
        "narrow": narrow,
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, key)) for key in state)
