"""Networks in ONNX and TensorFlow Lite files, run on the CPU by OpenCV.

OpenCV is there in any case, and computes what the small networks of this package need as their own
runtimes do. An ONNX file that it cannot read is run by ONNX Runtime, where that is installed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
_TFLITE = b"TFL3"  # a FlatBuffers file says what it is behind its first four bytes


class OpenCVNet:
    """The network of a file. Several threads may share it; they wait for each other."""

    def __init__(self, path: str | Path) -> None:
        """Read the file.

        Args:
            path: an ONNX or a TensorFlow Lite file, told apart by its content.

        Raises:
            ValueError: neither OpenCV nor ONNX Runtime can read it; names the file.
        """
        self.path = Path(path)
        self._lock = threading.Lock()  # a network of OpenCV holds one input at a time
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
        buffer = np.frombuffer(data, np.uint8)
        is_tflite = data[4:8] == _TFLITE
        read = cv2.dnn.readNetFromTFLite if is_tflite else cv2.dnn.readNetFromONNX
        self._net: Any = None
        try:
            if not data:
                raise ValueError(f"{path}: the file is empty")
            self._net = read(buffer)
        except cv2.error as error:
            if is_tflite:
                raise ValueError(f"{path}: OpenCV cannot run it: {_line(error)}") from error
            self._session = _onnx_runtime(self.path, _line(error))

    def has(self, outputs: Sequence[str]) -> bool:
        """Tell whether the network has outputs, or inner layers, of these names."""
        if self._net is None:
            names = [output.name for output in self._session.get_outputs()]
        else:
            names = self._net.getLayerNames()
        return set(outputs) <= set(names)

    def run(self, x: Array, outputs: Sequence[str] = ()) -> list[Array]:
        """Run the network.

        Args:
            x: (1, ...) the only input, as the file wants it; a TensorFlow Lite file's is NCHW here.
            outputs: names; none for all that nothing follows.

        Returns:
            The outputs.

        Raises:
            ValueError: the input does not suit the network.
        """
        x = np.ascontiguousarray(x, np.float32)
        if self._net is None:
            name = self._session.get_inputs()[0].name
            try:
                return list(self._session.run(list(outputs) or None, {name: x}))
            except Exception as error:  # its own kinds, which only an import would name
                raise ValueError(f"{self.path}: ONNX Runtime: {_line(error)}") from error
        with self._lock:
            try:
                self._net.setInput(x)
                names = list(outputs) or self._net.getUnconnectedOutLayersNames()
                # One by one: of a TensorFlow Lite file, OpenCV 5 gives no two at once.
                return [np.array(self._net.forward(name), np.float32) for name in names]
            except cv2.error as error:
                raise ValueError(f"{self.path}: OpenCV: {_line(error)}") from error

    def first_fit(
        self, shapes: Sequence[tuple[int, ...]], fits: Callable[[list[Array]], bool]
    ) -> tuple[int, ...] | None:
        """Find the first of some shapes of the input whose outputs fit; None if none does.

        Not every reader of ONNX says what shape the network takes, so this tries.
        """
        for shape in shapes:
            try:
                if fits(self.run(np.zeros(shape, np.float32))):
                    return shape
            except ValueError as error:
                logger.debug("Not of shape %s: %s", shape, error)
        return None


def _onnx_runtime(path: Path, reason: str) -> Any:
    """Open an ONNX file that OpenCV cannot run.

    Raises:
        ValueError: ONNX Runtime is not installed, or cannot read the file either.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            f"{path}: OpenCV cannot run it ({reason}). If it is an ONNX network, install ONNX "
            "Runtime, in the build that suits this machine: onnxruntime, or onnxruntime-gpu and "
            "its kin; only one of them, for they overwrite each other"
        ) from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, which only the import would name
        raise ValueError(f"{path}: no ONNX network: {_line(error)}") from error
    logger.info("%s: OpenCV cannot run it (%s), so ONNX Runtime does.", path, reason)
    return session


def _line(error: BaseException) -> str:
    """Return the gist of an error in one line."""
    text = str(getattr(error, "err", "") or error)
    return " ".join(text.split())[:200] or type(error).__name__
