"""What the fast forms of the networks are made of: quicker convolutions, and bands.

Everything here gives what the published form gives, up to rounding, with fewer multiplications or
less memory traffic. Nothing here is differentiated: the published form is the one to train.

Shapes in comments: B batch, I/O input/output channels, H W pixels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resampling import FIR_TAPS

NHWC = torch.channels_last
BAND_BYTES = 16 * 2**20
"""Size of the largest tensor of a band.

It stays in the cache for the next operation, and below the 32 MiB from which on the C library gives
memory back to the system at once, whose pages then have to be mapped again: for large feature maps
that takes as long as a convolution with few channels.
"""

QUICK_CHANNELS = 96
"""Width of input and output from which `Conv3x3` saves more by multiplying less than it adds."""
QUICK_PIXELS = 1024
"""Pixels of a map from which it does."""
QUICK_BYTES = 2 * 2**20
"""Size of one of the twelve maps that `Conv3x3` works on at a time, in the cache."""
# Toom and Cook's algorithm for four outputs of three taps, at the points 0, 1, -1, 2, -2 and
# infinity (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, F(4, 3)):
# what becomes of the taps. What becomes of the input, and of the products, is in `_conv_rows`.
_TAPS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_ONEDNN: Callable[..., Tensor] | None = getattr(torch, "mkldnn_convolution", None)
_lent = threading.local()


def frozen(tensor: Tensor) -> nn.Parameter:
    """A copy that is not trained; with four dimensions its channels lie last in memory."""
    layout = NHWC if tensor.ndim == 4 else torch.contiguous_format
    return nn.Parameter(tensor.detach().clone(memory_format=layout), requires_grad=False)


def reuse_memory(net: nn.Module) -> None:
    """Let `borrowed` use the same memory again and again while ``net`` runs, in its thread.

    Large maps come from the system, page by page, each time: a quarter of RestoreFormer's time.
    """
    net.register_forward_pre_hook(_begin_lending)
    net.register_forward_hook(_end_lending, always_call=True)


def _begin_lending(*_: object) -> None:
    _lent.buffer = torch.empty(0)


def _end_lending(*_: object) -> None:
    _lent.buffer = None


@contextmanager
def borrowed(like: Tensor, channels: int) -> Iterator[Tensor]:
    """Lend an uninitialized map of the sides of ``like`` (B, C, H, W), channels last."""
    batch, _, height, width = like.shape
    buffer: Tensor | None = getattr(_lent, "buffer", None)
    _lent.buffer = None  # lent to one at a time
    count = batch * channels * height * width
    space = buffer
    if space is None or space.numel() < count or space.dtype != like.dtype:
        space = torch.empty(count, dtype=like.dtype, device=like.device)
    try:
        yield space[:count].view(batch, height, width, channels).permute(0, 3, 1, 2)
    finally:
        _lent.buffer = None if buffer is None else space


class Conv3x3(nn.Module):
    """A 3x3 convolution with zeros around that a CPU does with half of the multiplications.

    Four rows of output at a time come from six products instead of twelve: along the height it is
    Toom and Cook's, along the width the library's. Sums and differences of rows are cheap beside
    the products where there are many channels; the error is about three times as large.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int = 1) -> None:
        """Take weights (O, I / groups, 3, 3) and a bias (O,), as they are."""
        super().__init__()
        self.groups = groups
        self.register_parameter("weight", cast(nn.Parameter, weight))
        self.register_parameter("bias", cast("nn.Parameter | None", bias))
        self._taps: list[Tensor] | None = None

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        self._taps = None
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self._taps = None
        super()._load_from_state_dict(*arguments, **options)

    @property
    def is_wide(self) -> bool:
        """Whether its channels are so many that it is worth while."""
        outputs, inputs, height, _ = self.weight.shape
        return height == 3 and min(outputs // self.groups, inputs) >= QUICK_CHANNELS

    def is_quick(self, x: Tensor) -> bool:
        """Tell whether ``x`` (B, I, H, W) is convolved with fewer multiplications."""
        return self.is_wide and x.shape[2] * x.shape[3] >= QUICK_PIXELS and is_plain_cpu(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W), a new tensor."""
        if not self.is_quick(x):
            return F.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups)
        return self.quick(x, self.bias)

    def quick(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """As `forward`, if `is_quick`, with another bias."""
        size = (x.shape[0], len(self.weight), *x.shape[2:])
        result = torch.empty(size, memory_format=NHWC)
        parts = zip(
            x.chunk(self.groups, dim=1),
            result.chunk(self.groups, dim=1),
            [None] * self.groups if bias is None else bias.chunk(self.groups),
            strict=True,
        )
        for group, (part, target, terms) in enumerate(parts):
            self.convolve_bands(
                part, partial(_copy_rows, part), partial(store, target), terms, group
            )
        return result

    def convolve_bands(
        self,
        x: Tensor,
        fill: Callable[[int, int, Tensor], object],
        keep: Callable[[int, int, Tensor], object],
        bias: Tensor | None,
        group: int = 0,
    ) -> None:
        """Convolve what ``fill`` makes of some rows after the other, if `is_quick`.

        Args:
            x: (B, I, H, W), the channels of one group; its sides count.
            fill: gets the first row, the one after the last, and where to write these rows of the
                convolution's input, (B, I, rows, W).
            keep: gets the same of the result (B, O, rows, W), which it may change and must copy.
            bias: (O,), of the group.
            group: which of the groups.
        """
        batch, inputs, rows, width = x.shape
        outputs = len(self.weight) // self.groups
        taps = [tap[outputs * group :][:outputs] for tap in self.taps()]
        step = QUICK_BYTES // (4 * batch * width * max(outputs, inputs))
        step = 4 * max(1, min(step, -(-rows // 4)))
        bands = torch.empty((batch, inputs, step + 2, width), memory_format=NHWC)
        outs = torch.empty((batch, outputs, step, width), memory_format=NHWC)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            low, high = max(start - 1, 0), min(stop + 1, rows)
            count = 4 * -(-(stop - start) // 4)
            band, out = bands[:, :, : count + 2], outs[:, :, :count]
            if start == 0:
                band[:, :, 0] = 0
            if stop == rows:
                band[:, :, rows - start + 1 :] = 0
            fill(low, high, band[:, :, low - start + 1 : high - start + 1])
            _conv_rows(band, taps, bias, out)
            keep(start, stop, out[:, :, : stop - start])

    def taps(self) -> list[Tensor]:
        """Weights (O, I, 1, 3) of the six products, made when first needed."""
        taps = self._taps
        if taps is None:
            with torch.inference_mode(False):
                taps = self._taps = row_taps(self.weight)
        return taps


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Convolve (B, I, H, W) with (O, I, 1, 1).

    PyTorch leaves this to its BLAS, which on AMD's processors runs at less than half of oneDNN's
    rate.
    """
    if is_plain_cpu(x) and _ONEDNN is not None and torch.backends.mkldnn.is_available():
        result: Tensor = _ONEDNN(x, weight, bias, (0, 0), (stride, stride), (1, 1), 1)
        return result
    return F.conv2d(x, weight, bias, stride)


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution by `conv1x1`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H / stride, W / stride)."""
        return conv1x1(x, self.weight, self.bias, self.stride[0])


def _copy_rows(x: Tensor, low: int, high: int, out: Tensor) -> None:
    out.copy_(x[:, :, low:high])


def store(result: Tensor, low: int, high: int, rows: Tensor) -> None:
    """Copy some rows (B, C, high - low, W) to where they belong in (B, C, H, W)."""
    result[:, :, low:high] = rows


def row_taps(weight: Tensor) -> list[Tensor]:
    """Weights (O, I, 3, 3) as `Conv3x3` multiplies by them: six times (O, I, 1, 3)."""
    matrix = torch.tensor(_TAPS, dtype=torch.float64)
    taps = torch.einsum("jy,oiyx->joix", matrix, weight.detach().double())
    return [tap.float()[:, :, None].contiguous(memory_format=NHWC) for tap in taps]


def _conv_rows(x: Tensor, taps: Sequence[Tensor], bias: Tensor | None, out: Tensor) -> None:
    """Convolve (B, I, 4 N + 2, W) with `row_taps` into (B, O, 4 N, W)."""
    d0, d1, d2, d3, d4, d5 = (x[:, :, row : x.shape[2] - 5 + row : 4] for row in range(6))
    sums, differences = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    even, odd = d4 - d2, d3 - d1
    inputs = (
        (d0 - d2).mul_(4).add_(even),
        sums + differences,
        sums.sub_(differences),
        torch.add(even, odd, alpha=2),
        torch.sub(even, odd, alpha=2),
        (d5 - d3).sub_(odd, alpha=4),
    )
    # The second product is in all four outputs, and so brings the bias to each.
    m0, m1, m2, m3, m4, m5 = (
        F.conv2d(each, tap, bias if i == 1 else None, padding=(0, 1))
        for i, (each, tap) in enumerate(zip(inputs, taps, strict=True))
    )
    difference, total = m1 - m2, m1.add_(m2)
    far_difference, far_total = m3 - m4, m3.add_(m4)
    y0, y1, y2, y3 = (out[:, :, row::4] for row in range(4))
    torch.add(difference, far_difference, alpha=2, out=y1)
    torch.add(total, far_total, alpha=4, out=y2)
    torch.add(difference.add_(m5), far_difference, alpha=8, out=y3)
    torch.add(total.add_(m0), far_total, out=y0)


def is_plain_cpu(x: Tensor) -> bool:
    """Tell whether ``x`` is computed with by PyTorch on a CPU, in float32."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not is_tracing()
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def transposed(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) as `bilinear_conv` takes them: (I, O, 3, 3), turned by 180 degrees."""
    return weight.flip(2, 3).transpose(0, 1)


def fir_kernel(channels: int) -> Tensor:
    """The filter that makes a bilinear upsampling of inserted zeros: (channels, 1, 4, 4)."""
    taps = torch.tensor(FIR_TAPS) / 4
    return torch.outer(taps, taps).expand(channels, 1, 4, 4).contiguous()


def bilinear_conv(x: Tensor, weight: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Double the resolution bilinearly, then convolve 3x3 with zeros around, at a quarter's cost.

    A bilinear upsampling by 2 is an insertion of zeros followed by the filter [1, 3, 3, 1] / 4 on
    either axis (Karras et al. 2020, appendix B, has the same for FIR upsampling). The filter acts
    on each channel alone and so may come after the convolution, and a convolution of inserted
    zeros is a transposed one of stride 2. Here the upsampled map goes on beyond its edge as the
    bilinear one would, where the published form has zeros: `_beyond_the_edge` is taken off again.

    Args:
        x: (B, I, H, W).
        weight: (I, O, 3, 3), from `transposed`.
        kernel: (O, 1, 4, 4), from `fir_kernel`.
        bias: (O,).

    Returns:
        (B, O, 2H, 2W), a new tensor.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    y = F.conv_transpose2d(padded, weight, stride=2, padding=1)  # [B, O, 2H + 3, 2W + 3]
    y = F.conv2d(y, kernel, bias, groups=len(kernel))
    rows, columns = _beyond_the_edge(x, weight)
    for dim, (first, last) in ((2, rows), (3, columns)):
        if is_tracing():  # for engines that do not know of views
            ends = [y.narrow(dim, 0, 1) - first, y.narrow(dim, y.shape[dim] - 1, 1) - last]
            y = torch.cat([ends[0], y.narrow(dim, 1, y.shape[dim] - 2), ends[1]], dim=dim)
        else:
            y.narrow(dim, 0, 1).sub_(first)
            y.narrow(dim, y.shape[dim] - 1, 1).sub_(last)
    return y


def is_tracing() -> bool:
    """Tell whether the network is being traced for another engine."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _beyond_the_edge(x: Tensor, weight: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What the ring around the upsampled map adds to its convolution.

    Returns:
        For the first and the last row (B, O, 1, 2W), for the first and last column (B, O, 2H, 1).
        The corners of the ring are in the rows.
    """
    taps = weight.permute(2, 3, 0, 1)  # [33IO], in memory side by side; turned: the last is first
    sides = []
    for lines, weights, beyond in (
        (x[:, :, 0], taps[2], 1),
        (x[:, :, -1], taps[0], 1),
        (x[:, :, :, 0], taps[:, 2], 0),
        (x[:, :, :, -1], taps[:, 0], 0),
    ):
        line = _double(lines, beyond).transpose(1, 2)[:, None]  # [B1NI]
        each = torch.matmul(line, weights)  # [B3NO]
        if not beyond:  # the corners, which the rows have, count as zero
            each = F.pad(each, (0, 0, 1, 1))
        length = each.shape[2] - 2
        side = sum(each[:, 2 - tap, tap : tap + length] for tap in range(3))
        sides.append(torch.as_tensor(side).transpose(1, 2).unsqueeze(3 - beyond))
    return sides[:2], sides[2:]


def _double(lines: Tensor, beyond: int) -> Tensor:
    """Double the resolution of (B, C, N) linearly, with so many samples beyond either end."""
    lines = F.pad(lines, (1, 1), mode="replicate")
    doubled = F.interpolate(lines, scale_factor=2.0, mode="linear", align_corners=False)
    return doubled[:, :, 2 - beyond : doubled.shape[2] - 2 + beyond]


def nearest_weight(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) as `nearest_conv` takes them: (4 O, I, 2, 2), one set for each phase.

    On a map whose pixels are doubled, a 3x3 window sees 2x2 different ones: which of its taps fall
    on the same one depends on whether row and column are even, and those add up.
    """
    even = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])  # 2 pixels x 3 taps
    odd = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    phases = [
        torch.einsum("oiyx,py,qx->oipq", weight.double(), rows.double(), columns.double())
        for rows in (even, odd)
        for columns in (even, odd)
    ]
    return torch.cat(phases).to(weight.dtype)


