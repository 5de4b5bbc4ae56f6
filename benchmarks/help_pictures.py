"""The pictures of the help pages (web/docs/images), made with the bundled model.

    python -m benchmarks.help_pictures --portraits FOLDER

Photographs are scikit-image's astronaut and a group put together from generated portraits (CC0) of
FOLDER that the bundled model has not been trained on. Those of the nodes are made by
tests/comfyui/test_help.py.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfp_core.align import align
from gfp_core.color import apply_color
from gfp_core.color.enhance import enhance
from gfp_core.compare import Setting, compare, comparison_sheet
from gfp_core.draw import draw_faces
from gfp_core.faces import Faces
from gfp_core.io.images import read_image
from gfp_core.masks import make_masks
from gfp_core.options import Mask, MaskShape
from gfp_core.paste import paste
from gfp_core.pipeline import FaceRestorer
from gfp_core.select import sort

logger = logging.getLogger("help_pictures")

IMAGES = Path(__file__).parents[1] / "web" / "docs" / "images"
LARGEST = 70_000
"""Bytes of a file."""
GAP = 6
"""White pixels between pictures of a sheet."""
# Of each portrait: its side in pixels, and the left edge and width of the strip that is shown.
GROUP = {
    "male_001": (520, 112, 306),
    "female_064": (420, 60, 270),
    "male_085": (470, 110, 260),
    "female_092": (380, 40, 260),
}
FADE = 36
"""Pixels over which neighbours in the group go over into each other."""

Pixels = NDArray[np.float32]  # (H, W, 3) RGB in [0, 1]


def group(folder: Path) -> Pixels:
    """Four portraits side by side, as if they stood in one garden."""
    height = min(side for side, _, _ in GROUP.values())
    whole = np.zeros((height, 0, 3), np.float32)
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)[:, None]
    for name, (side, left, width) in GROUP.items():
        portrait = read_image(folder / f"{name}.jpg").pixels[..., :3]
        small = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
        strip = small[:height, left : left + width].copy()
        if whole.shape[1]:
            strip[:, :FADE] = whole[:, -FADE:] * (1 - ramp) + strip[:, :FADE] * ramp
            whole = whole[:, :-FADE]
        whole = np.concatenate([whole, strip], axis=1)
    return whole


def worn(picture: Pixels, factor: float, quality: int) -> Pixels:
    """A picture reduced by a factor, compressed as JPEG and enlarged again."""
    height, width = picture.shape[:2]
    small = cv2.resize(
        picture, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA
    )
    _, coded = cv2.imencode(".jpg", _bgr(small), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    return cv2.resize(decoded, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def astronaut(shoulders: bool = False) -> Pixels:
    """Her head, or head and shoulders, as (380, 380, 3)."""
    part = np.s_[:270, 90:360] if shoulders else np.s_[10:230, 114:334]
    whole = skimage.data.astronaut()[part].astype(np.float32) / 255
    return cv2.resize(whole, (380, 380), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def frames(picture: Pixels) -> Tensor:
    """Pixels as the library's frames (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


def pixels(picture: Tensor) -> Pixels:
    """The first of (N, 3, H, W) or (N, H, W) as pixels."""
    if picture.dim() == 3:
        picture = picture[:, None].expand(-1, 3, -1, -1)
    return picture[0].permute(1, 2, 0).numpy().astype(np.float32)


def row(pictures: Sequence[Pixels], height: int | None = None) -> Pixels:
    """Pictures beside each other, at one height."""
    height = height or pictures[0].shape[0]
    tiles: list[Pixels] = []
    for picture in pictures:
        width = round(picture.shape[1] * height / picture.shape[0])
        tiles += [np.ones((height, GAP, 3), np.float32)] if tiles else []
        tiles += [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)]
    return np.concatenate(tiles, axis=1)


