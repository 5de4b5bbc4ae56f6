import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gfp_core.networks.codeformer import CodeFormer
from gfp_core.networks.restoreformer import RestoreFormerPlusPlus
from gfp_core.networks.vqgan import (
    Attention,
    Downsample,
    ResBlock,
    Upsample,
    VectorQuantizer,
    straight_through,
)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = Attention(12, heads=3)
    asking, answering = torch.randn(2, 12, 4, 5), torch.randn(2, 12, 4, 5)
    expected = torch.empty(2, 12, 20)
    for b in range(2):
        q = layer.q(asking)[b].reshape(12, 20)
        k, v = (conv(answering)[b].reshape(12, 20) for conv in (layer.k, layer.v))
        for head in range(3):
            rows = slice(4 * head, 4 * head + 4)
            weights = torch.softmax(q[rows].T @ k[rows] / math.sqrt(4), dim=1)
            expected[b, rows] = (weights @ v[rows].T).T
    expected = layer.proj_out(expected.view(2, 12, 4, 5))
    torch.testing.assert_close(layer.attend(asking, answering), expected)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide 12 channels"):
        Attention(12, heads=5)


def test_the_residual_block_is_the_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 32, 4, 4)
    for block in (ResBlock(32, 32), ResBlock(32, 64), ResBlock(32, 64, "conv_out")):
        y = block.conv1(F.silu(block.norm1(x)))
        y = block.conv2(F.silu(block.norm2(y)))
        names = {key.split(".")[0] for key in block.state_dict()}
        skips = names & {"nin_shortcut", "conv_out"}
        expected = y + (block.get_submodule(skips.pop())(x) if skips else x)
        torch.testing.assert_close(block(x), expected)
        assert len(names) == (4 if block.skip is None else 5)


def test_resampling() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 6)
    down, up = Downsample(2), Upsample(2)
    padded = torch.zeros(1, 2, 5, 7)
    padded[:, :, :4, :6] = x
    torch.testing.assert_close(down(x), down.conv(padded))
    assert down(x).shape == (1, 2, 2, 3)
    doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), up.conv(doubled))


def test_the_nearest_code_by_hand() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(7, 3)
    torch.nn.init.normal_(quantizer.embedding.weight)
    z = torch.randn(2, 3, 4, 5)
    codes = quantizer(z)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                distances = [
                    float(((z[b, :, i, j] - code) ** 2).sum())
                    for code in quantizer.embedding.weight.detach()
                ]
                nearest = distances.index(min(distances))
                assert codes.indices[b, i, j] == nearest
                assert torch.equal(codes.values[b, :, i, j], quantizer.embedding.weight[nearest])


def test_the_first_of_equal_codes() -> None:
    quantizer = VectorQuantizer(6, 2)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.tensor([[9.0, 9]] + [[1.0, 2]] * 5))
    assert (quantizer.nearest(torch.ones(3, 2, 64, 64)) == 1).all()


def test_codes_are_chosen_in_float32_under_autocast() -> None:
    quantizer = VectorQuantizer(2, 1)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.tensor([[1.0], [1.003]]))
    z = torch.tensor([1.0, 1.003]).view(1, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer.nearest(z).flatten().tolist() == [0, 1]


def test_straight_through_has_the_values_of_one_and_the_gradient_of_the_other() -> None:
    z = torch.tensor([1.0, 2.0], requires_grad=True)
    values = torch.tensor([1.5, 1.5], requires_grad=True)
    out = straight_through(z, values)
    torch.testing.assert_close(out, values)
    (out * torch.tensor([3.0, 5.0])).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [3, 5]
    assert values.grad is None


NETWORKS: dict[Any, dict[str, Any]] = {
    RestoreFormerPlusPlus: {"ch": 32, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "n_embed": 8},
    CodeFormer: {"ch": 32, "ch_mult": (1, 2, 2), "n_embed": 8, "dim_embd": 16, "n_layers": 2},
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(max_examples=50, deadline=None)
@given(st.sampled_from(list(NETWORKS)), st.data())
def test_a_damaged_state_dict_is_one_clear_error(network: Any, data: st.DataObject) -> None:
    with torch.device("meta"):
        state = dict(network(**NETWORKS[network]).state_dict())
    for key in data.draw(st.lists(st.sampled_from(sorted(state)), min_size=1, unique=True)):
        if data.draw(st.booleans()):
            del state[key]
        else:
            shape = data.draw(st.lists(st.integers(0, 70), max_size=4))
            state[key] = torch.empty([*shape, 3], device="meta")  # in ours 3 is an inner dimension
    if data.draw(st.booleans()):
        state["stray"] = torch.empty(1, device="meta")
    with pytest.raises(ValueError, match=r"tensor|divi|blocks|shape"):
        network.from_state_dict(state)


def test_networks_run_on_the_meta_device_where_flops_are_counted() -> None:
    for network, size in NETWORKS.items():
        with torch.device("meta"):
            assert network(**size)(torch.empty(1, 3, 64, 64)).shape == (1, 3, 64, 64)
