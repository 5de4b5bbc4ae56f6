"""Landmark distance: how far eyes, nose and mouth are from where they belong."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ..detect import FaceDetector
from .pixels import check_pair

logger = logging.getLogger(__name__)


class LandmarkDistance:
    """Mean distance of five landmarks, found by a detector in both pictures, in pixels."""

    def __init__(self, detector: FaceDetector) -> None:
        """Take the detector: other ones give another metric."""
        self.detector = detector

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            a: (N, 3, H, W) float RGB in [0, 1].
            b: the same shape.

        Returns:
            (N,) float64 pixels; nan where a picture shows no face, which a log line says.

        Raises:
            ValueError: not of that form, or of different shapes.
        """
        check_pair(a, b)
        landmarks = [self._landmarks(images) for images in (a, b)]
        result: Tensor = (landmarks[0] - landmarks[1]).norm(dim=2).mean(dim=1)
        return result

    def _landmarks(self, images: Tensor) -> Tensor:
        """(N, 5, 2) of the largest face of each picture; nan where there is none."""
        points = torch.full((len(images), 5, 2), torch.nan, dtype=torch.float64)
        faces = self.detector.detect(images).largest().faces
        for face in faces:
            points[face.frame] = torch.from_numpy(face.landmarks).double()
        missing = len(images) - len(faces)
        if missing:
            logger.warning("landmark distance: no face found in %d of %d", missing, len(images))
        return points
