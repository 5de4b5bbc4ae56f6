"""The baselines of the timings: facexlib and spandrel, given the same weights as ours.

Together they are the published formulation of the whole: facexlib's RetinaFace and
``FaceRestoreHelper`` (alignment, paste with its square mask, no parsing), and spandrel's GFPGAN,
driven as GFPGAN's own script does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfp_core.evaluation.speed import to_frames, to_pixels
from gfp_core.networks import retinaface


def build_detector(backbone: str) -> nn.Module:
    """An untrained RetinaFace of facexlib: ``"mobile0.25"`` or ``"resnet50"``."""
    from facexlib.detection.retinaface import RetinaFace

    with warnings.catch_warnings():
        # It says pretrained=False in the old way; it loads nothing.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        net: nn.Module = RetinaFace(network_name=backbone, device=torch.device("cpu"))
    return net


def small_detector(state: dict[str, Tensor], device: torch.device | str = "cpu") -> nn.Module:
    """RetinaFace mobile0.25 of facexlib, with its batch norms.

    Args:
        state: with batch norms, see `with_batch_norms`.
        device: where it runs.
    """
    net = build_detector("mobile0.25")
    net.load_state_dict(state)
    return _on(net.eval(), device)


def with_batch_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The bundled detector's state with its batch norms put back, which are folded in it.

    They compute the folded bias: the reference must do all the work that it does with the
    published weights.
    """
    published = retinaface.build("retinaface_mobile025").state_dict()
    names = list(published)
    result = {name: state[name] for name in names if name in state}
    for name in names:
        if not name.endswith(".running_mean"):
            continue
        norm = name.removesuffix(".running_mean")
        convolution = names[names.index(f"{norm}.weight") - 1].removesuffix(".weight")
        # The bundled state has no tensor of a norm's, except where names happen to coincide.
        result[f"{norm}.weight"] = torch.full_like(published[name], (1 + 1e-5) ** 0.5)
        result[f"{norm}.bias"] = state[f"{convolution}.bias"]
        result[f"{norm}.running_mean"] = torch.zeros_like(published[name])
        result[f"{norm}.running_var"] = torch.ones_like(published[name])
        result[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return result


def _on(detector: Any, device: torch.device | str) -> nn.Module:
    """The detector of facexlib moved, with what it keeps beside its parameters."""
    detector.device = torch.device(device)
    detector.mean_tensor = detector.mean_tensor.to(device)
    moved: nn.Module = detector.to(device)
    return moved


def large_detector(sample: Tensor) -> nn.Module:
    """RetinaFace ResNet-50 of facexlib with seeded weights.

    Args:
        sample: (1, 3, S, S) preprocessed; gives the batch norms their statistics, without which
            random weights let activations grow beyond all bounds.
    """
    torch.manual_seed(0)
    net = build_detector("resnet50").train()
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
        detections: NDArray[np.float32] = net.detect_faces(bgr, score)  # type: ignore[operator]
    return detections


def restorer(model: Path, device: torch.device | str = "cpu") -> nn.Module | None:
    """The GFPGAN in a file, by spandrel; None if there is another network in it.

    Raises:
        ImportError: spandrel is not installed.
    """
    from spandrel import ModelLoader, UnsupportedModelError

    try:
        loaded = ModelLoader().load_from_file(model)
    except UnsupportedModelError:
        return None
    if loaded.architecture.id != "GFPGAN":
        return None
    net: nn.Module = loaded.model
    return net.eval().to(device)


def restore(net: nn.Module, crops: Tensor) -> Tensor:
    """One run of spandrel's GFPGAN: (N, 3, 512, 512) RGB in [0, 1] to the same.

    As GFPGAN's own script drives it, but with the noise stored in the weights, so that both sides
    compute the same, and without the pictures of the lower scales, which nobody looks at.
    """
    device = next(net.parameters()).device
    with torch.inference_mode():
        x = crops.to(device) * 2 - 1
        images: Tensor = net(x, return_rgb=False, randomize_noise=False)[0]
    return ((images + 1) / 2).clamp(0, 1).to(crops.device)


def helper(detector: nn.Module, bgr: NDArray[np.uint8]) -> Any:
    """FaceRestoreHelper of facexlib at scale 1, kept from downloading networks of its own."""
    from facexlib.utils import face_restoration_helper as module

    with (
        patch.object(module, "init_detection_model", lambda *_, **__: detector),
        patch.object(module, "init_parsing_model", lambda *_, **__: None),
    ):
        steps = module.FaceRestoreHelper(1, device=torch.device("cpu"))
    steps.read_image(bgr)
    return steps


def whole(detector: nn.Module, restorer: nn.Module, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole by facexlib's helper and spandrel: (H, W, 3) uint8 RGB to the same."""
    return whole_with(detector, partial(restore, restorer), rgb)[0]


def whole_with(
    detector: nn.Module, run: Callable[[Tensor], Tensor], rgb: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
    """The whole by facexlib's helper and any network.

    Args:
        detector: facexlib's.
        run: restores (1, 3, 512, 512) RGB in [0, 1].
        rgb: (H, W, 3).

    Returns:
        The picture with restored faces, and the landmarks (5, 2) of each.
    """
    steps = helper(detector, np.ascontiguousarray(rgb[..., ::-1]))
    steps.get_face_landmarks_5()
    steps.align_warp_face()
    for crop in steps.cropped_faces:
        restored = run(to_frames(crop[..., ::-1]))
        steps.add_restored_face(np.ascontiguousarray(to_pixels(restored[0])[..., ::-1]))
    steps.get_inverse_affine()
    image: NDArray[np.uint8] = steps.paste_faces_to_input_image()
    return image[..., ::-1], [np.float32(each) for each in steps.all_landmarks_5]
