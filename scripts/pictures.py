"""Make the icon and the banner of the Comfy Registry, from the project's own picture.

    python -m scripts.pictures

docs/images/before_after.jpg is ``gfp restore docs/images/low_quality.jpg --compare``, side by side.
Look at the results: docs/images/icon.png (400 px) and banner.png (21:9).
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
ICON = 400
BANNER = (1260, 540)
FACE = (82, 85, 442, 445)
"""The face in each half of before_after.jpg: left, top, right, bottom in pixels."""
INK, PAPER, ACCENT = (24, 28, 36), (244, 242, 238), (235, 164, 62)


def split_face(side: int) -> Image.Image:
    """Draw the face, its left half before and its right half after, with a slider between."""
    both = Image.open(IMAGES / "before_after.jpg").convert("RGB")
    width = both.width // 2
    crops = [both.crop((left, 0, left + width, both.height)).crop(FACE) for left in (0, width)]
    before, after = (crop.resize((side, side), Image.Resampling.LANCZOS) for crop in crops)
    after.paste(before.crop((0, 0, side // 2, side)), (0, 0))
    line = max(side // 80, 2)
    draw = ImageDraw.Draw(after)
    draw.rectangle((side // 2 - line // 2, 0, side // 2 + (line - 1) // 2, side), fill=PAPER)
    radius = side // 16
    centre = (side // 2, side - radius - side // 20)
    box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    draw.ellipse(box, fill=ACCENT, outline=PAPER, width=line)
    return after


def icon() -> Image.Image:
    """Draw the icon: the split face with round corners."""
    scale = 4  # corners are drawn larger, for smooth edges
    mask = Image.new("L", (ICON * scale, ICON * scale), 0)
    ImageDraw.Draw(mask).rounded_rectangle(
        (0, 0, ICON * scale - 1, ICON * scale - 1), radius=ICON * scale // 8, fill=255
    )
    face = split_face(ICON)
    face.putalpha(mask.resize((ICON, ICON), Image.Resampling.LANCZOS))
    return face


def banner() -> Image.Image:
    """Draw the banner: the split face, the name, and what the project does."""
    width, height = BANNER
    picture = Image.new("RGB", BANNER, INK)
    picture.paste(split_face(height), (width - height, 0))
    draw = ImageDraw.Draw(picture)
    draw.text((56, 150), "GFP Face\nRestoration", PAPER, ImageFont.load_default(88), spacing=16)
    draw.rectangle((60, 372, 180, 378), fill=ACCENT)
    draw.text(
        (60, 404),
        "Faces sharp again. Every other pixel untouched.",
        PAPER,
        ImageFont.load_default(27),
    )
    return picture


def main() -> None:
    """Write both pictures."""
    icon().save(IMAGES / "icon.png", optimize=True)
    banner().quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
        IMAGES / "banner.png", optimize=True
    )


if __name__ == "__main__":
    main()
