"""CodeFormer: the codes of a clean face, predicted by a transformer from a degraded one.

Source: Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer"
(NeurIPS 2022). Of a codec trained on clean faces (stage 1) the decoder and the codebook are kept;
a transformer predicts from the degraded face's features which codes the clean one would have
(stage 2), instead of taking the nearest; and features of the encoder are let into the decoder by
as much as one wishes (stage 3, controllable feature transformation): the fidelity w, from 0, a face
made of codes alone, of high quality, to 1, faithful to the degraded input.

Written from the paper and the names and shapes of the released tensors, whose weights (S-Lab
License) are for non-commercial use only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .state import load_exactly, unfilled, width_of
from .vqgan import Attention, Downsample, ResBlock, Upsample, VectorQuantizer, full_precision, norm

LATENT = 16
"""Side of the map of codes; one token of the transformer each."""
_SKIP = "conv_out"


class SelfAttention(Attention):
    """Attention of a map to itself, in one head."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, heads=1)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y = self.norm(x)
        return x + self.attend(y, y)


class Blocks(nn.Module):
    """Layers in a row, some of whose outputs are taken from or changed, by their numbers."""

    def __init__(self, blocks: Sequence[nn.Module], taps: Mapping[int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.taps = dict(taps)
        """Which block's output has to do with the fusion, and at what side in pixels."""


def encoder(widths: Sequence[int], blocks: int, channels: int, out_size: int) -> Blocks:
    """Picture to features (B, channels, 16, 16); tapped behind the last block of a size."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
    taps, width, size = {}, widths[0], out_size
    for level, wide in enumerate(widths):
        for _ in range(blocks):
            layers.append(ResBlock(width, wide, _SKIP))
            width = wide
            if size == LATENT:
                layers.append(SelfAttention(width))
        if level < len(widths) - 1:
            if level > 0:
                taps[len(layers) - 1] = size
            layers.append(Downsample(width))
            size //= 2
    layers += [ResBlock(width, width), SelfAttention(width), ResBlock(width, width)]
    return Blocks([*layers, norm(width), nn.Conv2d(width, channels, 3, padding=1)], taps)


def generator(widths: Sequence[int], blocks: int, channels: int) -> Blocks:
    """Codes to picture; tapped behind the first block of a size."""
    width, size = widths[-1], LATENT
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    layers += [ResBlock(width, width), SelfAttention(width), ResBlock(width, width)]
    taps = {}
    for level in reversed(range(len(widths))):
        for block in range(blocks):
            layers.append(ResBlock(width, widths[level], _SKIP))
            width = widths[level]
            if size == LATENT:
                layers.append(SelfAttention(width))
            elif block == 0 and level > 0:
                taps[len(layers) - 1] = size
        if level > 0:
            layers.append(Upsample(width))
            size *= 2
    return Blocks([*layers, norm(width), nn.Conv2d(width, 3, 3, padding=1)], taps)


class TransformerLayer(nn.Module):
    """Self-attention and MLP with normalization before each; positions count for the match only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(B, tokens, width) -> the same; ``positions`` is (tokens, width)."""
        y = self.norm1(x)
        placed = y + positions
        x = x + self.self_attn(placed, placed, y, need_weights=False)[0]
        result: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return result


class Fusion(nn.Module):
    """Controllable feature transformation: the decoder's features led by the encoder's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels, _SKIP)
        self.scale = self._head(channels)
        self.shift = self._head(channels)

    @staticmethod
    def _head(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, encoded: Tensor, decoded: Tensor, fidelity: float) -> Tensor:
        """Both (B, C, H, W): ``decoded`` + w (``decoded`` * scale + shift)."""
        joined = self.encode_enc(torch.cat([encoded, decoded], dim=1))
        result: Tensor = decoded + fidelity * (decoded * self.scale(joined) + self.shift(joined))
        return result


def adopt_statistics(values: Tensor, example: Tensor) -> Tensor:
    """Give each channel of ``values`` mean and deviation of ``example``: AdaIN, both (B, C, H, W).

    It brings the colors of the degraded face to the restored one.
    """

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        return mean, (variance + 1e-5).sqrt()

    mean, deviation = statistics(values)
    wanted_mean, wanted_deviation = statistics(example)
    return (values - mean) / deviation * wanted_deviation + wanted_mean


class CodeFormer(nn.Module):
    """CodeFormer, in its published size by default.

    Raises:
        ValueError: the heads do not divide ``dim_embd``, or a width is no multiple of 32.
    """

    default_fidelity = 0.5
    """The fidelity of the authors' own use."""

    def __init__(
        self,
        ch: int = 64,  # width at full resolution
        ch_mult: Sequence[int] = (1, 2, 2, 4, 4, 8),  # factor on it at each level, finest first
        num_res_blocks: int = 2,  # a level
        embed_dim: int = 256,  # length of a code
        n_embed: int = 1024,  # codes in the codebook
        dim_embd: int = 512,  # width of the transformer
        n_layers: int = 9,  # of the transformer
        heads: int = 8,  # of the transformer
    ) -> None:
        super().__init__()
        if heads < 1 or dim_embd % heads:
            raise ValueError(f"{heads} heads do not divide a width of {dim_embd}")
        self.out_size = LATENT * 2 ** (len(ch_mult) - 1)
        widths = [ch * factor for factor in ch_mult]
        self.encoder = encoder(widths, num_res_blocks, embed_dim, self.out_size)
        self.quantize = VectorQuantizer(n_embed, embed_dim)
        self.generator = generator(widths, num_res_blocks, embed_dim)
        self.position_emb = nn.Parameter(torch.zeros(LATENT * LATENT, dim_embd))
        self.feat_emb = nn.Linear(embed_dim, dim_embd)
        self.ft_layers = nn.ModuleList(TransformerLayer(dim_embd, heads) for _ in range(n_layers))
        self.idx_pred_layer = nn.Sequential(
            nn.LayerNorm(dim_embd), nn.Linear(dim_embd, n_embed, bias=False)
        )
        sizes = [(level, self.out_size // 2**level) for level in range(1, len(widths) - 1)]
        self.fuse_convs_dict = nn.ModuleDict(
            {str(size): Fusion(widths[level]) for level, size in sizes}
        )

    def predict(self, z: Tensor) -> Tensor:
        """How well each code fits each place: features (B, C, 16, 16) -> logits (B, 256, codes)."""
        x = self.feat_emb(z.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        result: Tensor = self.idx_pred_layer(x)
        return result

    def forward(self, x: Tensor, fidelity: float = default_fidelity, adain: bool = True) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, out_size, out_size) RGB in [-1, 1]: aligned faces.
            fidelity: from 0, high quality, to 1, faithful to the input: w of the paper.
            adain: give the codes the statistics of the input's features.

        Returns:
            (B, 3, out_size, out_size) RGB, about [-1, 1], not clamped.

        Raises:
            ValueError: the picture has another size.
        """
        if x.shape[-2:] != (self.out_size, self.out_size):
            raise ValueError(
                f"CodeFormer takes {self.out_size} x {self.out_size} pixels, "
                f"not {x.shape[-1]} x {x.shape[-2]}"
            )
        encoded = {}
        for i, block in enumerate(self.encoder.blocks):
            x = block(x)
            if i in self.encoder.taps and fidelity > 0:
                encoded[self.encoder.taps[i]] = x
        with full_precision(x.device):
            z = x.to(self.position_emb.dtype)
            indices = self.predict(z).argmax(dim=-1).unflatten(1, z.shape[-2:])
            values = self.quantize.look_up(indices)
            y = adopt_statistics(values, z) if adain else values
        for i, block in enumerate(self.generator.blocks):
            y = block(y)
            if i in self.generator.taps and fidelity > 0:
                size = self.generator.taps[i]
                y = self.fuse_convs_dict[str(size)](encoded[size], y, fidelity)
        return y

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], **overrides: Any) -> CodeFormer:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Args:
            state: all parameters under their official names.
            overrides: constructor arguments to use instead of the inferred ones; ``heads``, say,
                of which the tensors tell nothing.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        with unfilled():
            net = cls(**{**infer_hyperparameters(state), **overrides})
        return load_exactly(net, state)


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments of `CodeFormer`, but for ``heads``, read from names and shapes.

    Args:
        state: the state dict, under the official names.

    Raises:
        ValueError: a tensor that is needed for this is missing or of a shape that makes no sense.
    """

    def numbers(pattern: str) -> list[int]:
        matches = (re.fullmatch(pattern, key) for key in state)
        return sorted(int(match[1]) for match in matches if match)

    ch = width_of(state, "encoder.blocks.0.weight", 0)
    levels = numbers(r"encoder\.blocks\.(\d+)\.conv\.weight")  # each ends with its downsampling
    residual = numbers(r"encoder\.blocks\.(\d+)\.conv2\.weight")
    deepest = [number for number in residual if number > (levels[-1] if levels else 0)]
    ends = [width_of(state, f"encoder.blocks.{level}.conv.weight", 0) for level in levels]
    if not deepest:
        raise ValueError("there are no residual blocks 'encoder.blocks.*.conv2.weight'")
    ends.append(width_of(state, f"encoder.blocks.{deepest[-1]}.conv2.weight", 0))
    return {
        "ch": ch,
        "ch_mult": [width // ch for width in ends],
        "num_res_blocks": len(deepest) - 2,  # two more in the middle
        "embed_dim": width_of(state, "quantize.embedding.weight", 1),
        "n_embed": width_of(state, "quantize.embedding.weight", 0),
        "dim_embd": width_of(state, "position_emb", 1),
        "n_layers": len(numbers(r"ft_layers\.(\d+)\.linear1\.weight")),
    }
