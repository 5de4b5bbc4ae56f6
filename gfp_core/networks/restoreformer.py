"""RestoreFormer and RestoreFormer++: cross-attention from a degraded face to a dictionary of faces.

Sources: Wang et al., "RestoreFormer: High-Quality Blind Face Restoration from Undegraded Key-Value
Pairs" (2022), and "RestoreFormer++" by the same authors (2023). An encoder gives features Z_d of
the degraded face (section 3.1); each is looked up in a dictionary of high-quality faces, which
gives the priors Z_p (eq. 7); cross-attention joins them (eq. 1 to 6 and 8), with queries from the
face and keys and values from the priors; a decoder makes the picture. The dictionary is learned
beforehand (section 3.2): see `hq_dictionary`, which has the same parts.

Where the paper and the released code differ the released code is followed, for checkpoints obey it:

- a cross-attention is ``prior + projection(attention)`` with group normalization before, not
  FFN(LN(attention + prior)) (eq. 5 and 6);
- there are four in a row (one in the middle and three at the first level of the decoder), between
  residual blocks, instead of the two of eq. 8; each asks with a feature of its own depth of the
  encoder;
- pooling is a strided convolution; the encoder attends to itself.

RestoreFormer++ attends at one more level, 32 x 32, and in 4 heads instead of 8.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from .state import load_exactly, unfilled, width_of
from .vqgan import (
    Attention,
    Downsample,
    Quantized,
    ResBlock,
    Upsample,
    VectorQuantizer,
    norm,
    straight_through,
)

Net = TypeVar("Net", bound="Codec")

_IGNORED = ("quantize.utility_counter",)  # a statistic of training in the authors' checkpoints


class CrossAttention(Attention):
    """Attention in which a degraded feature asks and the prior answers (paper, section 3.1)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.norm1 = norm(channels)  # of the prior
        self.norm2 = norm(channels)  # of the degraded feature; unused in self-attention

    def forward(self, prior: Tensor, degraded: Tensor | None = None) -> Tensor:
        """Join two (B, C, H, W) maps; without ``degraded`` the prior attends to itself."""
        answering = self.norm1(prior)
        asking = answering if degraded is None else self.norm2(degraded)
        return prior + self.attend(asking, answering)


class Level(nn.Module):
    """The blocks at one resolution: residual ones, each followed by an attention if it has them."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, heads: int | None) -> None:
        super().__init__()
        widths = [in_channels, *[out_channels] * blocks]
        self.block = nn.ModuleList(ResBlock(i, o) for i, o in itertools.pairwise(widths))
        self.attn = nn.ModuleList(
            CrossAttention(out_channels, heads) for _ in range(blocks) if heads is not None
        )

    def forward(self, x: Tensor, degraded: Tensor | None = None) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W); ``degraded`` (B, O, H, W) is what asks."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x, degraded)
        return x


class Middle(nn.Module):
    """The deepest blocks."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = CrossAttention(channels, heads)
        self.block_2 = ResBlock(channels, channels)


class Encoder(nn.Module):
    """From a picture to features before quantization."""

    def __init__(
        self, widths: Sequence[int], blocks: int, z_channels: int, heads: int, feature_levels: int
    ) -> None:
        super().__init__()
        self.feature_levels = feature_levels
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(itertools.pairwise([widths[0], *widths])):
            last = i == len(widths) - 1
            level = Level(before, width, blocks, heads if last else None)
            if not last:
                level.add_module("downsample", Downsample(width))
            self.down.append(level)
        self.mid = Middle(widths[-1], heads)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encode (B, 3, H, W).

        Returns:
            (B, Z, h, w); and the features that ask in the decoder, in its order: of the middle,
            of the deepest level, of the level above it, ... (``feature_levels`` of them).
        """
        degraded: list[Tensor] = []
        x = self.conv_in(x)
        for i, level in enumerate(self.down):
            x = level(x)
            if i < len(self.down) - 1:
                if i >= len(self.down) - self.feature_levels:
                    degraded.insert(0, x)
                x = level.get_submodule("downsample")(x)
        x = self.mid.block_1(x)
        degraded.insert(0, x)
        x = self.mid.block_2(self.mid.attn_1(x))
        degraded.insert(0, x)
        return self.conv_out(F.silu(self.norm_out(x))), degraded


class Decoder(nn.Module):
    """From quantized features, and features of the encoder that ask, to a picture."""

    def __init__(
        self, widths: Sequence[int], blocks: int, z_channels: int, heads: int, attended: int
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], heads)
        self.up = nn.ModuleList()
        for i, (width, below) in enumerate(itertools.pairwise([*widths, widths[-1]])):
            attends = i >= len(widths) - attended
            level = Level(below, width, blocks + 1, heads if attends else None)
            if i > 0:
                level.add_module("upsample", Upsample(width))
            self.up.append(level)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor, degraded: Iterable[Tensor] | None = None) -> Tensor:
        """Decode (B, Z, h, w) to (B, 3, H, W).

        Args:
            z: quantized features.
            degraded: the features that ask, from the encoder; None for self-attention.
        """
        asking = itertools.repeat(None) if degraded is None else iter(degraded)
        x = self.conv_in(z)
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x), next(asking)))
        for i in reversed(range(len(self.up))):
            level = self.up[i]
            x = level(x, next(asking)) if level.attn else level(x)
            if i > 0:
                x = level.get_submodule("upsample")(x)
        result: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return result


class Codec(nn.Module):
    """Encoder, dictionary and decoder: what the dictionary's network and the restorers share.

    Raises:
        ValueError: the heads do not divide the widths at which there is attention, or a width is
            no multiple of 32.
    """

    attended: ClassVar[int] = 1
    """Levels of the decoder, from the deepest up, that attend."""
    published_heads: ClassVar[int] = 8
    """Heads of the released networks, of which the tensors tell nothing."""
    out_size: int = 512
    """Side in pixels of the crops that the published networks are trained on."""

    def __init__(
        self,
        ch: int = 64,  # width at full resolution
        ch_mult: Sequence[int] = (1, 2, 2, 4, 4, 8),  # factor on it at each level, finest first
        num_res_blocks: int = 2,  # a level of the encoder; the decoder has one more
        z_channels: int = 256,  # of encoder's output and decoder's input
        embed_dim: int = 256,  # length of a code
        n_embed: int = 1024,  # codes in the dictionary
        heads: int | None = None,  # of every attention; by default the released network's
    ) -> None:
        super().__init__()
        heads = self.published_heads if heads is None else heads
        widths = [ch * factor for factor in ch_mult]
        self.encoder = Encoder(widths, num_res_blocks, z_channels, heads, self.attended)
        self.decoder = Decoder(widths, num_res_blocks, z_channels, heads, self.attended)
        self.quantize = VectorQuantizer(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features to look up, and those that ask in the decoder.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1]; H and W are multiples of 2 ** (levels - 1), which is
                32 in the published size.

        Returns:
            (B, C, h, w) and, for `Decoder`, a list of features.

        Raises:
            ValueError: the picture's sides are no such multiples.
        """
        step = 2 ** (len(self.encoder.down) - 1)
        height, width = x.shape[-2:]
        if height % step or width % step:
            raise ValueError(
                f"{type(self).__name__} takes multiples of {step} pixels, not {width} x {height}"
            )
        z, degraded = self.encoder(x)
        return self.quant_conv(z), degraded

    def nearest_codes(self, z: Tensor) -> Quantized:
        """The nearest entries of the dictionary (eq. 7 and 14)."""
        result: Quantized = self.quantize(z)
        return result

    @classmethod
    def from_state_dict(cls: type[Net], state: Mapping[str, Tensor], **overrides: Any) -> Net:
        """Build the network that a state dict belongs to, and load it: a copy, float32, on the CPU.

        Args:
            state: all parameters under their official names.
            overrides: constructor arguments to use instead of the inferred ones; ``heads``, say.

        Raises:
            ValueError: tensors are missing, too many or of another shape; says which.
        """
        state = {key: tensor for key, tensor in state.items() if key not in _IGNORED}
        with unfilled():
            net = cls(**{**infer_hyperparameters(state), **overrides})
        return load_exactly(net, state)


