"""Order and choice of faces, against rules written out by hand."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfp_core.faces import Face, Faces
from gfp_core.geometry import angles
from gfp_core.select import blurred, inside, like, rank, select, sort


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
    assert list(select(FACES, order="largest", numbers=which).faces) == expected


def test_a_choice_of_nobody_restores_nobody(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(select(FACES, order="largest", numbers="7")) == 0
    assert "No frame has a face number 7: the most faces in one are 3" in caplog.text


def test_the_largest_is_measured_in_the_frame_not_in_the_crop():
    crops = torch.rand(4, 3, 8, 8)  # all crops have one size
    chosen = select(Faces(FACES.faces, FACES.frame_sizes, crops), order="largest", numbers="first")
    assert chosen.faces == (LARGE, OTHER)
    assert torch.equal(chosen.crops, crops[[1, 3]])


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
        areas = [one.width * one.height for one in (earlier, later)]
        assert place == 0 or areas[0] >= areas[1]


# By place


def region(*boxes, frames=1):
    mask = torch.zeros(frames, 100, 100)
    for frame, x1, y1, x2, y2 in boxes:
        mask[frame, y1:y2, x1:x2] = 1
    return mask


def test_a_region_keeps_faces_by_their_middle_or_most_of_their_box():
    assert inside(FACES, region((0, 45, 45, 55, 55))).faces == (MIDDLE,)  # middle, quarter of it
    assert inside(FACES, region((0, 5, 65, 19, 96), (0, 21, 65, 36, 96))).faces == (LARGE,)  # most
    assert inside(FACES, region((0, 5, 65, 15, 96))).faces == ()  # a third
    assert inside(FACES, torch.ones(1, 100, 100)).faces == FACES.faces


def test_half_of_a_box_is_enough_and_half_a_level_is_not():
    wide = Faces((face(x=50.5, y=50.5, side=19),), ((100, 100),))  # the pixels 41 to 60
    half = region((0, 41, 0, 46, 100), (0, 56, 0, 61, 100))
    assert len(inside(wide, half)) == 1
    half[0, 41, 41] = 0
    assert len(inside(wide, half)) == 0
    assert len(inside(wide, 0.5 * region((0, 0, 0, 100, 100)))) == 0
    assert len(inside(wide, 0.51 * region((0, 0, 0, 100, 100)))) == 1


def test_a_region_of_each_frame_is_its_own():
    mask = region((2, 0, 0, 100, 100), (1, 0, 0, 100, 100), frames=3)
    assert inside(FACES, mask).faces == (OTHER,)


def test_half_outside_of_the_frame_only_what_can_be_seen_counts():
    edge = Faces((face(x=-2, y=50, side=20),), ((100, 100),))
    assert len(inside(edge, region((0, 0, 40, 9, 61)))) == 1
    far = Faces((face(x=-200, y=50, side=20),), ((100, 100),))
    assert len(inside(far, torch.ones(1, 100, 100))) == 0


def test_an_empty_region_restores_nobody(caplog):
    assert len(inside(FACES, region())) == 0
    assert "None of the faces found (4) lies in the region" in caplog.text


@pytest.mark.parametrize("shape", [(100, 100), (2, 100, 100), (1, 50, 100), (1, 1, 100, 100)])
def test_a_region_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="region"):
        inside(FACES, torch.ones(shape))


# By person; the embedder goes by colour

RED, GREEN, BLUE = torch.eye(3).unbind()


def colored(embedder, *colors):
    """A frame with a face of each colour, then a frame with a green one."""
    crops = torch.stack([*colors, GREEN])[:, :, None, None].repeat(1, 1, 4, 4)
    frames = [0] * len(colors) + [1]
    return Faces(
        tuple(face(frame, x=i) for i, frame in enumerate(frames)),
        ((9, 9),) * 2,
        crops,
        embeddings=embedder.embed(crops),
    )


def test_the_face_most_like_the_reference_is_chosen_in_each_frame(fake_embedder):
    reddish = torch.tensor([1.0, 0.2, 0.0])
    faces = colored(fake_embedder, GREEN, reddish, RED, BLUE)
    assert like(faces, RED[None]).faces == (faces.faces[2],)
    assert like(faces.select([0, 1, 3]), RED[None]).faces == (faces.faces[1],)
    both = like(faces, torch.stack([RED, GREEN]))
    assert both.faces == tuple(faces.faces[i] for i in (0, 2, 4))
    assert torch.equal(both.crops, faces.crops[[0, 2, 4]])


def test_of_two_alike_the_first_is_selected_and_the_limit_itself_is_like(fake_embedder):
    faces = colored(fake_embedder, RED, RED)
    assert like(faces, RED[None]).faces == (faces.faces[0],)
    reddish = torch.tensor([1.0, 0.2, 0.0])
    faces = colored(fake_embedder, reddish)
    angle = float(angles(reddish, RED))
    assert len(like(faces, RED[None], limit=angle)) == 1
    assert len(like(faces, RED[None], limit=angle - 1e-4)) == 0


def test_nobody_like_the_reference_restores_nobody(fake_embedder, caplog):
    assert len(like(colored(fake_embedder, BLUE), RED[None])) == 0
    assert "the nearest differs by 90 degrees, the limit is 22" in caplog.text
    assert len(like(colored(fake_embedder, BLUE), RED[None], limit=91)) == 2


def test_what_cannot_be_compared_is_refused(fake_embedder):
    with pytest.raises(ValueError, match="embed them"):
        like(FACES, RED[None])
    for wrong in (RED, torch.empty(0, 3)):
        with pytest.raises(ValueError, match="references must be"):
            like(colored(fake_embedder, RED), wrong)


# By sharpness


def test_sharp_faces_are_left_alone(caplog):
    faces = replace(FACES, sharpness=torch.tensor([0.5, 0.51, 0.0, 1.0]))
    with caplog.at_level(logging.INFO):
        assert blurred(faces, 0.5).faces == (SMALL, MIDDLE)
    assert "2 of 4 faces are sharp already" in caplog.text
    with pytest.raises(ValueError, match="not measured"):
        blurred(FACES, 0.5)
