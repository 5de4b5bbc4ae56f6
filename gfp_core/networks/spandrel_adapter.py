"""Models of other architectures, through the optional package spandrel.

spandrel knows some forty architectures for pictures (deblurring, denoising, compression artefacts
and so on). Those that give a picture of the size they take can restore face crops. Its descriptors
take and give RGB in [0, 1], ours [-1, 1]; `SpandrelAdapter` goes between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

USUAL_SIZE = 512
"""Side in pixels of the crops for a model that takes any size."""

# Architectures, by their names in spandrel, that are trained on [-1, 1] and whose descriptors show
# them [0, 1], so that what they give is gray: they are called without the descriptor. (GFP-GAN's
# draws new noise each time besides.) All others' descriptors, RestoreFormer's too, are right.
_SIGNED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "GFPGAN": lambda model, x: model(x, return_rgb=False, randomize_noise=False)[0],
    "MixDehazeNet": lambda model, x: model(x),
}


class SpandrelAdapter(nn.Module):
    """A model of spandrel's as a restorer of this package."""

    def __init__(self, descriptor: ImageModelDescriptor[Any]) -> None:
        """Take a model that spandrel has loaded.

        Args:
            descriptor: the model; it must give RGB pictures of the size of those it takes.

        Raises:
            ValueError: it does something else; says what.
        """
        super().__init__()
        from spandrel import ImageModelDescriptor

        self.architecture = str(descriptor.architecture.id)
        """Its name in spandrel."""
        if not isinstance(descriptor, ImageModelDescriptor):
            raise ValueError(f"{self.architecture} needs a mask besides the picture")
        if descriptor.scale != 1:
            raise ValueError(
                f"{self.architecture} makes pictures {descriptor.scale} times as large, and a "
                "restorer of faces must keep the size"
            )
        channels = (descriptor.input_channels, descriptor.output_channels)
        if channels != (3, 3):
            raise ValueError(
                f"{self.architecture} takes {channels[0]} channels and gives {channels[1]}, and a "
                "restorer of faces takes and gives RGB"
            )
        self.model: nn.Module = descriptor.model  # so that moving this moves it
        self.descriptor = descriptor
        padding, _ = descriptor.size_requirements.get_padding(USUAL_SIZE, USUAL_SIZE)
        self.out_size = USUAL_SIZE + padding
        """Side in pixels of the crops: one that needs no padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1]: aligned faces.

        Returns:
            (B, 3, H, W) RGB in [-1, 1], clamped.
        """
        # A descriptor is made for one picture at a time: some append a map of batch size 1.
        with torch.autocast(x.device.type, enabled=self._may_autocast(x)):
            return torch.cat([self._restore(image) for image in x.split(1)])

    def _may_autocast(self, x: Tensor) -> bool:
        """Whether half precision, if it is on, can stay on."""
        return torch.is_autocast_enabled(x.device.type) and self.descriptor.supports_half

    def _restore(self, x: Tensor) -> Tensor:
        if self.architecture in _SIGNED:
            return _SIGNED[self.architecture](self.model, x).clamp(-1, 1)
        restored: Tensor = self.descriptor((x + 1) / 2)
        return restored * 2 - 1


def from_state_dict(state: Mapping[str, Tensor]) -> SpandrelAdapter:
    """The restorer that ``state`` holds, if spandrel knows its architecture, on the CPU.

    Raises:
        ImportError: spandrel is not installed; names the extra.
        ValueError: spandrel does not know it or cannot load it, or it is no restorer of faces.
    """
    return SpandrelAdapter(_load(state)).eval()


def load_descriptor(state: Mapping[str, Tensor]) -> ImageModelDescriptor[Any]:
    """Load the model of pictures that ``state`` holds as spandrel has it, on the CPU.

    Raises:
        ImportError: spandrel is not installed; names the extra.
        ValueError: spandrel does not know it or cannot load it, or it needs more than a picture.
    """
    from_spandrel = _load(state)
    from spandrel import ImageModelDescriptor

    if not isinstance(from_spandrel, ImageModelDescriptor):
        raise ValueError(f"{from_spandrel.architecture.id} needs a mask besides the picture")
    return from_spandrel


def _load(state: Mapping[str, Tensor]) -> Any:
    try:
        from spandrel import MAIN_REGISTRY, UnsupportedModelError
    except ImportError as error:
        raise ImportError(
            "networks of other kinds need the package spandrel: "
            "pip install 'gfp-face-restoration[spandrel]'"
        ) from error
    try:
        return MAIN_REGISTRY.load(dict(state))
    except UnsupportedModelError as error:
        raise ValueError("spandrel does not know it either") from error
    except Exception as error:  # tensors that do not fit fail in any way; no callback runs in here
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(lines[:2])[:200] or type(error).__name__
        raise ValueError(f"spandrel cannot load it: {reason}") from error
