"""Crops that come from elsewhere, and their way back into a photograph."""

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as F

from gfp_core.align import align
from gfp_core.color import apply_color
from gfp_core.crops import exchange_crops, faces_from_crops, resize_crops, resize_masks
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE, transform
from gfp_core.options import Mask
from gfp_core.paste import paste


@pytest.fixture(scope="module")
def photo():
    """(1, 3, 512, 512) astronaut, and her face as aligned."""
    frames = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    points = np.array([[204, 101], [246, 104], [224, 128], [202, 137], [245, 139]], np.float32)
    found = Faces((Face(0, (181.0, 60.0, 272.0, 176.0), 0.99, points),), ((512, 512),))
    return frames, align(frames, found, 256)


def test_pictures_become_faces_of_frames_of_their_own():
    crops = torch.rand(3, 3, 128, 128)
    faces = faces_from_crops(crops)
    assert [face.frame for face in faces.faces] == [0, 1, 2]
    assert torch.equal(faces.crops, crops)
    for face in faces.faces:
        assert transform(face.matrix, face.landmarks) == pytest.approx(TEMPLATE / 4, abs=1e-4)
    pasted, mask = paste(crops, exchange_crops(faces, 1 - crops), mask=Mask(feather=0.0))
    assert torch.allclose(pasted[:, :, 64, 64], 1 - crops[:, :, 64, 64], atol=1e-5)
    assert torch.equal(pasted[:, :, 0], crops[:, :, 0])
    assert mask[:, 64, 64].eq(1).all()


@pytest.mark.parametrize("size", [64, 256, 300, 512])
def test_a_crop_of_any_size_goes_back_to_its_place(photo, size):
    frames, faces = photo
    worked_on = F.interpolate(faces.crops, (size, size), mode="bicubic", antialias=True)
    pasted, _ = paste(frames, exchange_crops(faces, worked_on.clamp(0, 1)))
    error = (pasted - frames)[:, :, 60:176, 181:272].square().mean().sqrt()
    assert error < {64: 0.06}.get(size, 0.012)  # moved by one pixel it is 0.07
    moved = exchange_crops(faces, worked_on.clamp(0, 1).roll(size // 64, dims=3))
    assert (paste(frames, moved)[0] - frames)[:, :, 60:176, 181:272].square().mean().sqrt() > error


def test_input_crops_are_what_a_restorer_gets(photo):
    _, faces = photo
    crops = torch.rand(1, 3, 512, 512)
    exchanged = exchange_crops(faces, crops, "input")
    assert torch.equal(exchanged.crops, crops)
    assert exchanged.restored is None


def test_matrices_follow_the_size(photo):
    _, faces = photo
    resized = resize_crops(faces, 512)
    corner = transform(faces.faces[0].matrix, [(200, 100)])
    # Edges of pictures coincide: pixel x of one is 2x + 0.5 of the other.
    assert transform(resized.faces[0].matrix, [(200, 100)]) == pytest.approx(2 * corner + 0.5)
    assert faces.crops.shape[-1] == 256


def test_masks_follow_the_size_of_the_crops(photo):
    _, faces = photo
    masks = torch.zeros(1, 64, 64)
    masks[:, 16:48] = 1
    larger = resize_masks(masks, faces)
    assert larger.shape == (1, 256, 256)
    assert larger[0, :60].max() == 0
    assert larger[0, 68:188].min() == 1
    assert resize_masks(larger, faces) is larger


def test_no_faces_are_fine_at_any_size():
    nobody = Faces((), ((8, 8),), torch.zeros(0, 3, 64, 64), torch.zeros(0, 3, 64, 64))
    assert resize_crops(nobody, 32).restored.shape == (0, 3, 32, 32)
    assert exchange_crops(nobody, torch.zeros(0, 3, 16, 16)).crops.shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (torch.rand(2, 3, 64, 64), "2 crops for 1 faces"),
        (torch.rand(1, 3, 64, 32), "square RGB"),
        (torch.rand(1, 4, 64, 64), "square RGB"),
    ],
)
def test_crops_that_do_not_belong_are_refused(photo, crops, message):
    with pytest.raises(ValueError, match=message):
        exchange_crops(photo[1], crops)


def test_faces_that_were_not_aligned_are_refused():
    bare = Faces((Face(0, (0, 0, 1, 1), 1.0, np.zeros((5, 2), np.float32)),), ((8, 8),))
    with pytest.raises(ValueError, match="align them first"):
        resize_crops(bare, 64)


@pytest.mark.parametrize("kind", ["restored", "input"])
def test_pixels_that_are_no_color_do_not_spread_over_a_face(photo, kind, caplog):
    frames, faces = photo
    crops = faces.crops.clone()
    crops[0, 0, 100, 100], crops[0, 1, 120, 120], crops[0, 2, 90, 90] = torch.nan, torch.inf, 7.0
    before = crops.clone()
    exchanged = exchange_crops(faces, crops, kind)
    if kind == "input":
        exchanged = exchange_crops(exchanged, faces.crops)
    colored = apply_color(exchanged).restored
    assert bool(((colored >= 0) & (colored <= 1)).all())
    assert bool(paste(frames, exchanged)[0].isfinite().all())
    assert torch.equal(crops.nan_to_num(), before.nan_to_num())
    assert "NaN or infinite" in caplog.text
    taken = faces_from_crops(crops).crops
    assert bool(((taken >= 0) & (taken <= 1)).all())
