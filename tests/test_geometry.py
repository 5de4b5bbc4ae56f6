"""Geometry that steps share: maps, boxes, ramps."""

import numpy as np
import pytest
import torch

from gfp_core.geometry import TEMPLATE, box_iou, compose, fit_similarity, smoothstep, transform


def test_iou_of_equal_apart_half_and_empty_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 0, 15, 10], [3, 3, 3, 3]])
    expected = torch.tensor(
        [[1, 0, 1 / 3, 0], [0, 1, 0, 0], [1 / 3, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.float64
    )
    torch.testing.assert_close(box_iou(boxes, boxes), expected)
    assert box_iou(boxes[:0], boxes).shape == (0, 4)


@pytest.mark.parametrize("convert", [float, np.float64, torch.tensor])
def test_smoothstep_of_any_kind_of_values(convert) -> None:
    values = [float(smoothstep(convert(value))) for value in (-1.0, 0.0, 0.25, 0.5, 1.0, 7.0)]
    assert values == [0.0, 0.0, 0.15625, 0.5, 1.0, 1.0]


def test_composed_maps_apply_the_inner_one_first() -> None:
    inner = fit_similarity(TEMPLATE * 0.3 + (7, 9), 128)
    outer = np.array([[2.0, 0.5, 3.0], [-0.5, 2.0, -4.0]])
    points = np.array([[1.0, 2.0], [30.0, -5.0]])
    expected = transform(outer, transform(inner, points))
    np.testing.assert_allclose(transform(compose(outer, inner), points), expected)
