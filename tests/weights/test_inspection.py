import hashlib
from pathlib import Path

import pytest
import torch

from gfp_core.networks import parsing
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import BUILT_IN
from gfp_core.weights.convert import convert
from gfp_core.weights.inspection import inspect
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights
from tests import needs

SMALL = {"out_size": 8, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def known(
    file: Path, architecture: str, role: str = "restorer", format_: str = "pytorch"
) -> Weights:
    """Weights whose catalogue knows a file by its hash."""
    rows = file.with_suffix(".toml")
    rows.write_text(
        f'[[weights]]\nname = "mine"\nrole = "{role}"\narchitecture = "{architecture}"\n'
        f'file = "{file.name}"\nformat = "{format_}"\n'
        f'sha256 = "{hashlib.sha256(file.read_bytes()).hexdigest()}"\n'
        'licence = "MIT"\ncommercial = "no"\nreason = "a test"\n',
        encoding="utf-8",
    )
    return Weights(Settings(folders=(), catalogue_file=rows))


@needs.newer_torch
def test_how_a_file_is_packed(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    state = {f"module.{key}": t.half() for key, t in GFPGANClean(**SMALL).state_dict().items()}
    torch.save({"state_dict": {"params_ema": state}, "step": 3}, file)
    found = inspect(file)
    assert found.wrappers == ("state_dict", "params_ema")
    assert found.prefixes == ("module.",)
    assert (found.format, found.tensors, found.dtypes) == ("PyTorch (zip)", 55, {"float16": 55})
    assert (found.bytes, found.left_out) == (file.stat().st_size, 0)
    net = GFPGANClean(**SMALL)
    assert found.parameters == sum(p.numel() for p in net.parameters())
    assert found.numbers == sum(tensor.numel() for tensor in net.state_dict().values())
    assert (found.catalogue, found.licence, found.commercial) == (None, "unknown", "unclear")
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@needs.newer_torch
def test_a_legacy_file_with_other_tensors_beside(tmp_path: Path) -> None:
    file = tmp_path / "net.ckpt"
    state = {f"vqvae.{key}": t for key, t in GFPGANClean(**SMALL).state_dict().items()}
    torch.save({**state, "discriminator.weight": torch.zeros(2)}, file,
               _use_new_zipfile_serialization=False)  # fmt: skip
    found = inspect(file)
    assert (found.format, found.prefixes, found.left_out) == ("PyTorch (legacy)", ("vqvae.",), 1)
    assert found.architecture == "GFPGANClean"


@needs.newer_torch
def test_the_catalogue_knows_a_file_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(GFPGANBilinear(**SMALL).state_dict(), file)
    assert inspect(file).architecture == "GFPGANv1"
    found = inspect(file, known(file, "GFPGANBilinear"))
    assert (found.catalogue, found.licence, found.commercial) == ("mine", "MIT", "no: a test")
    assert found.architecture == "GFPGANBilinear"  # which the tensors leave open


@needs.newer_torch
def test_a_false_catalogue_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save(GFPGANClean(**SMALL).state_dict(), file)
    assert inspect(file, known(file, "GFPGANv1")).architecture == "GFPGANClean"


@needs.newer_torch
def test_a_converted_file_tells_of_itself(tmp_path: Path) -> None:
    source, file = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(GFPGANBilinear(**SMALL).state_dict(), source)
    entry = known(source, "GFPGANBilinear").find("mine")
    convert(source, file, entry)
    found = inspect(file)
    assert found.architecture == "GFPGANBilinear"
    assert (found.catalogue, found.licence, found.commercial) == (None, "MIT", "no: a test")
    assert found.metadata["source_sha256"] == entry.sha256


def test_the_bundled_model_and_an_onnx_file(tmp_path: Path) -> None:
    lite = inspect(BUILT_IN.with_name("lite.safetensors"))
    assert (lite.catalogue, lite.architecture, lite.size) == ("lite", "GFPGANLite", 512)
    file = tmp_path / "net.onnx"
    file.write_bytes(b"net")
    assert inspect(file).role is None
    found = inspect(file, known(file, "yunet", "detector", "onnx"))
    assert (found.role, found.architecture, found.tensors) == ("detector", "yunet", None)
    with pytest.raises(WeightsError, match=r"nix\.onnx: cannot be read"):
        inspect(tmp_path / "nix.onnx")


@needs.newer_torch
def test_a_damaged_file_is_not_taken_for_spandrels(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    torch.save({**GFPGANClean(**SMALL).state_dict(), "stray": torch.zeros(1)}, file)
    found = inspect(file)
    assert found.role is None
    assert found.reason.endswith("1 tensors too many: 'stray'")


@needs.newer_torch
def test_a_parser_and_what_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    state = parsing.build("BiSeNet").state_dict()
    torch.save(state, file)
    assert inspect(file).role == "parser"
    del state["cp.resnet.conv1.weight"]
    torch.save(state, file)
    found = inspect(file)
    assert (found.role, found.architecture, found.parameters) == (None, None, None)
    assert "nearest is BiSeNet, of whose 191 tensors 190 are there; it lacks" in found.reason
    file.write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="a web page"):
        inspect(file)
