import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gfp_core.networks.gpen import GPEN
from gfp_core.networks.pose_varied import MMRB, PoseVaried, PReLUConv
from gfp_core.networks.registry import build, identify

SMALL = {"out_size": 32, "num_style_feat": 16, "narrow": 0.03125, "num_mlp": 2}


def shake(net: nn.Module) -> None:
    """Make every parameter count: strengths, biases and slopes leave their initial values."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def small(seed: int = 0, **arguments: object) -> PoseVaried:
    torch.manual_seed(seed)
    made = PoseVaried(**{**SMALL, **arguments})  # type: ignore[arg-type]
    shake(made)
    return made.eval()


def published() -> PoseVaried:
    with torch.device("meta"):
        return PoseVaried()


def prelu_conv(layer: PReLUConv, x: Tensor, kernel_size: int) -> Tensor:
    """sigma(W(X)), with weights stored at unit variance."""
    weight = layer.conv.weight
    assert weight.shape[1:] == (x.shape[1], kernel_size, kernel_size)
    assert layer.conv.bias is not None
    weight = weight / (x.shape[1] * kernel_size**2) ** 0.5
    y = F.conv2d(x, weight, layer.conv.bias, padding=kernel_size // 2)
    return torch.where(y > 0, y, layer.activation.weight.view(1, -1, 1, 1) * y)


def test_the_block_equals_the_equations_term_by_term() -> None:
    torch.manual_seed(0)
    block = MMRB(6).double()
    shake(block)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in block.named_children():
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: seen.__setitem__(name, (inputs[0], output))
        )
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    before = x.clone()
    result = block(x)
    assert torch.equal(x, before)

    x1, x2 = x[:, :3], x[:, 3:]  # eq. 4
    p1 = prelu_conv(block.first3, x1, 3)  # eq. 5
    p2 = prelu_conv(block.first5, x2, 5)  # eq. 6
    c1 = torch.cat([p1, p2], dim=1)
    q1 = prelu_conv(block.second3, c1, 3)  # eq. 7
    q2 = prelu_conv(block.second5, c1, 5)  # eq. 8
    c2 = torch.cat([q1, q2], dim=1)
    p = prelu_conv(block.fuse, c2, 1)  # eq. 9
    expected = {
        "first3": (x1, p1),
        "first5": (x2, p2),
        "second3": (c1, q1),
        "second5": (c1, q2),
        "fuse": (c2, p),
    }
    assert seen.keys() == expected.keys()
    for name, (inputs, output) in expected.items():
        torch.testing.assert_close(seen[name][0], inputs, msg=name)
        torch.testing.assert_close(seen[name][1], output, msg=name)
    assert p1.shape[1] == p2.shape[1] == 3
    assert q1.shape[1] == q2.shape[1] == 6
    assert c2.shape[1] == 12
    torch.testing.assert_close(result, x + p)  # eq. 10


def test_a_block_of_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="5 is odd"):
        MMRB(5)


def test_a_new_block_neither_drowns_its_input_nor_is_drowned() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 32, 32)
    added = MMRB(64)(x) - x
    assert 0.1 < added.std().item() < 1


def test_six_blocks_at_the_named_scales() -> None:
    net = published()
    assert list(net.encoder.mmrb) == ["256", "128", "64", "32", "16", "8"]
    assert sum(isinstance(module, MMRB) for module in net.modules()) == 6
    assert not any(isinstance(module, MMRB) for module in net.decoder.modules())
    sides = []
    for block in net.encoder.mmrb.values():
        block.register_forward_hook(lambda _, inputs, __: sides.append(tuple(inputs[0].shape[1:])))
    net.encoder(torch.empty(1, 3, 512, 512, device="meta"))
    widths = {256: 128, 128: 256, 64: 512, 32: 512, 16: 512, 8: 512}
    assert sides == [(width, side, side) for side, width in widths.items()]


def test_parameters_and_operations() -> None:
    net = published().requires_grad_(False)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert parts == {
        "encoder": 61_315_200,
        "latent": 4_194_816,
        "decoder": 13_355_285,
        "generator": 55_821_735,
    }
    assert sum(parts.values()) == 134_687_036
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, 512, 512, device="meta"))
    assert counter.get_total_flops() == 735_975_354_368


def test_the_noise_branches_start_at_zero() -> None:
    torch.manual_seed(0)
    net = PoseVaried(**SMALL)  # type: ignore[arg-type]
    strengths = [p for name, p in net.named_parameters() if name.endswith("noise.weight")]
    assert len(strengths) == 2 * 4 - 1  # two a scale of 4, 8, 16 and 32 px, one at 4 px
    assert all(p.shape == (1,) and p.item() == 0 for p in strengths)
    x = torch.rand(1, 3, 32, 32)
    features, z = net.encode(x)
    with torch.no_grad():
        image = net.generator(z, features)
        assert torch.equal(image, net.generator(z, [feature + 1 for feature in features]))
        strengths[-1].fill_(0.5)
        assert not torch.equal(image, net.generator(z, features))


def test_features_stand_beside_the_style_blocks_output() -> None:
    """Equation 3, with the layer's bias and activation written out."""
    net = small()
    layer = net.generator.convs[0]
    x, w, features = torch.randn(2, 32, 4, 4), torch.randn(2, 16), torch.randn(2, 16, 8, 8)
    y = torch.cat([layer.conv(x, w), layer.noise.weight * features], dim=1)
    expected = F.leaky_relu(y + layer.activate.bias.view(1, -1, 1, 1), 0.2) * 2**0.5
    torch.testing.assert_close(layer(x, w, features), expected)


