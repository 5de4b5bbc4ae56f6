"""NIQE, the natural image quality evaluator: how far a picture is from untouched photographs.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'Completely Blind' Image Quality Analyzer",
IEEE Signal Processing Letters 20(3), 2013. Equation numbers below are that paper's. The model of
pristine photographs (``niqe_pris_params.npz``: mean and covariance of their 36 features) is the
authors' own, in the file that BasicSR 1.4.2 distributes under Apache-2.0.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensors import check_images
from .pixels import luma

_BLOCK = 96  # side of a block in pixels, as the pristine model was made with
_MODEL = Path(__file__).with_name("niqe_pris_params.npz")

# Weights of a halving with an anti-aliased bicubic kernel (a = -0.5), the authors' resampling: the
# kernel is stretched by two, so that eight pixels take part in each output pixel.
_HALVING = torch.tensor([-3, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256


def niqe(images: Tensor, crop_border: int = 0) -> Tensor:
    """NIQE of each picture; lower is more natural. Not differentiable.

    Protocol: the BT.601 luma (16 to 235) is rounded to whole levels, ``crop_border`` pixels are
    cut off, and what is left is divided into blocks of 96 x 96 from the top left, without overlap;
    all blocks count (a sharpness threshold was used only for the pristine model).

    Args:
        images: (N, 3, H, W) float RGB in [0, 1].
        crop_border: pixels cut off each side before measuring.

    Returns:
        (N,) float64; nan where fewer than two blocks have any texture.

    Raises:
        ValueError: not of that form, or fewer than two blocks fit in the picture.
    """
    check_images(images)
    gray = (luma(images.detach().double()) * 255).round()
    if crop_border:
        gray = gray[:, crop_border:-crop_border, crop_border:-crop_border]
    rows, columns = gray.shape[1] // _BLOCK, gray.shape[2] // _BLOCK
    if rows * columns < 2:
        raise ValueError(
            f"NIQE needs at least two blocks of {_BLOCK} x {_BLOCK} pixels; the pictures are "
            f"{tuple(images.shape[2:])} with {crop_border} pixels cut off each side"
        )
    gray = gray[:, : rows * _BLOCK, : columns * _BLOCK]
    mean, covariance = _pristine()
    mean, covariance = mean.to(gray.device), covariance.to(gray.device)
    scores = []
    for picture in gray:
        features = torch.cat(
            [
                _block_features(_normalized(picture), _BLOCK),
                _block_features(_normalized(_halve(picture)), _BLOCK // 2),
            ],
            dim=1,
        )  # (blocks, 36)
        scores.append(_distance(features, mean, covariance))
    return torch.stack(scores)


@functools.cache
def _pristine() -> tuple[Tensor, Tensor]:
    """Mean (36,) and covariance (36, 36) of the features of pristine photographs."""
    with np.load(_MODEL, allow_pickle=False) as model:
        return (
            torch.from_numpy(model["mu_pris_param"][0]),
            torch.from_numpy(model["cov_pris_param"]),
        )


def _normalized(picture: Tensor) -> Tensor:
    """Mean-subtracted, contrast-normalized levels (eqs 1 to 3); picture (H, W) in levels of 255."""
    offsets = torch.arange(-3, 4, dtype=picture.dtype, device=picture.device)
    window = torch.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.pad(x[None, None], (3, 3, 3, 3), mode="replicate")
        return F.conv2d(F.conv2d(x, window.view(1, 1, 1, 7)), window.view(1, 1, 7, 1))[0, 0]

    mean = blur(picture)
    deviation = (blur(picture**2) - mean**2).abs().sqrt()
    normalized = (picture - mean) / (deviation + 1)
    # Where the picture is flat, what is left is rounding noise of either sign, and the fit counts
    # signs: make it zero, so that the score is the same on every machine.
    return torch.where(normalized.abs() < 1e-9, 0.0, normalized)


def _halve(picture: Tensor) -> Tensor:
    """The picture (H, W), both sides even, at half its size; mirrored at the border."""
    kernel = _HALVING.to(picture.device)
    for _ in range(2):  # columns, then rows of the transposed picture
        mirrored = torch.cat([picture[:, :3].flip(1), picture, picture[:, -3:].flip(1)], dim=1)
        picture = F.conv1d(mirrored[:, None], kernel.view(1, 1, 8), stride=2)[:, 0].T
    return picture


def _block_features(normalized: Tensor, size: int) -> Tensor:
    """The 18 features of each block (section II-C): (blocks, 18) from an (H, W) map."""
    blocks = normalized.unfold(0, size, size).unfold(1, size, size).reshape(-1, size, size)
    alpha, sigma_left, sigma_right = _fit(blocks)
    features = [alpha, (sigma_left + sigma_right) / 2]
    # Products with the right, lower and two diagonal neighbors (eqs 5 to 8). A neighbor is taken
    # round the block's edge, as in the authors' release.
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, sigma_left, sigma_right = _fit(blocks * torch.roll(blocks, shift, dims=(1, 2)))
        mean = (sigma_right - sigma_left) * torch.exp(
            torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)
        )
        features += [alpha, mean, sigma_left, sigma_right]
    return torch.stack(features, dim=1)


def _fit(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Asymmetric generalized Gaussian (eq. 4) fitted by moments to each block.

    Args:
        samples: (blocks, size, size) float64.

    Returns:
        shape, left scale and right scale, each (blocks,); nan for a block of one value.
    """
    samples = samples.flatten(1)
    squares = samples**2
    negative, positive = samples < 0, samples > 0
    sigma_left = ((squares * negative).sum(1) / negative.sum(1)).sqrt()
    sigma_right = ((squares * positive).sum(1) / positive.sum(1)).sqrt()
    ratio = sigma_left / sigma_right
    moment = samples.abs().mean(1) ** 2 / squares.mean(1)
    moment = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    # The shape is looked up in a table, as the authors did: steps of 0.001 from 0.2 to 10.
    table = torch.arange(200, 10001, dtype=torch.float64, device=samples.device) / 1000
    moments = torch.exp(
        2 * torch.lgamma(2 / table) - torch.lgamma(1 / table) - torch.lgamma(3 / table)
    )
    shape = table[(moments[None] - moment[:, None]).abs().argmin(1)]
    shape = torch.where(moment.isnan(), torch.nan, shape)
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, sigma_left * scale, sigma_right * scale


def _distance(features: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Distance of the blocks' Gaussian from the pristine one (eq. 10)."""
    features = features[~features.isnan().any(dim=1)]
    if features.shape[0] < 2:
        return features.new_tensor(torch.nan)
    difference = mean - features.mean(0)
    inverse = torch.linalg.pinv((covariance + torch.cov(features.T)) / 2)
    result: Tensor = (difference @ inverse @ difference).sqrt()
    return result
