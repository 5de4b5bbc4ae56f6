"""ComfyUI's images and masks as the library's frames and back, and previews for the page."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...gfp_core.faces import Faces

logger = logging.getLogger(__name__)

PREVIEW_FRAMES = 256
"""Frames of a batch that are shown on a node."""
FEW_FRAMES = 4
PICTURE_SIDE, FRAME_SIDE = 8192, 1280
"""Longest side in pixels of a preview: of few pictures, and of the frames of a batch."""
_STAND_IN = (64, 64)
"""Size of the mask that Load Image gives for a picture in which nothing is painted."""


def to_frames(image: Tensor) -> Tensor:
    """Return ComfyUI's IMAGE (B, H, W, C) as frames (B, C, H, W): a view, not a copy.

    Raises:
        ValueError: it is of another form, which some nodes give.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.is_floating_point():
        raise ValueError(
            "An image must be (batch, height, width, 3 or 4 channels), with numbers from 0 to 1, "
            f"not {tuple(image.shape)}, {str(image.dtype).removeprefix('torch.')}."
        )
    return image.movedim(-1, 1)


def to_image(frames: Tensor) -> Tensor:
    """Return frames (B, C, H, W) as an IMAGE (B, H, W, C), where ComfyUI keeps results."""
    device = comfy.model_management.intermediate_device()
    return frames.movedim(1, -1).contiguous().to(device)


def to_mask(mask: Tensor) -> Tensor:
    """Return a mask (B, H, W) where ComfyUI keeps results."""
    return mask.to(comfy.model_management.intermediate_device())


def from_mask(mask: Tensor | None, *sizes: tuple[int, int]) -> Tensor | None:
    """Return ComfyUI's MASK (B, H, W) or (H, W), resized to the first size if it has none of them.

    Without sizes it keeps its own.

    Load Image gives a black mask of 64 by 64 pixels for a picture in which nothing is painted:
    this is no mask, and None.

    Raises:
        ValueError: it is of another form, which some nodes give.
    """
    if mask is None:
        return None
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3:
        raise ValueError(f"A mask must be (batch, height, width), not {tuple(mask.shape)}.")
    size = (int(mask.shape[-2]), int(mask.shape[-1]))
    if size == _STAND_IN and not mask.any():
        logger.info("The mask is Load Image's for a picture in which nothing is painted: no mask.")
        return None
    if not sizes or size in sizes:
        return mask
    return F.interpolate(mask[:, None].float(), sizes[0], mode="bilinear", antialias=True)[:, 0]


def sizes(*batches: Tensor | None) -> list[tuple[int, int]]:
    """Return (height, width) of the batches of frames (B, C, H, W) that are there."""
    return [(batch.shape[-2], batch.shape[-1]) for batch in batches if batch is not None]


def nothing(reason: str) -> ExecutionBlocker:
    """Return an output that has nothing to give: nodes that use it stop with this message."""
    return ExecutionBlocker(f"This output of the node is empty, for {reason}.")


def crops_to_image(faces: Faces, crops: Tensor | None) -> Tensor:
    """Return crops as an IMAGE; a black picture for no face, as nodes fail on an empty batch."""
    if crops is None or not len(faces):
        side = 512 if crops is None else crops.shape[-1]
        crops = torch.zeros(1, 3, side, side)
    return to_image(crops)


def save_previews(frames: Tensor) -> list[dict[str, str]]:
    """Save copies of frames (B, C, H, W) in ComfyUI's folder for files that do not last.

    A picture is kept at its size, so that it can be looked at closely; the frames of a batch are
    reduced, and of a long one only the first are saved.

    Returns:
        What the page needs to fetch each: its filename, subfolder and type.
    """
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    side = PICTURE_SIDE if len(frames) <= FEW_FRAMES else FRAME_SIDE
    name_of_all = f"GFP_{secrets.token_hex(8)}"  # not of `random`, which other nodes seed
    saved = []
    for index, frame in enumerate(frames[:PREVIEW_FRAMES]):
        pixels = (_reduced(frame, side) * 255).round().clamp(0, 255).byte().cpu().numpy()
        has_alpha = pixels.shape[-1] == 4
        name = f"{name_of_all}_{index:05}.{'webp' if has_alpha else 'jpg'}"
        options: dict[str, Any] = {"quality": 95, "method" if has_alpha else "subsampling": 0}
        Image.fromarray(pixels).save(folder / name, **options)
        saved.append({"filename": name, "subfolder": "", "type": "temp"})
    return saved


def comparison(before: Tensor, after: Tensor) -> list[dict[str, Any]]:
    """Return what the page's slider needs: previews of frames (B, C, H, W) before and after."""
    pairs = zip(save_previews(before), save_previews(after), strict=True)
    return [{"before": old, "after": new, "count": len(before)} for old, new in pairs]


def _reduced(frame: Tensor, side: int) -> Tensor:
    """Reduce (C, H, W) to (H', W', C), at most ``side`` long."""
    frame = torch.nan_to_num(frame.detach().float(), posinf=1.0, neginf=0.0)
    scale = side / max(frame.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in frame.shape[-2:]]
        frame = F.interpolate(frame[None], size, mode="bilinear", antialias=True)[0]
    return frame.movedim(0, -1)
