"""GFP-GAN, clean form, made to run: equal to `gfpgan.GFPGANClean`, about three times as fast.

What is different, none of it but by rounding:

- a convolution after an upsampling is a transposed one and a filter (`fast_layers.bilinear_conv`);
- 1x1 convolutions of skips come before the upsampling;
- on a CPU one face goes at a time, and its styles are multiplied into the weights of the larger
  layers (Karras et al. 2020, eq. 1 and 3) instead of the features; elsewhere the features of a
  whole batch are scaled;
- on a CPU wide 3x3 convolutions take half of the multiplications (`fast_layers.Conv3x3`);
- all styles come from one batched matrix product, from the latent codes in float32;
- scale and shift of CS-SFT share a first convolution, for they have the same input;
- U-Net and generator climb together, the larger resolutions in bands of rows, so that no more than
  the features in use are in memory;
- gains are in the weights, the sums of squares for the demodulation are computed once, and what
  serves training only (mapping network, RGB pyramid) is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equalized import SLOPE, SQRT2, CleanConv2d, ResBlock
from .fast_layers import (
    NHWC,
    Conv3x3,
    band_of,
    bilinear_conv,
    conv1x1,
    fir_kernel,
    frozen,
    in_bands,
    is_plain_cpu,
    is_tracing,
    transposed,
)
from .gfpgan import GFPGANClean
from .lite import PHASES, GFPGANLite
from .resampling import halve, upsample
from .stylegan2 import ModulatedConv2d, StyleConv, ToRGB
from .vqgan import full_precision

DIRECT = 16
"""Side of the output up to which a convolution after an upsampling is done as published."""
SCALED = 32
"""Side up to which features are scaled on a CPU too: there they are fewer than the weights."""
MARGIN = 4
"""Rows of a level's input that an outermost row of its output depends on."""


