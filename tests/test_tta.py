"""Views of a frame for detection, and the way back from each."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gfp_core import tta
from gfp_core.geometry import transform
from gfp_core.tta import Detections

OUTSIDE = torch.tensor([0.1, 0.2, 0.3])


def ramps(height: int, width: int) -> Tensor:
    """(3, H, W): red is x, green is y, in hundredths; blue is 1."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x / 100, y / 100, torch.ones_like(x)]).float()


def check_ramps(view: Tensor, matrix: np.ndarray, inside: Tensor, tolerance: float) -> None:
    """Every pixel of a view shows the place of the image to which the matrix maps that pixel."""
    y, x = (axis.numpy() for axis in inside.nonzero(as_tuple=True))
    places = torch.from_numpy(transform(matrix, np.stack([x, y], axis=1))).float() / 100
    shown = view[:2][:, inside].T
    assert float((shown - places).abs().max()) <= tolerance


@pytest.mark.parametrize(
    ("box", "side", "margin"),
    [
        ((20.0, 22.0, 40.0, 46.0), 36, 1.5),  # of the same size
        ((20.0, 22.0, 40.0, 46.0), 90, 1.5),  # enlarged
        ((10.0, 5.0, 70.0, 65.0), 30, 1.0),  # reduced
        ((30.0, 30.0, 50.0, 40.0), 40, 2.0),  # wider than high: as long as the longer side
    ],
)
def test_a_cut_square_shows_the_image_where_its_matrix_says(box, side, margin) -> None:
    view, matrix = tta.cut_square(ramps(80, 90), box, side, margin, OUTSIDE)
    assert view.shape == (3, side, side)
    assert float(view[2].min()) == 1  # nothing but the image
    inner = torch.zeros(side, side, dtype=torch.bool)
    inner[4:-4, 4:-4] = True
    check_ramps(view, matrix, inner, 0.003)
    # The box is in the middle, and as large as the margin leaves.
    center = transform(matrix, [[(side - 1) / 2, (side - 1) / 2]])[0]
    expected = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    np.testing.assert_allclose(center, expected, atol=1.0)
    longer = max(box[2] - box[0], box[3] - box[1])
    assert matrix[0, 0] == pytest.approx(margin * longer / side, rel=0.03)


def test_a_square_beyond_the_edge_is_filled_with_the_color_outside() -> None:
    view, matrix = tta.cut_square(ramps(40, 40), (-20.0, 10.0, 20.0, 50.0), 40, 1.0, OUTSIDE)
    assert torch.allclose(view[:, :, :20], OUTSIDE[:, None, None].expand(3, 40, 20))
    assert torch.allclose(view[:, 30:], OUTSIDE[:, None, None].expand(3, 10, 40))
    inside = torch.zeros(40, 40, dtype=torch.bool)
    inside[:30, 20:] = True
    check_ramps(view, matrix, inside, 1e-6)
    assert float(view[2, :30, 20:].min()) == 1


@pytest.mark.parametrize(
    "box",
    [
        (-60.0, 5.0, -30.0, 35.0),
        (75.0, 5.0, 105.0, 35.0),
        (5.0, -60.0, 35.0, -30.0),
        (400.0, 400.0, 430.0, 430.0),
    ],
)
def test_a_square_wholly_outside_shows_the_color_outside(box) -> None:
    view, matrix = tta.cut_square(ramps(40, 40), box, 60, 1.5, OUTSIDE)
    assert torch.equal(view, OUTSIDE[:, None, None].expand(3, 60, 60))
    center = transform(matrix, [[29.5, 29.5]])[0]
    np.testing.assert_allclose(center, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), atol=1.0)


def test_a_cut_square_is_clamped() -> None:
    image = torch.full((3, 20, 20), float("nan"))
    image[:, :, 10:] = 9.0
    view, _ = tta.cut_square(image, (5.0, 5.0, 15.0, 15.0), 10, 1.0, OUTSIDE)
    assert view.min() == 0
    assert view.max() == 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_and_flipped_frames_map_back(rotation: int) -> None:
    image = ramps(30, 50)
    for make in (lambda frames: tta.rotate(frames, rotation), tta.flip):
        view, matrix = make(image[None])
        check_ramps(view[0], matrix, torch.ones(view.shape[2:], dtype=torch.bool), 1e-6)


def test_a_reduced_frame_maps_back() -> None:
    view, matrix = tta.resize_long_side(ramps(60, 90)[None], 45)
    assert view.shape == (1, 3, 30, 45)
    inner = torch.zeros(30, 45, dtype=torch.bool)
    inner[2:-2, 2:-2] = True
    check_ramps(view[0], matrix, inner, 1e-4)
    same, identity = tta.resize_long_side(view, 45)
    assert same is view
    np.testing.assert_array_equal(identity, np.eye(2, 3))


def detections(*rows: tuple[float, float, float, float, float]) -> Detections:
    values = torch.tensor(rows).view(-1, 5)
    return Detections(values[:, :4], values[:, 4], values[:, None, :2].expand(-1, 5, -1))


def test_nms_keeps_the_surest_of_those_that_overlap() -> None:
    kept = tta.nms(detections((0, 0, 10, 10, 0.6), (40, 0, 50, 10, 0.7), (1, 0, 11, 10, 0.9)))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(tta.nms(detections()).scores) == 0


def test_a_face_of_both_views_is_averaged_and_others_stay() -> None:
    plain = detections((0, 0, 10, 10, 0.8), (50, 0, 60, 10, 0.5))
    other = detections((2, 0, 12, 10, 0.6), (80, 0, 90, 10, 0.4))
    joint = tta.average_flipped(plain, other)
    assert joint.boxes[:, 0].tolist() == [1, 50, 80]
    assert joint.scores.tolist() == pytest.approx([0.7, 0.5, 0.4])


@pytest.mark.parametrize("size", [(50, 40), (71, 33)])
def test_bands_resize_to_the_same_bits(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(2, 3, 101, 83, generator=torch.Generator().manual_seed(0))
    levels = (images * 255).round().to(torch.uint8)
    expected, matrix = tta.resize(images, *size)
    expected_of_levels, _ = tta.resize(levels.float() / 255, *size)
    monkeypatch.setattr(tta, "_PIXELS_AT_ONCE", 1000)
    resized, matrix_of_bands = tta.resize(images, *size)
    assert torch.equal(resized, expected)
    assert torch.equal(tta.resize(levels, *size)[0], expected_of_levels)
    np.testing.assert_array_equal(matrix, matrix_of_bands)
