"""Automatic enhancement: each formula beside numpy's, and what it must leave alone."""

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.exposure
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfp_core.color.enhance import balance, enhance, stretch
from gfp_core.color.spaces import linear_to_rgb, rgb_to_linear, rgb_to_oklab


@pytest.fixture(scope="module")
def photo() -> Tensor:
    small = cv2.resize(skimage.data.astronaut(), (160, 160), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255


def dull(frames: Tensor) -> Tensor:
    """Less contrast and less colour."""
    return 0.35 + 0.4 * (0.5 * frames + 0.5 * frames.mean(dim=1, keepdim=True))


def lit(frames: Tensor, light: tuple) -> Tensor:
    gains = torch.tensor(light).view(1, 3, 1, 1)
    return linear_to_rgb(rgb_to_linear(frames) * gains)


def whole(frames: Tensor) -> Tensor:
    return torch.ones_like(frames[:, :1])


def mean_chroma(frames: Tensor) -> float:
    return float(rgb_to_oklab(frames)[:, 1:].norm(dim=1).mean())


def test_shades_of_grey_is_the_minkowski_norm_of_linear_light(photo: Tensor) -> None:
    coded = photo[0].double().numpy().reshape(3, -1)
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    light = np.array([(channel**6).mean() ** (1 / 6) for channel in linear])
    luminance = skimage.color.colorconv.xyz_from_rgb[1] @ light
    balanced = rgb_to_linear(balance(photo, whole(photo)))[0].reshape(3, -1).numpy()
    np.testing.assert_allclose(
        balanced, linear * (luminance / light)[:, None], rtol=2e-3, atol=1e-5
    )


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(0.6, 1.0)] * 3))
def test_the_light_is_divided_out(photo: Tensor, light: tuple) -> None:
    one, other = (
        rgb_to_linear(balance(frames, whole(frames))) for frames in (photo, lit(photo, light))
    )
    ratio = (other / one)[one > 0.05]
    assert ratio.std() < 1e-3 * ratio.mean()  # but for the brightness, which is kept


def test_a_dull_picture_gains_contrast_and_colour(photo: Tensor) -> None:
    before = dull(photo)
    after = enhance(before, white_balance=False)
    spread = [float(rgb_to_oklab(frames)[:, 0].std()) for frames in (before, after)]
    assert spread[1] > 1.2 * spread[0]
    assert mean_chroma(after) > 1.15 * mean_chroma(before)
    plain = enhance(before, white_balance=False, contrast=False, saturation=False)
    torch.testing.assert_close(plain, before, atol=1e-6, rtol=0)
    only = enhance(before, white_balance=False, contrast=False)
    lightness = rgb_to_oklab(only)[:, 0] - rgb_to_oklab(before)[:, 0]
    assert lightness.abs().max() < 1e-3
    assert mean_chroma(only) > 1.15 * mean_chroma(before)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.3, 0.45, 0.7), (0.18, 0.45, 0.82)),  # 1.6 times as wide; 0.3 : 0.3 is free as before
        ((0.1, 0.35, 0.6), (0.04, 0.35, 0.84)),  # 0.1 : 0.4 is free
        ((0.1, 0.5, 0.9), (0.0, 0.5, 1.0)),  # no wider than 0..1
        ((0.0, 0.5, 1.0), (0.0, 0.5, 1.0)),
        ((0.4, 0.4, 0.5), (0.4, 0.4, 0.5)),
        ((0.3, 0.31, 0.7), (0.18, 0.18 + 0.64 * 0.025 ** (2 / 3), 0.82)),  # as far as it bends
        ((0.3, 0.69, 0.7), (0.18, 0.18 + 0.64 * 0.975**1.5, 0.82)),
    ],
)
def test_the_range_is_stretched_about_its_middle(levels: tuple, expected: tuple) -> None:
    light = torch.tensor(levels, dtype=torch.float64)
    np.testing.assert_allclose(stretch(light, *levels).numpy(), expected, atol=1e-9)


def test_beyond_the_range_the_stretch_goes_on_straight() -> None:
    light = torch.tensor([0.2, 0.25, 0.75, 0.8], dtype=torch.float64)
    stretched = stretch(light, 0.3, 0.45, 0.7)
    np.testing.assert_allclose(stretched.numpy(), [0.02, 0.1, 0.9, 0.98], atol=1e-9)


def test_colourful_pictures_keep_their_saturation() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    frames = torch.stack([x, y, 1 - x])[None]
    changed = enhance(frames, white_balance=False, contrast=False)
    torch.testing.assert_close(changed, frames, atol=1e-4, rtol=0)


