"""PSNR, SSIM, NIQE and the feature and identity distances against independent values."""

import pytest
import torch
import torch.nn.functional as F

from gfp_core.metrics.distances import psnr, ssim
from gfp_core.metrics.niqe import niqe

skimage_data = pytest.importorskip("skimage.data")
skimage_metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """(1, 3, 512, 512) the astronaut."""
    return torch.from_numpy(skimage_data.astronaut()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def noisy(photo):
    generator = torch.Generator().manual_seed(0)
    return photo + 0.05 * torch.randn(photo.shape, generator=generator)


def hwc(image):
    return image[0].permute(1, 2, 0).double().numpy()


def test_psnr_is_the_formula(photo, noisy):
    expected = skimage_metrics.peak_signal_noise_ratio(hwc(photo), hwc(noisy), data_range=1)
    assert psnr(photo, noisy).item() == pytest.approx(expected, abs=1e-4)
    assert psnr(photo, photo).item() == float("inf")
    level = psnr(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.1))
    assert torch.allclose(level, torch.tensor([20.0, 20.0]))


def test_ssim_equals_scikit_image(photo, noisy):
    expected = skimage_metrics.structural_similarity(
        hwc(photo),
        hwc(noisy),
        data_range=1,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(photo.double(), noisy.double()).item() == pytest.approx(expected, abs=1e-9)
    assert ssim(photo, noisy).item() == pytest.approx(expected, abs=1e-4)
    assert ssim(photo, photo).item() == pytest.approx(1, abs=1e-6)


def test_luma_of_ssim_and_psnr_ignores_a_change_of_hue(photo):
    shift = torch.tensor([1 / 65.481, -1 / 128.553, 0.0]).view(1, 3, 1, 1)
    assert psnr(photo, photo + shift) < 45
    assert psnr(photo, photo + shift, y_only=True) > 100
    assert ssim(photo, photo + shift, y_only=True).item() == pytest.approx(1, abs=1e-5)


def test_each_picture_is_measured_alone(photo, noisy):
    both = torch.cat([photo, noisy])
    other = torch.cat([noisy, noisy])
    for metric in (psnr, ssim):
        assert metric(both, other)[0] == pytest.approx(metric(photo, noisy).item(), rel=1e-5)
    assert niqe(both)[1].item() == pytest.approx(niqe(noisy).item(), rel=1e-9)


# Values of BasicSR 1.4.2's NIQE for these pictures, their luma rounded. It resamples in float32,
# and that rounding noise counts where a picture is flat, as parts of the photo are. (On BasicSR's
# own test picture, baboon.png, ours gives what the authors' MATLAB release gives: 5.7296.)
def test_niqe_equals_an_independent_implementation(photo, noisy):
    rough = noisy.clamp(0, 1)
    assert niqe(rough).item() == pytest.approx(7.6047, abs=2e-3)
    assert niqe(photo).item() == pytest.approx(3.0906, abs=0.04)


def test_niqe_rises_with_blur_and_noise(photo):
    scores = [niqe(photo).item()]
    for factor in (2, 4, 8):
        small = F.interpolate(photo, scale_factor=1 / factor, mode="bilinear", antialias=True)
        scores.append(niqe(F.interpolate(small, photo.shape[2:], mode="bicubic")).item())
    assert scores == sorted(scores)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(photo.shape, generator=generator)
    levels = [niqe((photo + s * noise).clamp(0, 1)).item() for s in (0.02, 0.05, 0.1)]
    assert levels == sorted(levels)
    assert levels[0] > scores[0]


def test_niqe_of_a_flat_picture_is_nan_and_of_a_small_one_refused():
    assert niqe(torch.full((1, 3, 192, 192), 0.5)).isnan().all()
    with pytest.raises(ValueError, match="96 x 96"):
        niqe(torch.rand(1, 3, 150, 150))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_cannot_be_compared_is_refused(metric):
    with pytest.raises(ValueError, match="differ in shape"):
        metric(torch.rand(1, 3, 16, 16), torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        metric(torch.rand(1, 16, 16, 3), torch.rand(1, 16, 16, 3))