def leaky_(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2, in place."""
    return F.leaky_relu_(x, SLOPE)


class Conv(Conv3x3):
    """A 3x3 or 1x1 convolution, after a bilinear upsampling where asked for."""

    def __init__(
        self,
        weight: Tensor,  # (O, I, k, k)
        bias: Tensor | None,  # (O,)
        *,
        up: int = 0,  # side of the output, if the input is to be upsampled to it
        groups: int = 1,  # of channels, each convolved by itself
    ) -> None:
        self.after_fir = up > DIRECT
        super().__init__(
            frozen(transposed(weight) if self.after_fir else weight),
            None if bias is None else frozen(bias),
            groups,
        )
        self.up, self.padding = up, weight.shape[2] // 2
        self.kernel = frozen(fir_kernel(len(weight)).to(weight)) if self.after_fir else None

    @property
    def is_wide(self) -> bool:
        """Whether large maps are convolved with fewer multiplications on a CPU."""
        return self.kernel is None and not self.up and super().is_wide

    @classmethod
    def of(cls, layer: nn.Module, up: int = 0) -> Conv:
        """The same as a layer of the published form."""
        published = cast(CleanConv2d, layer)
        return cls(published.weight, published.bias, up=up)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W), or (B, O, 2H, 2W); a new tensor."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `forward`, with other weights, which are laid out as its own."""
        if self.kernel is not None:
            return bilinear_conv(x, weight, self.kernel, bias)
        if self.up:
            x = upsample(x, "bilinear")
        if self.padding == 0:
            return conv1x1(x, weight, bias)
        if weight is self.weight and self.is_quick(x):
            return self.quick(x, bias)
        return F.conv2d(x, weight, bias, padding=1, groups=self.groups)


class Styling(NamedTuple):
    """What a style makes of a modulated convolution."""

    weight: Tensor
    """The weights, modulated or not."""
    before: Tensor | None = None
    """(B, I, 1, 1): factors on the features, if the weights are not modulated."""
    after: Tensor | None = None
    """(B, O, 1, 1): factors on the result, if the weights are not modulated but demodulated."""


class Modulated(nn.Module):
    """`stylegan2.ModulatedConv2d` with a bias."""

    def __init__(self, layer: ModulatedConv2d, bias: Tensor, side: int, gain: float) -> None:
        super().__init__()
        weight = layer.weight[0].detach() * layer.scale  # [OIkk]
        up = layer.upsample is not None
        self.side = side
        self.conv = Conv(weight * gain, bias.flatten(), up=side if up else 0)
        self.energy = frozen(weight.square().sum(dim=(2, 3))) if layer.demodulate else None  # [OI]

    def prepare(self, style: Tensor, modulate: bool) -> Styling:
        """Apply a style (B, I), float32, to weights (of one face) or leave it to the features."""
        weight, factors = self.conv.weight, style[:, None]  # [B1I]
        after = None
        if self.energy is not None:
            power = style.square() @ self.energy.T
            after = torch.rsqrt(power + 1e-8)[..., None]  # [BO1]
            factors = after * factors  # [BOI]
        if not modulate or self.side <= SCALED:
            return Styling(
                weight, style[..., None, None], None if after is None else after[..., None]
            )
        factors = factors[0].T if self.conv.after_fir else factors[0]
        return Styling(weight * factors[..., None, None])

    def forward(self, x: Tensor, styling: Styling) -> Tensor:
        """(B, I, H, W) -> (B, O, H', W'), a new tensor."""
        if styling.before is None:
            return self.conv.convolve(x, styling.weight, self.conv.bias)
        x = self.conv.convolve(x * styling.before.to(x.dtype), styling.weight, None)
        bias = cast(Tensor, self.conv.bias).view(-1, 1, 1)
        if styling.after is None:
            return x.add_(bias)
        return x.mul_(styling.after).add_(bias)


class Styled(Modulated):
    """`stylegan2.StyleConv`: modulated convolution, noise, bias, leaky ReLU."""

    def __init__(self, layer: StyleConv, side: int) -> None:
        super().__init__(layer.modulated_conv, layer.bias, side, gain=SQRT2)
        self.strength = frozen(layer.weight)

    def activate(self, x: Tensor, styling: Styling, noise: Tensor) -> Tensor:
        """(B, I, H, W) and (1 or B, 1, H', W') -> (B, O, H', W'), a new tensor."""
        return leaky_(self(x, styling).add_(noise * self.strength))


class Down(nn.Module):
    """A block of the U-Net that halves the resolution: `equalized.ResBlock`."""

    def __init__(self, block: ResBlock, first: nn.Module | None) -> None:
        """Take a block, and the 1x1 convolution before it, if there is one."""
        super().__init__()
        self.first = None if first is None else Conv.of(first)
        self.conv1, self.conv2, self.skip = map(Conv.of, (block.conv1, block.conv2, block.skip))

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H / 2, W / 2)."""

        def halves(low: int, high: int) -> tuple[Tensor, Tensor]:
            band = x[:, :, low:high]
            if self.first is not None:
                band = leaky_(self.first(band))
            return halve(leaky_(self.conv1(band))), halve(band)

        width = len(self.conv1.weight)
        band = band_of(x.shape[2], 4 * len(x) * width * x.shape[3], x.device)
        y, skip = in_bands(halves, x.shape[2], band, margin=2, scale=0.5)
        return leaky_(self.conv2(y)).add_(self.skip(skip))


class Level(nn.Module):
    """One resolution of the way up: the U-Net's block, its conditions, the generator's layers."""

    def __init__(self, net: GFPGANClean, i: int) -> None:
        """Take the layers of 8 * 2 ** i pixels."""
        super().__init__()
        self.side = 8 * 2**i
        self.last = self.side == net.out_size
        block = cast(ResBlock, net.conv_body_up[i])
        self.conv1 = Conv.of(block.conv1)
        self.conv2 = Conv.of(block.conv2, up=self.side)
        self.skip = Conv.of(block.skip)  # before the upsampling, with which it commutes
        first, second = (
            [cast(CleanConv2d, cast(nn.Sequential, pair[i])[k]) for pair in self._conditions(net)]
            for k in (0, 2)
        )
        self.first = Conv(_joined(first, "weight"), _joined(first, "bias"))
        self.second = Conv(_joined(second, "weight"), _joined(second, "bias"), groups=2)
        decoder = net.stylegan_decoder
        self.style1 = Styled(cast(StyleConv, decoder.style_convs[2 * i]), self.side)
        self.style2 = Styled(cast(StyleConv, decoder.style_convs[2 * i + 1]), self.side)
        to_rgb = cast(ToRGB, decoder.to_rgbs[i])
        self.to_rgb = Modulated(to_rgb.modulated_conv, to_rgb.bias, self.side, gain=1.0)

    @staticmethod
    def _conditions(net: GFPGANClean) -> tuple[nn.ModuleList, nn.ModuleList]:
        return net.condition_scale, net.condition_shift

    def forward(
        self,
        inputs: Sequence[Tensor],
        styles: Sequence[Tensor],
        noises: Sequence[Tensor],
        modulate: bool,
    ) -> list[Tensor]:
        """Double the resolution.

        Args:
            inputs: the image so far, features of the U-Net with its skip added, and features of
                the generator, each (B, C, H, W).
            styles: of the three modulated convolutions, each (B, I), float32.
            noises: of the two that have it, each (1 or B, 1, 2H, 2W).
            modulate: whether styles are multiplied into weights; for one face only.

        Returns:
            The same three, each (B, C', 2H, 2W); of the last level the image alone.
        """
        plain = is_plain_cpu(inputs[2])
        with full_precision(styles[0].device):
            layers = (self.style1, self.style2, self.to_rgb)
            stylings = [
                layer.prepare(style, modulate and not (plain and layer.conv.is_wide))
                for layer, style in zip(layers, styles, strict=True)
            ]

        def run(low: int, high: int) -> Sequence[Tensor]:
            image, u, x = (feature[:, :, low:high] for feature in inputs)
            noise1, noise2 = (noise[:, :, 2 * low : 2 * high] for noise in noises)
            skip = upsample(self.skip(u), "bilinear")
            u = leaky_(self.conv2(leaky_(self.conv1(u)))).add_(skip)
            scale, shift = self.second(leaky_(self.first(u))).chunk(2, dim=1)
            x = self.style1.activate(x, stylings[0], noise1)
            # CS-SFT: the last channels, as many as there are conditions (GFP-GAN, eq. 4).
            unconditioned = x.shape[1] - scale.shape[1]
            if is_tracing():  # for engines that do not know of views
                x = torch.cat([x[:, :unconditioned], x[:, unconditioned:] * scale + shift], dim=1)
            else:
                torch.addcmul(shift, x[:, unconditioned:], scale, out=x[:, unconditioned:])
            x = self.style2.activate(x, stylings[1], noise2)
            image = self.to_rgb(x, stylings[2]).add_(upsample(image, "bilinear"))
            return (image,) if self.last else (image, u, x)

        rows, width = self.side // 2, len(self.first.weight)
        band = band_of(rows, 2 * 4 * len(inputs[0]) * width * self.side, inputs[0].device)
        return in_bands(run, rows, band, MARGIN, scale=2)


class FastGFPGAN(nn.Module):
    """The fast form of a `gfpgan.GFPGANClean`; a copy of its weights as they are now.

    The noise is in buffers of the published names.
    """

    def __init__(self, net: GFPGANClean) -> None:
        super().__init__()
        self.out_size = net.out_size
        self.modulation: Literal["auto", "weights", "features"] = "auto"
        """What is multiplied by the styles: by default weights on a CPU, features elsewhere."""
        self.down = nn.ModuleList(
            Down(cast(ResBlock, block), net.conv_body_first if i == 0 else None)
            for i, block in enumerate(net.conv_body_down)
        )
        self.final_conv = Conv.of(net.final_conv)
        self.codes = nn.ParameterList(map(frozen, net.final_linear.parameters()))
        self.levels = nn.ModuleList(Level(net, i) for i in range(len(self.down)))
        decoder = net.stylegan_decoder
        # Of use in networks of before the releases only, which predict codes in Z.
        self.mapping = None if net.input_is_latent else copy.deepcopy(decoder.style_mlp)
        self.num_style_feat, self.num_latent = net.num_style_feat, decoder.num_latent
        self.constant = frozen(decoder.constant_input.weight)
        self.style1 = Styled(decoder.style_conv1, 4)
        to_rgb = decoder.to_rgb1
        self.to_rgb = Modulated(to_rgb.modulated_conv, to_rgb.bias, 4, gain=1.0)
        self.stylegan_decoder = nn.Module()
        self.stylegan_decoder.add_module("noises", copy.deepcopy(decoder.noises))

        layers: list[nn.Module] = [decoder.style_conv1, to_rgb]
        self.latents = [0, 1]  # of which latent code each modulated layer's style is
        for i, last in enumerate(decoder.to_rgbs):
            layers += [*decoder.style_convs[2 * i : 2 * i + 2], last]
            self.latents += [2 * i + 1, 2 * i + 2, 2 * i + 3]
        modulations = [
            cast(nn.Linear, layer.get_submodule("modulated_conv.modulation")) for layer in layers
        ]
        self.widths = [modulation.out_features for modulation in modulations]
        size = (len(layers), net.num_style_feat, max(self.widths))
        matrices, biases = (
            self.constant.new_zeros(size),
            self.constant.new_zeros(size[0], 1, size[2]),
        )
        for i, (modulation, width) in enumerate(zip(modulations, self.widths, strict=True)):
            matrices[i, :, :width] = modulation.weight.detach().T
            biases[i, 0, :width] = modulation.bias.detach()
        self.modulations = nn.ParameterList(map(frozen, (matrices, biases)))  # [LSI] and [L1I]
        self.eval()

    def styles(self, x: Tensor) -> list[Tensor]:
        """Styles of all modulated layers, each (B, I), from the U-Net's deepest features."""
        weight, bias = self.codes
        codes = F.linear(x.flatten(1), weight, bias).unflatten(1, (-1, self.num_style_feat))
        if self.mapping is not None:
            codes = self.mapping(codes)
        codes = codes.expand(-1, self.num_latent, -1)[:, self.latents].transpose(0, 1)  # [LBS]
        matrices, biases = self.modulations
        styles = torch.baddbmm(biases, codes, matrices)  # [LBI]
        return [style[:, :width] for style, width in zip(styles, self.widths, strict=True)]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """As `gfpgan.GFPGANClean`: (B, 3, S, S) in [-1, 1] -> the same shape."""
        modulate = self.modulation == "weights" or (
            self.modulation == "auto"
            and x.device.type == "cpu"
            and not torch.onnx.is_in_onnx_export()  # there weights must be constants
        )
        if modulate and len(x) > 1:
            return torch.cat([self(face[None]) for face in x])
        return self._restore(x.contiguous(memory_format=NHWC), modulate).contiguous()

    def _restore(self, x: Tensor, modulate: bool) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        u = leaky_(self.final_conv(x))
        with full_precision(x.device):
            styles = self.styles(u.float())
            stylings = [
                self.style1.prepare(styles[0], False),
                self.to_rgb.prepare(styles[1], False),
            ]
        noises = list(self.stylegan_decoder.get_submodule("noises").buffers())
        x = self.style1.activate(self.constant, stylings[0], noises[0])
        maps: list[Tensor] = [self.to_rgb(x, stylings[1]), u, x]
        for i, level in enumerate(self.levels):
            maps[1] = maps[1] + skips.pop()
            maps = level(
                maps,
                styles[3 * i + 2 : 3 * i + 5],
                noises[2 * i + 1 : 2 * i + 3],
                modulate,
            )
        return maps[0]


class FastLite(nn.Module):
    """The fast form of a `lite.GFPGANLite`; a copy of its weights as they are now."""

    def __init__(self, net: GFPGANLite) -> None:
        super().__init__()
        self.out_size, self.bytes_per_face = net.out_size, net.bytes_per_face
        self.core = FastGFPGAN(net.core)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """As `lite.GFPGANLite`: (B, 3, S, S) in [-1, 1] -> the same shape."""
        return x + F.pixel_shuffle(self.core(F.pixel_unshuffle(x, PHASES)), PHASES)


def _joined(layers: Sequence[CleanConv2d], name: str) -> Tensor:
    return torch.cat([cast(Tensor, getattr(layer, name)).detach() for layer in layers])
