"""Pasting back: masks, untouched pixels, other sizes, faces that overlap or leave the frame."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from gfp_core import paste as paste_module
from gfp_core.align import align
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE, compose, scaling, warp_into
from gfp_core.masks import CropMasks
from gfp_core.options import Blend, Mask
from gfp_core.paste import paste

SHAPES = ["ellipse", "box", "hull"]


def placed(scale: float, angle: float = 0.0, centre: tuple[float, float] = (256, 256)):
    """The template's landmarks in a frame: crop pixels times scale, turned, about a centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 256) @ (scale * turn).T + centre


def make_faces(frames: Tensor, *landmarks: np.ndarray, size: int = 128) -> Faces:
    """Aligned faces of frame 0, "restored" to what they were."""
    found = tuple(
        Face(0, (*points.min(0), *points.max(0)), 1.0, points.astype(np.float32))
        for points in landmarks
    )
    sizes = (tuple(frames.shape[2:]),) * len(frames)
    aligned = align(frames, Faces(found, sizes), size)
    return replace(aligned, restored=aligned.crops)


def painted(faces: Faces, value: float) -> Faces:
    assert faces.crops is not None
    return replace(faces, restored=torch.full_like(faces.crops, value))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(height: int, width: int) -> Tensor:
    small = noise(1, 3, height // 24 + 2, width // 24 + 2)
    return F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_the_face_is_restored_and_the_rest_left() -> None:
    frame = noise(1, 3, 300, 320)
    faces = painted(make_faces(frame, placed(0.4, 0.3, (160, 150))), 0.9)
    image, mask = paste(frame, faces, blend=Blend(multiband=False))
    assert image.shape == (1, 3, 300, 320)
    assert mask.shape == (1, 300, 320)
    assert mask[0, 150, 160] == 1
    torch.testing.assert_close(image[0, :, 150, 160], torch.full((3,), 0.9))
    untouched = (mask == 0)[:, None].expand_as(image)
    assert torch.equal(image[untouched], frame[untouched])
    assert 0.1 < float((mask > 0.5).float().mean()) < 0.25
    blended = frame + mask[:, None] * (0.9 - frame)
    torch.testing.assert_close(image, blended)


def test_pasting_twice_gives_the_same_and_changes_no_input() -> None:
    frame = noise(1, 3, 200, 200)
    faces = painted(make_faces(frame, placed(0.3, 0.2, (90, 100))), 0.7)
    frame_before, matrix = frame.clone(), faces.faces[0].matrix
    assert matrix is not None
    matrix_before = matrix.copy()
    first = paste(frame, faces, upscale=2)
    second = paste(frame, faces, upscale=2)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(frame, frame_before)
    np.testing.assert_array_equal(matrix, matrix_before)


def test_in_place_the_frames_become_the_result() -> None:
    frame = noise(1, 4, 200, 200)
    faces = painted(make_faces(frame, placed(0.3, 0.2, (90, 100))), 0.7)
    wanted, mask = paste(frame, faces)
    image, same_mask = paste(frame, faces, in_place=True)
    assert image is frame
    assert torch.equal(image, wanted)
    assert torch.equal(mask, same_mask)


def test_values_above_one_survive() -> None:
    frame = noise(1, 3, 200, 200)
    frame[:, :, :20] += 5
    frame[:, :, 100:110, 100:110] = 1.5
    faces = make_faces(frame, placed(0.25, centre=(100, 100)))
    image, mask = paste(frame, faces)
    assert mask[0, 105, 105] == 1
    assert torch.equal(image[:, :, :20], frame[:, :, :20])
    # Inside the face too: the crop was shown a clamped highlight and gave it back.
    torch.testing.assert_close(image[0, :, 105, 105], torch.full((3,), 1.5), atol=0.02, rtol=0)
    assert paste(frame, painted(faces, 0.0))[0].min() >= 0


def test_alpha_is_kept() -> None:
    frame = noise(2, 4, 150, 160)
    faces = painted(make_faces(frame, placed(0.2, centre=(80, 70))), 0.5)
    image, _ = paste(frame, faces)
    assert torch.equal(image[:, 3], frame[:, 3])
    assert not torch.equal(image[0, :3], frame[0, :3])
    assert torch.equal(image[1], frame[1])
    opaque = torch.cat([frame[:, :3], torch.ones(2, 1, 150, 160)], dim=1)
    enlarged, _ = paste(opaque, faces, upscale=1.5)
    assert enlarged.shape == (2, 4, 225, 240)
    assert bool((enlarged[:, 3] == 1).all())


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (40, 30), (700, 90)])
def test_no_face_leaves_the_frame_as_it_is(shape: tuple[int, int]) -> None:
    frame = noise(1, 3, *shape) * 3 - 1
    image, mask = paste(frame, make_faces(frame))
    assert torch.equal(image, frame)
    assert image.data_ptr() != frame.data_ptr()
    assert mask.max() == 0


