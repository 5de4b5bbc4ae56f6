"""GFP-GAN: a U-Net that removes degradation, joined to a StyleGAN2 prior.

Source: Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior"
(2021), sections 3.1 to 3.4. The U-Net (3.2) gives a latent, mapped to one style code a layer of the
generator (3.3), and features at every resolution, from which channel-split spatial feature
transforms (CS-SFT, 3.4, eq. 3 and 4) modulate the generator's features.

Three forms with the same function space and different parameters (`equalized.Form`):

- `GFPGANClean`: plain convolutions; releases v1.2, v1.3 and v1.4.
- `GFPGANv1`: equalized layers and FIR resampling; the paper's network, release v1.
- `GFPGANBilinear`: equalized layers and bilinear resampling; the form in which the clean network is
  trained; `gfpgan_state.bilinear_to_clean` converts it without loss.

Where the paper and the released code differ the released code is followed, for checkpoints obey
it: U-Net widths are half the generator's; the modulated half of the channels is the second one;
the mapping network is not used when the U-Net predicts codes in W (`input_is_latent`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .equalized import (
    SQRT2,
    Form,
    ResBlock,
    ScaledLeakyReLU,
    conv_layer,
    linear,
    plain_conv,
)
from .gfpgan_state import infer_hyperparameters
from .state import load_exactly, unfilled
from .stylegan2 import ConstantInput, StyleConv, ToRGB, channel_table, style_mlp

Conditions = Sequence[tuple[Tensor, Tensor]]
"""A (scale, shift) pair for each resolution from 8 up, each (B, C/2, H, W); C without a split."""

Net = TypeVar("Net", bound="GFPGAN")


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Channel-split spatial feature transform (paper, eq. 4).

    The first channels of (B, C, H, W) pass unchanged; the last ones, as many as ``scale`` and
    ``shift`` have, become ``x * scale + shift``.
    """
    unconditioned = x.shape[1] - scale.shape[1]
    if unconditioned == 0:
        return x * scale + shift
    return torch.cat([x[:, :unconditioned], x[:, unconditioned:] * scale + shift], dim=1)


