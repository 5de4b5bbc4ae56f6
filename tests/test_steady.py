"""Restored crops of successive frames: noise is steadied, what moves or is new is not dragged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gfp_core.faces import Face, Faces, Track, Tracks
from gfp_core.geometry import TEMPLATE
from gfp_core.steady import steady_crops

SIDE = 128


def texture(shift: float = 0.0) -> torch.Tensor:
    """Return a (3, S, S) picture of waves, moved to the right by pixels."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    x -= shift
    waves = np.sin(x / 9) * np.cos(y / 7) + 0.6 * np.sin((x + y) / 17) + 0.5 * np.cos(y / 23)
    plane = 0.5 + 0.15 * waves
    return torch.from_numpy(np.stack([plane, 0.8 * plane, 0.7 * plane]))


def noisy(pictures: list[torch.Tensor], sigma: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.stack(pictures)
    return clean + sigma * torch.randn(clean.shape, generator=generator)


def clip(crops: torch.Tensor, restored: torch.Tensor, track: int | None = 0) -> Faces:
    """Return one face in each frame, all of one track."""
    count = len(crops)
    landmarks = (TEMPLATE / 4).astype(np.float32)
    box = (20.0, 20.0, 108.0, 108.0)
    faces = tuple(Face(i, box, 0.99, landmarks, track=track) for i in range(count))
    points = np.zeros((7, 2))
    tracks = Tracks((Track(0, points, points, np.array(box)),))
    sizes = ((SIDE, SIDE),) * count
    return Faces(faces, sizes, crops=crops, restored=restored, tracks=tracks)


def following(faces: Faces, before: Faces) -> Faces:
    """Return faces whose track goes on from that of faces before."""
    assert before.tracks is not None
    tracks = tuple(replace(each, past=each.values) for each in before.tracks.tracks)
    return replace(faces, tracks=replace(before.tracks, tracks=tracks))


def test_what_a_network_makes_of_noise_is_steadied():
    crops = noisy([texture()] * 12, 0.02)
    faces = clip(crops, noisy([texture()] * 12, 0.02, seed=1))
    steady = steady_crops(faces, 0.7).restored
    assert steady is not None
    assert faces.restored is not None
    steps = [each[4:].diff(dim=0).square().mean() for each in (steady, faces.restored)]
    assert steps[0] < 0.15 * steps[1]
    errors = [(each[4:] - texture()).square().mean() for each in (steady, faces.restored)]
    assert errors[0] < 0.4 * errors[1]


def test_a_moving_face_stays_sharp_and_in_its_place():
    moves = [texture(2.5 * i) for i in range(10)]
    faces = clip(noisy(moves, 0.01), noisy(moves, 0.01, seed=1))
    steady = steady_crops(faces, 0.7).restored
    assert steady is not None
    assert faces.restored is not None
    inner = (..., slice(30, -30), slice(30, -30))
    truth = torch.stack(moves)[inner][4:]
    errors = [(each[inner][4:] - truth).square().mean() for each in (steady, faces.restored)]
    assert errors[0] < errors[1]


def test_what_is_new_is_taken_over_at_once():
    pictures = [texture() for _ in range(6)]
    for picture in pictures[4:]:  # a hand comes before the face
        picture[:, 40:80, 40:80] = torch.tensor([0.9, 0.7, 0.6])[:, None, None]
    faces = clip(noisy(pictures, 0.005), noisy(pictures, 0.005, seed=1))
    steady = steady_crops(faces, 0.7).restored
    assert steady is not None
    assert faces.restored is not None
    torch.testing.assert_close(
        steady[4, :, 45:75, 45:75], faces.restored[4, :, 45:75, 45:75], atol=0.01, rtol=0
    )


def test_one_frame_after_the_other_gives_what_all_at_once_give():
    pictures = [texture(1.5 * i) for i in range(6)]
    crops, restored = noisy(pictures, 0.01), noisy(pictures, 0.01, seed=1)
    whole = steady_crops(clip(crops, restored), 0.7)
    parts, before = [], None
    for index in range(6):
        faces = clip(crops[index : index + 1], restored[index : index + 1])
        before = steady_crops(faces if before is None else following(faces, before), 0.7)
        assert before.restored is not None
        parts.append(before.restored)
    assert whole.restored is not None
    assert torch.equal(torch.cat(parts), whole.restored)


@pytest.mark.parametrize(("track", "smoothing"), [(None, 0.7), (0, 0.0)])
def test_without_a_track_or_a_share_nothing_changes(track: int | None, smoothing: float):
    crops = noisy([texture()] * 3, 0.02)
    faces = clip(crops, crops, track)
    assert torch.equal(steady_crops(faces, smoothing).restored, crops)


def test_a_crop_of_another_size_begins_anew():
    crops = noisy([texture()] * 2, 0.02)
    before = steady_crops(clip(crops[:1], crops[:1]), 0.7)
    small = crops[1:, :, ::2, ::2]
    assert torch.equal(steady_crops(following(clip(small, small), before), 0.7).restored, small)
