import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gfp_core.networks.registry import build, identify
from gfp_core.networks.restoreformer import (
    Codec,
    CrossAttention,
    RestoreFormer,
    RestoreFormerPlusPlus,
    infer_hyperparameters,
)

BOTH = {"RestoreFormer": RestoreFormer, "RestoreFormerPlusPlus": RestoreFormerPlusPlus}
SMALL: dict[str, Any] = {
    "ch": 32,
    "ch_mult": (1, 1, 1, 1, 2, 2),
    "num_res_blocks": 1,
    "z_channels": 16,
    "embed_dim": 8,
    "n_embed": 32,
}


def small(net: type[Codec], seed: int = 0, **arguments: Any) -> Any:
    """A small network with random biases, and codes that are far apart."""
    torch.manual_seed(seed)
    made = net(**{**SMALL, **arguments})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        made.quantize.embedding.weight.normal_()
    return made.eval()


@pytest.mark.parametrize("name", BOTH)
def test_equals_the_published_network(name: str, shared_dir: Path) -> None:
    folder = shared_dir / "parity" / name
    state = load_file(folder / "weights.safetensors")
    io = load_file(folder / "io.safetensors")
    meta = json.loads((folder / "meta.json").read_text())["hyperparameters"]

    inferred = infer_hyperparameters(state)
    assert inferred == {key: meta[key] for key in inferred}
    net = BOTH[name].from_state_dict(state, heads=meta["head_size"])
    with torch.inference_mode():
        image, _, priors = net.forward_with_priors(io["input"])
        assert torch.equal(net(io["input"]), image)
    assert torch.equal(priors.indices.flatten(1), io["code_idx"])
    torch.testing.assert_close(priors.values, io["quantized"], rtol=0, atol=1e-5)
    error = (image - io["output"]).abs()
    assert error.max() < 1e-4
    assert error.mean() < 1e-5


