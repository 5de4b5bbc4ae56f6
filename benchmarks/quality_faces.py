"""The sections of docs/quality.md on choosing faces, the identity guard and frames in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gfp_core.embed import FaceEmbedder, load_embedder
from gfp_core.faces import Face, Faces
from gfp_core.geometry import angles
from gfp_core.identity import LIMIT, compare
from gfp_core.io.images import read_image, to_frames
from gfp_core.pipeline import Restoration
from gfp_core.track import Tracks

if TYPE_CHECKING:
    from .quality import Bench


def choosing(bench: Bench) -> None:
    """One photograph of several people, and whom some options choose."""
    embedder = load_embedder(bench.embedder, device="cpu")
    bench.model.embedder = embedder
    parts, sides = [], (300, 190, 240)
    for index, (photo, side) in enumerate(zip(bench.photos, sides, strict=False)):
        part = _about_the_face(bench, photo)
        if index != 2:  # the third stays sharp
            part = F.interpolate(part, (64, 64), mode="area")
        part = F.interpolate(part, (side, side), mode="bicubic").clamp(0, 1)
        parts.append(F.pad(part, (0, 0, 300 - side, 0), value=0.6))
    photo = torch.cat(parts, dim=3)
    region = torch.zeros(1, *photo.shape[2:])
    region[..., 380:] = 1
    person = bench.model.describe([bench.photos[2][0]])
    tries = {
        "found": None,
        "--select first": bench.model.restore(photo, select="first"),
        "--region (right half)": bench.model.restore(photo, region=region),
        "--person (the third)": bench.model.restore(photo, people=person),
        "--max-sharpness 0.2": bench.model.restore(photo, max_sharpness=0.2),
        "--order smallest --select first": bench.model.restore(
            photo, order="smallest", select="first"
        ),
    }
    found = bench.model.detector.detect(photo)
    tiles = []
    for name, result in tries.items():
        shown = photo if result is None else result.frames
        tiles.append((name, _framed(shown, found if result is None else result.faces)))
    bench.save("quality_choosing", [tiles[:3], tiles[3:]], 150)


def identity(bench: Bench) -> None:
    """Restorers that drift towards someone else, and what the guard leaves of them."""
    embedder = load_embedder(bench.embedder, device="cpu")
    mine, other = (bench.degraded(bench.clean(bench.photos[i]), seed=4) for i in (0, 2))
    assert mine.crops is not None
    assert mine.restored is not None
    assert other.restored is not None
    row = [("input", mine.crops)]
    for drift in (0.0, 0.5, 0.7, 1.0):
        drifted = mine.restored + drift * (other.restored - mine.restored)
        turned, strengths = compare(replace(mine, restored=drifted), embedder)
        share = float(strengths[0])
        row.append((f"restorer: {float(turned[0]):.0f} degrees", drifted))
        row.append((f"guarded: {100 * share:.0f} %", mine.crops + share * (drifted - mine.crops)))
    bench.save("quality_identity", [row], 150)
    if bench.measured:
        measure_identity(bench, embedder)


def measure_identity(bench: Bench, embedder: FaceEmbedder) -> None:
    """Print how far the model turns faces, and how far apart people are."""
    before, after, clean = [], [], []
    for seed, path in enumerate(bench.measured[:: max(1, len(bench.measured) // 60)]):
        upright = bench.clean(to_frames(read_image(path))[:, :3])
        faces = bench.degraded(upright, seed)
        for crops, found in (
            (faces.crops, before),
            (faces.restored, after),
            (upright.crops, clean),
        ):
            assert crops is not None
            found.append(embedder.embed(crops))
    inputs, restored, photos = (torch.cat(found) for found in (before, after, clean))
    everyone = {
        "input and restored": angles(inputs, restored),
        "input and photograph": angles(inputs, photos),
        "input and somebody else": angles(inputs, restored.roll(7, 0)),
    }
    for name, found in everyone.items():
        shares = np.percentile(found.numpy(), [0, 5, 50, 95, 100]).round(1).tolist()
        beyond = float((found > LIMIT).float().mean())
        print(f"| {name} | {' | '.join(map(str, shares))} | {100 * beyond:.1f} % |")
    print(f"{len(inputs)} faces")


def frames(bench: Bench) -> None:
    """A still photograph with noise of its own in each frame: what trembles afterwards."""
    photo = _about_the_face(bench, bench.photos[0])
    photo = F.interpolate(photo, (256, 256), mode="area")
    tiles: list[tuple[str, Tensor]] = []
    for sigma in (0.01, 0.03, 0.06):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((16, *photo.shape[1:]), generator=generator)
        clip = (photo + sigma * noise).clamp(0, 1)
        alone, ordered = bench.model.restore(clip), bench.model.restore(clip, tracks=Tracks())
        inside = ordered.mask.mean(dim=0) > 0.5
        print(
            f"| {255 * sigma:.0f} | "
            + " | ".join(
                f"{_variance(one.frames, inside) / _variance(clip, inside):.2f} | "
                f"{_coarse(one.frames, inside) / _coarse(clip, inside):.2f} | {_step(one):.2f} %"
                for one in (alone, ordered)
            )
            + " |"
        )
        if sigma == 0.03:
            tiles = [("one frame", clip[:1]), ("restored", ordered.frames[:1])]
            for name, shown in (
                ("changes: input", clip),
                ("frame by frame", alone.frames),
                ("--video", ordered.frames),
            ):
                tiles.append(
                    (name, (20 * shown.std(dim=0).mean(dim=0)).clamp(0, 1).expand(1, 3, -1, -1))
                )
    bench.save("quality_frames", [tiles], 200)


def _about_the_face(bench: Bench, photo: Tensor) -> Tensor:
    """A square of the photo (1, 3, H, W) about its largest face, that face half as high."""
    (face,) = bench.clean(photo).faces
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    half = min(face.height, x, y, photo.shape[3] - x, photo.shape[2] - y)
    top, left, side = round(y - half), round(x - half), int(2 * half)
    return photo[:, :, top : top + side, left : left + side]


def _framed(photo: Tensor, faces: Faces) -> Tensor:
    """The photo (1, 3, H, W) with a green frame about each face."""
    drawn = photo.clone()
    green = torch.tensor([0.1, 0.9, 0.2]).view(3, 1, 1)
    for face in faces.faces:
        x1, y1, x2, y2 = (max(3, round(edge)) for edge in face.box)
        for part in (np.s_[y1 - 3 : y1, x1:x2], np.s_[y2 : y2 + 3, x1:x2]):
            drawn[0, :, part[0], part[1]] = green
        for part in (np.s_[y1:y2, x1 - 3 : x1], np.s_[y1:y2, x2 : x2 + 3]):
            drawn[0, :, part[0], part[1]] = green
    return drawn


def _variance(clip: Tensor, inside: Tensor) -> float:
    """The mean variance over time of the pixels inside."""
    return float(clip.var(dim=0)[:, inside].mean())


def _coarse(clip: Tensor, inside: Tensor) -> float:
    """The same of what one sees from afar: means over 8 x 8 pixels."""
    small = F.avg_pool2d(inside.float()[None, None], 8)[0, 0] > 0.99
    return float(F.avg_pool2d(clip, 8).var(dim=0)[:, small].mean())


def _step(result: Restoration) -> float:
    """By how much the landmarks move from frame to frame, in percent of the face's width."""
    found: tuple[Face, ...] = result.faces.faces
    moves = np.diff(np.stack([face.landmarks for face in found]), axis=0)
    return float(100 * np.sqrt((moves**2).sum(axis=-1).mean()) / found[0].width)
