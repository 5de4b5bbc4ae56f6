"""The same faces in several ways, on a sheet."""

import pytest
import torch
from skimage import data
from torch import nn

from gfp_core.align import align
from gfp_core.cli import main
from gfp_core.compare import Column, Setting, compare, comparison_sheet, comparison_table
from gfp_core.crops import faces_from_crops
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.io.images import Picture, read_image, write_image
from gfp_core.restore import Restorer


class Times(nn.Module):
    def __init__(self, factor: float, size: int) -> None:
        super().__init__()
        self.factor, self.out_size = factor, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def faces_of(size: int, count: int = 3):
    torch.manual_seed(0)
    crops = nn.functional.interpolate(torch.rand(count, 3, 8, 8), (size, size), mode="bilinear")
    return faces_from_crops(crops)


def test_every_setting_sees_the_same_faces_at_its_size():
    told = []
    settings = [
        Setting("half", Restorer(Times(0.5, 64)), color="restorer"),
        Setting("negative", Restorer(Times(-1, 128)), color="restorer"),
    ]
    half, negative = compare(faces_of, settings, progress=lambda *part: told.append(part))
    assert (half.name, negative.name) == ("half", "negative")
    torch.testing.assert_close(half.faces.restored, 0.25 + faces_of(64).crops / 2)
    torch.testing.assert_close(negative.faces.restored, 1 - faces_of(128).crops)
    assert told == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    assert half.seconds > 0


def test_the_sheet_shows_input_and_all_columns_and_the_table_their_times():
    columns = [
        Column("a", replace_restored(faces_of(64), 0.0), 0.1),
        Column("b", replace_restored(faces_of(64), 1.0), 0.25),
        Column("b", replace_restored(faces_of(64), 0.5), 0.25),
    ]
    sheet = comparison_sheet(columns, size=32, rows=2)
    assert sheet.shape == (3, 24 + 2 * 32, 4 * 32)
    pictures = sheet[:, 24:].unfold(2, 32, 32)[:, :, :, 4:-4]
    assert [float(pictures[:, 4:28, i].mean()) for i in (1, 2, 3)] == pytest.approx([0, 1, 0.5])
    lines = comparison_table(columns).splitlines()
    assert [line.split()[-1] for line in lines] == ["1.00x", "2.50x", "2.50x"]
    assert "250 ms a face" in lines[1]


def replace_restored(faces, value):
    from dataclasses import replace

    return replace(faces, restored=torch.full_like(faces.crops, value))


def test_the_command_compares_what_the_options_say(tmp_path, monkeypatch):
    """Flags, a file of options and the columns' own: nothing is taken and left out."""
    import gfp_core.compare

    photo = tmp_path / "photo.png"
    write_image(photo, Picture(data.astronaut()[:300, 100:400].astype("float32") / 255))
    (tmp_path / "options.toml").write_text("padding = 'reflect'\nkeep_monochrome = 'on'\n")
    strengths, settings, padding = [], [], []

    def load_network(path, architecture=None, *, person_strength=1.0, weights=None):
        strengths.append(person_strength)
        return Times(0.5, 64)

    def record(faces, given, **options):
        settings.extend(given)
        return compare(faces, given, **options)

    def aligned(frames, faces, size, **options):
        padding.append(options["padding"])
        return align(frames, faces, size, **options)

    monkeypatch.setattr("gfp_core.weights.loading.load_network", load_network)
    monkeypatch.setattr(gfp_core.compare, "compare", record)
    monkeypatch.setattr("gfp_core.align.align", aligned)
    words = ["compare", str(photo), "-m", "lite", "-m", "lite:person_strength=0.25"]
    words += ["--options", str(tmp_path / "options.toml"), "--color-strength", "0.5"]
    words += ["--engine", "plain", "--person-strength", "0.75", "-o", str(tmp_path / "x.png")]
    assert main(words) == 0
    assert strengths == [0.75, 0.25]
    assert {setting.restorer.engine for setting in settings} == {"plain"}
    assert {setting.color_strength for setting in settings} == {0.5}
    assert {setting.keep_monochrome for setting in settings} == {"on"}
    assert set(padding) == {"reflect"}


def test_nothing_to_compare_is_said():
    with pytest.raises(ValueError, match="no face"):
        compare(lambda size: faces_of(size, 0), [Setting("a", Restorer(Times(1, 64)))])
    with pytest.raises(ValueError, match="at least one"):
        compare(faces_of, [])


def test_the_command_writes_a_sheet(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    write_image(photo, Picture(data.astronaut()[:300, 100:400].astype("float32") / 255))
    sheet = tmp_path / "sheet.png"
    arguments = ["compare", str(photo), "-m", "lite", "-m", "lite:color=restorer,seed=3"]
    assert main([*arguments, "-o", str(sheet)]) == 0
    assert read_image(sheet).pixels.shape == (24 + 320, 3 * 320, 3)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["lite", "lite:color=restorer,seed=3"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lite:blur=1", "'blur' is none of the options fidelity, seed, steps, color, precision"),
        ("lite:seed=x", "seed must be a whole number from 0 to"),
        ("nonesuch", "nonesuch"),
        ("lite:color=reference", "has no reference picture"),
    ],
)
def test_the_command_refuses_settings_that_are_none(tmp_path, capsys, setting, message):
    photo = tmp_path / "photo.png"
    write_image(photo, Picture(data.astronaut()[:64, :64].astype("float32") / 255))
    assert main(["compare", str(photo), "-m", setting, "-o", str(tmp_path / "x.png")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_places_of_the_command_are_by_size(tmp_path, monkeypatch):
    """As its help says: the large face on the red half is number 0, though less sure."""
    frame = torch.zeros(300, 600, 3)
    frame[:, :400, 0] = 1
    frame[:, 400:, 2] = 1
    photo, sheet = tmp_path / "photo.png", tmp_path / "sheet.png"
    write_image(photo, Picture(frame.numpy()))
    large, small = (
        Face(0, (x, 50, x + side, 50 + side), score, (TEMPLATE / 512 * side + [x, 50]).astype("f4"))
        for x, side, score in ((100, 200, 0.91), (470, 60, 0.99))
    )
    found = Faces((small, large), ((300, 600),))
    monkeypatch.setattr("gfp_core.pipeline.find_faces", lambda *_, **__: found)
    arguments = ["compare", str(photo), "-m", "lite", "--which", "0", "-o", str(sheet)]
    assert main(arguments) == 0
    seen = read_image(sheet).pixels[24 + 160, 160]
    assert seen[0] > 0.9
    assert seen[2] < 0.1


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["compare", "photo.png", "-m", "lite", "-o", str(tmp_path / "file" / "x.png")]
    assert main(arguments) == 2
    assert "choose another output folder" in capsys.readouterr().err
