"""docs/architecture.md draws the tree that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_DRAWN = {"__init__.py", "__main__.py", "py.typed"}
IN_PASSING = {"presets"}  # named in another entry's words


def drawn() -> tuple[set[str], set[str]]:
    """The entries of the repository and of gfp_core that the page's tree names."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```\n")[2].partition("```")[0]
    roots, rooms = set(), set()
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        # Names stand before two spaces; further lines of a description are indented deeper.
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if indent == 0:
            roots.update(names)
        elif indent == 2:
            rooms.update(names)
    return roots, rooms


def is_deprecated(path: Path) -> bool:
    file = path / "__init__.py" if path.is_dir() else path
    return file.suffix == ".py" and file.read_text(encoding="utf-8").startswith('"""Old name')


def test_every_drawn_folder_and_file_exists() -> None:
    roots, rooms = drawn()
    assert "gfp_core/" in roots
    assert "networks/" in rooms
    assert [name for name in roots if not (ROOT / name).exists()] == []
    assert [name for name in rooms if not (ROOT / "gfp_core" / name).exists()] == []


def test_every_room_of_the_library_is_drawn() -> None:
    rooms = {name.rstrip("/") for name in drawn()[1]} | NOT_DRAWN | IN_PASSING
    there = [
        path
        for path in (ROOT / "gfp_core").iterdir()
        if path.suffix or any(path.glob("*.py")) or any(path.glob("*.toml"))
    ]
    assert [path.name for path in there if path.name not in rooms and not is_deprecated(path)] == []
