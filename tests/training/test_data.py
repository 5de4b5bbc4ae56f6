"""Prepared faces, augmentation, reproducible samples."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from gfp_core.degradation import PAPER
from gfp_core.detect import load_detector
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.training.data import FacePairs, Steps, augment, to_net
from gfp_core.training.pack import INDEX, PICTURES, FacePack, PackWriter
from gfp_core.training.prepare import person_of, prepare
from gfp_core.training.recipes import Data
from gfp_core.training.regions import regions_of
from tests import needs

from .conftest import SIZE

PLAIN = Data(size=SIZE, mirror=False)
ALL = Data(size=SIZE, turn=6, zoom=0.08, move=0.025, tint=True)


@pytest.fixture(scope="module")
def detector():
    needs.default_detector()
    return load_detector()


def test_samples_are_reproducible_and_differ(pack):
    pairs, again = (FacePairs(pack, [0, 1], ALL, PAPER, seed=5) for _ in range(2))
    other = FacePairs(pack, [0, 1], ALL, PAPER, seed=6)
    for i in range(4):
        assert all(torch.equal(a, b) for a, b in zip(pairs[i], again[i], strict=True))
    assert not torch.equal(pairs[0].degraded, pairs[1].degraded)
    assert not torch.equal(pairs[0].degraded, other[0].degraded)


def test_nothing_but_what_is_asked_for_is_changed(pack):
    pairs = FacePairs(pack, [1], PLAIN, PAPER)
    sample = pairs[3]
    assert torch.equal(sample.clean.permute(1, 2, 0), torch.from_numpy(pack.centre(1)))
    assert np.allclose(sample.regions[:, :2], pack.regions(1)[:, :2] - 4)
    clean = FacePairs(pack, [1], Data(size=SIZE, mirror=False, degraded=False), PAPER)[3]
    assert torch.equal(clean.degraded, clean.clean)


class Mistaken:
    """Takes the whole picture for a face, too, with landmarks on one line."""

    def detect(self, frames, **_):
        height, width = frames.shape[-2:]
        line = np.linspace(5, 60, 10, dtype=np.float32).reshape(5, 2)
        small = TEMPLATE.astype(np.float32) / 4
        faces = (
            Face(0, (0.0, 0.0, width - 1.0, height - 1.0), 0.9, line),
            Face(0, (20.0, 20.0, 100.0, 110.0), 0.9, small),
        )
        return Faces(faces, ((height, width),))


def test_a_false_detection_that_is_larger_does_not_stop_a_photograph(tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (160, 140, 3), np.uint8)
    for name in ("a.png", "._a.png", "note.txt"):
        cv2.imwrite(str(photographs / "picture.png"), picture)
        (photographs / "picture.png").rename(photographs / name)
    Image.fromarray(picture).save(photographs / "b.gif")  # is read, and not written
    done = prepare([photographs], tmp_path / "data", Mistaken(), size=64, every=0)
    assert done.left_out == {}
    assert [face.name for face in FacePack(tmp_path / "data")] == ["a.png", "b.gif"]


@pytest.mark.parametrize("warp", [0.0, 0.01])
def test_regions_follow_the_augmented_face(warp):
    side = 160 + 40
    landmarks = np.array([[70, 80], [130, 84], [100, 110], [80, 140], [125, 138]], np.float32)
    regions = regions_of(landmarks, 160)
    face = np.zeros((side, side, 3), np.uint8)
    for channel, (x, y, _) in enumerate(regions):
        cv2.circle(
            face,
            (round(float(x)), round(float(y))),
            5,
            [255 * (c == channel) for c in range(3)],
            -1,
        )
    mirrored = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        data = Data(size=160, turn=10, zoom=0.1, move=0.05, warp=warp)
        crop, moved = augment(face, regions, rng, data)
        swapped = moved[0, 0] > moved[1, 0]
        assert not swapped  # the first is the picture's left eye, mirrored or not
        order = (
            [0, 1, 2]
            if crop[..., 0].nonzero()[1].mean() < crop[..., 1].nonzero()[1].mean()
            else [1, 0, 2]
        )
        mirrored.add(order[0])
        for component, channel in enumerate(order):
            rows, columns = np.nonzero(crop[..., channel] > 127)
            assert moved[component, :2] == pytest.approx([columns.mean(), rows.mean()], abs=1)
    assert mirrored == {0, 1}


def test_a_warped_face_is_of_another_person_and_even_on_both_sides():
    side, center = 200, 99.5
    ramps = np.mgrid[:side, :side].astype(np.float32)[::-1]  # x, y as levels of two colors
    face = np.stack([*ramps, np.zeros((side, side))], -1).round().astype(np.uint8)
    data = Data(size=160, mirror=False, warp=0.02)
    crop, _ = augment(face, np.zeros((3, 3), np.float32), np.random.default_rng(3), data)
    shift = crop[..., :2].astype(np.float32) - face[20:180, 20:180, :2]
    assert 1 < shift.std() < 8
    assert abs(shift).max() > 3
    across = crop[..., 0].astype(np.float32) - center
    assert abs(across + across[:, ::-1]).max() <= 1.5
    assert abs(crop[..., 1].astype(np.float32) - crop[:, ::-1, 1]).max() <= 1.5


def test_degrading_on_the_device_is_reproducible(pack):
    data = Data(size=SIZE, degrade_on="device")
    pairs = FacePairs(pack, [0, 1], data, PAPER, seed=1)
    batch = torch.utils.data.default_collate([pairs[0], pairs[1]])
    device = torch.device("cpu")
    first = pairs.degrade_batch(batch, device)
    assert torch.equal(first, pairs.degrade_batch(batch, device))
    assert first.shape == (2, 3, SIZE, SIZE)
    assert not torch.equal(first, batch.clean / 255)


def test_a_face_of_more_weight_is_taken_more_often(pack_folder, tmp_path):
    table = json.loads((pack_folder / INDEX).read_text())
    table["faces"][1]["weight"] = 4.0
    (tmp_path / INDEX).write_text(json.dumps(table))
    (tmp_path / PICTURES).write_bytes((pack_folder / PICTURES).read_bytes())
    pack = FacePack(tmp_path)
    pairs = FacePairs(pack, [0, 1], Data(size=SIZE, mirror=False, degraded=False), PAPER)
    second = torch.from_numpy(pack.centre(1)).permute(2, 0, 1)
    taken = sum(torch.equal(pairs[i].clean, second) for i in range(100))
    assert 68 < taken < 92


def _psnr(pair):
    apart = pair.degraded.numpy().astype(float) - pair.clean.numpy()
    return 10 * np.log10(255**2 / np.mean(apart**2))


def test_samples_follow_the_mixture(pack):
    def degraded(mixture):
        data = Data(size=SIZE, mirror=False, mixture=mixture)
        return FacePairs(pack, [0], data, PAPER)[3]

    clean, severe = degraded({"clean": 1}), degraded({"severe": 1.0})
    assert _psnr(clean) > 26
    assert _psnr(severe) < 22


def test_processes_share_the_samples():
    first, second = (list(Steps(4, 12, 2, rank, 2)) for rank in (0, 1))
    assert first == [4, 5, 8, 9]
    assert second == [6, 7, 10, 11]
    assert len(Steps(4, 12, 2, 0, 2)) == 4


def test_to_net_covers_the_range():
    assert to_net(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_faces_of_another_size_are_refused(pack):
    with pytest.raises(ValueError, match="prepare them with --size 64"):
        FacePairs(pack, [0], Data(size=64), PAPER)
    with pytest.raises(ValueError, match="no face"):
        FacePairs(pack, [], Data(size=SIZE), PAPER)


def test_damaged_packs_are_named(pack_folder, tmp_path):
    with pytest.raises(ValueError, match="gfp prepare"):
        FacePack(tmp_path)
    index = json.loads((pack_folder / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=PICTURES):
        FacePack(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(ValueError, match="damaged"):
        FacePack(tmp_path)


def test_a_pack_is_sent_by_its_place(pack):
    coded = pickle.dumps(pack)
    assert len(coded) < 500
    assert np.array_equal(pickle.loads(coded).picture(1), pack.picture(1))


def test_a_pack_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), PackWriter(tmp_path, size=8, margin=0, quality=95):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_prepare_finds_aligns_chooses_and_splits(detector, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    face = astronaut()[..., ::-1]
    for name in ("001_a.png", "001_b.png", "002_a.png", "other.png"):
        cv2.imwrite(str(photos / name), face)
    cv2.imwrite(str(photos / "blurred.png"), cv2.GaussianBlur(face, (0, 0), 6))
    cv2.imwrite(str(photos / "empty.png"), np.full((200, 200, 3), 90, np.uint8))
    (photos / "notes.txt").write_text("no picture")
    calls = []
    done = prepare(
        [photos],
        tmp_path / "data",
        detector,
        size=64,
        every=2,
        min_sharpness=0.1,
        progress=lambda *call: calls.append(call),
    )
    assert (done.faces, calls[-1]) == (4, (6, 6))
    assert done.left_out["empty.png"] == "left out: no face found"
    assert "not sharp" in done.left_out["blurred.png"]
    pack = FacePack(tmp_path / "data")
    assert (pack.size, pack.margin) == (64, 8)
    parts = {face.name: face.split for face in pack}
    assert parts == {
        "001_a.png": "training",  # people in order: 001, 002, blurred, empty, other
        "001_b.png": "training",
        "002_a.png": "validation",
        "other.png": "training",
    }
    x, y, half = pack.regions(0)[0]
    eye = pack.picture(0)[int(y) - 2 : int(y) + 3, int(x - half) : int(x + half) + 1]
    assert abs(x - 8 - 24.1) < 1.5  # the template's left eye
    assert eye.std() > 20
    with pytest.raises(ValueError, match=r"no usable face .*too small"):
        prepare([photos / "other.png"], tmp_path / "none", detector, size=512)
    with pytest.raises(ValueError, match="no picture in"):
        prepare([tmp_path / "data"], tmp_path / "none", detector)


def test_landmarks_of_a_file_place_the_regions(detector, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), astronaut()[..., ::-1])
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[48:68] = [205, 110], [250, 110], [228, 150]
    points[36, 0] -= 40
    (tmp_path / "l.json").write_text(json.dumps({"a.png": points.tolist()}))
    prepare(
        [tmp_path / "a.png"], tmp_path / "d", detector, size=64, every=0, min_size=0,
        landmarks=tmp_path / "l.json",
    )  # fmt: skip
    left, right, _ = FacePack(tmp_path / "d").regions(0)
    assert left[2] > 1.5 * right[2]  # only the left eye's points are apart
    (tmp_path / "l.json").write_text('{"a.png": [[1, 2]]}')
    with pytest.raises(ValueError, match="not 68 points"):
        prepare([tmp_path / "a.png"], tmp_path / "d", detector, landmarks=tmp_path / "l.json")


def test_person_of():
    assert person_of("012_neutral.jpg") == person_of("012_smiling.jpg") == "012"
    assert person_of("female_012.jpg") != person_of("female_013.jpg")
    assert person_of("anna-3.jpg", r"([a-z]+)-") == "anna"
