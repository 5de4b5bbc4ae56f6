"""Help and language of the nodes in the real page.

GFP_UPDATE_DOCS=1 writes the pictures of the nodes anew that the help pages show; look at them.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium")
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from gfp_core.weights.packages import read_member

# What starts the browser; this import mode of pytest has no relative imports between tests.
_spec = importlib.util.spec_from_file_location("page", Path(__file__).with_name("test_page.py"))
assert _spec is not None
assert _spec.loader is not None
test_page = sys.modules["page"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(test_page)
driver, opened, page, photos = (
    getattr(test_page, name) for name in ("driver", "opened", "page", "photos")
)

WEB = Path(__file__).resolve().parents[2] / "web"
IMAGES = WEB / "docs" / "images"
CROPS, BACK, COLOR, WHOLE = "8", "9", "10", "11"
PARSER, EMBEDDER, OPTIONS, MASKS, GUARD, COMPARE = "12", "13", "14", "15", "16", "17"
VIDEO, LEARN = "18", "19"
PLACES = {
    test_page.PHOTO: (0, 0, 300, 300),
    test_page.DETECTOR: (350, 0, 300, 0),
    test_page.DETECT: (700, 0, 400, 0),
    test_page.LOADER: (700, 700, 330, 0),
    test_page.RESTORE: (1150, 0, 310, 0),
    CROPS: (1510, 0, 230, 0),
    BACK: (1790, 0, 300, 0),
    COLOR: (2140, 0, 340, 0),
    test_page.PASTE: (2530, 0, 400, 0),
    WHOLE: (0, 900, 430, 0),
    test_page.SAVE: (2980, 0, 300, 300),
    PARSER: (500, 1500, 330, 0),
    EMBEDDER: (500, 1700, 330, 0),
    OPTIONS: (900, 1500, 300, 0),
    MASKS: (1300, 1500, 270, 0),
    GUARD: (1650, 1500, 290, 0),
    COMPARE: (2000, 1500, 300, 0),
    VIDEO: (2400, 1500, 430, 0),
    LEARN: (2900, 1500, 330, 0),
}
DESCRIPTOR = ("face_recognition_model.bin", "face_recognition_model-weights_manifest.json")
INFO = "[data-testid='info-button']"
HELP = ".node-help-content"
MARGIN, TITLE = 14, 30
"""Pixels about a node in its picture, and of its title."""


@pytest.fixture(scope="module")
def large(driver: Any) -> None:
    """A window in which the largest node is seen, with the buttons above it."""
    driver.set_window_size(1500, 1250)


@pytest.fixture(scope="module")
def graph(comfyui: Any) -> dict[str, Any]:
    """All nodes of the pack in one prompt, at work on the group of the help pages.

    Those whose weights are not at hand are drawn only: nothing that runs hangs on them.
    """
    with Image.open(IMAGES / "group.jpg") as both:
        both.crop((0, 0, both.width, both.height // 2 - 3)).save(comfyui.base / "input/group.png")
    prompt = test_page.split_graph("group.png", which="0, 1, 3")
    faces = [test_page.RESTORE, 0]
    more = {
        CROPS: ("GFPCropsFromFaces", {"faces": faces}),
        BACK: ("GFPFacesFromCrops", {"crops": [CROPS, 1], "faces": faces, "use_as": "restored"}),
        COLOR: ("GFPColorEnhance", {"faces": [BACK, 0], "mode": "auto", "strength": 1.0}),
        WHOLE: (
            "GFPRestorePhoto",
            {
                "image": [test_page.PHOTO, 0],
                "model": "lite",
                "strength": 1.0,
                "options": [OPTIONS, 0],
            },
        ),
        PARSER: ("GFPLoadParser", {"model": "bisenet"}),
        EMBEDDER: ("GFPLoadEmbedder", {"model": "face-descriptor"}),
        OPTIONS: ("GFPRestoreOptions", {}),
        MASKS: ("GFPFaceMasks", {"faces": faces, "shape": "ellipse", "feather": 0.1}),
        GUARD: (
            "GFPIdentityGuard",
            {"faces": [COLOR, 0], "embedder": [EMBEDDER, 0], "limit": 22.0},
        ),
        COMPARE: (
            "GFPCompareRestorers",
            {"faces": [test_page.DETECT, 0], "restorer_1": [test_page.LOADER, 0]},
        ),
        VIDEO: ("GFPRestoreVideo", {"model": "lite", "strength": 1.0}),
        LEARN: ("GFPLearnPerson", {"images": [test_page.PHOTO, 0], "model": "lite"}),
    }
    prompt |= {id: {"class_type": name, "inputs": inputs} for id, (name, inputs) in more.items()}
    guarded = GUARD if put_descriptor(comfyui.base / "models" / "facedetection") else COLOR
    prompt[test_page.PASTE]["inputs"] |= {"faces": [guarded, 0], "face_masks": [MASKS, 0]}
    return prompt


def put_descriptor(folder: Path) -> bool:
    """Put the face descriptor's weights there, if GFP_EVALUATION_WEIGHTS has them."""
    given = os.environ.get("GFP_EVALUATION_WEIGHTS")
    found = sorted(Path(given).glob("*face-api*.tgz")) if given else []
    if not found:
        return False
    folder.mkdir(exist_ok=True)
    for name in DESCRIPTOR:
        data = read_member(found[0], f"package/model/{name}", "look into the package").read()
        (folder / name).write_bytes(data)
    return True