def column(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one width below each other."""
    space = np.ones((GAP, pictures[0].shape[1], 3), np.float32)
    return np.concatenate([part for one in pictures for part in (space, one)][1:])


def save(name: str, picture: Pixels) -> None:
    """Write a JPEG of the best quality that is not too large."""
    for quality in range(90, 40, -5):
        _, coded = cv2.imencode(".jpg", _bgr(picture), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if coded.nbytes < LARGEST:
            break
    (IMAGES / f"{name}.jpg").write_bytes(coded.tobytes())
    logger.info("%s: quality %d, %d bytes", name, quality, coded.nbytes)


def _bgr(picture: Pixels) -> NDArray[np.uint8]:
    return (picture[..., ::-1] * 255).round().clip(0, 255).astype(np.uint8)


def crops(faces: Faces, restored: bool) -> list[Pixels]:
    """The crops of faces, before or after the restorer."""
    held = faces.restored if restored else faces.crops
    assert held is not None
    return [pixels(crop[None]) for crop in held]


def photo(model: FaceRestorer) -> None:
    """A photo before and after; the same in grey."""
    before = worn(astronaut(), 3.6, 60)
    save("photo", row([before, pixels(model.restore(frames(before)).frames)]))
    sepia = before @ np.array([[0.30], [0.59], [0.11]], np.float32)
    sepia = (sepia * np.array([1.0, 0.90, 0.74], np.float32)).astype(np.float32)
    save("old_photo", row([sepia, pixels(model.restore(frames(sepia)).frames)]))


def many(model: FaceRestorer, picture: Pixels) -> None:
    """The group before and after, its numbered faces, its crops, and the masks."""
    before = worn(picture, 2.4, 60)
    restored = model.restore(frames(before))
    save("group", row([column([before, pixels(restored.frames)])], 590))
    faces = sort(restored.faces, "largest")
    save("detected", draw_faces(before, faces.faces))
    save("crops", column([row(crops(faces, after), 190) for after in (False, True)]))

    shown = []
    shapes: tuple[MaskShape, ...] = ("ellipse", "box", "hull")  # those that need no parser
    for shape in shapes:
        mask = pixels(paste(frames(before), faces, mask=shape)[1])
        shown.append((before * (0.35 + 0.65 * mask))[:, : before.shape[1] // 2])
    save("masks", row(shown, 240))

    one = faces.select([1])
    columns = []
    for form in (Mask("ellipse"), Mask("ellipse", grow=-0.1), Mask("hull")):
        mask = pixels(make_masks(one, form))
        columns.append(column([crops(one, True)[0] * (0.35 + 0.65 * mask), mask]))
    save("face_masks", row(columns, 480))

    ways = [Setting(f"lite, {mode}", model.restorer, color=mode) for mode in ("auto", "enhance")]
    two = faces.select([0, 2])
    compared = compare(lambda size: align(frames(before), two, size), ways)
    # One network: what differs between its times is what else the machine does.
    fastest = min(one.seconds for one in compared)
    compared = [replace(one, seconds=fastest) for one in compared]
    save("compared", pixels(comparison_sheet(compared, size=260)[None]))


def color(model: FaceRestorer) -> None:
    """What auto does with a restorer of other colours, enhance, and an image as a whole."""
    before = worn(astronaut(), 3.6, 60)
    restored = model.restore(frames(before), color="restorer").faces
    assert restored.restored is not None
    tinted = (restored.restored * torch.tensor([1.12, 0.96, 0.78]).view(1, 3, 1, 1)).clamp(0, 1)
    shifted = replace(restored, restored=tinted)
    sheet = [crops(shifted, False), crops(shifted, True)]
    sheet += [crops(apply_color(shifted, "auto"), True)]
    sheet += [crops(apply_color(restored, "enhance"), True)]
    save("color_faces", row([one[0] for one in sheet], 240))
    faded = (astronaut(shoulders=True) * np.array([0.55, 0.55, 0.42], np.float32) + 0.22).astype(
        np.float32
    )
    save("color_image", row([faded, pixels(enhance(frames(faded), 1.0))]))


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description="Make the pictures of the help pages.")
    parser.add_argument("--portraits", type=Path, required=True, help="folder of the portraits")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    IMAGES.mkdir(parents=True, exist_ok=True)
    model = FaceRestorer.load(device="cpu")
    photo(model)
    many(model, group(arguments.portraits))
    color(model)


if __name__ == "__main__":
    main()
