import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gfp_core.networks.discriminators import (
    ComponentDiscriminator,
    StyleGAN2Discriminator,
    minibatch_stddev,
)

SMALL = {"size": 32, "narrow": 0.03125}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small() -> StyleGAN2Discriminator:
    return StyleGAN2Discriminator(**SMALL)  # type: ignore[arg-type]


# ------------------------------------------------------------------ minibatch standard deviation


@pytest.mark.parametrize(
    ("batch", "groups"),
    [
        (1, [[0]]),
        (2, [[0, 1]]),
        (3, [[0, 1, 2]]),
        (4, [[0, 1, 2, 3]]),
        (5, [[0, 2, 4], [1, 3]]),
        (6, [[0, 2, 4], [1, 3, 5]]),
        (7, [[0, 2, 4, 6], [1, 3, 5]]),
        (8, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (9, [[0, 3, 6], [1, 4, 7], [2, 5, 8]]),
    ],
)
def test_the_deviation_of_every_group_by_hand(batch: int, groups: list[list[int]]) -> None:
    x = torch.randn(batch, 3, 2, 2, dtype=torch.float64)
    result = minibatch_stddev(x)
    assert result.shape == (batch, 4, 2, 2)
    assert torch.equal(result[:, :3], x)
    for group in groups:
        total = 0.0
        for channel in range(3):
            for place in range(4):
                values = [float(x[i, channel].flatten()[place]) for i in group]
                mean = sum(values) / len(values)
                total += math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-8)
        for i in group:
            expected = torch.full((2, 2), total / 12, dtype=torch.float64)
            torch.testing.assert_close(result[i, 3], expected)


def test_the_deviation_equals_the_published_form_where_that_works() -> None:
    """Reshaped to (group, number of groups, ...), which needs a batch that the group divides."""
    x = torch.randn(8, 3, 2, 2)
    grouped = x.view(4, 2, 3, 2, 2)
    published = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(4)
    torch.testing.assert_close(minibatch_stddev(x)[:, 3, 0, 0], published)


def test_the_deviation_in_half_precision() -> None:
    x = 1 + 1e-3 * torch.randn(4, 8, 4, 4)
    half = minibatch_stddev(x.half())
    assert half.dtype == torch.float16
    exact = minibatch_stddev(x.half().float())[:, 8].mean()
    assert half[:, 8].float().mean().item() == pytest.approx(exact.item(), rel=1e-3)
    large = minibatch_stddev(torch.tensor([6e4, -6e4]).half().view(2, 1, 1, 1))
    assert large.isfinite().all()


def test_repetition_is_seen() -> None:
    one = torch.randn(1, 3, 4, 4)
    assert minibatch_stddev(one.expand(4, -1, -1, -1))[:, 3].max() < 1e-3
    assert minibatch_stddev(torch.randn(4, 3, 4, 4))[:, 3].min() > 0.5


# -------------------------------------------------------------------- StyleGAN2's discriminator


@pytest.mark.parametrize("size", [8, 64, 256])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_one_logit_a_picture(size: int, batch: int) -> None:
    net = StyleGAN2Discriminator(size, narrow=0.0625)
    logits = net(torch.randn(batch, 3, size, size))
    assert logits.shape == (batch, 1)
    assert logits.isfinite().all()


def test_phases_are_seen_at_half_the_size_and_whole() -> None:
    net = StyleGAN2Discriminator(64, narrow=0.0625, phases=2)
    assert net.conv_body[0][0].weight.shape[1] == 12
    assert len(net.conv_body) == len(StyleGAN2Discriminator(32, narrow=0.0625).conv_body)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    assert (gradient != 0).float().mean() > 0.99


def test_wrong_sizes_are_refused() -> None:
    for size in (4, 48, 500):
        with pytest.raises(ValueError, match="power of two"):
            StyleGAN2Discriminator(size)


@pytest.mark.parametrize(
    ("size", "parameters", "operations"),
    [(256, 28_864_129, 93_561_320_448), (512, 28_982_849, 124_214_868_992)],
)
def test_parameters_and_operations(size: int, parameters: int, operations: int) -> None:
    with torch.device("meta"):
        net = StyleGAN2Discriminator(size).requires_grad_(False)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    assert counter.get_total_flops() == operations


def test_names() -> None:
    names = list(small().state_dict())
    assert names[:7] == [
        "conv_body.0.0.weight",
        "conv_body.0.1.bias",
        "conv_body.1.conv1.0.weight",
        "conv_body.1.conv1.1.bias",
        "conv_body.1.conv2.1.weight",
        "conv_body.1.conv2.2.bias",
        "conv_body.1.skip.1.weight",
    ]
    assert names[-6:] == [
        "final_conv.0.weight",
        "final_conv.1.bias",
        "final_linear.0.weight",
        "final_linear.0.bias",
        "final_linear.1.weight",
        "final_linear.1.bias",
    ]


