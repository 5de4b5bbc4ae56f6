"""What the metrics share: the check of their input, and luma."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tensors import check_images


def check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse two batches that cannot be compared picture by picture.

    Raises:
        ValueError: one is not (N, 3, H, W) float, or the shapes differ.
    """
    check_images(a)
    check_images(b)
    if a.shape != b.shape:
        raise ValueError(f"the two batches differ in shape: {tuple(a.shape)}, {tuple(b.shape)}")


def luma(images: Tensor) -> Tensor:
    """Y of BT.601 in its studio range: black is 16 / 255, white 235 / 255.

    Args:
        images: (N, 3, H, W) float RGB in [0, 1].

    Returns:
        (N, H, W).
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=images.dtype, device=images.device)
    return (torch.einsum("nchw,c->nhw", images, weights) + 16) / 255
