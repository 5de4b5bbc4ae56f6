"""`gfp learn`, with a network of a few thousand weights."""

import pytest
import torch
from skimage.data import astronaut
from skimage.io import imsave

from gfp_core.cli import main
from gfp_core.cli.exit_codes import OK, USAGE
from gfp_core.cli.learn import _files
from gfp_core.networks.lite import GFPGANLite
from gfp_core.weights import WeightsError
from gfp_core.weights.convert import write_safetensors
from gfp_core.weights.loading import load_network, read_difference
from tests import needs


@pytest.fixture
def model(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = GFPGANLite(out_size=64, num_style_feat=8, narrow=0.0625, channel_multiplier=1)
    write_safetensors(net.state_dict(), {}, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def photo(tmp_path):
    needs.default_detector()
    imsave(tmp_path / "photo.png", astronaut())
    return tmp_path / "photo.png"


def test_a_person_is_learned_and_restores(model, photo, tmp_path, capsys) -> None:
    person, restored = tmp_path / "person.safetensors", tmp_path / "restored.png"
    learn = ["learn", str(photo), "-o", str(person), "--model", str(model), "--device", "cpu"]
    assert main([*learn, "--steps", "4"]) == OK
    said = capsys.readouterr().err
    assert "GB of memory" in said
    assert "learned from 1 photograph" in said
    difference = read_difference(person)
    assert difference is not None
    assert difference.about["photographs"] == "1"
    assert type(load_network(person)).__name__ == "GFPGANLite"
    restore = ["restore", str(photo), "-o", str(restored), "--model", str(person)]
    assert main([*restore, "--device", "cpu", "--person-strength", "0.5"]) == OK
    assert restored.is_file()
    assert main([*learn[:-2], "--model", str(person), "--device", "cpu"]) == USAGE
    assert "a person's restorer already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["-o", "person.pth"], "ends with .safetensors"),
        (["-o", "p.safetensors", "--steps", "0"], "steps and batch must be at least 1"),
        (["-o", "p.safetensors", "--minutes", "0"], "minutes must be above 0"),
    ],
)
def test_wrong_words_are_refused_before_work(flags, reason, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    needs.default_detector()
    assert main(["learn", "missing.jpg", *flags]) == USAGE
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_many_photographs_are_refused_before_one_is_read(tmp_path, capsys) -> None:
    for number in range(21):
        (tmp_path / f"{number}.jpg").touch()  # not even a picture
    (tmp_path / "notes.txt").touch()
    assert main(["learn", str(tmp_path), "-o", str(tmp_path / "p.safetensors")]) == USAGE
    assert "21 photographs, more than 20" in capsys.readouterr().err


def test_nothing_is_written_where_no_photograph_serves(model, tmp_path, capsys) -> None:
    needs.default_detector()
    imsave(tmp_path / "grey.png", astronaut()[:64, :64], check_contrast=False)
    person = tmp_path / "person.safetensors"
    words = ["learn", str(tmp_path / "grey.png"), "-o", str(person), "--model", str(model)]
    assert main([*words, "--device", "cpu"]) == USAGE
    assert "no photograph can be learned from" in capsys.readouterr().err
    assert not person.exists()


def test_a_damaged_photograph_is_left_out_and_a_missing_one_stops(
    model, photo, tmp_path, capsys
) -> None:
    (tmp_path / "torn.png").write_bytes(photo.read_bytes()[:5000])
    person = tmp_path / "person.safetensors"
    end = ["-o", str(person), "--model", str(model), "--device", "cpu", "--steps", "2"]
    assert main(["learn", str(tmp_path / "torn.png"), str(photo), *end]) == OK
    messages = capsys.readouterr().err
    assert "torn.png" in messages
    assert "It is left out." in messages
    assert main(["learn", str(tmp_path / "none.png"), str(photo), *end]) == USAGE
    assert "none.png" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export", "--onnx", "x.onnx"], ["bench", "--rounds", "1"]])
def test_a_base_that_is_not_here_is_not_fetched_where_that_is_forbidden(
    command, tmp_path, monkeypatch, capsys
) -> None:
    from gfp_core.weights.difference import Difference
    from gfp_core.weights.store import Weights

    def get(self, name, **_):
        assert not self.settings.downloads, f"fetches {name}"
        raise WeightsError(f"{name} is not on this machine")

    state = {"bias": torch.ones(3)}
    person = tmp_path / "person.safetensors"
    Difference(state, "gpen-512", "0" * 64).save(person)
    monkeypatch.setattr(Weights, "get", get)
    monkeypatch.chdir(tmp_path)
    model = [str(person)] if command[0] == "export" else ["--model", str(person)]
    assert main([*command, *model, "--no-download"]) == USAGE
    assert "is not on this machine" in capsys.readouterr().err


def test_photographs_of_a_folder_are_all_that_can_be_read(tmp_path) -> None:
    names = ["a.HEIC", "b.jpg", "c.avif", "notes.txt", "._b.jpg"]
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in _files([tmp_path])] == names[:3]
    assert _files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
