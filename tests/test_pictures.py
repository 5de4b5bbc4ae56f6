"""Difficult pictures, made of one photograph, through all steps with the bundled networks.

Each is found as often as it should be, each face is restored, and nothing else changes.
"""

import cv2
import numpy as np
import pytest
import torch

from gfp_core.align import drop_what_is_no_face
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE, fit_similarity, transform
from gfp_core.pipeline import FaceRestorer
from gfp_core.select import select

TURNS = (0, 90, 180, 270)


@pytest.fixture(scope="module")
def model():
    return FaceRestorer.load(device="cpu")


@pytest.fixture(scope="module")
def portrait():
    """(256, 256, 3): a face of 95 x 119 pixels about (130, 117)."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def restored(model, picture, count, **options):
    """Restore a picture and check what holds for every one; gives the restoration."""
    frame = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
    result = model.restore(frame, auto_strength=False, **options)
    assert len(result.faces) == count
    difference = (result.frames - frame).abs()[0].amax(dim=0)
    assert torch.equal(difference > 0, (difference > 0) & (result.mask[0] > 0))
    areas = 0.0
    for face in result.faces.faces:
        x1, y1, x2, y2 = (max(0, round(edge)) for edge in face.box)
        areas += (x2 - x1) * (y2 - y1)
        assert result.mask[0, y1:y2, x1:x2].mean() > 0.6
        assert difference[y1:y2, x1:x2].mean() > 1e-3
    assert (result.mask > 0).sum() < 3.5 * areas
    return result


@pytest.mark.slow
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_by_right_angles_it_is_restored_as_upright(model, portrait, turn):
    upright = restored(model, portrait, 1).frames[0]
    result = restored(model, np.rot90(portrait, turn), 1, rotations=TURNS)
    back = torch.rot90(result.frames[0], -turn, (1, 2))
    inside = torch.rot90(result.mask[0], -turn) > 0.5
    photo = torch.from_numpy(portrait).permute(2, 0, 1) / 255
    assert (back - upright)[:, inside].abs().mean() < 0.35 * (photo - upright)[
        :, inside
    ].abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("angle", [30, -30, 60])
def test_tilted(model, portrait, angle):
    turn = cv2.getRotationMatrix2D((128, 128), angle, 1)
    tilted = cv2.warpAffine(portrait, turn, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    (face,) = restored(model, tilted, 1).faces.faces
    x, y = face.landmarks[1] - face.landmarks[0]
    assert np.rad2deg(np.arctan2(-y, x)) == pytest.approx(angle, abs=10)


@pytest.mark.slow
def test_upside_down_among_upright(model, portrait):
    both = np.concatenate([portrait, portrait[::-1, ::-1]], axis=1)
    faces = restored(model, both, 2, rotations=TURNS).faces.faces
    up = sorted((face.landmarks[:2, 1].mean() < face.landmarks[3:, 1].mean()) for face in faces)
    assert up == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "share"),
    [
        (np.s_[:, 130:], 0.6),
        (np.s_[:, :130], 0.6),
        (np.s_[:115], 0.6),
        (np.s_[115:], 0.6),  # nose, mouth and chin alone
        (np.s_[:, 120:], 0.9),  # a little less than half outside: found as the default asks
        (np.s_[:, :150], 0.9),
        (np.s_[:130], 0.9),
        (np.s_[100:], 0.9),
    ],
    ids=lambda value: str(value) if isinstance(value, float) else "part",
)
def test_half_outside(model, portrait, part, share):
    restored(model, portrait[part], 1, score=share)


@pytest.mark.slow
def test_tiny(model):
    """20 pixels, in a larger picture."""
    data = pytest.importorskip("skimage.data")
    photo = data.astronaut()
    canvas = cv2.GaussianBlur(photo, (0, 0), 40)[:256, :256].copy()
    small = cv2.resize(photo, None, fx=20 / 119, fy=20 / 119, interpolation=cv2.INTER_AREA)
    canvas[100 : 100 + small.shape[0], 60 : 60 + small.shape[1]] = small
    (face,) = restored(model, canvas, 1).faces.faces
    assert face.height < 20


@pytest.mark.slow
def test_twenty_in_one_photo(model, portrait):
    sides = np.linspace(64, 168, 20).round().astype(int)
    photo = np.full((4 * 170, 5 * 170, 3), 128, np.uint8)
    for index, side in enumerate(sides):
        y, x = np.array(divmod(index, 5)) * 170
        small = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
        photo[y : y + side, x : x + side] = small
    result = restored(model, photo, 20)
    cells = {tuple((face.landmarks[2] // 170).astype(int)) for face in result.faces.faces}
    assert len(cells) == 20
    areas = [face.width * face.height for face in result.faces.faces]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > 6 * areas[-1]


@pytest.mark.slow
def test_overlapping(model, portrait):
    """A second head in front of the first, over a part of its cheek."""
    y, x = np.mgrid[:256, :256]
    head = np.clip((1 - ((x - 128) / 62) ** 2 - ((y - 110) / 82) ** 2) * 6, 0, 1)[..., None]
    photo = np.pad(portrait.astype(float), ((0, 60), (0, 120), (0, 0)), mode="edge")
    place = photo[10:266, 75:331]
    place[:] = (1 - head) * place + head * portrait
    faces = restored(model, photo.round().astype(np.uint8), 2).faces.faces
    left, right = sorted(face.box for face in faces)
    assert left[2] > right[0] + 10


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_three_quarter_faces_are_kept(model, portrait, share):
    """The far half of the face narrowed, as it is when the head is turned."""
    x = np.arange(256, dtype=np.float32)
    narrowed = np.where(x < 130, 130 - (130 - x) / share, x).astype(np.float32)
    rows = np.repeat(np.arange(256, dtype=np.float32)[:, None], 256, axis=1)
    columns = np.repeat(narrowed[None], 256, axis=0)
    turned = cv2.remap(portrait, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    restored(model, turned, 1)


@pytest.mark.parametrize("yaw", [0, 30, 45, 60, 75, -60])
def test_no_turn_of_the_head_is_taken_for_no_face(yaw):
    """Eyes near each other in the picture are no reason to drop a face."""
    depth = np.array([0, 0, -60, -10, -10])  # towards the camera, of the template's 512 pixels
    angle = np.deg2rad(yaw)
    points = TEMPLATE - TEMPLATE.mean(axis=0)
    turned = np.column_stack([points[:, 0] * np.cos(angle) - depth * np.sin(angle), points[:, 1]])
    landmarks = (turned / 4 + 200).astype(np.float32)
    low, high = landmarks.min(axis=0) - 30, landmarks.max(axis=0) + 30
    face = Face(0, (*low.tolist(), *high.tolist()), 0.95, landmarks)
    faces = select(drop_what_is_no_face(Faces((face,), ((400, 400),))))
    assert faces.faces == (face,)
    eyes_and_mouth = transform(fit_similarity(landmarks), landmarks)[[0, 1, 3, 4]].mean(axis=0)
    assert np.abs(eyes_and_mouth - [256, 305]).max() < 40
