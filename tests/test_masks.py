"""Masks: shapes and their fade, parts by labels, what stands before a face, the user's own."""

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
from gfp_core.crops import faces_from_crops
from gfp_core.faces import Face, Faces, Progress
from gfp_core.geometry import TEMPLATE
from gfp_core.masks import DEFAULT_PARTS, PARTS, fade, make_masks
from gfp_core.networks.parsing import FacePart
from gfp_core.options import Mask
from gfp_core.paste import face_mask, paste

SIZE = 128
SHAPES = ["ellipse", "box", "hull"]


class FakeParser:
    """Knows pictures by the red of their middle, and their labels by that."""

    def __init__(self, **labels: np.ndarray) -> None:
        self.labels = [torch.from_numpy(value) for value in labels.values()]
        self.calls = 0

    def parse(self, crops: Tensor, progress: Progress | None = None) -> Tensor:
        self.calls += 1
        if progress is not None:
            progress(len(crops), len(crops))
        return torch.stack([self.labels[int(crop[0, 0, 0] > 0.5)] for crop in crops])


def labelled(*areas: tuple[FacePart, tuple[slice, slice]]) -> np.ndarray:
    """A face of skin with a nose and hair about it, and more on top."""
    labels = np.full((SIZE, SIZE), FacePart.BACKGROUND, np.uint8)
    cv2.ellipse(labels, (64, 50), (56, 50), 0, 0, 360, int(FacePart.HAIR), -1)
    cv2.ellipse(labels, (64, 70), (40, 52), 0, 0, 360, int(FacePart.SKIN), -1)
    labels[70:82, 58:70] = FacePart.NOSE
    for part, area in areas:
        labels[area] = part
    return labels


GLASSES = (slice(52, 66), slice(36, 92))


def restored_faces(count: int = 1) -> Faces:
    """Crops of 0, restored ones of 1, aligned."""
    faces = faces_from_crops(torch.zeros(count, 3, SIZE, SIZE))
    return replace(faces, restored=torch.ones(count, 3, SIZE, SIZE))


@pytest.mark.parametrize("shape", SHAPES)
def test_growing_and_shrinking_move_the_outline(shape: str) -> None:
    faces = restored_faces()
    areas = []
    for grow in (-0.1, -0.05, 0.0, 0.05):
        mask = make_masks(faces, Mask(shape, feather=0.0, grow=grow))[0]
        areas.append(float((mask > 0.5).float().mean()))
    if shape == "box":  # it fills the crop already, and never leaves it
        assert areas[3] == areas[2]
        areas = areas[:3]
    assert areas == sorted(areas)
    assert len(set(areas)) == len(areas)
    # By a share of the side: along the middle column the ellipse loses a twentieth at each end.
    if shape == "ellipse":
        shrunk, plain = (
            make_masks(faces, Mask(shape, 0.0, grow))[0, :, 64] > 0.5 for grow in (-0.05, 0.0)
        )
        lost = int(plain.sum() - shrunk.sum())
        assert lost == pytest.approx(2 * 0.05 * SIZE, abs=2)


def test_a_mask_shrunk_away_is_empty_and_pastes_nothing() -> None:
    faces = restored_faces()
    frame = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    image, covered = paste(frame, faces, mask=Mask(grow=-0.5))
    assert covered.max() == 0
    assert torch.equal(image, frame)


def test_glasses_are_not_erased() -> None:
    """The restorer painted skin over glasses: there the photograph stays."""
    before, after = labelled((FacePart.GLASSES, GLASSES)), labelled()
    for shape in ("parts", "ellipse"):
        faces = restored_faces()
        masks = make_masks(faces, shape, parser=FakeParser(before=before, after=after))
        assert masks[0][GLASSES].max() == 0
        assert masks[0, 95, 64] > 0.99  # and the mouth is restored
        frame = torch.zeros(1, 3, SIZE, SIZE)
        image, _ = paste(frame, faces, mask=masks)
        assert image[0][:, GLASSES[0], GLASSES[1]].max() == 0
    kept = make_masks(faces, Mask(occlusion="off"), parser=FakeParser(before=before, after=after))
    assert kept[0, 59, 64] == 1


