"""All talk with ComfyUI: its device, its progress bar, its way to cancel."""

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch


def device() -> torch.device:
    """Where ComfyUI runs networks."""
    return comfy.model_management.get_torch_device()


def output_device() -> torch.device:
    """Where ComfyUI keeps what nodes hand on."""
    return comfy.model_management.intermediate_device()


def progress() -> Callable[[int, int], None]:
    """A callback that moves the node's progress bar, and raises when the user cancels."""
    bars: dict[int, comfy.utils.ProgressBar] = {}

    def report(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total not in bars:
            bars[total] = comfy.utils.ProgressBar(total)
        bars[total].update_absolute(done, total)

    return report
