"""Sharpness of faces: known blurs and sizes are found again, whatever noise and JPEG add."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.sharpness import auto_strength, face_sharpness

# Of the astronaut, by eye: eyes, nose, mouth corners.
ASTRONAUT = np.array([[203, 109], [246, 107], [224, 134], [206, 152], [243, 151]], np.float32)


def photograph() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255


def face_of(frames: Tensor, landmarks: np.ndarray = ASTRONAUT) -> Faces:
    box = (*landmarks.min(0).tolist(), *landmarks.max(0).tolist())
    sizes = (tuple(frames.shape[2:]),) * len(frames)
    return Faces((Face(0, box, 1.0, landmarks.astype(np.float32)),), sizes)


def sharpness(frames: Tensor, landmarks: np.ndarray = ASTRONAUT) -> float:
    return float(face_sharpness(frames, face_of(frames, landmarks))[0])


def blurred(frames: Tensor, sigma: float) -> Tensor:
    image = cv2.GaussianBlur(frames[0].permute(1, 2, 0).numpy(), (0, 0), sigma)
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def shrunk(frames: Tensor, factor: float) -> Tensor:
    size = [round(side / factor) for side in frames.shape[2:]]
    return F.interpolate(frames, size, mode="bicubic", antialias=True)


def enlarged(frames: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(frames, size, mode="bicubic").clamp(0, 1)


def noisy(frames: Tensor, levels: float) -> Tensor:
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return frames + noise * levels / 255


def as_jpeg(frames: Tensor, quality: int) -> Tensor:
    image = (frames[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1)[None]


def test_it_falls_with_blur_and_with_size() -> None:
    photo = photograph()
    blurs = [sharpness(photo), *(sharpness(blurred(photo, s)) for s in (1, 1.5, 2, 3, 4))]
    assert all(after < 0.9 * before for before, after in pairwise(blurs))
    sizes = [sharpness(enlarged(shrunk(photo, r), photo.shape[2:])) for r in (1.5, 2, 3, 4, 6)]
    assert all(after < 0.9 * before for before, after in pairwise(sizes))


def test_a_small_face_has_no_more_than_its_pixels() -> None:
    photo = photograph()
    small = sharpness(shrunk(photo, 4), (ASTRONAUT - 1.5) / 4)
    big = sharpness(enlarged(shrunk(photo, 4), photo.shape[2:]))
    assert small == pytest.approx(big, rel=0.25)
    grain = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    landmarks = (TEMPLATE / 512 * 64).astype(np.float32)
    assert sharpness(grain, landmarks) <= 64 / 512 + 1e-3


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_noise_and_blocks_are_not_taken_for_detail(sigma: float) -> None:
    soft = blurred(photograph(), sigma)
    plain = sharpness(soft)
    assert sharpness(noisy(soft, 10)) == pytest.approx(plain, rel=0.3)
    assert sharpness(as_jpeg(soft, 50)) == pytest.approx(plain, rel=0.3)


@pytest.mark.parametrize("value", [0.0, 0.5, 7.0, float("nan")])
def test_where_there_is_nothing_there_is_no_sharpness(value: float) -> None:
    assert sharpness(torch.full((1, 3, 512, 512), value)) == 0


def test_the_strength_falls_from_blurred_to_half_sharp_faces() -> None:
    # As measured on people that lite has not seen: docs/quality.md, Blending.
    frames = photograph()
    face = replace(face_of(frames).faces[0], score=1.0)
    faces = Faces((face,) * 5, face_of(frames).frame_sizes)
    shares = auto_strength(frames, faces, torch.tensor([0.05, 0.2, 0.4, 0.6, 0.9]))
    assert shares.tolist() == pytest.approx([1.0, 1.0, 0.65, 0.3, 0.3], abs=1e-5)


def test_it_does_not_depend_on_contrast_or_on_the_other_faces() -> None:
    photo = photograph()
    dim = 0.4 + 0.2 * photo
    assert sharpness(dim) == pytest.approx(sharpness(photo), rel=0.02)
    both = torch.cat([dim, blurred(photo, 3)])
    face = face_of(both).faces[0]
    faces = Faces((face, replace(face, frame=1)), ((512, 512),) * 2)
    found = face_sharpness(both, faces)
    assert found.shape == (2,)
    assert found.dtype == torch.float32
    assert found[0] > 3 * found[1]
    assert face_sharpness(both, faces.select([])).shape == (0,)


@pytest.mark.parametrize(("factor", "wanted"), [(2, 0.5), (4, 0.25), (8, 0.125), (16, 0.0625)])
def test_photographs_shrunk_by_a_factor_have_its_part_of_the_detail(
    shared_dir: Path, factor: float, wanted: float
) -> None:
    folder = shared_dir / "faces" / "london"
    pupils = json.loads((folder / "pupils.json").read_text())
    found = []
    for name in sorted(pupils)[::20]:
        eyes = np.array(pupils[name], np.float64).reshape(2, 2)
        photo = cv2.imread(str(folder / (name)))
        frames = torch.from_numpy(photo[..., ::-1].astype(np.float32) / 255).permute(2, 0, 1)[None]
        # A face with its eyes there; no more is needed to cut it out.
        scale = np.linalg.norm(eyes[1] - eyes[0]) / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
        landmarks = (TEMPLATE - TEMPLATE[:2].mean(0)) * scale + eyes.mean(0)
        frames = shrunk(frames, scale)
        landmarks = (landmarks + 0.5) / scale - 0.5
        small = shrunk(frames, factor)
        found.append(sharpness(enlarged(small, frames.shape[2:]), landmarks))
    assert np.median(found) == pytest.approx(wanted, rel=0.2)
