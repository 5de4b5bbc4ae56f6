"""The bundled model's network."""

import pytest
import torch

from gfp_core.networks import registry
from gfp_core.networks.lite import GFPGANLite


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return GFPGANLite(out_size=64, num_style_feat=16, narrow=0.0625).eval()


@pytest.fixture(scope="module")
def faces():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_limits_of_the_bundled_model():
    with torch.device("meta"):
        net = GFPGANLite()
    size = sum(tensor.numel() for tensor in net.state_dict().values())
    assert size <= 8_000_000
    assert size * 2 <= 16 * 2**20  # bytes in half precision


def test_is_recognized_and_rebuilt_from_its_keys(net, faces):
    assert registry.identify(net.state_dict()).name == "GFPGANLite"
    rebuilt = registry.build({key: value.half() for key, value in net.state_dict().items()}).eval()
    assert rebuilt.out_size == 64
    with torch.inference_mode():
        assert (rebuilt(faces) - net(faces)).abs().max() < 1e-2


def test_missing_tensor_is_named(net):
    state = net.state_dict()
    del state["core.final_conv.weight"]
    with pytest.raises(ValueError, match=r"core\.final_conv\.weight"):
        registry.build(state)


def test_starts_near_its_input(net, faces):
    with torch.inference_mode():
        assert (net(faces) - faces).std() < faces.std() / 2


def test_gives_its_input_where_the_correction_is_nothing(faces):
    net = GFPGANLite(out_size=64, num_style_feat=16, narrow=0.0625)
    with torch.inference_mode():
        for to_rgb in (net.core.stylegan_decoder.to_rgb1, *net.core.stylegan_decoder.to_rgbs):
            to_rgb.modulated_conv.weight.zero_()
        assert torch.equal(net(faces), faces)


def test_pyramid_doubles_up_to_the_full_size(net, faces):
    with torch.inference_mode():
        image, pyramid = net.forward_with_pyramid(faces)
        assert torch.equal(image, net(faces))
    assert [tuple(head.shape) for head in pyramid] == [(2, 3, s, s) for s in (16, 32, 64)]


def test_every_parameter_has_a_gradient(net, faces):
    image, pyramid = net.forward_with_pyramid(faces)
    (image.sum() + sum(head.sum() for head in pyramid)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_sft_of_all_channels_is_known_by_its_shapes():
    made = GFPGANLite(out_size=64, num_style_feat=16, narrow=0.0625, sft_half=False)
    again = GFPGANLite.from_state_dict(made.state_dict())
    width = again.core.condition_shift[0][2].weight.shape[0]
    assert width == 2 * again.core.condition_shift[0][0].weight.shape[0]
