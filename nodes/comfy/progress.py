"""The progress bar of a node, with previews, and the user's cancel."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
from PIL import Image
from torch import Tensor

PREVIEW_SIDE = 512
_STEPS = 1000  # of a bar in stages


class Bar:
    """A node's progress bar: call it with (done, total); it raises when the user cancels."""

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None
        self._preview: tuple[str, Image.Image, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total, self._preview)
        self._preview = None

    def stage(self, start: float, stop: float) -> Callable[[int, int], None]:
        """Return the progress of one stage, which moves the bar from one share to another."""

        def move(done: int, total: int) -> None:
            share = start + (stop - start) * (done / total if total else 1.0)
            self(round(_STEPS * share), _STEPS)

        return move

    def preview(self, crops: Tensor) -> None:
        """Show the last of (N, 3, S, S) crops in [0, 1] with the next step of the bar."""
        pixels = crops[-1].movedim(0, -1).mul(255).round().byte().cpu().numpy()
        self._preview = ("JPEG", Image.fromarray(pixels), PREVIEW_SIDE)
