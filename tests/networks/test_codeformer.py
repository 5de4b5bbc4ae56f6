import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core.networks.codeformer import (
    CodeFormer,
    Fusion,
    TransformerLayer,
    adopt_statistics,
    infer_hyperparameters,
)
from gfp_core.networks.registry import build, identify

SMALL: dict[str, Any] = {
    "ch": 32,
    "ch_mult": (1, 1, 2),
    "num_res_blocks": 2,
    "embed_dim": 8,
    "n_embed": 32,
    "dim_embd": 16,
    "n_layers": 2,
    "heads": 4,
}


def seeded(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that are the same everywhere: each tensor's from the checksum of its name."""
    state = {}
    for name, shape in shapes.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name not in ("position_emb", "quantize.embedding.weight"):
            if len(shape) > 1:
                values /= np.prod(shape[1:]) ** 0.5
            else:
                values = values / 10 + name.endswith("weight")
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}


def small(**arguments: Any) -> CodeFormer:
    made = {**SMALL, **arguments}
    with torch.device("meta"):
        shapes = shapes_of(CodeFormer(**made))
    return CodeFormer.from_state_dict(seeded(shapes), heads=made["heads"]).eval()


def face(size: int = 64) -> Tensor:
    numbers = np.random.RandomState(7).uniform(-1, 1, (1, 3, size, size))
    return torch.from_numpy(numbers.astype(np.float32))


def test_keys_and_shapes_of_the_full_size(
    official_keys: dict[str, dict[str, tuple[int, ...]]],
) -> None:
    expected = official_keys["CodeFormer"]
    with torch.device("meta"):
        made = CodeFormer()
        again = CodeFormer(**infer_hyperparameters(made.state_dict()))
    assert shapes_of(made) == shapes_of(again) == expected
    assert identify(made.state_dict()).name == "CodeFormer"
    assert identify(made.state_dict()).licence == "non-commercial"


def test_the_size_of_the_release() -> None:
    with torch.device("meta"):
        net = CodeFormer()
    assert len(net.state_dict()) == 515
    assert sum(p.numel() for p in net.parameters()) == 94_112_707
    assert net.out_size == 512
    assert net.default_fidelity == 0.5
    assert net.encoder.taps == {5: 256, 8: 128, 11: 64, 14: 32}
    assert net.generator.taps == {18: 256, 15: 128, 12: 64, 9: 32}


@pytest.mark.slow
def test_equals_the_released_code() -> None:
    """At full size, on weights made from the tensors' names; its outputs are in the JSON file."""
    expected = json.loads(Path(__file__).with_name("codeformer.json").read_text())
    with torch.device("meta"):
        shapes = shapes_of(CodeFormer())
    net = CodeFormer.from_state_dict(seeded(shapes)).eval()
    for fidelity, pixels in expected.items():
        with torch.inference_mode():
            image = net(face(512), fidelity=float(fidelity))
        wanted = torch.tensor(pixels)
        assert wanted.std() > 0.1
        scale = max(1.0, wanted.abs().max().item())
        error = (image[0, :, ::100, ::100] - wanted).abs()
        assert error.max() <= 1e-4 * scale * 3, fidelity
        assert error.mean() <= 1e-4 * scale, fidelity


@pytest.mark.parametrize(
    "arguments",
    [{}, {"ch": 64, "ch_mult": (1, 2, 2, 4)}, {"num_res_blocks": 1, "n_layers": 1}, {"n_embed": 8}],
)
def test_hyperparameters_are_read_back(arguments: dict[str, Any]) -> None:
    net = small(**arguments)
    again = build(net.state_dict())
    assert isinstance(again, CodeFormer)
    assert infer_hyperparameters(again.state_dict()) == infer_hyperparameters(net.state_dict())
    assert again.out_size == net.out_size == 16 * 2 ** (len(net.encoder.taps) + 1)


def test_what_differs_is_said() -> None:
    state = small().state_dict()
    with pytest.raises(ValueError, match="1 tensors too many: 'stray'"):
        CodeFormer.from_state_dict({**state, "stray": torch.zeros(1)}, heads=4)
    with pytest.raises(ValueError, match=r"'encoder\.blocks\.0\.weight' is missing"):
        CodeFormer.from_state_dict({})
    with pytest.raises(ValueError, match="no residual blocks"):
        CodeFormer.from_state_dict({"encoder.blocks.0.weight": torch.zeros(32, 3, 3, 3)})
    with pytest.raises(ValueError, match="7 heads do not divide"):
        small(heads=7)


