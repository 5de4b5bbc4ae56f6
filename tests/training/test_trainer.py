"""Every recipe, tiny: it learns, and a stopped run goes on as if it had not been stopped."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gfp_core.networks.registry import identify
from gfp_core.training import checkpoints
from gfp_core.training.export import export
from gfp_core.training.recipes import Schedule, names
from gfp_core.training.trainer import Trainer, rate_factor
from gfp_core.weights.inspection import inspect
from gfp_core.weights.loading import load_network
from tests import needs

from .conftest import MODELS, SIZE, tiny_objective, tiny_recipe

RECIPES = [  # one for all in the quick lane
    name if name == "lite" else pytest.param(name, marks=pytest.mark.slow) for name in names()
]


def trainer(recipe, pack, run, alone):
    return Trainer(recipe, pack, run, alone, objective=tiny_objective(recipe))


def tensors(value, where=""):
    """All tensors of a checkpoint, by their place."""
    if isinstance(value, torch.Tensor):
        yield where, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from tensors(part, f"{where}.{key}")
    elif isinstance(value, list):
        for key, part in enumerate(value):
            yield from tensors(part, f"{where}.{key}")


@pytest.mark.parametrize("name", RECIPES)
@needs.newer_torch
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, pack, alone, tmp_path):
    recipe = tiny_recipe(name, steps=3)
    assert trainer(recipe, pack, tmp_path / "whole", alone).train()
    torch.manual_seed(1)  # as of a new program
    assert not trainer(recipe, pack, tmp_path / "parts", alone).train(minutes=0)
    assert checkpoints.latest(tmp_path / "parts").name == "step_00000001.pt"
    torch.manual_seed(2)
    assert trainer(recipe, pack, tmp_path / "parts", alone).train()

    whole, parts = (
        dict(tensors(checkpoints.load(checkpoints.latest(tmp_path / run))))
        for run in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    for log in logs:
        for line in log:
            line.pop("seconds_a_step", None)
    assert logs[0] == logs[1]
    wanted = {*recipe.loss.terms()}
    assert wanted <= set(logs[0][2])  # every term has been computed


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_learns(name, pack, alone, tmp_path):
    recipe = tiny_recipe(
        name, "optimizer.lr=5e-3", "optimizer.groups={}", "schedule.warmup=0", "data.mirror=false",
        "data.turn=0.0", "data.zoom=0.0", "data.move=0.0", "data.tint=false", steps=24,
        values="released",
    )  # fmt: skip
    runs = trainer(recipe, pack, tmp_path, alone)
    assert runs.train()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    l1 = [line["l1"] for line in log if "l1" in line]
    assert np.mean(l1[-8:]) < 0.9 * np.mean(l1[:8])


@needs.newer_torch
def test_export_is_what_the_loader_takes(pack, alone, tmp_path):
    for name, architecture in [
        ("lite", "GFPGANLite"),
        ("restoreformer-dictionary", "HQDictionary"),
        ("restoreformer", "RestoreFormer"),
    ]:
        runs = trainer(tiny_recipe(name, steps=1), pack, tmp_path / name, alone)
        assert runs.train()
        file = tmp_path / f"{name}.safetensors"
        export(tmp_path / name, file, metadata={"license": "Apache-2.0"})
        assert inspect(file).architecture == architecture
        net = load_network(file)
        assert type(net).__name__ == architecture
        x = torch.rand(1, 3, SIZE, SIZE)
        if name == "lite":
            assert torch.allclose(net(x), runs.average(x), atol=1e-6)
    assert not list(tmp_path.glob("*.tmp"))


@needs.newer_torch
def test_bilinear_form_is_exported_as_the_clean_one(pack, alone, tmp_path):
    recipe = tiny_recipe("gfpgan", "model.name=GFPGANBilinear", steps=1)
    runs = trainer(recipe, pack, tmp_path, alone)
    assert runs.train()
    export(tmp_path, tmp_path / "clean.safetensors")
    net = load_network(tmp_path / "clean.safetensors")
    assert type(net).__name__ == "GFPGANClean"
    assert identify(net.state_dict()).name == "GFPGANClean"
    x = torch.rand(1, 3, SIZE, SIZE)
    assert torch.allclose(net(x), runs.average(x), atol=1e-4)


@needs.newer_torch
def test_dictionary_starts_the_restorer_and_stays_as_it_is(pack, alone, tmp_path):
    trainer(tiny_recipe("restoreformer-dictionary", steps=1), pack, tmp_path / "d", alone).train()
    file = tmp_path / "dictionary.safetensors"
    export(tmp_path / "d", file)
    changes = (f"model.start={file}", 'model.frozen=["quantize."]')
    runs = trainer(tiny_recipe("restoreformer", *changes, steps=2), pack, tmp_path / "r", alone)
    dictionary = load_network(file)
    before = {key: value.clone() for key, value in dictionary.state_dict().items()}
    assert all(torch.equal(before[key], value) for key, value in runs.net.state_dict().items())
    assert runs.train()
    after = runs.net.state_dict()
    assert torch.equal(after["quantize.embedding.weight"], before["quantize.embedding.weight"])
    assert not torch.equal(after["encoder.conv_in.weight"], before["encoder.conv_in.weight"])


def test_frozen_convolutions_of_the_discriminator_stay(pack, alone, tmp_path):
    recipe = tiny_recipe("pose-varied", "discriminator.frozen=3", steps=2)
    runs = trainer(recipe, pack, tmp_path, alone)
    before = {key: value.clone() for key, value in runs.discriminator.state_dict().items()}
    assert runs.train()
    changed = {
        key
        for key, value in runs.discriminator.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert not any(key.startswith(("conv_body.0.", "conv_body.1.")) for key in changed)
    assert any(key.startswith("conv_body.2.") for key in changed)


def test_freezing_without_a_prior_is_refused(pack, alone, tmp_path):
    recipe = tiny_recipe("gfpgan", 'model.frozen=["stylegan_decoder."]')
    with pytest.raises(ValueError, match=r"model\.start"):
        trainer(recipe, pack, tmp_path, alone)


def test_gradients_that_are_not_finite_stop_the_run(pack, alone, tmp_path):
    runs = trainer(tiny_recipe("lite"), pack, tmp_path, alone)
    with torch.no_grad():
        next(runs.net.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"net are not finite at step 0 \(.*l1 nan"):
        runs.train()
    assert checkpoints.latest(tmp_path) is None


@needs.newer_torch
def test_bfloat16_and_degrading_on_the_device_train_too(pack, alone, tmp_path):
    recipe = tiny_recipe(
        "lite", "run.precision=bfloat16", "data.degrade_on=device", "run.channels_last=true"
    )
    assert trainer(recipe, pack, tmp_path, alone).train()
    state = checkpoints.load(checkpoints.latest(tmp_path))
    assert all(one.dtype == torch.float32 for one in state["networks"]["net"].values())


@pytest.mark.slow
def test_workers_start_after_opencv_used_its_threads(pack_folder, tmp_path):
    """A forked worker waited for ever for OpenCV's threads, which only its parent had."""
    program = """
import sys, cv2, numpy
from gfp_core.cli import main
cv2.setNumThreads(2)
cv2.GaussianBlur(numpy.zeros((2000, 2000, 3), numpy.float32), (21, 21), 5)
sys.exit(main(sys.argv[1:]))
"""
    changes = [f"model.args={MODELS['lite']}", f"data.size={SIZE}", "data.workers=1"]
    changes += ["schedule.steps=1", "run.sheet_faces=1", "data.batch=1"]
    changes += [f"loss.{term}=0" for term in ("perceptual", "adversarial", "identity")]
    changes += ["loss.component=0", "loss.component_style=0"]
    command = [sys.executable, "-c", program, "train", "lite", "--device", "cpu"]
    command += ["--data", str(pack_folder), "--run", str(tmp_path)]
    command += [part for change in changes for part in ("--set", change)]
    ended = subprocess.run(command, timeout=300, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert checkpoints.latest(tmp_path) is not None


def test_only_the_newest_checkpoints_are_kept_and_a_damaged_one_is_named(pack, alone, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = tiny_recipe("lite", "run.save_every=1", "run.keep=2", "run.sheet_every=2", steps=3)
    assert trainer(recipe, pack, tmp_path, alone).train()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step_00000002.pt", "step_00000003.pt"]
    sheets = sorted((tmp_path / "sheets").iterdir())
    assert [sheet.name for sheet in sheets] == ["step_00000002.png", "step_00000003.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.size == (3 * SIZE, 24 + SIZE)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [picture.step for picture in board.Images("validation")] == [2, 3]
    assert [value.step for value in board.Scalars("l1")] == [1, 2, 3]
    newest = checkpoints.latest(tmp_path)
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step_00000003\.pt cannot be read"):
        trainer(recipe, pack, tmp_path, alone)


@needs.newer_torch
def test_run_of_another_network_is_refused(pack, alone, tmp_path):
    trainer(tiny_recipe("lite", steps=1), pack, tmp_path, alone).train()
    with pytest.raises(ValueError, match="another folder"):
        trainer(tiny_recipe("gfpgan"), pack, tmp_path, alone)


def test_rates_rise_stay_and_fall():
    cosine = Schedule(steps=1000, warmup=100, cosine_from=0.5)
    rates = [rate_factor(step, cosine) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert set(rates[100:500]) == {1.0}
    assert rates[500:] == sorted(rates[500:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, rel=0.01)
    halving = Schedule(steps=10, milestones=(4, 6), gamma=0.5)
    assert [rate_factor(step, halving) for step in (3, 4, 6)] == [1, 0.5, 0.25]
