"""Degradations of pictures found in the open."""

import cv2
import numpy as np
import pytest

from gfp_core import wild
from gfp_core.degradation import PAPER
from gfp_core.wild import HISTORIES, KINDS, NAMED, degrade_as, draw_kind, toned


@pytest.fixture(scope="module")
def face():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_reproducible_and_leaves_its_input_alone(face, kind):
    before = face.copy()
    one, two, other = (degrade_as(kind, face, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert np.array_equal(face, before)
    assert all(part.shape == face.shape and part.dtype == np.uint8 for part in one)


def test_kinds_are_in_the_order_of_their_harm(face):
    def mean(kind):
        pairs = [degrade_as(kind, face, np.random.default_rng(seed)) for seed in range(8)]
        return np.mean([psnr(*pair) for pair in pairs])

    order = [mean(kind) for kind in ("clean", "mild", "paper", "severe")]
    assert order == sorted(order, reverse=True)
    assert order[0] > 30


@pytest.mark.parametrize("name", HISTORIES)
def test_every_history_does_harm_and_stays_near(face, name):
    for seed in range(4):
        x = HISTORIES[name][1](face.astype(np.float32), np.random.default_rng(seed))
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        back = cv2.resize(np.clip(x, 0, 255), (128, 128), interpolation=cv2.INTER_LINEAR)
        assert 8 < psnr(back, face) < 45


def test_what_is_not_known_is_not_asked_for(face):
    # A picture without colors is to stay without: both of the pair are toned, or neither is.
    rest = (face.astype(float) - face.mean(axis=2, keepdims=True)).std()
    kept = 0
    for seed in range(60):
        bad, clean = degrade_as("wild", face, np.random.default_rng(seed))
        if np.array_equal(clean, face):
            kept += 1
            continue
        left = (clean.astype(float) - clean.mean(axis=2, keepdims=True)).std()
        assert left < 0.5 * rest
        assert np.abs(bad.mean((0, 1)) - clean.mean((0, 1))).max() < 25
    assert 40 < kept < 60


def test_toned_is_grey_or_brown(face):
    pictures = [toned(face, np.random.default_rng(seed)) for seed in range(12)]
    grey = [np.ptp(picture, axis=2).max() == 0 for picture in pictures]
    assert 0 < sum(grey) < 12
    for picture, without in zip(pictures, grey, strict=True):
        if not without:
            red, _, blue = picture.reshape(-1, 3).mean(axis=0)
            assert red > blue + 5


def test_camera_noise_is_stronger_in_the_light():
    x = np.full((128, 256, 3), 20, np.float32)
    x[:, 128:] = 220
    noise = wild.camera_noise(x, np.random.default_rng(3)) - x
    assert noise[:, 128:].std() > 1.1 * noise[:, :128].std()


def test_halftone_keeps_the_tone():
    for tone in (60, 128, 200):
        x = np.full((96, 96, 3), tone, np.float32)
        dots = wild.halftone(x, np.random.default_rng(1))
        assert dots.std() > 10
        assert abs(dots.mean() - tone) < 20


def test_video_blocks_leave_flat_places_flat():
    flat = np.full((50, 70, 3), 131, np.float32)
    coded = wild.video_blocks(flat, np.random.default_rng(0))
    assert coded.shape == flat.shape
    assert np.ptp(coded[..., 1]) < 2
    assert abs(coded.mean() - 131) < 12


def test_shares_choose_the_kinds():
    drawn = [draw_kind(np.random.default_rng(i), {"mild": 3, "wild": 1}) for i in range(200)]
    assert set(drawn) == {"mild", "wild"}
    assert 120 < drawn.count("mild") < 180


def test_the_named_ranges_are_those_of_the_judge():
    assert NAMED["mild"].sigma == (1, 3)
    assert NAMED["severe"].scale == (6, 8)
    assert NAMED["paper"] is PAPER
