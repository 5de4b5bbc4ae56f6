"""Masks: which part of a crop a restored face covers, as a soft mask in the crop's coordinates.

A mask is an outline, faded inwards, less what stands before the face. The outline is an ellipse
about the mean face, the crop, the hull of the landmarks, or the parts that a parsing network
finds. What stands before the face are the pixels where the photograph and the restored face show
different things: the restorer painted skin over glasses, hair or a hand there, and the photograph
stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .color.spaces import rgb_to_lab
from .faces import Face, Faces, Progress
from .geometry import face_ellipse, invert, scaling, smoothstep, transform, warp_into
from .networks.parsing import CLASSES, FacePart
from .options import Mask, MaskShape, Part
from .tensors import check_masks, clamp01, to_numpy

if TYPE_CHECKING:
    from .parse import FaceParser

PARTS: dict[Part, tuple[FacePart, ...]] = {
    "skin": (FacePart.SKIN,),
    "brows": (FacePart.LEFT_BROW, FacePart.RIGHT_BROW),
    "eyes": (FacePart.LEFT_EYE, FacePart.RIGHT_EYE),
    "nose": (FacePart.NOSE,),
    "mouth": (FacePart.MOUTH, FacePart.UPPER_LIP, FacePart.LOWER_LIP),
    "ears": (FacePart.LEFT_EAR, FacePart.RIGHT_EAR, FacePart.EARRING),
    "neck": (FacePart.NECK, FacePart.NECKLACE),
    "glasses": (FacePart.GLASSES,),
    "hair": (FacePart.HAIR,),
    "hat": (FacePart.HAT,),
}
"""The labels that make up a part."""
DEFAULT_PARTS = Mask().parts
"""Without hair and hats, which restorers paint over, and the neck, which they see half of."""

# What can be mistaken for one another at their edges without anything standing before the face.
# All else is of a kind of its own; background and clothes, as a hand is labelled, are one.
_FACE_KIND: tuple[Part, ...] = ("skin", "brows", "eyes", "nose", "mouth", "ears", "neck")
_OWN_KINDS: tuple[Part, ...] = ("glasses", "hair", "hat")

# What stands before the face is kept with a rim, for the parser's edges are not sharp, and a
# narrow fade, in shares of the crop's side: the eyes behind glasses have no room for a wide one.
_RIM = 0.008
_RIM_FADE = 0.016

# Without a parser: how far two crops may differ in CIE Lab after a blur (sigma as a share of the
# crop's side). On portraits degraded by GFP-GAN's eq. 10, 99 % of a face differ by less than 6 from
# what the bundled model makes of it, less than 9 from a warmer face 3 px aside; drawn rims of
# glasses by about 10.
_TONE_BLUR = 12 / 512
_TONES = (6.0, 10.0)

# How far the hull reaches beyond the landmarks: brows and chin in steps from between the eyes to
# between the mouth corners, the margin around all in shares of the crop's side.
_BROWS = 0.45
_CHIN = 0.75
_HULL_MARGIN = 0.12


def as_mask(mask: Mask | MaskShape | None) -> Mask:
    """Return a `Mask` from one, from the name of its shape, or from None, the default."""
    if mask is None:
        return Mask()
    return Mask(mask) if isinstance(mask, str) else mask


def make_masks(
    faces: Faces,
    mask: Mask | MaskShape | None = None,
    *,
    parser: FaceParser | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Make the masks of faces, for `paste.paste`.

    Args:
        faces: aligned and restored faces; both crops are looked at.
        mask: how they are made.
        parser: tells the parts of a face apart. With it, unless `occlusion` is off, an outline of
            any shape holds the mask's parts only, and only where the crop before and after shows
            a thing of the same kind. Without it, with `occlusion` on, only where the two agree in
            tone; glasses and strong shadows of hands and hair stand out so, thin strands and what
            is of the color of skin do not.
        progress: called as the parser goes on; may raise to cancel.

    Returns:
        (N, S, S) float32 in [0, 1] on the CPU, 0 along the crop's border.

    Raises:
        ValueError: the faces are not aligned and restored as far as the mask looks at them; or the
            shape needs a parser and there is none.
    """
    mask = as_mask(mask)
    crops = faces.crops if faces.crops is not None else faces.restored
    if crops is None:
        if len(faces):
            raise ValueError("the faces were not aligned: call align before their masks are made")
        return torch.zeros(0, 1, 1)
    size = crops.shape[-1]
    crop_masks = CropMasks(mask, faces, size, _labels(faces, mask, parser, progress))
    masks = torch.zeros(len(faces), size, size)
    for i in range(len(faces)):
        masks[i] = torch.from_numpy(np.array(crop_masks[i]))
    return masks