def test_glasses_that_both_show_are_restored() -> None:
    labels = labelled((FacePart.GLASSES, GLASSES))
    mask = make_masks(restored_faces(), "parts", parser=FakeParser(before=labels, after=labels))[0]
    assert mask[GLASSES].median() > 0.9
    without = tuple(part for part in DEFAULT_PARTS if part != "glasses")
    mask = make_masks(
        restored_faces(), Mask("parts", parts=without), parser=FakeParser(a=labels, b=labels)
    )[0]
    assert mask[GLASSES].max() == 0


@pytest.mark.parametrize("part", [FacePart.HAIR, FacePart.BACKGROUND, FacePart.CLOTHES])
def test_hair_and_hands_before_the_face_are_left(part: FacePart) -> None:
    """A hand is labelled as background or clothes."""
    area = (slice(80, 100), slice(40, 60))
    parser = FakeParser(before=labelled((part, area)), after=labelled())
    mask = make_masks(restored_faces(), "ellipse", parser=parser)[0]
    assert mask[area].max() == 0
    assert mask[90, 85] > 0.99
    # The other way about too: what the restorer made up is not pasted.
    parser = FakeParser(before=labelled(), after=labelled((part, area)))
    assert make_masks(restored_faces(), "ellipse", parser=parser)[0][area].max() == 0


def test_hair_is_left_unless_it_is_asked_for() -> None:
    labels = labelled()
    parser = FakeParser(before=labels, after=labels)
    hair = torch.from_numpy(labels == FacePart.HAIR)
    for shape in ("parts", "box"):
        assert make_masks(restored_faces(), shape, parser=parser)[0][hair].max() == 0
        with_hair = Mask(shape, parts=(*DEFAULT_PARTS, "hair"))
        assert make_masks(restored_faces(), with_hair, parser=parser)[0][hair].mean() > 0.3


@pytest.mark.parametrize("part", sorted(set(PARTS)))
def test_every_part_can_be_chosen_alone(part: str) -> None:
    area = (slice(30, 60), slice(40, 80))
    for label in PARTS[part]:
        labels = np.full((SIZE, SIZE), FacePart.CLOTHES, np.uint8)
        labels[area] = label
        parser = FakeParser(before=labels, after=labels)
        mask = make_masks(restored_faces(), Mask("parts", parts=(part,)), parser=parser)[0]
        inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        inside[area] = True
        assert mask[45, 60] == 1
        assert mask[~inside].max() == 0


def test_small_parts_reach_full_strength_beside_large_ones() -> None:
    labels = np.full((SIZE, SIZE), FacePart.HAIR, np.uint8)
    labels[80:120, 30:100] = FacePart.MOUTH
    labels[50:56, 40:50] = FacePart.LEFT_EYE
    parser = FakeParser(before=labels, after=labels)
    mask = Mask("parts", feather=0.1, parts=("eyes", "mouth"))
    assert make_masks(restored_faces(), mask, parser=parser)[0, 50:56, 40:50].max() > 0.95


def test_the_parser_is_asked_only_when_it_matters() -> None:
    parser = FakeParser(before=labelled(), after=labelled())
    calls: list[tuple[int, int]] = []
    make_masks(restored_faces(2), Mask(occlusion="off"), parser=parser)
    make_masks(restored_faces(0), "parts", parser=parser)
    assert parser.calls == 0
    make_masks(restored_faces(2), "parts", parser=parser, progress=lambda *c: calls.append(c))
    assert parser.calls == 2
    assert calls == [(2, 4), (4, 4)]


