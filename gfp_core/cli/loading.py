"""What commands load before their work: weights of this machine, devices, detectors, options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .exit_codes import CannotStart

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..detect import FaceDetector
    from ..weights.store import Weights

T = TypeVar("T")


def load(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function that loads what a command needs.

    Raises:
        CannotStart: it failed.
    """
    try:
        return function(*arguments, **options)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        raise CannotStart(str(error)) from error


def load_weights(arguments: argparse.Namespace) -> Weights:
    """The weights of this machine, as the user's settings and the flags ask for.

    Raises:
        CannotStart: the settings or the user's catalogue are wrong.
    """
    from ..weights.settings import Settings
    from ..weights.store import Weights

    if getattr(arguments, "quiet", False):
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # this process is ours
    settings = load(Settings.load, downloads=not arguments.no_download)
    return load(Weights, settings)


def load_restorer_network(
    model: str, weights: Weights, *, person_strength: float = 1.0
) -> nn.Module:
    """The network of a restorer's name or file, with a share of what was learned of a person in it.

    Raises:
        CannotStart: it, or the base of a person's file, is not available.
    """
    from ..pipeline import find_model
    from ..weights.loading import load_network

    path, architecture = load(find_model, model, weights)
    return load(load_network, path, architecture, person_strength=person_strength, weights=weights)


def load_detector(
    arguments: argparse.Namespace, detector: str, device: str | None
) -> tuple[torch.device, Weights, FaceDetector]:
    """The device to run on, the weights of this machine, and the detector.

    Raises:
        CannotStart: one of them is not available.
    """
    from ..pipeline import find_detector, find_device

    target, weights = load(find_device, device), load_weights(arguments)
    return target, weights, load(find_detector, detector, device=target, weights=weights)
