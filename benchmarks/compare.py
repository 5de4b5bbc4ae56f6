"""The table of docs/performance.md: `gfp bench` with GFPGAN's network, and with the large detector.

    python -m benchmarks.compare --out build/benchmark

The restorer's weights are seeded random numbers: what they make of a face is noise, but takes the
same time. Ratios are reference / ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import save_file

from gfp_core.evaluation.speed import Bench, large_detection, tiled_astronaut
from gfp_core.evaluation.timing import machine, markdown, measure
from gfp_core.networks.gfpgan import GFPGANClean

logger = logging.getLogger("compare")


def random_gfpgan(path: Path) -> Path:
    """Write a GFPGAN (clean, 512 pixels, channel multiplier 2) with seeded random weights."""
    torch.manual_seed(0)
    state = GFPGANClean().state_dict()
    for name, tensor in state.items():
        if name.endswith("bias") or "noise" in name:  # zeros at the start: nobody may skip them
            tensor.add_(0.05 * torch.randn_like(tensor))
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    return path


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photo", type=Path, help="a photo; by default the tiled astronaut")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--across", type=int, default=2, help="astronauts beside each other")
    parser.add_argument("--large-size", type=int, nargs=2, default=(1920, 1080), metavar=("W", "H"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", nargs="+", help="only steps whose name holds one of these words")
    parser.add_argument("--alone", type=int, default=0, help="runs in processes of their own")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if options.photo is None:
        photo, about = (
            tiled_astronaut(*options.size, across=options.across),
            "scikit-image's astronaut",
        )
    else:
        bgr = cv2.imread(str(options.photo))
        if bgr is None:
            raise SystemExit(f"{options.photo} is no picture that OpenCV can read")
        photo, about = bgr[..., ::-1], options.photo.name
    report: dict[str, Any] = {
        "photo": f"{about}, {photo.shape[1]}x{photo.shape[0]}",
        "repetitions": options.repetitions,
        "machine": {**machine(), "device": options.device},
        "steps": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        model = random_gfpgan(Path(folder) / "gfpgan.safetensors")
        bench = Bench(photo, model, device=options.device)
        large = cv2.resize(photo, tuple(options.large_size), interpolation=cv2.INTER_AREA)
        steps = {"resnet": lambda: large_detection(large), **bench.steps}
        for name, make in steps.items():
            if not options.steps or any(word in name for word in options.steps):
                report["steps"].append(measure(make(), options.repetitions))
                logger.info("%s", name)
        if options.alone:
            report["alone"] = bench.alone(options.alone)
    text = markdown(report)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_name(options.out.name + ".json").write_text(json.dumps(report, indent=1))
        options.out.with_name(options.out.name + ".md").write_text(text)


if __name__ == "__main__":
    main()
