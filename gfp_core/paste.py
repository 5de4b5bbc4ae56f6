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
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blend import banded, grain, own_detail
from .devices import in_threads
from .faces import Faces, Progress
from .geometry import compose, invert, scaling, similarity_scale, transform, warp, warp_into
from .masks import CropMasks, FrameMask
from .options import Blend, Mask, MaskShape
from .tensors import LEVELS, check_frames, clamp01, resize, to_float, to_levels, to_numpy

DEFAULT_BLEND = Blend()
_BLOCK = 8  # side of a JPEG block
_ROUNDING = 1e-5  # of arithmetic with colours

Box: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class _Patch:
    """Where one face lies in the result."""

    face: int
    """Its index in Faces."""
    frame: int
    """Index of its frame."""
    number: int
    """Number of its frame among all frames in order, which the frame's grain depends on."""
    box: Box
    """Rows and columns of the result."""
    back: NDArray[np.float64]
    """(2, 3), from pixels of the box to pixels of the crop."""
    alpha: NDArray[np.float32]
    """(h, w) in [0, 1]: the mask, times the strength and the frame's mask."""


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
            [0, 1] are kept; NaN and infinite pixels are replaced only under a face. Or of whole
            numbers (see `tensors.LEVELS`): then so is the image, unless it is enlarged.
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
    check_frames(frames, faces, levels=True)
    restored, matrices = _check_restored(faces)
    masks = CropMasks(mask, faces, restored.shape[-1])
    blend = DEFAULT_BLEND if blend is None else blend
    strengths = _strengths(strength, len(faces))
    image = _canvas(frames, upscale, background, in_place)
    covered = np.zeros((image.shape[0], *image.shape[-2:]), np.float32)
    to_result = scaling(frames.shape[-2:], image.shape[-2:])
    allowed = None if frame_mask is None else FrameMask(frame_mask, frames.shape, image.shape)
    before = 0 if faces.tracks is None else max(0, faces.tracks.frames - len(frames))

    def place(index: int) -> _Patch:
        frame = faces.faces[index].frame
        patch = _place(index, frame, matrices[index], masks[index], to_result, image.shape, before)
        np.multiply(patch.alpha, np.float32(strengths[index]), out=patch.alpha)
        if allowed is not None:
            np.multiply(patch.alpha, allowed.part(frame, patch.box).numpy(), out=patch.alpha)
        return patch

    done = 0
    for frame in sorted({face.frame for face in faces.faces}):
        # A fixed order, so that sums are rounded alike in whatever order the faces come.
        indices = sorted(
            (i for i, face in enumerate(faces.faces) if face.frame == frame),
            key=lambda index: faces.faces[index].landmarks.tolist(),
        )
        clusters = _clusters(list(in_threads(place, indices)))
        for cluster in clusters:
            cluster.cover(covered[frame])

        def change(patch: _Patch, cluster: _Cluster) -> NDArray[np.float32]:
            original = _original(image[patch.frame], patch.box)
            share, crop = cluster.share(patch), to_numpy(restored[patch.face])
            return _change(patch, original, crop, share, blend, to_result)

        pairs = [(patch, cluster) for cluster in clusters for patch in cluster.patches]
        changes = in_threads(lambda pair: change(*pair), pairs)
        for cluster in clusters:
            canvas = cluster.canvas(image[frame])
            for patch in cluster.patches:
                cluster.add(canvas, patch, next(changes))
                done += 1
                if progress is not None:
                    progress(done, len(faces))
            cluster.write(canvas, image[frame])
    return image, torch.from_numpy(covered).to(image.device)