class RestoreFormer(Codec):
    """RestoreFormer, in the size of the paper by default."""

    def forward(self, x: Tensor) -> Tensor:
        """Restore faces.

        Args:
            x: (B, 3, H, W) RGB in [-1, 1]: aligned faces. H and W are multiples of 32; it was
                trained at 512.

        Returns:
            (B, 3, H, W) RGB, about [-1, 1], not clamped.

        Raises:
            ValueError: the picture's sides are no such multiples.
        """
        return self.forward_with_priors(x)[0]

    def forward_with_priors(self, x: Tensor) -> tuple[Tensor, Tensor, Quantized]:
        """As `forward`, with Z_d and its priors Z_p, which training brings together (eq. 10).

        The gradient of the decoder's input goes to Z_d (straight through).
        """
        z, degraded = self.encode(x)
        priors = self.nearest_codes(z)
        features = self.post_quant_conv(straight_through(z, priors.values))
        return self.decoder(features, degraded), z, priors

    def start_from(self, dictionary: Codec) -> list[str]:
        """Begin training where the dictionary's network ended (paper, sections 3.2 and 4.2).

        Encoder, decoder and codebook are copied, and the codebook no longer learns.

        Args:
            dictionary: the trained network, a `hq_dictionary.HQDictionary`.

        Returns:
            The names of the tensors that the dictionary's network does not have, which stay as
            they are: none, but for the additional attentions of RestoreFormer++.

        Raises:
            ValueError: a tensor has another shape, or the dictionary has one too many.
        """
        state, own = dictionary.state_dict(), self.state_dict()
        wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
        if wrong:
            raise ValueError(
                f"the dictionary is not one of this network: tensor '{wrong[0]}' does not fit "
                f"({len(wrong)} of {len(state)} do not)"
            )
        self.load_state_dict(state, strict=False)
        self.quantize.requires_grad_(False)
        return [key for key in own if key not in state]


class RestoreFormerPlusPlus(RestoreFormer):
    """RestoreFormer++: cross-attention at 32 x 32 as well."""

    attended = 2
    published_heads = 4


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments of `Codec`, but for ``heads``, read from names and shapes.

    Args:
        state: the state dict, under the official names.

    Raises:
        ValueError: a tensor that is needed for this is missing or of a shape that makes no sense.
    """

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, key) is not None for key in state)

    ch = width_of(state, "encoder.conv_in.weight", 0)
    levels = max(1, count(r"encoder\.down\.\d+\.block\.0\.conv2\.weight"))
    return {
        "ch": ch,
        "ch_mult": [
            width_of(state, f"encoder.down.{i}.block.0.conv2.weight", 0) // ch
            for i in range(levels)
        ],
        "num_res_blocks": count(r"encoder\.down\.0\.block\.\d+\.conv2\.weight"),
        "z_channels": width_of(state, "quant_conv.weight", 1),
        "embed_dim": width_of(state, "quantize.embedding.weight", 1),
        "n_embed": width_of(state, "quantize.embedding.weight", 0),
    }
