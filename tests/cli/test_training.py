"""`gfp prepare`, `train`, `export` and `evaluate` from end to end, tiny."""

import csv
import shutil

import cv2
import pytest
from PIL import Image
from skimage.data import astronaut

from gfp_core.cli import main
from gfp_core.cli.exit_codes import FAILED, OK, USAGE
from gfp_core.evaluation import testset
from gfp_core.weights.catalogue import BUILT_IN
from gfp_core.weights.loading import load_network
from tests import needs

SIZE = 64
TINY = [
    "--set", "model.args={ out_size = 64, num_style_feat = 8, narrow = 0.0625 }",
    "--set", f"data.size={SIZE}", "--set", "data.batch=1", "--set", "data.workers=0",
    "--set", "loss.perceptual=0", "--set", "loss.adversarial=0", "--set", "loss.identity=0",
    "--set", "loss.component_style.start=1", "--set", "loss.component.start=1",
    "--set", "loss.component_width=0.125", "--set", "schedule.steps=2",
    "--set", "run.sheet_faces=1",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    needs.default_detector()
    folder = tmp_path / "photos"
    folder.mkdir()
    face = astronaut()[..., ::-1]
    for i in range(3):
        cv2.imwrite(str(folder / f"{i:03d}_a.png"), face[:, :, ::-1] if i == 1 else face)
    return folder


@pytest.mark.slow
def test_from_photographs_to_a_table(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    data, run = tmp_path / "data", tmp_path / "run"
    prepare = ["prepare", str(photos), "--out", str(data), "--size", str(SIZE), "--every", "3"]
    assert main([*prepare, "--device", "cpu"]) == OK
    assert "3 faces in" in capsys.readouterr().err
    train = ["train", "lite", "--data", str(data), "--run", str(run), "--device", "cpu", *TINY]
    assert main([*train, "--minutes", "0"]) == OK
    assert "Step 1; the same command goes on" in capsys.readouterr().err
    assert main(train) == OK
    assert "from step 1 to 2" in capsys.readouterr().err
    model = tmp_path / "own.safetensors"
    assert main(["export", str(run), "-o", str(model), "--half", "--note", "license=MIT"]) == OK
    assert type(load_network(model)).__name__ == "GFPGANLite"

    out = tmp_path / "out"
    evaluate = [
        "evaluate",
        str(photos),
        "-o",
        str(out),
        "--model",
        str(model),
        "--save",
        "--size",
        "192",
    ]
    assert main([*evaluate, "--device", "cpu"]) == OK
    printed = capsys.readouterr()
    text = (out / "results.md").read_text()
    assert text.strip() in printed.out
    assert "3 faces of 192 px" in text
    assert "recipe lite (paper), seed 0: sigma [0.2, 10.0], scale [1.0, 8.0]" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["", "input", "bicubic", "own", "ground truth"]
    for missing in ("LPIPS", "FID"):  # their nets are a download, and not in this empty cache
        assert f"- {missing} is left out" in text
        assert f"warning: {missing} is left out" in printed.err
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * 4
    psnr = {(line["method"], line["picture"]): float(line["PSNR"]) for line in lines}
    assert psnr["ground truth", "mean"] == float("inf")
    assert psnr["input", "000_a.png"] > 15
    for name, size in (("sheet_0.jpg", (4 * 256, 24 + 3 * 256)), ("input/000_a.png", (192, 192))):
        with Image.open(out / name) as picture:
            assert picture.size == size

    saved = sorted((out / "input").iterdir())
    first = [path.read_bytes() for path in saved]
    assert main([*evaluate, "--device", "cpu"]) == OK
    assert [path.read_bytes() for path in saved] == first  # the test set is that of its seed
    assert main([*evaluate, "--device", "cpu", "--seed", "1"]) == OK
    assert [path.read_bytes() for path in saved] != first

    assert main([*evaluate, "--device", "cpu", "--degradation", "mild"]) == OK
    text = (out / "results.md").read_text()
    assert "range mild, seed 0: sigma [1.0, 3.0], scale [1.0, 3.0]" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["", "input", "own", "ground truth"]
    assert main([*evaluate, "--device", "cpu", "--degradation", "wild"]) == OK
    assert "in the open (wild), seed 0." in (out / "results.md").read_text()

    assert main([*evaluate, "--device", "cpu", "--real"]) == OK
    text = (out / "results.md").read_text()
    assert "3 faces of 192 px" in text
    assert ", as they are." in text
    assert text.splitlines()[2] == "| | NIQE ↓ |"
    assert "FID is left out: it needs good faces to compare with (--reference)" in text


def test_what_an_evaluation_could_not_write_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    def work(*arguments, **options):
        raise AssertionError("begun")

    monkeypatch.setattr(testset, "load_faces", work)
    (tmp_path / "file").touch()
    evaluate = ["evaluate", str(tmp_path), "--device", "cpu"]
    assert main([*evaluate, "-o", str(tmp_path / "file")]) == USAGE
    assert "choose another output folder" in capsys.readouterr().err
    evaluate += ["-o", str(tmp_path / "out")]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(BUILT_IN.with_name("lite.safetensors"), tmp_path / folder / "net.safetensors")
    models = [str(tmp_path / folder / "net.safetensors") for folder in ("a", "b")]
    assert main([*evaluate, "--model", models[0], "--model", models[1]]) == USAGE
    assert "would both be the row net" in capsys.readouterr().err
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    assert main([*evaluate, "--inception", str(tmp_path / "broken.pth")]) == USAGE
    assert "broken.pth" in capsys.readouterr().err
    assert main([*evaluate, "--lpips-file", str(tmp_path / "broken.pth")]) == USAGE
    assert "broken.pth" in capsys.readouterr().err


def test_mistakes_are_told(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    train = ["train", "lite", "--data", str(empty), "--run", str(tmp_path / "run")]
    assert main(train) == USAGE
    assert "holds no prepared faces" in capsys.readouterr().err
    assert main([*train, "--set", "data.bach=1"]) == USAGE
    assert "data has no key 'bach'; the nearest is 'batch'" in capsys.readouterr().err
    assert main(["export", str(empty), "-o", str(tmp_path / "x.safetensors")]) == USAGE
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main(["prepare", str(empty), "--out", str(tmp_path / "d")]) == USAGE
    assert "no picture in" in capsys.readouterr().err
    assert main(["evaluate", str(empty), "-o", str(tmp_path / "o")]) == USAGE
    assert "no face in" in capsys.readouterr().err
    assert main([*train, "--threads", "0"]) == USAGE
    assert "threads" in capsys.readouterr().err
    assert main(["prepare", str(empty), "--out", str(tmp_path / "d"), "--person", "("]) == USAGE
    assert "--person: '(' is no regular expression" in capsys.readouterr().err
    assert main(["train", "lite", "--run", "x"]) == USAGE
    assert FAILED != USAGE
