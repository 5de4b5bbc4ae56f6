"""Colors of a face: of its skin, and of its eyes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..color.spaces import rgb_to_lab
from ..detect import FaceDetector
from .pixels import check_pair

Part: TypeAlias = Literal["skin", "eyes", "pair"]

CHEEK = 0.11
"""Half the side of a cheek's patch, of the distance of the eyes."""
IRIS = 0.055
"""Half the side of an iris's patch, which pupil and iris fill, of the distance of the eyes."""


class ToneDistance:
    """Distance of the mean colors of parts of a face in CIELAB; 1 is just visible.

    - ``skin``: of both cheeks together;
    - ``eyes``: of each iris with its pupil, mean of the two;
    - ``pair``: of the differences between the two eyes, so that eyes that come out unlike count
      even where both are near.

    The parts are where five landmarks of the second picture say.
    """

    def __init__(self, detector: FaceDetector, part: Part) -> None:
        """Take the detector and the part."""
        self.detector, self.part = detector, part

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: (N, 3, H, W) float RGB in [0, 1].
            b: the same shape, the ground truth.

        Returns:
            (N,) float32; nan where the ground truth shows no face.

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        result = torch.full((len(a),), torch.nan)
        for face in self.detector.detect(b).largest().faces:
            points = torch.from_numpy(face.landmarks).float()
            colors = [self._colors(x[face.frame], points) for x in (a, b)]
            result[face.frame] = (colors[0] - colors[1]).norm(dim=1).mean().cpu()
        return result

    def _colors(self, picture: Tensor, points: Tensor) -> Tensor:
        """(R, 3) mean Lab of the parts of a (3, H, W) picture, from (5, 2) landmarks."""
        eyes, mouth = points[:2], points[3:].mean(dim=0)
        distance = float((eyes[1] - eyes[0]).norm())
        lab = rgb_to_lab(picture[None].clamp(0, 1))[0]
        if self.part == "skin":  # below the eyes, a little above half way to the mouth
            x = 0.85 * eyes[:, 0] + 0.15 * mouth[0]
            y = 0.55 * eyes[:, 1] + 0.45 * mouth[1]
            centers = torch.stack([x, y], dim=1)
            return torch.stack([_mean(lab, center, CHEEK * distance) for center in centers]).mean(
                dim=0, keepdim=True
            )
        colors = torch.stack([_mean(lab, center, IRIS * distance) for center in eyes])
        return colors if self.part == "eyes" else colors[:1] - colors[1:]


def _mean(lab: Tensor, center: Tensor, half: float) -> Tensor:
    """(3,) mean of a square about a place (x, y), at least 3 x 3 pixels, within the picture."""
    reach = max(1, round(half))
    height, width = lab.shape[1:]
    x = min(max(round(float(center[0])), reach), width - 1 - reach)
    y = min(max(round(float(center[1])), reach), height - 1 - reach)
    return lab[:, y - reach : y + reach + 1, x - reach : x + reach + 1].mean(dim=(1, 2))
