"""Blending: the photograph's detail, no noise and no blocks, no seam, grain, strength by face."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfp_core.align import align
from gfp_core.blend import blockiness, grain
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.options import Blend, Mask
from gfp_core.paste import paste
from gfp_core.sharpness import auto_strength

PLAIN = Blend(detail=0.0, multiband=False)
CROP = 64


def photograph() -> Tensor:
    """The astronaut's head and collar, 400 px: much for a crop of 64."""
    part = skimage.data.astronaut()[0:400, 30:430]
    return torch.from_numpy(part.copy()).permute(2, 0, 1)[None] / 255


def large_face(frames: Tensor, size: int = CROP, side: float = 380.0) -> Faces:
    """A face all over the frame, and "restored" to its crop."""
    landmarks = ((TEMPLATE / 512 - 0.5) * side + 200).astype(np.float32)
    sizes = (tuple(frames.shape[2:]),) * len(frames)
    aligned = align(frames, Faces((Face(0, (50, 50, 350, 350), 1.0, landmarks),), sizes), size)
    return replace(aligned, restored=aligned.crops)


def psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    error = (a - b).square().mean(dim=1)[mask > 0.5].mean()
    return float(-10 * torch.log10(error))


def noisy(frames: Tensor, levels: float) -> Tensor:
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return (frames + noise * levels / 255).clamp(0, 1)