class CSFTDecoder(nn.Module):
    """StyleGAN2 generator whose features are modulated by conditions (paper, section 3.4)."""

    def __init__(
        self,
        channels: Mapping[int, int],  # by resolution, from 4 up
        num_style_feat: int,
        num_mlp: int,
        form: Form,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        sizes = sorted(channels)
        self.num_latent = 2 * len(sizes)
        self.style_mlp = style_mlp(num_style_feat, num_mlp, form)
        self.constant_input = ConstantInput(channels[4])
        self.style_conv1 = StyleConv(channels[4], channels[4], num_style_feat, form)
        self.to_rgb1 = ToRGB(channels[4], num_style_feat, form, image_channels)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for size in sizes[1:]:
            below, channels_out = channels[size // 2], channels[size]
            self.style_convs.append(
                StyleConv(below, channels_out, num_style_feat, form, upsample=True)
            )
            self.style_convs.append(StyleConv(channels_out, channels_out, num_style_feat, form))
            self.to_rgbs.append(ToRGB(channels_out, num_style_feat, form, image_channels))
        self.noises = nn.Module()
        for layer in range(len(self.style_convs) + 1):
            side = 2 ** ((layer + 5) // 2)
            self.noises.register_buffer(f"noise{layer}", torch.randn(1, 1, side, side))

    def noise(self, batch: int, generator: torch.Generator | None) -> list[Tensor]:
        """The noise of each layer: the stored buffers, or fresh ones from ``generator``."""
        stored = [self.noises.get_buffer(f"noise{i}") for i in range(len(self.style_convs) + 1)]
        if generator is None:
            return stored
        return [
            torch.randn(
                (batch, 1, *n.shape[2:]), generator=generator, device=n.device, dtype=n.dtype
            )
            for n in stored
        ]

    def forward(
        self,
        latents: Tensor,
        conditions: Conditions,
        noise_generator: torch.Generator | None = None,
    ) -> Tensor:
        """Generate an image.

        Args:
            latents: (B, num_latent, S), one style code in W for each layer.
            conditions: a (scale, shift) pair for each resolution from 8 up.
            noise_generator: draw fresh noise from it; by default the stored noise is used.

        Returns:
            (B, 3, size, size), RGB, about [-1, 1], not clamped.
        """
        noise = self.noise(latents.shape[0], noise_generator)
        x: Tensor = (
            self.constant_input.weight
        )  # one for all faces; the first style makes a batch of it
        x = self.style_conv1(x, latents[:, 0], noise[0])
        image: Tensor = self.to_rgb1(x, latents[:, 1])
        for i, (scale, shift) in enumerate(conditions):
            first = 2 * i + 1  # index of the layer that upsamples
            x = self.style_convs[2 * i](x, latents[:, first], noise[first])
            x = modulate(x, scale, shift)
            x = self.style_convs[2 * i + 1](x, latents[:, first + 1], noise[first + 1])
            image = self.to_rgbs[i](x, latents[:, first + 2], image)
        return image


class GFPGAN(nn.Module):
    """What the three forms share; use one of the subclasses.

    Raises:
        ValueError: ``out_size`` is not a power of two of at least 8.
    """

    form: ClassVar[Form]

    def __init__(
        self,
        out_size: int = 512,  # side of input and output in pixels
        num_style_feat: int = 512,  # length of a style code
        channel_multiplier: float = 2,  # of the widths from 64 px up
        num_mlp: int = 8,  # layers of the mapping network
        input_is_latent: bool = True,  # the U-Net predicts codes in W: skip the mapping network
        different_w: bool = True,  # one style code a layer, not one for all
        narrow: float = 1.0,  # factor on all widths
        sft_half: bool = True,  # modulate half of the channels (CS-SFT), not all (SFT)
        image_channels: int = 3,  # of input and output; RGB in every release
    ) -> None:
        super().__init__()
        form = self.form
        self.out_size = out_size
        self.num_style_feat = num_style_feat
        self.input_is_latent = input_is_latent
        self.different_w = different_w
        wide = channel_table(out_size, narrow, channel_multiplier)
        thin = channel_table(out_size, narrow * 0.5, channel_multiplier)
        sizes = sorted(wide)

        self.conv_body_first = conv_layer(image_channels, thin[out_size], 1, form)
        self.conv_body_down = nn.ModuleList(
            ResBlock(thin[size], thin[size // 2], 0.5, form) for size in reversed(sizes[1:])
        )
        self.final_conv = conv_layer(thin[4], thin[4], 3, form)
        self.conv_body_up = nn.ModuleList(
            ResBlock(thin[size // 2], thin[size], 2.0, form) for size in sizes[1:]
        )
        self.toRGB = nn.ModuleList(
            plain_conv(thin[size], image_channels, 1, form) for size in sizes[1:]
        )
        self.stylegan_decoder = CSFTDecoder(wide, num_style_feat, num_mlp, form, image_channels)
        codes = self.stylegan_decoder.num_latent if different_w else 1
        self.final_linear = linear(thin[4] * 4 * 4, codes * num_style_feat, form)
        self.condition_scale = nn.ModuleList()
        self.condition_shift = nn.ModuleList()
        for size in sizes[1:]:
            width = thin[size] if sft_half else 2 * thin[size]
            self.condition_scale.append(self._condition(thin[size], width, bias_init=1.0))
            self.condition_shift.append(self._condition(thin[size], width, bias_init=0.0))

    def _condition(self, in_channels: int, out_channels: int, bias_init: float) -> nn.Sequential:
        """Two 3x3 convolutions from U-Net features to one parameter of the transform (eq. 3)."""
        return nn.Sequential(
            plain_conv(in_channels, in_channels, 3, self.form, gain=SQRT2),
            ScaledLeakyReLU() if self.form.equalized else nn.LeakyReLU(0.2),
            plain_conv(in_channels, out_channels, 3, self.form, bias_init=bias_init),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The degradation removal module (section 3.2, eq. 1).

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1].

        Returns:
            Style codes (B, number of layers, S) in W, and the U-Net's features at 8, 16, ...,
            ``out_size`` px.
        """
        x = self.conv_body_first(x)
        skips = []
        for block in self.conv_body_down:
            x = block(x)
            skips.append(x)
        x = self.final_conv(x)
        codes = self.final_linear(x.flatten(1)).unflatten(1, (-1, self.num_style_feat))
        if not self.input_is_latent:
            codes = self.stylegan_decoder.style_mlp(codes)
        codes = codes.expand(-1, self.stylegan_decoder.num_latent, -1)
        features = []
        for block, skip in zip(self.conv_body_up, reversed(skips), strict=True):
            x = block(x + skip)
            features.append(x)
        return codes, features

    def conditions(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Scale and shift of every resolution from the U-Net's features (eq. 3)."""
        heads = zip(self.condition_scale, self.condition_shift, features, strict=True)
        return [(scale(feature), shift(feature)) for scale, shift, feature in heads]

    def rgb_pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        """RGB at 8, 16, ..., out_size px from the U-Net's features, for the loss of section 3.2."""
        return [head(feature) for head, feature in zip(self.toRGB, features, strict=True)]

    def forward(self, x: Tensor, noise_generator: torch.Generator | None = None) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1]: aligned faces.
            noise_generator: draw fresh noise from it; by default the checkpoint's noise is used
                and the result is deterministic.

        Returns:
            (B, 3, out_size, out_size) RGB, about [-1, 1], not clamped.
        """
        codes, features = self.encode(x)
        result: Tensor = self.stylegan_decoder(codes, self.conditions(features), noise_generator)
        return result

    def forward_with_pyramid(
        self, x: Tensor, noise_generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and the U-Net's RGB pyramid (8 px first), which training needs."""
        codes, features = self.encode(x)
        image = self.stylegan_decoder(codes, self.conditions(features), noise_generator)
        return image, self.rgb_pyramid(features)

    @classmethod
    def from_state_dict(cls: type[Net], state: Mapping[str, Tensor], **overrides: Any) -> Net:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Args:
            state: all parameters and noise buffers, under their official names.
            overrides: constructor arguments to use instead of the inferred ones.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        with unfilled():
            net = cls(**{**infer_hyperparameters(state), **overrides})
        return load_exactly(net, state)


class GFPGANClean(GFPGAN):
    """GFP-GAN of plain convolutions: releases v1.2, v1.3 and v1.4."""

    form = Form(equalized=False, resample="bilinear")


class GFPGANv1(GFPGAN):
    """GFP-GAN as in the paper, equalized layers and FIR resampling: release v1."""

    form = Form(equalized=True, resample="fir")


class GFPGANBilinear(GFPGAN):
    """GFP-GAN of equalized layers and bilinear resampling: the form to train for `GFPGANClean`.

    Names and shapes of its parameters are those of `GFPGANv1`.
    """

    form = Form(equalized=True, resample="bilinear")
