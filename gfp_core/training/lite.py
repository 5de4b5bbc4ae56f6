"""Train the bundled lite model: ``python -m gfp_core.training.lite prepare|train|export``.

Reconstruction only (L1 at full size and at every scale of the U-Net, and a feature loss): GFP-GAN
eq. 5 with the intermediate restoration losses of section 3.2. MobileNetV2 stands in for eq. 5's
VGG-19, whose weights must be downloaded. The run can be stopped at any time and goes on from its
last checkpoint, with the samples that come next.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from ..detect import load_detector
from ..evaluation.metrics import FeatureDistance
from ..evaluation.report import evaluate, markdown, sheet, standard_metrics
from ..images import read_image, to_frames
from ..networks.lite import GFPGANLite
from ..weights.loading import load_network
from .data import MARGIN, FacePairs, prepare_face, split_people, to_net
from .degradations import degrade

logger = logging.getLogger(__name__)

SEED = 0
FEATURE_STAGES = (1, 3, 6, 10, 13, 16)
"""Blocks of MobileNetV2 in the loss: 256, 128, 64, 32, 32 and 16 px of a 512 px face."""
DATA_CREDITS = (
    "Face Research Lab London Set (version 5), L. DeBruine and B. Jones, 2017, "
    "doi 10.6084/m9.figshare.5047666.v5, CC BY 4.0; portraits of the Faker project's "
    "person-portrait assets, CC0 1.0"
)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A short warm-up, ``peak`` for half of the run, then a cosine down to a hundredth."""
    if step < 100:
        return peak * (step + 1) / 100
    progress = max(0.0, (step / steps - 0.5) / 0.5)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def pyramid_loss(heads: list[Tensor], clean: Tensor) -> Tensor:
    """Section 3.2: mean L1 of the U-Net's picture at each scale against the clean picture there."""
    losses = []
    for head in heads:
        target = F.adaptive_avg_pool2d(clean, head.shape[-1])
        losses.append((head.float() - target).abs().mean())
    return torch.stack(losses).mean()


def prepare(args: argparse.Namespace) -> None:
    """Find and align the largest face of every photograph of the folders, into one file.

    Raises:
        ValueError: no photograph holds a face.
    """
    detector = load_detector(args.detector)
    faces, names = [], []
    files = [file for folder in args.photos for file in sorted(folder.iterdir())]
    for file in tqdm(files, unit="photo"):
        if file.suffix.lower() not in {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}:
            continue
        picture = read_image(file)
        found = detector.detect(to_frames(picture), long_side=args.long_side, flip=True)
        if not len(found):
            logger.warning("%s: no face", file)
            continue
        largest = max(found.faces, key=lambda face: face.width * face.height)
        faces.append(prepare_face(picture.pixels[..., :3], largest))
        names.append(file.name)
    if not faces:
        raise ValueError(f"no face in {', '.join(map(str, args.photos))}")
    args.out.mkdir(parents=True, exist_ok=True)
    temporary = args.out / "faces.tmp.npz"
    np.savez(temporary, faces=np.stack(faces), names=np.array(names))
    os.replace(temporary, args.out / "faces.npz")
    logger.info("%d faces of %d files", len(faces), len(files))


def export(args: argparse.Namespace) -> None:
    """Write the averaged weights as the bundled safetensors file, with their origin."""
    state = torch.load(args.run / "state.pt", map_location="cpu", weights_only=True)
    metadata = {
        "name": "lite",
        "architecture": "GFPGANLite",
        "origin": "trained by this project from scratch; not a model of the GFP-GAN paper",
        "training": args.command_line,
        "steps": str(state["step"]),
        "data": DATA_CREDITS,
        "license": "Apache-2.0",
        "results": args.results,
    }
    weights = {key: value.half().contiguous() for key, value in state["ema"].items()}
    temporary = args.out.with_suffix(".tmp")
    save_file(weights, temporary, metadata)
    temporary.chmod(0o644)  # safetensors makes files only the owner can read
    os.replace(temporary, args.out)


def evaluate_model(args: argparse.Namespace) -> None:
    """Measure a model on the held-out people; print the table, write a picture sheet."""
    torch.set_num_threads(args.threads)
    faces, names = load_faces(args.data)
    _, validation = split_people(names)
    chosen = [i for i, name in enumerate(names) if name in set(validation)]
    clean = [np.ascontiguousarray(faces[i][MARGIN:-MARGIN, MARGIN:-MARGIN]) for i in chosen]
    methods = {
        name: _stack(
            degrade(face, np.random.default_rng((SEED, i)), enlarge=how)
            for i, face in enumerate(clean)
        )
        for name, how in (("input", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC))
    }
    net = load_network(args.model)
    with torch.inference_mode():
        restored = [net(face[None] * 2 - 1)[0] * 0.5 + 0.5 for face in methods["input"]]
    methods["lite"] = torch.stack(restored).clamp(0, 1)
    truth = _stack(clean)
    table = evaluate(truth, methods, standard_metrics(args.face_api))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.md").write_text(markdown(table), encoding="utf-8")
    print(markdown(table))
    columns = {"input": methods["input"], "lite": methods["lite"], "ground truth": truth}
    for part, start in enumerate(range(0, len(clean), 6)):
        rows = sheet(columns, range(start, min(start + 6, len(clean))), size=320)
        pixels = (rows * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(args.out / f"sheet_{part}.jpg", quality=92)


def _stack(images: Iterable[NDArray[np.uint8]]) -> Tensor:
    """(N, 3, H, W) float in [0, 1] of (H, W, 3) uint8 pictures."""
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])


