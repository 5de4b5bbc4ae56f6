"""Numbers are numbers: every step takes any kind of them, empty batches and None for a default."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core.align import align
from gfp_core.color import apply_color
from gfp_core.color.enhance import enhance
from gfp_core.crops import exchange_crops, faces_from_crops, resize_crops, resize_masks
from gfp_core.draw import draw_faces
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.identity import compare, take_back
from gfp_core.masks import make_masks
from gfp_core.options import Blend, Mask
from gfp_core.paste import face_mask, paste
from gfp_core.restore import Restorer
from gfp_core.sharpness import auto_strength

SIZE = 32
KINDS = [torch.float16, torch.bfloat16, torch.float64]


def picture(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 90, 100, generator=torch.Generator().manual_seed(0))


def restored_faces(frames: Tensor) -> Faces:
    """One face in frame 0, if there is one, restored to its negative."""
    landmarks = ((TEMPLATE / 512 - 0.5) * 70 + 48).astype(np.float32)
    face = Face(0, (20.0, 20.0, 75.0, 75.0), 1.0, landmarks)
    sizes = (tuple(frames.shape[2:]),) * len(frames)
    aligned = align(frames, Faces((face,) * min(len(frames), 1), sizes), SIZE)
    assert aligned.crops is not None
    return replace(aligned, restored=1 - aligned.crops)


class Colors:
    """An embedder that goes by the mean color."""

    def embed(self, crops: Tensor) -> Tensor:
        return nn.functional.normalize(crops.float().mean(dim=(2, 3)), dim=1)


@pytest.mark.parametrize("dtype", KINDS)
def test_frames_of_any_floating_point_type(dtype: torch.dtype) -> None:
    frames = picture()
    faces = restored_faces(frames)
    expected, covered = paste(frames, faces)
    image, mask = paste(frames.to(dtype), restored_faces(frames.to(dtype)))
    assert image.dtype == dtype
    torch.testing.assert_close(image.float(), expected, atol=0.03, rtol=0)
    assert torch.equal(mask, covered)
    larger, _ = paste(frames.to(dtype), faces, upscale=1.5)
    torch.testing.assert_close(
        larger.float(), paste(frames, faces, upscale=1.5)[0], atol=0.03, rtol=0
    )
    torch.testing.assert_close(
        enhance(frames.to(dtype)).float(), enhance(frames), atol=0.05, rtol=0
    )
    sharp = auto_strength(frames.to(dtype), faces)
    torch.testing.assert_close(sharp, auto_strength(frames, faces), atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", KINDS)
def test_crops_of_any_floating_point_type(dtype: torch.dtype) -> None:
    frames = picture()
    faces = restored_faces(frames)
    assert faces.crops is not None
    assert faces.restored is not None
    same = replace(faces, crops=faces.crops.to(dtype), restored=faces.restored.to(dtype))
    image, _ = paste(frames, same)
    torch.testing.assert_close(image, paste(frames, faces)[0], atol=0.01, rtol=0)
    resized = resize_crops(same, 50)
    assert resized.crops is not None
    assert resized.crops.shape == (1, 3, 50, 50)
    assert resized.crops.dtype == dtype
    for mask in (Mask(), Mask(occlusion="on")):
        assert make_masks(same, mask).dtype == torch.float32
    assert exchange_crops(faces, torch.rand(1, 3, 16, 16).to(dtype)).restored is not None
    half = take_back(same, torch.tensor([0.5], dtype=dtype)).restored
    assert half is not None
    torch.testing.assert_close(half.float(), torch.full_like(faces.crops, 0.5), atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [*KINDS, torch.bool, torch.long])
def test_masks_of_any_type(dtype: torch.dtype) -> None:
    frames = picture()
    faces = restored_faces(frames)
    masks, allowed = torch.zeros(1, SIZE, SIZE), torch.zeros(1, 90, 100)
    masks[:, 5:28, 5:28] = 1
    allowed[:, 40:] = 1
    for upscale in (1, 2):
        expected = paste(frames, faces, mask=masks, frame_mask=allowed, upscale=upscale)
        got = paste(
            frames, faces, mask=masks.to(dtype), frame_mask=allowed.to(dtype), upscale=upscale
        )
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
    resized = resize_masks(torch.ones(1, 64, 64).to(dtype), faces)
    assert torch.equal(resized, torch.ones(1, SIZE, SIZE))


@pytest.mark.parametrize(
    "strength", [1, True, np.float32(1), [1], np.array([1.0]), torch.tensor(1), torch.tensor([1])]
)
def test_strengths_of_any_kind(strength) -> None:
    frames = picture()
    faces = restored_faces(frames)
    assert torch.equal(paste(frames, faces, strength=strength)[0], paste(frames, faces)[0])


@pytest.mark.parametrize("strength", [float("nan"), 2, -1, [0.5, 0.5]])
def test_strengths_that_are_none_are_refused(strength) -> None:
    frames = picture()
    with pytest.raises(ValueError, match="strength"):
        paste(frames, restored_faces(frames), strength=strength)


def test_none_is_the_default() -> None:
    frames = picture()
    faces = restored_faces(frames)
    image, _ = paste(frames, faces, mask=Mask(), blend=Blend())
    assert torch.equal(paste(frames, faces, mask=None, blend=None)[0], image)
    assert torch.equal(face_mask(faces, mask=None), face_mask(faces, mask="ellipse"))
    assert torch.equal(make_masks(faces, None), make_masks(faces, "ellipse"))


def test_an_empty_batch_gives_an_empty_batch() -> None:
    frames = picture(0)
    faces = restored_faces(frames)
    assert faces.crops is not None
    assert faces.crops.shape == (0, 3, SIZE, SIZE)
    for options, size in [
        ({}, (90, 100)),
        ({"upscale": 2}, (180, 200)),
        ({"background": torch.zeros(0, 3, 50, 60)}, (50, 60)),
        ({"frame_mask": torch.zeros(0, 90, 100)}, (90, 100)),
    ]:
        image, mask = paste(frames, faces, **options)
        assert image.shape == (0, 3, *size)
        assert mask.shape == (0, *size)
    assert face_mask(faces).shape[0] == 0
    assert make_masks(faces).shape[0] == 0
    assert enhance(frames).shape == frames.shape
    assert auto_strength(frames, faces).shape == (0,)
    assert len(apply_color(faces)) == 0
    assert len(faces_from_crops(torch.zeros(0, 3, 8, 8))) == 0
    assert len(exchange_crops(faces, torch.zeros(0, 3, 8, 8))) == 0
    assert resize_crops(faces, 8).crops.shape == (0, 3, 8, 8)  # type: ignore[union-attr]
    assert len(take_back(faces, torch.zeros(0))) == 0
    assert compare(faces, Colors()).angles.shape == (0,)  # type: ignore[arg-type]


def test_limits_that_are_no_numbers_are_refused() -> None:
    faces = restored_faces(picture())
    with pytest.raises(ValueError, match="above 0 degrees, not nan"):
        compare(faces, Colors(), limit=float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strengths must lie in"):
        take_back(faces, torch.tensor([float("nan")]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reference_that_is_no_picture_is_named(value: float) -> None:
    frames = picture(2)
    faces = restored_faces(frames)
    reference = torch.rand(1, 3, 20, 20)
    reference[0, 1, 3, 3] = value
    with pytest.raises(ValueError, match="reference picture 0 holds NaN or infinite values"):
        apply_color(faces, "reference", reference=reference)


def test_seeds_may_be_numpy_integers() -> None:
    class Plain(nn.Module):
        out_size = SIZE

        def forward(self, x: Tensor) -> Tensor:
            return x

    faces = restored_faces(picture())
    restored = Restorer(Plain()).restore(faces, seed=np.int64(3)).restored  # type: ignore[arg-type]
    torch.testing.assert_close(restored, faces.crops)


def test_boxes_that_are_no_numbers_are_drawn_as_far_as_can_be() -> None:
    face = restored_faces(picture()).faces[0]
    image = np.zeros((90, 100, 3), np.float32)
    for odd in (
        replace(face, box=(float("nan"), 0.0, float("inf"), 1e12)),
        replace(face, landmarks=np.full((5, 2), np.nan, np.float32)),
    ):
        assert draw_faces(image, [odd]).shape == image.shape
    assert image.max() == 0
