"""Networks that OpenCV runs: tiny files of the published form; real ones where these are."""

import io
import os
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gfp_core.detect import BlazeFaceDetector, load_detector
from gfp_core.embed import load_embedder
from gfp_core.geometry import TEMPLATE
from gfp_core.networks.blazeface import RELEASES, anchors, decode
from gfp_core.networks.embedding import AlignedEmbedder, aligned_square
from gfp_core.networks.mediapipe_parsing import _MESHES, _OUTLINES, _OVAL, FaceMesh, load
from gfp_core.networks.opencv_net import OpenCVNet
from gfp_core.networks.parsing import FacePart
from gfp_core.parse import load_parser
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import BUILT_IN, read_catalogue
from gfp_core.weights.resolve import refer
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights
from tests.onnx_maker import model, node

RNG = np.random.default_rng(0)
EYES = (-6.0, -4.0, 6.0, -4.0)  # of a face whose box is 20 x 24, about the anchor


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture
def blazeface(tmp_path: Path) -> Path:
    """The short range network's form: sees a face wherever a cell is bright."""
    nodes, weights, parts = [], {}, {"s": [], "r": []}
    for side, count in ((8, 2), (16, 6)):
        row = [0, 0, 20, 24, *EYES, 0, 1, 0, 6, -9, 0, 9, 0]
        for key, outputs, bias in (("s", 1, [-12.0]), ("r", 16, row)):
            name = f"{key}{side}"
            value = 30 / (3 * side * side) if key == "s" else 0.0
            weights[f"w{name}"] = np.full((count * outputs, 3, side, side), value, np.float32)
            weights[f"b{name}"] = np.tile(np.array(bias, np.float32), count)
            weights[f"n{name}"] = np.array([1, -1, outputs])
            inputs = ["x", f"w{name}", f"b{name}"]
            nodes += [
                node("Conv", inputs, [f"c{name}"], strides=[side] * 2, kernel_shape=[side] * 2),
                node("Transpose", [f"c{name}"], [f"t{name}"], perm=[0, 2, 3, 1]),
                node("Reshape", [f"t{name}", f"n{name}"], [name]),
            ]
            parts[key].append(name)
    nodes += [
        node("Concat", parts["s"], ["classificators"], axis=1),
        node("Concat", parts["r"], ["regressors"], axis=1),
    ]
    outputs = {"classificators": (1, 896, 1), "regressors": (1, 896, 16)}
    path = tmp_path / "blaze.tflite"  # what it is, its content says
    path.write_bytes(model(nodes, weights, {"x": (1, 3, 128, 128)}, outputs))
    return path


def test_anchors_are_those_of_the_papers_grids() -> None:
    assert {name: len(anchors(name)) for name in RELEASES} == {
        "blazeface": 896,
        "blazeface-full": 2304,
    }
    short = anchors("blazeface")
    assert short[[0, 1, 2, 512]].tolist() == [[4, 4], [4, 4], [12, 4], [8, 8]]
    assert anchors("blazeface-full")[[0, 1, 48]].tolist() == [[2, 2], [6, 2], [2, 6]]


def test_the_networks_own_limit_is_the_usual_one_and_the_mouth_follows_the_eyes() -> None:
    raw = np.array([[1, 2, 20, 24, -5, 0, 5, 0, 0, 3, 0, 8, 0, 0, 0, 0]], np.float32)
    turned = raw.copy()
    turned[:, 4:8] = [0, -5, 0, 5]  # eyes one above the other
    centers = np.array([[50.5, 60.5]], np.float32)
    logit = np.array([np.log(0.6 / 0.4)], np.float32)
    [row] = decode(logit, raw, centers, 0.5, 0.6)
    assert row[14] == pytest.approx(0.9)
    assert row[:4].tolist() == [41, 50, 61, 74]
    assert row[4:10].tolist() == [45, 60, 55, 60, 50, 63]
    assert row[10:14] == pytest.approx([45.56, 66.5, 54.44, 66.5])
    [row] = decode(logit, turned, centers, 0.5, 0.6)
    assert row[10:14] == pytest.approx([51.5, 63.56, 51.5, 72.44])
    assert len(decode(logit, raw, centers, 0.91, 0.6)) == 0
    with np.errstate(all="raise"):
        decode(np.array([-1e4, 1e4], np.float32), raw.repeat(2, 0), centers.repeat(2, 0), 0.5)