def test_grey_pictures_stay_grey(photo: Tensor) -> None:
    grey = photo.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    changed = enhance(0.3 + 0.4 * grey)
    assert (changed.amax(dim=1) - changed.amin(dim=1)).max() < 1e-4
    assert (changed - 0.3 - 0.4 * grey).abs().max() > 0.05


def test_noise_in_flat_areas_is_not_strengthened() -> None:
    """CLAHE makes noise of flat areas into contrast; this does not."""
    generator = torch.Generator().manual_seed(0)
    frames = 0.5 + 0.02 * torch.randn(1, 1, 256, 256, generator=generator)
    frames = frames.expand(-1, 3, -1, -1).clone()
    frames[..., :20, :], frames[..., 236:, :] = 0.0, 1.0  # the range is full
    changed = enhance(frames, white_balance=False)
    flat = (slice(None), slice(None), slice(100, 150))
    assert changed[flat].std() < 1.1 * frames[flat].std()
    equalized = skimage.exposure.equalize_adapthist(frames[0, 0].double().numpy().clip(0, 1))
    assert equalized[100:150].std() > 1.1 * float(frames[flat].std())


def test_an_edge_gets_no_halo() -> None:
    frames = torch.full((1, 3, 128, 128), 0.2)
    frames[..., 64:] = 0.8
    changed = enhance(frames, white_balance=False, saturation=False)[0, 0, 64]
    for side in (changed[:64], changed[64:]):
        assert side.max() - side.min() < 0.03


def test_what_lies_beyond_the_range_survives(photo: Tensor) -> None:
    frames = dull(photo)
    frames[0, :, 3, 4] = torch.tensor([1.7, 2.5, -0.4])
    frames[0, 1, 9, 9] = float("nan")
    frames[0, 2, 9, 8] = float("inf")
    inside = frames.nan_to_num(nan=0.0, posinf=1.0).clamp(0, 1)
    changed, expected = enhance(frames), enhance(inside)
    beyond = torch.tensor([0.7, 1.5, -0.4])
    torch.testing.assert_close(changed[0, :, 3, 4], expected[0, :, 3, 4] + beyond)
    assert changed[0, 1, 9, 9].isnan()
    assert changed[0, 2, 9, 8].isposinf()
    rest = changed.isfinite() & (frames >= 0) & (frames <= 1)
    torch.testing.assert_close(changed[rest], expected[rest])


def test_alpha_stays_and_says_what_counts(photo: Tensor) -> None:
    alpha = torch.zeros(1, 1, 160, 160)
    alpha[..., :80] = 1
    frames = torch.cat([dull(photo), alpha], dim=1)
    frames[:, 0, :, 80:] = 1.0  # a red that nobody sees
    other = frames.clone()
    other[:, :3, :, 80:] = 0.0
    changed, expected = enhance(frames, contrast=False), enhance(other, contrast=False)
    assert torch.equal(changed[:, 3], frames[:, 3])
    torch.testing.assert_close(changed[..., :80], expected[..., :80])


def test_nothing_is_rounded_to_levels() -> None:
    ramp = torch.linspace(0.3, 0.6, 4096).expand(1, 3, 16, -1)
    assert len(enhance(ramp)[0, 0, 8].unique()) > 3000


def test_batched_equals_one_by_one_and_nothing_changes_in_place(photo: Tensor) -> None:
    frames = torch.cat([photo, dull(photo), lit(photo, (1.0, 0.7, 0.4))])
    before = frames.clone()
    batch = enhance(frames)
    assert torch.equal(frames, before)
    assert torch.equal(batch, enhance(frames))
    for i in range(3):
        assert torch.equal(enhance(frames[i : i + 1]), batch[i : i + 1])
    half = enhance(frames, 0.5)
    torch.testing.assert_close(half, (frames + batch) / 2)
    assert torch.equal(enhance(frames, 0.0), frames)
    assert enhance(frames.half()).dtype == torch.float16


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (5, 700)])
def test_uniform_and_narrow_frames_have_an_answer(value: float, size: tuple) -> None:
    frames = torch.full((1, 3, *size), value)
    torch.testing.assert_close(enhance(frames), frames, atol=0.1, rtol=0)


def test_what_is_wrong_is_named(photo: Tensor) -> None:
    for frames, strength, said in [
        (photo[0], 1.0, "3 or 4"),
        (photo[:, :2], 1.0, "3 or 4"),
        ((photo * 255).byte(), 1.0, "floating point"),
        (photo, 1.5, "strength"),
    ]:
        with pytest.raises(ValueError, match=said):
            enhance(frames, strength)
