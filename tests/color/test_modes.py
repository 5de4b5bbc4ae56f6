"""Colour: telling monochrome faces from colour ones, and keeping their tint."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from torch import Tensor

from gfp_core.align import align
from gfp_core.color import apply_color, is_monochrome
from gfp_core.color.spaces import rgb_to_lab
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.options import ColorMode

ASTRONAUT = [[195, 107], [244, 107], [222, 137], [202, 157], [243, 157]]


def crop_of(image: np.ndarray, landmarks: np.ndarray) -> Tensor:
    frame = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    face = Face(0, (0.0, 0.0, 1.0, 1.0), 1.0, np.asarray(landmarks, np.float32))
    crops = align(frame, Faces((face,), (image.shape[:2],))).crops
    assert crops is not None
    return crops


@pytest.fixture(scope="module")
def portrait() -> Tensor:
    return crop_of(skimage.data.astronaut(), np.array(ASTRONAUT))


def grey(crops: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (crops * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def toned(crops: Tensor, dark: tuple, light: tuple) -> Tensor:
    low, high = (torch.tensor(tone).view(1, 3, 1, 1) for tone in (dark, light))
    return low + (high - low) * grey(crops)


def sepia(crops: Tensor) -> Tensor:
    rows = [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]]
    return torch.einsum("ij,njhw->nihw", torch.tensor(rows), crops).clamp(0, 1)


def yellowed(crops: Tensor) -> Tensor:
    return toned(crops, (0.12, 0.08, 0.04), (0.96, 0.9, 0.74))


def cyanotype(crops: Tensor) -> Tensor:
    return toned(crops, (0.02, 0.08, 0.2), (0.9, 0.97, 1.0))


def jpeg(crops: Tensor, quality: int) -> Tensor:
    decoded = []
    for crop in crops:
        pixels = (crop.permute(1, 2, 0).flip(2).numpy() * 255).round().astype(np.uint8)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(np.float32) / 255
        decoded.append(torch.from_numpy(pixels).permute(2, 0, 1).flip(0))
    return torch.stack(decoded)


def make_faces(crops: Tensor, restored: Tensor) -> Faces:
    face = Face(0, (0.0, 0.0, 1.0, 1.0), 1.0, TEMPLATE.astype(np.float32))
    return Faces((face,) * len(crops), ((512, 512),), crops=crops, restored=restored)


@pytest.mark.parametrize(
    ("light", "quality"), [((1, 1, 1), 95), ((1, 1, 1), 15), ((1, 0.75, 0.5), 75), ((0.3,) * 3, 75)]
)
def test_a_colour_portrait_is_not_grey(portrait: Tensor, light: tuple, quality: int) -> None:
    lit = portrait * torch.tensor(light, dtype=torch.float32).view(1, 3, 1, 1)
    assert is_monochrome(jpeg(lit, quality)).tolist() == [False]


@pytest.mark.parametrize("tone", [grey, sepia, yellowed, cyanotype])
@pytest.mark.parametrize("quality", [None, 90, 50, 30])
def test_monochrome_portraits_are_grey(portrait: Tensor, tone, quality: int | None) -> None:
    crops = tone(portrait)
    assert is_monochrome(crops if quality is None else jpeg(crops, quality)).tolist() == [True]


def test_chroma_noise_does_not_make_a_scan_colour(portrait: Tensor) -> None:
    noise = torch.randn(portrait.shape, generator=torch.Generator().manual_seed(0))
    assert is_monochrome((grey(portrait) + 0.08 * noise).clamp(0, 1)).tolist() == [True]


def test_uniform_and_small_crops_have_an_answer() -> None:
    crops = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    assert is_monochrome(crops).tolist() == [True, True]
    assert is_monochrome(torch.zeros(0, 3, 32, 32)).shape == (0,)


def test_london_portraits(shared_dir: Path) -> None:
    folder = shared_dir / "faces" / "london"
    pupils = json.loads((folder / "pupils.json").read_text())
    crops = []
    for name, points in sorted(pupils.items())[::10]:
        image = cv2.imread(str(folder / name))[..., ::-1]
        # The other three landmarks where the mean face has them.
        left, right = (complex(*point) for point in points)
        template = [complex(*point) for point in TEMPLATE]
        turn = (right - left) / (template[1] - template[0])
        placed = [left + turn * (point - template[0]) for point in template]
        crops.append(crop_of(image, np.array([(p.real, p.imag) for p in placed])))
    batch = torch.cat(crops)
    assert not is_monochrome(batch).any()
    assert is_monochrome(grey(batch)).all()
    assert is_monochrome(jpeg(sepia(batch), 50)).all()


def test_grey_photographs_stay_grey(portrait: Tensor) -> None:
    faces = make_faces(jpeg(grey(portrait), 60), portrait)
    colored = apply_color(faces).restored
    assert colored is not None
    others = {mode: {} for mode in ("match", "mean_std", "low_frequency", "lightness", "enhance")}
    others["reference"] = {"reference": portrait}
    for mode, options in others.items():
        other = apply_color(faces, mode, **options).restored
        assert float((other.amax(dim=1) - other.amin(dim=1)).max()) < 0.02, mode
    assert float((colored.amax(dim=1) - colored.amin(dim=1)).max()) < 0.01
    lightness = rgb_to_lab(colored)[:, 0] - rgb_to_lab(portrait)[:, 0]
    assert lightness.abs().max() < 0.1


def test_a_sepia_face_keeps_its_tint(portrait: Tensor) -> None:
    print_ = jpeg(yellowed(portrait), 60)
    colored = apply_color(make_faces(print_, 0.12 + 0.8 * portrait)).restored
    assert colored is not None
    before, after = (rgb_to_lab(picture)[:, 1:] for picture in (print_, colored))
    assert (after - before).norm(dim=1).quantile(0.95) < 2
    assert before[:, 1].mean() > 8


def test_each_face_is_judged_on_its_own(portrait: Tensor) -> None:
    crops = torch.cat([portrait, sepia(portrait), portrait])
    restored = crops.flip(3).clone()
    restored[1] = portrait[0]
    colored = apply_color(make_faces(crops, restored)).restored
    assert colored is not None
    alone = [apply_color(make_faces(crops[i : i + 1], restored[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(colored, torch.cat([one.restored for one in alone]))
    chroma = rgb_to_lab(crops)[:, 1:] - rgb_to_lab(colored)[:, 1:]
    assert chroma[1].norm(dim=0).quantile(0.95) < 1 < 3 < chroma[0].norm(dim=0).quantile(0.95)


def test_modes_take_one_or_the_other(portrait: Tensor) -> None:
    warm = (portrait * torch.tensor([1.0, 0.85, 0.7]).view(1, 3, 1, 1)).clamp(0, 1)
    faces = make_faces(portrait, warm)
    restored_before = warm.clone()
    kept, taken = (apply_color(faces, mode).restored for mode in ("restorer", "input"))
    assert kept is not None
    assert taken is not None
    assert torch.equal(kept, warm)
    lab, light, chroma = rgb_to_lab(taken), rgb_to_lab(warm)[:, 0], rgb_to_lab(portrait)[:, 1:]
    inside = ((taken > 0.001) & (taken < 0.999)).all(dim=1)  # elsewhere sRGB lacks the colour
    assert inside.float().mean() > 0.8
    assert (lab[:, 0] - light)[inside].abs().max() < 0.1
    assert (lab[:, 1:] - chroma).norm(dim=1)[inside].max() < 0.1
    assert 0 <= taken.min() <= taken.max() <= 1
    assert torch.equal(warm, restored_before)


def as_picture(crops: Tensor) -> np.ndarray:
    return crops[0].permute(1, 2, 0).double().numpy()


def inside(size: int = 512) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / (size - 1)
    return ((x - 0.5) / 0.31) ** 2 + ((y - 0.545) / 0.45) ** 2 <= 1


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * torch.log10((one - other).square().mean()))


def soft(crops: Tensor) -> Tensor:
    """Within 0.25..0.75, so that a cast does not clip."""
    return 0.25 + 0.5 * crops


CASTS = [
    (np.diag([1.15, 0.95, 0.8]), (0.05, 0.0, -0.02)),
    (np.diag([0.6, 0.6, 0.6]), (0.1, 0.2, 0.3)),
    (np.eye(3) * 0.6 + 0.15, (0.0, 0.02, 0.05)),  # less saturation
    (np.eye(3) * 1.4 - 0.12, (-0.02, 0.0, 0.02)),  # more saturation
]


@pytest.mark.parametrize(("linear", "offset"), CASTS)
def test_colours_do_not_shift(portrait: Tensor, linear: np.ndarray, offset: tuple) -> None:
    original = soft(portrait)
    cast = torch.einsum("ij,njhw->nihw", torch.from_numpy(linear).float(), original)
    cast = cast + torch.tensor(offset).view(1, 3, 1, 1)
    assert 0 <= cast.min() <= cast.max() <= 1
    assert psnr(cast, original) < 33
    for mode in ("auto", "match"):
        colored = apply_color(make_faces(original, cast), mode).restored
        assert colored is not None
        assert psnr(colored, original) > 45


def test_match_is_not_fooled_by_noise_and_blocks(portrait: Tensor) -> None:
    original = soft(portrait)
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0))
    dirty = jpeg((original + 0.06 * noise).clamp(0, 1), 30)
    matched = apply_color(make_faces(dirty, 0.9 * original), "match").restored
    assert matched is not None
    assert psnr(dirty, original) < 32
    assert psnr(matched, original) > 40
    # Over all pixels, noise counts as contrast.
    face = inside()
    plain = as_picture(dirty)[face].std(axis=0) / as_picture(original)[face].std(axis=0)
    robust = as_picture(matched)[face].std(axis=0) / as_picture(original)[face].std(axis=0)
    assert np.abs(robust - 1).max() < 0.02 < np.abs(plain - 1).max()


def test_low_frequencies_come_without_a_halo(portrait: Tensor) -> None:
    """Two areas whose colours shift in opposite ways: the correction stops at the edge."""
    original = torch.full((1, 3, 256, 256), 0.3)
    original[..., 128:] = 0.7
    restored = original.clone()
    restored[:, 0, :, :128] += 0.08
    restored[:, 2, :, 128:] += 0.08
    colored = apply_color(
        make_faces(original, restored), "low_frequency", keep_monochrome="off"
    ).restored
    assert colored is not None
    error = (rgb_to_lab(colored) - rgb_to_lab(original)).norm(dim=1)[0]
    before = (rgb_to_lab(restored) - rgb_to_lab(original)).norm(dim=1)[0]
    assert before.min() > 4
    beside = error[:, [124, 125, 126, 129, 130, 131]]
    assert error[:, :96].max() < 0.5
    assert beside.max() < 2
    # Smoothed by a Gaussian, the correction reaches over the edge.
    difference = (rgb_to_lab(original) - rgb_to_lab(restored))[0].permute(1, 2, 0).numpy()
    halo = np.linalg.norm(cv2.GaussianBlur(difference, (0, 0), 16) - difference, axis=2)
    assert halo[:, 124:132].max() > 3 * beside.max()


def test_low_frequencies_leave_the_detail_and_take_no_noise(portrait: Tensor) -> None:
    noise = torch.randn(portrait.shape, generator=torch.Generator().manual_seed(0))
    noisy = (soft(portrait) + 0.06 * noise).clamp(0, 1)
    cast = soft(portrait) * torch.tensor([1.0, 0.9, 0.8]).view(1, 3, 1, 1)
    colored = apply_color(make_faces(noisy, cast), "low_frequency").restored
    assert colored is not None
    assert psnr(colored, soft(portrait)) > 38 > 30 > psnr(noisy, soft(portrait))


def test_mean_and_deviation_of_lab_are_the_inputs(portrait: Tensor) -> None:
    original, other = soft(portrait), (0.35 + 0.4 * portrait.flip(3)) ** 1.1
    colored = apply_color(make_faces(original, other), "mean_std").restored
    assert colored is not None
    face = inside().astype(np.float64)

    def blocks(crops: Tensor) -> tuple[np.ndarray, np.ndarray]:
        weights = face.reshape(16, 32, 16, 32).mean(axis=(1, 3))
        total = (as_picture(crops) * face[..., None]).reshape(16, 32, 16, 32, 3).mean(axis=(1, 3))
        rgb = total[weights > 0] / weights[weights > 0][:, None]
        return skimage.color.rgb2lab(rgb), weights[weights > 0] / weights.sum()

    (wanted, share), (before, _), (after, _) = map(blocks, (original, other, colored))
    moments = [
        (share @ lab, np.sqrt(share @ (lab - share @ lab) ** 2)) for lab in (wanted, before, after)
    ]
    np.testing.assert_allclose(moments[2][0], moments[0][0], atol=0.3)
    np.testing.assert_allclose(moments[2][1], moments[0][1], rtol=0.05)
    gain = moments[0][1] / moments[1][1]
    lab = skimage.color.rgb2lab(as_picture(other))
    expected = skimage.color.lab2rgb((lab - moments[1][0]) * gain + moments[0][0])
    np.testing.assert_allclose(as_picture(colored), expected.clip(0, 1), atol=2e-3)


def test_lightness_is_the_other_half_of_input(portrait: Tensor) -> None:
    warm = soft(portrait) * torch.tensor([1.0, 0.85, 0.7]).view(1, 3, 1, 1)
    one = apply_color(make_faces(soft(portrait), warm), "lightness").restored
    two = apply_color(make_faces(warm, soft(portrait)), "input").restored
    assert one is not None
    assert two is not None
    torch.testing.assert_close(one, two)
    lab = rgb_to_lab(one)
    assert (lab[:, 0] - rgb_to_lab(soft(portrait))[:, 0]).abs().max() < 0.1


def test_reference_for_all_and_one_each(portrait: Tensor) -> None:
    warm = soft(portrait) * torch.tensor([1.0, 0.85, 0.7]).view(1, 3, 1, 1)
    cold = soft(portrait) * torch.tensor([0.7, 0.85, 1.0]).view(1, 3, 1, 1)
    faces = make_faces(soft(portrait).expand(2, -1, -1, -1), soft(portrait).expand(2, -1, -1, -1))
    alpha = torch.from_numpy(inside()).float()[None, None]

    def colored(reference: Tensor) -> Tensor:
        result = apply_color(faces, "reference", reference=reference).restored
        assert result is not None
        return result

    for_all = colored(torch.cat([warm, alpha], dim=1))
    torch.testing.assert_close(for_all, warm.expand(2, -1, -1, -1), atol=1e-3, rtol=0)
    each = colored(torch.cat([torch.cat([warm, cold]), alpha.expand(2, -1, -1, -1)], dim=1))
    torch.testing.assert_close(each, torch.cat([warm, cold]), atol=1e-3, rtol=0)
    # Without alpha all of it counts, whatever its size.
    flat = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).expand(-1, -1, 30, 50)
    mean = as_picture(colored(flat))[inside()].mean(axis=0)
    np.testing.assert_allclose(mean, [0.8, 0.4, 0.2], atol=0.02)


def test_strength_goes_from_the_restorer_to_the_correction(portrait: Tensor) -> None:
    faces = make_faces(soft(portrait), 0.8 * soft(portrait))
    none, half, full = (apply_color(faces, strength=s).restored for s in (0.0, 0.5, 1.0))
    assert faces.restored is not None
    assert none is not None
    assert half is not None
    assert full is not None
    assert torch.equal(none, faces.restored)
    torch.testing.assert_close(half, (faces.restored + full) / 2)
    assert psnr(full, faces.restored) < 25


def test_the_guard_can_be_forced_and_switched_off(portrait: Tensor) -> None:
    black_and_white = make_faces(grey(soft(portrait)), soft(portrait))
    off = apply_color(black_and_white, "mean_std", keep_monochrome="off").restored
    kept = apply_color(black_and_white, "restorer").restored
    assert kept is not None
    assert torch.equal(kept, soft(portrait))
    assert off is not None
    forced = apply_color(
        make_faces(portrait, soft(portrait)), "restorer", keep_monochrome="on"
    ).restored
    taken = apply_color(make_faces(portrait, soft(portrait)), "input").restored
    assert forced is not None
    assert taken is not None
    assert torch.equal(forced, taken)
    low = apply_color(
        make_faces(portrait, grey(portrait)), "lightness", keep_monochrome="off"
    ).restored
    assert low is not None
    assert (low.amax(dim=1) - low.amin(dim=1)).max() < 0.01  # the restorer had no colour


MODES = [mode for mode in get_args(ColorMode) if mode != "restorer"]


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_one_by_one_and_nothing_changes_in_place(
    portrait: Tensor, mode: ColorMode
) -> None:
    small = torch.nn.functional.interpolate(portrait, (96, 96), mode="area")
    crops = torch.cat([small, sepia(small), soft(small).flip(3)])
    restored = torch.cat([soft(small), small, small**1.2])
    faces = make_faces(crops, restored)
    reference = {"reference": soft(small).flip(1)} if mode == "reference" else {}
    before = [tensor.clone() for tensor in (crops, restored)]
    batch, again = (apply_color(faces, mode, **reference).restored for _ in range(2))
    assert batch is not None
    assert again is not None
    assert torch.equal(batch, again)
    assert torch.equal(crops, before[0])
    assert torch.equal(restored, before[1])
    for i in range(3):
        alone = apply_color(make_faces(crops[i : i + 1], restored[i : i + 1]), mode, **reference)
        torch.testing.assert_close(alone.restored, batch[i : i + 1], atol=1e-5, rtol=0)


def clip_of(portrait: Tensor, count: int) -> Faces:
    """A still face, restored, whose input changes its brightness from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    gains = 1 + 0.2 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    small = torch.nn.functional.interpolate(soft(portrait), (64, 64), mode="area")
    faces = make_faces(small * gains, small.expand(count, -1, -1, -1))
    placed = [replace(faces.faces[0], frame=i) for i in range(count)]
    return replace(faces, faces=tuple(placed), frame_sizes=((512, 512),) * count)


