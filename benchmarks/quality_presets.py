"""The pictures of the presets in docs/quality.md, made with the bundled model: section "presets".

Each shows a picture of the kind that a preset is for, what the defaults make of it, and what the
preset makes of it. Frames in order have a section of their own, `quality_faces.frames`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gfp_core.faces import Faces
from gfp_core.io.images import read_image, to_frames
from gfp_core.options import RestoreOptions
from gfp_core.pipeline import FaceRestorer

if TYPE_CHECKING:
    from .quality import Bench

Tile = tuple[str, Tensor]

DEFAULTS = RestoreOptions()


def presets(bench: Bench) -> None:
    """A sheet for each preset but video."""
    model = FaceRestorer.load("lite", device="cpu")
    for name, make in SHEETS.items():
        bench.save(f"quality_preset_{name.replace('-', '_')}", make(bench, model), 240)


def natural(bench: Bench, model: FaceRestorer) -> list[list[Tile]]:
    """A photograph a little out of focus, with grain."""
    photo = _scaled(bench.photos[1], 768)
    worse = _noisy(_out_of_focus(photo, sigma=1.5, height=384), 8)
    return _three(model, worse, "natural", share=1.5)


def portrait(bench: Bench, model: FaceRestorer) -> list[list[Tile]]:
    """A portrait before a second person, who is not meant."""
    front, back = _scaled(bench.photos[1], 640), _scaled(bench.photos[2], 640)
    both = torch.cat([front[:, :, :, 80:560], back[:, :, :, 160:480]], dim=3)
    worse = _compressed(_out_of_focus(both, 2.5, height=320), 70)
    return _three(model, worse, "portrait", share=0)


def old_photo(bench: Bench, model: FaceRestorer) -> list[list[Tile]]:
    """A sepia print with grain, scanned."""
    grey = _scaled(bench.photos[2], 900).mean(dim=1, keepdim=True)
    print_ = (0.08 + 0.85 * grey) * torch.tensor([1.0, 0.86, 0.66]).view(1, 3, 1, 1)
    worse = _noisy(_out_of_focus(print_, sigma=2, height=450), 14)
    return _three(model, _compressed(worse, 70), "old-photo", share=1.4)


def group(bench: Bench, model: FaceRestorer) -> list[list[Tile]]:
    """Many small faces; frames about those found."""
    step = max(1, len(bench.measured) // 24)
    paths = bench.measured[-12 * step :: step]
    tiles = [_face_tile(bench, path, 36) for path in paths]
    rows = [torch.cat(tiles[at : at + 6], dim=3) for at in (0, 6)]
    worse = _compressed(_noisy(_blurred(torch.cat(rows, dim=2), 0.7), 6), 60)
    row: list[Tile] = [("input", _enlarged(worse, 3))]
    for label, options in (("defaults", DEFAULTS), ("group", RestoreOptions.preset("group"))):
        result = model.restore(worse, options)
        framed = _framed(_enlarged(result.frames, 3), result.faces, 3)
        row.append((f"{label}: {len(result.faces)} of {len(tiles)} faces", framed))
    return [[tile] for tile in row]


def after_diffusion(bench: Bench, model: FaceRestorer) -> list[list[Tile]]:
    """A face that is sharp but wrong: its parts are bent, as diffusion draws small faces."""
    bent = _bent(_scaled(bench.photos[2], 1024), pixels=1.6, period=6)
    worse = (bent + (bent - _blurred(bent, 1.0))).clamp(0, 1)
    return _three(model, worse, "after-diffusion", share=0.9)


SHEETS: dict[str, Callable[[Bench, FaceRestorer], list[list[Tile]]]] = {
    "natural": natural,
    "portrait": portrait,
    "old-photo": old_photo,
    "group": group,
    "after-diffusion": after_diffusion,
}


def _three(model: FaceRestorer, worse: Tensor, name: str, share: float) -> list[list[Tile]]:
    """Input, defaults and preset, cut about the largest face; all of it where ``share`` is 0."""
    tiles = [("input", worse)]
    for label, options in (("defaults", DEFAULTS), (name, RestoreOptions.preset(name))):
        tiles.append((label, model.restore(worse, options).frames))
    if share:
        assert model.detector is not None
        box = model.detector.detect(worse).largest().faces[0].box
        middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        half = share * (box[3] - box[1]) / 2
        half = min(half, middle_x, middle_y, worse.shape[3] - middle_x, worse.shape[2] - middle_y)
        rows = slice(int(middle_y - half), int(middle_y + half))
        columns = slice(int(middle_x - half), int(middle_x + half))
        tiles = [(label, picture[:, :, rows, columns]) for label, picture in tiles]
    return [tiles]


def _face_tile(bench: Bench, path: Path, side: int) -> Tensor:
    crops = bench.clean(to_frames(read_image(path))[:, :3]).crops
    assert crops is not None
    return F.interpolate(crops, (side, side), mode="area")


def _framed(picture: Tensor, faces: Faces, scale: float) -> Tensor:
    drawn = picture.clone()
    green = torch.tensor([0.1, 0.9, 0.2]).view(3, 1, 1)
    for face in faces.faces:
        x1, y1, x2, y2 = (max(0, round(scale * edge)) for edge in face.box)
        for rows in (slice(y1, y1 + 2), slice(y2 - 2, y2)):
            drawn[0, :, rows, x1:x2] = green
        for columns in (slice(x1, x1 + 2), slice(x2 - 2, x2)):
            drawn[0, :, y1:y2, columns] = green
    return drawn


def _scaled(photo: Tensor, height: int) -> Tensor:
    width = round(photo.shape[3] * height / photo.shape[2])
    return F.interpolate(photo, (height, width), mode="area")


def _enlarged(picture: Tensor, factor: int) -> Tensor:
    return F.interpolate(picture, scale_factor=factor, mode="bicubic").clamp(0, 1)


def _out_of_focus(photo: Tensor, sigma: float, height: int) -> Tensor:
    """Blurred, shrunk to a height, and enlarged again."""
    small = _scaled(_blurred(photo, sigma), height)
    return F.interpolate(small, photo.shape[2:], mode="bicubic").clamp(0, 1)


def _blurred(photo: Tensor, sigma: float) -> Tensor:
    pixels = photo[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), sigma)).permute(2, 0, 1)[None]


def _noisy(photo: Tensor, levels: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(photo.shape, generator=generator) * (levels / 255)
    return (photo + noise).clamp(0, 1)


def _compressed(photo: Tensor, quality: int) -> Tensor:
    pixels = (photo[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()
    return torch.from_numpy(decoded).permute(2, 0, 1)[None].float() / 255


def _bent(photo: Tensor, pixels: float, period: float) -> Tensor:
    """The photo with its parts moved by some pixels, differently every ``period`` pixels."""
    height, width = photo.shape[2:]
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 2, round(height / period), round(width / period), generator=generator)
    moves = F.interpolate(coarse, (height, width), mode="bicubic")[0] * pixels
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + moves[0]) * 2 / (width - 1) - 1
    y = (rows + moves[1]) * 2 / (height - 1) - 1
    grid = torch.stack([x, y], dim=-1)[None]
    bent = F.grid_sample(photo, grid, mode="bicubic", padding_mode="border", align_corners=True)
    return bent.clamp(0, 1)
