"""The help pages and locale files belong to the nodes that there are, in every language."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gfp_core.weights.catalogue import BUILT_IN, read_catalogue
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS, LOCALES = REPOSITORY / "web" / "docs", REPOSITORY / "locales"
NODES = sorted(
    name
    for file in (REPOSITORY / "nodes").glob("*.py")
    for name in re.findall(r'node_id="(\w+)"', file.read_text(encoding="utf-8"))
)
LANGUAGES = ("en", "de")
COMMERCIAL = {
    "en": {"yes": "yes", "no": "no", "unclear": "unclear"},
    "de": {"yes": "ja", "no": "nein", "unclear": "ungeklärt"},
}
SOCKETS = {"en": ("input", "output"), "de": ("Eingang", "Ausgang")}
COMMERCE = "GFP_COMMERCIAL_ONLY"
LARGEST = 70_000
"""Bytes of a picture."""


def page(node: str, language: str) -> str:
    """The help of a node, where ComfyUI looks for it."""
    file = DOCS / (f"{node}.md" if language == "en" else f"{node}/{language}.md")
    return file.read_text(encoding="utf-8")


def table(text: str, head: str) -> list[list[str]]:
    """The rows below the heading line of a table whose first column has this head."""
    found = re.search(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)*)", text, re.MULTILINE)
    assert found is not None, f"no table of {head}"
    return [[cell.strip() for cell in row[2:-2].split(" | ")] for row in found[1].splitlines()]


def locale(language: str, file: str = "nodeDefs") -> dict[str, Any]:
    return json.loads((LOCALES / language / f"{file}.json").read_text(encoding="utf-8"))


def leaves(tree: Any, *path: str) -> dict[tuple[str, ...], str]:
    """The texts of a locale file by their path."""
    if isinstance(tree, str):
        return {path: tree}
    return {way: text for key, sub in tree.items() for way, text in leaves(sub, *path, key).items()}


def test_there_are_nodes() -> None:
    assert len(NODES) >= 15
    assert len(NODES) == len(set(NODES))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_help_and_texts_and_nothing_else_has(language: str) -> None:
    pattern = "*.md" if language == "en" else f"*/{language}.md"
    pages = {(file if language == "en" else file.parent).stem for file in DOCS.glob(pattern)}
    assert sorted(pages) == NODES
    assert sorted(locale(language)) == NODES


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_help_speaks_of_the_node_as_the_page_names_it(node: str, language: str) -> None:
    text, names = page(node, language), locale(language)[node]
    assert text.startswith(f"# {names['display_name']}\n")
    for head, sockets in zip(SOCKETS[language], (names["inputs"], names["outputs"]), strict=True):
        known = {socket["name"] for socket in sockets.values()}
        named = {name for row in table(text, head) for name in row[0].split(", ")}
        assert named <= known
        if head == SOCKETS[language][1]:
            assert named == known


def test_pictures_are_there_small_and_used() -> None:
    used = set()
    for node in NODES:
        links = [re.findall(r"!\[(.+?)\]\((.+?)\)", page(node, lang)) for lang in LANGUAGES]
        assert links[0], f"{node} has no picture"
        assert [link for _, link in links[0]] == [link for _, link in links[1]]
        used |= {link for _, link in links[0]}
    there = {f"images/{file.name}" for file in (DOCS / "images").iterdir()}
    assert used == there
    for link in there:
        assert (DOCS / link).stat().st_size < LARGEST, link


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("node", "role"),
    [
        ("GFPLoadRestorer", "restorer"),
        ("GFPLoadDetector", "detector"),
        ("GFPLoadParser", "parser"),
        ("GFPLoadEmbedder", "embedder"),
    ],
)
def test_loaders_state_the_terms_of_the_catalogue(node: str, role: str, language: str) -> None:
    head = {"en": "model", "de": "Modell"}[language]
    text = page(node, language).split("## ", 1)[1]  # below the table of inputs
    stated = [[name, terms.split("; ")[0]] for name, terms in table(text, head)]
    assert stated == [
        [f"`{entry.name}`", f"**{COMMERCIAL[language][entry.commercial]}**, {entry.licence}"]
        for entry in read_catalogue(BUILT_IN).entries
        if entry.role == role
    ]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("node", "usual"),
    [
        ("GFPLoadDetector", "retinaface_mobile025"),
        ("GFPLoadParser", "bisenet"),
        ("GFPLoadEmbedder", "face-descriptor"),
    ],
)
def test_loaders_say_what_is_left_for_commerce(node: str, usual: str, language: str) -> None:
    substitute = Weights(Settings(folders=(), commercial_only=True)).substitute(usual)
    assert substitute != usual
    (paragraph,) = (part for part in page(node, language).split("\n\n") if COMMERCE in part)
    assert f"`{substitute}`" in paragraph
    assert f"**{COMMERCIAL[language]['yes']}**" in paragraph


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_of_a_users_catalogue(language: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.toml"
    example = page("GFPLoadRestorer", language).split("```toml\n")[1].split("```")[0]
    file.write_text(example, encoding="utf-8")
    entry = read_catalogue(BUILT_IN, file).find("my-gfpgan")
    assert (entry.role, entry.commercial) == ("restorer", "unclear")
    settings = Settings.load(environ={"GFP_CATALOGUE": str(file), "XDG_CACHE_HOME": str(tmp_path)})
    assert settings.commercial_only
    assert not settings.downloads


@pytest.mark.parametrize("file", ["main", "nodeDefs"])
def test_languages_have_the_same_keys(file: str) -> None:
    english = leaves(locale("en", file))
    languages = {folder.name for folder in LOCALES.iterdir()}
    assert languages >= set(LANGUAGES), "each help page's language"
    for language in languages:
        assert leaves(locale(language, file)).keys() == english.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_none_of_the_frontends_patterns(language: str) -> None:
    for path, text in leaves(locale(language)).items():
        assert text.strip() == text != "", path
        assert not set("{}@|") & set(text), f"{path}: the frontend would read {text!r} as a pattern"
        assert path[-1] in ("display_name", "description", "name", "tooltip")


def test_tooltips_that_list_the_catalogue_stay_the_servers() -> None:
    # A locale's text would hide the user's own rows, and show what commercial_only hides.
    for language in LANGUAGES:
        texts = " ".join(leaves(locale(language)).values())
        for entry in read_catalogue(BUILT_IN).entries:
            assert f"{entry.name}:" not in texts
