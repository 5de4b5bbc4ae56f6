"""The bundled "lite" restorer: a narrow GFP-GAN at half the picture's size.

It is the project's own small model, of GFP-GAN's class (U-Net, latent codes, StyleGAN2 decoder with
CS-SFT), not the paper's model. Three things make it small and quick to train on a CPU:

- the picture goes in and out as its four half-size phases (pixel unshuffle, Shi et al. 2016), so
  that the largest feature map is 256 px for a face of 512 px;
- the widths are a quarter of GFP-GAN's (``narrow``), the latent codes have 128 numbers, and there
  is no style MLP, which GFP-GAN's releases do not use either;
- the network gives what is to be added to its input, so that it starts near the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import gfpgan_state
from .gfpgan import GFPGANClean
from .state import load_exactly, unfilled

PHASES = 2
"""Phases a side: 512 px outside, 256 px inside."""


class GFPGANLite(nn.Module):
    """A narrow clean GFP-GAN over the half-size phases of the picture, with a global skip."""

    bytes_per_face = 100_000_000
    """Memory of one face in float32 beside the weights, as measured."""

    def __init__(
        self,
        out_size: int = 512,  # side of input and output in pixels
        num_style_feat: int = 128,  # length of a style code
        channel_multiplier: float = 2,  # of the widths from 64 px (inside) up
        narrow: float = 0.25,  # factor on all widths
        sft_half: bool = True,  # modulate half of the channels (CS-SFT), not all (SFT)
    ) -> None:
        super().__init__()
        self.out_size = out_size
        self.core = GFPGANClean(
            out_size=out_size // PHASES,
            num_style_feat=num_style_feat,
            num_mlp=0,
            channel_multiplier=channel_multiplier,
            narrow=narrow,
            sft_half=sft_half,
            image_channels=3 * PHASES**2,
        )
        with torch.no_grad():  # a small first correction, but not zero: that would stop gradients
            for to_rgb in (
                self.core.stylegan_decoder.to_rgb1,
                *self.core.stylegan_decoder.to_rgbs,
            ):
                to_rgb.modulated_conv.weight.mul_(0.1)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> GFPGANLite:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        with unfilled():
            net = cls(**infer_hyperparameters(state))
        return load_exactly(net, state)

    def forward(self, x: Tensor) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1]: aligned faces.

        Returns:
            (B, 3, out_size, out_size) RGB, about [-1, 1], not clamped.
        """
        return x + F.pixel_shuffle(self.core(F.pixel_unshuffle(x, PHASES)), PHASES)

    def forward_with_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and the U-Net's RGB pyramid, (B, 3, 16, 16) first, which training needs."""
        image, pyramid = self.core.forward_with_pyramid(F.pixel_unshuffle(x, PHASES))
        heads = [F.pixel_shuffle(head, PHASES) for head in pyramid]
        return x + F.pixel_shuffle(image, PHASES), heads


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments of `GFPGANLite`, read from names and shapes.

    Raises:
        ValueError: a tensor that is needed for this is missing or of a shape that makes no sense.
    """
    core = gfpgan_state.infer_hyperparameters(
        {key.removeprefix("core."): tensor for key, tensor in state.items()}
    )
    return {
        "out_size": core["out_size"] * PHASES,
        "num_style_feat": core["num_style_feat"],
        "channel_multiplier": core["channel_multiplier"],
        "narrow": core["narrow"],
        "sft_half": core["sft_half"],
    }
