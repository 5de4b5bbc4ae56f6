"""StyleGAN2 generators of other projects as the prior of this package's networks.

Three projects name the same tensors in three ways: rosinality's stylegan2-pytorch (whose names GPEN
has, too), BasicSR (GFP-GAN's) and NVIDIA's stylegan2-ada-pytorch and stylegan3. `to_basicsr` brings
the first and the last to the second, `to_feature_generator` that to GPEN's generator, which has
features in the place of noise. NVIDIA's weights are under a non-commercial licence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

_ROSINALITY = (
    (r"^style\.", "style_mlp."),
    (r"^input\.input$", "constant_input.weight"),
    (r"^conv1\.", "style_conv1."),
    (r"^convs\.", "style_convs."),
    (r"^(style_conv1|style_convs\.\d+|to_rgb1|to_rgbs\.\d+)\.conv\.", r"\1.modulated_conv."),
    (r"^(style_conv1|style_convs\.\d+)\.noise\.weight$", r"\1.weight"),
    (r"^noises\.noise_", "noises.noise"),
)
_KERNELS = (".blur.kernel", ".upsample.kernel")  # fixed filters, which BasicSR does not store
_NVIDIA_BLOCK = re.compile(r"synthesis\.b(\d+)\.(const|(conv0|conv1|torgb)\.(.+))")
_NVIDIA_LAYER = {
    "weight": "modulated_conv.weight",
    "affine.weight": "modulated_conv.modulation.weight",
    "affine.bias": "modulated_conv.modulation.bias",
    "noise_strength": "weight",
}


def to_basicsr(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Bring a StyleGAN2 generator to BasicSR's names, those of GFP-GAN's ``stylegan_decoder``.

    Args:
        state: the bare state dict of rosinality's or NVIDIA's generator (``G_ema``), equalized and
            with skip connections to RGB, as StyleGAN2 has them; it is not changed.

    Returns:
        Its tensors, of every resolution; None if it is none of these, BasicSR's own included.
    """
    constant = next((key for key in state if key.endswith("synthesis.b4.const")), None)
    if constant is not None:
        prefix = constant.removesuffix("synthesis.b4.const")
        return _from_nvidia({key.removeprefix(prefix): value for key, value in state.items()})
    if "input.input" not in state or "conv1.conv.weight" not in state:
        return None
    renamed = {}
    for key, tensor in state.items():
        if key.endswith(_KERNELS):
            continue
        for pattern, replacement in _ROSINALITY:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    return renamed


def _from_nvidia(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename NVIDIA's tensors, and give them BasicSR's shapes; their values are the same.

    Both keep equalized weights, apply the same run-time scales (for what is demodulated these
    cancel), double by the same transposed convolution and filter, and give activations a gain of
    sqrt(2).
    """
    renamed = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", key):
            renamed[f"style_mlp.{int(match[1]) + 1}.{match[2]}"] = tensor
            continue
        match = _NVIDIA_BLOCK.fullmatch(key)
        if match is None:
            continue  # averages and filters
        level = int(math.log2(int(match[1]))) - 2  # 0 at 4 px
        if match[2] == "const":
            renamed["constant_input.weight"] = tensor[None]
            continue
        kind, name = match[3], match[4]
        # Above 4 px: two convolutions, numbered through, and one layer to RGB.
        number = 2 * (level - 1) + (kind == "conv1")
        layer = "style_conv1" if level == 0 else f"style_convs.{number}"
        if kind == "torgb":
            layer = "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"
        if name == "noise_const":
            renamed[f"noises.noise{number + 1 if level else 0}"] = tensor[None, None]
        elif name == "bias":
            is_rgb = kind == "torgb"
            to = f"{layer}.bias" if is_rgb else f"{layer}.activate.bias"
            renamed[to] = tensor.view(1, -1, 1, 1) if is_rgb else tensor
        elif name in _NVIDIA_LAYER:
            value = tensor[None] if name == "weight" else tensor
            renamed[f"{layer}.{_NVIDIA_LAYER[name]}"] = value.view(1) if value.ndim == 0 else value
    return renamed


def to_feature_generator(
    prior: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Bring a StyleGAN2 generator to GPEN's generator, `stylegan2.FeatureGenerator`.

    The latter's layers see features beside the generator's own channels. With the weights made here
    they do not look at these yet, so that the pictures are the prior's, without its noise.

    Args:
        prior: under BasicSR's names.
        own: state dict of the generator to fill, for its shapes and its fixed filters.

    Returns:
        A state dict with the names of ``own``; tensors that ``prior`` lacks are missing.
    """
    filled = {}
    for key, template in own.items():
        if key.endswith(_KERNELS):
            filled[key] = template
            continue
        if key.endswith(".noise.weight"):  # strength of the features, not of the noise
            filled[key] = torch.zeros_like(template)
            continue
        name = key
        for pattern, replacement in _ROSINALITY:
            name = re.sub(pattern, replacement, name)
        if name not in prior:
            continue
        tensor = prior[name].to(template)
        axis = 2 if key.endswith(".conv.weight") else 0
        twice = [side * (1 + (index == axis)) for index, side in enumerate(tensor.shape)]
        if list(template.shape) != twice:
            filled[key] = tensor  # as it is; a wrong shape is for whoever loads it to name
            continue
        padding = [0, 0] * (tensor.ndim - 1 - axis) + [0, tensor.shape[axis]]
        # New channels have weight 0 and style 1; the run-time scale goes by the number of them all.
        fill = 1.0 if key.endswith(".modulation.bias") else 0.0
        if key.endswith(".conv.weight"):
            tensor = tensor * math.sqrt(2)
        filled[key] = F.pad(tensor, padding, value=fill)
    return filled
