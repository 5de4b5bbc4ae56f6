"""Drawing: visible where faces are, and nowhere else."""

import numpy as np
import pytest
import torch

from gfp_core.draw import draw_faces, sheet
from gfp_core.faces import Face


def face(x1: float, y1: float, x2: float, y2: float) -> Face:
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    landmarks = (np.array([x1, y1]) + places * [x2 - x1, y2 - y1]).astype(np.float32)
    return Face(frame=0, box=(x1, y1, x2, y2), score=0.987, landmarks=landmarks)


@pytest.mark.parametrize("channels", [3, 4])
def test_only_what_is_drawn_changes(channels):
    image = np.random.default_rng(0).uniform(-1, 2, (200, 300, channels)).astype(np.float32)
    image[150:, 200:] = np.nan
    before = image.copy()
    drawn = draw_faces(image, [face(50, 60, 120, 150)])
    np.testing.assert_array_equal(image, before)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn[160:], image[160:])
    np.testing.assert_array_equal(drawn[:30], image[:30])
    np.testing.assert_allclose(drawn[100, 50, :3], [0, 1, 0], atol=0.15)  # the smoothed box
    left_eye, right_eye = drawn[96, 71, :3], drawn[96, 99, :3]
    assert left_eye[0] > left_eye[2]
    assert right_eye[2] > right_eye[0]
    if channels == 4:
        assert drawn[100, 50, 3] == 1


def test_no_faces_no_change():
    image = np.random.default_rng(0).uniform(-1, 2, (20, 30, 3)).astype(np.float32)
    np.testing.assert_array_equal(draw_faces(image, []), image)


@pytest.mark.parametrize("box", [(-40, -30, 10, 12), (90, 90, 140, 160), (-500, -500, 900, 900)])
def test_boxes_over_the_edge(box):
    image = np.zeros((100, 100, 3), np.float32)
    drawn = draw_faces(image, [face(*box)])
    assert (drawn != image).any()  # at least the label can be seen


def test_one_pixel():
    assert draw_faces(np.zeros((1, 1, 3), np.float32), [face(0, 0, 9, 9)]).shape == (1, 1, 3)


def test_numbers_differ():
    image = np.zeros((100, 100, 3), np.float32)
    first, second = face(10, 30, 60, 90), face(10, 30, 60, 90)
    assert (draw_faces(image, [first]) != draw_faces(image, [first, second])).any()


def test_sheet_shows_the_chosen_pictures_in_their_columns():
    noise = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flat = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 8, 8) / 10
    page = sheet({"input": noise, "flat": flat}, [3, 1], size=32)
    assert page.shape == (3, 24 + 2 * 32, 64)
    assert torch.allclose(page[:, 24:56, 32:], torch.full((3, 32, 32), 0.3))
    assert torch.allclose(page[:, 56:, 32:], torch.full((3, 32, 32), 0.1))
    assert page[:, :24].min() < 0.5 < page[:, :24].max()
    with pytest.raises(ValueError, match="at least one"):
        sheet({}, [0])