class CropMasks:
    """The masks of faces in their crops, each made when it is asked for."""

    def __init__(
        self,
        mask: Mask | MaskShape | Tensor | None,
        faces: Faces,
        size: int,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Take faces and how their masks are made.

        Args:
            mask: a `Mask`, its shape's name, or the masks (N, size, size) themselves.
            faces: aligned faces.
            size: side of their crops.
            labels: (N, size, size) each, what the crops before and after show, for a `Mask`.

        Raises:
            ValueError: the shape needs a parser or is none, or the masks do not fit the crops.
        """
        self.mask = mask if isinstance(mask, Tensor) else as_mask(mask)
        self.faces, self.size, self.labels = faces, size, labels
        expected = (len(faces), size, size)
        if isinstance(self.mask, Tensor) and len(faces) and self.mask.shape != expected:
            raise ValueError(
                f"masks of these crops must be {expected}, not {tuple(self.mask.shape)}"
            )
        unmade = isinstance(self.mask, Mask) and self.mask.needs_parser and labels is None
        if unmade and len(faces):
            raise ValueError(
                "the mask 'parts' needs a parser: make it with make_masks(faces, mask, parser=...)"
            )

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Make the mask (S, S) of one face, in [0, 1], 0 along the crop's border."""
        if isinstance(self.mask, Mask):
            return self._make(self.mask, index)
        # A copy: cpu() alone may give the caller's own memory.
        values = self.mask[index].detach().float().nan_to_num(0.0).clamp(0, 1).cpu().numpy().copy()
        values[[0, -1], :] = values[:, [0, -1]] = 0.0
        return values

    def _make(self, mask: Mask, index: int) -> NDArray[np.float32]:
        face = self.faces.faces[index]
        if self.labels is not None:
            soft = None if mask.needs_parser else outline(mask, face, self.size)
            return _parsed(mask, soft, *(labels[index] for labels in self.labels))
        soft = outline(mask, face, self.size)
        if mask.occlusion != "on":
            return soft
        before, after = _crops(self.faces)
        return soft * _agreement(before[index], after[index])


class FrameMask:
    """Which pixels of the result a user allows to be touched."""

    def __init__(self, mask: Tensor, frames: Sequence[int], image: Sequence[int]) -> None:
        """Take a mask.

        Args:
            mask: (1 or B, H, W) in [0, 1], NaN counts as 0.
            frames: shape of the frames, (B, C, H, W).
            image: shape of the result, (B, C, H', W').

        Raises:
            ValueError: the mask has neither the frames' size nor the result's.
        """
        check_masks(mask, frames[0], "frame_mask")
        sizes = {tuple(frames[-2:]), tuple(image[-2:])}
        if tuple(mask.shape[1:]) not in sizes:
            raise ValueError(
                f"frame_mask must be (1 or {frames[0]}, H, W) with (H, W) one of {sorted(sizes)}, "
                f"not {tuple(mask.shape)}"
            )
        self.mask = mask
        self.back = invert(scaling(mask.shape[-2:], image[-2:]))

    def part(self, frame: int, box: tuple[slice, slice]) -> Tensor:
        """Cut a box of a frame's result out of the mask: (h, w) float32 in [0, 1] on the CPU."""
        mask = self.mask[frame if len(self.mask) > 1 else 0]
        if np.array_equal(self.back, np.eye(2, 3)):
            return mask[box].detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
        corners = [(side.start, side.stop) for side in reversed(box)]
        first, last = transform(self.back, np.transpose(corners))
        limits = np.array([mask.shape[1], mask.shape[0]])
        low = np.clip(np.floor(first) - 3, 0, limits - 1).astype(int)
        high = np.clip(np.ceil(last) + 3, low + 1, limits).astype(int)
        piece = mask[low[1] : high[1], low[0] : high[0]].detach().float().cpu()
        back = np.column_stack([self.back[:, :2], first - low])
        return torch.from_numpy(warp_into(box, piece.nan_to_num(0.0).clamp(0, 1).numpy(), back))


def outline(mask: Mask, face: Face, size: int) -> NDArray[np.float32]:
    """Draw the faded outline of an aligned face, without looking at its pixels.

    Args:
        mask: of a shape that needs no parser.
        face: the face, with its matrix.
        size: side of the crop.

    Returns:
        (size, size) in [0, 1], 0 along the crop's border; may be read only.

    Raises:
        ValueError: the face was not aligned.
    """
    if mask.shape != "hull":
        return _fixed(mask.shape, size, mask.feather, mask.grow)
    if face.matrix is None:
        raise ValueError("the face was not aligned: call align before its mask is made")
    return fade(_hull(transform(face.matrix, face.landmarks), size), mask.feather, mask.grow)


def fade(inside: NDArray[np.bool_], feather: float, grow: float = 0.0) -> NDArray[np.float32]:
    """Fade a shape (S, S): 1 deep inside, and falling smoothly to 0 at its outline.

    Args:
        inside: which pixels belong to the shape.
        feather: width of the fall as a share of S; of a piece too narrow for it, as much as fits.
        grow: how far the outline is moved outwards before, as a share of S.

    Returns:
        (S, S) in [0, 1], 0 along the border.
    """
    size = len(inside)
    if grow > 0:
        inside = _distance(~inside) <= grow * size
    inside = inside.copy()
    inside[[0, -1], :] = inside[:, [0, -1]] = False
    if grow < 0:
        inside = _distance(inside) > -grow * size
    depth = _distance(inside)
    count, pieces = cv2.connectedComponents(inside.astype(np.uint8))
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, np.asarray(pieces, np.intp).ravel(), depth.ravel())
    width = np.clip(deepest, 1.0, max(1.0, feather * size))[pieces]
    return smoothstep(depth / width)