def load_faces(folder: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """The prepared faces (N, S, S, 3) uint8 RGB and the names of their photographs."""
    file = folder / "faces.npz"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: run `prepare` on a folder of photographs")
    with np.load(file) as data:
        return data["faces"], [str(name) for name in data["names"]]


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a stop in the middle leaves the one before in place."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(args: argparse.Namespace) -> None:
    """Train until ``args.steps`` or ``args.minutes``, resuming from ``args.run``/state.pt."""
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.run.mkdir(parents=True, exist_ok=True)
    faces, names = load_faces(args.data)
    training, _ = split_people(names)
    keep = set(training)
    faces = faces[[i for i, name in enumerate(names) if name in keep]]

    torch.manual_seed(SEED)
    device = torch.device(args.device)
    net = GFPGANLite().to(device)
    ema = copy.deepcopy(net).requires_grad_(False)
    feature_distance = FeatureDistance(stages=FEATURE_STAGES).to(device)
    optimiser = torch.optim.Adam(net.parameters(), lr=args.lr, betas=(0.9, 0.99))
    step = 0
    checkpoint = args.run / "state.pt"
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        logger.info("going on at step %d", step)

    pairs = FacePairs(faces, args.steps * args.batch, seed=SEED)
    rest = Subset(pairs, range(step * args.batch, len(pairs)))
    loader = DataLoader(
        rest, args.batch, num_workers=args.workers, worker_init_fn=lambda _: cv2.setNumThreads(1)
    )
    started, losses = time.monotonic(), dict.fromkeys(("l1", "pyramid", "feature"), 0.0)
    with (args.run / "log.jsonl").open("a") as log:
        for bad, clean in loader:
            x = to_net(bad.to(device)).contiguous(memory_format=torch.channels_last)
            y = to_net(clean.to(device)).contiguous(memory_format=torch.channels_last)
            rate = learning_rate(step, args.steps, args.lr)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
                restored, heads = net.forward_with_pyramid(x)
                restored = restored.float()
                feature = feature_distance(restored * 0.5 + 0.5, y * 0.5 + 0.5).mean()
            l1 = (restored - y).abs().mean()
            pyramid = pyramid_loss(heads, y)
            loss = args.l1 * l1 + args.pyramid * pyramid + args.feature * feature
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
            optimiser.step()
            step += 1
            # A young average forgets fast, so that it does not lag behind in the first steps.
            decay = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                for mean, value in zip(ema.parameters(), net.parameters(), strict=True):
                    mean.lerp_(value.detach(), 1 - decay)
            for key, term in (("l1", l1), ("pyramid", pyramid), ("feature", feature)):
                losses[key] += term.item() / args.log_every
            if step % args.log_every == 0:
                seconds = time.monotonic() - started
                log.write(json.dumps({"step": step, "lr": rate, "seconds": seconds, **losses}))
                log.write("\n")
                log.flush()
                losses = dict.fromkeys(losses, 0.0)
            late = time.monotonic() - started > args.minutes * 60
            if step % args.save_every == 0 or step == args.steps or late:
                save_atomically(
                    {
                        "net": net.state_dict(),
                        "ema": ema.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                    },
                    checkpoint,
                )
            if late:
                logger.info("stopped after %.0f minutes at step %d", args.minutes, step)
                break


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="find and align the faces of photographs")
    command.add_argument("photos", type=Path, nargs="+", help="folders of photographs")
    command.add_argument("--out", type=Path, required=True, help="folder for faces.npz")
    command.add_argument("--detector", default="retinaface_mobile025")
    command.add_argument("--long-side", type=int, default=None, help="shrink for detection")
    command.set_defaults(run_command=prepare)
    command = commands.add_parser("export", help="write the averaged weights as safetensors")
    command.add_argument("--run", type=Path, default=Path("runs/lite"))
    command.add_argument("--out", type=Path, required=True, help="the .safetensors file")
    command.add_argument("--command-line", required=True, help="how it was trained, to record")
    command.add_argument("--results", required=True, help="measured results, to record")
    command.set_defaults(run_command=export)
    command = commands.add_parser("evaluate", help="measure a model on the held-out people")
    command.add_argument("--data", type=Path, required=True, help="folder made by prepare")
    command.add_argument("--model", type=Path, required=True, help="the .safetensors file")
    command.add_argument("--face-api", type=Path, help="package or folder of @vladmandic/face-api")
    command.add_argument("--out", type=Path, required=True, help="folder for table and pictures")
    command.add_argument("--threads", type=int, default=2)
    command.set_defaults(run_command=evaluate_model)
    command = commands.add_parser("train", help="train, or go on training")
    command.add_argument("--data", type=Path, required=True, help="folder made by prepare")
    command.add_argument("--run", type=Path, default=Path("runs/lite"), help="checkpoints, log")
    command.add_argument("--steps", type=int, default=6000, help="length of the whole run")
    command.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    command.add_argument("--batch", type=int, default=4)
    command.add_argument("--lr", type=float, default=5e-4, help="peak learning rate")
    command.add_argument("--l1", type=float, default=1.0, help="weight of L1")
    command.add_argument("--pyramid", type=float, default=0.5, help="weight of the U-Net's L1")
    command.add_argument("--feature", type=float, default=0.5, help="weight of the feature loss")
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--workers", type=int, default=1, help="processes that degrade faces")
    command.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    command.add_argument("--log-every", type=int, default=20)
    command.add_argument("--save-every", type=int, default=200)
    command.set_defaults(run_command=train)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.run_command(args)


if __name__ == "__main__":
    main()
