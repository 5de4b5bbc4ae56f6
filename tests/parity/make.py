"""Make ``outputs.safetensors``: what reference implementations compute on the seeded networks.

    python -m tests.parity.make

The clean GFP-GAN and RestoreFormer are the published code as spandrel carries it. No package runs
the others on a CPU: theirs are this library's, at a commit where its networks agreed with outputs
of the published code to 1e-5 (the tests of the networks that read the shared folder).
``full_size.safetensors`` holds some pixels of what the networks in their published size compute in
float64: the truth of their rounding.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .networks import FULL_SIZE, GRID, NETWORKS, network, picture

SIDES = {name: 64 if "RestoreFormer" in name else 32 for name in NETWORKS}
FILE = Path(__file__).with_name("outputs.safetensors")
FULL_SIZE_FILE = Path(__file__).with_name("full_size.safetensors")


def reference(name: str) -> nn.Module | None:
    """The network of spandrel with the same weights; None if it has none of the kind."""
    from spandrel.architectures.GFPGAN.__arch import gfpganv1_clean_arch
    from spandrel.architectures.RestoreFormer.__arch import restoreformer_arch

    kinds: dict[str, Any] = {
        "GFPGANv1Clean": gfpganv1_clean_arch.GFPGANv1Clean,
        "RestoreFormer": restoreformer_arch.RestoreFormer,
    }
    if name not in kinds:
        return None
    arguments = dict(NETWORKS[name][1])
    if name == "RestoreFormer":
        arguments.update(resolution=64, attn_resolutions=(16,))
    else:
        arguments.update(input_is_latent=True, different_w=True, sft_half=True)
    net: nn.Module = kinds[name](**arguments)
    net.load_state_dict(network(name).state_dict())
    return net.eval()


def output(name: str) -> Tensor:
    """(1, 3, S, S): what the reference makes of the picture."""
    x = picture(SIDES[name])
    net = reference(name)
    with torch.inference_mode():
        if net is None:
            result: Tensor = network(name)(x)
        elif name == "RestoreFormer":
            result = net(x)[0]
        else:
            result = net(x, return_rgb=False, randomize_noise=False)[0]
    return result.clone()


def exact_pixels(name: str) -> Tensor:
    """(1, 3, n, n): every `GRID`-th pixel of a full-size network's output, computed in float64."""
    with torch.inference_mode():
        result: Tensor = network(name).double()(picture(512).double())
    return result[:, :, ::GRID, ::GRID].float().contiguous()


if __name__ == "__main__":
    save_file({name: output(name) for name in NETWORKS}, FILE)
    save_file({name: exact_pixels(name) for name in FULL_SIZE}, FULL_SIZE_FILE)
