"""GFP-GAN state dicts: what they tell of the network, and from the form of training to that of use.

The names are those of the released code, so that official checkpoints load.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .equalized import SQRT2
from .state import width_of
from .stylegan2 import multiplier_of

MAPPING_LR_MUL = 0.01  # learning-rate multiplier of the equalized mapping network

# Gain that follows a layer of the bilinear form; the first pattern found in a name decides.
_GAINS = (
    (r"^conv_body_(down|up)\.\d+\.conv2\.", 1.0),  # activation, then the sum divided by sqrt(2)
    (r"^conv_body_(down|up)\.\d+\.skip\.", 1 / SQRT2),
    (r"^(conv_body_|final_conv\.)", SQRT2),
    (r"^condition_(scale|shift)\.\d+\.0\.", SQRT2),
    (r"\.style_mlp\.", SQRT2),
    (r"\.style_conv(1|s\.\d+)\.(weight|activate\.bias)$", SQRT2),  # noise strength and bias
)
_RENAMES = (
    (r"\b(conv_body_first|final_conv|conv1|conv2|skip)\.\d\.(weight|bias)$", r"\1.\2"),
    (r"\.(activate|activation)\.bias$", ".bias"),
)


def infer_hyperparameters(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The constructor arguments of `gfpgan.GFPGAN` (any form), read from names and shapes.

    ``input_is_latent`` leaves no trace; it goes with ``different_w``, as in every release.

    Args:
        state: the state dict, under the official names.

    Raises:
        ValueError: a tensor that is needed for this is missing or of a shape that makes no sense.
    """
    decoder = "stylegan_decoder."
    levels = sum(bool(re.match(rf"{decoder}to_rgbs\.\d+\.bias$", key)) for key in state)
    num_style_feat = width_of(state, f"{decoder}style_conv1.modulated_conv.modulation.weight", 1)
    narrow = width_of(state, f"{decoder}constant_input.weight", 1) / 512
    channel_multiplier: float = 2
    if levels >= 4:  # 64 px and up, where the multiplier acts
        width = width_of(state, f"{decoder}to_rgbs.3.modulated_conv.weight", 2)
        channel_multiplier = multiplier_of(width, narrow)
    different_w = width_of(state, "final_linear.weight", 0) != num_style_feat
    condition = "condition_scale.0.{}.weight".format
    return {
        "out_size": 4 * 2**levels,
        "num_style_feat": num_style_feat,
        "channel_multiplier": channel_multiplier,
        "num_mlp": sum(bool(re.match(rf"{decoder}style_mlp\.\d+\.weight$", key)) for key in state),
        "input_is_latent": different_w,
        "different_w": different_w,
        "narrow": narrow,
        "sft_half": width_of(state, condition(2), 0) == width_of(state, condition(0), 0),
    }


def bilinear_to_clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn a state dict of `gfpgan.GFPGANBilinear` into one of `gfpgan.GFPGANClean`.

    Run-time scales and the gains of activations are folded into weights and biases: since
    ``g * leaky(x) = leaky(g * x)`` for g > 0, a gain after an activation can go before it, and in a
    residual block it cancels against the division of the sum. Exact but for rounding (about 4e-6
    on the output).

    Args:
        state: the state dict of a trained network; it is not changed.

    Returns:
        New tensors on the same device, except those that need no change, which are shared.
    """
    clean = {}
    for name, tensor in state.items():
        factor = _factor(name, tensor)
        converted = tensor if factor == 1.0 else tensor.detach() * factor
        if name.endswith(".activate.bias"):
            converted = converted.view(1, -1, 1, 1)
        clean[_clean_name(name)] = converted
    return clean


def clean_to_bilinear(
    state: Mapping[str, Tensor], template: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Turn a state dict of `gfpgan.GFPGANClean` back into one of `gfpgan.GFPGANBilinear`.

    The inverse of `bilinear_to_clean`, so that a released network can be fine-tuned in the form in
    which it was trained. Exact but for rounding.

    Args:
        state: the state dict of the clean form; it is not changed.
        template: state dict of a bilinear network of the same size, for names and shapes.

    Returns:
        Tensors under the names of ``template``; those that ``state`` lacks are missing.
    """
    bilinear = {}
    for name, like in template.items():
        tensor = state.get(_clean_name(name))
        if tensor is None:
            continue
        if tensor.numel() == like.numel():  # else its shape is for whoever loads it to name
            tensor = tensor.detach().view(like.shape) / _factor(name, like)
        bilinear[name] = tensor
    return bilinear


def _factor(name: str, tensor: Tensor) -> float:
    """Compute what a tensor of the bilinear form is multiplied by in the clean one."""
    factor = next((gain for pattern, gain in _GAINS if re.search(pattern, name)), 1.0)
    if ".style_mlp." in name:
        factor *= MAPPING_LR_MUL
    if name.endswith(".weight") and tensor.dim() > 1 and ".constant_input." not in name:
        out_channels = tensor.shape[1] if tensor.dim() == 5 else tensor.shape[0]
        factor /= math.sqrt(tensor.numel() / out_channels)  # the run-time scale
    return factor


def _clean_name(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    # The clean mapping network has its activations as modules of their own.
    return re.sub(r"(\.style_mlp\.)(\d+)", lambda match: f"{match[1]}{2 * int(match[2]) - 1}", name)
