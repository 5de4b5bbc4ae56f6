"""The pictures and figures of docs/quality.md, made with the bundled model.

    python -m benchmarks.quality color --photos PORTRAIT ... --measure FOLDER ...

scikit-image's astronaut is always the first photo. Each section of the page is a function here.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gfp_core.align import align
from gfp_core.color import apply_color
from gfp_core.color.enhance import enhance
from gfp_core.color.spaces import (
    linear_to_rgb,
    oklab_to_rgb,
    rgb_to_lab,
    rgb_to_linear,
    rgb_to_oklab,
)
from gfp_core.crops import exchange_crops, faces_from_crops
from gfp_core.degradation import degrade
from gfp_core.faces import Face, Faces
from gfp_core.geometry import face_ellipse
from gfp_core.io.images import read_image, to_frames
from gfp_core.masks import make_masks
from gfp_core.options import Blend, ColorMode, Mask
from gfp_core.paste import paste
from gfp_core.pipeline import FaceRestorer
from gfp_core.sharpness import auto_strength
from gfp_core.training.prepare import person_of

from . import quality_faces, quality_presets

logger = logging.getLogger("quality")

QUALITY = 85
"""Of the JPEG files."""


class Bench:
    """The photos, the model, and where the pictures go."""

    def __init__(
        self, photos: Sequence[Path], measured: Sequence[Path], out: Path, embedder: str
    ) -> None:
        """Load the model and the photos.

        Args:
            photos: portraits for the pictures.
            measured: folders of portraits for the figures; none, no figures.
            out: folder of the pictures.
            embedder: tells people apart; loaded where it is needed.
        """
        self.model = FaceRestorer.load("lite", device="cpu")
        astronaut = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None].float() / 255
        self.photos = [astronaut, *(to_frames(read_image(path))[:, :3] for path in photos)]
        self.measured = [path for folder in measured for path in sorted(folder.glob("*.jpg"))]
        self.out = out
        self.embedder = embedder

    def clean(self, photo: Tensor) -> Faces:
        """The largest face of a photo (1, 3, H, W), aligned."""
        found = self.model.detector.detect(photo)
        return align(photo, found.largest(), self.model.restorer.size)

    def degraded(self, clean: Faces, seed: int) -> Faces:
        """The face degraded by GFP-GAN's eq. 10, and restored."""
        assert clean.crops is not None
        pixels = (clean.crops[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        worse = degrade(pixels, np.random.default_rng(seed))
        crops = torch.from_numpy(worse).permute(2, 0, 1)[None].float() / 255
        return self.model.restorer.restore(replace(clean, crops=crops))

    def save(self, name: str, rows: Sequence[Sequence[tuple[str, Tensor]]], side: int) -> None:
        """Write a sheet: every picture (1, 3, H, W) with its label, in tiles of one height."""
        sheet = []
        for row in rows:
            tiles = []
            for label, picture in row:
                width = round(side * picture.shape[3] / picture.shape[2])
                pixels = F.interpolate(picture, (side, width), mode="area")[0]
                tile = (pixels.permute(1, 2, 0).numpy() * 255).round().clip(0, 255)
                tiles.append(np.concatenate([_label(label, width), tile.astype(np.uint8)]))
            sheet.append(np.concatenate(tiles, axis=1))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.jpg"
        pixels = np.concatenate(sheet)[..., ::-1]
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        logger.info("%s: %d kB", path, path.stat().st_size // 1000)


def _label(text: str, width: int) -> NDArray[np.uint8]:
    """White, with a line of text."""
    strip = np.full((18, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


# Colour


def shift(crops: Tensor, gains: Tensor, saturation: Tensor) -> Tensor:
    """Crops (N, 3, S, S) in another light and with more or less colour, as other restorers do."""
    lit = linear_to_rgb(rgb_to_linear(crops) * gains.view(-1, 3, 1, 1)).clamp(0, 1)
    lab = rgb_to_oklab(lit)
    return oklab_to_rgb(torch.cat([lab[:, :1], lab[:, 1:] * saturation.view(-1, 1, 1, 1)], 1))


def color(bench: Bench) -> None:
    """The modes of ``--color``, the grey guard, and the automatic enhancement."""
    warm = torch.tensor([1.15, 0.95, 0.75])
    modes: tuple[ColorMode, ...] = ("match", "mean_std", "low_frequency", "input", "lightness")
    guard: list[tuple[str, Tensor]] = []
    for seed, photo in enumerate(bench.photos):
        clean = bench.clean(photo)
        faces = bench.degraded(clean, seed)
        assert clean.crops is not None
        assert faces.crops is not None
        assert faces.restored is not None
        shifted = replace(faces, restored=shift(faces.restored, warm, torch.ones(1)).clamp(0, 1))
        row = [("photograph", clean.crops), ("input", faces.crops), ("restorer", shifted.restored)]
        row += [(mode, apply_color(shifted, mode).restored) for mode in modes]
        bench.save(f"quality_color_{seed}", [row], 128)

        # A monochrome print, and what a restorer that paints skin tones makes of it.
        grey = faces.crops.mean(dim=1, keepdim=True)
        paper = torch.tensor([[0.95, 0.86, 0.68], [1.0, 1.0, 1.0]][seed % 2]).view(1, 3, 1, 1)
        print_ = bench.model.restorer.restore(replace(faces, crops=grey * paper))
        colors = replace(print_, crops=print_.restored, restored=shifted.restored)
        painted = apply_color(colors, "lightness", keep_monochrome="off").restored
        toned = replace(print_, restored=painted)
        guard += [("input", grey * paper), ("restorer", painted)]
        guard += [("auto", apply_color(toned).restored)]
        guard += [("auto, unguarded", apply_color(toned, keep_monochrome="off").restored)]
        if seed == 0:
            cold = shift(clean.crops, torch.tensor([0.75, 0.95, 1.15]), torch.ones(1)).clamp(0, 1)
            ellipse = torch.from_numpy(face_ellipse(cold.shape[-1])).float()[None, None]
            reference = torch.cat([cold, ellipse], dim=1)
            like = apply_color(faces, "reference", reference=reference).restored
            more = [("restorer", faces.restored), ("reference file", cold), ("reference", like)]
            more += [("enhance", apply_color(faces, "enhance").restored)]
    bench.save("quality_color_grey", [guard[:8]], 128)
    bench.save("quality_color_reference", [more], 160)

    dull = 0.25 + 0.45 * (0.6 * bench.photos[0] + 0.4 * bench.photos[0].mean(1, keepdim=True))
    dull = dull * torch.tensor([1.0, 0.92, 0.78]).view(1, 3, 1, 1)
    whole = [[("a faded photograph", dull), ("enhance", enhance(dull))]]
    whole[0] += [("a good one", bench.photos[0]), ("enhance", enhance(bench.photos[0]))]
    bench.save("quality_enhance", whole, 220)
    if bench.measured:
        measure_color(bench)


def measure_color(bench: Bench) -> None:
    """Print how far each mode stays from the clean photographs of held-out people."""
    people = {path.name: person_of(path.name) for path in bench.measured}
    held_out_people = sorted(set(people.values()))[7::8]  # every eighth, as `gfp prepare` does
    held_out = {name for name, person in people.items() if person in held_out_people}
    generator = torch.Generator().manual_seed(0)
    modes: tuple[ColorMode, ...] = (
        "restorer",
        "match",
        "mean_std",
        "low_frequency",
        "input",
        "lightness",
    )
    results: dict[str, list[tuple[float, float]]] = {}
    for seed, path in enumerate(path for path in bench.measured if path.name in held_out):
        clean = bench.clean(to_frames(read_image(path))[:, :3])
        faces = bench.degraded(clean, seed)
        assert clean.crops is not None
        assert faces.restored is not None
        gains = 1 + 0.15 * (2 * torch.rand(3, generator=generator) - 1)
        saturation = 0.75 + 0.5 * torch.rand(1, generator=generator)
        other = shift(faces.restored, gains, saturation).clamp(0, 1)
        for mode in modes:
            for kind, restored in (("as it is", faces.restored), ("shifted", other)):
                colored = apply_color(replace(faces, restored=restored), mode).restored
                assert colored is not None
                results.setdefault(f"{mode} | {kind}", []).append(_errors(colored, clean.crops))
        logger.info("%s", path.name)
    print("| mode | restorer | PSNR | colour error, mean | worst face |\n|---|---|---|---|---|")
    for name, errors in results.items():
        psnr, distance = np.array(errors).T
        print(f"| {name} | {psnr.mean():.2f} | {distance.mean():.2f} | {distance.max():.2f} |")
    print(f"{len(errors)} faces")


def _errors(crops: Tensor, clean: Tensor) -> tuple[float, float]:
    """PSNR in dB, and the distance in a* and b* of means over 32 px blocks, both in the ellipse."""
    inside = torch.from_numpy(face_ellipse(clean.shape[-1]))
    error = (crops - clean).square()[..., inside].mean()
    small = torch.from_numpy(face_ellipse(16))
    tints = [rgb_to_lab(F.interpolate(x, (16, 16), mode="area"))[:, 1:] for x in (crops, clean)]
    distance = (tints[0] - tints[1]).norm(dim=1)[..., small].mean()
    return float(-10 * torch.log10(error)), float(distance)


# Masks


def masks(bench: Bench) -> None:
    """Outlines, and what stands before a face."""
    rows, before = [], []
    for photo in bench.photos:
        faces = bench.clean(photo)
        assert faces.crops is not None
        shapes = {"ellipse": Mask(), "box": Mask("box"), "hull": Mask("hull")}
        shapes |= {"ellipse, --grow -0.05": Mask(grow=-0.05), "--feather 0.02": Mask(feather=0.02)}
        row = [("photograph", faces.crops)]
        for name, mask in shapes.items():
            shown = faces.crops * (0.3 + 0.7 * make_masks(faces, mask)[:, None])
            row.append((name, shown))
        rows.append(row)

        worn = faces.crops[0].permute(1, 2, 0).numpy().copy()
        for x in (193, 319):
            cv2.ellipse(worn, (x, 245), (52, 38), 0, 0, 360, (0.1, 0.08, 0.08), 7, cv2.LINE_AA)
        cv2.line(worn, (245, 240), (267, 240), (0.1, 0.08, 0.08), 7, cv2.LINE_AA)
        bare = bench.degraded(faces, 0)
        glasses = torch.from_numpy(worn).permute(2, 0, 1)[None]
        seen = bench.degraded(replace(faces, crops=glasses), 0)
        # The bundled model erases nothing; a net that does is stood in for by the face without.
        erased = replace(seen, restored=bare.restored)
        assert erased.crops is not None
        frames = erased.crops
        alone = exchange_crops(faces_from_crops(frames), erased.restored)
        row = [("input", frames), ("restorer", erased.restored)]
        for name in ("off", "on"):
            mask = Mask(occlusion=name)
            row.append((f"--occlusion {name}", paste(frames, alone, mask=mask)[0]))
        row.append(("its mask", make_masks(alone, Mask(occlusion="on"))[:, None].expand_as(frames)))
        before.append(row)
    bench.save("quality_masks", rows, 160)
    bench.save("quality_occlusion", before, 192)


# Blending


def blending(bench: Bench) -> None:
    """Detail of large faces, seams, strength by face, and grain."""
    rows: dict[str, list[list[tuple[str, Tensor]]]] = {}
    for seed, photo in enumerate(bench.photos):
        found = bench.model.detector.detect(photo).largest()
        face = found.faces[0]

        def cut(picture: Tensor, share: float = 0.6, face: Face = face) -> Tensor:
            x, y = face.landmarks[:3].mean(axis=0)
            half = share * max(face.width, face.height) / 2
            left, top = max(0, int(x - half)), max(0, int(y - half))
            part = picture[:, :, top : int(y + half), left : int(x + half)].clamp(0, 1)
            side = min(part.shape[2:])
            return part[:, :, :side, :side]

        if seed:  # the astronaut's face is small
            # To a crop of 256 px, as a face of twice the size would be to the model's own.
            faces = align(photo, found, 256)
            faces = replace(faces, restored=faces.crops)
            row = [("photograph", cut(photo, 0.4))]
            for detail in (0.0, 1.0):
                image = paste(photo, faces, blend=Blend(detail=detail))[0]
                row.append((f"--detail {detail:.0f}", cut(image, 0.4)))
            noise = np.random.default_rng(seed).standard_normal(photo.shape).astype(np.float32)
            grainy = (photo + torch.from_numpy(noise) * (10 / 255)).clamp(0, 1)
            faces = bench.model.restorer.restore(align(grainy, found, bench.model.restorer.size))
            for name, value in (("noisy", None), ("--grain 0", 0.0), ("--grain 1", 1.0)):
                blend = Blend(grain=value or 0.0)
                image = grainy if value is None else paste(grainy, faces, blend=blend)[0]
                row.append((name, cut(image, 0.4)))
            rows.setdefault("detail", []).append(row)
        faces = bench.model.restorer.restore(align(photo, found, bench.model.restorer.size))
        assert faces.restored is not None
        strength = auto_strength(photo, found)
        row = [("photograph", cut(photo))]
        row.append(("strength 1", cut(paste(photo, faces)[0])))
        label = f"automatic: {float(strength[0]):.2f}"
        row.append((label, cut(paste(photo, faces, strength=strength)[0])))
        darker = replace(faces, restored=faces.restored * 0.8)
        for name, seam in (("darker, one fade", False), ("by bands", True)):
            image = paste(photo, darker, mask=Mask(feather=0.03), blend=Blend(multiband=seam))[0]
            row.append((name, cut(image, 1.3)))
        rows.setdefault("strength", []).append(row)
    for name, sheet in rows.items():
        bench.save(f"quality_{name}", sheet, 192)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "color": color,
    "masks": masks,
    "blending": blending,
    "choosing": quality_faces.choosing,
    "identity": quality_faces.identity,
    "frames": quality_faces.frames,
    "presets": quality_presets.presets,
}
"""The sections of docs/quality.md, in its order."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; by default all")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="portraits to show")
    parser.add_argument("--measure", type=Path, nargs="*", default=[], help="folders of portraits")
    parser.add_argument(
        "--embedder", default="face-descriptor", help="name or file; tells people apart"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    bench = Bench(options.photos, options.measure, options.out, options.embedder)
    for name, section in SECTIONS.items():
        if name in (options.sections or SECTIONS):
            section(bench)


if __name__ == "__main__":
    main()
