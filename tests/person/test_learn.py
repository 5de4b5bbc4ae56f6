"""Learning a person: what the loop promises, on a network of a few thousand weights."""

import dataclasses

import pytest
import torch

from gfp_core.embed import FaceEmbedder
from gfp_core.networks.face_descriptor import FaceDescriptor
from gfp_core.networks.gfpgan import GFPGANClean, GFPGANv1
from gfp_core.networks.gpen import GPEN
from gfp_core.networks.registry import build
from gfp_core.networks.restoreformer import RestoreFormer
from gfp_core.person import learn as learning_module
from gfp_core.person.learn import Learning, augmented, learn, needed_bytes
from gfp_core.person.others import other_faces
from tests import needs

LEARNING = Learning(steps=6, seed=1, rate=2e-3, window=48)


@pytest.fixture(autouse=True)
def judged_often(monkeypatch):
    monkeypatch.setattr(learning_module, "JUDGE_EVERY", 2)
    monkeypatch.setattr(learning_module, "other_faces", lambda size: other_faces(size)[:2])


class StopLearningError(Exception):
    pass


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise StopLearningError

    return progress


def test_held_faces_come_nearer_and_the_base_stays(base_state, portraits) -> None:
    before = {name: tensor.clone() for name, tensor in base_state.items()}
    steps, previews = [], []
    learned = learn(
        base_state,
        portraits,
        LEARNING,
        progress=lambda done, total: steps.append((done, total)),
        preview=lambda crops: previews.append(tuple(crops.shape)),
    )
    assert learned.after < learned.before
    assert steps == [(step, 6) for step in range(1, 7)]
    assert previews == [(4, 3, 64, 64)] * 3
    assert all(torch.equal(before[name], tensor) for name, tensor in base_state.items())
    assert learned.tensors


def test_the_same_call_gives_the_same_bits_and_another_seed_others(base_state, portraits) -> None:
    first, second = (learn(base_state, portraits, LEARNING) for _ in range(2))
    other = learn(base_state, portraits, dataclasses.replace(LEARNING, seed=2))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert any(
        name not in other.tensors or not torch.equal(first.tensors[name], other.tensors[name])
        for name in first.tensors
    )


def resume(base_state, portraits, checkpoint):
    """Go on from a checkpoint; the result, and the numbers of the steps that it took."""
    steps = []
    resumed = learn(
        base_state,
        portraits,
        LEARNING,
        checkpoint=checkpoint,
        progress=lambda done, total: steps.append(done),
    )
    return resumed, steps


@needs.newer_torch
def test_a_stopped_learning_goes_on_to_the_same_bits(base_state, portraits, tmp_path) -> None:
    checkpoint = tmp_path / "learning"
    whole = learn(base_state, portraits, LEARNING)
    with pytest.raises(StopLearningError):
        learn(base_state, portraits, LEARNING, checkpoint=checkpoint, progress=stop_after(3))
    assert checkpoint.is_file()
    resumed, steps = resume(base_state, portraits, checkpoint)
    assert steps == [4, 5, 6]
    assert not checkpoint.exists()
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)


@needs.newer_torch
def test_a_killed_learning_goes_on_from_its_last_checkpoint(
    base_state, portraits, tmp_path
) -> None:
    checkpoint, kept = tmp_path / "learning", tmp_path / "kept"

    def as_killed(done, total):
        if done == 5:  # a kill leaves no time to write anything
            kept.write_bytes(checkpoint.read_bytes())

    whole = learn(base_state, portraits, LEARNING, checkpoint=checkpoint, progress=as_killed)
    resumed, steps = resume(base_state, portraits, kept)
    assert steps == [5, 6]
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)


@needs.newer_torch
def test_a_checkpoint_of_other_settings_is_refused(base_state, portraits, tmp_path) -> None:
    checkpoint = tmp_path / "learning"
    with pytest.raises(StopLearningError):
        learn(base_state, portraits, LEARNING, checkpoint=checkpoint, progress=stop_after(1))
    with pytest.raises(ValueError, match="belongs to other photographs"):
        learn(
            base_state,
            portraits,
            dataclasses.replace(LEARNING, seed=5),
            checkpoint=checkpoint,
        )