def in_bands(
    run: Callable[[int, int], Sequence[Tensor]],
    rows: int,
    band: int,
    margin: int,
    scale: float,
) -> list[Tensor]:
    """Compute feature maps some rows at a time.

    Args:
        run: called with the first row and the one after the last of the input; gives maps
            (B, C, H, W), all of as many rows as ``scale`` makes of those. The ``margin`` rows at
            either end are cut off, unless there the picture ends.
        rows: of the input.
        band: rows of the input at a time; so many or more than there are means all at once.
        margin: rows of the input that the outermost row of a band depends on.
        scale: rows of output for a row of input; of the last rows, more or less.

    Returns:
        The maps of all rows.
    """
    if band >= rows:
        return list(run(0, rows))
    whole: list[Tensor] = []
    for start in range(0, rows, band):
        stop = min(start + band, rows)
        low, high = max(start - margin, 0), min(stop + margin, rows)
        parts = run(low, high)
        if not whole:
            whole = [
                torch.empty(
                    (piece.shape[0], piece.shape[1], math.ceil(rows * scale), piece.shape[3]),
                    dtype=piece.dtype,
                    device=piece.device,
                    memory_format=NHWC,
                )
                for piece in parts
            ]
        first, count = int((start - low) * scale), math.ceil((stop - start) * scale)
        for total, piece in zip(whole, parts, strict=True):
            total[:, :, int(start * scale) :][:, :, :count] = piece[:, :, first : first + count]
    return whole


def band_of(rows: int, bytes_a_row: int, device: torch.device, step: int = 2) -> int:
    """Rows of a band: on a CPU as many as `BAND_BYTES` allow, in steps; for other engines all."""
    if device.type != "cpu" or is_tracing():
        return rows
    count = -(-rows * bytes_a_row // BAND_BYTES)
    return step * -(-rows // (step * count))