@pytest.mark.parametrize("size", [(128, 128), (100, 300), (900, 700)])
def test_blazeface_finds_a_face_in_a_frame_of_any_size(
    blazeface: Path, size: tuple[int, int]
) -> None:
    detector = load_detector("blazeface", path=blazeface)
    assert isinstance(detector, BlazeFaceDetector)
    height, width = size
    y, x = int(0.7 * height), int(0.3 * width)
    frames = torch.zeros(2, 3, height, width)
    radius = 12 * max(1, max(size) // 300)
    frames[1, :, y - radius : y + radius, x - radius : x + radius] = 1
    detector.doubt = None  # boxes of one size: looked at by itself, this face is not seen again
    faces = detector.detect(frames, score=0.9, min_size=10)
    assert {face.frame for face in faces.faces} == {1}
    nose = faces.faces[0].landmarks[2]
    assert np.abs(nose - (x, y)).max() < 1.5 * radius
    left, right = faces.faces[0].landmarks[:2]
    assert left[0] < nose[0] < right[0]
    assert len(detector.detect(frames[:1], multiscale=False)) == 0


def test_a_large_picture_takes_no_more_windows_than_a_copy_of_it() -> None:
    class Counter:
        size, calls = RELEASES["blazeface-full"].size, 0

        def __call__(self, square: np.ndarray, score: float) -> np.ndarray:
            self.calls += 1
            return np.zeros((0, 15), np.float32)

    def windows(height: int, width: int, **options: int) -> int:
        counter = Counter()
        BlazeFaceDetector(counter).detect(torch.zeros(1, 3, height, width), **options)  # type: ignore[arg-type]
        return counter.calls

    usual = windows(1440, 1920)
    assert 80 < usual < 100
    assert windows(3000, 4000) == usual
    assert windows(3000, 4000, long_side=3000) > 2 * usual
    assert windows(500, 300) < 10


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([0.95, 0.94], [0.95]),  # the close look is sure
        ([0.95, 0.70, 0.93], [0.93]),  # cut by the close one, seen by the wide one
        ([0.95, 0.70, 0.40], []),  # a fold of cloth, which neither takes for a face
        ([0.95, None, None], []),
    ],
)
def test_blazeface_looks_at_a_face_by_itself(looks: list[float | None], found: list[float]) -> None:
    class Seer:
        size = RELEASES["blazeface-full"].size

        def __init__(self) -> None:
            self.looks = iter(looks)
            self.box = [64, 64, 128, 128]

        def __call__(self, square: np.ndarray, score: float) -> np.ndarray:
            confidence = next(self.looks)
            if confidence is None or confidence <= score:
                return np.zeros((0, 15), np.float32)
            row = [*self.box, 80, 90, 112, 90, 96, 100, 84, 112, 108, 112, confidence]
            self.box = [40, 40, 152, 152]  # by itself a face fills more
            return np.array([row], np.float32)

    detector = BlazeFaceDetector(Seer())  # type: ignore[arg-type]
    faces = detector.detect(torch.zeros(1, 3, 192, 192), score=0.9).faces
    assert [round(face.score, 4) for face in faces] == found


def test_another_network_is_refused_by_name(blazeface: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds blazeface, not blazeface-full"):
        load_detector("blazeface-full", path=blazeface)
    for content, reason in ((b"", "is empty"), (b"\0\0\0\0TFL3 broken", "OpenCV cannot run it")):
        path = tmp_path / "net.tflite"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"net\.tflite: .*{reason}"):
            load_detector(path=path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_detector(path=tmp_path / "none.tflite")


def constant(path: Path, name: str, shape: tuple[int, ...], output: np.ndarray) -> Path:
    """A network that gives the same for every picture of a shape."""
    weights = {"w": np.zeros((3, output.size), np.float32), "b": output.astype(np.float32)}
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"]),
        node("Flatten", ["p"], ["f"], axis=1),
        node("Gemm", ["f", "w", "b"], [name]),
    ]
    path.write_bytes(model(nodes, weights, {"x": shape}, {name: (1, output.size)}))
    return path