def test_learning_works_inside_a_hosts_inference_mode(base_state, portraits) -> None:
    with torch.inference_mode():
        state = {name: tensor + 0 for name, tensor in base_state.items()}
        learned = learn(state, portraits, LEARNING)
    assert learned.after < learned.before


def test_the_face_descriptor_judges_likeness_and_is_not_changed(base_state, portraits) -> None:
    with torch.inference_mode(), torch.random.fork_rng():  # as in a host
        torch.manual_seed(0)
        embedder = FaceEmbedder(FaceDescriptor())
        before = {name: tensor.clone() for name, tensor in embedder.net.state_dict().items()}
        learned = learn(base_state, portraits, LEARNING, embedder=embedder)
    without = learn(base_state, portraits, LEARNING)
    assert any(
        name not in without.tensors or not torch.equal(tensor, without.tensors[name])
        for name, tensor in learned.tensors.items()
    )
    assert all(torch.equal(before[name], each) for name, each in embedder.net.state_dict().items())


def test_an_embedder_without_gradients_judges_nothing(base_state, portraits) -> None:
    embedder = FaceEmbedder(torch.nn.Identity())
    first, second = (learn(base_state, portraits, LEARNING, embedder=e) for e in (embedder, None))
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_learning_ends_early_without_a_gain(base_state, portraits, monkeypatch, caplog) -> None:
    monkeypatch.setattr(learning_module, "PATIENCE", 1)
    steps = []
    with pytest.raises(ValueError, match="nothing was learned in 2 steps"):
        learn(
            base_state,
            portraits,
            dataclasses.replace(LEARNING, steps=100, rate=0.5),
            progress=lambda done, total: steps.append(done),
        )
    assert len(steps) == 2


def test_minutes_end_learning(base_state, portraits) -> None:
    steps = []
    learn(
        base_state,
        portraits,
        dataclasses.replace(LEARNING, steps=10_000, minutes=0.01),
        progress=lambda done, total: steps.append(done),
    )
    assert 0 < len(steps) < 1000


def test_the_third_photograph_is_held_back(base_state, portraits) -> None:
    first = portraits.portraits[0]
    black = dataclasses.replace(first, face=first.face * 0)
    portraits.portraits[:] = [first, first, black]
    with torch.inference_mode(False), torch.enable_grad():
        student = learning_module._Student(base_state, portraits, LEARNING, None, "cpu")
    assert len(student.portraits) == 2
    assert all(bool((clean == -1).all()) for _, clean in student.held)


SMALL = {"out_size": 64, "num_style_feat": 16, "narrow": 0.0625, "num_mlp": 1}
CODEC = {"ch": 32, "ch_mult": (1, 1, 2), "num_res_blocks": 1, "z_channels": 16, "embed_dim": 16}


@pytest.mark.parametrize(
    "make",
    [
        lambda: GFPGANClean(**SMALL),
        lambda: GFPGANv1(**SMALL),
        lambda: GPEN(**SMALL),
        lambda: RestoreFormer(**CODEC, n_embed=64, heads=2),
    ],
    ids=["GFPGANClean", "GFPGANv1", "GPEN", "RestoreFormer"],
)
def test_restorers_of_other_classes_learn_too(make, portraits, monkeypatch) -> None:
    monkeypatch.setattr(RestoreFormer, "out_size", 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    learned = learn(net.state_dict(), portraits, LEARNING, architecture=type(net).__name__)
    assert learned.after < learned.before
    assert learned.tensors


def test_memory_is_counted_without_taking_it(base_state) -> None:
    small = needed_bytes(build(base_state), 64, 2)
    assert needed_bytes(build(base_state), 64, 3) > small
    assert needed_bytes(build(base_state), 64, 1) == small  # another's face beside the person's
    with torch.device("meta"):
        large = GFPGANClean()
    assert 3e9 < needed_bytes(large, 512, 2) < 3e10


def test_augmented_faces_fill_their_crop(portraits) -> None:
    import numpy as np

    for seed in range(5):
        face = augmented(portraits.portraits[0], 64, np.random.default_rng(seed))
        assert face.shape == (64, 64, 3)
        assert face.std() > 20
