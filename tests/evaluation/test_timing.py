"""The arithmetic of `gfp bench`."""

from gfp_core.evaluation import timing


def test_a_step_warms_up_and_is_timed(monkeypatch):
    clock, calls = [0.0], []

    def run():
        calls.append(1)
        clock[0] += 0.5

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: clock[0] / 2)
    row = timing.measure_step(timing.Step("a step", run, "said below"), 2)
    assert len(calls) == 3
    assert row["seconds"] == {"wall": [0.5, 0.5], "cpu": [0.25, 0.25]}
    report = {
        "photo": "a photo",
        "repetitions": 2,
        "machine": {**timing.machine(), "device": "cpu"},
        "steps": [row],
    }
    text = timing.markdown(report)
    assert "| a step | 500 (500, 500) | 250 (250, 250) |" in text
    assert "- a step: said below" in text
    assert "a photo; medians of 2." in text