@pytest.mark.parametrize("size", sorted(_MESHES))
def test_the_face_mesh_draws_parts_from_landmarks(size: int, tmp_path: Path) -> None:
    points = np.full((_MESHES[size], 3), 0.5)
    centers = {FacePart.SKIN: (0.5, 0.5, 0.4), FacePart.LEFT_EYE: (0.4, 0.4, 0.05)}
    centers[FacePart.MOUTH] = (0.5, 0.7, 0.08)
    for part, outline in _OUTLINES:
        if part in centers:
            x, y, radius = centers[part]
            angles = np.linspace(0, 2 * np.pi, len(outline), endpoint=False)
            points[list(outline), 0] = x + radius * np.cos(angles)
            points[list(outline), 1] = y + radius * np.sin(angles)
    path = constant(tmp_path / "mesh.onnx", "points", (1, 3, size, size), (points * size).ravel())
    parser = load_parser(path=path)
    labels = parser.parse(torch.rand(2, 3, 100, 100))
    assert labels.shape == (2, 100, 100)
    at = {
        part: labels[1, round(100 * y), round(100 * x)].item()
        for part, (x, y, _) in centers.items()
    }
    assert at[FacePart.LEFT_EYE] == FacePart.LEFT_EYE
    assert at[FacePart.MOUTH] == FacePart.MOUTH
    assert labels[0, 75, 30] == FacePart.SKIN
    assert labels[0, 5, 5] == FacePart.BACKGROUND
    net = parser.net
    assert isinstance(net, FaceMesh)
    assert net.landmarks(torch.rand(3, 64, 64))[_OVAL[0], 0] == pytest.approx(
        0.9 * 64 - 0.5, abs=1e-3
    )


@pytest.mark.parametrize("last", [True, False])
def test_selfie_multiclass_in_either_order_of_axes(last: bool, tmp_path: Path) -> None:
    matrix = np.zeros((6, 3, 1, 1), np.float32)
    matrix[1, 0] = matrix[3, 1] = matrix[5, 2] = 1  # red is hair, green skin, blue accessories
    weights = {"w": matrix, "b": np.full(6, -0.5, np.float32)}
    nodes = [
        node("Conv", ["n" if last else "x", "w", "b"], ["c" if last else "y"], kernel_shape=[1, 1])
    ]
    shape, result = (1, 3, 256, 256), (1, 6, 256, 256)
    if last:
        first = node("Transpose", ["x"], ["n"], perm=[0, 3, 1, 2])
        nodes = [first, *nodes, node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1])]
        shape, result = (1, 256, 256, 3), (1, 256, 256, 6)
    path = tmp_path / "selfie.onnx"
    path.write_bytes(model(nodes, weights, {"x": shape}, {"y": result}))
    crop = torch.zeros(1, 3, 90, 90)
    for channel in range(3):
        crop[0, channel, :, 30 * channel : 30 * channel + 30] = 1
    labels = load_parser(path=path).parse(crop)
    expected = [FacePart.HAIR, FacePart.SKIN, FacePart.HAT]
    assert labels[0, 45, [15, 45, 75]].tolist() == expected
    with pytest.raises(ValueError, match="not the face mesh"):
        load(path, "FaceMesh")
    with pytest.raises(WeightsError, match="no six classes"):
        load_parser(path=constant(tmp_path / "other.onnx", "y", (1, 3, 256, 256), np.ones(5)))


def embedder_file(path: Path, dimensions: int, weights: dict[str, np.ndarray]) -> Path:
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        node("BatchNormalization", ["c", "g", "h", "m", "v"], ["n"], epsilon=1e-5),
        node("PRelu", ["n", "a"], ["p"]),
        node("GlobalAveragePool", ["p"], ["q"]),
        node("Flatten", ["q"], ["f"], axis=1),
        node("Gemm", ["f", "w2", "b2"], ["y"]),
    ]
    data = model(nodes, weights, {"x": (1, 3, 112, 112)}, {"y": (1, dimensions)})
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "dimensions"), [("AuraFace", 512), ("SFace", 128)])
def test_embeddings_are_those_of_pytorch(name: str, dimensions: int, tmp_path: Path) -> None:
    weights = {"w1": floats(4, 3, 3, 3), "b1": floats(4), "g": floats(4), "h": floats(4)}
    weights |= {"m": floats(4), "v": floats(4) ** 2 + 1, "a": np.full((4, 1, 1), 0.25, np.float32)}
    weights |= {"w2": floats(4, dimensions), "b2": floats(dimensions)}
    path = embedder_file(tmp_path / "net.onnx", dimensions, weights)
    crops = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    w = {key: torch.from_numpy(array) for key, array in weights.items()}
    x = aligned_square(crops)
    x = x * 2 - 1 if name == "AuraFace" else x * 255
    x = F.conv2d(x, w["w1"], w["b1"], 2, 1)
    x = F.prelu(F.batch_norm(x, w["m"], w["v"], w["g"], w["h"]), w["a"].flatten())
    expected = F.normalize(x.mean(dim=(2, 3)) @ w["w2"] + w["b2"], dim=1)
    embedder = load_embedder(path)
    assert embedder.dimensions == dimensions
    assert torch.allclose(embedder.embed(crops), expected, atol=1e-5)
    assert embedder.embed(crops[:0]).shape == (0, dimensions)
    with pytest.raises(ValueError, match="which is not"):
        AlignedEmbedder(path, "SFace" if name == "AuraFace" else "AuraFace")


