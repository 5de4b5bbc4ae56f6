"""Pasting back: the restored crops laid into their frames, under a soft mask, without a seam.

Only the box of each face is read and written. A pixel becomes

    frame + sum_i share_i (restored_i - seen)

where `seen` is the frame clamped to [0, 1], as alignment showed it to the network: what the frame
holds beyond that range stays, inside the face too. `share_i` is the mask of face i; where masks
overlap, the shares are scaled to add up to the largest of them, so that two faces never count
twice and their order does not matter. A pixel that no mask touches is the frame's, bit for bit.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .align import check_frames, face_ellipse, invert, to_numpy, transform, visible, warp
from .faces import Faces, Progress

logger = logging.getLogger(__name__)

MaskShape: TypeAlias = Literal["ellipse", "box", "hull"]
"""Outline of a mask: an ellipse about the mean face, the whole crop, or this face's landmarks."""

# How far the hull reaches beyond the landmarks: brows and chin in steps from between the eyes to
# between the mouth corners, the margin around all in shares of the crop's side.
_BROWS = 0.45
_CHIN = 0.75
_HULL_MARGIN = 0.12


@dataclass(frozen=True)
class _Patch:
    """Where one face lies in the result, and what was there before any face was pasted."""

    face: int
    """Its place in Faces."""
    box: tuple[slice, slice]
    """Rows and columns of the result."""
    back: NDArray[np.float64]
    """(2, 3), from pixels of the box to pixels of the crop."""
    alpha: Tensor
    """(h, w) float32 in [0, 1]: the mask times the strength."""
    seen: Tensor
    """(3, h, w) float32 in [0, 1]."""


