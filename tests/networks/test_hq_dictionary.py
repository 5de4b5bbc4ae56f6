from typing import Any

import pytest
import torch
from torch import Tensor

from gfp_core.networks.hq_dictionary import HQDictionary
from gfp_core.networks.registry import build
from gfp_core.networks.restoreformer import Codec, RestoreFormer, RestoreFormerPlusPlus

SMALL: dict[str, Any] = {
    "ch": 32,
    "ch_mult": (1, 1, 2),
    "num_res_blocks": 1,
    "z_channels": 16,
    "embed_dim": 8,
    "n_embed": 32,
}


def small(net: type[Codec] = HQDictionary, seed: int = 0, **arguments: Any) -> Any:
    torch.manual_seed(seed)
    made = net(**{**SMALL, **arguments})
    torch.nn.init.normal_(made.quantize.embedding.weight)
    return made


def faces(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_encode_quantize_decode() -> None:
    net, x = small(), faces()
    z, _ = net.encode(x)
    codes = net.nearest_codes(z)
    assert z.shape == codes.values.shape == (2, 8, 8, 8)
    assert codes.indices.unique().numel() > 5
    assert torch.equal(net.quantize.look_up(codes.indices), codes.values)
    image = net.decode(codes.values)
    assert image.shape == x.shape
    assert torch.equal(net(x), image)


def test_the_code_is_the_nearest() -> None:
    net = small()
    z, _ = net.encode(faces())
    indices = net.nearest_codes(z).indices
    distance = (z.movedim(1, -1)[..., None, :] - net.quantize.embedding.weight).square().sum(-1)
    assert torch.equal(indices, distance.argmin(dim=-1))
    assert torch.equal(indices, net.nearest_codes(net.encode(faces())[0]).indices)


def test_the_losses_are_eq_15_and_16() -> None:
    net, x = small(), faces()
    result = net.forward_with_losses(x)
    z = net.encode(x)[0].detach()
    codes = net.quantize.embedding.weight.detach()
    squares = [
        float(((z[b, :, i, j] - codes[result.indices[b, i, j]]) ** 2).sum())
        for b in range(2)
        for i in range(8)
        for j in range(8)
    ]
    expected = sum(squares) / z.numel()
    assert result.codebook_loss.item() == pytest.approx(expected, rel=1e-5)
    assert result.commitment_loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(result.image, net(x), rtol=1e-5, atol=1e-5)


def having_gradients(net: HQDictionary) -> set[str]:
    return {key.split(".")[0] for key, p in net.named_parameters() if p.grad is not None}


def test_the_codebook_loss_moves_the_chosen_codes_only() -> None:
    net = small()
    result = net.forward_with_losses(faces())
    result.codebook_loss.backward()
    assert having_gradients(net) == {"quantize"}
    moved = net.quantize.embedding.weight.grad.abs().sum(dim=1) > 0
    assert moved.nonzero().flatten().tolist() == result.indices.unique().tolist()
    z, _ = net.encode(faces())
    # d/de of the mean of (e - z)^2
    code = int(result.indices[0, 0, 0])
    chosen = z.movedim(1, -1)[result.indices == code]
    expected = 2 * (net.quantize.embedding.weight[code] - chosen).sum(dim=0) / z.numel()
    torch.testing.assert_close(net.quantize.embedding.weight.grad[code], expected)


def test_the_commitment_loss_moves_the_encoder_only() -> None:
    net = small()
    net.forward_with_losses(faces()).commitment_loss.backward()
    assert having_gradients(net) == {"encoder", "quant_conv"}


def test_the_picture_teaches_the_encoder_as_if_nothing_were_quantized() -> None:
    net, x = small().double(), faces().double()
    caught: list[Tensor] = []
    net.quant_conv.register_full_backward_hook(lambda *call: caught.append(call[2][0]))
    (net.forward_with_losses(x).image * x).sum().backward()
    assert having_gradients(net) == {"encoder", "quant_conv", "post_quant_conv", "decoder"}
    values = net.nearest_codes(net.encode(x)[0]).values.detach().requires_grad_()
    (net.decode(values) * x).sum().backward()
    torch.testing.assert_close(caught[0], values.grad)


def test_a_few_steps_of_training_make_it_better() -> None:
    net, x = small(seed=3), faces(1)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    errors = []
    for _ in range(25):
        result = net.forward_with_losses(x)
        error = (result.image - x).abs().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        (error + result.codebook_loss + 0.25 * result.commitment_loss).backward()
        optimizer.step()
    assert errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize("kind", [RestoreFormer, RestoreFormerPlusPlus])
def test_a_restorer_starts_from_it(kind: type[RestoreFormer]) -> None:
    dictionary, restorer = small(), small(kind, seed=9)
    before = {key: tensor.clone() for key, tensor in restorer.state_dict().items()}
    left = restorer.start_from(dictionary)
    for key, tensor in restorer.state_dict().items():
        assert torch.equal(tensor, before[key] if key in left else dictionary.state_dict()[key])
    assert all(key.startswith("decoder.up.1.attn.") for key in left)
    assert len(left) == (0 if kind is RestoreFormer else 24)
    assert not restorer.quantize.embedding.weight.requires_grad
    assert dictionary.quantize.embedding.weight.requires_grad
    _, z, priors = restorer.forward_with_priors(faces())
    assert torch.equal(z, dictionary.encode(faces())[0]) or kind is not RestoreFormer
    if kind is RestoreFormer:
        assert torch.equal(priors.indices, dictionary.forward_with_losses(faces()).indices)


def test_a_dictionary_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'quantize.embedding.weight' does not fit \(1 of"):
        small(RestoreFormer).start_from(small(n_embed=16))


def test_it_is_loaded_when_asked_for() -> None:
    net = small().eval()
    state = net.state_dict()
    assert type(build(state)) is RestoreFormer  # the tensors are the same
    loaded = build(state, "HQDictionary").eval()
    assert type(loaded) is HQDictionary
    with torch.inference_mode():
        assert torch.equal(loaded(faces()), net(faces()))
