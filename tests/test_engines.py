import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core import engines
from gfp_core.engines import EngineError, openvino_form
from gfp_core.faces import Face, Faces
from gfp_core.networks.fast import fast_form
from gfp_core.networks.fast_gfpgan import FastGFPGAN
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.restore import Restorer

SIZE = 16


class Scaling(nn.Module):
    """Small enough to be exported at once."""

    out_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) * self.factor


def some_faces(count: int) -> Faces:
    face = Face(0, (0.0, 0.0, 9.0, 9.0), 0.9, np.zeros((5, 2), np.float32))
    crops = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return Faces(faces=(face,) * count, frame_sizes=((32, 32),), crops=crops)


def clean() -> GFPGANClean:
    torch.manual_seed(0)
    net = GFPGANClean(out_size=SIZE, num_style_feat=8, narrow=0.0625, num_mlp=1)
    nn.init.constant_(net.stylegan_decoder.style_conv1.weight, 0.5)
    return net


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engines, "cache_folder", lambda: tmp_path)
    return tmp_path / "openvino"


def test_the_fast_form_runs_unless_the_published_one_is_wanted() -> None:
    net = clean()
    auto, plain = Restorer(net), Restorer(net, engine="plain")
    assert isinstance(auto.net, FastGFPGAN)
    assert plain.net is net
    assert auto.name == plain.name == "GFPGANClean"
    for seed in (None, 3):
        results = [each.restore(some_faces(2), seed=seed).restored for each in (auto, plain)]
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-5)
    assert not torch.allclose(results[0], auto.restore(some_faces(2)).restored, atol=1e-3)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, plain, openvino or onnxruntime, not 'steam'"):
        Restorer(Scaling(), engine="steam")  # type: ignore[arg-type]


def test_without_openvino_pytorch_does_it_and_says_so_once(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    restorer = Restorer(Scaling(), engine="openvino")
    results = [restorer.restore(some_faces(1)).restored for _ in range(2)]
    assert torch.equal(results[0], Restorer(Scaling()).restore(some_faces(1)).restored)
    assert torch.equal(results[0], results[1])
    assert caplog.text.count("gfp-face-restoration[openvino]") == 1
    with pytest.raises(ImportError, match=r"gfp-face-restoration\[openvino\]"):
        openvino_form(Scaling(), SIZE)


def test_fp16_and_seeds_go_without_it(caplog) -> None:
    restorer = Restorer(clean(), engine="openvino")
    result = restorer.restore(some_faces(1), seed=1).restored
    assert torch.equal(result, Restorer(clean()).restore(some_faces(1), seed=1).restored)
    assert "OpenVINO is not used: it has the network's own noise" in caplog.text
    Restorer(clean(), engine="openvino", precision="fp16").restore(some_faces(1))
    assert "OpenVINO is not used: it is for float32 and bfloat16 on a CPU" in caplog.text


def test_exported_once_and_found_again(cache: Path, caplog) -> None:
    pytest.importorskip("openvino")
    caplog.set_level(logging.INFO)
    expected = Restorer(Scaling()).restore(some_faces(3)).restored
    for _ in range(2):
        found = Restorer(Scaling(), engine="openvino").restore(some_faces(3)).restored
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert caplog.text.count("Exporting Scaling") == 1
    assert sorted(file.suffix for file in cache.iterdir()) == [".bin", ".xml"]
    other = Scaling()
    nn.init.constant_(other.factor, 0.25)
    found = Restorer(other, engine="openvino").restore(some_faces(1)).restored
    torch.testing.assert_close(
        found, Restorer(other).restore(some_faces(1)).restored, rtol=0, atol=1e-5
    )
    assert caplog.text.count("Exporting Scaling") == 2


def test_bfloat16_where_it_is_wanted(cache: Path, caplog) -> None:
    pytest.importorskip("openvino")
    caplog.set_level(logging.INFO)
    expected = Restorer(Scaling()).restore(some_faces(2)).restored
    for precision in ("fp32", "bf16"):
        restorer = Restorer(Scaling(), engine="openvino", precision=precision)
        found = restorer.restore(some_faces(2)).restored
        atol = 1e-5 if precision == "fp32" else 0.01
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert caplog.text.count("Exporting Scaling") == 1  # one file for both
    assert "not used" not in caplog.text


@pytest.mark.slow
def test_an_export_that_gives_another_picture_is_refused(cache: Path, monkeypatch, caplog) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "TOLERANCE", -1.0)
    with pytest.raises(EngineError, match="from PyTorch's"):
        openvino_form(Scaling(), SIZE)
    assert not cache.exists()
    restored = Restorer(Scaling(), engine="openvino").restore(some_faces(1)).restored
    assert torch.equal(restored, Restorer(Scaling()).restore(some_faces(1)).restored)
    assert "OpenVINO is not used" in caplog.text


@pytest.mark.slow
def test_gfpgan_in_openvino(cache: Path) -> None:
    pytest.importorskip("openvino")
    net = clean()
    run = openvino_form(fast_form(net), SIZE)
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(run(x), net.eval()(x), rtol=0, atol=1e-4)