def photograph_and_restored(occluder: bool) -> tuple[Faces, np.ndarray]:
    """The astronaut with or without glasses drawn on, and restored without."""
    landmarks = np.array([[203, 109], [246, 107], [224, 134], [206, 152], [243, 151]], np.float32)
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    face = Face(0, (180, 60, 270, 180), 1.0, landmarks)
    clean = align(photo, Faces((face,), ((512, 512),)), 512)
    assert clean.crops is not None
    worse = cv2.GaussianBlur(clean.crops[0].permute(1, 2, 0).numpy(), (0, 0), 4)
    rims = np.zeros((512, 512), np.uint8)
    for x in (193, 319):
        cv2.ellipse(rims, (x, 245), (52, 38), 0, 0, 360, 1, 7)
    if occluder:
        worse[rims > 0] = 0.08
        worse = cv2.GaussianBlur(worse, (0, 0), 2)
    crops = torch.from_numpy(worse).permute(2, 0, 1)[None]
    # A restorer that shifts colours, as they do.
    warm = clean.crops * torch.tensor([1.0, 0.95, 0.88]).view(1, 3, 1, 1)
    return replace(clean, crops=crops, restored=warm), rims > 0


def test_glasses_stand_out_without_a_parser_too() -> None:
    faces, rims = photograph_and_restored(occluder=True)
    plain = make_masks(faces, "ellipse")[0].numpy()
    mask = make_masks(faces, Mask(occlusion="on"))[0].numpy()
    deep = rims & (plain > 0.9)
    assert np.median(mask[deep]) < 0.1
    assert mask[deep].mean() < 0.3
    # Nose, mouth and chin are restored all the same; and without glasses nearly everything is.
    assert mask[300:450, 200:310].mean() > 0.9
    clean, _ = photograph_and_restored(occluder=False)
    free = make_masks(clean, Mask(occlusion="on"))[0].numpy()
    assert free.sum() > 0.95 * plain.sum()


def test_a_users_mask_of_the_frame_is_multiplied_in() -> None:
    faces = restored_faces()
    frame = torch.zeros(1, 3, SIZE, SIZE)
    allowed = torch.zeros(1, SIZE, SIZE)
    allowed[:, :, :64] = 1.0
    allowed[:, 100:] *= 0.5
    _, plain = paste(frame, faces)
    image, covered = paste(frame, faces, frame_mask=allowed)
    torch.testing.assert_close(covered, plain * allowed)
    assert image[:, :, :, 64:].max() == 0
    for size in (SIZE, 2 * SIZE):  # the frame's, and the result's
        given = torch.zeros(1, size, size)
        given[:, :, : size // 2] = 1.0
        image, covered = paste(frame, faces, upscale=2.0, frame_mask=given)
        assert covered.shape == (1, 256, 256)
        assert covered[0, :, 132:].max() == 0
        assert covered[0, 128, 100] == 1
        assert image[0, :, :, 132:].max() < 1e-6
    nan = torch.full((1, SIZE, SIZE), float("nan"))
    assert torch.equal(paste(frame, faces, frame_mask=nan)[0], frame)


def test_masks_made_elsewhere_never_reach_over_the_crop() -> None:
    frame = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    landmarks = (TEMPLATE / 512 * 80 + 60).astype(np.float32)
    found = Faces((Face(0, (60, 60, 140, 140), 1.0, landmarks),), ((200, 200),))
    faces = align(frame, found, 64)
    faces = replace(faces, restored=torch.ones(1, 3, 64, 64))
    given = torch.full((1, 64, 64), 3.0)
    given[0, 20, 20] = float("nan")
    before = given.clone()
    image, covered = paste(frame, faces, mask=given)
    assert torch.equal(torch.nan_to_num(given), torch.nan_to_num(before))
    assert covered.max() == 1
    assert covered[0, :59].max() == covered[0, 142:].max() == 0
    assert torch.equal(image[:, :, :59], frame[:, :, :59])
    torch.testing.assert_close(face_mask(faces, mask=given), covered)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "star"}, "mask must be"),
        ({"feather": -0.1}, "feather"),
        ({"feather": float("nan")}, "feather"),
        ({"grow": 0.6}, "grow"),
        ({"grow": float("nan")}, "grow"),
        ({"parts": ("skin", "tail")}, "tail"),
        ({"parts": "skin"}, "parts must be a list"),
        ({"parts": ()}, "at least one"),
        ({"occlusion": True}, "occlusion must be"),
    ],
)
def test_bad_masks_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mask(**options)


