"""Checks and conversions of image tensors."""

import pytest
import torch

from gfp_core.tensors import check_crops, check_frames, clamp01, resize, to_numpy, to_uint8

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(3, 8, 8), r"pictures must be \(B, 3 or 4, H, W\), not \(3, 8, 8\)"),
        (torch.zeros(1, 2, 8, 8), "3 or 4"),
        (torch.zeros(1, 3, 0, 8), r"not \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating point in 0..1, not torch.uint8"),
    ],
)
def test_frames_that_are_no_images_are_refused_by_name(frames, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_frames(frames, name="pictures")


def test_an_empty_batch_and_any_floating_point_type_are_frames() -> None:
    check_frames(torch.zeros(0, 3, 8, 8))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        check_frames(torch.zeros(1, 4, 8, 8, dtype=dtype))
        check_crops(torch.zeros(1, 3, 8, 8, dtype=dtype))


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8, 9), (3, 8, 8), (1, 3, 0, 0)])
def test_crops_that_are_not_square_rgb_are_refused(shape) -> None:
    with pytest.raises(ValueError, match="crops must be"):
        check_crops(torch.zeros(shape))


def test_clamped_images_are_new_and_hold_numbers_of_0_to_1() -> None:
    image = torch.tensor([NAN, -INF, INF, -1.0, 0.5, 2.0])
    assert clamp01(image).tolist() == [0, 0, 1, 0, 0.5, 1]
    assert image[3] == -1


def test_eight_bits_are_rounded() -> None:
    values = torch.tensor([NAN, -1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 9.0])
    for dtype in (torch.float32, torch.float64):
        assert to_uint8(values.to(dtype)).tolist() == [0, 0, 0, 0, 1, 255, 255]


def test_numpy_images_do_not_share_the_memory_of_the_tensor() -> None:
    image = torch.zeros(3, 4, 5)
    array = to_numpy(image)
    array[:] = 1
    assert array.shape == (4, 5, 3)
    assert image.max() == 0


def cut_out(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A disc of one color on transparent black, (1, 4, 64, 64)."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((y - 31.5) ** 2 + (x - 31.5) ** 2 < 25**2).to(dtype)
    return disc * torch.tensor([0.9, 0.8, 0.7, 1.0], dtype=dtype)[None, :, None, None]


@pytest.mark.parametrize("size", [128, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_resized_cut_out_has_no_dark_fringe(size: int, dtype: torch.dtype) -> None:
    image = cut_out(dtype)
    before = image.clone()
    resized = resize(image, size, size)
    assert torch.equal(image, before)
    assert resized.dtype == dtype
    share = resized[:, 3:].float()
    error = share * (resized[:, :3].float() - torch.tensor([0.9, 0.8, 0.7])[:, None, None])
    assert float(error.abs().max()) < 1.5 / 255
    assert int(((share > 0.1) & (share < 0.9)).sum()) > 20


def test_an_opaque_image_is_resized_as_one_without_alpha() -> None:
    image = torch.rand(1, 4, 20, 30)
    image[:, 3] = 1
    resized = resize(image, 33, 50)
    assert torch.equal(resized[:, :3], resize(image[:, :3], 33, 50))
    assert bool((resized[:, 3] == 1).all())


def test_resizing_an_empty_batch() -> None:
    assert resize(torch.zeros(0, 3, 8, 8), 5, 6).shape == (0, 3, 5, 6)
