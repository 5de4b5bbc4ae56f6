"""Colour: Lab, telling monochrome faces from colour ones, and keeping their tint."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gfp_core.align import TEMPLATE, align
from gfp_core.color import apply_color, is_grey
from gfp_core.colorspaces import lab_to_rgb, rgb_to_lab
from gfp_core.faces import Face, Faces

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


def test_lab_is_that_of_the_standard() -> None:
    rgb = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    rgb[0, :, :5] /= 100
    expected = skimage.color.rgb2lab(rgb.permute(0, 2, 3, 1).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(rgb).permute(0, 2, 3, 1).numpy(), expected, atol=0.02)


@settings(deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_lab_and_back_is_the_same_colour(rgb: tuple[float, float, float]) -> None:
    colour = torch.tensor(rgb).view(1, 3, 1, 1)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(colour)), colour, atol=2e-5, rtol=0)


@settings(deadline=None)
@given(st.floats(0, 1, width=32))
def test_grey_has_no_chroma(value: float) -> None:
    lab = rgb_to_lab(torch.full((1, 3, 1, 1), value))
    assert lab[0, 1:].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("light", "quality"), [((1, 1, 1), 95), ((1, 1, 1), 15), ((1, 0.75, 0.5), 75), ((0.3,) * 3, 75)]
)
def test_a_colour_portrait_is_not_grey(portrait: Tensor, light: tuple, quality: int) -> None:
    lit = portrait * torch.tensor(light, dtype=torch.float32).view(1, 3, 1, 1)
    assert is_grey(jpeg(lit, quality)).tolist() == [False]


@pytest.mark.parametrize("tone", [grey, sepia, yellowed, cyanotype])
@pytest.mark.parametrize("quality", [None, 90, 50, 30])
def test_monochrome_portraits_are_grey(portrait: Tensor, tone, quality: int | None) -> None:
    crops = tone(portrait)
    assert is_grey(crops if quality is None else jpeg(crops, quality)).tolist() == [True]


def test_chroma_noise_does_not_make_a_scan_colour(portrait: Tensor) -> None:
    noise = torch.randn(portrait.shape, generator=torch.Generator().manual_seed(0))
    assert is_grey((grey(portrait) + 0.08 * noise).clamp(0, 1)).tolist() == [True]


def test_uniform_and_small_crops_have_an_answer() -> None:
    crops = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    assert is_grey(crops).tolist() == [True, True]
    assert is_grey(torch.zeros(0, 3, 32, 32)).shape == (0,)


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
    assert not is_grey(batch).any()
    assert is_grey(grey(batch)).all()
    assert is_grey(jpeg(sepia(batch), 50)).all()


def test_flaw_11_a_grey_face_stays_grey(portrait: Tensor) -> None:
    colored = apply_color(make_faces(jpeg(grey(portrait), 60), portrait)).restored
    assert colored is not None
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


def test_what_is_missing_is_named(portrait: Tensor) -> None:
    faces = make_faces(portrait, portrait)
    with pytest.raises(ValueError, match="mode must be"):
        apply_color(faces, "sepia")
    with pytest.raises(ValueError, match="not aligned and restored"):
        apply_color(Faces(faces.faces, faces.frame_sizes, crops=portrait), "input")
    with pytest.raises(ValueError, match="same size"):
        apply_color(make_faces(portrait, portrait[..., :256, :256]))
    assert len(apply_color(Faces((), ((512, 512),)))) == 0
