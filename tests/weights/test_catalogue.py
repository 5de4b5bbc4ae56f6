from pathlib import Path

import pytest

from gfp_core.networks.registry import ARCHITECTURES
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import BUILT_IN, read_catalogue
from gfp_core.weights.settings import Settings, cache_folder, config_folder
from gfp_core.weights.store import Weights

ROW = """
[[weights]]
name = "mine"
role = "restorer"
architecture = "GFPGANClean"
file = "mine.pth"
licence = "MIT"
commercial = "yes"
reason = "my own"
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_catalogue_is_sound() -> None:
    entries = read_catalogue(BUILT_IN).entries
    assert len(entries) == 28
    known = {row.name for row in ARCHITECTURES}
    for entry in entries:
        assert entry.commercial in ("yes", "no", "unclear")
        assert entry.reason
        assert entry.good_for
        assert entry.bundled or entry.sources
        if entry.name.startswith(("gfpgan", "gpen", "lite", "pmrf")):
            assert entry.architecture in known
        # What can be downloaded has a hash; those of v1, PMRF and three of GPEN are not known.
        unknown = ("gfpgan-1", "pmrf", "gpen-256", "gpen-1024", "gpen-2048")
        assert entry.by_hand_only == (entry.name in unknown)
        assert entry.size or entry.by_hand_only or entry.bundled or entry.name == "gfpgan-1.2"
        if entry.substitute:
            (other,) = (row for row in entries if row.name == entry.substitute)
            assert (other.role, other.commercial) == (entry.role, "yes")
    files = [name.casefold() for entry in entries for name in entry.file_names]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize(
    "name", ["gfpgan-1.4", "GFPGANv1.4.pth", "GFPGANv1.4", "gfpganv1.4", "gfpgan_1.4"]
)
def test_found_under_its_own_and_its_files_names(name: str) -> None:
    assert read_catalogue(BUILT_IN).find(name).file == "GFPGANv1.4.pth"


def test_an_old_name_means_the_row_that_took_its_place(tmp_path: Path) -> None:
    catalogue = read_catalogue(BUILT_IN)
    assert catalogue.find("lite-1").name == "lite"
    assert "lite-1" not in [entry.name for entry in catalogue.entries]
    # A row of the user's that has the name comes first, a row that has the name as a file's last.
    row = ROW.replace('name = "mine"', 'name = "lite-1"')
    file = written(tmp_path / "weights.toml", row)
    assert read_catalogue(BUILT_IN, file).find("lite-1").licence == "MIT"
    row = ROW + 'aliases = ["lite-1.pth"]\n'
    file = written(tmp_path / "weights.toml", row)
    assert read_catalogue(BUILT_IN, file).find("lite-1").name == "lite"


def test_a_file_of_a_name_that_says_nothing_is_put_under_another() -> None:
    weights = Weights(Settings(()))
    assert "download model.safetensors as pmrf.safetensors (" in weights.by_hand(
        weights.find("pmrf")
    )
    assert "download GFPGANv1.pth (" in weights.by_hand(weights.find("gfpgan-1"))


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(WeightsError, match=r"no weights called 'nix'.*gfpgan-1\.4"):
        read_catalogue(BUILT_IN).find("nix")


def test_a_user_adds_a_row_and_corrects_a_field(tmp_path: Path) -> None:
    correction = '\n[[weights]]\nname = "gfpgan-1.4"\nconverted_sha256 = "' + "A" * 64 + '"\n'
    file = written(tmp_path / "weights.toml", ROW + correction)
    catalogue = read_catalogue(BUILT_IN, file)
    assert catalogue.find("mine").licence == "MIT"
    changed, before = catalogue.find("gfpgan-1.4"), read_catalogue(BUILT_IN).find("gfpgan-1.4")
    assert changed.converted_sha256 == "a" * 64
    assert changed.sha256 == before.sha256
    assert changed.sources == before.sources


def test_for_commerce_keeps_only_what_is_known_to_be_allowed() -> None:
    assert [entry.name for entry in read_catalogue(BUILT_IN).for_commerce().entries] == [
        "lite",
        "blazeface",
        "blazeface-full",
        "face-mesh",
        "face-mesh-468",
        "selfie-multiclass",
        "auraface",
    ]


RESEARCH = ("WIDER FACE", "FFHQ", "CelebAMask-HQ", "FaceScrub", "StyleGAN2", "MS1MV2", "DIV2K")


def test_one_rule_says_what_may_be_used_commercially() -> None:
    for entry in read_catalogue(BUILT_IN).entries:
        forbidden = entry.licence in ("none stated", "S-Lab License 1.0")
        restricted = any(name in entry.reason for name in RESEARCH)
        expected = "no" if forbidden else "unclear" if restricted else "yes"
        assert entry.commercial == expected, entry.name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('file = "../../evil.pth"', "'file' must be a bare file name"),
        ('file = "/etc/passwd"', "'file' must be a bare file name"),
        ('file = "..\\\\evil.pth"', "'file' must be a bare file name"),
        ('file = "C:evil.pth"', "'file' must be a bare file name"),
        ('file = ".hidden"', "'file' must be a bare file name"),
        ('file = "NUL.pth"', "'file' must be a bare file name"),
        ('file = "a.pth "', "'file' must be a bare file name"),
        ('aliases = ["../a.pth"]', "'aliases' must be a bare file name"),
        ('sources = [{ repo = "a/b", path = "../x.pth" }]', "'path' must be a bare file name"),
        ('sources = [{ repo = "a/b", path = "/x.pth" }]', "'path' must be a bare file name"),
        ('sources = [{ repo = "a/../b", path = "x" }]', "'repo' must be a repository"),
        ('sources = [{ repo = "a/b", path = "x", revision = "../.." }]', "'revision'"),
        ('sources = [{ url = "file:///etc/passwd" }]', "'url' must be an http or https"),
        ('sources = [{ url = "https://user:pw@host/x" }]', "'url' must be an http or https"),
        ('sources = [{ path = "x.pth" }]', "'repo' is missing"),
        ('sources = ["a/b"]', "a source is a table"),
        ('sha256 = "abc"', "'sha256' must be 64"),
        ("size = -1", "'size' must be a number of bytes"),
        ("size = true", "'size' must be a number of bytes"),
        ("size = 99999999999999", "'size' must be a number of bytes"),
        ('commercial = "perhaps"', "'commercial' must be one of yes, no, unclear, not 'perhaps'"),
        ('reason = ""', "'reason' must be a line of text"),
        ('title = "a\\u001b[31m"', "'title' must be a line of text"),
        ("hash = 1", "there is no field 'hash'"),
    ],
)
def test_a_wrong_row_is_refused(line: str, message: str, tmp_path: Path) -> None:
    field = line.split(" =")[0]
    row = "".join(kept + "\n" for kept in ROW.splitlines() if kept.split(" =")[0] != field)
    file = written(tmp_path / "weights.toml", row + line)
    with pytest.raises(WeightsError, match=message) as caught:
        read_catalogue(file)
    assert str(file) in str(caught.value)
    assert "'mine'" in str(caught.value)


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "w.toml", ROW.replace('"mine"', '"../../mine"'))
    with pytest.raises(WeightsError, match="'name' must be a bare file name"):
        read_catalogue(file)


@pytest.mark.parametrize("text", ["[[weights]", "weights = 3", "[[weights]]\nrole = 'x'", ROW * 2])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    file = written(tmp_path / "weights.toml", text)
    with pytest.raises(WeightsError, match=str(file)):
        read_catalogue(file)


def test_terms_must_be_stated(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'licence' is missing"):
        read_catalogue(written(tmp_path / "w.toml", ROW.replace('licence = "MIT"', "")))


def test_settings_of_environment_come_before_those_of_the_file(tmp_path: Path) -> None:
    text = '[settings]\nhub_repo = "a/file"\ncommercial_only = true\nfolders = ["/from/file"]\n'
    file = written(tmp_path / "weights.toml", text)
    environ = {"GFP_CATALOGUE": str(file), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    settings = Settings.load(environ=environ)
    assert (settings.hub_repo, settings.commercial_only, settings.downloads) == (
        "a/file",
        True,
        True,
    )
    assert settings.folders == (Path("/from/file"), cache_folder(environ) / "weights")
    assert settings.catalogue_file == file
    environ |= {
        "GFP_HUB_REPO": "an/other",
        "GFP_COMMERCIAL_ONLY": "0",
        "GFP_NO_DOWNLOAD": "1",
        "GFP_WEIGHTS_DIR": "/from/environment",
    }
    settings = Settings.load(["/first"], environ=environ)
    assert settings.hub_repo == "an/other"
    assert not settings.commercial_only
    assert not settings.downloads
    assert settings.folders[:2] == (Path("/first"), Path("/from/environment"))


def test_without_any_setting(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    settings = Settings.load(environ=environ)
    assert settings == Settings(folders=(tmp_path / "cache" / "gfp" / "weights",))
    assert not Settings.load(environ=environ, downloads=False).downloads


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"GFP_HUB_REPO": "no-slash"}, "GFP_HUB_REPO"),
        ({"GFP_NO_DOWNLOAD": "maybe"}, "GFP_NO_DOWNLOAD must be 1 or 0"),
        ({"GFP_CATALOGUE": "/nowhere/weights.toml"}, "/nowhere/weights.toml: cannot be read"),
    ],
)
def test_wrong_settings_are_named(environ: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        Settings.load(environ={"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/root", **environ})


@pytest.mark.parametrize("table", ["colour = 1", "downloads = 1", "folders = [1]"])
def test_wrong_settings_in_the_file_are_named(table: str, tmp_path: Path) -> None:
    file = written(tmp_path / "weights.toml", f"[settings]\n{table}\n")
    with pytest.raises(WeightsError, match=str(file)):
        Settings.load(environ={"GFP_CATALOGUE": str(file)})


def test_platform_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    environ = {"LOCALAPPDATA": "/l", "APPDATA": "/a"}
    assert (cache_folder(environ), config_folder(environ)) == (Path("/l/gfp"), Path("/a/gfp"))
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder({}) == Path.home() / "Library" / "Caches" / "gfp"
    monkeypatch.setattr("sys.platform", "linux")
    assert config_folder({}) == Path.home() / ".config" / "gfp"


def test_a_file_is_read_once_for_each_of_its_versions(tmp_path, monkeypatch):
    file = tmp_path / "mine.toml"
    row = '[[weights]]\nname = "gfpgan-1.4"\ncommercial = "{}"\n'
    file.write_text(row.format("no"))
    first = read_catalogue(BUILT_IN, file)
    monkeypatch.setattr("gfp_core.weights.catalogue.read_toml", lambda file: pytest.fail("again"))
    assert read_catalogue(BUILT_IN, file) is first
    monkeypatch.undo()
    file.write_text(row.format("unclear"))
    assert read_catalogue(BUILT_IN, file).find("gfpgan-1.4").commercial == "unclear"
