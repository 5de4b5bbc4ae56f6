"""One process, or several that train together, each with a GPU of its own (through accelerate)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import pick


@dataclass(frozen=True)
class Processes:
    """Who trains: this process, and how many there are."""

    device: torch.device
    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes.

        Gathered by hand after the backward pass, in one message, for the networks are run by other
        methods than ``forward`` and differentiated twice, which wrappers of modules do not bear.
        """
        if self.count == 1:
            return
        gradients = [x.grad for x in parameters if x.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        means = flat.split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def average_buffers(self, *modules: nn.Module) -> None:
        """Replace the statistics that networks keep by their mean over the processes."""
        if self.count == 1:
            return
        for module in modules:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.mean(buffer))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, on each of them."""
        if self.count == 1:
            return values
        averaged: Tensor = self.accelerator.reduce(values.detach().clone(), reduction="mean")
        return averaged

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()


def find_processes(device: str | None = None) -> Processes:
    """This process alone, or, started by ``accelerate launch`` or ``torchrun``, one of several.

    Args:
        device: where to train; by default CUDA if there is one. With several processes accelerate
            gives each its own.

    Raises:
        ImportError: there are several, but accelerate is not installed; names the extra.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise ImportError(
                "training in several processes needs accelerate: "
                "pip install 'gfp-face-restoration[train]'"
            ) from error
        accelerator = Accelerator(cpu=device == "cpu")
        own = accelerator.device
        if own.type == "cpu":
            own = torch.device("cpu")  # of "cpu:0", as accelerate has it, torch loads no tensor
        return Processes(own, accelerator.process_index, accelerator.num_processes, accelerator)
    return Processes(pick(device))
