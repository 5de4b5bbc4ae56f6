"""Frames in order: faces followed and steadied, against motions written out by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.track import PATIENCE, Tracks, is_cut, number, smooth_over_time, track

SIZE = 100.0
SHAPE = (TEMPLATE / 512 - 0.5) * SIZE


def face(frame, x=200.0, y=150.0, size=SIZE, score=0.99, noise=0.0, rng=None):
    points = np.array([x, y]) + SHAPE * size / SIZE
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
    if rng is not None:
        points, box = (one + noise * rng.standard_normal(one.shape) for one in (points, box))
    return Face(frame, tuple(box.tolist()), score, points.astype(np.float32))


def clip(*faces, count=None):
    """Frames that do not change, and the faces in them."""
    count = count or max(one.frame for one in faces) + 1
    return torch.full((count, 3, 300, 400), 0.5), Faces(faces, ((300, 400),) * count)


def numbers(faces):
    return tuple(one.track for one in faces.faces)


def landmarks(faces):
    return np.stack([one.landmarks for one in faces.faces])


def test_landmarks_of_a_still_face_do_not_tremble():
    rng = np.random.default_rng(0)
    frames, faces = clip(*(face(i, noise=0.5, rng=rng) for i in range(120)))
    steady = landmarks(track(frames, faces))
    before = landmarks(faces)
    steps = [np.square(np.diff(x[10:], axis=0)).mean() for x in (steady, before)]
    assert steps[0] < 0.03 * steps[1]  # from frame to frame: that is what flickers
    assert steady[20:].var(axis=0).mean() < 0.15 * before[20:].var(axis=0).mean()
    assert np.abs(steady[20:].mean(axis=0) - before.mean(axis=0)).max() < 0.2


@pytest.mark.parametrize("speed", [0.5, 2.0, 8.0])
def test_a_moving_face_is_followed_to_a_hundredth_of_its_size(speed):
    frames, faces = clip(*(face(i, x=50 + speed * i) for i in range(40)))
    lag = np.abs(landmarks(track(frames, faces)) - landmarks(faces))
    assert 0 < lag[20:].max() < 0.012 * SIZE


def test_a_jump_is_followed_at_once():
    frames, faces = clip(*(face(i, x=200 if i < 10 else 230) for i in range(20)))
    result = track(frames, faces)
    assert np.array_equal(landmarks(result)[10:], landmarks(faces)[10:])
    assert set(numbers(result)) == {0}


def whole_pixels(frame, x):
    """A face of 100 px whose landmarks are whole numbers, so that steps between them are exact."""
    points = np.add([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], (x, 50))
    return Face(frame, (x, 50.0, x + 100.0, 150.0), 0.99, points.astype(np.float32))


def test_a_step_of_fifteen_hundredths_is_the_last_that_is_smoothed():
    frames, faces = clip(whole_pixels(0, 100.0), whole_pixels(1, 115.0))
    assert landmarks(track(frames, faces))[1, 0, 0] < 143
    frames, faces = clip(whole_pixels(0, 100.0), whole_pixels(1, 116.0))
    assert landmarks(track(frames, faces))[1, 0, 0] == 146


def test_landmarks_pass_the_one_euro_filter():
    """Equations 1 to 4 of the paper, written out for one coordinate of a face that only shifts."""
    xs = [100.0, 104.0, 103.0, 110.0, 112.0, 111.0, 140.0, 141.0, 143.0]
    frames, faces = clip(*(whole_pixels(i, x) for i, x in enumerate(xs)))
    steady = landmarks(track(frames, faces))[:, 0, 0] - 30
    expected, speed, age = [xs[0]], 0.0, 1
    for x in xs[1:]:
        step = x - expected[-1]
        if abs(step) > 15:
            expected.append(x)
            speed, age = 0.0, 1
            continue
        speed += step / (1 + 1 / (2 * np.pi * 0.03)) - speed / (1 + 1 / (2 * np.pi * 0.03))
        cutoff = 0.02 + 16 * abs(speed) / 100
        weight = max(1 / (1 + 1 / (2 * np.pi * cutoff)), 1 / (age + 1))
        expected.append(expected[-1] + weight * step)
        age += 1
    np.testing.assert_allclose(steady, expected, atol=1e-4)


def test_behind_a_cut_everything_is_new():
    frames, faces = clip(*(face(i, x=200 if i < 10 else 204) for i in range(20)))
    light = torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0)) ** 0.1
    frames[10:] = light
    result = track(frames, faces)
    assert numbers(result) == (0,) * 10 + (1,) * 10
    assert np.array_equal(landmarks(result)[10:], landmarks(faces)[10:])
    # Without the cut the same four pixels are smoothed.
    assert numbers(track(frames[:1].repeat(20, 1, 1, 1), faces)) == (0,) * 20


def test_what_is_a_cut():
    data = pytest.importorskip("skimage.data")
    first = torch.from_numpy(data.astronaut()[::8, ::8]).permute(2, 0, 1) / 255
    other = torch.from_numpy(data.coffee()[:400:7, :400:7]).permute(2, 0, 1)[:, :57, :57] / 255
    assert is_cut(first[:, :57, :57], other)
    noise = 0.05 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    assert not is_cut(first, (first + noise).clamp(0, 1))
    assert not is_cut(first, first.roll(4, 2))  # the camera pans
    assert not is_cut(first, first * 0.9)


def test_a_missed_face_stays_missing_and_is_known_again():
    seen = [i for i in range(20) if i not in (5, 6, 7)]
    result = track(*clip(*(face(i) for i in seen)))
    assert [one.frame for one in result.faces] == seen
    assert set(numbers(result)) == {0}
    gone = range(5, 6 + PATIENCE)
    result = track(*clip(*(face(i) for i in range(20) if i not in gone)))
    assert set(numbers(result)) == {0, 1}


def test_a_detection_ends_the_wait_for_a_missing_face():
    detected = [i for i in range(12) if i not in (2, 3, 4, 6, 7, 8)]  # twice three: more than five
    assert set(numbers(track(*clip(*(face(i) for i in detected))))) == {0}


def test_boxes_that_overlap_by_more_than_three_tenths_are_one_face():
    def shifted(frame, x):
        return replace(face(frame), box=(x, 50.0, x + 130.0, 150.0))

    for x, expected in ((70.0, (0, 1)), (69.0, (0, 0))):  # at 70: 60 columns of 200
        assert numbers(track(*clip(shifted(0, 0.0), shifted(1, x)))) == expected


def test_an_unsure_detection_bridges_a_gap_but_begins_nothing():
    sure = [face(i, score=0.6 if i in (0, 5, 6) else 0.95) for i in range(10)]
    elsewhere = [face(i, x=60, y=60, size=40, score=0.6) for i in range(10)]
    hardly = face(9, x=320, score=0.99), face(10, x=320, score=0.3)
    frames, faces = clip(*sure, *elsewhere, *hardly)
    result = track(frames, faces, score=0.9)
    assert [one.frame for one in result.faces] == [*range(1, 10), 9]


def test_two_faces_keep_apart_and_their_order():
    rng = np.random.default_rng(0)
    people = [(face(i, x=100 + i), face(i, x=260 - i)) for i in range(20)]
    drawn = [one for two in people for one in (two if rng.random() < 0.5 else two[::-1])]
    result = track(*clip(*drawn))
    assert [one.frame for one in result.faces] == [one.frame for one in drawn]
    for person in (0, 1):
        x = [one.landmarks[2, 0] for one in result.faces if one.track == person]
        assert len(x) == 20
        assert np.abs(np.diff(x)).max() < 3


def test_embeddings_tell_people_apart_where_boxes_do_not():
    frames, faces = clip(face(0), face(1, x=205), face(2, x=400, size=60), count=3)
    same, other = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    assert numbers(track(frames, faces)) == (0, 0, 1)
    found = track(frames, replace(faces, embeddings=torch.stack([same, other, same])))
    assert numbers(found) == (0, 1, 0)


@settings(max_examples=20, deadline=None)
@given(
    drawn=st.lists(
        st.tuples(st.integers(0, 11), st.floats(0, 300), st.floats(20, 120), st.floats(0.5, 1)),
        max_size=25,
    ),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_part_by_part_is_the_same_as_all_at_once(drawn, cuts):
    drawn = sorted(drawn, key=lambda one: one[0])
    frames, faces = clip(*(face(i, x=x, size=s, score=p) for i, x, s, p in drawn), count=12)
    whole = track(frames, faces, score=0.8)
    found, state = [], Tracks()
    edges = [0, *sorted(cuts), 12]
    for first, last in itertools.pairwise(edges):
        part = [replace(one, frame=one.frame - first) for one in faces.faces]
        part = [one for one in part if 0 <= one.frame < last - first]
        sizes = ((300, 400),) * (last - first)
        result = track(frames[first:last], Faces(tuple(part), sizes), state, score=0.8)
        state = result.tracks
        found += [replace(one, frame=one.frame + first) for one in result.faces]
    assert [one.track for one in found] == list(numbers(whole))
    for one, other in zip(found, whole.faces, strict=True):
        assert one.frame == other.frame
        assert one.box == other.box
        assert np.array_equal(one.landmarks, other.landmarks)


def smoothed_in_parts(frames, faces, values, sizes):
    """What `smooth_over_time` gives where the frames come in parts, as one tensor."""
    found, state, first = [], Tracks(), 0
    for size in sizes:
        indices = [i for i, one in enumerate(faces.faces) if first <= one.frame < first + size]
        part = [replace(faces.faces[i], frame=faces.faces[i].frame - first) for i in indices]
        tracked = track(
            frames[first : first + size], Faces(tuple(part), ((300, 400),) * size), state
        )
        smooth, tracked = smooth_over_time(tracked, {"color": values[indices]}, 0.75)
        found.append(smooth["color"])
        state = tracked.tracks
        first += size
    return torch.cat(found)


def test_values_are_smoothed_along_tracks_and_not_across_a_cut():
    frames, faces = clip(*(face(i, x=x) for i in range(8) for x in (100.0, 300.0)))
    frames[5:] = torch.rand(3, 300, 400, generator=torch.Generator().manual_seed(0)) ** 0.1
    values = torch.rand(16, 2, generator=torch.Generator().manual_seed(1)).double()
    expected = values.clone()
    for frame in (1, 2, 3, 4, 6, 7):
        now, before = slice(2 * frame, 2 * frame + 2), slice(2 * frame - 2, 2 * frame)
        expected[now] = 0.75 * expected[before] + 0.25 * values[now]
    for sizes in ([8], [1] * 8, [3, 3, 2], [4, 4]):
        found = smoothed_in_parts(frames, faces, values, sizes)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_smoothing_twice_begins_from_the_same_past():
    frames, faces = clip(face(0), face(1))
    values = {"color": torch.tensor([0.0, 1.0])}
    first, tracked = smooth_over_time(track(frames, faces), values, 0.75)
    again, tracked = smooth_over_time(tracked, values, 0.75)
    assert first["color"].tolist() == again["color"].tolist() == [0.0, 0.25]
    after = track(
        frames[:1], replace(faces, faces=faces.faces[:1], frame_sizes=((300, 400),)), tracked.tracks
    )
    for _ in range(2):
        third, after = smooth_over_time(after, {"color": torch.tensor([1.0])}, 0.75)
        assert third["color"].tolist() == [0.4375]
    assert values["color"].tolist() == [0.0, 1.0]


def test_a_face_without_a_track_keeps_its_value():
    faces = Faces((face(0), face(1)), ((300, 400),) * 2)
    values, _ = smooth_over_time(faces, {"color": torch.tensor([0.0, 1.0])}, 0.75)
    assert values["color"].tolist() == [0.0, 1.0]


def test_faces_of_a_clip_are_numbered_without_its_frames():
    faces = [face(0, x=100), face(0, x=300), face(1, x=305), face(1, x=104), face(2, x=200)]
    numbered = number(Faces(tuple(faces), ((300, 400),) * 3))
    assert numbers(numbered) == (0, 1, 1, 0, 2)
    assert [one.box for one in numbered.faces] == [one.box for one in faces]


def test_frames_of_another_size_begin_anew():
    frames, faces = clip(face(0))
    state = track(frames, faces).tracks
    small = Faces((face(0),), ((200, 400),))
    assert numbers(track(frames[:, :, :200], small, state)) == (1,)


def test_what_does_not_belong_together_is_refused():
    frames, faces = clip(face(0), face(1))
    with pytest.raises(ValueError, match=r"frames must be \(2, C, H, W\)"):
        track(frames[:1], faces)


@pytest.mark.slow
def test_frames_do_not_flicker():
    """A still photograph with noise of its own in each frame, through all steps."""
    data = pytest.importorskip("skimage.data")
    from gfp_core.pipeline import FaceRestorer

    model = FaceRestorer.load(device="cpu")
    photo = torch.from_numpy(data.astronaut()[:256, 96:352]).permute(2, 0, 1)[None] / 255
    generator = torch.Generator().manual_seed(0)
    frames = (photo + 0.03 * torch.randn(8, 3, 256, 256, generator=generator)).clamp(0, 1)
    alone, ordered = model.restore(frames), model.restore(frames, tracks=Tracks())
    assert [one.frame for one in ordered.faces.faces] == list(range(8))
    face_region = ordered.mask.mean(dim=0) > 0.5
    own, restored = (x.var(dim=0)[:, face_region].mean() for x in (frames, ordered.frames))
    assert restored < 0.5 * own
    steps = [np.abs(np.diff(landmarks(one.faces), axis=0)).mean() for one in (ordered, alone)]
    assert steps[0] < 0.4 * steps[1]
    outside = (ordered.mask == 0)[:, None].expand_as(frames)
    assert torch.equal(ordered.frames[outside], frames[outside])
    # Frame by frame, as the command line does: the same places.
    state, places = Tracks(), []
    for index in range(3):
        one = model.restore(frames[index : index + 1], tracks=state)
        state = one.tracks
        places.append(one.faces.faces[0].landmarks)
    assert np.allclose(places, landmarks(ordered.faces)[:3], atol=1e-3)
