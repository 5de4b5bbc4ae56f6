"""Statistics of colour and their maps, beside formulas spelled out with numpy and scipy."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gfp_core.color.transfer import (
    Statistics,
    color_statistics,
    face_weights,
    mean_and_deviation,
    monge_kantorovitch,
)


def random_statistics(seed: int) -> Statistics:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(3, 3)) * 0.1 + 0.1 * np.eye(3)
    covariance = mixed @ mixed.T + 4e-3 * np.eye(3)
    return Statistics(torch.from_numpy(rng.random((1, 3))), torch.from_numpy(covariance)[None])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_monge_kantorovitch_is_that_of_the_paper(seed: int) -> None:
    source, target = random_statistics(seed), random_statistics(seed + 5000)
    linear, offset = monge_kantorovitch(source, target)
    u, v = (side.covariance[0].numpy() for side in (source, target))
    root = np.real(sqrtm(u))
    expected = np.linalg.inv(root) @ np.real(sqrtm(root @ v @ root)) @ np.linalg.inv(root)
    if np.linalg.eigvalsh(expected).max() < 4 and np.linalg.eigvalsh(expected).min() > 0.25:
        np.testing.assert_allclose(linear[0].numpy(), expected, atol=2e-3)
        np.testing.assert_allclose(linear[0].numpy() @ u @ linear[0].numpy().T, v, atol=1e-4)
    moved = linear[0] @ source.mean[0] + offset[0]
    np.testing.assert_allclose(moved.numpy(), target.mean[0].numpy(), atol=1e-12)
    gains = torch.linalg.eigvalsh(linear[0])
    assert 0.25 - 1e-9 <= gains.min() <= gains.max() <= 4 + 1e-9


def test_contrast_does_not_explode_where_there_is_none() -> None:
    flat = Statistics(torch.full((1, 3), 0.5).double(), torch.zeros(1, 3, 3).double())
    other = random_statistics(1)
    for find_map in (monge_kantorovitch, mean_and_deviation):
        for source, target in ((flat, other), (other, flat), (flat, flat)):
            gains = torch.linalg.eigvalsh(find_map(source, target)[0])
            assert 0.25 - 1e-9 <= gains.min() <= gains.max() <= 4 + 1e-9


def test_statistics_are_those_of_blocks_inside_the_weights() -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weights = face_weights(64)
    found = color_statistics(pictures, weights)
    outside = pictures + 5 * (1 - weights)
    torch.testing.assert_close(color_statistics(outside, weights).mean, found.mean)
    share = weights[0, 0].numpy().reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel()
    for i, picture in enumerate((pictures * weights).double().numpy()):
        blocks = picture.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)).reshape(3, -1)
        colors = blocks[:, share > 0] / share[share > 0]
        mean = np.average(colors, axis=1, weights=share[share > 0])
        covariance = np.cov(colors, aweights=share[share > 0], ddof=0)
        np.testing.assert_allclose(found.mean[i].numpy(), mean, atol=1e-6)
        np.testing.assert_allclose(found.covariance[i].numpy(), covariance, atol=1e-7)
