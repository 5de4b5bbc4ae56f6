"""Each loss against its formula, written by hand in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from gfp_core.networks.hq_dictionary import HQDictionary
from gfp_core.training import losses


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.randn(
        2, 3, 8, 8, generator=generator
    )


def softplus(x):
    return np.log1p(np.exp(x))


def test_distances(pair):
    a, b = (one.double().numpy() for one in pair)
    assert losses.l1(*pair).item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert losses.squared(*pair).item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    norms = [np.sqrt(((x - y) ** 2).sum() / x.size) for x, y in zip(a, b, strict=True)]
    assert losses.euclidean(*pair).item() == pytest.approx(np.mean(norms), rel=1e-5)


def test_pyramid_is_the_mean_l1_of_the_scales():
    clean = torch.rand(2, 3, 32, 32)
    small = clean.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5))
    loss = losses.pyramid([small + 0.25, clean - 0.5], clean)
    assert loss.item() == pytest.approx((0.25 + 0.5) / 2, rel=1e-5)


def test_features_are_a_weighted_sum_over_layers(pair):
    a, b = pair
    layers = [a, a[:, :, ::2]], [b, b[:, :, ::2]]
    expected = 0.1 * (a - b).abs().mean() + 2 * (a - b)[:, :, ::2].abs().mean()
    assert losses.features(*layers, losses.l1, [0.1, 2.0]).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_gram_and_style(pair):
    def gram(x):
        batch, channels, height, width = x.shape
        result = np.zeros((batch, channels, channels))
        for n in range(batch):
            for i in range(channels):
                for j in range(channels):
                    result[n, i, j] = (x[n, i] * x[n, j]).sum() / (channels * height * width)
        return result

    a, b = (one.double().numpy() for one in pair)
    assert np.allclose(losses.gram(pair[0]).numpy(), gram(a), atol=1e-6)
    for name, power in (("l1", 1), ("squared", 2)):
        expected = (np.abs(gram(a) - gram(b)) ** power).mean() * 0.5
        found = losses.style([pair[0]], [pair[1]], losses.DISTANCES[name], [0.5])
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_no_gradient_goes_to_the_clean_side(pair):
    a, b = (one.clone().requires_grad_() for one in pair)
    losses.style([a], [b]).backward()
    losses.features([a], [b]).backward()
    losses.prior_match(a, b).backward()
    losses.identity(a.flatten(1), b.flatten(1)).backward()
    assert b.grad is None
    assert a.grad.abs().sum() > 0


def test_adversarial_losses():
    real, fake = np.array([2.0, -1.0, 0.5]), np.array([0.3, -2.0, 1.5])
    r, f = torch.tensor(real), torch.tensor(fake)
    found = losses.generator_logistic(f).item()
    assert found == pytest.approx(-np.log(1 / (1 + np.exp(-fake))).mean(), rel=1e-5)
    cross_entropy = (
        -np.log(1 / (1 + np.exp(-real))).mean() - np.log(1 - 1 / (1 + np.exp(-fake))).mean()
    )
    assert losses.discriminator_logistic(r, f).item() == pytest.approx(cross_entropy, rel=1e-5)
    hinge = 0.5 * (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())
    assert losses.discriminator_hinge(r, f).item() == pytest.approx(hinge, rel=1e-5)
    assert losses.generator_hinge(f).item() == pytest.approx(-fake.mean(), rel=1e-5)


def test_r1_is_half_the_squared_slope_and_can_be_learned_from():
    # D(x) = w . x^2 / 2 has the gradient w x.
    weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.5, 3.0]))

    def discriminator(x):
        return (x.square().flatten(1) * weight).sum(1, keepdim=True) / 2

    real = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 0.0, -1.0, 1.0]]).view(2, 1, 2, 2)
    penalty = losses.r1_penalty(discriminator, real)
    slopes = real.flatten(1) * weight
    assert penalty.item() == pytest.approx(0.5 * slopes.square().sum(1).mean().item())
    penalty.backward()
    expected = (real.flatten(1) ** 2 * weight).mean(0)
    assert torch.allclose(weight.grad, expected)
    assert not real.requires_grad


def test_r1_is_computed_in_float32_inside_autocast():
    layer = nn.Conv2d(3, 4, 3)
    real = torch.randn(2, 3, 8, 8)
    exact = losses.r1_penalty(layer, real)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.r1_penalty(layer, real), exact)


def test_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer():
    last = nn.Parameter(torch.tensor([1.0, 2.0]))
    reconstruction, adversarial = (last * 3).sum(), (last * torch.tensor([0.0, 0.5])).sum()
    weight = losses.adaptive_weight(reconstruction, adversarial, last)
    assert weight.item() == pytest.approx(np.sqrt(18) / (0.5 + 1e-4))
    assert not weight.requires_grad
    far = losses.adaptive_weight(reconstruction * 1e6, adversarial * 0, last)
    assert far.item() == 1e4


def test_identity_is_the_distance_of_unit_vectors():
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    assert losses.identity(a, b).item() == pytest.approx((0.6 + 0.2) / 2)
    assert losses.identity(a, b, losses.squared).item() == pytest.approx((0.36 + 0.04) / 2)


def test_quantisation_terms_of_the_dictionary_and_the_prior_match(pair):
    torch.manual_seed(0)
    net = HQDictionary(
        ch=32, ch_mult=[1], num_res_blocks=1, z_channels=4, embed_dim=4, n_embed=5, heads=1
    )
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    found = net.forward_with_losses(x)
    z = net.encode(x)[0].detach().numpy()
    codes = net.quantize.embedding.weight.detach().numpy()
    flat = z.transpose(0, 2, 3, 1).reshape(-1, 4)
    nearest = codes[((flat[:, None] - codes) ** 2).sum(2).argmin(1)]
    expected = ((flat - nearest) ** 2).mean()
    assert found.codebook_loss.item() == pytest.approx(expected, rel=1e-4)
    assert found.commitment_loss.item() == pytest.approx(expected, rel=1e-4)
    a, b = pair
    assert losses.prior_match(a, b).item() == pytest.approx((a - b).square().mean().item())


def test_descriptor_features_are_compared_at_each_place_whatever_their_length():
    a = torch.tensor([[[[3.0]], [[0.0]]]])  # (1, 2, 1, 1): to the right, and up below
    b = torch.tensor([[[[0.0]], [[5.0]]]], requires_grad=True)
    assert losses.descriptor([a], [b]).item() == pytest.approx(2)
    assert losses.descriptor([a, a], [b, 7 * a]).item() == pytest.approx(1)
    losses.descriptor([b], [a]).backward()
    assert b.grad.abs().sum() > 0


def test_tone_sees_colors_and_no_detail():
    flat = torch.zeros(1, 3, 64, 64)
    stripes = flat.clone()
    stripes[..., ::2], stripes[..., 1::2] = 0.5, -0.5
    assert losses.tone(stripes, flat, 2).item() == pytest.approx(0)
    assert losses.tone(flat + 0.25, flat, 2).item() == pytest.approx(0.25)
    greener = flat.clone()
    greener[:, 1] = 0.3
    assert losses.tone(greener, flat, 2).item() == pytest.approx(0.1 + 2 * (0.3 + 0.15))
