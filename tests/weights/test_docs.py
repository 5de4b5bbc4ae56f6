"""What docs/weights.md says is what the code does."""

import os
import re
from pathlib import Path

from gfp_core.weights.catalogue import BUILT_IN, Entry, read_catalogue
from gfp_core.weights.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
TABLE = re.compile(r"<!-- table -->\n.*?\n\n", re.DOTALL)


def row(entry: Entry) -> str:
    size = f"{entry.size / 1e6:.1f} MB" if entry.size else "?"
    return (
        f"| `{entry.name}` | {entry.role} | {entry.file} | {size} | {entry.licence} | "
        f"{entry.commercial}: {entry.reason} | {entry.good_for} |\n"
    )


def table() -> str:
    head = "| name | role | file | size | licence | commercial use | good for |\n"
    rows = "".join(map(row, read_catalogue(BUILT_IN).entries))
    return f"<!-- table -->\n{head}|---|---|---|---|---|---|---|\n{rows}\n"


def test_the_table_is_that_of_the_catalogue() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("GFP_UPDATE_DOCS"):
        PAGE.write_text(TABLE.sub(lambda found: table(), text), encoding="utf-8")
        return
    found = TABLE.search(text)
    assert found is not None
    assert found[0] == table(), "write it anew: GFP_UPDATE_DOCS=1 pytest tests/weights/test_docs.py"


def test_the_example_of_a_users_catalogue(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    example = text.split("<!-- tested: catalogue -->\n```toml\n")[1].split("```")[0]
    file = tmp_path / "weights.toml"
    file.write_text(example, encoding="utf-8")
    assert read_catalogue(BUILT_IN, file).find("my-gfpgan").sources[0].repo == "me/my-gfpgan"
    settings = Settings.load(environ={"GFP_CATALOGUE": str(file), "XDG_CACHE_HOME": str(tmp_path)})
    assert settings.hub_repo == "me/face-weights"
    assert settings.folders[0] == Path("~/models/faces").expanduser()


def test_every_variable_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"GFP_[A-Z_]+", Path(BUILT_IN).with_name("settings.py").read_text()):
        assert f"`{name}" in text
