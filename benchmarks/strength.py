"""How much of a restored face is best for how sharp a face: the table of docs/quality.md.

    python -m benchmarks.strength DATA --model lite --face-api PACKAGE

Held-out faces are spoiled less and more, restored, and mixed with their inputs by several
strengths. A cell holds PSNR in dB, angle of the descriptors in degrees, distance of the skin. What
automatic strength (`gfp_core.sharpness.auto_strength`) makes of each stands in the last column.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gfp_core.degradation import DegradationRanges, degrade
from gfp_core.evaluation.speed import to_frames
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
    faces = Faces((face,), ((pack.size, pack.size),))
    head = " | ".join(f"{strength:g}" for strength in STRENGTHS)
    print(f"| input | sharpness | {head} | automatic |\n|---|---{'|---' * (len(STRENGTHS) + 1)}|")
    for name, spoiled in CONDITIONS.items():
        rows, sharpness, shares = [], [], []
        for index in pack.of("validation"):
            clean = pack.centre(index)
            cheek = cheeks(pack.regions(index) - [pack.margin, pack.margin, 0], pack.size)
            rng = np.random.default_rng((5, index))
            truth = to_frames(clean)
            poor = to_frames(degrade(clean, rng, spoiled)) if spoiled else truth
            sharp = face_sharpness(poor, faces)
            share = float(auto_strength(poor, faces, sharp)[0])
            with torch.inference_mode():
                restored = (net(poor * 2 - 1) / 2 + 0.5).clamp(0, 1)
                mixed = [poor.lerp(restored, strength) for strength in (*STRENGTHS, share)]
                rows.append([measure(each, truth, cheek, identity) for each in mixed])
            sharpness.append(float(sharp[0]))
            shares.append(share)
        means = np.mean(rows, axis=0)
        cells = " | ".join(f"{dB:.2f}, {angle:.1f}, {skin:.2f}" for dB, angle, skin in means)
        middle = np.median(sharpness)
        print(f"| {name} | {middle:.2f} | {cells} (at {np.mean(shares):.2f}) |", flush=True)


def measure(
    picture: Tensor, truth: Tensor, cheek: list[tuple[slice, slice]], identity: IdentityDistance
) -> tuple[float, float, float]:
    """PSNR in dB, at most 99, the descriptors' angle in degrees, and the distance of the skin."""
    skin = (colour(picture[0], cheek) - colour(truth[0], cheek)).norm()
    return min(float(psnr(picture, truth)), 99.0), float(identity(picture, truth)), float(skin)


if __name__ == "__main__":
    main()
