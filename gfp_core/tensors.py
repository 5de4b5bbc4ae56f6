"""Checks and conversions of image tensors that all steps share.

Images are floating point RGB or RGBA, (B, 3 or 4, H, W), nominally in [0, 1]. Detection, alignment
and pasting also take frames as files store them, in whole numbers of 8 or 16 bits (uint8, uint16):
a picture of which little is faces need not become floats, four times as large.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from .faces import Faces

logger = logging.getLogger(__name__)


LEVELS = {torch.uint8: 255, torch.uint16: 65535}
"""The types of frames of whole numbers, and their largest number, which stands for 1."""


def check_frames(
    frames: Tensor, faces: Faces | None = None, *, name: str = "frames", levels: bool = False
) -> None:
    """Refuse frames that are no images, or not those in which faces were detected.

    Args:
        frames: should be (B, 3 or 4, H, W) of a floating point type; B may be 0.
        faces: faces that should belong to these frames; None for frames alone.
        name: what messages call the frames.
        levels: whether they may be of whole numbers, see `LEVELS`.

    Raises:
        ValueError: says what is wrong with which.
    """
    if frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape[2:]:
        raise ValueError(f"{name} must be (B, 3 or 4, H, W), not {tuple(frames.shape)}")
    if not (frames.is_floating_point() or (levels and frames.dtype in LEVELS)):
        also = " (or uint8 or uint16)" if levels else ""
        raise ValueError(f"{name} must be floating point in 0..1{also}, not {frames.dtype}")
    if faces is None:
        return
    sizes = ((frames.shape[2], frames.shape[3]),) * frames.shape[0]
    if faces.frame_sizes != sizes:
        raise ValueError(
            f"the faces belong to {len(faces.frame_sizes)} frames of (height, width) "
            f"{sorted(set(faces.frame_sizes))}, not to these {len(sizes)} of {sizes[:1]}"
        )
    for i, face in enumerate(faces.faces):
        if not 0 <= face.frame < len(sizes):
            raise ValueError(f"face {i} belongs to frame {face.frame} of {len(sizes)}")


def check_images(images: Tensor) -> None:
    """Refuse what is not a batch of RGB pictures.

    Args:
        images: (N, 3, H, W) float.

    Raises:
        ValueError: another shape or an integer type.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            "expected float RGB pictures of shape (N, 3, H, W) in [0, 1], "
            f"got {tuple(images.shape)} {images.dtype}"
        )


def check_masks(masks: Tensor, count: int, name: str) -> None:
    """Refuse what are not masks (1 or ``count``, H, W).

    Raises:
        ValueError: says what they are instead.
    """
    if masks.ndim != 3 or len(masks) not in (1, count):
        raise ValueError(
            f"{name} must be (1 or {count}, height, width), one for all frames or one for each, "
            f"not {tuple(masks.shape)}"
        )


def check_crops(crops: Tensor, name: str = "crops") -> None:
    """Refuse what are no square RGB pictures (N, 3, S, S) of a floating point type.

    Raises:
        ValueError: says what the crops are instead.
    """
    if crops.ndim != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3]:
        raise ValueError(f"{name} must be (N, 3, S, S), not {tuple(crops.shape)}: square RGB")
    if 0 in crops.shape[2:] or not crops.is_floating_point():
        raise ValueError(
            f"{name} must be floating point in 0..1 with at least a pixel, not {crops.dtype} of "
            f"{tuple(crops.shape)}"
        )


def to_float(image: Tensor) -> Tensor:
    """Convert whole numbers (see `LEVELS`) to float32 in [0, 1]; floats stay as they are."""
    if image.dtype not in LEVELS:
        return image
    return image.float().div_(LEVELS[image.dtype])


def to_levels(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Round an image in [0, 1], without NaN, to whole numbers of a type of `LEVELS`."""
    return image.float().clamp(0.0, 1.0).mul_(LEVELS[dtype]).round_().to(dtype)


def clamp01(image: Tensor) -> Tensor:
    """Clamp an image to [0, 1], as networks may see it; NaN becomes 0. A new tensor."""
    return torch.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0).clamp_(0.0, 1.0)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize images: bicubic, filtered where they shrink, without extremes that they had not.

    Alpha is straight before and after, but colors are averaged by their alpha (premultiplied), so
    that the invisible colors of transparent pixels do not bleed into a cut-out's outline.

    Args:
        image: (B, C, H, W) floating point; C = 4 is RGBA. NaN and infinite pixels become values in
            [0, 1], which a log line says.
        height: of the result.
        width: of the result.

    Returns:
        (B, C, height, width) of the image's type, always new.
    """
    if image.shape[-2:] == (height, width):
        return image.clone()
    if not len(image):  # which interpolation refuses
        return image.new_zeros(0, image.shape[1], height, width)
    finite = image.isfinite()
    if not finite.all():
        logger.warning("resampling replaces NaN and infinite pixels by values in 0..1")
        image = torch.where(finite, image, clamp01(image))
    resized = _bicubic(image.float(), height, width)
    if image.shape[1] == 4 and bool((image[:, 3] < 1).any()):
        alpha = clamp01(image[:, 3:].float())
        share = _bicubic(alpha, height, width)
        colors = _bicubic(alpha * image[:, :3].float(), height, width) / share
        # Where next to nothing is visible, the plain mean of the colors is as good as any.
        resized[:, :3] = torch.where(share > 1 / 1024, colors, resized[:, :3])
    low, high = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
    return resized.to(image.dtype).clamp_(low, high)


def _bicubic(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(
        image, (height, width), mode="bicubic", align_corners=False, antialias=True
    )


def to_numpy(image: Tensor) -> NDArray[np.float32]:
    """Convert a (C, H, W) tensor to a contiguous (H, W, C) float32 array of its own."""
    return np.array(image.detach().float().permute(1, 2, 0).cpu().numpy(), order="C")


def to_uint8(image: Tensor) -> Tensor:
    """Round an image in [0, 1] to 8 bits, 0 to 255; values outside are clamped, NaN becomes 0."""
    return clamp01(image.float()).mul_(255).round_().to(torch.uint8)
