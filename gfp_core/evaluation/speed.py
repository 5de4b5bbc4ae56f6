"""How fast each step is on this machine: what ``gfp bench`` runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..align import align
from ..color import apply_color
from ..detect import FaceDetector, load_detector
from ..faces import Faces
from ..paste import paste
from ..pipeline import FaceRestorer
from ..restore import Restorer
from ..weights.loading import load_network
from ..weights.store import Weights
from .timing import Step

SCORE = 0.97
"""The detector's confidence that is asked for: facexlib's helper, the baseline, has no other."""


class Bench:
    """A photo, a model, and the steps from the one to the other."""

    def __init__(
        self,
        photo: NDArray[np.uint8],
        model: Path,
        *,
        device: torch.device | str = "cpu",
        weights: Weights | None = None,
    ) -> None:
        """Take a photo and a model; what a step needs is loaded when it is first made.

        Args:
            photo: (H, W, 3) uint8 RGB, with a face.
            model: checkpoint of a restorer.
            device: where the networks run.
            weights: where a person's base is looked for; by default as the environment says.
        """
        self.photo, self.model, self.device = photo, model, torch.device(device)
        self._weights = weights
        self.frames = to_frames(photo)

    @property
    def steps(self) -> dict[str, Callable[[], Step]]:
        """What there is to measure, by name."""
        return {
            "detection": self.detection,
            "detection by default": self.detection_by_default,
            "alignment": self.alignment,
            "network": self.network,
            "color": self.color,
            "paste": self.pasting,
            "whole": self.whole,
        }

    @cached_property
    def detector(self) -> FaceDetector:
        """Our mobile0.25 with the bundled weights."""
        return load_detector(device=self.device)

    @cached_property
    def restorer(self) -> Restorer:
        """Our restorer."""
        net = load_network(self.model, weights=self._weights)
        return Restorer(net, device=self.device, precision="fp32")

    @cached_property
    def faces(self) -> Faces:
        """The photo's faces, aligned.

        Raises:
            ValueError: there is none.
        """
        faces = self.detector.detect(self.frames, score=SCORE)
        if not faces.faces:
            raise ValueError("the photo has no face to align, restore and paste: take another")
        return align(self.frames, faces, self.restorer.size)

    @property
    def crops(self) -> Tensor:
        """(N, 3, S, S), the aligned crops."""
        crops = self.faces.crops
        assert crops is not None
        return crops

    def detection(self) -> Step:
        """Detection with one look at the full size."""
        return Step(
            f"detection, one look, {size_text(self.photo)}",
            lambda: self.detector.detect(self.frames, score=SCORE, multiscale=False),
            note="mobile0.25 with the bundled weights.",
        )

    def detection_by_default(self) -> Step:
        """Detection in several sizes."""
        return Step(
            f"detection by default, {size_text(self.photo)}",
            lambda: self.detector.detect(self.frames, score=SCORE),
            note="Looks in several sizes and closely at each face.",
        )

    def alignment(self) -> Step:
        """From landmarks to crops."""
        return Step(
            f"alignment, faces: {len(self.faces)}",
            lambda: align(self.frames, self.faces, self.restorer.size),
        )

    def network(self) -> Step:
        """One crop through the restorer."""
        face = self.faces.select([0])
        return Step(
            f"network, {self.restorer.name}, one face",
            lambda: self.restorer.restore(face).restored,
            note="In fp32, with the noise stored in the weights.",
        )

    def color(self) -> Step:
        """Colors of the restored faces."""
        restored = replace(self.faces, restored=self.crops.flip(3))
        return Step(
            f"color, faces: {len(self.faces)}", lambda: apply_color(restored, "match").restored
        )

    def pasting(self) -> Step:
        """Crops back into the photo."""
        faces = replace(self.faces, restored=self.crops)
        return Step(
            f"paste, faces: {len(faces)}, {size_text(self.photo)}",
            lambda: paste(as_levels(self.photo), faces, mask="box")[0],
            note="The aligned crops are pasted back unchanged, with each one's soft square mask, "
            "into a copy of the 8-bit photo.",
        )

    def whole(self) -> Step:
        """From the photo to the photo with restored faces."""
        model = FaceRestorer(self.restorer, self.detector)
        return Step(
            f"the whole, faces: {len(self.faces)}, {size_text(self.photo)}",
            lambda: restore_photo(model, self.photo),
            note="8-bit picture to 8-bit picture: detection by default, alignment, network, paste.",
        )


def restore_photo(model: FaceRestorer, photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Restore a photo by the facade, as close to the baseline as it goes: (H, W, 3) uint8 RGB."""
    result = model.restore(as_levels(photo), mask="box", color="restorer", score=SCORE)
    return to_pixels(result.frames[0])


def tiled_astronaut(width: int, height: int, across: int = 2) -> NDArray[np.uint8]:
    """Enlarge and repeat scikit-image's astronaut (one face of about 90 pixels in 512).

    Raises:
        ImportError: scikit-image is not installed.
    """
    from skimage.data import astronaut

    side = -(-width // across)
    tile = cv2.resize(astronaut(), (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    picture: NDArray[np.uint8] = np.tile(tile, (-(-height // side), across, 1))[:height, :width]
    return picture


def to_frames(rgb: NDArray[np.uint8]) -> Tensor:
    """Turn (H, W, 3) uint8 RGB into (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float().div_(255)


def as_levels(rgb: NDArray[np.uint8]) -> Tensor:
    """Turn (H, W, 3) uint8 RGB into frames (1, 3, H, W) that share its memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Turn (3, H, W) RGB, uint8 or floats in [0, 1], into (H, W, 3) uint8."""
    if image.dtype == torch.uint8:
        return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    pixels = np.empty((*image.shape[1:], 3), np.uint8)
    for start in range(0, len(pixels), 256):  # without a second copy of a large picture in floats
        band = image[:, start : start + 256].clamp(0, 1).mul_(255).round_().to(torch.uint8)
        pixels[start : start + 256] = band.permute(1, 2, 0).cpu().numpy()
    return pixels


def size_text(picture: NDArray[np.uint8]) -> str:
    """Say a picture's size: ``640x480``."""
    return f"{picture.shape[1]}x{picture.shape[0]}"
