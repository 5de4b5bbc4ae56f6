"""Colors of skin and eyes, of a drawn face whose landmarks are given."""

import numpy as np
import pytest
import torch

from gfp_core.color.spaces import lab_to_rgb
from gfp_core.faces import Face, Faces
from gfp_core.metrics.tones import ToneDistance

MARKS = np.array([[100, 120], [200, 120], [150, 170], [115, 220], [185, 220]], np.float32)


class Given:
    """A detector that finds the same face in every picture but those that are black."""

    def detect(self, frames):
        height, width = frames.shape[2:]
        faces = tuple(
            Face(i, (50, 50, 250, 270), 1.0, MARKS)
            for i, frame in enumerate(frames)
            if frame.max() > 0
        )
        return Faces(faces, ((height, width),) * len(frames))


def picture(skin=(60, 15, 15), left=(30, 5, 10), right=(30, 5, 10)):
    """(1, 3, 300, 300) RGB, of colors in Lab."""
    lab = torch.tensor(skin).float().view(1, 3, 1, 1).repeat(1, 1, 300, 300)
    for (x, y), color in zip(MARKS[:2].astype(int), (left, right), strict=True):
        lab[:, :, y - 12 : y + 12, x - 12 : x + 12] = torch.tensor(color).float().view(1, 3, 1, 1)
    return lab_to_rgb(lab)


@pytest.mark.parametrize(
    ("change", "skin", "eyes", "pair"),
    [
        ({}, 0, 0, 0),
        ({"skin": (63, 15, 19)}, 5, 0, 0),  # 3, 4: a right triangle
        ({"left": (36, 5, 18)}, 0, 5, 10),
        ({"left": (36, 5, 18), "right": (36, 5, 18)}, 0, 10, 0),
    ],
)
def test_each_part_sees_its_own_color(change, skin, eyes, pair):
    a, b = picture(**change), picture()
    for part, expected in (("skin", skin), ("eyes", eyes), ("pair", pair)):
        assert ToneDistance(Given(), part)(a, b).item() == pytest.approx(expected, abs=0.02)


def test_a_picture_without_a_face_has_no_value():
    b = torch.cat([picture(), torch.zeros(1, 3, 300, 300)])
    found = ToneDistance(Given(), "skin")(b, b)
    assert found[0] == 0
    assert found[1].isnan()