@pytest.mark.parametrize("mode", ["auto", "mean_std"])
def test_smoothing_stills_a_video(portrait: Tensor, mode: ColorMode) -> None:
    faces = clip_of(portrait, 12)
    rough, smooth = (apply_color(faces, mode, smoothing=s).restored for s in (0.0, 0.8))
    assert rough is not None
    assert smooth is not None
    assert torch.equal(rough[0], smooth[0])
    steps = [clip.mean(dim=(1, 2, 3)).diff().abs().mean() for clip in (rough, smooth)]
    assert steps[1] < 0.3 * steps[0]
    # A face somewhere else starts anew.
    moved = replace(faces.faces[1], box=(300.0, 300.0, 301.0, 301.0))
    others = replace(faces, faces=(faces.faces[0], moved, *faces.faces[2:]))
    anew = apply_color(others, mode, smoothing=0.8).restored
    assert anew is not None
    torch.testing.assert_close(anew[1], rough[1], atol=1e-5, rtol=0)


def test_what_is_missing_is_named(portrait: Tensor) -> None:
    faces = make_faces(portrait, portrait)
    with pytest.raises(ValueError, match="mode must be"):
        apply_color(faces, "sepia")
    with pytest.raises(ValueError, match="not aligned and restored"):
        apply_color(Faces(faces.faces, faces.frame_sizes, crops=portrait), "input")
    with pytest.raises(ValueError, match="same size"):
        apply_color(make_faces(portrait, portrait[..., :256, :256]))
    assert len(apply_color(Faces((), ((512, 512),)))) == 0
    for options, said in [
        ({"keep_monochrome": "sepia"}, "keep_monochrome must be"),
        ({"strength": 1.5}, "strength must lie"),
        ({"smoothing": -0.1}, "smoothing must lie"),
        ({"mode": "reference"}, "needs a reference"),
        ({"reference": portrait}, "choose"),
        ({"mode": "reference", "reference": portrait[0]}, "reference must be .B, 3 or 4"),
        ({"mode": "reference", "reference": portrait.byte()}, "floating point"),
        (
            {
                "mode": "reference",
                "reference": torch.cat([portrait, torch.zeros_like(portrait[:, :1])], dim=1),
            },
            "picture 0 is transparent throughout",
        ),
        ({"mode": "reference", "reference": portrait.expand(2, -1, -1, -1)}, "2 reference"),
    ]:
        with pytest.raises(ValueError, match=said):
            apply_color(faces=make_faces(portrait, portrait), **options)
