"""PMRF: a rectified flow that carries the posterior mean to a likely face.

Source: Ohayon et al., "Posterior-Mean Rectified Flow: Towards Minimum MSE Photo-Realistic Image
Restoration" (ICLR 2025), algorithm 1, under the names of its published tensors. `SwinIR` gives the
mean; noise of deviation 0.1 is added; Euler steps follow the velocity that `HourglassTransformer`
sees, from time 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import hourglass, swinir
from .hourglass import HourglassTransformer
from .state import load_exactly, unfilled
from .swinir import SwinIR

DEFAULT_STEPS = 25
"""Of the authors' command."""
NOISE = 0.1
"""Deviation of the noise on the mean of a picture in [0, 1]: sigma_s of the paper."""
# The evaluation of the authors' training, which lies in their file too.
_BESIDE = ("fid.", "inception_score.")


class PMRF(nn.Module):
    """RGB in [-1, 1] to the same, in steps.

    Args:
        flow: arguments of `HourglassTransformer`.
        mean: arguments of `SwinIR`.
    """

    def __init__(
        self, flow: Mapping[str, Any] | None = None, mean: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model = HourglassTransformer(**(flow or {}))
        self.out_size: int = {"size": 512, **(mean or {})}["size"]
        self.mmse_model = SwinIR(**(mean or {}))
        self.noises = FixedNoise(self.out_size)
        self.default_steps = DEFAULT_STEPS

    @property
    def bytes_per_face(self) -> int:
        """Memory beside the weights, measured in float32 at 512 px: 0.65 GB."""
        return 650_000_000 * self.out_size**2 // 512**2

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        """Restore (B, 3, S, S) in as many steps."""
        mean = self.mmse_model((x + 1) / 2).float().clamp(0, 1)
        start = mean + NOISE * self.noises.noise

        def velocity(pictures: Tensor, time: float) -> Tensor:
            times = pictures.new_full([len(pictures)], time)
            change: Tensor = self.model(pictures, times).float()
            return change

        return integrate(velocity, start, steps or self.default_steps).clamp(0, 1) * 2 - 1

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> PMRF:
        """Build what ``state`` belongs to and load it.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        state = {key: value for key, value in state.items() if not key.startswith(_BESIDE)}
        with unfilled():
            net = cls(**infer_hyperparameters(state))
        load_exactly(net, state)
        net.noises = FixedNoise(net.out_size)
        return net


class FixedNoise(nn.Module):
    """The noise where no seed is given: the same for every face, and in every run."""

    noise: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, 3, size, size, generator=generator, device="cpu")
        self.register_buffer("noise", noise, persistent=False)


def integrate(velocity: Callable[[Tensor, float], Tensor], start: Tensor, steps: int) -> Tensor:
    """Follow a velocity from time 0 to 1 in equal Euler steps (algorithm 1).

    Args:
        velocity: of a state at a time.
        start: the state at time 0.
        steps: how many.
    """
    state = start
    for index in range(steps):
        state = state + velocity(state, index / steps) / steps
    return state


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the constructor arguments from a state dict's names and shapes.

    Raises:
        ValueError: a tensor is missing or cannot be of this network; names it.
    """
    return {
        "flow": hourglass.infer_hyperparameters(state, "model."),
        "mean": swinir.infer_hyperparameters(state, "mmse_model."),
    }
