"""What the fast forms of the networks are made of: convolutions after an upsampling, and bands.

Everything here gives what the published form gives, up to rounding, with fewer multiplications or
less memory traffic. Nothing here is differentiated: the published form is the one to train.

Shapes in comments: B batch, I/O input/output channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


def frozen(tensor: Tensor) -> nn.Parameter:
    """A copy that is not trained; with four dimensions its channels lie last in memory."""
    layout = NHWC if tensor.ndim == 4 else torch.contiguous_format
    return nn.Parameter(tensor.detach().clone(memory_format=layout), requires_grad=False)


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
