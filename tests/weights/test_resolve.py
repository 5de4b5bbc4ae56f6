"""What a word means: a name of the catalogue, a path, or with folders given a name and no path."""

import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from gfp_core.weights import WeightsError, store
from gfp_core.weights.catalogue import Role
from gfp_core.weights.resolve import Resolved, find_below, refer, resolve
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights

Make = Callable[..., Weights]


@pytest.fixture
def ours(weights: Make) -> Weights:
    return weights()


def test_a_row_of_the_catalogue_gives_file_role_and_architecture(
    ours: Weights, folder: Path, content: bytes
) -> None:
    folder.mkdir()
    (folder / "net.onnx").write_bytes(content)
    assert resolve("net", "detector", ours) == Resolved(folder / "net.onnx", "detector", "yunet")


@pytest.mark.parametrize("role", ["restorer", "detector", "parser", "embedder"])
def test_every_role_follows_the_same_rules(
    role: str, ours: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.pth").touch()
    names = ["lite", "yunet", "bisenet", "face-descriptor"]
    for name in names:  # a file of the name of a row does not take its place
        Path(name).touch()
        entry = ours.find(name)
        if entry.role == role:
            assert refer(name, role, ours).entry == entry
        else:
            with pytest.raises(WeightsError, match=rf"{name} is an? \w+, not an? {role}"):
                refer(name, role, ours)
    assert resolve("mine.pth", role, ours) == Resolved(Path("mine.pth"), role, None)
    with pytest.raises(WeightsError, match=r"there is no \w+ file no/such\.pth"):
        refer("no/such.pth", role, ours)
    with pytest.raises(WeightsError, match="the catalogue has no weights called 'such'"):
        refer("such", role, ours)
    with pytest.raises(WeightsError, match="is empty"):
        refer("", role, ours)


def test_an_old_name_is_the_new_row_and_the_log_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lite-1").touch()  # takes no row's place
    store._say_replaced.cache_clear()
    weights = Weights(Settings(()))
    file = weights.get("lite")
    for folders in (None, [tmp_path]):
        for _ in range(2):
            assert resolve("lite-1", "restorer", weights, folders=folders).file == file
    assert [record.getMessage() for record in caplog.records] == [
        "lite-1 is an old name: lite, which has taken its place, is used."
    ]


@pytest.mark.parametrize(
    ("role", "name", "instead"),
    [
        ("restorer", "lite", "lite"),
        ("detector", "retinaface_mobile025", "blazeface-full"),
        ("parser", "bisenet", "face-mesh"),
        ("embedder", "face-descriptor", "auraface"),
    ],
)
def test_defaults_give_way_to_weights_for_any_use_and_the_log_says_so(
    role: Role, name: str, instead: str, caplog: pytest.LogCaptureFixture
) -> None:
    store._say_substituted.cache_clear()
    free = Weights(Settings((), commercial_only=True))
    for _ in range(2):
        entry = refer(name, role, free).entry
        assert entry is not None
        assert entry.name == instead
        assert entry.commercial == "yes"
    expected = f"{name} is hidden by the setting commercial_only"
    assert len(caplog.records) == (name != instead)
    assert all(expected in line and instead in line for line in caplog.messages)
    assert refer(name, role, Weights(Settings(()))).entry.name == name  # type: ignore[union-attr]


def test_what_is_no_default_stays_hidden() -> None:
    free = Weights(Settings((), commercial_only=True))
    for role, name in (("detector", "yunet"), ("parser", "parsenet"), ("embedder", "sface")):
        with pytest.raises(WeightsError, match=f"{name} is hidden by the setting commercial_only"):
            refer(name, role, free)  # type: ignore[arg-type]


def test_a_tilde_is_the_home_folder(
    ours: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine.pth").touch()
    assert resolve("~/mine.pth", "restorer", ours).file == tmp_path / "mine.pth"


OUTSIDE = [
    "/etc/hostname",
    "../secret.pth",
    "sub/../../secret.pth",
    "..\\secret.pth",
    "C:\\secret.pth",
    "C:secret.pth",
    "\\\\server\\share\\secret.pth",
    "//server/share/secret.pth",
    "~/secret.pth",
    "file:///secret.pth",
    "mine.pth:stream.pth",
    "./mine.pth",
    "sub//mine.pth",
    "sub/",
    "mine.pth\0",
    "mine.pth\n",
    "",
    " ",
    ".",
    "..",
    "x" * 300 + ".pth",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_leads_out_of_no_folder(name: str, ours: Weights, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    for file in (inside / "mine.pth", inside / "sub" / "mine.pth", tmp_path / "secret.pth"):
        file.touch()
    with pytest.raises(WeightsError) as caught:
        refer(name, "restorer", ours, folders=[inside])
    assert "there is no model called" in str(caught.value) or "is empty" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_message_does_not_tell_which_files_there_are(ours: Weights, tmp_path: Path) -> None:
    inside, texts = tmp_path / "in", set()
    inside.mkdir()
    for name in ("there", "notyet"):
        if name == "there":
            (tmp_path / "there.pth").touch()
        for path in (str(tmp_path / f"{name}.pth"), f"../{name}.pth"):
            with pytest.raises(WeightsError) as caught:
                refer(path, "restorer", ours, folders=[inside])
            texts.add(str(caught.value).replace(repr(path), "NAME"))
    assert len(texts) == 1


def test_names_of_files_below_the_folders(ours: Weights, tmp_path: Path) -> None:
    first, second, store = (tmp_path / name for name in ("first", "second", "store"))
    for folder in (first / "sub", second, store):
        folder.mkdir(parents=True)
    for file in (first / "sub" / "a.pth", second / "b.safetensors", second / "c.txt"):
        file.touch()

    def found(name: str) -> Path:
        return resolve(name, "restorer", ours, folders=[first, second]).file

    assert found("sub/a.pth") == found("sub\\a.pth") == first / "sub" / "a.pth"
    assert found("b.safetensors") == second / "b.safetensors"
    assert refer("lite", "restorer", ours, folders=[first]).entry.name == "lite"
    assert refer("GFPGANv1.4.pth", "restorer", ours, folders=[first]).entry.name == "gfpgan-1.4"
    with pytest.raises(WeightsError, match=r"no model called 'c\.txt'"):
        found("c.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_the_folders_are_followed_and_circles_end(ours: Weights, tmp_path: Path) -> None:
    folder, store = tmp_path / "folder", tmp_path / "store"
    folder.mkdir()
    store.mkdir()
    (store / "mine.pth").touch()
    os.symlink(store, folder / "sub")
    os.symlink(folder, folder / "round")
    assert find_below("sub/mine.pth", [folder]) == folder / "sub" / "mine.pth"
    assert find_below("SUB/mine.pth", [folder]) == folder / "sub" / "mine.pth"
    assert find_below("none.pth", [folder]) is None


def test_letter_case_and_unicode_form_may_differ_where_one_file_fits(tmp_path: Path) -> None:
    name = "Gesicht \u00fc.pth"
    path = tmp_path / unicodedata.normalize("NFD", name)
    path.touch()
    for form in ("NFC", "NFD"):
        assert find_below(unicodedata.normalize(form, name), [tmp_path]).samefile(path)
    assert find_below(name.upper(), [tmp_path]).samefile(path)
    other = tmp_path / name.upper()
    if not other.exists():  # a file system that tells them apart
        other.touch()
        assert find_below(name.lower(), [tmp_path]) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_no_file(ours: Weights, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.pth")
    assert find_below("mine.pth", [tmp_path]) is None
    with pytest.raises(WeightsError, match="there is no model file"):
        refer(tmp_path / "mine.pth", "restorer", ours)
