"""YuNet, a face detector of 230 kB, run by OpenCV.

Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector" (Machine Intelligence Research, 2023).
OpenCV has the network's decoding built in; this is the thin way to it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


class YuNet:
    """The detector of an ONNX file, on the CPU."""

    def __init__(self, path: str | Path, *, overlap: float = 0.4) -> None:
        """Load the file.

        Args:
            path: the ONNX file, ``face_detection_yunet_2023mar.onnx``.
            overlap: intersection over union above which two detections are the same face.

        Raises:
            ValueError: OpenCV cannot read it as this network.
        """
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), nms_threshold=overlap, top_k=5000
            )
        except cv2.error as error:
            raise ValueError(f"{path}: OpenCV cannot load it as YuNet: {error.err}") from error

    def __call__(self, image: NDArray[np.uint8], score: float) -> NDArray[np.float32]:
        """Find faces.

        Args:
            image: (H, W, 3) uint8 BGR.
            score: confidence in [0, 1] above which a detection counts.

        Returns:
            (N, 15) float32, surest first: x1, y1, x2, y2 of the box in pixels; x, y of the left
            eye, right eye, nose, left and right corner of the mouth, where left and right are those
            of the picture; the confidence.
        """
        self._net.setInputSize((image.shape[1], image.shape[0]))
        self._net.setScoreThreshold(score)
        _, detections = self._net.detect(image)
        if detections is None:  # no face
            return np.zeros((0, 15), np.float32)
        rows: NDArray[np.float32] = np.array(detections, dtype=np.float32)
        rows[:, 2:4] = rows[:, :2] + rows[:, 2:4]  # OpenCV gives width and height
        return rows[np.argsort(-rows[:, 14], kind="stable")]