def show(page: Any, id: str) -> tuple[int, int, int, int]:
    """Bring a node into view; its left, top, right and bottom on the screen."""
    left, top, width, height = page.js(
        "const node = app.graph.getNodeById(arguments[0]);"
        "app.canvas.ds.scale = 1; app.canvas.ds.offset = [500 - node.pos[0], 130 - node.pos[1]];"
        "app.canvas.setDirty(true, true);"
        "const {left, top} = app.canvas.canvas.getBoundingClientRect();"
        "return [left + 500, top + 130, ...node.size]",
        id,
    )
    page.settle()
    return round(left), round(top) - TITLE, round(left + width), round(top + height)


def screen(page: Any, place: tuple[int, int, int, int]) -> Image.Image:
    """A part of the page as it is seen."""
    shot = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    left, top, right, bottom = place
    return shot.crop((left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN))


def click(page: Any, x: int, y: int) -> None:
    actions = ActionChains(page.driver)
    actions.w3c_actions.pointer_action.move_to_location(x, y).click()
    actions.perform()


def found(page: Any, css: str) -> list[Any]:
    return page.driver.find_elements(By.CSS_SELECTOR, css)


def loaded_pictures(page: Any) -> list[int]:
    """Widths of the pictures in the help, 0 for what is none; nothing while one is on its way."""
    widths = page.js(
        f"return [...document.querySelectorAll('{HELP} img')]"
        ".map((image) => image.complete ? image.naturalWidth : -1)"
    )
    return [] if -1 in widths else widths


@pytest.mark.usefixtures("large")
def test_every_node_is_drawn_with_what_it_found(
    page: Any, comfyui: Any, graph: dict[str, Any]
) -> None:
    drawn = {node["class_type"] for node in graph.values()}
    assert drawn >= {name for name in comfyui.object_info() if name.startswith("GFP")}
    page.open(**{"Comfy.NodeBadge.NodeSourceBadgeMode": "None"})
    page.load(graph, PLACES)
    page.queue(300)
    assert page.faces(test_page.DETECT, 4) == [True, True, False, True]
    for id, node in graph.items():
        name = node["class_type"]
        if not name.startswith("GFP"):
            continue
        place = show(page, id)
        if name in ("GFPPasteBack", "GFPRestorePhoto"):
            page.one(id, ".gfp-before")
        picture = screen(page, place)
        assert np.asarray(picture).std() > 10, f"{name} is not seen"
        if os.environ.get("GFP_UPDATE_DOCS"):
            picture.save(IMAGES / f"{name}.jpg", quality=88, optimize=True)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("language", ["en", "de"])
def test_help_opens_with_its_pictures(
    page: Any, graph: dict[str, Any], comfyui: Any, language: str
) -> None:
    page.open(**{"Comfy.Locale": language})
    page.load(graph, PLACES)
    for id, node in graph.items():
        name = node["class_type"]
        if not name.startswith("GFP"):
            continue
        left, top, *_ = show(page, id)
        click(page, left + 80, top + TITLE // 2)
        page.wait(lambda: found(page, INFO), "the button")
        page.js(f"document.querySelector(`{INFO}`).click()")  # the toolbox may lie over another
        file = WEB / "docs" / (f"{name}.md" if language == "en" else f"{name}/{language}.md")
        text = file.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")

        page.wait(
            lambda title=title: [head.text for head in found(page, f"{HELP} h1")] == [title],
            f"the help of {name} in {language}",
        )
        count = len(re.findall(r"!\[", text))
        widths = page.wait(lambda: loaded_pictures(page), "the pictures") if count else []
        assert len(widths) == count
        assert all(widths), f"{name}: a picture is missing"
        page.shot(f"help_{language}_{name}")
    # English is what the page falls back to, after it has asked for en.md.
    assert all("/en.md" in complaint for complaint in page.complaints())
    title = page.js("return app.graph.getNodeById(arguments[0]).title", WHOLE)
    assert title == ("Face Restore (GFP)" if language == "en" else "Gesichtsrestaurierung (GFP)")
