"""The high-quality dictionary: RestoreFormer's first stage, a codec trained on undegraded faces.

Source: Wang et al., "RestoreFormer" (2022), section 3.2. An encoder gives features Z_h of a clean
face, each is replaced by its nearest entry of a dictionary (eq. 14), and a decoder makes the face
again. What the codec needs to do that well is learned into the dictionary (eq. 15 and 16), from
which `restoreformer.RestoreFormer` takes the details of faces that have lost theirs. Encoder and
decoder are RestoreFormer's own; the decoder attends to itself instead of to a degraded face.

The tensors have the names and shapes of RestoreFormer's, so that `RestoreFormer.start_from` can
copy them, and nothing but its name tells a file of this network from one of RestoreFormer.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from .restoreformer import Codec
from .vqgan import straight_through


class Reconstruction(NamedTuple):
    """A face through the codec, and what its training minimizes besides."""

    image: Tensor
    """(B, 3, H, W) RGB, about [-1, 1], not clamped."""
    codebook_loss: Tensor
    """L'_d of eq. 15, a scalar: brings the codes to the features."""
    commitment_loss: Tensor
    """L'_c of eq. 16, a scalar: brings the features to the codes."""
    indices: Tensor
    """(B, h, w) int64: the codes chosen, of which training can see how many are in use."""


class HQDictionary(Codec):
    """The codec of clean faces, whose codebook is the dictionary; in the paper's size by default.

    Both losses are means over all numbers, as in the released code, where the paper writes sums.
    """

    def decode(self, values: Tensor) -> Tensor:
        """A picture from codes: (B, C, h, w) -> (B, 3, H, W) RGB, about [-1, 1], not clamped.

        `quantize` gives them from the features of `encode`; ``quantize.look_up`` from indices.
        """
        result: Tensor = self.decoder(self.post_quant_conv(values))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """A face encoded, quantized and decoded.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1]: aligned faces of high quality. H and W are multiples
                of 32.

        Returns:
            (B, 3, H, W) RGB, about [-1, 1], not clamped.

        Raises:
            ValueError: the picture's sides are no such multiples.
        """
        z, _ = self.encode(x)
        return self.decode(self.nearest_codes(z).values)

    def forward_with_losses(self, x: Tensor) -> Reconstruction:
        """As `forward`, for training.

        The nearest code has no gradient, so the decoder's goes to the encoder as if there were no
        quantization (straight through); the codebook learns by its loss alone.
        """
        z, _ = self.encode(x)
        codes = self.nearest_codes(z)
        return Reconstruction(
            image=self.decode(straight_through(z, codes.values)),
            codebook_loss=F.mse_loss(codes.values, z.detach()),
            commitment_loss=F.mse_loss(z, codes.values.detach()),
            indices=codes.indices,
        )
