"""PMRF: neighborhoods, the flow, and files of the published form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gfp_core.faces import Face, Faces
from gfp_core.networks.neighborhood import neighborhood_attention
from gfp_core.networks.pmrf import NOISE, PMRF, infer_hyperparameters, integrate
from gfp_core.restore import Restorer
from gfp_core.weights.loading import load_network, read_checkpoint
from tests.parity.networks import SMALL_FLOW, SMALL_MEAN

SMALL = {"flow": SMALL_FLOW, "mean": SMALL_MEAN}


@pytest.fixture(scope="module")
def net() -> PMRF:
    torch.manual_seed(0)
    made = PMRF(**SMALL).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def file(net: PMRF, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the authors': half of it is of their evaluation."""
    path = tmp_path_factory.mktemp("pmrf") / "model.safetensors"
    beside = {f"{name}.inception.x": torch.ones(2) for name in ("fid", "inception_score")}
    save_file({**net.state_dict(), **beside}, path)
    return path


def by_loops(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """Neighborhood attention, token by token."""
    result = torch.empty_like(q)
    _, _, height, width, _ = q.shape
    for row in range(height):
        top = min(max(row - size // 2, 0), height - size)
        for column in range(width):
            left = min(max(column - size // 2, 0), width - size)
            keys = k[:, :, top : top + size, left : left + size].flatten(2, 3)
            values = v[:, :, top : top + size, left : left + size].flatten(2, 3)
            scores = (keys * q[:, :, row, column, None]).sum(-1).softmax(-1)
            result[:, :, row, column] = (scores[..., None] * values).sum(2)
    return result


@pytest.mark.parametrize(
    ("height", "width", "size"), [(16, 16, 7), (12, 9, 5), (7, 7, 7), (8, 23, 3)]
)
def test_each_token_sees_its_neighborhood_moved_inside(height: int, width: int, size: int) -> None:
    generator = torch.Generator().manual_seed(height)
    q, k, v = torch.randn(3, 2, 3, height, width, 4, generator=generator, dtype=torch.float64)
    result = neighborhood_attention(q, k, v, size)
    assert torch.allclose(result, by_loops(q, k, v, size), atol=1e-12)


def test_fewer_tokens_than_a_neighborhood_are_refused() -> None:
    x = torch.zeros(1, 1, 6, 8, 4)
    with pytest.raises(ValueError, match="6 x 8 tokens are fewer than 7 x 7"):
        neighborhood_attention(x, x, x, 7)


def test_the_flow_follows_its_velocity() -> None:
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    # A straight flow is exact in one step, as a rectified one is meant to be.
    assert torch.equal(integrate(lambda x, t: torch.full_like(x, 3.0), start, 1), start + 3)
    # dx/dt = x: Euler's (1 + 1/n)^n, which goes to e.
    for steps in (1, 4, 25):
        assert torch.allclose(
            integrate(lambda x, t: x, start, steps), start * (1 + 1 / steps) ** steps
        )
    assert torch.allclose(integrate(lambda x, t: x, start, 5000), start * math.e, rtol=1e-3)
    # dx/dt = t: each step sees the time of its beginning.
    assert torch.allclose(integrate(lambda x, t: torch.full_like(x, t), start, 4), start + 0.375)


def test_shapes_tell_the_sizes(net: PMRF, file: Path) -> None:
    assert infer_hyperparameters(net.state_dict()) == SMALL
    again = load_network(file)
    assert isinstance(again, PMRF)
    assert again.out_size == 128
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(again(x, steps=2), net(x, steps=2))
    assert read_checkpoint(file).prefixes == ()


def test_a_published_file_has_these_names_and_sizes() -> None:
    """Counted once from the authors' code at full size; 191 MB of the file are their evaluation."""
    with torch.device("meta"):
        full = PMRF()
    assert len(full.state_dict()) == 881
    assert sum(p.numel() for p in full.model.parameters()) == 160_460_210
    assert sum(p.numel() for p in full.mmse_model.parameters()) == 15_792_587
    assert full.model.state_dict()["mid_level.7.self_attn.pos_emb.freqs"].shape == (16, 8)
    assert (
        full.mmse_model.state_dict()["layers.7.residual_group.blocks.5.attn_mask"].shape
        == (64,) * 3
    )


def test_a_missing_tensor_is_named(net: PMRF) -> None:
    state = net.state_dict()
    del state["model.mid_level.0.ff.up_proj.weight"]
    with pytest.raises(ValueError, match=r"1 of \d+ tensors missing: 'model\.mid_level\.0\.ff"):
        PMRF.from_state_dict(state)


def test_the_mean_is_carried_along(net: PMRF) -> None:
    """Without a velocity the mean and its noise come out."""
    still = PMRF.from_state_dict(net.state_dict()).eval()
    torch.nn.init.zeros_(still.model.patch_out.proj.weight)
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        mean = net.mmse_model((x + 1) / 2).clamp(0, 1)
        result = (still(x) + 1) / 2
    expected = (mean + NOISE * net.noises.noise).clamp(0, 1)
    assert torch.allclose(result, expected, atol=1e-6)
    assert abs(net.noises.noise.std().item() - 1) < 0.02


def test_steps_and_seed_change_the_face_and_nothing_else_does(
    net: PMRF, caplog: pytest.LogCaptureFixture
) -> None:
    crops = torch.rand(2, 3, 128, 128)
    crops[1] = crops[0]
    face = Face(0, (0.0, 0.0, 1.0, 1.0), 1.0, None)  # type: ignore[arg-type]
    faces = Faces((face, face), ((128, 128),), crops=crops)
    restorer = Restorer(net)
    assert restorer.has_steps
    assert restorer.has_noise

    def restore(**options: int) -> Tensor:
        restored = restorer.restore(faces, **options).restored  # type: ignore[arg-type]
        assert restored is not None
        return restored

    usual = restore(steps=2)
    assert torch.allclose(usual[0], usual[1], atol=1e-5), "the same noise for every face"
    assert torch.equal(restore(steps=2), usual)
    assert torch.equal(restore(steps=2, seed=5), restore(steps=2, seed=5))
    assert not torch.allclose(restore(steps=2, seed=5), usual, atol=1e-3)
    assert not torch.allclose(restore(steps=3), usual, atol=1e-4)
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        restore(steps=0)


def test_a_network_without_steps_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(torch.nn.Module):
        out_size = 64

        def forward(self, x: Tensor) -> Tensor:
            return x

    crops = torch.rand(1, 3, 64, 64)
    face = Face(0, (0.0, 0.0, 1.0, 1.0), 1.0, None)  # type: ignore[arg-type]
    Restorer(Plain()).restore(Faces((face,), ((64, 64),), crops=crops), steps=4)
    assert "Plain does not go in steps: 4 has no effect" in caplog.text
