import pytest
import torch

from gfp_core.networks.patch_discriminator import PatchDiscriminator


def test_the_paper_s_layers() -> None:
    with torch.device("meta"):
        net = PatchDiscriminator()
        scores = net(torch.empty(2, 3, 512, 512))
    assert scores.shape == (2, 1, 62, 62)
    convolutions = [layer for layer in net.main if isinstance(layer, torch.nn.Conv2d)]
    widths = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    assert widths == [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert sum(p.numel() for p in net.parameters()) == 2_765_633


def test_each_score_sees_a_patch_of_70_pixels() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(ndf=4).eval()
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    net(x)[0, 0, 9, 9].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    columns = x.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    for seen in (rows, columns):
        assert seen.max() - seen.min() + 1 == 70


def test_how_it_begins() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator().requires_grad_(False)
    for layer in net.main:
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.weight.std() == pytest.approx(0.02, rel=0.1)
            assert layer.weight.mean() == pytest.approx(0, abs=0.002)
            assert layer.bias is None or not layer.bias.any()
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.weight.mean() == pytest.approx(1, abs=0.01)
            assert layer.weight.std() == pytest.approx(0.02, rel=0.3)


def test_gradients_reach_every_layer() -> None:
    net = PatchDiscriminator(ndf=4, n_layers=2)
    net(torch.rand(2, 3, 32, 32)).mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("ndf", "n_layers"), [(4, 1), (8, 2), (2, 5)])
def test_it_is_built_from_its_tensors(ndf: int, n_layers: int) -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(ndf, n_layers).eval()
    again = PatchDiscriminator.from_state_dict(net.state_dict()).eval()
    x = torch.rand(1, 3, 160, 160)
    assert torch.equal(net(x), again(x))


def test_it_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PatchDiscriminator(n_layers=0)


def test_without_normalization_the_signal_does_not_fade() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(ndf=16, n_layers=3, plain=True).requires_grad_(False)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())
    x = torch.randn(2, 3, 96, 96)
    for layer in net.main[:-1]:
        x = layer(x)
        assert 0.3 < x.std() < 3
    one, other = net(torch.randn(2, 3, 96, 96)), net(torch.randn(2, 3, 96, 96))
    assert not torch.equal(one, other)