def test_a_transformer_layer_without_positions_is_the_usual_one() -> None:
    torch.manual_seed(0)
    usual = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    ours = TransformerLayer(16, 4)
    ours.load_state_dict(usual.state_dict())
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(ours(x, torch.zeros(5, 16)), usual(x))


def test_positions_count_for_the_match_but_are_not_passed_on() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2)
    nn.init.zeros_(layer.linear2.weight)
    nn.init.zeros_(layer.linear2.bias)
    x, positions = torch.randn(1, 6, 8), torch.randn(6, 8)
    y = layer.norm1(x)[0]
    w, b = layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias
    q, k = (((y + positions) @ w[i : i + 8].T + b[i : i + 8]) for i in (0, 8))
    v = y @ w[16:].T + b[16:]
    heads = [
        torch.softmax(q[:, h] @ k[:, h].T / 2, dim=1) @ v[:, h] for h in (slice(0, 4), slice(4, 8))
    ]
    expected = x[0] + layer.self_attn.out_proj(torch.cat(heads, dim=1))
    torch.testing.assert_close(layer(x, positions)[0], expected)


def test_the_statistics_are_taken_over() -> None:
    rng = np.random.default_rng(0)
    values, example = rng.normal(3, 2, (1, 2, 4, 4)), rng.normal(-1, 5, (1, 2, 4, 4))
    result = adopt_statistics(torch.from_numpy(values), torch.from_numpy(example))
    for c in range(2):
        deviations = [(x[0, c].var(ddof=1) + 1e-5) ** 0.5 for x in (values, example)]
        expected = (values[0, c] - values[0, c].mean()) / deviations[0] * deviations[1]
        np.testing.assert_allclose(result[0, c].numpy(), expected + example[0, c].mean())


def test_the_fusion_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = Fusion(32)
    encoded, decoded = torch.randn(2, 1, 32, 4, 4)
    joined = layer.encode_enc(torch.cat([encoded, decoded], dim=1))
    for w in (0.0, 0.3, 1.0):
        expected = decoded + w * (decoded * layer.scale(joined) + layer.shift(joined))
        torch.testing.assert_close(layer(encoded, decoded, w), expected)
    assert torch.equal(layer(encoded, decoded, 0.0), decoded)


def test_fidelity_zero_is_the_codes_alone() -> None:
    net, x = small(), face()
    with torch.inference_mode():
        alone, default, full = net(x, fidelity=0.0), net(x), net(x, fidelity=1.0)
        assert torch.equal(default, net(x, fidelity=0.5))
        steps = [(full - image).abs().mean() for image in (alone, default)]
        assert steps[0] > steps[1] > 0.01
        for module in net.fuse_convs_dict.values():
            for parameter in module.parameters():
                parameter.add_(1)
        assert torch.equal(net(x, fidelity=0.0), alone)
        assert not torch.allclose(net(x, fidelity=0.5), default)


def test_the_codes_are_the_predicted_ones() -> None:
    net, x = small(), face()
    seen: list[Tensor] = []
    net.quantize.embedding.register_forward_hook(lambda *call: seen.append(call[1][0]))
    features: list[Tensor] = []
    net.encoder.blocks[-1].register_forward_hook(lambda *call: features.append(call[2]))
    with torch.inference_mode():
        net(x)
        logits = net.predict(features[0])
    assert logits.shape == (1, 256, 32)
    assert torch.equal(seen[0].flatten(1), logits.argmax(dim=-1))
    assert seen[0].unique().numel() > 4


def test_the_input_s_statistics_can_be_left_out() -> None:
    net, x = small(), face()
    entered: list[Tensor] = []
    net.generator.blocks[0].register_forward_hook(lambda *call: entered.append(call[1][0]))
    with torch.inference_mode():
        net(x)
        net(x, adain=False)
        z = x
        for block in net.encoder.blocks:
            z = block(z)
        chosen = net.predict(z).argmax(-1)[0, 3 * 16 + 5]
    torch.testing.assert_close(entered[0].mean(dim=(2, 3)), z.mean(dim=(2, 3)))
    assert torch.equal(entered[1][0, :, 3, 5], net.quantize.embedding.weight[chosen])


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (128, 128)])
def test_one_size_only(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="takes 64 x 64 pixels, not"):
        small()(torch.zeros(1, 3, *size))


def test_two_runs_give_the_same_bits_and_the_input_stays() -> None:
    net, x = small(), face()
    before = x.clone()
    with torch.inference_mode():
        assert torch.equal(net(x), net(x))
    assert torch.equal(x, before)