def _distance(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Measure the distance of every pixel inside to the nearest one outside; far, if none is."""
    if inside.all():
        return np.full(inside.shape, 2.0 * len(inside), np.float32)
    distances: Any = cv2.distanceTransform(
        inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return np.asarray(distances, np.float32)


@lru_cache(maxsize=8)
def _fixed(shape: MaskShape, size: int, feather: float, grow: float) -> NDArray[np.float32]:
    """Draw the masks that are the same for every face."""
    inside = face_ellipse(size) if shape == "ellipse" else np.ones((size, size), np.bool_)
    faded = fade(inside, feather, grow)
    faded.setflags(write=False)
    return faded


def _hull(landmarks: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    points = np.clip(landmarks, -size, 2 * size)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    down = mouth - eyes
    points = np.concatenate([points, points[:2] - _BROWS * down, [mouth + _CHIN * down]])
    hull = cv2.convexHull(points.round().astype(np.int32))
    shape = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(shape, hull, 1)
    cv2.polylines(shape, [hull], True, 1, thickness=max(1, round(2 * _HULL_MARGIN * size)))
    return shape > 0


def _crops(faces: Faces) -> tuple[Tensor, Tensor]:
    """Return the crops (N, 3, S, S) before and after restoring."""
    if faces.crops is None or faces.restored is None:
        raise ValueError("this mask looks at restored faces: call a restorer before")
    return faces.crops, faces.restored


def _labels(
    faces: Faces, mask: Mask, parser: FaceParser | None, progress: Progress | None
) -> tuple[Tensor, Tensor] | None:
    """Parse the crops before and after into label maps (N, S, S), if the mask needs these."""
    if parser is None or not len(faces) or (mask.occlusion == "off" and not mask.needs_parser):
        return None
    before, after = _crops(faces)
    total = 2 * len(faces)

    def count(start: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(start + done, total)

    after_labels = parser.parse(after, count(0)).cpu()
    if mask.occlusion == "off":
        return after_labels, after_labels
    return parser.parse(before, count(len(faces))).cpu(), after_labels


def _parsed(
    mask: Mask, soft: NDArray[np.float32] | None, before: Tensor, after: Tensor
) -> NDArray[np.float32]:
    """Make the mask of a face from its outline (None: its parts) and its labels (S, S)."""
    restored, kinds = np.zeros(CLASSES, np.bool_), _kinds()
    for part in mask.parts:
        restored[list(PARTS[part])] = True
    old, new = before.numpy(), after.numpy()
    selected, unobstructed = restored[old] & restored[new], kinds[old] == kinds[new]
    if soft is None:
        soft = fade(selected, mask.feather, mask.grow)
    else:
        unobstructed = unobstructed & selected
    # Padded, for beyond the crop nothing stands before the face.
    depth = _distance(np.pad(unobstructed, 1, constant_values=True))[1:-1, 1:-1] / len(old)
    result: NDArray[np.float32] = soft * smoothstep((depth - _RIM) / _RIM_FADE)
    return result


def _agreement(before: Tensor, after: Tensor) -> NDArray[np.float32]:
    """Compare two crops: (S, S), 1 where their tones agree, 0 where they show different things."""
    labs = rgb_to_lab(clamp01(torch.stack([before, after.to(before)]).float()))
    size = labs.shape[-1]
    difference = cv2.GaussianBlur(to_numpy(labs[0] - labs[1]), (0, 0), _TONE_BLUR * size)
    # A restorer may shift all colors of a face; that is no thing before it.
    inside = face_ellipse(size)
    if not inside.any():  # of crops of one or two pixels a side
        inside[:] = True
    common = np.median(difference[inside], axis=0)
    start, stop = _TONES
    distance = np.linalg.norm(difference - common, axis=-1)
    result: NDArray[np.float32] = 1.0 - smoothstep((distance - start) / (stop - start))
    return result


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.int64]:
    """Number the labels (19,) by their kind."""
    kinds = np.zeros(CLASSES, np.int64)
    for part in _FACE_KIND:
        kinds[list(PARTS[part])] = 1
    for number, part in enumerate(_OWN_KINDS, start=2):
        kinds[list(PARTS[part])] = number
    return kinds