class _Cluster:
    """Faces of a frame whose boxes overlap: they are added up before any pixel is written."""

    def __init__(self, box: Box, patches: list[_Patch]) -> None:
        self.box, self.patches = box, patches

    def cover(self, covered: NDArray[np.float32]) -> None:
        """Note the mask of the faces in a frame's (H, W), and how they add up."""
        self.covered = covered[self.box]
        alone = len(self.patches) == 1
        self.total = self.covered if alone else np.zeros_like(self.covered)
        for patch in self.patches:
            region = self.covered[self._inner(patch)]
            np.maximum(region, patch.alpha, out=region)
            if not alone:
                self.total[self._inner(patch)] += patch.alpha

    def _inner(self, patch: _Patch) -> Box:
        """Give the box of a face in pixels of the cluster's."""
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(patch.box, self.box, strict=True)
        )
        return rows, columns

    def share(self, patch: _Patch) -> NDArray[np.float32]:
        """Give the share (h, w) of a face in the result."""
        cover, together = self.covered[self._inner(patch)], self.total[self._inner(patch)]
        scaled = together > cover
        if not scaled.any():
            return patch.alpha
        share = patch.alpha.copy()
        np.divide(patch.alpha * cover, together, out=share, where=scaled)
        return share

    def canvas(self, image: Tensor) -> Tensor:
        """Copy the cluster's box of a (C, H', W') image, as floats without NaN under a face."""
        pixels = image[(slice(3), *self.box)]
        if pixels.dtype in LEVELS:
            return to_float(pixels)
        canvas = pixels.clone()
        if not canvas.sum().isfinite():
            broken = ~canvas.isfinite() & self._touched(canvas.device)
            canvas[broken] = clamp01(canvas.float()).to(canvas.dtype)[broken]
        return canvas

    def _touched(self, device: torch.device) -> Tensor:
        return torch.from_numpy(self.covered > 0).to(device)

    def add(self, canvas: Tensor, patch: _Patch, change: NDArray[np.float32]) -> None:
        """Add a change (h, w, 3) to the canvas, in place."""
        region = canvas[(slice(3), *self._inner(patch))]
        region += torch.from_numpy(change).permute(2, 0, 1).to(canvas.device, canvas.dtype)

    def write(self, canvas: Tensor, image: Tensor) -> None:
        """Write the touched pixels of the canvas into a (C, H', W') image, in place.

        They are clamped to [0, 1] where the image was within [0, 1]: bands and grain may overshoot
        the range, values beyond which the image held itself stay.
        """
        region = image[(slice(3), *self.box)]
        touched = self._touched(region.device)
        if region.dtype in LEVELS:
            canvas = to_levels(canvas, region.dtype)
        else:
            outside = ((region < 0) | (region > 1)) & region.isfinite()
            canvas = torch.where(outside, canvas, canvas.clamp(0.0, 1.0))
        if region.dtype == torch.uint16:  # PyTorch 2.4 picks none of that type; bits are bits
            region, canvas = region.view(torch.int16), canvas.view(torch.int16)
        region.copy_(torch.where(touched, canvas, region))


def _clusters(patches: list[_Patch]) -> list[_Cluster]:
    """Put faces together whose boxes overlap; the boxes of the clusters do not."""
    clusters: list[_Cluster] = []
    for patch in patches:
        merged = _Cluster(patch.box, [patch])
        while overlapping := [cluster for cluster in clusters if _overlap(cluster.box, merged.box)]:
            clusters = [cluster for cluster in clusters if cluster not in overlapping]
            for cluster in overlapping:
                rows, columns = (
                    slice(min(a.start, b.start), max(a.stop, b.stop))
                    for a, b in zip(cluster.box, merged.box, strict=True)
                )
                merged = _Cluster((rows, columns), [*cluster.patches, *merged.patches])
        clusters.append(merged)
    order = {patch.face: position for position, patch in enumerate(patches)}
    for cluster in clusters:
        cluster.patches.sort(key=lambda patch: order[patch.face])
    return clusters


def _overlap(first: Box, second: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(first, second, strict=True))


