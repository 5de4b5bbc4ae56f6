"""The patch discriminator: which parts of a picture look real, for RestoreFormer's training.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017),
section 3.2.2 and appendix 6.1.2; RestoreFormer (Wang et al., 2022) says of its D only that it is
trained on the face picture (eq. 12 and 17), and its released code takes this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .state import load_exactly, unfilled, width_of


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 that judge overlapping patches, of 70 x 70 pixels by default.

    Of the layers the first ``n_layers`` halve the resolution. All but the first and the last have
    batch normalization, which takes the place of their bias. Weights begin as N(0, 0.02). With
    ``plain`` there is none, for batches of few windows, and the weights of all but the last begin
    as He et al. (2015) say, or the signal of so small weights would fade.

    Raises:
        ValueError: there is not at least one layer.
    """

    def __init__(
        self,
        ndf: int = 64,  # width of the first layer; doubled by each further one, up to 8 times
        n_layers: int = 3,  # that halve the resolution
        plain: bool = False,  # without normalization
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, not {n_layers}")
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = ndf
        for layer in range(1, n_layers + 1):
            before, width = width, ndf * min(2**layer, 8)
            stride = 2 if layer < n_layers else 1
            conv = nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=plain)
            norm = [] if plain else [nn.BatchNorm2d(width)]
            layers += [conv, *norm, nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                if plain and module is not self.main[-1]:
                    nn.init.kaiming_normal_(module.weight, a=0.2)
                else:
                    nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1], of at least 24 x 24 pixels (with three layers).

        Returns:
            (B, 1, h, w) scores before any squashing, higher for real; 62 x 62 at 512 x 512.
        """
        result: Tensor = self.main(x)
        return result

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], **overrides: Any) -> PatchDiscriminator:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        layers = sum(key.endswith(".running_mean") for key in state)
        arguments = {"ndf": width_of(state, "main.0.weight", 0), "n_layers": layers}
        with unfilled():
            net = cls(**{**arguments, **overrides})
        return load_exactly(net, state)