def test_what_is_missing_is_named() -> None:
    faces = restored_faces()
    with pytest.raises(ValueError, match="needs a parser"):
        make_masks(faces, "parts")
    with pytest.raises(ValueError, match="not aligned"):
        make_masks(replace(faces, crops=None, restored=None))
    unrestored = replace(faces, restored=None)
    with pytest.raises(ValueError, match="restored"):
        make_masks(unrestored, Mask(occlusion="on"))
    with pytest.raises(ValueError, match="restored"):
        make_masks(unrestored, "parts", parser=FakeParser(a=labelled(), b=labelled()))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*SHAPES, "parts"]),
    st.floats(0, 0.5),
    st.floats(-0.5, 0.5),
    st.sets(st.sampled_from(sorted(PARTS)), min_size=1),
    st.sampled_from(["auto", "on", "off"]),
    st.integers(0, 99),
    st.booleans(),
)
def test_any_mask_lies_in_the_crop_and_in_its_outline(
    shape: str, feather: float, grow: float, parts: set, occlusion: str, seed: int, parsed: bool
) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 19, (2, 8, 8)).astype(np.uint8)
    before, after = (np.kron(part, np.ones((16, 16), np.uint8)) for part in small)
    parser = FakeParser(before=before, after=after) if parsed or shape == "parts" else None
    mask = Mask(shape, feather, grow, tuple(sorted(parts)), occlusion)
    soft = make_masks(restored_faces(), mask, parser=parser)[0]
    assert soft.dtype == torch.float32
    assert 0 <= soft.min() <= soft.max() <= 1
    border = [soft[0], soft[-1], soft[:, 0], soft[:, -1]]
    assert max(float(side.max()) for side in border) == 0
    if shape != "parts":
        free = make_masks(restored_faces(), Mask(shape, feather, grow))[0]
        assert bool((soft <= free).all())
    assert torch.equal(soft, make_masks(restored_faces(), mask, parser=parser)[0])


@pytest.mark.parametrize("feather", [0.0, 0.05, 0.3])
def test_a_faded_shape_has_exactly_the_outline_of_the_shape(feather: float) -> None:
    y, x = np.mgrid[:96, :96]
    inside = ((x - 40) ** 2 + (y - 50) ** 2 < 30**2) | ((x > 80) & (y < 20))
    faded = fade(inside, feather)
    inside[[0, -1], :] = inside[:, [0, -1]] = False  # the crop's own border is never touched
    np.testing.assert_array_equal(faded > 0, inside)
    # The outermost pixels are one pixel deep: as much of the fade as belongs to that depth.
    edge = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    edge &= np.hypot(x - 40, y - 50) < 40
    ramp = min(1 / max(1, feather * 96), 1)
    assert float(faded[edge].min()) == pytest.approx(ramp**2 * (3 - 2 * ramp), rel=0.01)


def test_a_grown_outline_moves_by_the_pixels_asked_for() -> None:
    inside = np.zeros((100, 100), bool)
    inside[40:60, 40:60] = True
    for grow, (first, last) in ((0.0, (40, 59)), (0.05, (35, 64)), (-0.05, (45, 54))):
        rows = np.flatnonzero(fade(inside, 0.0, grow)[:, 50])
        assert (rows[0], rows[-1]) == (first, last), grow


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_masks_of_the_smallest_crops_are_masks(size):
    faces = faces_from_crops(torch.rand(1, 3, size, size))
    masks = make_masks(replace(faces, restored=1 - faces.crops), Mask(occlusion="on"))
    assert bool(((masks >= 0) & (masks <= 1)).all())
