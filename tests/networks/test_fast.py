import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gfp_core.networks import fast_layers
from gfp_core.networks.codeformer import CodeFormer
from gfp_core.networks.fast import fast_form
from gfp_core.networks.fast_gfpgan import FastGFPGAN
from gfp_core.networks.fast_layers import (
    Conv3x3,
    bilinear_conv,
    borrowed,
    conv1x1,
    fir_kernel,
    in_bands,
    nearest_weight,
    reuse_memory,
    transposed,
)
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean, GFPGANv1
from gfp_core.networks.lite import GFPGANLite
from gfp_core.networks.restoreformer import RestoreFormer, RestoreFormerPlusPlus

BANDS = {"whole": 2**40, "bands": 2**13}
"""Sizes of a band with which the nets of these tests are and are not taken apart."""


def full(net: nn.Module, seed: int = 0) -> nn.Module:
    """Other numbers wherever a fresh network has zeros, so that nothing can be skipped."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("bias") or tensor.numel() == 1:
                tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return net.eval()


def small(size: int, **options: object) -> GFPGANClean:
    torch.manual_seed(size)
    defaults = {"num_style_feat": 16, "narrow": 0.0625, "num_mlp": 1, "channel_multiplier": 1}
    return full(GFPGANClean(out_size=size, **{**defaults, **options}))  # type: ignore[arg-type, return-value]


def faces(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def assert_equal_forms(net: nn.Module, fast: nn.Module, x: Tensor, tolerance: float = 1e-4) -> None:
    before = x.clone()
    with torch.inference_mode():
        expected, found = net(x), fast(x)
    assert expected.std() > 0.05
    assert torch.equal(x, before)
    # Random networks give large numbers; a trained one's picture has a deviation of about 0.5.
    scale = max(1.0, float(expected.std()))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


# --------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 2), (16, 16), (17, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_after_bilinear_upsampling(shape: tuple[int, int], layout) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *shape).contiguous(memory_format=layout)
    weight, bias = torch.randn(7, 5, 3, 3), torch.randn(7)
    expected = F.conv2d(
        F.interpolate(x, scale_factor=2.0, mode="bilinear"), weight, bias, padding=1
    )
    found = bilinear_conv(x, transposed(weight), fir_kernel(7), bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("band", [2, 4, 6, 100])
def test_bands_make_the_same_map(band: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 16, 5), torch.randn(4, 3, 3, 3)

    def run(low: int, high: int) -> tuple[Tensor, Tensor]:
        y = F.conv2d(x[:, :, low:high], weight, padding=1)
        return F.avg_pool2d(y, 2)[:, :, :, :2], F.avg_pool2d(x[:, :, low:high], 2)

    found = in_bands(run, 16, band, margin=2, scale=0.5)
    for part, expected in zip(found, run(0, 16), strict=True):
        torch.testing.assert_close(part, expected)


def test_a_margin_too_small_would_show() -> None:
    x, weight = torch.randn(1, 1, 16, 5), torch.randn(1, 1, 3, 3)

    def run(low: int, high: int) -> tuple[Tensor]:
        return (F.conv2d(x[:, :, low:high], weight, padding=1),)

    bands = in_bands(run, 16, 4, margin=0, scale=1)[0]
    assert not torch.allclose(bands, run(0, 16)[0])


def test_phases_of_doubled_pixels() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 5, 4), torch.randn(2, 3, 3, 3)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    phases = nearest_weight(weight).chunk(4)
    padded = F.pad(x, (1, 1, 1, 1))
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        found = F.conv2d(padded[:, :, row : row + 6, column : column + 5], phases[i])
        torch.testing.assert_close(found, expected[:, :, row::2, column::2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("batch", "rows"), [(1, 36), (2, 36), (1, 35), (1, 33)])
@pytest.mark.parametrize("band", [1, 2**17, 2**40])
def test_a_wide_convolution_with_fewer_multiplications(
    batch: int, rows: int, band: int, groups: int, monkeypatch
) -> None:
    monkeypatch.setattr(fast_layers, "QUICK_BYTES", band)
    torch.manual_seed(0)
    published = nn.Conv2d(96 * groups, 128 * groups, 3, padding=1, groups=groups)
    conv = Conv3x3(published.weight, published.bias, groups)
    x = torch.randn(batch, 96 * groups, rows, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert conv.is_quick(x)
        assert not conv.is_quick(x[:, :, :31])  # too small
        assert not conv.is_quick(x.double())
        expected = copy.deepcopy(published).double()(x.double())
        for _ in range(2):
            found = conv(x)
            assert (found - expected).abs().max() < 2e-5
            assert found.is_contiguous(memory_format=torch.channels_last)
        conv.load_state_dict({name: 2 * value for name, value in conv.state_dict().items()})
        assert (conv(x) - 2 * expected).abs().max() < 4e-5
        with torch.autocast("cpu", torch.bfloat16):
            assert not conv.is_quick(x)
    assert not conv.is_quick(x)  # it is not differentiated
    assert conv(x).requires_grad
    assert sorted(conv.state_dict()) == ["bias", "weight"]


def test_a_1x1_convolution_is_the_librarys() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(40, 24, 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 40, 17, 9).contiguous(memory_format=layout)
        with torch.inference_mode():
            for bias in (conv.bias, None):
                expected = F.conv2d(x, conv.weight, bias)
                found = conv1x1(x, conv.weight, bias)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert conv1x1(x, conv.weight).requires_grad


def test_memory_is_lent_to_one_at_a_time_and_given_back() -> None:
    seen = []

    class Borrower(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                with borrowed(x, 3) as first, borrowed(x, 3) as second:
                    assert first.shape == second.shape == (2, 3, 4, 5)
                    assert first.data_ptr() != second.data_ptr()
                    seen.append(first.data_ptr())
            raise ValueError

    net = Borrower()
    reuse_memory(net)
    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            net(torch.zeros(2, 7, 4, 5))
        assert fast_layers._lent.buffer is None
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]


# --------------------------------------------------------------------------------------- GFP-GAN


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("modulation", ["weights", "features"])
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_equal_over_sizes_batches_and_modulations(size, modulation, bands, monkeypatch) -> None:
    monkeypatch.setattr(fast_layers, "BAND_BYTES", BANDS[bands])
    if bands == "bands":
        monkeypatch.setattr(fast_layers, "QUICK_CHANNELS", 1)
    net = small(size)
    fast = fast_form(net)
    assert isinstance(fast, FastGFPGAN)
    fast.modulation = modulation
    for count in (1, 2, 3):
        assert_equal_forms(net, fast, faces(count, size))


@pytest.mark.slow
@pytest.mark.parametrize("size", [256, 512])
def test_equal_at_sizes_that_come_in_bands(size: int) -> None:
    net = small(size, narrow=0.125, channel_multiplier=2)
    assert_equal_forms(net, fast_form(net), faces(1, size), 2e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"narrow": 0.03125, "channel_multiplier": 2},
        {"narrow": 0.09375},
        {"sft_half": False},
        {"different_w": False, "input_is_latent": False, "num_mlp": 2},
        {"image_channels": 4},
    ],
)
def test_equal_over_kinds(options: dict[str, object]) -> None:
    net = small(64, **options)
    x = torch.rand(2, options.get("image_channels", 3), 64, 64) * 2 - 1  # type: ignore[call-overload]
    assert_equal_forms(net, fast_form(net), x)


def test_lite_and_the_form_of_training() -> None:
    torch.manual_seed(0)
    lite = full(GFPGANLite(out_size=64, narrow=0.0625, num_style_feat=16))
    assert_equal_forms(lite, fast_form(lite), faces(2, 64))
    bilinear = full(GFPGANBilinear(out_size=64, narrow=0.0625, num_style_feat=16, num_mlp=1))
    fast = fast_form(bilinear)
    assert isinstance(fast, FastGFPGAN)
    assert_equal_forms(bilinear, fast, faces(2, 64))


def test_a_network_without_a_fast_form_stays_itself() -> None:
    net = GFPGANv1(out_size=8, narrow=0.0625, num_style_feat=8, num_mlp=1)
    assert fast_form(net) is net


def test_the_published_network_is_left_alone_and_stays_trainable() -> None:
    net = small(32)
    before = copy.deepcopy(net.state_dict())
    fast = fast_form(net)
    expected = fast(faces(1, 32))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    net(faces(1, 32)).sum().backward()
    with torch.no_grad():
        for parameter in net.stylegan_decoder.style_convs.parameters():
            parameter += 1
    assert torch.equal(fast(faces(1, 32)), expected)


def test_moves_and_saves_as_any_module() -> None:
    fast = fast_form(small(64))
    x = faces(1, 64)
    expected = fast(x)
    state = {name: tensor.clone() for name, tensor in fast.state_dict().items()}
    assert all(not tensor.is_meta for tensor in fast.to("meta").to_empty(device="cpu").buffers())
    fast.load_state_dict(state)
    torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-5)
    assert any("noises.noise0" in name for name in state)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.bfloat16, 0.4)])
@pytest.mark.parametrize("modulation", ["weights", "features"])
def test_half_precision_is_near(dtype, tolerance, modulation) -> None:
    net = small(64)
    fast = fast_form(net)
    fast.modulation = modulation  # type: ignore[assignment]
    x = faces(2, 64)
    with torch.inference_mode():
        exact = net(x)
        with torch.autocast("cpu", dtype):
            half = fast(x).float()
            published = net(x).float()
    apart = (half - exact).abs().max()
    assert 0 < apart < tolerance
    assert apart < 3 * (published - exact).abs().max()


def test_small_weights_keep_their_demodulation_in_half_precision() -> None:
    """Their squares are below what fp16 knows; demodulation in float32 does not see that."""
    net = small(32)
    with torch.no_grad():
        for layer in net.stylegan_decoder.style_convs:
            layer.modulated_conv.weight *= 1e-2
    with torch.inference_mode():
        exact = net(faces(1, 32))
        with torch.autocast("cpu", torch.float16):
            half = fast_form(net)(faces(1, 32)).float()
    assert (half - exact).abs().max() < 0.1


# ----------------------------------------------------------------------- RestoreFormer, CodeFormer


@pytest.mark.parametrize("network", [RestoreFormer, RestoreFormerPlusPlus])
@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 64, 32)])
@pytest.mark.parametrize("quick", [32, 2**20])
def test_restoreformer(network, shape: tuple[int, int, int], quick: int, monkeypatch) -> None:
    monkeypatch.setattr(fast_layers, "QUICK_CHANNELS", quick)
    torch.manual_seed(0)
    net = network(
        ch=32, ch_mult=(1, 2, 4), num_res_blocks=1, z_channels=32, embed_dim=32, n_embed=64
    )
    fast = fast_form(full(net))
    assert type(fast) is type(net)  # its blocks are exchanged, its way through them is not
    x = torch.rand(shape[0], 3, *shape[1:]) * 2 - 1
    assert_equal_forms(net, fast, x, 2e-4)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(fast(x)).all()


@pytest.mark.parametrize("quick", [32, 2**20])
def test_codeformer_keeps_its_fidelity(quick: int, monkeypatch) -> None:
    monkeypatch.setattr(fast_layers, "QUICK_CHANNELS", quick)
    torch.manual_seed(0)
    net = CodeFormer(
        ch=32,
        ch_mult=(1, 2, 4),
        num_res_blocks=1,
        embed_dim=32,
        n_embed=64,
        dim_embd=32,
        n_layers=2,
    )
    fast = fast_form(full(net))
    assert fast.default_fidelity == net.default_fidelity
    x = faces(1, net.out_size)
    with torch.inference_mode():
        for fidelity in (0.0, 0.5, 1.0):
            torch.testing.assert_close(
                fast(x, fidelity=fidelity), net(x, fidelity=fidelity), rtol=0, atol=2e-4
            )
