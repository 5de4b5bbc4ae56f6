"""Order and choice of faces, against rules written out by hand."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfp_core.choose import choose, parse_which, rank, sort
from gfp_core.faces import Face, Faces


def face(frame=0, x=0.0, y=0.0, side=10.0, score=0.9):
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return Face(frame, box, score, np.zeros((5, 2), np.float32))


# In frame 0, by place: a large one left below, a small one right above, a middle one in the middle.
LARGE = face(x=20, y=80, side=30, score=0.91)
SMALL = face(x=90, y=10, side=5, score=0.99)
MIDDLE = face(x=50, y=50, side=20, score=0.95)
OTHER = face(frame=2, x=70, y=70, side=8)
FACES = Faces((SMALL, LARGE, MIDDLE, OTHER), ((100, 100),) * 3)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("score", [SMALL, MIDDLE, LARGE]),
        ("largest", [LARGE, MIDDLE, SMALL]),
        ("smallest", [SMALL, MIDDLE, LARGE]),
        ("left to right", [LARGE, MIDDLE, SMALL]),
        ("top to bottom", [SMALL, MIDDLE, LARGE]),
        ("centre", [MIDDLE, LARGE, SMALL]),
    ],
)
def test_orders(order, expected):
    assert list(sort(FACES, order).faces) == [*expected, OTHER]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("all", [LARGE, MIDDLE, SMALL, OTHER]),
        ("none", []),
        ("first", [LARGE, OTHER]),
        ("First 2", [LARGE, MIDDLE, OTHER]),
        ("first 0", []),
        ("1", [MIDDLE]),
        (" 2, 0 ", [LARGE, SMALL, OTHER]),
        ([0, 1], [LARGE, MIDDLE, OTHER]),
        ([], []),
    ],
)
def test_which_counts_in_each_frame_by_itself(which, expected):
    assert list(choose(FACES, order="largest", which=which).faces) == expected


def test_flaw_7_a_choice_of_nobody_restores_nobody(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(choose(FACES, order="largest", which="7")) == 0
    assert "No frame has a face number 7: the most faces in one are 3" in caplog.text


def test_flaw_7_the_largest_is_measured_in_the_frame_not_in_the_crop():
    crops = torch.rand(4, 3, 8, 8)  # all crops have one size
    chosen = choose(Faces(FACES.faces, FACES.frame_sizes, crops), order="largest", which="first")
    assert chosen.faces == (LARGE, OTHER)
    assert torch.equal(chosen.crops, crops[[1, 3]])


@pytest.mark.parametrize("which", ["", "some", "-1", "1.5", "0-2", "first -1", [-1], [0.5]])
def test_what_cannot_be_understood_is_refused(which):
    with pytest.raises(ValueError, match="faces"):
        parse_which(which)


def test_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order must be one of"):
        sort(FACES, "by name")


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100), st.floats(1, 50)), max_size=12))
def test_sorting_keeps_frames_together_and_loses_nobody(drawn):
    faces = Faces(tuple(face(frame, x, 5, side) for frame, x, side in drawn), ((100, 100),) * 4)
    ordered = sort(faces, "largest")
    assert [one.frame for one in ordered.faces] == sorted(one.frame for one in faces.faces)
    assert {id(one) for one in ordered.faces} == {id(one) for one in faces.faces}
    for earlier, later, place in zip(
        ordered.faces, ordered.faces[1:], rank(ordered)[1:], strict=False
    ):
        assert place == 0 or earlier.width >= later.width
