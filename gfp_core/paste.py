"""Pasting back: the restored crops laid into their frames, under a soft mask, without a seam.

Only the box of each face is read and written. A pixel becomes

    frame + sum_i share_i (restored_i - original)

where `original` is the frame clamped to [0, 1], as alignment showed it to the network: what the
frame holds beyond that range stays, inside the face too. `share_i` is the mask of face i; where
masks overlap, the shares are scaled to add up to the largest of them, so that two faces never count
twice and their order does not matter. A pixel that no mask touches is the frame's, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blend import banded, grain, own_detail
from .faces import Faces, Progress
from .geometry import compose, invert, scaling, similarity_scale, transform, warp, warp_into
from .masks import CropMasks, FrameMask
from .options import Blend, Mask, MaskShape
from .tensors import check_frames, clamp01, resize, to_numpy

DEFAULT_BLEND = Blend()
_BLOCK = 8  # side of a JPEG block
_ROUNDING = 1e-5  # of arithmetic with colours


@dataclass(frozen=True)
class _Patch:
    """Where one face lies in the result, and what was there before any face was pasted."""

    face: int
    """Its place in Faces."""
    frame: int
    """Index of its frame."""
    box: tuple[slice, slice]
    """Rows and columns of the result."""
    back: NDArray[np.float64]
    """(2, 3), from pixels of the box to pixels of the crop."""
    alpha: Tensor
    """(h, w) float32 in [0, 1]: the mask, times the strength and the frame's mask."""
    outside: Tensor | None
    """(3, h, w) bool: where the frame lay outside [0, 1] before; None: nowhere."""
    original: Tensor
    """(3, h, w) float32 in [0, 1]."""


