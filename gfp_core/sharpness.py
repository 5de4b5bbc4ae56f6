"""How sharp faces are: the detail they hold, against the detail a restorer's crop could hold.

The blur of an edge shows in how much its slope falls when it is blurred some more (Zhuo and Sim,
"Defocus map estimation from a single image", Pattern Recognition 44, 2011, eq. 5): a step blurred
by sigma and then by s has the slope A / sqrt(2 pi (sigma^2 + s^2)). Slopes at two s give sigma.
They are measured along the strongest edges of a face, its eyes, brows, nostrils and mouth, and
averaged there with their signs, so that noise averages out.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .align import align
from .faces import Faces
from .geometry import fit_similarity, similarity_scale, smoothstep
from .tensors import check_frames, to_numpy

logger = logging.getLogger(__name__)

_SIZE = 512  # the crop that faces are measured in, and the side that most restorers see
_ROWS, _COLUMNS = slice(150, 450), slice(110, 402)  # brows to chin, without the hair about them
_SCALES = (1.0, 2.0, 4.0, 8.0)
"""s in pixels; each and its double are a pair, good at measuring a sigma of about s."""
_TRUST = 1.6
"""A sigma above this many s ends the search: a finer pair would see noise only."""
_EDGES = 600
"""Pixels measured, those of the steepest edges: about as many as lids and irises have."""
# Measured on portraits shrunk by r and enlarged again: sigma^2 = _OWN^2 + (_SHRUNK r)^2 within
# some percent for r from 2 to 16. Edges of a face are no steps; _OWN is their own width.
_OWN = 0.85
_SHRUNK = 0.47


# Sharpness over which the strength falls, and what is left of it above: near where PSNR, identity
# and features of the bundled model's work agree that the best mixture is (docs/quality.md).
_SHARP, _LEFT = (0.2, 0.6), 0.3
_TINY = (6.0, 20.0)  # pixels of the box's shorter side
_DOUBTFUL = (0.5, 0.9)  # scores of the detector


def face_sharpness(frames: Tensor, faces: Faces, *, crops: Tensor | None = None) -> Tensor:
    """Measure how much of a 512 px crop's resolution each face fills with detail.

    Args:
        frames: (B, 3 or 4, H, W) float RGB in [0, 1].
        faces: faces of these frames; they need not be aligned.
        crops: (N, 3, S, S) crops of the faces out of these frames, if there are; used where they
            have the size of the measurement, 512 px, so that no face is cut out twice.

    Returns:
        (N,) float32 in [0, 1] on the CPU. 1: detail up to the Nyquist frequency of the crop; 0.25:
        as if the face had been shrunk to a quarter of the crop and enlarged again.

    Raises:
        ValueError: the frames are not those of the faces, or landmarks are no face.
    """
    check_frames(frames, faces, levels=True)
    measured = torch.zeros(len(faces))
    if crops is not None and crops.shape[-1] != _SIZE:
        crops = None
    for i, face in enumerate(faces.faces):
        cut = align(frames, faces.select([i]), _SIZE).crops if crops is None else crops[i : i + 1]
        if cut is not None:
            # What the frame does not resolve is no detail, however sharp its noise is.
            limit = 1.0 / similarity_scale(fit_similarity(face.landmarks, _SIZE))
            measured[i] = min(1.0, limit, _resolution(to_numpy(cut[0])))
    return measured


def auto_strength(frames: Tensor, faces: Faces, sharp: Tensor | None = None) -> Tensor:
    """Choose how much of a restored face each face can do with.

    All of it where the face is blurred; less the sharper it is, for what a restorer adds to a
    sharp face is invented; less where there are too few pixels to go by, and where the detector
    was not sure that it saw a face at all. The log names faces restored by less than half.

    Args:
        frames: (B, 3 or 4, H, W) float RGB in [0, 1].
        faces: faces of these frames.
        sharp: (N,) from `face_sharpness`, which costs much of the time, if it is known.

    Returns:
        (N,) float32 in [0, 1] on the CPU.

    Raises:
        ValueError: as `face_sharpness`.
    """
    sharp = face_sharpness(frames, faces) if sharp is None else sharp
    blur = 1.0 - (1.0 - _LEFT) * _step(sharp.float(), *_SHARP)
    size = torch.tensor([min(face.width, face.height) for face in faces.faces])
    score = torch.tensor([face.score for face in faces.faces])
    shares = blur * _step(size, *_TINY) * (0.5 + 0.5 * _step(score, *_DOUBTFUL))
    for face, share in zip(faces.faces, shares.tolist(), strict=True):
        if share < 0.5:  # nobody should wonder why a face looks as before
            x, y = ((face.box[i] + face.box[i + 2]) / 2 for i in (0, 1))
            logger.info(
                "The face about (%.0f, %.0f) of frame %d is sharp already, or hardly one: it is "
                "restored by %.0f %%.",
                *(x, y, face.frame, 100 * share),
            )
    return shares


def _step(values: Tensor, start: float, stop: float) -> Tensor:
    """Ease values: 0 up to ``start``, 1 from ``stop`` on."""
    return smoothstep((values - start) / (stop - start))


def _resolution(crop: NDArray[np.float32]) -> float:
    sigma = blur_of(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (_ROWS, _COLUMNS))
    return _SHRUNK / math.sqrt(max(sigma**2 - _OWN**2, 1e-6))


def blur_of(gray: NDArray[Any], region: tuple[slice, slice]) -> float:
    """Measure the blur (sigma in pixels) of the strongest edges in a region of a (H, W) picture."""
    sigma = math.inf
    coarse = _slopes(gray, 2 * _SCALES[-1])[region]
    # From coarse to fine: a finer pair is asked only if there is something for it to see.
    for first in reversed(_SCALES):
        fine = _slopes(gray, first)[region]
        estimate = _sigma(fine, coarse, first, 2 * first)
        coarse = fine  # of the next pair, for each scale is half of the one before
        sigma = min(sigma, estimate)
        if estimate > _TRUST * first:
            break
    return sigma


def _sigma(fine: NDArray[Any], coarse: NDArray[Any], first: float, second: float) -> float:
    """Compute a blur's sigma from slopes (h, w, 2) after a further blur of first and of second."""
    size = np.hypot(coarse[..., 0], coarse[..., 1])
    direction = coarse / np.maximum(size, 1e-12)[..., None]
    ridges = _ridges(size, direction)
    values = size[ridges]
    if not values.size or not values.max() > 1e-5:
        return math.inf  # nothing at all to see
    count = min(_EDGES, values.size)
    strongest = ridges & (size >= np.partition(values, -count)[-count])
    along = (fine * direction).sum(axis=-1)[strongest]
    ratio = float(along.mean() / size[strongest].mean())
    if ratio <= 1.0:
        return math.inf
    return math.sqrt(max((second**2 - ratio**2 * first**2) / (ratio**2 - 1), 1e-6))


def _slopes(gray: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Compute slopes (H, W, 2) in x and y after a blur of sigma."""
    soft = cv2.GaussianBlur(gray, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    kernel = np.array([[-0.5, 0.0, 0.5]])
    return np.stack([cv2.filter2D(soft, -1, k) for k in (kernel, kernel.T)], axis=-1)


def _ridges(size: NDArray[Any], direction: NDArray[Any]) -> NDArray[np.bool_]:
    """Find where the slope is steepest along its own direction."""
    height, width = size.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = direction[..., 0].astype(np.float32), direction[..., 1].astype(np.float32)
    best = np.ones(size.shape, bool)
    for sign in (-1, 1):
        beside = cv2.remap(size, x + sign * dx, y + sign * dy, cv2.INTER_LINEAR)
        best &= size > beside
    return best
