"""The degradation of GFP-GAN eq. 10."""

import cv2
import numpy as np
import pytest

from gfp_core.training.degradations import DegradationRanges, degrade

NOTHING = DegradationRanges(sigma=(0.01, 0.01), scale=(1, 1), noise=(0, 0), quality=(100, 100))


@pytest.fixture(scope="module")
def face():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_same_seed_gives_the_same_picture(face):
    one, two, other = (degrade(face, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_input_is_left_alone(face):
    before = face.copy()
    degrade(face, np.random.default_rng(0))
    assert np.array_equal(face, before)


def test_no_degradation_is_nearly_the_clean_face(face):
    # What remains is JPEG of quality 100, whose colour is kept at half the resolution.
    assert psnr(degrade(face, np.random.default_rng(0), NOTHING), face) > 38


@pytest.mark.parametrize(
    "harsher",
    [
        {"sigma": (6, 6)},
        {"scale": (8, 8)},
        {"noise": (15, 15)},
        {"quality": (5, 5)},
    ],
)
def test_each_part_does_harm(face, harsher):
    mild = degrade(face, np.random.default_rng(0), NOTHING)
    ranges = DegradationRanges(**{**NOTHING.__dict__, **harsher})
    assert psnr(degrade(face, np.random.default_rng(0), ranges), face) < psnr(mild, face) - 3


def test_noise_has_the_standard_deviation_it_says():
    grey = np.full((256, 256, 3), 128, np.uint8)
    ranges = DegradationRanges(**{**NOTHING.__dict__, "noise": (10, 10)})
    noisy = degrade(grey, np.random.default_rng(0), ranges).astype(float)
    # On lightness: JPEG halves the resolution of colour and with it the noise there.
    assert (noisy @ [0.299, 0.587, 0.114]).std() == pytest.approx(
        10 * np.linalg.norm([0.299, 0.587, 0.114]), rel=0.05
    )


def test_size_is_kept(face):
    ranges = DegradationRanges(scale=(7.3, 7.3))
    assert degrade(face[:101], np.random.default_rng(0), ranges).shape == (101, 128, 3)