def paste(
    frames: Tensor,
    faces: Faces,
    *,
    mask: MaskShape = "ellipse",
    feather: float = 0.1,
    strength: float = 1.0,
    upscale: float = 1.0,
    background: Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Lays the restored faces into their frames.

    Args:
        frames: (B, C, H, W) float RGB in [0, 1], C 3 or 4 (alpha, kept as it is). Values outside
            [0, 1] are kept; NaN and infinite pixels are replaced only under a face.
        faces: aligned and restored faces of these frames.
        mask: the outline inside which a face is restored.
        feather: width of the fade from the outline inwards, as a share of the crop's side, so in
            proportion to the face; from 0 (a hard edge) to 0.5.
        strength: share of the restored face in the middle of the mask, from 0 to 1.
        upscale: size of the result relative to the frames, which are resampled (bicubic).
        background: (B, 3 or 4, H', W'): the frames already brought to another size, instead of
            `upscale`. The result has its size. Without alpha it takes the frames'.
        progress: called with the number of faces pasted and of all faces.

    Returns:
        The image (B, C, H', W') and the mask (B, H', W') float32 in [0, 1], the share of restored
        face in every pixel, on the frames' device. Both are new; at the frames' own size the image
        equals them exactly where the mask is 0.

    Raises:
        ValueError: frames, faces and background do not belong together, the faces were not
            aligned or not restored, or an option is out of range.
    """
    check_frames(frames, faces)
    restored, matrices = _check_restored(faces)
    if mask not in get_args(MaskShape):
        raise ValueError(f"mask must be one of {', '.join(get_args(MaskShape))}, not {mask!r}")
    if not 0 <= feather <= 0.5:
        raise ValueError(f"feather must lie in 0..0.5, not {feather}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie in 0..1, not {strength}")
    image = _canvas(frames, upscale, background)
    covered = _zeros(image.shape[0], *image.shape[-2:])
    to_result = _scaling(frames.shape[-2:], image.shape[-2:])

    done = 0
    for frame in sorted({face.frame for face in faces.faces}):
        patches = []
        for i, face in enumerate(faces.faces):
            if face.frame == frame:
                points = transform(matrices[i], face.landmarks)
                soft = _mask(mask, points, restored.shape[-1], feather)
                patches.append(_place(i, matrices[i], soft, strength, to_result, image[frame]))
        # A fixed order, so that sums are rounded alike in whatever order the faces come.
        patches.sort(key=lambda patch: faces.faces[patch.face].landmarks.tolist())
        cover, total = covered[frame], _zeros(*image.shape[-2:])
        for patch in patches:
            total[patch.box] += patch.alpha
            cover[patch.box] = torch.maximum(cover[patch.box], patch.alpha)
        for patch in patches:
            share = patch.alpha * cover[patch.box] / total[patch.box].clamp(min=1e-12)
            _blend(image[frame], patch, restored[patch.face], share)
            done += 1
            if progress is not None:
                progress(done, len(faces))
    return image, covered.to(image.device)


def face_mask(faces: Faces, *, mask: MaskShape = "ellipse", feather: float = 0.1) -> Tensor:
    """Where `paste` would lay the faces at full strength.

    Args:
        faces: aligned faces of frames of one size.
        mask: their outline, see `paste`.
        feather: width of its fade, see `paste`.

    Returns:
        (B, H, W) float32 in [0, 1], on the CPU.

    Raises:
        ValueError: the faces were not aligned, or their frames differ in size.
    """
    if len(set(faces.frame_sizes)) != 1:
        raise ValueError("frames of different sizes have no common mask")
    height, width = faces.frame_sizes[0]
    covered = _zeros(len(faces.frame_sizes), height, width)
    unseen = torch.zeros(3, 1, 1).expand(3, height, width)
    for i, face in enumerate(faces.faces):
        if face.matrix is None or faces.crops is None:
            raise ValueError("the faces were not aligned: call align before face_mask")
        points = transform(face.matrix, face.landmarks)
        soft = _mask(mask, points, faces.crops.shape[-1], feather)
        patch = _place(i, face.matrix, soft, 1.0, np.eye(2, 3), unseen)
        region = covered[face.frame][patch.box]
        torch.maximum(region, patch.alpha, out=region)
    return covered


def _zeros(*shape: int) -> Tensor:
    """Zeros whose memory is not touched until it is used, unlike torch's: a face needs little."""
    return torch.from_numpy(np.zeros(shape, np.float32))


def _check_restored(faces: Faces) -> tuple[Tensor, list[NDArray[np.float64]]]:
    """The restored crops (N, 3, S, S) and their matrices, or what is missing."""
    matrices = [face.matrix for face in faces.faces if face.matrix is not None]
    if len(matrices) < len(faces):
        raise ValueError("the faces were not aligned: call align and a restorer before paste")
    if faces.restored is None:
        if len(faces):
            raise ValueError("the faces were not restored: call a restorer before paste")
        return torch.zeros((0, 3, 1, 1)), []
    shape = faces.restored.shape
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise ValueError(f"restored crops must be (N, 3, S, S), not {tuple(shape)}")
    if faces.crops is not None and faces.crops.shape != shape:
        raise ValueError(
            f"restored crops {tuple(shape)} must have the size of the crops they were made from, "
            f"{tuple(faces.crops.shape)}"
        )
    return faces.restored, matrices


def _canvas(frames: Tensor, upscale: float, background: Tensor | None) -> Tensor:
    """A new image (B, C, H', W') to paste into."""
    if not (math.isfinite(upscale) and upscale > 0):
        raise ValueError(f"upscale must be above 0, not {upscale}")
    if background is None:
        if upscale == 1:
            return frames.clone()
        height, width = (max(1, round(side * upscale)) for side in frames.shape[-2:])
        return _resize(frames, height, width)
    if upscale != 1:
        raise ValueError("give upscale or background, not both: the background has its own size")
    if background.ndim != 4 or background.shape[1] not in (3, 4) or 0 in background.shape[2:]:
        raise ValueError(f"background must be (B, 3 or 4, H, W), not {tuple(background.shape)}")
    if background.shape[0] != frames.shape[0]:
        raise ValueError(f"{background.shape[0]} backgrounds for {frames.shape[0]} frames")
    background = background.to(frames.device, frames.dtype, copy=True)
    if frames.shape[1] == 4 and background.shape[1] == 3:
        alpha = _resize(frames[:, 3:], *background.shape[-2:])
        background = torch.cat([background, alpha], dim=1)
    return background


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic, filtered when it shrinks, and without extremes that were not there before."""
    if image.shape[-2:] == (height, width):
        return image.clone()
    finite = image.isfinite()
    if not finite.all():
        logger.warning("resampling replaces NaN and infinite pixels by values in 0..1")
        image = torch.where(finite, image, visible(image))
    resized = F.interpolate(
        image.float(), (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    low, high = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
    return resized.to(image.dtype).clamp_(low, high)


def _scaling(old: torch.Size, new: torch.Size) -> NDArray[np.float64]:
    """(2, 3) from pixels of an image of (height, width) to those of its resampled form."""
    x, y = new[1] / old[1], new[0] / old[0]
    # The corners of the images coincide, not the centres of their corner pixels.
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def _compose(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine map that applies `before`, then `after`."""
    linear = after[:, :2] @ before
    linear[:, 2] += after[:, 2]
    return linear


def _place(
    index: int,
    matrix: NDArray[np.float64],
    mask: NDArray[np.float32],
    strength: float,
    to_result: NDArray[np.float64],
    image: Tensor,
) -> _Patch:
    """The box of a face in the result (C, H', W') and its mask (S, S) resampled to it."""
    to_crop = _compose(matrix, invert(to_result))
    # What the mask covers; two pixels of the crop more for the bicubic kernel, and below one of
    # the result for the averaging.
    x0, y0, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    x0, y0, x1, y1 = x0 - 2, y0 - 2, x0 + width + 1, y0 + height + 1
    corners = transform(invert(to_crop), [(x0, y0), (x1, y0), (x0, y1), (x1, y1)])
    limits = np.array([image.shape[-1], image.shape[-2]])
    low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 2, low, limits).astype(int)
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    back = np.column_stack([to_crop[:, :2], to_crop @ (*low, 1.0)])
    alpha = torch.from_numpy(_warp_into(box, mask, back)) * strength
    seen = visible(image[(slice(3), *box)].float()).cpu()
    return _Patch(index, box, back, alpha, seen)


