import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gfp_core import onnx_engine
from gfp_core.cli import main
from gfp_core.detect import load_detector
from gfp_core.networks import retinaface
from gfp_core.networks.fast import fast_form
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.networks.registry import ARCHITECTURES
from gfp_core.onnx_engine import EngineError, Session, detector_form, export_restorer, onnx_form
from gfp_core.restore import Restorer
from tests.parity.networks import MORE, NETWORKS, small_restorer
from tests.test_engines import Scaling, some_faces

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(onnx_engine, "cache_folder", lambda: tmp_path)
    return tmp_path / "onnx"


@pytest.mark.parametrize("name", [*NETWORKS, *MORE])
def test_every_restorer_is_equal_to_its_fast_form(name: str, cache: Path) -> None:
    net, size = small_restorer(name)
    fast = fast_form(net)
    run = onnx_form(fast, size, "cpu")
    x = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.inference_mode():
        expected, result = fast(x), run(x)
    assert expected.std() > 0.05
    extent = max(1.0, float(expected.max() - expected.min()))
    assert (result - expected).abs().max() < 1e-3 * extent


def test_what_goes_in_steps_is_refused_before_the_export(cache: Path, caplog) -> None:
    net, size = small_restorer("PMRF")
    with pytest.raises(EngineError, match="PMRF cannot be exported to ONNX: it goes through its"):
        export_restorer(net, size)
    assert Restorer(net, engine="onnxruntime")._onnxruntime(changed=False) is None
    assert "PMRF goes through its network in steps" in caplog.text
    assert not cache.exists()


def test_every_architecture_of_a_restorer_is_exported_or_refused() -> None:
    tested = {type(small_restorer(name)[0]).__name__ for name in (*NETWORKS, *MORE, "PMRF")}
    assert tested == {row.name for row in ARCHITECTURES} - {"HQDictionary"}  # restores nothing


@pytest.mark.parametrize("backbone", retinaface.NAMES)
@pytest.mark.parametrize("finest", [True, False])
def test_both_detectors_are_equal_to_their_fast_form(
    backbone: str, finest: bool, cache: Path
) -> None:
    torch.manual_seed(0)
    net = retinaface.from_state_dict(retinaface.build(backbone).state_dict())
    session = detector_form(net, finest, "cpu")
    x = 100 * torch.rand(1, 3, 75, 101) - 50
    with torch.inference_mode():
        for result, expected in zip(session(x), net(x, finest=finest), strict=True):
            assert (result - expected).abs().max() < 1e-3 * max(1.0, float(expected.abs().max()))


def test_fidelity_goes_in_beside_the_face(cache: Path) -> None:
    net, size = small_restorer("CodeFormer")
    run, fast = onnx_form(fast_form(net), size, "cpu"), fast_form(net)
    x = torch.rand(1, 3, size, size) * 2 - 1
    results = []
    for fidelity in (0.0, 1.0):
        with torch.inference_mode():
            expected = fast(x, fidelity=fidelity)
        results.append(run(x, fidelity=fidelity))
        assert (results[-1] - expected).abs().max() < 1e-3
    assert not torch.allclose(*results, atol=1e-3)


def test_exported_once_and_found_again(cache: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    expected = Restorer(Scaling()).restore(some_faces(3)).restored
    for _ in range(2):
        restorer = Restorer(Scaling(), engine="onnxruntime", provider="cpu")
        restored = restorer.restore(some_faces(3)).restored
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)
    assert caplog.text.count("Exporting Scaling") == 1
    assert [file.suffix for file in cache.iterdir()] == [".onnx"]
    other = Scaling()
    nn.init.constant_(other.factor, 0.25)
    restored = Restorer(other, engine="onnxruntime").restore(some_faces(1)).restored
    expected = Restorer(other).restore(some_faces(1)).restored
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)
    assert len(list(cache.iterdir())) == 2


def test_the_detector_sees_the_same_in_pictures_of_any_size(cache: Path) -> None:
    ours, theirs = load_detector(), load_detector(engine="onnxruntime", provider="cpu")
    generator = torch.Generator().manual_seed(0)
    for height, width in ((96, 128), (131, 77)):
        images = torch.rand(2, 3, height, width, generator=generator)
        for finest in (True, False):
            with torch.inference_mode():
                pairs = zip(
                    ours._run_net(images, finest), theirs._run_net(images, finest), strict=True
                )
                for expected, result in pairs:
                    torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)
    assert theirs.engine == "onnxruntime"
    assert len(list(cache.iterdir())) == 2


def test_a_provider_that_is_not_there_or_fails_gives_way_to_the_cpu(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    restorer = Restorer(Scaling(), engine="onnxruntime", provider="directml")
    expected = Restorer(Scaling()).restore(some_faces(1)).restored
    restored = restorer.restore(some_faces(1)).restored
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)
    assert "provider directml is not used" in caplog.text
    assert "going on with cpu" in caplog.text

    def broken(*_: object) -> None:
        raise RuntimeError("the card is gone\nand more")

    model = next(cache.iterdir()).read_bytes()
    session = Session(model, "cpu")
    session._candidates, session._session = (
        ["cpu"],
        SimpleNamespace(run=broken, get_inputs=session._session.get_inputs),
    )
    assert session(torch.zeros(1, 3, 16, 16))[0].shape == (1, 3, 16, 16)
    assert "the card is gone; going on with cpu" in caplog.text


def test_another_picture_than_pytorchs_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(onnx_engine, "TOLERANCE", -1.0)
    with pytest.raises(EngineError, match="from PyTorch's"):
        onnx_form(Scaling(), 16)
    assert not cache.exists()
    restored = Restorer(Scaling(), engine="onnxruntime").restore(some_faces(1)).restored
    assert torch.equal(restored, Restorer(Scaling()).restore(some_faces(1)).restored)
    assert "onnxruntime is not used" in caplog.text


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_pytorch_does_it_and_says_so_once(
    package: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    restorer = Restorer(Scaling(), engine="onnxruntime")
    results = [restorer.restore(some_faces(1)).restored for _ in range(2)]
    assert torch.equal(results[0], Restorer(Scaling()).restore(some_faces(1)).restored)
    assert torch.equal(results[0], results[1])
    assert caplog.text.count("gfp-face-restoration[onnx]") == 1


def test_seeds_and_half_precision_go_without_it(cache: Path, caplog) -> None:
    net = GFPGANClean(out_size=16, num_style_feat=8, narrow=0.0625, num_mlp=1).eval()
    nn.init.constant_(net.stylegan_decoder.style_conv1.weight, 0.5)
    restorer = Restorer(net, engine="onnxruntime")
    result = restorer.restore(some_faces(1), seed=1).restored
    assert torch.equal(result, Restorer(net).restore(some_faces(1), seed=1).restored)
    assert "it has the network's own noise" in caplog.text
    Restorer(net, engine="onnxruntime", precision="bf16").restore(some_faces(1))
    assert "it is for float32" in caplog.text


def test_the_command_writes_a_file_for_other_programs(tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "lite.onnx"
    assert main(["export", "lite", "--onnx", str(path)]) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (face,) = session.get_inputs()
    assert (face.name, face.shape) == ("face", ["faces", 3, 512, 512])
    assert main(["export", "lite", "--onnx", str(path), "--half"]) == 2