def test_the_mask_is_soft_and_ends_inside_the_crop() -> None:
    frame = torch.zeros(1, 3, 512, 512)
    faces = painted(make_faces(frame, TEMPLATE, size=512), 1.0)
    for shape in SHAPES:
        image, mask = paste(frame, faces, mask=shape, blend=Blend(multiband=False))
        assert max(mask[0, 0].max(), mask[0, -1].max(), mask[0, :, 0].max()) < 1e-6
        # The brows, the eyes, the mouth and nearly the chin; nowhere a visible step.
        points = [(205, 200), (205, 310), (240, 193), (240, 319), (371, 256), (430, 256)]
        assert all(mask[0, y, x] > 0.95 for y, x in points), shape
        assert mask[0].diff(dim=0).abs().max() < 0.06
        assert mask[0].diff(dim=1).abs().max() < 0.06
        torch.testing.assert_close(image[0, 0], mask[0])
    ellipse, box = (paste(frame, faces, mask=shape)[1] for shape in ("ellipse", "box"))
    # Hair and background at the crop's sides are left alone by all but the box.
    assert ellipse[0, :, :90].max() == 0
    assert box[0, 250, 60] == 1


def test_only_the_box_of_the_face_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    warp = paste_module.warp

    def spy(image, back, size):
        sizes.append(size)
        return warp(image, back, size)

    monkeypatch.setattr(paste_module, "warp", spy)
    frame = torch.zeros(1, 3, 2000, 2000)
    paste(frame, painted(make_faces(frame, placed(0.25, centre=(900, 1200))), 1.0))
    assert sizes
    assert max(max(size) for size in sizes) < 128 + 10


@pytest.mark.parametrize("scale", [0.15, 0.25, 0.6])
@pytest.mark.parametrize("upscale", [1.0, 2.0, 1.37, 3.0])
def test_an_unrestored_crop_comes_back_where_it_was(scale: float, upscale: float) -> None:
    frame = smooth(320, 300)
    faces = make_faces(frame, placed(scale, 0.3, (150.3, 161.8)), size=256)
    plain, _ = paste(frame, faces.select([]), upscale=upscale)
    image, mask = paste(frame, faces, upscale=upscale)
    inside = (mask > 0.5)[:, None].expand_as(image)
    assert psnr(image[inside], plain[inside]) > 50
    # Half a pixel of the frame aside would show: the same picture moved by that much is worse.
    step = max(1, round(upscale / 2))
    moved = plain.roll(step, dims=3)
    assert psnr(image[inside], moved[inside]) < psnr(image[inside], plain[inside]) - 10


@pytest.mark.parametrize("size", [(640, 600), (643, 603), (500, 800), (160, 150), (321, 299)])
def test_background_of_any_size(size: tuple[int, int]) -> None:
    frame = smooth(320, 300)
    background = F.interpolate(frame, size, mode="bicubic", antialias=True).clamp(0, 1)
    faces = make_faces(frame, placed(0.4, -0.2, (140, 150)), size=256)
    image, mask = paste(frame, faces, background=background)
    assert image.shape[2:] == mask.shape[1:] == size
    inside = (mask > 0)[:, None].expand_as(image)
    assert psnr(image[inside], background[inside]) > 45
    assert torch.equal(image[~inside], background[~inside])


def test_background_without_alpha_takes_that_of_the_frames() -> None:
    frame = noise(1, 4, 60, 50)
    frame[:, 3] = torch.linspace(0, 1, 50)
    background = noise(1, 3, 120, 100, seed=1)
    image, _ = paste(frame, make_faces(frame), background=background)
    assert torch.equal(image[:, :3], background)
    assert bool((image[0, 3].diff(dim=1) >= 0).all())