@pytest.mark.parametrize(
    "make", [lambda: StyleGAN2Discriminator(32, narrow=0.25), ComponentDiscriminator]
)
def test_equalized_weights_give_features_of_unit_size(make: Callable[[], nn.Module]) -> None:
    net = make()
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(1, abs=0.15), name
        else:
            assert not parameter.any(), name
    sizes = []
    for name, module in net.named_modules():
        if re.fullmatch(r"conv\d|conv_body\.\d|final_\w+", name):
            module.register_forward_hook(lambda _, __, y: sizes.append(y.square().mean().sqrt()))
    net(torch.randn(16, 3, 1, 1).expand(16, 3, 32, 32))  # flat: the filters would smooth noise away
    assert len(sizes) == 6
    assert all(0.4 < size.item() < 2 for size in sizes)


def test_the_whole_picture_is_judged() -> None:
    net = small()
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    assert (gradient.abs().sum(dim=(0, 1)) > 0).all()


def penalty(net: nn.Module, x: Tensor, *, training: bool) -> Tensor:
    """R1: the squared gradient of the logits on photographs."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=training)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


@pytest.mark.parametrize("make", [small, lambda: ComponentDiscriminator(0.0625)])
def test_the_gradient_penalty_can_be_trained(make: Callable[[], nn.Module]) -> None:
    net = make().double()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    penalty(net, x, training=True).backward()
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    gradients = [p.grad for p in weights]
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients)

    # The same along one direction, by differences. The step is small beside the distance to the
    # corners of the activations, across which the penalty jumps.
    direction = [torch.randn_like(p) for p in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))  # type: ignore[operator]
    step = 1e-7
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p.add_(sign * step * d)
        values.append(penalty(net, x, training=False).item())
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p.sub_(sign * step * d)
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-2)


# ------------------------------------------------------------------------------------- FreezeD


def frozen(net: nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if not p.requires_grad}


def test_the_first_five_convolutions_are_the_first_and_two_blocks() -> None:
    net = small()
    net.freeze_first(5)
    expected = {
        n
        for n, _ in net.named_parameters()
        if n.startswith(tuple(f"conv_body.{i}." for i in range(3)))
    }
    assert len(expected) == 2 + 5 + 5
    assert frozen(net) == expected
    net.freeze_first(2)
    assert frozen(net) == {
        "conv_body.0.0.weight",
        "conv_body.0.1.bias",
        "conv_body.1.conv1.0.weight",
        "conv_body.1.conv1.1.bias",
    }
    net.freeze_first(0)
    assert frozen(net) == set()


def test_freezing_all_leaves_the_linear_layers() -> None:
    net = small()
    net.freeze_first(8)  # the first, two in each of three blocks, the last
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {
        f"final_linear.{i}.{what}" for i in (0, 1) for what in ("weight", "bias")
    }
    for wrong in (-1, 9):
        with pytest.raises(ValueError, match="from 0 to 8"):
            net.freeze_first(wrong)


def test_frozen_layers_stay_and_still_pass_gradients() -> None:
    net = small()
    net.freeze_first()
    before = {name: p.clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    net(x).sum().backward()
    optimizer.step()
    assert x.grad is not None
    assert x.grad.any()
    changed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(before) - frozen(net)


# --------------------------------------------------------------------------- eyes and mouth


def test_the_component_discriminator_has_the_published_widths() -> None:
    net = ComponentDiscriminator()
    widths = [p.shape[0] for name, p in net.named_parameters() if name.endswith("weight")]
    assert widths == [64, 128, 128, 256, 256, 1]
    assert sum(p.numel() for p in net.parameters()) == 1_110_785
    assert list(net.state_dict())[:4] == [
        "conv1.0.weight",
        "conv1.1.bias",
        "conv2.1.weight",
        "conv2.2.bias",
    ]


@pytest.mark.parametrize("size", [(80, 80), (120, 120), (17, 30)])
def test_a_logit_for_every_place_of_a_patch(size: tuple[int, int]) -> None:
    net = ComponentDiscriminator(0.125)
    height, width = size
    x = torch.randn(2, 3, height, width)
    with torch.no_grad():
        logits, (half, quarter) = net.forward_with_features(x)
        assert torch.equal(net(x), logits)
    assert logits.shape == (2, 1, height // 4, width // 4)
    assert half.shape == (2, 16, height // 2, width // 2)
    assert quarter.shape == (2, 32, height // 4, width // 4)


def test_a_logit_sees_its_surroundings_only() -> None:
    net = ComponentDiscriminator(0.125)
    x = torch.randn(1, 3, 80, 80, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, 0, 10, 10], x)
    seen = gradient.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    assert torch.equal(rows, columns)
    # Walking back, a 3x3 layer adds 2 pixels, a halving one with its smoothing filter doubles and
    # adds 4: 1, 3, 5, then 14, 16, then 36, 38.
    assert len(rows) == 38
    assert rows.float().mean().item() == pytest.approx(4 * 10 + 1.5, abs=0.5)