def as_jpeg(frames: Tensor, quality: int) -> Tensor:
    image = (frames[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1)[None]


@pytest.mark.parametrize("upscale", [1.0, 1.5])
def test_detail_of_large_faces_is_kept(upscale: float) -> None:
    """The network sees 64 px of a face of 380, and gives them back: nothing should be lost."""
    frame = photograph()
    faces = large_face(frame)
    whole, _ = paste(frame, faces.select([]), upscale=upscale)
    plain, mask = paste(frame, faces, blend=PLAIN, upscale=upscale)
    kept, _ = paste(frame, faces, upscale=upscale)
    half, _ = paste(frame, faces, blend=Blend(detail=0.5), upscale=upscale)
    assert psnr(kept, whole, mask) > psnr(plain, whole, mask) + 6
    assert psnr(plain, whole, mask) + 2 < psnr(half, whole, mask) < psnr(kept, whole, mask)


def test_what_the_restorer_changed_stays_changed() -> None:
    frame = photograph()
    faces = large_face(frame)
    assert faces.restored is not None
    darker = replace(faces, restored=0.6 * faces.restored)
    image, mask = paste(frame, darker)
    inside = (mask > 0.99)[:, None].expand_as(frame)
    assert float(image[inside].mean() / frame[inside].mean()) == pytest.approx(0.6, abs=0.02)


def test_noise_is_no_detail() -> None:
    """Where there is nothing but noise, it does not come back with the detail."""
    flat = noisy(torch.full((1, 3, 400, 400), 0.5), 12)
    faces = large_face(flat)
    image, mask = paste(flat, faces)
    inside = (mask > 0.99)[:, None].expand_as(flat)
    assert float(image[inside].std()) < 0.25 * float(flat[inside].std())


def test_jpeg_blocks_are_no_detail() -> None:
    clean = photograph()
    coarse = as_jpeg(clean, 12)
    faces = large_face(coarse)
    plain, mask = paste(coarse, faces, blend=PLAIN)
    kept, _ = paste(coarse, faces)
    inside = (mask > 0.99)[:, None].expand_as(clean)
    assert torch.allclose(kept[inside], plain[inside], atol=0.02)


def test_blockiness_knows_jpeg_wherever_the_grid_begins() -> None:
    def measure(frames: Tensor, period: float = 8.0) -> float:
        return blockiness(frames[0].permute(1, 2, 0).contiguous().numpy(), period)

    photo = photograph()
    coarse, fine = as_jpeg(photo, 12), as_jpeg(photo, 95)
    assert measure(coarse) > 0.4
    assert measure(photo) < 0.1
    assert measure(fine) < 0.1
    assert measure(noisy(photo, 12)) < 0.1
    assert measure(coarse[:, :, 3:, 5:]) > 0.4
    twice = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert measure(twice, 16.0) > 0.4
    assert measure(coarse[..., :20]) == measure(coarse, 8.5) == 0


def test_small_faces_get_nothing_back() -> None:
    """A face smaller than its crop has no detail that the crop could not hold."""
    frame = noisy(photograph(), 12)
    faces = large_face(frame, size=512)
    for seam in (False, True):
        with_detail, _ = paste(frame, faces, blend=Blend(1.0, seam))
        assert torch.equal(with_detail, paste(frame, faces, blend=Blend(0.0, seam))[0])


def edge(image: Tensor, frame: Tensor, mask: Tensor, blur: float) -> float:
    """How steep the change is where the mask ends."""
    change = (image - frame)[0].permute(1, 2, 0).numpy()
    soft = cv2.GaussianBlur(change, (0, 0), blur)
    slope = np.hypot(*np.gradient(soft, axis=(0, 1))).mean(-1)
    ring = (mask > 0) & (mask < 0.5)
    return float(slope[ring[0].numpy()].mean())


@pytest.mark.parametrize("feather", [0.0, 0.02, 0.1])
def test_a_shift_in_tone_leaves_no_seam(feather: float) -> None:
    """Seams and squares: what users complain of third."""
    frame = photograph()
    faces = large_face(frame, size=256)
    assert faces.restored is not None
    shifted = replace(faces, restored=faces.restored * 0.85 + 0.1)
    for shape in ("ellipse", "box"):
        mask = Mask(shape, feather)
        plain, covered = paste(frame, shifted, mask=mask, blend=PLAIN)
        banded, same = paste(frame, shifted, mask=mask, blend=Blend(detail=0.0))
        assert torch.equal(covered, same)
        ring = torch.where(covered > 0, covered, 0.0)
        if feather == 0:  # the ring just inside a hard edge
            inner = cv2.erode((covered[0] > 0).float().numpy(), np.ones((7, 7)))
            ring = torch.where(torch.from_numpy(inner)[None] > 0, 1.0, covered * 0.4)
        steep, before = (edge(image, frame, ring, 2.0) for image in (banded, plain))
        assert steep < (0.65 if feather < 0.1 else 0.95) * before
        # Deep inside nothing is held back, and outside nothing is touched.
        torch.testing.assert_close(banded[0, :, 215, 200], plain[0, :, 215, 200], atol=0.02, rtol=0)
        outside = (covered == 0)[:, None].expand_as(frame)
        assert torch.equal(banded[outside], frame[outside])


def test_detail_of_the_restorer_reaches_as_far_as_before() -> None:
    """Only low frequencies are held back at the outline."""
    frame = torch.full((1, 3, 400, 400), 0.5)
    faces = large_face(frame, size=256)
    checks = ((torch.arange(256)[:, None] + torch.arange(256)) % 2).float() * 0.4 + 0.3
    faces = replace(faces, restored=checks.expand(1, 3, 256, 256))
    plain, mask = paste(frame, faces, blend=PLAIN)
    banded, _ = paste(frame, faces)
    ring = ((mask > 0.2) & (mask < 0.6))[:, None].expand_as(frame)
    wanted, got = ((image[ring] - 0.5).abs().mean() for image in (plain, banded))
    assert float(got) == pytest.approx(float(wanted), rel=0.1)


def test_grain_is_that_of_the_photograph() -> None:
    clean = torch.full((1, 3, 400, 400), 0.5)
    for levels in (4.0, 12.0):
        frame = noisy(clean, levels)
        faces = replace(large_face(frame), restored=torch.full((1, 3, CROP, CROP), 0.5))
        smooth, mask = paste(frame, faces)
        grainy, _ = paste(frame, faces, blend=Blend(grain=1.0))
        inside = (mask > 0.99)[:, None].expand_as(frame)
        assert float(smooth[inside].std()) < 0.3 * levels / 255
        assert float(grainy[inside].std()) == pytest.approx(levels / 255, rel=0.25)
        assert torch.equal(grainy, paste(frame, faces, blend=Blend(grain=1.0))[0])
    # No noise, no grain; and where the restored face has it already, no more.
    faces = replace(large_face(clean), restored=torch.full((1, 3, CROP, CROP), 0.4))
    assert torch.equal(paste(clean, faces, blend=Blend(grain=1.0))[0], paste(clean, faces)[0])


def test_grain_of_a_grey_photograph_is_grey() -> None:
    frame = noisy(torch.full((1, 1, 400, 400), 0.5), 12).expand(-1, 3, -1, -1).contiguous()
    faces = replace(large_face(frame), restored=torch.full((1, 3, CROP, CROP), 0.5))
    image, _ = paste(frame, faces, blend=Blend(grain=1.0))
    assert torch.equal(image[:, 0], image[:, 1])
    assert torch.equal(image[:, 0], image[:, 2])


def test_grain_of_colors_alone_does_not_change_the_luma() -> None:
    """Of Y = (R + 2 G + B) / 4; noise of a camera is often stronger in color than in luma."""
    rng = np.random.default_rng(0)
    red, blue = rng.normal(0, 0.05, (2, 200, 200))
    seen = (0.5 + np.stack([red, -(red + blue) / 2, blue], axis=-1)).astype(np.float32)
    made = grain(seen, np.full_like(seen, 0.5), seed=1)
    luma = (made[..., 0] + 2 * made[..., 1] + made[..., 2]) / 4
    assert float(made[..., 0].std()) == pytest.approx(0.05, rel=0.25)
    assert float(luma.std()) < 0.05 * float(made[..., 0].std())


def test_sharp_faces_are_left_alone_more() -> None:
    landmarks = np.array([[203, 109], [246, 107], [224, 134], [206, 152], [243, 151]], np.float32)
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255

    def strength(frames: Tensor, scale: float = 1.0, score: float = 1.0) -> float:
        points = ((landmarks + 0.5) * scale - 0.5).astype(np.float32)
        box = tuple(float(edge * scale) for edge in (180, 60, 270, 180))
        faces = Faces((Face(0, box, score, points),), (tuple(frames.shape[2:]),))
        return float(auto_strength(frames, faces)[0])

    blurred = cv2.GaussianBlur(photo[0].permute(1, 2, 0).numpy(), (0, 0), 2)
    soft = torch.from_numpy(blurred).permute(2, 0, 1)[None]
    assert strength(soft) == 1
    assert strength(soft, score=0.5) == 0.5
    tiny = torch.nn.functional.interpolate(photo, scale_factor=0.1, mode="area")
    assert strength(tiny, 0.1) < 0.5
    checks = (torch.arange(512)[:, None] // 64 + torch.arange(512) // 64) % 2
    sharp = checks.float().expand(1, 3, 512, 512)
    points = TEMPLATE.astype(np.float32)
    faces = Faces((Face(0, (100, 100, 400, 400), 1.0, points),), ((512, 512),))
    assert float(auto_strength(sharp, faces)[0]) == pytest.approx(0.3)
    assert auto_strength(photo, Faces((), ((512, 512),))).shape == (0,)


def test_each_face_has_its_own_strength() -> None:
    frame = photograph()
    faces = large_face(frame).select([0, 0])
    small = ((TEMPLATE / 512 - 0.5) * 60 + 40).astype(np.float32)
    two = replace(
        faces, faces=(faces.faces[0], replace(faces.faces[0], landmarks=small)), crops=None
    )
    two = align(frame, two, CROP)
    two = replace(two, restored=torch.ones_like(two.crops))
    _, mask = paste(frame, two, strength=torch.tensor([0.0, 0.5]))
    assert mask[0, 215, 200] == 0
    assert mask.max() == 0.5


@pytest.mark.parametrize("options", [{"detail": 1.5}, {"grain": -1}, {"grain": float("nan")}])
def test_bad_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Blend(**options)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.1, 6),
    st.floats(-4, 4),
    st.tuples(st.floats(-100, 200), st.floats(-100, 200)),
    st.floats(0, 1),
    st.booleans(),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_any_blend_leaves_the_rest_and_makes_no_extremes(
    scale: float, angle: float, centre: tuple, detail: float, seam: bool, grain: float, seed: int
) -> None:
    frame = torch.rand(1, 3, 61, 83, generator=torch.Generator().manual_seed(seed))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ((TEMPLATE / 512 - 0.5) * 64 @ (scale * turn).T + centre).astype(np.float32)
    face = Face(0, (0, 0, 10, 10), 1.0, landmarks)
    faces = align(frame, Faces((face,), ((61, 83),)), CROP)
    faces = replace(faces, restored=torch.full((1, 3, CROP, CROP), 0.5))
    image, mask = paste(frame, faces, blend=Blend(detail, seam, grain))
    untouched = (mask == 0)[:, None].expand_as(frame)
    assert torch.equal(image[untouched], frame[untouched])
    assert bool(image.isfinite().all())
    assert -0.6 < image.min() <= image.max() < 1.6
    assert torch.equal(image, paste(frame, faces, blend=Blend(detail, seam, grain))[0])