def test_a_small_face_is_filtered_not_aliased() -> None:
    frame = torch.full((1, 3, 120, 120), 0.5)
    faces = make_faces(frame, placed(0.11, 0.1, (60, 60)), size=512)
    checks = (torch.arange(512)[:, None] // 2 + torch.arange(512) // 2) % 2
    faces = replace(faces, restored=checks.float().expand(1, 3, 512, 512))
    image, mask = paste(frame, faces)
    assert mask.max() == 1
    assert float((image - 0.5).abs().max()) < 0.06


def test_feather_is_in_proportion_to_the_face() -> None:
    frame = torch.zeros(1, 3, 400, 400)
    widths = {}
    for scale in (0.3, 0.6):
        for feather in (0.05, 0.2):
            faces = painted(make_faces(frame, placed(scale, centre=(200, 200))), 1.0)
            row = paste(frame, faces, mask=Mask(feather=feather))[1][0, 200]
            widths[scale, feather] = int(((row > 0.02) & (row < 0.98)).sum())
    assert widths[0.6, 0.2] == pytest.approx(2 * widths[0.3, 0.2], rel=0.15)
    assert widths[0.6, 0.2] == pytest.approx(4 * widths[0.6, 0.05], rel=0.2)


def test_strength_is_the_share_of_the_restored_face() -> None:
    frame = noise(1, 3, 200, 200)
    faces = painted(make_faces(frame, placed(0.3, centre=(100, 100))), 1.0)
    whole, full = paste(frame, faces)
    half, halved = paste(frame, faces, strength=0.5)
    none, nothing = paste(frame, faces, strength=0.0)
    torch.testing.assert_close(halved, full / 2)
    torch.testing.assert_close(half, (frame + whole) / 2)
    assert torch.equal(none, frame)
    assert nothing.max() == 0


def test_overlapping_faces_share_their_pixels_in_any_order() -> None:
    frame = torch.full((1, 3, 300, 400), 0.2)
    left, right = placed(0.4, 0.1, (150, 150)), placed(0.4, -0.2, (230, 160))
    faces = make_faces(frame, left, right)
    values = torch.tensor([0.9, 0.6])[:, None, None, None]
    faces = replace(faces, restored=values.expand(2, 3, 128, 128))
    image, mask = paste(frame, faces, strength=0.8)
    alone = [paste(frame, faces.select([i]), strength=0.8) for i in (0, 1)]
    both = (alone[0][1] > 0) & (alone[1][1] > 0)
    assert int(both.sum()) > 1000
    torch.testing.assert_close(mask, torch.maximum(alone[0][1], alone[1][1]))
    lower = torch.minimum(alone[0][0], alone[1][0])
    upper = 0.2 + mask[:, None] * 0.7
    assert bool(((image >= lower - 1e-6) & (image <= upper + 1e-6)).all())
    swapped, mask_swapped = paste(frame, faces.select([1, 0]), strength=0.8)
    assert torch.equal(image, swapped)
    assert torch.equal(mask, mask_swapped)


def test_a_face_found_twice_counts_once() -> None:
    frame = noise(1, 3, 200, 200)
    faces = painted(make_faces(frame, placed(0.3, centre=(100, 100))), 0.8)
    once, twice = paste(frame, faces)[0], paste(frame, faces.select([0, 0]))[0]
    torch.testing.assert_close(once, twice)


def test_faces_across_and_beyond_the_edge() -> None:
    frame = noise(1, 3, 100, 120)
    faces = make_faces(
        frame, *(placed(0.4, centre=c) for c in [(0, 50), (118, 99), (-400, 50), (60, 900)])
    )
    image, mask = paste(frame, painted(faces, 0.9))
    assert mask[0, 50, 0] == 1
    torch.testing.assert_close(image[0, :, 50, 0], torch.full((3,), 0.9))
    outside, nothing = paste(frame, painted(faces.select([2, 3]), 0.9))
    assert torch.equal(outside, frame)
    assert nothing.max() == 0


def test_broken_pixels_are_replaced_only_under_a_face() -> None:
    frame = noise(1, 3, 200, 200)
    frame[0, 0, 100, 100] = float("nan")
    frame[0, 1, 110, 100] = float("inf")
    frame[0, :, 5, 5] = float("nan")
    frame[0, :, 5, 7] = float("inf")
    faces = painted(make_faces(frame, placed(0.3, centre=(100, 100))), 0.8)
    image, _ = paste(frame, faces)
    assert float(image[0, 0, 100, 100]) == pytest.approx(0.8)
    assert float(image[0, 1, 110, 100]) == pytest.approx(0.8)
    assert bool(image[0, :, 5, 5].isnan().all())
    assert bool(image[0, :, 5, 7].isinf().all())
    assert bool(paste(frame, faces, upscale=2)[0].isfinite().all())


def test_enlarging_makes_no_new_extremes() -> None:
    frame = (noise(1, 3, 40, 40) > 0.5).float()
    frame[0, 0, 3, 3] = 7.0
    image, _ = paste(frame, make_faces(frame), upscale=2.5)
    assert image.shape[2:] == (100, 100)
    assert image.min() >= 0
    assert image[0, 1:].max() <= 1
    assert 5 < image.max() <= 7


def test_progress_counts_faces_and_may_cancel() -> None:
    frames = noise(2, 3, 100, 100)
    faces = make_faces(frames, placed(0.1), placed(0.1, centre=(50, 50)))
    faces = replace(faces, faces=(replace(faces.faces[0], frame=1), faces.faces[1]))
    calls: list[tuple[int, int]] = []
    paste(frames, faces, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paste(frames, faces, progress=cancel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "star"}, "mask must be"),
        ({"mask": "parts"}, "needs a parser"),
        ({"mask": torch.ones(1, 9, 9)}, "masks of these crops"),
        ({"frame_mask": torch.ones(1, 9, 9)}, "frame_mask"),
        ({"strength": torch.ones(2)}, "2 strengths for 1 faces"),
        ({"strength": 1.1}, "strength"),
        ({"upscale": 0}, "upscale"),
        ({"upscale": float("inf")}, "upscale"),
        ({"upscale": 2, "background": torch.zeros(1, 3, 9, 9)}, "not both"),
        ({"background": torch.zeros(2, 3, 9, 9)}, "2 backgrounds for 1 frames"),
        ({"background": torch.zeros(3, 9, 9)}, "background must be"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    frame = torch.zeros(1, 3, 50, 50)
    with pytest.raises(ValueError, match=message):
        paste(frame, make_faces(frame, placed(0.1, centre=(25, 25))), **options)


def test_faces_that_are_not_ready_are_refused() -> None:
    frame = torch.zeros(1, 3, 50, 50)
    faces = make_faces(frame, placed(0.1, centre=(25, 25)))
    with pytest.raises(ValueError, match="not restored"):
        paste(frame, replace(faces, restored=None))
    with pytest.raises(ValueError, match="not aligned"):
        paste(frame, replace(faces, faces=(replace(faces.faces[0], matrix=None),)))
    with pytest.raises(ValueError, match="size of the crops"):
        paste(frame, replace(faces, restored=torch.zeros(1, 3, 64, 64)))
    with pytest.raises(ValueError, match="belong to"):
        paste(torch.zeros(1, 3, 51, 50), faces)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.02, 3),
            st.floats(-np.pi, np.pi),
            st.tuples(st.floats(-300, 400), st.floats(-300, 400)),
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(SHAPES),
    st.floats(0, 0.5),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_any_faces_anywhere_leave_the_rest_bit_identical(
    places: list, shape: str, feather: float, strength: float, seed: int
) -> None:
    frame = noise(1, 4, 61, 83, seed=seed) * 4 - 1
    faces = painted(make_faces(frame, *(placed(*place) for place in places), size=64), 0.5)
    image, mask = paste(frame, faces, mask=Mask(shape, feather), strength=strength)
    assert 0 <= mask.min() <= mask.max() <= np.float32(strength)
    assert bool(image.isfinite().all())
    assert torch.equal(image[:, 3], frame[:, 3])
    untouched = (mask == 0)[:, None].expand_as(image)
    assert torch.equal(image[untouched], frame[untouched])


@pytest.mark.parametrize("scale", [0.2, 0.45])
@pytest.mark.parametrize("upscale", [1.0, 1.3])
def test_the_box_of_a_face_holds_all_of_its_mask(scale: float, upscale: float) -> None:
    """The mask is what resampling it over the whole frame would give."""
    frame = noise(1, 3, 260, 300)
    faces = painted(make_faces(frame, placed(scale, 0.4, (150.3, 128.6))), 0.9)
    hard = Mask("box", feather=0.0)
    image, mask = paste(frame, faces, mask=hard, upscale=upscale)
    matrix = faces.faces[0].matrix
    assert matrix is not None
    back = compose(matrix, scaling(image.shape[2:], frame.shape[2:]))
    whole = (slice(0, image.shape[2]), slice(0, image.shape[3]))
    crop_mask = CropMasks(hard, faces, 128)[0]
    expected = warp_into(whole, crop_mask, back, cv2.INTER_LINEAR)
    assert (expected > 0).sum() > 1000
    np.testing.assert_allclose(mask[0].numpy(), expected, atol=0.04)  # OpenCV 4.8 rounds so


@pytest.mark.parametrize("options", [{}, {"grain": 1.0}, {"multiband": False, "grain": 1.0}])
def test_results_stay_within_the_range_where_the_frame_did(options: dict) -> None:
    frame = (noise(1, 3, 200, 200) > 0.5).float() * 0.98
    frame[:, :, 90:100, 90:100] = 1.5
    frame[:, :, 100:110, 90:100] = -0.5
    stripes = (torch.arange(128) // 3 % 2).float().expand(2, 3, 128, 128)
    faces = make_faces(frame, placed(0.3, centre=(95, 100)), placed(0.3, centre=(115, 104)))
    faces = replace(faces, restored=stripes)
    image, mask = paste(frame, faces, blend=Blend(**options))
    within = ((frame >= 0) & (frame <= 1)).expand_as(image)
    assert float(mask.max()) == 1
    assert image[within].min() >= 0
    assert image[within].max() <= 1
    assert image[:, :, 92:98, 92:98].max() > 1
    assert image[:, :, 102:108, 92:98].min() < 0
    assert torch.equal(image, paste(frame, faces.select([1, 0]), blend=Blend(**options))[0])


@pytest.mark.parametrize("scale", [0.1, 0.25])
def test_a_small_face_is_pasted_to_the_edges_of_its_crop(scale: float) -> None:
    # Crop pixels are a tenth to a quarter of the frame's: what the kernels reach beyond the mask
    # is less than a pixel of the frame, and a box a few pixels too small would cut the face.
    frame = torch.zeros(1, 3, 240, 240)
    faces = painted(make_faces(frame, placed(scale, centre=(120, 120)), size=512), 1.0)
    _, covered = paste(frame, faces, mask=Mask("box", feather=0.0))
    matrix = faces.faces[0].matrix
    assert matrix is not None
    expected = cv2.warpAffine(
        np.ones((512, 512), np.float32),
        matrix,
        (240, 240),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )
    rows, columns = np.nonzero(expected)
    own_rows, own_columns = (covered[0] > 0).nonzero().T.numpy()
    for own, wanted in ((own_rows, rows), (own_columns, columns)):
        assert wanted.min() - 4 < own.min() < wanted.min()
        assert wanted.max() < own.max() < wanted.max() + 4


@pytest.mark.parametrize(("dtype", "largest"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_whole_numbers_are_the_rounded_result_of_the_same_floats(
    dtype: torch.dtype, largest: int
) -> None:
    levels = (noise(1, 4, 300, 320) * largest).round().to(dtype)
    before = levels.clone()
    frame = levels.float() / largest
    overlapping = placed(0.4, 0.3, (120, 150)), placed(0.5, 0.0, (200, 160))
    faces = painted(make_faces(frame, *overlapping, placed(0.1, 0.0, (30, 30))), 0.9)
    image, mask = paste(levels, faces)
    expected, expected_mask = paste(frame, faces)
    assert torch.equal(levels, before)
    assert image.dtype == dtype
    assert torch.equal(image, (expected * largest).round().to(dtype))
    assert torch.equal(mask, expected_mask)
    untouched = (mask == 0)[:, None].expand_as(image)
    assert torch.equal(image.int()[untouched], levels.int()[untouched])
    in_place, _ = paste(levels, faces, in_place=True)
    assert in_place.data_ptr() == levels.data_ptr()
    assert torch.equal(in_place, image)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = noise(1, 3, 300, 320)
    marks = [placed(0.2, 0.1, (60 + 70 * (i % 4), 60 + 80 * (i // 4))) for i in range(12)]
    faces = painted(make_faces(frame, *marks), 0.9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected, _ = paste(frame, faces)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(paste(frame, faces)[0], expected)