def _warp_into(
    box: tuple[slice, slice], picture: NDArray[np.float32], back: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A picture of the crop in [0, 1], resampled to a box of the result."""
    height, width = (side.stop - side.start for side in box)
    if not (height and width):
        return np.zeros((height, width, *picture.shape[2:]), np.float32)
    return np.clip(warp(picture, back, (width, height)), 0.0, 1.0)


def _blend(image: Tensor, patch: _Patch, restored: Tensor, share: Tensor) -> None:
    """Adds what the restorer changed to a (C, H', W') image, in place."""
    warped = _warp_into(patch.box, to_numpy(restored), patch.back)
    change = share * (torch.from_numpy(warped).permute(2, 0, 1) - patch.seen)
    region = image[(slice(3), *patch.box)]
    broken = ~region.isfinite() & (share > 0).to(image.device)
    region[broken] = patch.seen.to(image.device, image.dtype)[broken]
    region += change.to(image.device, image.dtype)


def _mask(
    name: MaskShape, landmarks: NDArray[np.float64], size: int, feather: float
) -> NDArray[np.float32]:
    """(S, S) in [0, 1], 0 along the crop's border; landmarks in pixels of the crop."""
    if name != "hull":
        return _fixed_mask(name, size, feather)
    points = np.clip(landmarks, -size, 2 * size)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    points = np.concatenate([points, points[:2] - _BROWS * down, [mouth + _CHIN * down]])
    hull = cv2.convexHull(points.round().astype(np.int32))
    shape = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(shape, hull, 1)
    cv2.polylines(shape, [hull], True, 1, thickness=max(1, round(2 * _HULL_MARGIN * size)))
    return _fade(shape, feather)


@lru_cache(maxsize=8)
def _fixed_mask(name: MaskShape, size: int, feather: float) -> NDArray[np.float32]:
    """The masks that are the same for every face."""
    inside = face_ellipse(size) if name == "ellipse" else np.ones((size, size), np.bool_)
    faded = _fade(inside.astype(np.uint8), feather)
    faded.setflags(write=False)
    return faded


def _fade(shape: NDArray[np.uint8], feather: float) -> NDArray[Any]:
    """1 deep inside a shape (S, S) of 0 and 1, and falling smoothly to 0 at its outline."""
    shape[[0, -1], :] = 0
    shape[:, [0, -1]] = 0
    depth = cv2.distanceTransform(shape, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ramp = np.minimum(depth / max(1.0, min(feather * len(shape), float(depth.max()))), 1.0)
    return ramp * ramp * (3.0 - 2.0 * ramp)