def test_the_square_of_arcface_holds_its_five_points() -> None:
    points = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655)]
    for (x, y), (u, v) in zip(TEMPLATE, points, strict=False):
        crop = torch.zeros(1, 3, 512, 512)
        crop[:, :, round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5] = 1
        row, column = divmod(int(aligned_square(crop)[0, 0].argmax()), 112)
        assert abs(column - u) < 3
        assert abs(row - v) < 4


def test_what_opencv_cannot_run_onnx_runtime_does_or_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = constant(tmp_path / "net.onnx", "y", (1, 3, 8, 8), np.arange(5))
    own = OpenCVNet(path).run(np.zeros((1, 3, 8, 8), np.float32))[0]

    def fail(buffer: object) -> None:
        error = cv2.error()
        error.err = "no such layer"  # the class may still hold that of another one
        raise error

    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", fail)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ValueError, match=r"net\.onnx: .*no such layer.*only one of them"):
            OpenCVNet(path)
    pytest.importorskip("onnxruntime")
    net = OpenCVNet(path)
    assert net.has(["y"])
    assert not net.has(["z"])
    assert np.array_equal(net.run(np.zeros((1, 3, 8, 8), np.float32))[0], own)
    with pytest.raises(ValueError, match=r"net\.onnx: ONNX Runtime"):
        net.run(np.zeros((1, 3, 9, 9), np.float32))
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"net\.onnx: no ONNX network"):
        OpenCVNet(path)


def test_for_commerce_there_is_a_row_of_every_role_that_this_version_can_load() -> None:
    weights = Weights(Settings((), commercial_only=True))
    roles = {entry.role for entry in weights.offered.entries}
    assert roles == {"restorer", "detector", "parser", "embedder"}
    for entry in weights.offered.entries:
        assert refer(entry.name, entry.role, weights).entry == entry


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The networks in the packages of MediaPipe in the folder $GFP_EVALUATION_WEIGHTS."""
    folder = os.environ.get("GFP_EVALUATION_WEIGHTS")
    packages = sorted(Path(folder).glob("mediapipe-face_*.tgz")) if folder else []
    if len(packages) < 2:
        pytest.skip("GFP_EVALUATION_WEIGHTS names no folder with mediapipe-face_*.tgz")
    for package in packages:
        with tarfile.open(package) as archive:
            for member in archive.getmembers():
                name = Path(member.name).name
                if name.endswith((".tflite", ".data")) and member.size:
                    (tmp_path / name).write_bytes(archive.extractfile(member).read())
    packed = io.BytesIO((tmp_path / "face_mesh_solution_packed_assets.data").read_bytes())
    packed.seek(2495952)  # where the package's loader says
    (tmp_path / "face_landmark.tflite").write_bytes(packed.read(1241896))
    return tmp_path


def test_the_published_networks_see_the_astronaut(published: Path) -> None:
    from skimage.data import astronaut

    weights = Weights(Settings((published,), downloads=False))
    catalogue = read_catalogue(BUILT_IN)
    frame = torch.from_numpy(astronaut()).permute(2, 0, 1)[None] / 255
    for name in RELEASES:
        path = weights.verify(name)
        assert path == published / catalogue.find(name).file
        faces = load_detector(name, path=path).detect(frame)
        expected = [(205, 104), (244, 106), (225, 129), (207, 145), (242, 146)]
        assert len(faces) == 1
        assert np.abs(faces.faces[0].landmarks - expected).max() < 10, name
    crop = frame[:, :, 40:220, 130:310]
    labels = load_parser(path=weights.verify("face-mesh-468")).parse(crop)
    for (x, y), part in zip(expected, (FacePart.LEFT_EYE, FacePart.RIGHT_EYE), strict=False):
        rows, columns = (labels[0] == part).nonzero(as_tuple=True)
        center = (float(columns.float().mean()) + 130, float(rows.float().mean()) + 40)
        assert np.abs(np.subtract(center, (x, y))).max() < 6, part
    assert labels[0, 5, 5] == FacePart.BACKGROUND
