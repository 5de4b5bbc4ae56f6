"""Small networks whose weights are the same on every machine, for outputs that are stored."""

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gfp_core.networks.codeformer import CodeFormer
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.networks.gpen import GPEN
from gfp_core.networks.lite import GFPGANLite
from gfp_core.networks.pmrf import PMRF
from gfp_core.networks.pose_varied import PoseVaried
from gfp_core.networks.restoreformer import RestoreFormer, RestoreFormerPlusPlus

SMALL_GFPGAN: dict[str, Any] = {"out_size": 32, "num_style_feat": 16, "narrow": 0.0625}
SMALL_CODEC: dict[str, Any] = {
    "n_embed": 64,
    "embed_dim": 16,
    "ch": 32,
    "ch_mult": (1, 2, 1),
    "num_res_blocks": 1,
    "z_channels": 16,
}
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "GFPGANv1Clean": (GFPGANClean, {**SMALL_GFPGAN, "channel_multiplier": 2}),
    "GFPGANv1": (GFPGANv1, SMALL_GFPGAN),
    "GFPGANBilinear": (GFPGANBilinear, SMALL_GFPGAN),
    "GPEN": (GPEN, {**SMALL_GFPGAN, "channel_multiplier": 2}),
    "RestoreFormer": (RestoreFormer, SMALL_CODEC),
    "RestoreFormerPlusPlus": (RestoreFormerPlusPlus, SMALL_CODEC),
}
MORE = ("lite", "CodeFormer", "PoseVaried")
"""Further restorers that `small_restorer` makes; and ``PMRF``, which goes in steps."""
SMALL_FLOW: dict[str, Any] = {
    "widths": (16, 32, 48),
    "depths": (2, 1, 1),
    "head_widths": (8, 16, 16),
    "feed_forward": (24, 40, 56),
    "patch_size": 4,
    "mapping_width": 12,
    "mapping_depth": 2,
    "mapping_feed_forward": 20,
}
SMALL_MEAN: dict[str, Any] = {"size": 128, "channels": 12, "depths": (2, 3), "heads": 6, "mlp": 24}
FULL_SIZE: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "full-size RestoreFormer": (RestoreFormer, {}),
    "full-size RestoreFormerPlusPlus": (RestoreFormerPlusPlus, {}),
    "full-size CodeFormer": (CodeFormer, {}),
}
"""With group normalization over whole maps of 512 x 512 pixels, where rounding adds up."""
GRID = 13
"""Step of the pixels of which the full-size outputs are stored."""
EQUALIZED = ("GFPGANv1", "GFPGANBilinear", "GPEN")
"""These scale their weights when they run: standard normal numbers are what they expect."""


def network(name: str) -> nn.Module:
    """A network of the tables with weights that are drawn by each tensor's name."""
    kind, arguments = (NETWORKS | FULL_SIZE)[name]
    net = kind(**arguments).eval()
    state = {
        key: _values(key, tensor, name in EQUALIZED)
        for key, tensor in net.state_dict().items()
        if "kernel" not in key  # of a filter: no weights
    }
    net.load_state_dict(state, strict=False)
    return net


def picture(side: int) -> Tensor:
    """(1, 3, side, side) in [-1, 1], RGB: noise, and a slope that a network must not lose."""
    noise = np.random.RandomState(7).uniform(-0.3, 0.3, (1, 3, side, side))
    return torch.from_numpy((noise + np.linspace(-0.7, 0.7, side)).astype(np.float32))


def _values(key: str, tensor: Tensor, equalized: bool) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    values = random.standard_normal(tuple(tensor.shape))
    if tensor.ndim < 2:
        values = values / 10 + key.endswith("weight")
    elif not equalized and "noise" not in key and not key.endswith("embedding.weight"):
        values /= np.prod(tensor.shape[1:]) ** 0.5
    return torch.from_numpy(values.astype(np.float32))


def small_restorer(name: str) -> tuple[nn.Module, int]:
    """Make a small network of `NETWORKS` or `MORE`; its side in pixels."""
    torch.manual_seed(0)
    if name == "PoseVaried":
        varied = PoseVaried(out_size=32, num_style_feat=16, narrow=0.03125, num_mlp=2).eval()
        with torch.no_grad():
            for parameter in varied.parameters():  # none is as it begins, which may be zero
                parameter.add_(0.1 * torch.randn_like(parameter))
        return varied, 32
    if name == "PMRF":
        flow = PMRF(flow=SMALL_FLOW, mean=SMALL_MEAN).eval()
        flow.default_steps = 2
        return flow, 128
    if name == "lite":
        return GFPGANLite(out_size=64, narrow=0.0625, num_style_feat=16).eval(), 64
    if name == "CodeFormer":
        net = CodeFormer(
            ch=32, ch_mult=(1, 2, 4), num_res_blocks=1, embed_dim=32, n_embed=64, dim_embd=32
        )
        return net.eval(), net.out_size
    return network(name), 64 if "RestoreFormer" in name else 32
