"""``gfp weights``, as it is called."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from gfp_core.cli import main
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean
from gfp_core.weights import get_command
from gfp_core.weights.loading import load_network
from tests import needs

SMALL = {"out_size": 8, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}
SHA256 = hashlib.sha256(b"net").hexdigest()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but those in the test's folder, a catalogue with the row ``net``, no network."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("GFP_WEIGHTS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("GFP_NO_DOWNLOAD", "1")
    monkeypatch.setenv("GFP_CATALOGUE", str(tmp_path / "weights.toml"))
    monkeypatch.delenv("GFP_COMMERCIAL_ONLY", raising=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "weights.toml").write_text(
        '[[weights]]\nname = "net"\nrole = "detector"\narchitecture = "yunet"\n'
        f'file = "net.onnx"\nformat = "onnx"\nsize = 3\nsha256 = "{SHA256}"\n'
        'licence = "MIT"\ncommercial = "yes"\nreason = "a test"\n'
        'sources = [{ repo = "me/nets", path = "net.onnx" }]\n',
        encoding="utf-8",
    )


def test_list_shows_terms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "net.onnx").write_bytes(b"net")
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if line.startswith("gfpgan-1.4 ")]
    assert line.split()[1:6] == ["restorer", "348.6", "MB", "no", "unclear"]
    assert "StyleGAN2 (NVIDIA, non-commercial)" in out
    [line] = [line for line in out.splitlines() if line.startswith("gpen-256 ")]
    assert line.split()[2:5] == ["-", "by", "hand"]
    assert "put GPEN-BFR-256.pth into a folder of weights by hand" in out
    assert "put GPEN-BFR-512.pth" not in out
    [line] = [line for line in out.splitlines() if line.startswith("net ")]
    assert line.split()[4:6] == ["yes", "yes"]
    monkeypatch.setenv("GFP_COMMERCIAL_ONLY", "1")
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert "gfpgan" not in out
    assert "21 more are hidden by the setting commercial_only." in out


def test_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["codeformer"]["commercial"] == "no"
    assert rows["net"]["path"] is None
    assert rows["net"]["sources"] == ["me/nets on the Hub, net.onnx at main"]


def test_get_where_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "get", "net"]) == 1
    message = capsys.readouterr().err
    assert "downloads are forbidden" in message
    assert f"download net.onnx (SHA-256 {SHA256}, 3 bytes) into" in message
    assert main(["weights", "where", "net"]) == 1
    assert main(["weights", "verify", "net"]) == 1
    assert "not on this machine" in capsys.readouterr().err
    path = tmp_path / "models" / "net.onnx"
    path.write_bytes(b"net")
    for action in ("get", "where"):
        assert main(["weights", action, "net"]) == 0
        assert capsys.readouterr().out.strip() == str(path)
    assert main(["weights", "verify"]) == 0
    assert f"net: {path}: good" in capsys.readouterr().out
    assert main(["weights", "where"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "models")


def test_get_looks_into_the_folder_it_saves_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ComfyUI's folders are named to it."""
    folder = tmp_path / "facerestore models"
    assert main(["weights", "get", "net", "--output", str(folder)]) == 1
    assert f"into the folder {folder}" in capsys.readouterr().err
    folder.mkdir()
    (folder / "net.onnx").write_bytes(b"net")
    assert main(["weights", "get", "net", "-o", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "net.onnx")


def test_only_a_command_that_is_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert get_command("net") == f"{sys.executable} -m gfp_core weights get net"
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/bin/gfp")
    assert get_command("net") == "gfp weights get net"


def test_an_unknown_name_or_setting_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["weights", "get", "nix"]) == 2
    assert "no weights called 'nix'" in capsys.readouterr().err
    monkeypatch.setenv("GFP_HUB_REPO", "../..")
    assert main(["weights", "list"]) == 2
    assert "GFP_HUB_REPO" in capsys.readouterr().err
    assert main(["weights"]) == 2


@needs.newer_torch
def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "mine.pth", tmp_path / "out"
    torch.save({"params_ema": GFPGANClean(**SMALL).state_dict()}, source)
    assert main(["weights", "convert", str(source), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'mine.safetensors'}: GFPGANClean\n"
    assert isinstance(load_network(out / "mine.safetensors"), GFPGANClean)
    assert [path.name for path in out.iterdir()] == ["mine.safetensors"]
    assert main(["weights", "convert", str(source), "-o", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err


@needs.newer_torch
def test_convert_as_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.pth"
    torch.save(GFPGANBilinear(**SMALL).state_dict(), source)
    assert main(["weights", "convert", str(source), "--architecture", "GFPGANBilinear"]) == 0
    assert isinstance(load_network(tmp_path / "mine.safetensors"), GFPGANBilinear)


@needs.newer_torch
def test_a_broken_file_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save(GFPGANClean(**SMALL).state_dict(), good)
    bad.write_bytes(b"<html>")
    missing = tmp_path / "missing.pth"
    assert main(["weights", "convert", str(bad), str(missing), str(good)]) == 1
    captured = capsys.readouterr()
    assert "bad.pth: not a checkpoint: a web page" in captured.err
    assert "missing.pth: cannot be read" in captured.err
    assert "good.safetensors" in captured.out
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["good.safetensors"]


@needs.newer_torch
def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, unknown = tmp_path / "good.pth", tmp_path / "unknown.pth"
    state = GFPGANClean(**SMALL).state_dict()
    torch.save({"params_ema": state}, good)
    torch.save({key: tensor for key, tensor in state.items() if "noise" not in key}, unknown)
    assert main(["weights", "inspect", str(good)]) == 0
    out = capsys.readouterr().out
    assert "what it is       restorer, GFPGANClean\n" in out
    assert "takes            RGB in [-1, 1], crops of 8 px\n" in out
    assert "hyper-parameters out_size 8, num_style_feat 4, channel_multiplier 2" in out
    assert "tensors under 'params_ema'" in out
    assert main(["weights", "inspect", str(unknown), str(tmp_path / "nix.pth"), str(good)]) == 1
    captured = capsys.readouterr()
    assert "what it is       unknown\n" in captured.out
    assert "restorer, GFPGANClean" in captured.out
    assert "unknown.pth: not recognised: the nearest is GFPGANClean" in captured.err
    assert "'stylegan_decoder.noises.noise0'" in captured.err
    assert "nix.pth: cannot be read" in captured.err


@needs.newer_torch
def test_inspect_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.pth"
    torch.save(GFPGANBilinear(**SMALL).state_dict(), file)
    assert main(["weights", "inspect", "--json", str(file)]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["architecture"] == "GFPGANv1"
    assert row["hyperparameters"]["narrow"] == SMALL["narrow"]
    assert row["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    torch.save({"a": torch.zeros(1)}, file)
    assert main(["weights", "inspect", "--json", str(file)]) == 1
    captured = capsys.readouterr()
    [row] = json.loads(captured.out)
    assert row["role"] is None
    assert row["reason"] in captured.err
