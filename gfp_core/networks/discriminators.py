"""Discriminators that the restorers are trained against.

Sources: `StyleGAN2Discriminator` is that of Karras et al., "Analyzing and Improving the Image
Quality of StyleGAN" (residual form), with the minibatch standard deviation of "Progressive Growing
of GANs" (section 3) and, for fine-tuning, FreezeD (Mo et al., 2020). `ComponentDiscriminator` is
GFP-GAN's for eyes and mouth (section 3.5), which the pose-varied network uses too.

Both are equalized, with FIR resampling, and can be differentiated twice, as the R1 penalty needs.
Names follow those that the layers have in GFP-GAN's checkpoints; no listing of a published
discriminator was at hand, so whether one loads is not known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .equalized import EqualLinear, Form, ResBlock, conv_layer, down_layer, plain_conv
from .stylegan2 import channel_table

FORM = Form(equalized=True, resample="fir")


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """How much the samples of a group differ: what shows a generator that repeats itself.

    The standard deviation over the group of every feature at every place, averaged to one number,
    which all samples of the group get as one more channel. Never computed in half precision, where
    the squares of small differences are lost.

    Args:
        x: (B, C, H, W), any batch size. Sample i belongs to group i modulo the number of groups.
        group: the largest size of a group. Where it does not divide the batch, groups are smaller
            and differ by one sample at most.

    Returns:
        (B, C + 1, H, W).
    """
    batch, _, height, width = x.shape
    groups = -(-batch // group)
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    deviations = [
        (exact[i::groups].var(dim=0, unbiased=False) + 1e-8).sqrt().mean() for i in range(groups)
    ]
    each = torch.stack(deviations).repeat(group)[:batch].to(x.dtype)  # [B]
    return torch.cat([x, each.view(-1, 1, 1, 1).expand(-1, 1, height, width)], dim=1)


class StyleGAN2Discriminator(nn.Module):
    """StyleGAN2's residual discriminator: is the whole picture a photograph?

    With ``phases`` 2 it sees the four half-size phases of the picture, as the lite restorer makes
    them: it loses nothing, and its largest and slowest layers have a quarter of the places.

    Raises:
        ValueError: ``size / phases`` is not a power of two of at least 8.
    """

    def __init__(
        self,
        size: int = 512,  # side of the pictures in pixels
        channel_multiplier: float = 2,  # of the widths from 64 px (inside) up
        narrow: float = 1.0,  # factor on all widths
        stddev_group: int = 4,  # samples compared by the minibatch standard deviation
        phases: int = 1,  # phases of the picture a side
    ) -> None:
        super().__init__()
        self.stddev_group = stddev_group
        self.phases = phases
        channels = channel_table(size // phases, narrow, channel_multiplier)
        sizes = sorted(channels, reverse=True)
        self.conv_body = nn.Sequential(
            conv_layer(3 * phases**2, channels[sizes[0]], 1, FORM),
            *(ResBlock(channels[2 * side], channels[side], 0.5, FORM) for side in sizes[1:]),
        )
        self.final_conv = conv_layer(channels[4] + 1, channels[4], 3, FORM)
        self.final_linear = nn.Sequential(
            EqualLinear(channels[4] * 4 * 4, channels[4], activate=True),
            EqualLinear(channels[4], 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            x: (B, 3, size, size) RGB in [-1, 1]; any batch size.

        Returns:
            (B, 1): logits, positive for photographs.
        """
        x = self.conv_body(F.pixel_unshuffle(x, self.phases))
        x = minibatch_stddev(x, self.stddev_group)
        result: Tensor = self.final_linear(self.final_conv(x).flatten(1))
        return result

    def freeze_first(self, convolutions: int = 5) -> None:
        """Keep the convolutions nearest to the picture as they are, and train the others (FreezeD).

        Counted along the main path: the first 1x1 convolution, then two in each block. The skip
        around a block goes with its second one. The pose-varied paper (section 4.2) freezes "the
        first five convolution layers", which are the first convolution and two whole blocks.

        Args:
            convolutions: how many; 0 trains all.

        Raises:
            ValueError: there are not so many.
        """
        stem, *blocks = self.conv_body
        path: list[list[nn.Module]] = [[stem]]
        for block in blocks:
            assert isinstance(block, ResBlock)
            path += [[block.conv1], [block.conv2, block.skip]]
        path.append([self.final_conv])
        if not 0 <= convolutions <= len(path):
            raise ValueError(f"convolutions must be from 0 to {len(path)}, not {convolutions}")
        self.requires_grad_(True)
        for modules in path[:convolutions]:
            for module in modules:
                module.requires_grad_(False)


class ComponentDiscriminator(nn.Module):
    """Is this patch of a face, an eye or the mouth, a photograph's? (GFP-GAN, section 3.5)."""

    def __init__(
        self,
        narrow: float = 1.0,  # factor on all widths
    ) -> None:
        super().__init__()
        wide = [int(narrow * channels) for channels in (64, 128, 256)]
        self.conv1 = conv_layer(3, wide[0], 3, FORM)
        self.conv2 = down_layer(wide[0], wide[1], 3, FORM)
        self.conv3 = conv_layer(wide[1], wide[1], 3, FORM)
        self.conv4 = down_layer(wide[1], wide[2], 3, FORM)
        self.conv5 = conv_layer(wide[2], wide[2], 3, FORM)
        self.final_conv = plain_conv(wide[2], 1, 3, FORM)

    def forward(self, x: Tensor) -> Tensor:
        """Judge patches.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1].

        Returns:
            (B, 1, H / 4, W / 4), rounded down: logits, positive for photographs, place by place.
        """
        return self.forward_with_features(x)[0]

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `forward`, and the features whose Gram matrices the style loss compares.

        Returns:
            The logits; and features of (B, 128, H / 2, W / 2) and (B, 256, H / 4, W / 4).
        """
        half = self.conv3(self.conv2(self.conv1(x)))
        quarter = self.conv5(self.conv4(half))
        return self.final_conv(quarter), [half, quarter]
