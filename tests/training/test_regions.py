"""Where eyes and mouth are, and their patches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfp_core.geometry import TEMPLATE
from gfp_core.training.regions import crop_regions, cut_windows, draw_windows, move, regions_of


def test_regions_of_68_landmarks_are_those_of_the_released_code():
    points = np.zeros((68, 2))
    points[36:42] = [[100, 200], [120, 190], [140, 190], [160, 200], [140, 210], [120, 210]]
    points[42:48] = points[36:42] + np.array([150, 0])
    points[48:68, 0], points[48:68, 1] = np.linspace(150, 250, 20), 350
    left, right, mouth = regions_of(points)
    assert left == pytest.approx([130, 200, 30 * 1.4])  # extent 60, half 30, enlarged
    assert right == pytest.approx([280, 200, 30 * 1.4])
    assert mouth == pytest.approx([200, 350, 50])
    points[48:68, 0] = 200
    assert regions_of(points)[2][2] == 16  # never smaller


def test_regions_of_five_landmarks_hold_eyes_and_mouth():
    left, right, mouth = regions_of(TEMPLATE)
    assert left[:2] == pytest.approx(TEMPLATE[0])
    assert right[:2] == pytest.approx(TEMPLATE[1])
    assert 35 < left[2] < 50
    for corner in TEMPLATE[3:]:
        assert np.abs(corner - mouth[:2]).max() <= mouth[2] + 1
    assert np.allclose(regions_of(TEMPLATE / 4, face_size=128), regions_of(TEMPLATE) / 4)
    with pytest.raises(ValueError, match="5 or 68"):
        regions_of(TEMPLATE[:4])


@given(st.floats(-0.3, 0.3), st.floats(0.7, 1.4), st.booleans())
def test_regions_move_with_the_picture(angle, scale, mirrored):
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin, 5.0], [sin, cos, -3.0]])
    regions = regions_of(TEMPLATE)
    before = regions.copy()
    moved = move(regions, matrix, 512 if mirrored else None)
    assert np.array_equal(regions, before)  # a trap of released code: changed in place
    points = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    if mirrored:
        points[:, 0] = 511 - points[:, 0]
        points = points[[1, 0, 2, 4, 3]]
    assert np.allclose(moved, regions_of(points), rtol=1e-4, atol=1e-2)


def test_patches_show_their_region_and_pass_gradients():
    size = 512
    image = torch.zeros(2, 3, size, size)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    image[:, 0], image[:, 1] = rows.float(), columns.float()
    image.requires_grad_()
    regions = torch.tensor([[[100.0, 200, 40], [300, 200, 40], [200, 350, 60]]] * 2)
    patches = crop_regions(image, regions)
    assert [tuple(patch.shape) for patch in patches] == [(2, 3, 80, 80)] * 2 + [(2, 3, 120, 120)]
    # Sample i of 80 over a box of 80 px around x: x - 40 + i + 1/2, in pixel centres' coordinates.
    x = 100 - 40 + torch.arange(80) + 0.5
    assert torch.allclose(patches[0][1, 1, 0], x, atol=1e-3)
    y = 350 - 60 + torch.arange(120) + 0.5
    assert torch.allclose(patches[2][0, 0, :, 3], y, atol=1e-3)
    patches[1].sum().backward()
    assert image.grad[0, 0, 200, 300] > 0
    assert image.grad[0, 0, 200, 100] == 0


def test_windows_lie_in_the_picture_and_show_the_parts_of_the_face():
    regions = torch.tensor([[[80.0, 100, 20], [170, 100, 20], [128, 190, 30]]]).repeat(64, 1, 1)
    corners = draw_windows(regions, 96, 256, seed=3)
    assert torch.equal(corners, draw_windows(regions, 96, 256, seed=3))
    assert not torch.equal(corners, draw_windows(regions, 96, 256, seed=4))
    assert corners.min() >= 0
    assert corners.max() <= 256 - 96
    middles = corners + 48
    for part in regions[0, :, :2]:
        assert ((middles - part).abs().amax(dim=1) < 30).sum() > 5
    pictures = torch.arange(256.0).expand(64, 1, 256, 256)  # a pixel's value is its column
    cut = cut_windows(pictures, corners, 96)
    assert cut.shape == (64, 1, 96, 96)
    assert torch.equal(cut[:, 0, 0, 0], corners[:, 0].float())
