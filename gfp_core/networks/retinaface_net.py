"""The layers of RetinaFace, under the names of its official checkpoints.

Deng et al., "RetinaFace: Single-stage Dense Face Localization in the Wild" (CVPR 2020): a backbone,
a feature pyramid (section 3.2), context modules (SSH, Najibi et al. 2017) and, at each of three
levels, heads for class, box and landmarks. Backbones are a quarter of MobileNet (Howard et al.
2017) and ResNet-50 (He et al. 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fast_layers import Conv1x1, band_of, in_bands, is_tracing

Prepare: TypeAlias = Callable[[Tensor], Tensor]

PRIORS = 2
"""Priors a cell."""
_LEAKY = 0.1  # slope of the activations of narrow networks; those of wide ones are plain ReLUs
_NARROW = 64


def _conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    slope: float | None = None,
) -> list[nn.Module]:
    """Convolution, batch norm and, with a slope, leaky ReLU."""
    kind = Conv1x1 if kernel == 1 else nn.Conv2d
    convolution = kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(outputs)]
    return layers if slope is None else [*layers, nn.LeakyReLU(slope, inplace=True)]


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A depthwise and a pointwise convolution."""
    return nn.Sequential(
        *_conv(inputs, inputs, stride=stride, groups=inputs, slope=_LEAKY),
        *_conv(inputs, outputs, kernel=1, slope=_LEAKY),
    )


def _unchanged(x: Tensor) -> Tensor:
    return x


def _to_an_eighth(
    begin: Callable[[Tensor], Tensor], x: Tensor, prepare: Prepare, *, floats: int, training: bool
) -> Tensor:
    """The first layers of a body, some rows at a time: their maps dwarf the picture.

    Args:
        begin: from pictures (B, 3, H, W) to an eighth of their size; looks 21 rows of a picture
            beyond its own.
        x: the pictures.
        prepare: what they go through first.
        floats: numbers that its largest map has for every pixel of a picture.
        training: whether all has to be seen at once.
    """
    rows, stride, margin = x.shape[2], 8, 24
    band = _band(x, floats, training, step=stride)
    (whole,) = in_bands(
        lambda low, high: [begin(prepare(x[:, :, low:high]))], rows, band, margin, 1 / stride
    )
    return whole


def _band(x: Tensor, floats: int, training: bool, step: int = 2) -> int:
    """Rows of ``x`` at a time, with so many numbers for each of its pixels; all to be trained."""
    rows = x.shape[2]
    if training or torch.is_grad_enabled():
        return rows
    return band_of(rows, 4 * floats * len(x) * x.shape[3], x.device, step)


