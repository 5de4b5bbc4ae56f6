"""How much memory a clip takes, by its length: resident memory at its peak, a process a clip.

``python -m benchmarks.clip_memory 200 4000`` makes clips of that many frames, restores each in a
process of its own, and prints the peaks. Detector and network are stand-ins (a face that wanders,
and a convolution), unless ``--networks`` is given: what could grow with the length is the frames,
and no network keeps any of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfp_core.clips import restore_clip
from gfp_core.detect import FaceDetector
from gfp_core.faces import Face, Faces, Progress
from gfp_core.geometry import TEMPLATE
from gfp_core.io.video import import_av
from gfp_core.options import ClipOptions, RestoreOptions
from gfp_core.pipeline import FaceRestorer
from gfp_core.restore import Restorer

WIDTH, HEIGHT, RATE, FACE = 1280, 720, 30, 260


def write_clip(path: Path, frames: int) -> None:
    """Write a clip of H.264, whose picture moves, with sound."""
    av = import_av()
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 4, 3), np.uint8)
    wide = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = output.add_stream("aac", rate=48000, layout="stereo")
        for index in range(frames):
            left = index % WIDTH
            picture = np.ascontiguousarray(wide[:, left : left + WIDTH])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            samples = generator.standard_normal((2, 48000 // RATE)).astype(np.float32) / 50
            wave = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            wave.sample_rate, wave.pts = 48000, index * 48000 // RATE
            output.mux(sound.encode(wave))
        output.mux(stream.encode(None))
        output.mux(sound.encode(None))


class WanderingFace:
    """A detector that looks at nothing: one face, each time a step further to the right."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        """Begin at the left."""
        self._step = 0

    def detect(self, frames: Tensor, *, progress: Progress | None = None, **_: Any) -> Faces:
        """Return one face a frame."""
        faces = []
        for index in range(len(frames)):
            left = 40.0 + self._step % (WIDTH - FACE - 80)
            self._step += 1
            landmarks: NDArray[np.float32] = (TEMPLATE / 512 * FACE + (left, 200)).astype("float32")
            box = (left, 200.0, left + FACE, 200.0 + FACE)
            faces.append(Face(index, box, 0.99, landmarks))
            if progress is not None:
                progress(index + 1, len(frames))
        return Faces(tuple(faces), ((HEIGHT, WIDTH),) * len(frames))


class Blur(nn.Module):
    """A network of one convolution."""

    out_size = 256

    def __init__(self) -> None:
        """Make the convolution."""
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 5, padding=2, groups=3, bias=False)
        nn.init.constant_(self.convolution.weight, 1 / 25)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 3, S, S) blurred."""
        return cast(Tensor, self.convolution(x))


def resident(name: str) -> float:
    """Return a figure of this process's memory in MB: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def restore(source: Path, target: Path, *, networks: bool) -> None:
    """Restore a clip, and print what memory it took."""
    torch.set_num_threads(1)
    if networks:
        restorer = FaceRestorer.load()
    else:
        detector = cast(FaceDetector, WanderingFace())
        restorer = FaceRestorer(Restorer(Blur()), detector)
    marks: list[str] = []
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if done in (50, 100, 200, 500, 1000, 2000, 3000, 4000):
            marks.append(f"{done}: {resident('VmRSS'):.0f}")

    clip_options = ClipOptions.of(codec="h264", encoder_preset="veryfast")
    with torch.no_grad():
        summary = restore_clip(
            restorer,
            source,
            target,
            RestoreOptions.of(auto_strength=networks),  # a stand-in's face has no sharpness
            clip_options,
            progress=progress,
        )
    seconds = time.monotonic() - began
    print(
        f"| {summary.frames} | {resident('VmHWM'):.0f} | {', '.join(marks)} | "
        f"{summary.frames / seconds:.1f} |",
        flush=True,
    )


def main() -> None:
    """Print the table; each clip in a process of its own, for a peak is that of all before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=int, nargs="+")
    parser.add_argument("--networks", action="store_true", help="the real ones")
    parser.add_argument("--clip", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clip:
        restore(*arguments.clip, networks=arguments.networks)
        return
    print("| frames | peak, MB | at frame: MB | frames a second |\n|---|---|---|---|", flush=True)
    for count in arguments.frames:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "clip.mp4"), Path(folder, "restored.mp4")
            write_clip(source, count)
            words = [sys.executable, "-m", "benchmarks.clip_memory", str(count)]
            words += ["--networks"] * arguments.networks
            subprocess.run([*words, "--clip", str(source), str(target)], check=True)


if __name__ == "__main__":
    main()
