"""The degradation of GFP-GAN eq. 10."""

import cv2
import numpy as np
import pytest
import torch

from gfp_core.degradation import (
    KERNEL_SIZE,
    DegradationRanges,
    apply,
    apply_to_batch,
    degrade,
    draw,
    gaussian_kernel,
    motion_kernel,
)

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


def test_kernels_have_sum_one_and_their_direction():
    gaussian = gaussian_kernel(4.0, 1.0, 0.0)
    motion = motion_kernel(21.0, np.pi / 2)
    y, x = np.mgrid[:KERNEL_SIZE, :KERNEL_SIZE] - KERNEL_SIZE // 2
    for kernel in (gaussian, motion):
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((gaussian * x**2).sum()) == pytest.approx(4, rel=0.02)
    assert np.sqrt((gaussian * y**2).sum()) == pytest.approx(1, rel=0.02)
    assert np.count_nonzero(motion.sum(axis=0) > 1e-6) == 1  # a motion down is one column wide
    assert np.sqrt((motion * y**2).sum()) == pytest.approx(21 / np.sqrt(12), rel=0.05)


def test_chances_are_kept_and_what_has_none_draws_no_number():
    rng = np.random.default_rng(0)
    ranges = DegradationRanges(motion=0.3, anisotropic=0.5, gray_chance=0.2)
    drawn = [draw(rng, ranges) for _ in range(2000)]
    motion = np.mean([one.kernel is not None and (one.kernel > 0).mean() < 0.1 for one in drawn])
    assert motion == pytest.approx(0.3, abs=0.05)
    assert np.mean([one.kernel is not None for one in drawn]) == pytest.approx(0.65, abs=0.05)
    assert np.mean([one.color is not None for one in drawn]) == pytest.approx(0.2, abs=0.05)
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    draw(first)
    second.uniform(size=4)
    assert first.random() == second.random()  # test sets made before stay what they were


def test_colours(face):
    grey = degrade(
        face, np.random.default_rng(0), DegradationRanges(**{**vars(NOTHING), "gray_chance": 1.0})
    )
    assert (grey.max(axis=2) - grey.min(axis=2)).max() <= 1
    mild = degrade(face, np.random.default_rng(0), NOTHING).astype(float)
    shifted = degrade(
        face, np.random.default_rng(0),
        DegradationRanges(**{**vars(NOTHING), "shift": 20.0, "shift_chance": 1.0}),
    ).astype(float)  # fmt: skip
    inside = (mild > 30) & (mild < 225)
    for channel in range(3):
        change = (shifted - mild)[..., channel][inside[..., channel]]
        assert abs(change.mean()) <= 20
        assert change.std() < 1


def test_turning_hue_keeps_grey_and_lightness():
    ranges = DegradationRanges(
        jitter_chance=1.0, brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0.1, 0.1)
    )
    matrix, offset = draw(np.random.default_rng(0), ranges).color
    assert np.allclose(matrix @ np.ones(3), np.ones(3), atol=1e-3)
    assert np.allclose([0.299, 0.587, 0.114] @ matrix, [0.299, 0.587, 0.114], atol=1e-3)
    assert np.allclose(offset, 0, atol=1e-6)
    assert np.abs(matrix - np.eye(3)).max() > 0.2


def test_the_device_makes_what_the_workers_make(face):
    ranges = DegradationRanges(noise=(0, 0), scale=(1, 4), motion=0.3, shift_chance=0.5, shift=20)
    faces = torch.from_numpy(np.stack([face] * 6)).permute(0, 3, 1, 2).float() / 255
    drawn = [draw(np.random.default_rng(seed), ranges) for seed in range(6)]
    generator = torch.Generator().manual_seed(0)
    found = apply_to_batch(faces, drawn, generator)
    for one, other in zip(found, drawn, strict=True):
        expected = apply(face, other, np.random.default_rng(0))
        assert psnr(one.permute(1, 2, 0).numpy() * 255, expected) > 38
    with pytest.raises(ValueError, match="5 degradations for 6"):
        apply_to_batch(faces, drawn[:5], generator)


def test_noise_of_the_device_has_its_standard_deviation():
    grey = torch.full((1, 3, 256, 256), 128 / 255)
    ranges = DegradationRanges(**{**vars(NOTHING), "noise": (10, 10)})
    drawn = [draw(np.random.default_rng(0), ranges)]
    noisy = apply_to_batch(grey, drawn, torch.Generator().manual_seed(0))[0] * 255
    light = torch.einsum("chw,c->hw", noisy, torch.tensor([0.299, 0.587, 0.114]))
    assert light.std() == pytest.approx(10 * np.linalg.norm([0.299, 0.587, 0.114]), rel=0.05)