class MobileNetBody(nn.Module):
    """MobileNet with a quarter of its channels: features of 64, 128 and 256 channels."""

    widths = (64, 128, 256)
    out = 64
    """Channels of the pyramid above it."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            nn.Sequential(*_conv(3, 8, stride=2, slope=_LEAKY)),
            _separable(8, 16),
            _separable(16, 32, stride=2),
            _separable(32, 32),
            _separable(32, 64, stride=2),
            _separable(64, 64),
        )
        self.stage2 = nn.Sequential(
            _separable(64, 128, stride=2), *(_separable(128, 128) for _ in range(5))
        )
        self.stage3 = nn.Sequential(_separable(128, 256, stride=2), _separable(256, 256))

    def forward(self, x: Tensor, prepare: Prepare = _unchanged) -> list[Tensor]:
        """(B, 3, H, W) -> features at an eighth, a sixteenth and a thirty-second of the size."""
        # The largest map has 16 channels at half the size.
        fine = _to_an_eighth(self.stage1, x, prepare, floats=4, training=self.training)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]


class Bottleneck(nn.Module):
    """ResNet's residual block of three convolutions, the second of which may halve the size."""

    def __init__(self, inputs: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = _conv(inputs, width, kernel=1)
        self.conv2, self.bn2 = _conv(width, width, stride=stride)
        self.conv3, self.bn3 = _conv(width, outputs, kernel=1)
        self.downsample = (
            nn.Sequential(*_conv(inputs, outputs, kernel=1, stride=stride)) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 4 width, H / stride, W / stride)."""
        y = F.relu_(self.bn1(self.conv1(x)))
        y = F.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu_(y)


class ResNetBody(nn.Module):
    """ResNet-50: features of 512, 1024 and 2048 channels."""

    widths = (512, 1024, 2048)
    out = 256

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = self._layer(64, 64, blocks=3, stride=1)
        self.layer2 = self._layer(256, 128, blocks=4, stride=2)
        self.layer3 = self._layer(512, 256, blocks=6, stride=2)
        self.layer4 = self._layer(1024, 512, blocks=3, stride=2)

    @staticmethod
    def _layer(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Bottleneck(inputs, width, stride, first=True)
        others = (Bottleneck(4 * width, width, 1, first=False) for _ in range(1, blocks))
        return nn.Sequential(first, *others)

    def forward(self, x: Tensor, prepare: Prepare = _unchanged) -> list[Tensor]:
        """(B, 3, H, W) -> features at an eighth, a sixteenth and a thirty-second of the size."""
        # The largest maps have 64 channels at half the size and 256 at a quarter.
        fine = _to_an_eighth(self._begin, x, prepare, floats=16, training=self.training)
        fine = self.layer2[1:](fine)
        middle = self.layer3(fine)
        return [fine, middle, self.layer4(middle)]

    def _begin(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        eighth: Tensor = self.layer2[0](self.layer1(x))
        return eighth


class FPN(nn.Module):
    """The feature pyramid: what coarse levels know is added to the finer ones."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        slope = _LEAKY if channels <= _NARROW else 0.0
        self.output1, self.output2, self.output3 = (
            nn.Sequential(*_conv(width, channels, kernel=1, slope=slope)) for width in widths
        )
        self.merge1, self.merge2 = (
            nn.Sequential(*_conv(channels, channels, slope=slope)) for _ in range(2)
        )

    def forward(self, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the two coarser levels of the body, to as many of equal width."""
        coarse = self.output3(coarse)
        above = F.interpolate(coarse, size=middle.shape[2:])
        return self.merge2(self.output2(middle) + above), coarse

    def finest(self, fine: Tensor, above: Tensor) -> Tensor:
        """Some rows of the body's finest level, and of the level above, enlarged to its size."""
        merged: Tensor = self.merge1(self.output1(fine) + above)
        return merged


class SSH(nn.Module):
    """The context module: 3x3 convolutions, one, two and three in a row, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        slope = _LEAKY if channels <= _NARROW else 0.0
        half, quarter = channels // 2, channels // 4
        self.conv3X3 = nn.Sequential(*_conv(channels, half))
        self.conv5X5_1 = nn.Sequential(*_conv(channels, quarter, slope=slope))
        self.conv5X5_2 = nn.Sequential(*_conv(quarter, quarter))
        self.conv7X7_2 = nn.Sequential(*_conv(quarter, quarter, slope=slope))
        self.conv7x7_3 = nn.Sequential(*_conv(quarter, quarter))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        shared = self.conv5X5_1(x)
        wide = self.conv7x7_3(self.conv7X7_2(shared))
        return F.relu_(torch.cat([self.conv3X3(x), self.conv5X5_2(shared), wide], dim=1))


class Head(nn.Module):
    """A 1x1 convolution: some numbers for each prior."""

    def __init__(self, channels: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.conv1x1 = Conv1x1(channels, PRIORS * numbers, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H * W * PRIORS, numbers)."""
        return self.by_prior(self.conv1x1(x))

    def by_prior(self, x: Tensor) -> Tensor:
        """Arrange the convolution's result (B, PRIORS * numbers, H, W) by priors."""
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.numbers)


class RetinaFace(nn.Module):
    """The whole network."""

    def __init__(self, body: MobileNetBody | ResNetBody) -> None:
        super().__init__()
        self.body = body
        self.fpn = FPN(body.widths, body.out)
        self.ssh1, self.ssh2, self.ssh3 = (SSH(body.out) for _ in range(3))
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(body.out, numbers) for _ in range(3)) for numbers in (2, 4, 10)
        )

    def forward(
        self, x: Tensor, finest: bool = True, prepare: Prepare = _unchanged
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See what is in pictures.

        Args:
            x: (B, 3, H, W) float32 of any size, BGR from 0 to 255 minus the channels' means.
            finest: whether to see small faces. Without its finest level, which takes half of the
                work, the network gives only the priors of 64 pixels and more, which are the last.
            prepare: makes such pictures of ``x``, pixel by pixel; called for some rows at a time,
                so that large ones need no second copy.

        Returns:
            For all P priors of that size (see `retinaface.priors`) the box regressions (B, P, 4),
            the class probabilities (B, P, 2; face is 1) and the landmark regressions (B, P, 10).
        """
        fine, *coarser = self.body(x, prepare)
        middle, coarse = self.fpn(*coarser)
        levels = [self.ssh2(middle), self.ssh3(coarse)]
        finest_heads = self._finest(fine, middle) if finest else []
        del fine

        def heads(kind: nn.ModuleList) -> Tensor:
            pairs = zip(list(kind)[-2:], levels, strict=True)
            parts = [head(level) for head, level in pairs]
            if finest_heads:  # taken off, for they are large
                parts.insert(0, cast(Head, kind[0]).by_prior(finest_heads.pop(0)))
            return torch.cat(parts, dim=1)

        classes = heads(self.ClassHead).softmax(dim=-1)
        return heads(self.BboxHead), classes, heads(self.LandmarkHead)

    def _finest(self, fine: Tensor, middle: Tensor) -> list[Tensor]:
        """What the heads' convolutions make of the finest level: class, box, landmarks.

        Some rows at a time: of large pictures this level takes most of the memory.
        """

        def heads(merged: Tensor) -> list[Tensor]:
            level = self.ssh1(merged)
            kinds = (self.ClassHead, self.BboxHead, self.LandmarkHead)
            return [cast(Head, kind[0]).conv1x1(level) for kind in kinds]

        rows, columns = fine.shape[2:]
        band = _band(fine, self.body.out, self.training)
        if is_tracing() or band >= rows:
            above = F.interpolate(middle, size=fine.shape[2:])
            return heads(self.fpn.finest(fine, above))
        # Which rows and columns of the level above stand for those of this one (nearest).
        grid = torch.arange(max(middle.shape[2:]), dtype=torch.float32, device=fine.device)
        above_row, above_column = (
            F.interpolate(grid[None, None, :length], size=size)[0, 0].long()
            for length, size in zip(middle.shape[2:], (rows, columns), strict=True)
        )

        def run(low: int, high: int) -> list[Tensor]:
            above = middle.index_select(2, above_row[low:high]).index_select(3, above_column)
            return heads(self.fpn.finest(fine[:, :, low:high], above))

        return in_bands(run, rows, band, margin=4, scale=1)  # four convolutions of 3x3
