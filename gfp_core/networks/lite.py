"""The bundled "lite" restorer: a narrow GFP-GAN at half the picture's size.

It is the project's own small model, of GFP-GAN's class (U-Net, latent codes, StyleGAN2 decoder with
CS-SFT), not the paper's model. Three things make it small and quick to train on a CPU:

- the picture goes in and out as its four half-size phases (pixel unshuffle, Shi et al. 2016), so
  that the largest feature map is 256 px for a face of 512 px;
- the widths are a quarter of GFP-GAN's (``narrow``), the latent codes have 128 numbers, and there is
  no style MLP, which GFP-GAN's releases do not use either;
- the network gives what is to be added to its input, so that an untrained one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .gfpgan import GFPGANClean

SHUFFLE = 2
"""Phases a side: 512 px outside, 256 px inside."""


class GFPGANLite(nn.Module):
    """A narrow clean GFP-GAN over the half-size phases of the picture, with a global skip.

    Args:
        out_size: side of the face crop in pixels, a power of two.
        num_style_feat: length of each latent code.
        channel_multiplier: factor of the widths above 32 px (inside), as in GFP-GAN.
        narrow: factor of all widths.
    """

    def __init__(
        self,
        out_size: int = 512,
        num_style_feat: int = 128,
        channel_multiplier: int = 2,
        narrow: float = 0.25,
    ) -> None:
        super().__init__()
        self.out_size = out_size
        self.core = GFPGANClean(
            out_size=out_size // SHUFFLE,
            num_style_feat=num_style_feat,
            num_mlp=0,
            channel_multiplier=channel_multiplier,
            narrow=narrow,
            image_channels=3 * SHUFFLE**2,
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> GFPGANLite:
        """Build the network whose weights these are and load them."""
        prefix = "core."
        inner = {key.removeprefix(prefix): value for key, value in state.items()}
        with torch.device("meta"):
            kwargs = GFPGANClean.infer(inner)
        net = cls(
            out_size=kwargs["out_size"] * SHUFFLE,
            num_style_feat=kwargs["num_style_feat"],
            channel_multiplier=kwargs["channel_multiplier"],
            narrow=kwargs["narrow"],
        )
        net.load_state_dict(state)
        return net

    def forward(self, x: Tensor) -> Tensor:
        """Restore faces.

        Args:
            x: (N, 3, out_size, out_size) RGB in [-1, 1].

        Returns:
            The restored faces in the same form, not clipped.
        """
        return x + F.pixel_shuffle(self.core(F.pixel_unshuffle(x, SHUFFLE)), SHUFFLE)
