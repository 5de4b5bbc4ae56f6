"""How much of a restored face is best for how sharp a face: the table of docs/quality.md.

    python -m benchmarks.strength DATA --model lite --face-api PACKAGE

Held-out faces are spoiled less and more, restored, and mixed with their inputs by several
strengths. A cell holds PSNR in dB, angle of the descriptors in degrees, distance of the skin. What
automatic strength
(`gfp_core.sharpness.auto_strength`) makes of each stands in the last column.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfp_core.degradation import DegradationRanges, degrade
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.metrics.distances import IdentityDistance, psnr
from gfp_core.networks.fast import fast_form
from gfp_core.pipeline import find_model
from gfp_core.sharpness import auto_strength, face_sharpness
from gfp_core.training.pack import FacePack
from gfp_core.weights.loading import load_network

from .skin import cheeks, colour

STRENGTHS = (0.0, 0.3, 0.6, 0.8, 1.0)


def ranges(blur: float, shrunk: float, noise: float, quality: float) -> DegradationRanges:
    """One degree of spoiling, not a range."""
    return DegradationRanges((blur, blur), (shrunk, shrunk), (noise, noise), (quality, quality))


CONDITIONS = {
    "photograph": None,
    "JPEG 90": ranges(0.1, 1.0, 0.0, 90.0),
    "JPEG 40": ranges(0.1, 1.0, 0.0, 40.0),
    "noise of 6 levels": ranges(0.1, 1.0, 6.0, 98.0),
    "noise of 12, JPEG 90": ranges(0.1, 1.0, 12.0, 90.0),
    "shrunk by 1.5, JPEG 90": ranges(0.3, 1.5, 2.0, 90.0),
    "shrunk by 2, JPEG 90": ranges(0.5, 2.0, 2.0, 90.0),
    "blur 2, JPEG 95": ranges(2.0, 1.0, 0.0, 95.0),
    "shrunk by 3, JPEG 80": ranges(1.0, 3.0, 4.0, 80.0),
    "blur 4, shrunk by 4, JPEG 70": ranges(4.0, 4.0, 8.0, 70.0),
}


def as_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="made by gfp prepare; its validation people")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--face-api", type=Path, required=True, help="the face descriptor")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pack = FacePack(options.data)
    net = fast_form(load_network(*find_model(options.model)).eval())
    identity = IdentityDistance(options.face_api)
    face = Face(0, (100.0, 80.0, 412.0, 480.0), 1.0, TEMPLATE.astype(np.float32))
    head = " | ".join(f"{strength:g}" for strength in STRENGTHS)
    print(f"| input | sharpness | {head} | automatic |\n|---|---{'|---' * (len(STRENGTHS) + 1)}|")
    for name, spoiled in CONDITIONS.items():
        values: list[list[tuple[float, float, float]]] = []
        sharp, share = [], []
        for index in pack.of("validation"):
            clean = pack.centre(index)
            places = cheeks(pack.regions(index) - [pack.margin, pack.margin, 0], pack.size)
            rng = np.random.default_rng((5, index))
            bad, truth = (
                as_tensor(degrade(clean, rng, spoiled) if spoiled else clean),
                as_tensor(clean),
            )
            faces = Faces((face,), ((pack.size, pack.size),))
            sharp.append(float(face_sharpness(bad, faces)[0]))
            share.append(float(auto_strength(bad, faces)[0]))
            with torch.inference_mode():
                restored = (net(bad * 2 - 1) / 2 + 0.5).clamp(0, 1)
                row = []
                for strength in (*STRENGTHS, share[-1]):
                    mixed = bad.lerp(restored, strength)
                    skin = (colour(mixed[0], places) - colour(truth[0], places)).norm()
                    distance = min(float(psnr(mixed, truth)), 99.0)
                    row.append((distance, float(identity(mixed, truth)), float(skin)))
            values.append(row)
        means = np.mean(values, axis=0)
        cells = " | ".join(f"{dB:.2f}, {angle:.1f}, {skin:.2f}" for dB, angle, skin in means)
        print(
            f"| {name} | {np.median(sharp):.2f} | {cells} (at {np.mean(share):.2f}) |", flush=True
        )


if __name__ == "__main__":
    main()
