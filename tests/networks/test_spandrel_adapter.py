import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core.faces import Face, Faces
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.networks.spandrel_adapter import SpandrelAdapter, from_state_dict
from gfp_core.restore import Restorer
from gfp_core.weights import WeightsError
from gfp_core.weights.inspection import inspect
from gfp_core.weights.loading import load_network

spandrel = pytest.importorskip("spandrel")


def nafnet() -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    torch.manual_seed(0)
    net = NAFNet(width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    for parameter in net.parameters():  # its residuals start at zero
        parameter.data += 0.05 * torch.randn_like(parameter)
    return net


def upscaler() -> dict[str, Tensor]:
    from spandrel.architectures.Compact import Compact

    return Compact(num_feat=8, num_conv=2, upscale=4).state_dict()


def test_a_model_gets_what_it_was_trained_on() -> None:
    net = nafnet()
    adapter = from_state_dict(net.state_dict())
    assert (adapter.architecture, adapter.out_size) == ("NAFNet", 512)
    crops = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        restored = (adapter(crops * 2 - 1) + 1) / 2
        by_hand = net(crops).clamp(0, 1)  # trained on [0, 1]
    torch.testing.assert_close(restored, by_hand, atol=1e-6, rtol=0)
    assert (restored - crops).abs().mean() > 0.01


def test_a_model_for_one_picture_at_a_time() -> None:
    from spandrel.architectures.DnCNN import DnCNN

    net = DnCNN(in_nc=4, out_nc=3, nc=4, nb=8, act_mode="R", mode="FDnCNN")
    adapter = from_state_dict(net.state_dict())
    x = torch.rand(3, 3, 16, 16)
    with torch.inference_mode():
        restored = adapter(x)
        assert restored.shape == x.shape
        assert not adapter.descriptor.supports_half
        with torch.autocast("cpu", torch.bfloat16):  # which the model does not bear
            assert torch.equal(adapter(x), restored)


def test_through_the_restorer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    torch.save({"params": nafnet().state_dict()}, tmp_path / "naf.pth")
    net = load_network(tmp_path / "naf.pth")
    assert "no network of this package; loaded as spandrel's NAFNet" in caplog.text
    restorer = Restorer(net)
    face = Face(0, (0, 0, 9, 9), 1.0, np.zeros((5, 2), np.float32))
    crops = torch.rand(1, 3, restorer.size, restorer.size)
    restored = restorer.restore(Faces((face,), ((9, 9),), crops)).restored
    assert restored is not None
    torch.testing.assert_close(restored, nafnet()(crops).clamp(0, 1), atol=1e-5, rtol=0)


def test_what_cannot_restore_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Compact makes pictures 4 times as large"):
        from_state_dict(upscaler())
    torch.save(upscaler(), tmp_path / "x4.pth")
    with pytest.raises(WeightsError, match=r"x4\.pth: no known .*; Compact makes pictures 4 times"):
        load_network(tmp_path / "x4.pth")
    from spandrel.architectures.DnCNN import DnCNN

    grey = DnCNN(in_nc=1, out_nc=1, nc=4, nb=8, act_mode="R").state_dict()
    with pytest.raises(ValueError, match="takes 1 channels and gives 1"):
        from_state_dict(grey)
    with pytest.raises(ValueError, match="spandrel does not know it either"):
        from_state_dict({"a": torch.zeros(1)})
    state = nafnet().state_dict()
    state["intro.weight"] = torch.zeros(4, 3, 5, 5)
    with pytest.raises(
        ValueError, match=r"cannot load it: Error\(s\) in .* size mismatch for intro"
    ):
        from_state_dict(state)


def test_what_the_papers_compare_with() -> None:
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.RCAN import RCAN

    rcan = RCAN(n_resgroups=1, n_resblocks=1, n_feats=16, scale=4)
    with pytest.raises(ValueError, match="RCAN makes pictures 4 times as large"):
        from_state_dict(rcan.state_dict())
    with pytest.raises(ValueError, match="ESRGAN makes pictures 4 times as large"):
        from_state_dict(ESRGAN(num_filters=8, num_blocks=1, scale=4).state_dict())
    same = from_state_dict(ESRGAN(num_filters=8, num_blocks=1, scale=1).state_dict())
    assert same(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_sizes_that_a_model_needs() -> None:
    class Seventies:
        architecture = type("A", (), {"id": "Odd"})
        scale, input_channels, output_channels = 1, 3, 3
        size_requirements = spandrel.SizeRequirements(multiple_of=70)
        model = nn.Identity()

    descriptor: Any = type("D", (Seventies, spandrel.ImageModelDescriptor), {})
    adapter = SpandrelAdapter(descriptor.__new__(descriptor))
    assert adapter.out_size == 560


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("spandrel"):
            raise ImportError(name)
        return original(name, *rest, **options)

    torch.save(nafnet().state_dict(), tmp_path / "naf.pth")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WeightsError, match=r"no known arch.*gfp-face-restoration\[spandrel\]"):
        load_network(tmp_path / "naf.pth")


def test_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.save(nafnet().state_dict(), tmp_path / "naf.pth")
    found = inspect(tmp_path / "naf.pth")
    assert (found.role, found.architecture, found.size) == ("restorer", "spandrel's NAFNet", 512)
    torch.save(upscaler(), tmp_path / "x4.pth")
    found = inspect(tmp_path / "x4.pth")
    assert found.role is None
    assert "Compact makes pictures 4 times as large" in found.reason


def test_gfpgan_is_normalized_and_repeats() -> None:
    """Flaw of peers: spandrel's descriptor shows GFP-GAN [0, 1], and faces come out grey."""
    from spandrel.architectures.GFPGAN import GFPGAN, GFPGANArch

    torch.manual_seed(0)
    small = {"out_size": 32, "num_style_feat": 8, "narrow": 0.0625, "num_mlp": 1}
    ours = GFPGANClean(**small).eval()
    for parameter in ours.parameters():
        if parameter.numel() == 1:  # strengths of the noise, which start at zero
            parameter.data.fill_(0.1)
    descriptor = spandrel.ImageModelDescriptor(
        GFPGAN(
            **small, channel_multiplier=2, input_is_latent=True, different_w=True, sft_half=True
        ),
        ours.state_dict(),
        architecture=GFPGANArch(),
        purpose="FaceSR",
        tags=[],
        supports_half=False,
        supports_bfloat16=True,
        scale=1,
        input_channels=3,
        output_channels=3,
        call_fn=lambda model, image: model(image)[0],
    )
    adapter = SpandrelAdapter(descriptor).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        restored = adapter(x)
        torch.testing.assert_close(restored, ours(x).clamp(-1, 1), atol=1e-4, rtol=0)
        assert (descriptor((x + 1) / 2) * 2 - 1 - restored).abs().max() > 0.1


def test_a_network_of_residuals_keeps_black_black() -> None:
    from spandrel.architectures.MixDehazeNet import MixDehazeNet

    net = MixDehazeNet(embed_dims=[16, 32, 64, 32, 16], depths=[1, 1, 1, 1, 1])
    state = net.state_dict()
    for key in state:
        if key.startswith("patch_unembed"):
            state[key].zero_()  # it changes nothing
    adapter = from_state_dict(state)
    x = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(adapter(x), x)
        assert adapter.descriptor((x + 1) / 2).min() == 0.5  # which is what the adapter is for
