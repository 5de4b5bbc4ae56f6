"""Enlarge frames with a network: the background onto which restored faces are pasted.

The networks are those that the optional package spandrel knows (Real-ESRGAN, SwinIR and so on). A
frame goes through in tiles, so that memory depends on the tiles' size and not on the frame's.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .devices import deterministic, in_chunks, pick
from .faces import Progress
from .networks.spandrel_adapter import load_descriptor
from .tensors import check_frames, clamp01, resize
from .weights import WeightsError
from .weights.loading import load_state_dict
from .weights.resolve import refer
from .weights.store import Weights

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

logger = logging.getLogger(__name__)

TILE = 256
"""Side of a tile in pixels of the frame, without its margins."""
MARGIN = 32
"""Pixels of the frame that a tile sees beyond its side; neighbors fade into each other there."""


class Upscaler:
    """Enlarges frames by the factor of a network."""

    def __init__(
        self, model: ImageModelDescriptor[Any], *, device: torch.device | str | None = None
    ) -> None:
        """Take a model that spandrel has loaded.

        Args:
            model: takes and gives RGB.
            device: where to run; None leaves the model where it is.
        """
        self.model = model.eval() if device is None else model.eval().to(device)
        self.scale: int = model.scale
        """How many times as large the result is."""

    @property
    def device(self) -> torch.device:
        """Where the network is, and therefore runs."""
        device: torch.device = self.model.device
        return device

    @torch.no_grad()  # not inference mode, for faces are pasted into the result in place
    def enlarge(
        self, frames: Tensor, factor: float | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """Enlarge frames.

        When memory runs out, lower tiles go through the network, and a log line says so. The
        network sees values clipped to [0, 1]; alpha is enlarged by interpolation.

        Args:
            frames: (B, 3 or 4, H, W) RGB or RGBA, nominally in [0, 1].
            factor: size of the result relative to the frames; None for the network's `scale`.
            progress: called with (rows of tiles done, rows in all); may raise to cancel.

        Returns:
            (B, 3 or 4, H * factor, W * factor) of the frames' type, on their device.

        Raises:
            ValueError: the frames are no such tensor.
        """
        check_frames(frames)
        count, channels, height, width = frames.shape
        factor = self.scale if factor is None else factor
        sides = max(1, round(height * factor)), max(1, round(width * factor))
        result = frames.new_empty((count, channels, *sides))
        strips = _starts(width)
        total, done = count * len(strips) * height, 0
        for index, frame in enumerate(frames):
            large = torch.zeros(3, height * self.scale, width * self.scale)
            for left, right in zip(strips, [*strips[1:], width], strict=True):
                for top, bottom in self._strip(frame, large, left, right):
                    done += bottom - top
                    if progress is not None:
                        progress(done, total)
            fitted = large[None] if large.shape[1:] == sides else resize(large[None], *sides)
            result[index, :3] = fitted[0].to(result)
            if channels == 4:
                result[index, 3:] = resize(frame[None, 3:], *sides)[0]
        return result

    def _strip(self, frame: Tensor, large: Tensor, left: int, right: int) -> Any:
        """Enlarge the columns left to right of a frame into ``large``; yields the rows done."""
        height, width = frame.shape[1:]
        first, last = max(0, left - MARGIN), min(width, right + MARGIN)
        columns = _ramp(left, right, first, last, width, self.scale)
        rows_sum = torch.zeros(height * self.scale)
        strip = torch.zeros(3, height * self.scale, (last - first) * self.scale)

        def run(top: int, bottom: int) -> tuple[int, int, int, Tensor]:
            start, stop = max(0, top - MARGIN), min(height, bottom + MARGIN)
            tile = clamp01(frame[None, :3, start:stop, first:last].float()).to(self.device)
            with deterministic(self.device, allow_tf32=False):
                return top, bottom, start, self.model(tile)[0].float().cpu()

        hint = "a single row of a tile is too much for the upscaler; run it on the CPU."
        for top, bottom, start, tile in in_chunks(run, height, TILE, self.device, hint):
            stop = start + tile.shape[1] // self.scale
            rows = _ramp(top, bottom, start, stop, height, self.scale)
            span = slice(start * self.scale, stop * self.scale)
            strip[:, span] += tile * rows[:, None]
            rows_sum[span] += rows
            yield top, bottom
        target = slice(first * self.scale, last * self.scale)
        large[:, :, target] += strip / rows_sum[:, None] * columns


def _starts(length: int) -> list[int]:
    """List where tiles begin along a length, all of about one size; of `TILE` at most."""
    count = -(-length // TILE)
    return [length * index // count for index in range(count)]


def _ramp(low: int, high: int, start: int, stop: int, length: int, scale: int) -> Tensor:
    """Weigh the pixels of a tile along one side: 1 inside, falling over the margins to its ends.

    Two neighbors' weights add up to 1. The outer half of a margin counts nothing: what a network
    makes of the end of its input is the worst of it.

    Args:
        low: first pixel of the frame that is the tile's own.
        high: end of these.
        start: first pixel that the tile sees.
        stop: end of these.
        length: of the frame's side.
        scale: of the network.
    """
    position = (torch.arange(start * scale, stop * scale) + 0.5) / scale
    half = MARGIN / 2
    rise = (position - low + half) / MARGIN if low > 0 else torch.ones_like(position)
    fall = (high + half - position) / MARGIN if high < length else torch.ones_like(position)
    return rise.clamp(0, 1) * fall.clamp(0, 1)


def load_upscaler(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
) -> Upscaler:
    """Load an upscaler by its name in the catalogue or from its file.

    Args:
        name: of an upscaler in the catalogue ("realesrgan-x4plus"), or a checkpoint that spandrel
            knows.
        device: where to run; see `devices.pick`.
        weights: where named weights are looked for, which are downloaded if they are not on this
            machine; by default as the user's settings say.
        progress: of a download, see `Weights.get`.

    Raises:
        ImportError: spandrel is not installed; names the extra.
        WeightsError: it is neither, its weights are not available, or it enlarges nothing.
    """
    weights = Weights() if weights is None else weights
    file = refer(name, "upscaler", weights).fetch(weights, progress).file
    state, _ = load_state_dict(file)
    try:
        model = load_descriptor(state)
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from error
    channels = (model.input_channels, model.output_channels)
    if model.scale < 2 or channels != (3, 3):
        raise WeightsError(
            f"{file}: {model.architecture.id} makes RGB pictures no larger; a model for the "
            "background must"
        )
    return Upscaler(model, device=pick(device))