def _original(image: Tensor, box: Box) -> NDArray[np.float32]:
    """Cut a box out of a (C, H', W') image as alignment showed it: (h, w, 3) in [0, 1]."""
    # By NumPy, for this runs in threads of ours, each of which would begin PyTorch's anew.
    pixels = image[(slice(3), *box)].detach().permute(1, 2, 0).cpu()
    if pixels.dtype in LEVELS:
        scale = np.float32(LEVELS[pixels.dtype])
        original: NDArray[np.float32] = np.divide(
            pixels.numpy(), scale, dtype=np.float32, order="C"
        )
        return original
    floats = np.array(pixels.float().numpy(), order="C")
    np.nan_to_num(floats, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    return np.clip(floats, 0.0, 1.0, out=floats)


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
        return torch.zeros(0, 1, 1)
    if len(set(faces.frame_sizes)) != 1:
        raise ValueError("frames of different sizes have no common mask")
    height, width = faces.frame_sizes[0]
    covered = np.zeros((len(faces.frame_sizes), height, width), np.float32)
    if not len(faces):
        return torch.from_numpy(covered)
    masks = CropMasks(mask, faces, 1 if faces.crops is None else faces.crops.shape[-1])
    for i, face in enumerate(faces.faces):
        if face.matrix is None or faces.crops is None:
            raise ValueError("the faces were not aligned: call align before face_mask")
        patch = _place(i, face.frame, face.matrix, masks[i], np.eye(2, 3), (height, width))
        region = covered[face.frame][patch.box]
        np.maximum(region, patch.alpha, out=region)
    return torch.from_numpy(covered)


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


def check_background(background: Tensor, count: int, upscale: float) -> None:
    """Refuse a background that does not belong to ``count`` frames, and one beside ``upscale``.

    Raises:
        ValueError: says what is wrong.
    """
    if upscale != 1:
        raise ValueError("give upscale or background, not both: the background has its own size")
    check_frames(background, name="background")
    if background.shape[0] != count:
        raise ValueError(f"{background.shape[0]} backgrounds for {count} frames")


def _canvas(frames: Tensor, upscale: float, background: Tensor | None, in_place: bool) -> Tensor:
    """Make the image (B, C, H', W') to paste into: a new one, or one that may be changed."""
    if not (math.isfinite(upscale) and upscale > 0):
        raise ValueError(f"upscale must be above 0, not {upscale}")
    if background is None:
        if upscale == 1:
            return frames if in_place else frames.clone()
        height, width = (max(1, round(side * upscale)) for side in frames.shape[-2:])
        return resize(to_float(frames), height, width)
    check_background(background, frames.shape[0], upscale)
    frames = to_float(frames)
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
    shape: Sequence[int],
    before: int = 0,
) -> _Patch:
    """Find the box of a face in the result (..., H', W') and resample the mask (S, S) to it.

    ``before`` is the number of frames that came before these, where frames are in order.
    """
    to_crop = compose(matrix, invert(to_result))
    # What the mask covers; two pixels of the crop more for the bicubic kernel, and below one of
    # the result for the averaging.
    x0, y0, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    x0, y0, x1, y1 = x0 - 2, y0 - 2, x0 + width + 1, y0 + height + 1
    corners = transform(invert(to_crop), [(x0, y0), (x1, y0), (x0, y1), (x1, y1)])
    limits = np.array([shape[-1], shape[-2]])
    low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 2, low, limits).astype(int)
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    back = np.column_stack([to_crop[:, :2], to_crop @ (*low, 1.0)])
    # A mask is soft: bilinear shows no difference, at a third of the time.
    alpha = warp_into(box, mask, back, cv2.INTER_LINEAR)
    return _Patch(index, frame, before + frame, box, back, alpha)


def _change(
    patch: _Patch,
    original: NDArray[np.float32],
    restored: NDArray[np.float32],
    share: NDArray[np.float32],
    blend: Blend,
    to_result: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Compute what is added to the box (h, w, 3) of a face, which held ``original``."""
    warped = warp_into(patch.box, restored, patch.back)
    if not share.any():
        return np.zeros_like(warped)
    if (original == original[..., :1]).all() and np.ptp(warped, axis=-1).max() < _ROUNDING:
        warped = np.repeat(warped[..., 1:2], 3, axis=-1)  # what is gray stays so, to the last bit
    target = warped
    up, shrink = similarity_scale(to_result), similarity_scale(patch.back)
    if blend.detail and shrink * up < 1:  # pixels of the crop for one of the frame
        low = _at_crop_resolution(original, patch, len(restored))
        target = target + blend.detail * own_detail(original, low, up * _BLOCK)
    if blend.grain:
        target = target + blend.grain * grain(original, warped, patch.number)
    change = (target if target is warped else np.clip(target, 0.0, 1.0)) - original
    if blend.multiband:
        return banded(change, share, len(restored) / shrink)
    return change * share[..., None]


def _at_crop_resolution(
    original: NDArray[np.float32], patch: _Patch, size: int
) -> NDArray[np.float32]:
    """Resample a box (h, w, 3) to a crop of a size and back.

    Channel by channel: together their rounding differs, and what is gray must stay so exactly.
    """
    channels = []
    for channel in cv2.split(original):
        crop = warp(channel, invert(patch.back), (size, size))
        channels.append(warp_into(patch.box, crop, patch.back))
    return np.asarray(cv2.merge(channels), np.float32)
