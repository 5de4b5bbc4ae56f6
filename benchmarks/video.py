"""How much restored faces flicker: in order as clips are, frame by frame, and before.

Clips are made of photographs: a still portrait with noise, a slow pan and zoom, two people who
cross, and a cut. ``python -m benchmarks.video FACES OUT`` prints the table of docs/video.md and
writes its film strip; FACES is a folder with two portraits or more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfp_core import FaceRestorer, RestoreOptions
from gfp_core.pipeline import Restoration

WIDTH, HEIGHT, NOISE = 320, 240, 6 / 255
Pixels = NDArray[np.float32]


def portrait(path: Path, side: int = 240) -> Pixels:
    """Return a photograph as (side, side, 3), as sharp as at half that size."""
    pixels = cv2.imread(str(path))[:, :, ::-1]
    edge = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - edge) // 3, (pixels.shape[1] - edge) // 2
    pixels = pixels[top : top + edge, left : left + edge]
    small = cv2.resize(pixels, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255


def scene(
    people: list[tuple[Pixels, Callable[[float], tuple[float, float, float]]]], time: float
) -> Pixels:
    """Return a frame with portraits at (left, top, scale) on gray."""
    frame = np.full((HEIGHT, WIDTH, 3), 0.45, np.float32)
    for pixels, where in people:
        left, top, scale = where(time)
        matrix = np.array([[scale, 0, left], [0, scale, top]], np.float32)
        cv2.warpAffine(
            pixels, matrix, (WIDTH, HEIGHT), frame, cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT
        )
    return frame


def clips(first: Pixels, second: Pixels, count: int) -> dict[str, list[Pixels]]:
    """Return the frames of each clip, without noise."""
    times = [index / (count - 1) for index in range(count)]
    moves = {
        "still": [(first, lambda _: (40, 0, 1.0))],
        "pan and zoom": [(first, lambda t: (10 + 40 * t, -10 * t, 1.0 + 0.15 * t))],
        "two cross": [
            (first, lambda t: (-10 + 150 * t, 40, 0.75)),
            (second, lambda t: (150 - 150 * t, 40, 0.75)),
        ],
    }
    made = {name: [scene(people, t) for t in times] for name, people in moves.items()}
    half = count // 2
    after = [(second, lambda t: (60 - 30 * t, 0, 1.0))]
    made["cut"] = made["still"][:half] + [1.15 * scene(after, t) - 0.1 for t in times[half:]]
    return made


def as_tensor(frame: Pixels) -> Tensor:
    """Return a frame as (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None]


def flicker(frames: list[Pixels], clean: list[Pixels], masks: list[Pixels]) -> float:
    """Return the root mean square of what differs from frame to frame, in levels.

    Each frame is compared with the next one, brought back along the optical flow of the clip
    without noise, where there is a face. Cuts, and what comes into sight, are left out.
    """
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), 2).astype(np.float32)
    total = weight = 0.0
    for index in range(len(frames) - 1):
        gray = [
            cv2.cvtColor((clean[at].clip(0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
            for at in (index, index + 1)
        ]
        flow = grid + finder.calc(gray[0], gray[1], None)

        def back(frame: Pixels, flow: Pixels = flow) -> Pixels:
            return cv2.remap(frame, flow, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

        seen = np.abs(clean[index] - back(clean[index + 1])).max(axis=2) < 0.05
        area = seen & (masks[index] > 0.5)
        if area.sum() < 0.5 * (masks[index] > 0.5).sum():  # a cut
            continue
        difference = (frames[index] - back(frames[index + 1]))[area]
        total += float(np.square(difference, dtype=np.float64).sum())
        weight += 3 * area.sum()
    return 255 * (total / max(weight, 1)) ** 0.5


def jitter(results: list[Restoration]) -> float:
    """Return the root mean square of the landmarks' second difference over time, in pixels."""
    points = [
        sorted((face.landmarks for face in each.faces.faces), key=lambda p: float(p[0, 0]))
        for each in results
    ]
    bends = [
        after[0] - 2 * middle[0] + before[0]
        for before, middle, after in zip(points, points[1:], points[2:], strict=False)
        if len(before) == len(middle) == len(after) == 1
        and np.abs(after[0] - middle[0]).max() < 20 > np.abs(middle[0] - before[0]).max()
    ]
    return float(np.sqrt(np.mean(np.square(bends)))) if bends else float("nan")


def measure(restorer: FaceRestorer, clean: list[Pixels]) -> tuple[list[float], list[list[Pixels]]]:
    """Return the figures of a clip, and its frames before, frame by frame, and in order."""
    generator = np.random.default_rng(0)
    noisy = [
        (frame + NOISE * generator.standard_normal(frame.shape)).astype(np.float32).clip(0, 1)
        for frame in clean
    ]
    tensors = [as_tensor(frame) for frame in noisy]
    options = RestoreOptions()
    alone = [restorer.restore(each, options) for each in tensors]
    ordered = list(restorer.stream(tensors, options))
    masks = [each.mask[0].numpy() for each in ordered]
    pictures = [
        noisy,
        *([each.frames[0].permute(1, 2, 0).numpy() for each in row] for row in (alone, ordered)),
    ]
    blurred = [[cv2.blur(frame, (8, 8)) for frame in frames] for frames in pictures]
    levels = [flicker(frames, clean, masks) for frames in (*pictures, *blurred)]
    return [*levels, jitter(alone), jitter(ordered)], pictures


def strip(rows: list[list[Pixels]], columns: list[int]) -> Pixels:
    """Return a film strip: before, frame by frame, in order; below each, what changed.

    The change since the frame before is shown of means over 8 x 8 pixels, sixteen times as strong.
    """
    lines = []
    for frames in rows:
        parts = [frame[20:220, 70:250] for frame in frames]
        lines.append(np.concatenate([parts[index] for index in columns], axis=1))
        means = [cv2.blur(part, (8, 8)) for part in parts]
        changes = [0.5 + 16 * (means[index] - means[index - 1]) for index in columns]
        lines.append(np.concatenate(changes, axis=1))
    return np.concatenate(lines).clip(0, 1)


def main() -> None:
    """Print the table and write the strip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, nargs=2)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    people = [portrait(path) for path in arguments.faces]
    restorer = FaceRestorer.load()
    kinds = [f"{kind}: before | alone | in order" for kind in ("pixels", "8 x 8 means")]
    print(f"| clip | {' | '.join(kinds)} | landmarks: alone | in order |")
    print("|---" * 9 + "|", flush=True)
    for name, clean in clips(people[0], people[1], arguments.frames).items():
        figures, rows = measure(restorer, clean)
        cells = [f"{value:.2f}" for value in figures]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if name == "still":
            sheet = strip(rows, list(range(len(clean) // 2, len(clean) // 2 + 4)))
            small = cv2.resize(sheet, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
            pixels = (small[:, :, ::-1] * 255).round().astype(np.uint8)
            cv2.imwrite(str(arguments.output), pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
