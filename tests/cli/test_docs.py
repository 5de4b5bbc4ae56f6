"""The page about options says what there is, and the commands in the docs can be called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gfp_core.cli import flags
from gfp_core.cli.main import build_parser
from gfp_core.cli.restore import EXTRA_FLAGS
from gfp_core.options import EXTRAS, ClipOptions, FileOptions, markdown_table, presets

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "options.md"
BLOCKS = {
    "presets": "".join(f"| `{name}` | {reason} |\n" for name, reason in presets().items()),
    "options": markdown_table(),
    "clip": markdown_table(ClipOptions),
    "extras": "".join(f"| `{flag}` | {EXTRAS[name]} |\n" for name, flag in EXTRA_FLAGS.items()),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_page_holds_what_is_declared(name: str) -> None:
    """Written anew by ``python tests/cli/test_docs.py``."""
    assert f"<!-- {name} -->\n{BLOCKS[name]}<!-- end -->\n" in PAGE.read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    found = []
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))):
        blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        for line in "".join(blocks).replace("\\\n", " ").splitlines():
            if line.startswith("gfp "):
                found.append((page.name, line.partition("#")[0].partition(">")[0]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_of_the_docs_are_understood(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in shlex.split(line)[1:] if not word.startswith("$")]
    arguments = build_parser().parse_args(words)
    if "options_file" in arguments:
        arguments.options_file = None
    assert flags.read_options(arguments, FileOptions)
    assert not getattr(arguments, "former_flags", None)


def write() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, block in BLOCKS.items():
        mark = f"<!-- {name} -->\n"
        start = text.index(mark) + len(mark)
        stop = text.find("<!-- end -->\n", start)
        following = text.find("<!-- ", start)
        end = stop + len("<!-- end -->\n") if 0 <= stop == following else start
        text = text[:start] + block + "<!-- end -->\n" + text[end:]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
