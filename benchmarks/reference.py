"""What this project is compared with: facexlib and spandrel, given the same weights as ours."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfp_core.networks import retinaface


def small_detector(state: dict[str, Tensor]) -> nn.Module:
    """RetinaFace mobile0.25 of facexlib, with its batch norms.

    Args:
        state: the bundled weights, whose batch norms are folded into the convolutions. Batch norms
            that compute the folded bias are put back: the reference must do all the work that it
            does with the published weights.
    """
    net = retinaface.build("retinaface_mobile025")
    wanted = net.state_dict()
    names = list(wanted)
    result = {name: state[name] for name in names if name in state}
    for name in names:
        if not name.endswith(".running_mean"):
            continue
        norm = name.removesuffix(".running_mean")
        convolution = names[names.index(f"{norm}.weight") - 1].removesuffix(".weight")
        # The bundled state has no tensor of a norm's, except where names happen to coincide.
        result[f"{norm}.weight"] = torch.full_like(wanted[name], (1 + 1e-5) ** 0.5)
        result[f"{norm}.bias"] = state[f"{convolution}.bias"]
        result[f"{norm}.running_mean"] = torch.zeros_like(wanted[name])
        result[f"{norm}.running_var"] = torch.ones_like(wanted[name])
        result[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    net.load_state_dict(result)
    return net.eval()


def large_detector(sample: Tensor) -> nn.Module:
    """RetinaFace ResNet-50 of facexlib with seeded weights.

    Args:
        sample: (1, 3, S, S) preprocessed; gives the batch norms their statistics, without which
            random weights let activations grow beyond all bounds.
    """
    torch.manual_seed(0)
    net = retinaface.build("retinaface_resnet50").train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain averages over the pictures seen below
    with torch.no_grad():
        for turn in range(4):
            net(torch.rot90(sample, turn, (2, 3)))
    return net.eval()


def detect(net: nn.Module, bgr: NDArray[np.uint8], score: float) -> NDArray[np.float32]:
    """Detection as facexlib's helper calls it: (N, 15) box, score and landmarks."""
    with torch.no_grad():
        found: NDArray[np.float32] = net.detect_faces(bgr, score)  # type: ignore[operator]
    return found


def restorer(state: dict[str, Tensor]) -> nn.Module:
    """GFPGAN of spandrel with these weights."""
    from spandrel import ModelLoader

    copies = {name: tensor.clone() for name, tensor in state.items()}
    return ModelLoader().load_from_state_dict(copies).model.eval()


def restore(net: nn.Module, crops: Tensor) -> Tensor:
    """One run of spandrel's GFPGAN: (N, 3, 512, 512) RGB in [0, 1] to the same.

    As GFPGAN's own script drives it, but with the noise stored in the weights, so that both sides
    compute the same, and without the pictures of the lower scales, which nobody looks at.
    """
    with torch.inference_mode():
        images: Tensor = net(crops * 2 - 1, return_rgb=False, randomize_noise=False)[0]
    return ((images + 1) / 2).clamp(0, 1)


def helper(detector: nn.Module, bgr: NDArray[np.uint8]) -> Any:
    """FaceRestoreHelper of facexlib at scale 1, kept from downloading networks of its own."""
    from facexlib.utils import face_restoration_helper as module

    with (
        patch.object(module, "init_detection_model", lambda *_, **__: detector),
        patch.object(module, "init_parsing_model", lambda *_, **__: None),
    ):
        made = module.FaceRestoreHelper(1, device=torch.device("cpu"))
    made.read_image(bgr)
    return made
