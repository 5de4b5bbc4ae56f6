from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gfp_core.detect import YuNetDetector, load_detector
from gfp_core.networks.yunet import YuNet
from gfp_core.weights import WeightsError


class Fake:
    """In OpenCV's place: sees a face at the brightest pixel, for what is tested is the mapping."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.size = (0, 0)
        self.score = 0.0

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802
        self.size = size

    def setScoreThreshold(self, score: float) -> None:  # noqa: N802
        self.score = score

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image.dtype == np.uint8
        assert image.shape == (self.size[1], self.size[0], 3)
        self.seen = image
        if self.score > 0.9 or image.max() == 0:
            return 1, None
        y, x = np.unravel_index(image.sum(axis=2).argmax(), image.shape[:2])
        points = [x - 2, y - 2, x + 2, y - 2, x, y, x - 2, y + 2, x + 2, y + 2]
        rows = [[x - 5, y - 6, 10, 12, *points, 0.9], [0, 0, 3, 3, *[1] * 10, 0.95]]
        return 1, np.array(rows[:1], np.float32)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> YuNetDetector:
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", Fake)
    (tmp_path / "any.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    found = load_detector("yunet", path=tmp_path / "any.onnx")
    assert isinstance(found, YuNetDetector)
    return found


def test_boxes_landmarks_and_score(detector: YuNetDetector) -> None:
    frames = torch.zeros(2, 3, 40, 60)
    frames[0, :, 20, 30] = torch.tensor([1.0, 0.5, 0.25])
    faces = detector.detect(frames, score=0.5)
    assert [face.frame for face in faces.faces] == [0]
    [face] = faces.faces
    assert face.box == (25, 14, 35, 26)
    assert face.landmarks.tolist() == [[28, 18], [32, 18], [30, 20], [28, 22], [32, 22]]
    assert face.score == pytest.approx(0.9)
    assert len(detector.detect(frames, score=0.95)) == 0


def test_it_sees_blue_green_red_in_full_range(detector: YuNetDetector) -> None:
    frames = torch.zeros(1, 3, 40, 60)
    frames[0, :, 20, 30] = torch.tensor([1.0, 0.5, 0.25])
    detector.detect(frames, score=0.5, multiscale=False)
    assert detector.yunet._net.seen[20, 30].tolist() == [64, 128, 255]
    assert detector.yunet._net.seen[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_turned_views_come_back_to_the_frame(rotation: int, detector: YuNetDetector) -> None:
    frames = torch.zeros(1, 3, 40, 60)
    frames[0, :, 20, 30] = 1
    [face] = detector.detect(frames, score=0.5, rotations=(rotation,)).faces
    assert face.landmarks[2] == pytest.approx((30, 20))


def test_a_file_that_is_no_yunet(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not an onnx file")
    with pytest.raises(ValueError, match=r"net\.onnx: OpenCV cannot load it"):
        YuNet(path)
    with pytest.raises(
        WeightsError, match=r"net\.onnx: no ONNX or TensorFlow Lite network: a text"
    ):
        load_detector(path=path)
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(WeightsError, match=r"net\.onnx: OpenCV cannot load it"):
        load_detector(path=path)
    with pytest.raises(WeightsError, match="which retinaface_resnet50 is not"):
        load_detector("retinaface_resnet50", path=path)