def paste(
    frames: Tensor,
    faces: Faces,
    *,
    mask: Mask | MaskShape | Tensor | None = None,
    frame_mask: Tensor | None = None,
    blend: Blend | None = None,
    strength: float | Sequence[float] | Tensor = 1.0,
    upscale: float = 1.0,
    background: Tensor | None = None,
    in_place: bool = False,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Lay the restored faces into their frames.

    Args:
        frames: (B, C, H, W) float RGB in [0, 1], C 3 or 4 (alpha, kept as it is). Values outside
            [0, 1] are kept; NaN and infinite pixels are replaced only under a face.
        faces: aligned and restored faces of these frames.
        mask: what of each crop is restored: a `Mask` or its shape's name; or (N, S, S) in [0, 1],
            as `masks.make_masks` makes them with a parser. The crop's outermost pixels never are.
        frame_mask: (1 or B, H, W) in [0, 1], of the frames' size or the result's: multiplied with
            the masks of the faces.
        blend: how restored faces go into the frames.
        strength: share of the restored face in the middle of the mask, from 0 to 1; one for all,
            or (N,), one a face.
        upscale: size of the result relative to the frames, which are resampled (bicubic).
        background: (B, 3 or 4, H', W'): the frames already brought to another size, instead of
            `upscale`. The result has its size. Without alpha it takes the frames'.
        in_place: lay the faces into ``frames`` (or ``background``) themselves, where they are of
            the result's size: for who needs them no more, and the memory of a copy for other
            things.
        progress: called with the number of faces pasted and of all faces.

    Returns:
        The image (B, C, H', W') and the mask (B, H', W') float32 in [0, 1], the share of restored
        face in every pixel, on the frames' device. Both are new, but for ``in_place``; at the
        frames' own size the image equals them exactly where the mask is 0.

    Raises:
        ValueError: frames, faces and background do not belong together, the faces were not
            aligned or not restored, or an option is out of range.
    """
    check_frames(frames, faces)
    restored, matrices = _check_restored(faces)
    masks = CropMasks(mask, faces, restored.shape[-1])
    blend = DEFAULT_BLEND if blend is None else blend
    strengths = _strengths(strength, len(faces))
    image = _canvas(frames, upscale, background, in_place)
    covered = _zeros(image.shape[0], *image.shape[-2:])
    to_result = scaling(frames.shape[-2:], image.shape[-2:])
    allowed = None if frame_mask is None else FrameMask(frame_mask, frames.shape, image.shape)

    done = 0
    for frame in sorted({face.frame for face in faces.faces}):
        patches = []
        for i, face in enumerate(faces.faces):
            if face.frame == frame:
                patch = _place(i, frame, matrices[i], masks[i], to_result, image[frame])
                patch.alpha.mul_(strengths[i])
                if allowed is not None:
                    patch.alpha.mul_(allowed.part(frame, patch.box))
                patches.append(patch)
        # A fixed order, so that sums are rounded alike in whatever order the faces come.
        patches.sort(key=lambda patch: faces.faces[patch.face].landmarks.tolist())
        total = _zeros(*image.shape[-2:])
        for patch in patches:
            cover = covered[frame][patch.box]
            torch.maximum(cover, patch.alpha, out=cover)
            total[patch.box] += patch.alpha
        for patch in patches:
            cover, together = covered[frame][patch.box], total[patch.box]
            share = torch.where(together > cover, patch.alpha * cover / together, patch.alpha)
            change = _change(patch, to_numpy(restored[patch.face]), share.numpy(), blend, to_result)
            _add(image[frame], patch, torch.from_numpy(change).permute(2, 0, 1), share)
            done += 1
            if progress is not None:
                progress(done, len(faces))
        for patch in patches:  # after all sums, whose order must not matter
            _clamp(image[frame], patch, covered[frame][patch.box])
    return image, covered.to(image.device)


def face_mask(faces: Faces, *, mask: Mask | MaskShape | Tensor | None = None) -> Tensor:
    """Draw where `paste` would lay the faces at full strength.

    Args:
        faces: aligned faces of frames of one size.
        mask: what of each crop is restored, see `paste`.

    Returns:
        (B, H, W) float32 in [0, 1], on the CPU.

    Raises:
        ValueError: the faces were not aligned, or their frames differ in size.
    """
    if not faces.frame_sizes:
        return _zeros(0, 1, 1)
    if len(set(faces.frame_sizes)) != 1:
        raise ValueError("frames of different sizes have no common mask")
    height, width = faces.frame_sizes[0]
    covered = _zeros(len(faces.frame_sizes), height, width)
    if not len(faces):
        return covered
    unseen = torch.zeros(3, 1, 1).expand(3, height, width)
    masks = CropMasks(mask, faces, 1 if faces.crops is None else faces.crops.shape[-1])
    for i, face in enumerate(faces.faces):
        if face.matrix is None or faces.crops is None:
            raise ValueError("the faces were not aligned: call align before face_mask")
        patch = _place(i, face.frame, face.matrix, masks[i], np.eye(2, 3), unseen)
        region = covered[face.frame][patch.box]
        torch.maximum(region, patch.alpha, out=region)
    return covered


def _strengths(strength: float | Sequence[float] | Tensor, count: int) -> list[float]:
    """Return a strength in [0, 1] for each face, from one for all or one a face."""
    array = strength.tolist() if isinstance(strength, Tensor) else strength
    many = np.ndim(array) == 1
    values = [float(value) for value in np.atleast_1d(array)]
    if many and len(values) != count:
        raise ValueError(f"{len(values)} strengths for {count} faces")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"strength must lie in 0..1, not {strength}")
    return values if many else values * count


def _zeros(*shape: int) -> Tensor:
    """Make zeros whose memory is not touched until it is used, unlike torch's."""
    return torch.from_numpy(np.zeros(shape, np.float32))


def _check_restored(faces: Faces) -> tuple[Tensor, list[NDArray[np.float64]]]:
    """Return the restored crops (N, 3, S, S) and their matrices, or say what is missing."""
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


def _canvas(frames: Tensor, upscale: float, background: Tensor | None, in_place: bool) -> Tensor:
    """Make the image (B, C, H', W') to paste into: a new one, or one that may be changed."""
    if not (math.isfinite(upscale) and upscale > 0):
        raise ValueError(f"upscale must be above 0, not {upscale}")
    if background is None:
        if upscale == 1:
            return frames if in_place else frames.clone()
        height, width = (max(1, round(side * upscale)) for side in frames.shape[-2:])
        return resize(frames, height, width)
    if upscale != 1:
        raise ValueError("give upscale or background, not both: the background has its own size")
    check_frames(background, name="background")
    if background.shape[0] != frames.shape[0]:
        raise ValueError(f"{background.shape[0]} backgrounds for {frames.shape[0]} frames")
    background = background.to(frames.device, frames.dtype, copy=not in_place)
    if frames.shape[1] == 4 and background.shape[1] == 3:
        alpha = resize(frames[:, 3:], *background.shape[-2:])
        background = torch.cat([background, alpha], dim=1)
    return background


def _place(
    index: int,
    frame: int,
    matrix: NDArray[np.float64],
    mask: NDArray[np.float32],
    to_result: NDArray[np.float64],
    image: Tensor,
) -> _Patch:
    """Find the box of a face in the result (C, H', W') and resample the mask (S, S) to it."""
    to_crop = compose(matrix, invert(to_result))
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
    # A mask is soft: bilinear shows no difference, at a third of the time.
    alpha = torch.from_numpy(warp_into(box, mask, back, cv2.INTER_LINEAR))
    pixels = image[(slice(3), *box)]
    outside = ((pixels < 0) | (pixels > 1)) & pixels.isfinite()
    return _Patch(
        index,
        frame,
        box,
        back,
        alpha,
        outside if outside.any() else None,
        original=clamp01(pixels.float()).cpu(),
    )


def _change(
    patch: _Patch,
    restored: NDArray[np.float32],
    share: NDArray[np.float32],
    blend: Blend,
    to_result: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Compute what is added to the box of a face, (h, w, 3)."""
    warped = warp_into(patch.box, restored, patch.back)
    if not share.any():
        return np.zeros_like(warped)
    original = to_numpy(patch.original)
    if (original == original[..., :1]).all() and np.ptp(warped, axis=-1).max() < _ROUNDING:
        warped = np.repeat(warped[..., 1:2], 3, axis=-1)  # what is grey stays so, to the last bit
    target = warped
    up, shrink = similarity_scale(to_result), similarity_scale(patch.back)
    if blend.detail and shrink * up < 1:  # pixels of the crop for one of the frame
        low = _at_crop_resolution(original, patch, len(restored))
        target = target + blend.detail * own_detail(original, low, up * _BLOCK)
    if blend.grain:
        target = target + blend.grain * grain(original, warped, patch.frame)
    change = (target if target is warped else np.clip(target, 0.0, 1.0)) - original
    if blend.multiband:
        return banded(change, share, len(restored) / shrink)
    return change * share[..., None]


def _at_crop_resolution(
    original: NDArray[np.float32], patch: _Patch, size: int
) -> NDArray[np.float32]:
    """Resample a box (h, w, 3) to a crop of a size and back.

    Channel by channel: together their rounding differs, and what is grey must stay so exactly.
    """
    channels = []
    for channel in np.moveaxis(original, -1, 0):
        crop = warp(np.ascontiguousarray(channel), invert(patch.back), (size, size))
        channels.append(warp_into(patch.box, crop, patch.back))
    return np.stack(channels, axis=-1)


def _add(image: Tensor, patch: _Patch, change: Tensor, share: Tensor) -> None:
    """Add a change (3, h, w) to the box of a (C, H', W') image, in place."""
    region = image[(slice(3), *patch.box)]
    if not region.sum().isfinite():
        _mend(region, patch, share)
    region += change.to(image.device, image.dtype)


def _clamp(image: Tensor, patch: _Patch, covered: Tensor) -> None:
    """Clamp the touched pixels of a box to [0, 1], in place, where the frame was within [0, 1].

    Bands and grain may overshoot the range, values beyond which the frame held itself stay.
    """
    region = image[(slice(3), *patch.box)]
    touched = (covered > 0).to(region.device)
    overshot = ((region < 0) | (region > 1)) & touched
    if patch.outside is not None:
        overshot &= ~patch.outside
    if overshot.any():
        region[overshot] = region[overshot].clamp(0.0, 1.0)


def _mend(region: Tensor, patch: _Patch, share: Tensor) -> None:
    """Replace NaN and infinite pixels under a face (3, h, w), in place."""
    broken = ~region.isfinite() & (share > 0).to(region.device)
    region[broken] = patch.original.to(region.device, region.dtype)[broken]