@pytest.mark.parametrize("name", BOTH)
def test_keys_and_shapes_of_the_full_size(
    name: str, official_keys: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    keys = official_keys[name].items()
    expected = {key: torch.empty(shape, device="meta") for key, shape in keys}
    with torch.device("meta"):
        made = BOTH[name]()
    shapes = {key: tensor.shape for key, tensor in made.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in expected.items()}
    assert identify(expected).name == name
    assert (
        BOTH[name](**infer_hyperparameters(made.state_dict())).state_dict().keys() == shapes.keys()
    )


@pytest.mark.parametrize(
    ("net", "tensors", "millions"), [(RestoreFormer, 405, 72.7), (RestoreFormerPlusPlus, 441, 73.5)]
)
def test_the_sizes_of_the_releases(net: type[Codec], tensors: int, millions: float) -> None:
    with torch.device("meta"):
        made = net()
    assert len(made.state_dict()) == tensors
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("net", BOTH.values())
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32), (96, 96)])
def test_any_multiple_of_32(net: type[Codec], size: tuple[int, int]) -> None:
    made, x = small(net), torch.rand(2, 3, *size) * 2 - 1
    with torch.inference_mode():
        image, z, priors = made.forward_with_priors(x)
    assert image.shape == x.shape
    assert priors.indices.shape == z[:, 0].shape == (2, size[0] // 32, size[1] // 32)
    assert image.isfinite().all()


@pytest.mark.parametrize("net", BOTH.values())
def test_other_sizes_are_refused(net: type[Codec]) -> None:
    with pytest.raises(ValueError, match="multiples of 32 pixels, not 48 x 64"):
        small(net)(torch.zeros(1, 3, 64, 48))


def test_the_degraded_feature_asks_and_the_prior_answers() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(32, heads=4)
    prior, degraded = torch.randn(2, 1, 32, 3, 3)
    expected = prior + layer.attend(layer.norm2(degraded), layer.norm1(prior))
    torch.testing.assert_close(layer(prior, degraded), expected)
    own = layer.norm1(prior)
    torch.testing.assert_close(layer(prior), prior + layer.attend(own, own))


@pytest.mark.parametrize(("net", "levels"), [(RestoreFormer, [5]), (RestoreFormerPlusPlus, [5, 4])])
def test_each_attention_asks_with_the_encoder_feature_of_its_depth(
    net: type[Codec], levels: list[int]
) -> None:
    made = small(net)
    seen: dict[str, Tensor] = {}
    made.encoder.mid.block_1.register_forward_hook(lambda *call: seen.update(first=call[2]))
    made.encoder.mid.block_2.register_forward_hook(lambda *call: seen.update(last=call[2]))
    made.encoder.down[4].register_forward_hook(lambda *call: seen.update(level4=call[2]))
    asked: list[Tensor] = []

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        asked.append(inputs[1])

    made.decoder.mid.attn_1.register_forward_hook(note)
    for level in made.decoder.up:
        for attention in level.attn:
            attention.register_forward_hook(note)
    with torch.inference_mode():
        made(torch.rand(1, 3, 64, 64))
    expected = [seen["last"], seen["first"], seen["first"]]
    if 4 in levels:
        expected += [seen["level4"]] * 2
    assert len(asked) == len(expected)
    assert all(a is b for a, b in zip(asked, expected, strict=True))
    assert [i for i in range(5, -1, -1) if len(made.decoder.up[i].attn)] == levels


def test_heads_count_and_are_those_of_the_release() -> None:
    state = small(RestoreFormer).state_dict()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(
            RestoreFormer.from_state_dict(state)(x),
            RestoreFormer.from_state_dict(state, heads=8)(x),
        )
        assert not torch.allclose(
            RestoreFormer.from_state_dict(state)(x),
            RestoreFormer.from_state_dict(state, heads=4)(x),
        )
    attention = RestoreFormerPlusPlus(**SMALL).decoder.up[4].attn[0]
    assert isinstance(attention, CrossAttention)
    assert attention.heads == 4
    with pytest.raises(ValueError, match="7 heads do not divide"):
        RestoreFormer(**SMALL, heads=7)


def test_the_counter_of_training_is_left_out() -> None:
    state = small(RestoreFormer).state_dict()
    net = build({**state, "quantize.utility_counter": torch.zeros(32)})
    assert isinstance(net, RestoreFormer)
    with pytest.raises(ValueError, match="1 tensors too many: 'stray'"):
        RestoreFormer.from_state_dict({**state, "stray": torch.zeros(1)})


@pytest.mark.parametrize("key", ["encoder.conv_in.weight", "quantize.embedding.weight"])
def test_what_is_missing_is_named(key: str) -> None:
    state = small(RestoreFormer).state_dict()
    del state[key]
    with pytest.raises(ValueError, match=f"tensor '{key}' is missing"):
        RestoreFormer.from_state_dict(state)
    with pytest.raises(ValueError, match="missing"):
        RestoreFormer.from_state_dict({key: torch.zeros(1, 1, 1, 1)})


def test_two_runs_give_the_same_bits() -> None:
    net, x = small(RestoreFormer), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        first, *_ = net.forward_with_priors(x)
        assert torch.equal(first, net(x))


def test_gradients_reach_every_part_but_a_fixed_dictionary() -> None:
    net = small(RestoreFormerPlusPlus)
    net.quantize.requires_grad_(False)
    image, z, priors = net.forward_with_priors(torch.rand(2, 3, 64, 64))
    (image.square().mean() + (priors.values - z).square().mean()).backward()
    without = [key for key, p in net.named_parameters() if p.grad is None]
    # The encoder attends to itself: its second normalisation is there for its name only.
    assert all("encoder" in key and "norm2" in key for key in without[:-1])
    assert without[-1] == "quantize.embedding.weight"
    assert net.encoder.conv_in.weight.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(512, 512), (64, 160)])
def test_equals_spandrel(size: tuple[int, int]) -> None:
    spandrel = pytest.importorskip("spandrel")
    torch.manual_seed(0)
    ours = RestoreFormer().eval()
    x = torch.rand(1, 3, *size) * 2 - 1
    with torch.inference_mode():
        z, _ = ours.encode(x)
        # Codes as the features are, so that many are chosen, and none by a hair's breadth.
        mean, deviation = z.mean(), z.std()
        ours.quantize.embedding.weight.normal_(mean.item(), deviation.item())
        codes = ours.quantize.embedding.weight
        two = torch.cdist(z.flatten(2).mT, codes[None]).topk(2, largest=False).values
        assert (two[..., 1] - two[..., 0]).min() > 1e-4 * deviation
        theirs = spandrel.ModelLoader().load_from_state_dict(dict(ours.state_dict()))
        assert theirs.architecture.id == "RestoreFormer"
        expected = theirs.model.eval()(x)[0]
        image = ours(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-4)
