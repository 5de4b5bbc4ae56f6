"""Colour spaces: Lab and OKLab are those that were published, there and back."""

import numpy as np
import pytest
import skimage.color
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfp_core.color.spaces import lab_to_rgb, oklab_to_rgb, rgb_to_lab, rgb_to_oklab


def test_lab_is_that_of_the_standard() -> None:
    rgb = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    rgb[0, :, :5] /= 100
    expected = skimage.color.rgb2lab(rgb.permute(0, 2, 3, 1).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(rgb).permute(0, 2, 3, 1).numpy(), expected, atol=0.02)


@settings(deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_lab_and_back_is_the_same_colour(rgb: tuple[float, float, float]) -> None:
    colour = torch.tensor(rgb).view(1, 3, 1, 1)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(colour)), colour, atol=2e-5, rtol=0)
    torch.testing.assert_close(oklab_to_rgb(rgb_to_oklab(colour)), colour, atol=2e-5, rtol=0)


@settings(deadline=None)
@given(st.floats(0, 1, width=32))
def test_grey_has_no_chroma(value: float) -> None:
    grey = torch.full((1, 3, 1, 1), value)
    assert rgb_to_lab(grey)[0, 1:].abs().max() < 1e-3
    assert rgb_to_oklab(grey)[0, 1:].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("xyz", "expected"),
    [
        ((0.950, 1.000, 1.089), (1.000, 0.000, 0.000)),
        ((1.000, 0.000, 0.000), (0.450, 1.236, -0.019)),
        ((0.000, 1.000, 0.000), (0.922, -0.671, 0.263)),
        ((0.000, 0.000, 1.000), (0.153, -1.415, -0.449)),
    ],
)
def test_oklab_is_that_of_ottossons_table(xyz: tuple, expected: tuple) -> None:
    """The four rows of the table in his article, computed by hand from XYZ."""
    rgb = np.linalg.inv(skimage.color.colorconv.xyz_from_rgb) @ np.array(xyz)
    coded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.abs(rgb) ** (1 / 2.4) - 0.055)
    lab = rgb_to_oklab(torch.from_numpy(coded).view(1, 3, 1, 1))
    np.testing.assert_allclose(lab.flatten().numpy(), expected, atol=2e-3)
