"""The guided filter beside its definition, window by window."""

import numpy as np
import pytest
import torch

from gfp_core.color.filters import guided_filter


def by_definition(picture: np.ndarray, guide: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """He et al. 2013, equations 5, 6 and 8, with the windows spelled out."""
    height, width = guide.shape

    def window(y: int, x: int) -> tuple[slice, slice]:
        return (
            slice(max(0, y - radius), y + radius + 1),
            slice(max(0, x - radius), x + radius + 1),
        )

    slope, offset = np.empty_like(guide), np.empty_like(guide)
    for y, x in np.ndindex(height, width):
        i, p = guide[window(y, x)], picture[window(y, x)]
        slope[y, x] = ((i * p).mean() - i.mean() * p.mean()) / (i.var() + eps)
        offset[y, x] = p.mean() - slope[y, x] * i.mean()
    result = np.empty_like(guide)
    for y, x in np.ndindex(height, width):
        result[y, x] = slope[window(y, x)].mean() * guide[y, x] + offset[window(y, x)].mean()
    return result


@pytest.mark.parametrize("size", [(12, 9), (3, 20)])
def test_guided_filter_is_that_of_the_paper(size: tuple) -> None:
    rng = np.random.default_rng(0)
    picture, guide = rng.random((2, *size)), rng.random(size)
    filtered = guided_filter(
        torch.from_numpy(picture)[None], torch.from_numpy(guide)[None, None], 4, 0.05
    )
    for channel in range(2):
        expected = by_definition(picture[channel], guide, 4, 0.05)
        np.testing.assert_allclose(filtered[0, channel].numpy(), expected, atol=1e-12)


def test_the_fast_form_is_close_to_the_full_one() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    guide = ((x + y > 70).float() + 0.1 * torch.sin(x / 9))[None, None]
    picture = guide * 0.5 + torch.cos(y / 20)
    full = guided_filter(picture, guide, 16, 0.01)
    fast = guided_filter(picture, guide, 4, 0.01, shrink=4)
    assert (full - fast).abs().mean() < 0.03
    assert (full - fast).abs().max() < 0.12
    assert (full - picture).abs().max() > 0.3
