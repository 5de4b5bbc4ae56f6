"""Train the bundled lite model: ``python -m gfp_core.training.lite prepare|train|export``.

Reconstruction only (L1 at full size and at every scale of the U-Net, and feature loss): GFP-GAN
eq. 5 with the intermediate restoration losses of section 3.2. The run can be stopped at any time and
goes on where its last checkpoint was made, with the same samples and the same weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from ..networks.lite import GFPGANLite
from .data import MARGIN, FacePairs, split_people, to_net
from .losses import FeatureLoss

logger = logging.getLogger(__name__)

SIZE = 512
SEED = 0


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
    net = GFPGANLite().to(device, memory_format=torch.channels_last)
    ema = copy.deepcopy(net).requires_grad_(False)
    feature_loss = FeatureLoss().to(device, memory_format=torch.channels_last)
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

    pairs = FacePairs(faces, args.steps * args.batch, seed=SEED, size=SIZE)
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
                restored, heads = forward_with_heads(net, x)
                restored = restored.float()
                feature = feature_loss(restored, y)
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
                    mean.lerp_(value, 1 - decay)
            for key, value in (("l1", l1), ("pyramid", pyramid), ("feature", feature)):
                losses[key] += value.item() / args.log_every
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


def forward_with_heads(net: GFPGANLite, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The restored faces and the U-Net's picture at each scale, all RGB in [-1, 1]."""
    raise NotImplementedError