def test_one_style_code_from_the_deepest_features() -> None:
    """Equations 1 and 2: Z from the encoder's 4x4 features, W by normalization and the MLP."""
    net = small(num_mlp=8)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    deepest = net.encoder(x)[0]
    assert deepest.shape == (2, 16, 4, 4)
    z = F.linear(deepest.flatten(1), net.latent.weight / 16, net.latent.bias)
    z = F.leaky_relu(z, 0.2) * 2**0.5
    torch.testing.assert_close(net.encode(x)[1], z)
    w = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    assert len(net.generator.style) == 9
    for layer in list(net.generator.style)[1:]:
        w = F.linear(w, layer.weight * 0.01 / 4, layer.bias * 0.01)
        w = F.leaky_relu(w, 0.2) * 2**0.5
    torch.testing.assert_close(net.generator.style(z), w)
    codes = []
    for module in net.generator.modules():
        if hasattr(module, "modulation"):
            module.register_forward_pre_hook(lambda _, inputs: codes.append(inputs[1]))
    net(x)
    assert len(codes) == 7 + 4
    assert all(torch.equal(code, codes[0]) for code in codes)


def test_the_pyramid_has_a_picture_a_scale() -> None:
    net = small()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        image, pyramid = net(x, return_pyramid=True)
        assert torch.equal(net(x), image)
        again = net.forward_with_pyramid(x)
    assert image.shape == x.shape
    assert [tuple(picture.shape) for picture in pyramid] == [
        (2, 3, side, side) for side in (8, 16, 32)
    ]
    assert all(torch.equal(a, b) for a, b in zip(pyramid, again[1], strict=True))


def test_gradients_reach_every_part() -> None:
    net = small()
    x, target = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    image, pyramid = net(x, return_pyramid=True)
    loss = (image - target).abs().mean()
    for picture in pyramid:
        loss = loss + (picture - F.adaptive_avg_pool2d(target, picture.shape[2])).abs().mean()
    loss.backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_even_a_new_network_trains_its_branches() -> None:
    """With strengths of 0 the image does not reach the decoder, but it reaches the strengths."""
    torch.manual_seed(0)
    net = PoseVaried(**SMALL)  # type: ignore[arg-type]
    net(torch.rand(2, 3, 32, 32)).abs().mean().backward()
    for name, parameter in net.generator.named_parameters():
        if name.endswith("noise.weight"):
            assert parameter.grad is not None
            assert parameter.grad.any()
    assert not any(p.grad is not None and p.grad.any() for p in net.decoder.parameters())


def test_texture_passes_the_decoder() -> None:
    """A change of one pixel's neighbourhood shows at its place in the clean features."""
    net = small(out_size=64)
    x = torch.rand(1, 3, 64, 64)
    other = x.clone()
    other[..., 40:44, 8:12] += 1
    with torch.no_grad():
        change = (net.encode(other)[0][-1] - net.encode(x)[0][-1]).abs().sum(dim=(0, 1))
    peak = divmod(int(change.argmax()), 64)
    assert 36 <= peak[0] < 48
    assert 4 <= peak[1] < 16


def test_the_prior_comes_from_gpen() -> None:
    torch.manual_seed(1)
    gpen = GPEN(**SMALL)  # type: ignore[arg-type]
    shake(gpen)
    net = small()
    codec = net.encoder.first[0].weight.clone()
    net.load_prior(gpen.state_dict())
    expected = gpen.generator.state_dict()
    assert all(torch.equal(expected[k], t) for k, t in net.generator.state_dict().items())
    assert torch.equal(net.encoder.first[0].weight, codec)
    gpen.generator.conv1.noise.weight.data.fill_(7.0)
    assert net.generator.conv1.noise.weight.item() != 7
    wrong = {**gpen.state_dict(), "generator.style.1.weight": torch.zeros(2, 2)}
    with pytest.raises(ValueError, match=r"not the prior of this PoseVaried: 1 of .* shape"):
        net.load_prior(wrong)
    with pytest.raises(ValueError, match=r"tensors missing: 'style\.1\.weight'"):
        net.load_prior({})


def test_parameter_groups_hold_every_parameter_once() -> None:
    net = small()
    groups = net.parameter_groups()
    assert list(groups) == ["codec", "prior", "noise"]
    listed = [id(p) for group in groups.values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
    assert len(groups["noise"]) == 7
    assert id(net.generator.input["input"]) in {id(p) for p in groups["prior"]}
    assert id(net.latent.weight) in {id(p) for p in groups["codec"]}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"out_size": 8, "num_mlp": 1},
        {"out_size": 64, "channel_multiplier": 1, "narrow": 0.125},
        {"out_size": 128, "num_style_feat": 8},
    ],
)
def test_built_from_its_state_dict(arguments: dict[str, object]) -> None:
    net = small(**arguments)
    state = {key: tensor.half() for key, tensor in net.state_dict().items()}
    assert identify(state).name == "PoseVaried"
    again = build(state)
    assert isinstance(again, PoseVaried)
    assert again.out_size == net.out_size
    assert all(torch.equal(t, state[key].float()) for key, t in again.state_dict().items())
    with pytest.raises(ValueError, match=r"1 tensors too many: 'extra'"):
        PoseVaried.from_state_dict({**state, "extra": torch.zeros(1)})


def test_wrong_sizes_are_refused() -> None:
    for size in (0, 4, 48, 500):
        with pytest.raises(ValueError, match="power of two"):
            PoseVaried(out_size=size)
    with pytest.raises(ValueError, match="is odd"):
        PoseVaried(out_size=512, narrow=3 / 128)


def test_deterministic_and_independent_of_the_batch() -> None:
    net = small()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    before = x.clone()
    with torch.inference_mode():
        together = net(x)
        assert torch.equal(together, net(x))
        alone = torch.cat([net(one[None]) for one in x])
    assert torch.equal(x, before)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3
