"""What learning a person gains: the tables of docs/person.md.

    python -m benchmarks.person PHOTOS --out DIR --learn neutral --test smiling --people 010,021

PHOTOS holds two pictures of each person, ``010_neutral.jpg`` and ``010_smiling.jpg``. A restorer is
learned from the one (``DIR/010_neutral.safetensors``; one that is there is not learned again), and
the other is degraded and restored by the base, by the person's own restorer, and by that of the
person before, a stranger. ``--steps`` takes several numbers, for a curve.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gfp_core.detect import FaceDetector, load_detector
from gfp_core.embed import load_embedder
from gfp_core.io.images import read_image, to_frames
from gfp_core.metrics.distances import FeatureDistance, psnr
from gfp_core.metrics.niqe import niqe
from gfp_core.networks.fast import fast_form
from gfp_core.person.learn import Learning
from gfp_core.person.make import Base, learn_person, load_base
from gfp_core.person.photographs import border_of, gather
from gfp_core.weights.loading import load_network
from gfp_core.weights.store import Weights
from gfp_core.wild import degrade_as

logger = logging.getLogger(__name__)

Embed = Callable[[Tensor], Tensor]
"""(N, 3, S, S) aligned faces in [0, 1] to (N, D) of length 1."""
CONDITIONS = ("paper", "severe")
DRAWS = 4
"""Degradations of each picture and condition."""
SEED = 77


def measured(restored: Tensor, clean: Tensor, embed: Embed, features: FeatureDistance) -> Tensor:
    """Measure restored faces: identity in degrees, features, NIQE, PSNR, (4,) means."""
    cosine = (embed(restored) * embed(clean)).sum(dim=1).clamp(-1, 1)
    columns = [
        torch.rad2deg(torch.arccos(cosine)),
        features(restored, clean),
        niqe(restored),
        psnr(restored, clean),
    ]
    return torch.stack([column.double().mean() for column in columns])


def face_of(path: Path, detector: FaceDetector, size: int) -> np.ndarray:
    """Cut the face out of a photograph: (S, S, 3) uint8."""
    portrait = gather([(path.name, to_frames(read_image(path)))], detector, size).portraits[0]
    border = border_of(size)
    return np.ascontiguousarray(portrait.face[border:-border, border:-border])


def learned_file(
    options: argparse.Namespace, base: Base, detector: FaceDetector, person: str, steps: int
) -> Path:
    """Learn a person, unless that was done."""
    path: Path = options.out / f"{person}_{options.learn}_{steps}.safetensors"
    if not path.exists():
        photo = options.photos / f"{person}_{options.learn}.jpg"
        begun = time.process_time()
        lesson = learn_person(
            base,
            [(photo.name, to_frames(read_image(photo)))],
            detector,
            Learning(steps=steps, rate=options.rate),
            embedder=load_embedder(options.embedder) if options.embedder else None,
        )
        lesson.difference.save(path)
        print(f"{path.name}: {time.process_time() - begun:.0f} s of CPU", flush=True)
    return path


@torch.inference_mode()
def test(
    options: argparse.Namespace,
    base: Base,
    detector: FaceDetector,
    files: dict[tuple[str, int], Path],
    embed: Embed,
) -> dict[tuple[str, str], list[Tensor]]:
    """Measure all, by condition and by whose restorer."""
    rows: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    features = FeatureDistance(options.features)
    for number, person in enumerate(options.people):
        clean = face_of(options.photos / f"{person}_{options.test}.jpg", detector, base.size)
        stranger = options.people[number - 1]
        nets = {"base": load_network(base.path)}
        for steps in options.steps:
            nets[f"own, {steps} steps"] = load_network(files[person, steps])
        nets["stranger's"] = load_network(files[stranger, options.steps[-1]])
        nets = {name: fast_form(net.eval()) for name, net in nets.items()}
        target = to_batch([clean] * DRAWS)
        for condition in CONDITIONS:
            seeds = [(SEED, int(person), draw) for draw in range(DRAWS)]
            poor = to_batch(
                [degrade_as(condition, clean, np.random.default_rng(seed))[0] for seed in seeds]
            )
            rows[condition, "input"].append(measured(poor, target, embed, features))
            for name, net in nets.items():
                faces = torch.cat([net(face[None] * 2 - 1) for face in poor]) / 2 + 0.5
                score = measured(faces.clamp(0, 1), target, embed, features)
                rows[condition, name].append(score)
    return rows


def to_batch(pictures: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 each to (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def judge(options: argparse.Namespace) -> Embed:
    """Load what judges identity: an embedder that learning did not see."""
    embedder = load_embedder(options.judge)

    def embed(faces: Tensor) -> Tensor:
        return F.normalize(embedder.embed(faces), dim=1)

    return embed


def table(rows: dict[tuple[str, str], list[Tensor]]) -> str:
    """Write the means as a table."""
    lines = [
        "| condition | whose restorer | identity | features | NIQE | PSNR |",
        "|---|---|---|---|---|---|",
    ]
    for (condition, name), scores in rows.items():
        identity, features, naturalness, noise = torch.stack(scores).mean(dim=0).tolist()
        lines.append(
            f"| {condition} | {name} | {identity:.1f} | {features:.3f} | {naturalness:.2f} | "
            f"{noise:.2f} |"
        )
    return "\n".join(lines)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=lambda text: text.split(","), required=True)
    parser.add_argument("--learn", default="neutral", help="which picture is learned from")
    parser.add_argument("--test", default="smiling", help="which picture is restored")
    parser.add_argument("--model", default="lite")
    parser.add_argument(
        "--steps", type=lambda text: [*map(int, text.split(","))], default=[Learning.steps]
    )
    parser.add_argument("--rate", type=float, default=Learning.rate)
    parser.add_argument("--embedder", help="judges likeness while learning")
    parser.add_argument("--judge", default="face-descriptor", help="what measures likeness")
    parser.add_argument("--features", type=Path, help="weights of MobileNetV2")
    return parser.parse_args()


def main(embed: Embed | None = None) -> None:
    """Run what the command line asks for.

    Args:
        embed: judges identity in place of ``--judge``.
    """
    options = parsed()
    options.out.mkdir(parents=True, exist_ok=True)
    base, detector = load_base(options.model, Weights()), load_detector()
    files = {
        (person, steps): learned_file(options, base, detector, person, steps)
        for steps in options.steps
        for person in options.people
    }
    rows = test(options, base, detector, files, embed or judge(options))
    by_name = {
        f"{condition} | {name}": torch.stack(scores).tolist()
        for (condition, name), scores in rows.items()
    }
    (options.out / "results.json").write_text(json.dumps(by_name), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
