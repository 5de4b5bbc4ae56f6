"""The page in a real browser: the face picker and the before/after slider."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium")
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from gfp_core.options import parse_selection

PHOTO, DETECTOR, DETECT, LOADER, RESTORE, PASTE, SAVE = "1234567"
TEMPLATES = Path(__file__).resolve().parents[2] / "example_workflows"
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # no welcome over the graph
    "Comfy.Locale": "en",
    "Comfy.ColorPalette": "dark",
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
}


def split_graph(photo: str = "three.png", **detect: Any) -> dict[str, Any]:
    """Detect, restore, paste and save, in API format."""
    nodes = {
        PHOTO: ("LoadImage", {"image": photo}),
        DETECTOR: ("GFPLoadDetector", {"model": "retinaface_mobile025"}),
        DETECT: ("GFPDetectFaces", {"image": [PHOTO, 0], "detector": [DETECTOR, 0], **detect}),
        LOADER: ("GFPLoadRestorer", {"model": "lite"}),
        RESTORE: ("GFPRestoreFaces", {"faces": [DETECT, 0], "restorer": [LOADER, 0]}),
        PASTE: ("GFPPasteBack", {"image": [PHOTO, 0], "faces": [RESTORE, 0], "strength": 1.0}),
        SAVE: ("SaveImage", {"images": [PASTE, 0], "filename_prefix": "page"}),
    }
    return {id: {"class_type": name, "inputs": inputs} for id, (name, inputs) in nodes.items()}


def detect_graph(photo: str) -> dict[str, Any]:
    """Detection alone."""
    graph = split_graph(photo)
    return {id: graph[id] for id in (PHOTO, DETECTOR, DETECT)}


class Page:
    """ComfyUI's page in the browser. Elements are looked up anew each time: the panel redraws."""

    def __init__(self, driver: webdriver.Chrome, comfyui: Any) -> None:
        self.driver, self.comfyui = driver, comfyui

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 100) -> Any:
        """The condition's first true value."""
        try:
            return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: condition(), what)
        except TimeoutException:
            self.shot("failed")
            raise

    def settle(self) -> None:
        """Two frames later, when the canvas has moved its widgets."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def open(self, **settings: Any) -> None:
        """The page with an empty graph."""
        self.comfyui.post("/settings", {**SETTINGS, **settings})
        self.driver.get(self.comfyui.url)
        self.js("sessionStorage.clear(); localStorage.clear()")
        self.js("localStorage.vueNodesBannerDismissed = true")
        self.reload()

    def reload(self) -> None:
        self.driver.refresh()
        ready = "return Boolean(window.app?.vueAppReady && window.app.graph && app.canvas?.ds)"
        self.wait(lambda: self.js(ready), "the page to start")
        self.wait(
            lambda: self.js("return Boolean(LiteGraph.registered_node_types.GFPDetectFaces)"),
            "the nodes",
        )

    def load(self, prompt: dict[str, Any], places: dict[str, tuple[float, ...]]) -> None:
        """A graph from a prompt; places are x, y and, if wanted, width and height of nodes."""
        self.js("app.graph.clear(); app.loadApiJson(arguments[0], 'test')", prompt)
        loaded = "return app.graph.nodes.length === arguments[0]"
        self.wait(lambda: self.js(loaded, len(prompt)), "the graph")
        self.driver.execute_async_script(
            "const [places, done] = arguments; const graph = app.graph.serialize();"
            "for (const node of graph.nodes) {"
            "  const [x, y, ...size] = places[node.id] ?? [0, 900]; node.pos = [x, y];"
            "  if (size.length) node.size = [0, 1].map((i) => Math.max(size[i], node.size[i]));"
            "}"
            "app.loadGraphData(graph).then(done)",
            places,
        )
        self.home()

    def show(self, node: str) -> None:
        """The canvas at full size with a node in its corner."""
        self.home()
        self.js(
            "const [x, y] = app.graph.getNodeById(arguments[0]).pos;"
            "app.canvas.ds.offset = [80 - x, 120 - y]; app.canvas.setDirty(true, true)",
            node,
        )
        self.settle()

    def click(self, xpath: str, shot: str = "") -> WebElement:
        """Click what is anywhere on the page, once it is there."""

        def seen() -> Any:
            found = self.driver.find_elements(By.XPATH, xpath)
            return next((one for one in found if one.is_displayed()), None)

        one = self.wait(seen, xpath)
        if shot:
            self.shot(shot)
        one.click()
        return one

    def position(self, node: str) -> float:
        """How much of the slider shows before, in percent."""
        script = "return parseFloat(arguments[0].style.getPropertyValue('--position'))"
        return self.js(script, self.one(node, ".gfp-stage"))

    def home(self) -> None:
        """The canvas at full size and at its beginning."""
        self.js(
            "app.canvas.ds.scale = 1; app.canvas.ds.offset = [60, 80]; app.canvas.setDirty(1, 1)"
        )
        self.settle()

    def queue(self, seconds: float = 60) -> dict[str, Any]:
        """Queue the graph as the button does, and wait; the history's entry."""
        seen = set(self.comfyui.get("/history"))
        self.js("app.queuePrompt(0)")

        def finished() -> Any:
            history = self.comfyui.get("/history")
            return next((entry for id, entry in history.items() if id not in seen), None)

        entry = self.wait(finished, "the prompt to end", seconds)
        assert entry["status"]["status_str"] == "success", entry["status"]
        return entry

    def all(self, node: str, css: str) -> list[WebElement]:
        """Elements of a node's panel."""
        root = self.js(
            "return app.graph.getNodeById(arguments[0]).widgets.find((w) => w.element).element",
            node,
        )
        return root.find_elements(By.CSS_SELECTOR, css)

    def one(self, node: str, css: str) -> WebElement:
        """An element of a node's panel once it is there and seen."""

        def seen() -> Any:
            return next((one for one in self.all(node, css) if one.is_displayed()), None)

        return self.wait(seen, f"{css} of node {node}")

    def faces(self, node: str, count: int = 3) -> list[bool]:
        """Which faces are shown as chosen, by number."""
        boxes = self.wait(
            lambda: (found := self.all(node, ".gfp-face")) and len(found) == count and found,
            f"{count} faces",
        )
        return [box.get_attribute("aria-pressed") == "true" for box in boxes]

    def widget(self, node: str, name: str = "which") -> Any:
        return self.js(
            "const [id, name] = arguments;"
            "return app.graph.getNodeById(id).widgets.find((w) => w.name === name).value",
            node,
            name,
        )

    def text(self, node: str) -> str:
        return self.one(node, ".gfp-text").text

    def write(self, node: str, text: str, name: str = "which") -> None:
        """Edit a widget by hand: click it, type and accept."""
        x, y = self.js(
            "const [id, name] = arguments; const node = app.graph.getNodeById(id);"
            "const {y, computedHeight} = node.widgets.find((w) => w.name === name);"
            "const {left, top} = app.canvas.canvas.getBoundingClientRect();"
            "const {scale, offset} = app.canvas.ds;"
            "return [left + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,"
            " top + (node.pos[1] + y + (computedHeight ?? 20) / 2 + offset[1]) * scale]",
            node,
            name,
        )
        actions = ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y)).click()
        actions.perform()
        field = self.wait(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, ".graphdialog .value"), "a dialog"
        )[0]
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)
        self.wait(lambda: self.widget(node, name) == text, "the widget's new value")

    def keys(self, *keys: str) -> None:
        """Press a key, those before it held."""
        actions = ActionChains(self.driver)
        for key in keys[:-1]:
            actions.key_down(key)
        actions.send_keys(keys[-1])
        for key in keys[:-1]:
            actions.key_up(key)
        actions.perform()

    def shot(self, name: str) -> None:
        """A picture of the page in the folder GFP_SCREENSHOTS, to be looked at."""
        if folder := os.environ.get("GFP_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.settle()
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the console says against our files, since asked last.

        Not: that there is no help en.md; the frontend asks for one before it takes the other.
        """
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if "gfp_face_restoration" in entry["message"]
            and "/en.md" not in entry["message"]
            and entry["level"] != "INFO"
        ]


@pytest.fixture(scope="module")
def driver(
    comfyui: Any, tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str], None]
) -> Iterator[webdriver.Chrome]:
    """A headless browser that reaches nothing but this machine."""
    browser, server = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not server:
        missing("no chromium and chromedriver on the PATH: run .ci/comfyui")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1500,1000",
        "--lang=en",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "accept")  # leaving a changed workflow
    service = webdriver.ChromeService(executable_path=server)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def photos(comfyui: Any) -> dict[str, np.ndarray]:
    """Pictures in ComfyUI's input folder: one face in three sizes, one face, none."""
    from skimage import data, io, transform

    face = data.astronaut()
    row = np.full((512, 1112, 3), 70, np.uint8)
    row[:, :512] = face
    for side, x, y in ((360, 512, 76), (240, 872, 200)):
        small = transform.resize(face, (side, side), anti_aliasing=True)
        row[y : y + side, x : x + side] = (small * 255).astype(np.uint8)
    pictures = {
        "photo": row,
        "three": row,
        "one": face,
        "nobody": np.full((300, 400, 3), 90, np.uint8),
        "small": np.full((48, 64, 3), 90, np.uint8),
    }
    for name, pixels in pictures.items():
        io.imsave(comfyui.base / "input" / f"{name}.png", pixels, check_contrast=False)
    return pictures


@pytest.fixture(scope="module")
def opened(comfyui: Any, driver: webdriver.Chrome, photos: Any) -> Page:
    """The page; to start it takes seconds."""
    page = Page(driver, comfyui)
    page.open()
    return page


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The page; afterwards its console is looked at."""
    opened.complaints()
    yield opened
    assert opened.complaints() == []


PLACES = {
    PHOTO: (0, 40, 250, 300),
    DETECTOR: (0, 390),
    LOADER: (0, 520),
    DETECT: (270, 40, 380, 200),
    RESTORE: (670, 560),
    PASTE: (670, 40, 380, 200),
    SAVE: (1080, 90, 300, 300),
}


def saved(comfyui: Any, entry: dict[str, Any]) -> np.ndarray:
    """The picture that a prompt has saved."""
    from skimage import io

    return io.imread(comfyui.base / "output" / entry["outputs"][SAVE]["images"][0]["filename"])


def test_click_chooses_a_face_and_the_server_restores_only_those(
    page: Page, comfyui: Any, photos: dict[str, np.ndarray]
) -> None:
    page.load(split_graph(), PLACES)
    assert "Run once" in page.one(DETECT, "p").text
    page.shot("1_empty")
    page.queue()
    assert page.faces(DETECT) == [True, True, True]
    assert page.text(DETECT) == "3 of 3 chosen"
    page.one(PASTE, ".gfp-before")
    page.shot("2_all_chosen")

    page.one(DETECT, "[data-number='1']").click()
    assert page.widget(DETECT) == "0, 2"
    assert page.faces(DETECT) == [True, False, True]
    entry = page.queue()
    assert entry["prompt"][2][DETECT]["inputs"]["which"] == "0, 2"
    found = entry["outputs"][DETECT]["gfp_faces"][0]["faces"]
    assert {face["number"]: face["chosen"] for face in found} == {0: True, 1: False, 2: True}
    changed = (saved(comfyui, entry) != photos["three"]).any(axis=(0, 2))
    assert changed[:512].any()
    assert not changed[560:820].any()
    assert changed[872:].any()
    assert page.faces(DETECT) == [True, False, True]
    page.shot("3_two_chosen")


@pytest.mark.parametrize("name", [path.stem for path in TEMPLATES.glob("*Step by step.json")])
def test_template_opens_and_is_used(page: Page, comfyui: Any, name: str) -> None:
    page.js("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.click("//input[@type='text' and starts-with(@placeholder, 'Search')]").send_keys(name)
    page.click(f"//*[@data-testid='template-workflow-{name}']", "13_templates")
    opened = "return app.graph.nodes.find((node) => node.type === arguments[0])?.id"
    detect, paste, save = (
        str(page.wait(lambda type=type: page.js(opened, type), type))
        for type in ("GFPDetectFaces", "GFPPasteBack", "SaveImage")
    )
    page.wait(lambda: not page.driver.find_elements(By.CSS_SELECTOR, "[role=dialog]"), "no dialog")
    page.queue()
    page.faces(detect, 4)
    page.show(detect)
    page.one(detect, "[data-number='2']").click()
    entry = page.queue()
    assert entry["prompt"][2][detect]["inputs"]["which"] == "0, 1, 3"
    assert entry["outputs"][save]["images"]
    page.show(paste)
    stage = page.one(paste, ".gfp-stage")
    ActionChains(page.driver).drag_and_drop_by_offset(stage, 60, 0).perform()
    assert page.position(paste) > 60
    page.shot("14_template")


def test_picker_by_keyboard_and_by_hand(page: Page) -> None:
    page.load(detect_graph("three.png"), PLACES)
    page.queue()
    page.faces(DETECT)
    page.js("arguments[0].focus()", page.one(DETECT, "[data-number='2']"))
    page.keys(Keys.SPACE)
    assert page.widget(DETECT) == "0, 1"
    page.keys(Keys.SHIFT, Keys.TAB)
    assert page.driver.switch_to.active_element.get_attribute("data-number") == "1"
    assert "Face 1, score" in page.text(DETECT)
    page.shot("4_keyboard")
    page.keys(Keys.ENTER)
    assert page.widget(DETECT) == "0"
    page.one(DETECT, ".gfp-none").click()
    assert page.widget(DETECT) == "none"
    assert page.faces(DETECT) == [False, False, False]
    page.one(DETECT, ".gfp-all").click()
    assert page.widget(DETECT) == "all"

    page.write(DETECT, "first 2")
    assert page.faces(DETECT) == [True, True, False]
    page.write(DETECT, "those two")
    assert "those two" in page.text(DETECT)
    assert page.faces(DETECT) == [False, False, False]
    page.one(DETECT, "[data-number='1']").click()
    assert page.widget(DETECT) == "1"


def test_choices_are_read_as_the_server_reads_them(page: Page) -> None:
    texts = ["all", " ALL ", "none", "first", "first 2", "First  3", "0", "0, 2", "2;0 1", "0,,1"]
    texts += ["", "first -1", "1.5", "everything", "-1", "0, 2,", "firsts 2"]
    for text in texts:
        read = page.driver.execute_async_script(
            "const [path, text, done] = arguments; const {parseChoice} = await import(path);"
            "const chosen = parseChoice(text); done(chosen && [0, 1, 2, 3].map(chosen))",
            "/extensions/gfp_face_restoration/js/face_picker.js",
            text,
        )
        try:
            wanted = parse_selection(text)
        except ValueError:
            assert read is None, text
        else:
            assert read == [number in wanted for number in range(4)], text


def test_panel_survives_collapse_resize_copy_undo_and_reload(page: Page, comfyui: Any) -> None:
    page.load(detect_graph("three.png"), PLACES)
    page.queue()
    page.one(DETECT, "[data-number='0']").click()
    assert page.widget(DETECT) == "1, 2"
    node = f"app.graph.getNodeById({DETECT})"

    page.js(f"{node}.collapse(); app.canvas.setDirty(true, true)")
    page.wait(lambda: not page.all(DETECT, ".gfp-face")[0].is_displayed(), "the panel to go")
    page.js(f"{node}.collapse(); app.canvas.setDirty(true, true)")
    page.one(DETECT, ".gfp-face")

    narrow = page.one(DETECT, ".gfp-stage").size
    page.js(f"{node}.setSize([600, 700]); app.canvas.setDirty(true, true)")
    page.wait(lambda: page.one(DETECT, ".gfp-stage").size["width"] > 570, "a wider panel")
    wide = page.one(DETECT, ".gfp-stage").size
    assert wide["width"] / wide["height"] == pytest.approx(1112 / 512, rel=0.02)
    assert narrow["width"] / narrow["height"] == pytest.approx(1112 / 512, rel=0.02)
    page.shot("5_resized")

    panel = page.one(DETECT, ".gfp-stage")
    ActionChains(page.driver).scroll_from_origin(ScrollOrigin.from_element(panel), 0, 100).perform()
    page.wait(lambda: page.js("return app.canvas.ds.scale") < 1, "the wheel to zoom the canvas")
    page.home()

    page.js(
        f"app.canvas.selectItems([{node}]); app.canvas.copyToClipboard();"
        "app.canvas.pasteFromClipboard({position: [700, 60]})"
    )
    copy = page.js("return String(Math.max(...app.graph.nodes.map((node) => node.id)))")
    assert page.faces(copy) == [False, True, True]
    page.one(copy, "[data-number='1']").click()
    assert (page.widget(copy), page.widget(DETECT)) == ("2", "1, 2")
    assert page.faces(DETECT) == [False, True, True]
    page.shot("6_copied")

    page.keys(Keys.CONTROL, "z")
    page.wait(lambda: page.widget(copy) == "1, 2", "the click to be undone")
    assert page.faces(copy) == [False, True, True]

    output = page.js("return (await app.graphToPrompt()).output")[DETECT]["inputs"]
    assert "gfp_faces" not in output
    assert output["which"] == "1, 2"
    values = page.js(f"return {node}.serialize().widgets_values")
    own = f"return {node}.widgets.filter((widget) => widget.serialize !== false).length"
    assert len(values) == page.js(own) == page.js(f"return {node}.widgets.length") - 2

    stored = "return Object.values(sessionStorage).some((text) => text.includes('gfp_faces'))"
    page.wait(lambda: page.js(stored), "the page to store its graph")
    page.reload()
    assert page.faces(DETECT) == [False, True, True]
    for preview in (comfyui.base / "temp").glob("GFP_*"):
        preview.unlink()
    page.reload()
    assert "no longer there" in page.one(DETECT, ".gfp-gone p").text
    page.one(DETECT, "[data-number='0']").click()
    assert page.widget(DETECT) == "all"
    page.shot("7_preview_gone")
    panels = "return document.querySelectorAll('.gfp-panel').length"
    shown = page.js(panels)
    page.js(f"app.graph.remove(app.graph.getNodeById({copy}))")
    page.wait(lambda: page.js(panels) == shown - 1, "the removed node's panel to go")
    # The browser's line that a picture is not there is not ours to keep back.
    assert all("/view" in line for line in page.complaints())


def test_frames_are_stepped_through(page: Page) -> None:
    graph = split_graph("one.png")
    graph["8"] = {"class_type": "LoadImage", "inputs": {"image": "nobody.png"}}
    inputs = {"image1": [PHOTO, 0], "image2": ["8", 0]}
    graph["9"] = {"class_type": "ImageBatch", "inputs": inputs}
    graph[DETECT]["inputs"]["image"] = graph[PASTE]["inputs"]["image"] = ["9", 0]
    page.load(graph, {**PLACES, "8": (0, 900), "9": (0, 1300)})
    page.queue()
    assert page.faces(DETECT, 1) == [True]
    assert page.one(DETECT, ".gfp-stepper").text.split() == ["‹", "1", "/", "2", "›"]
    page.shot("8_frames")
    page.one(DETECT, ".gfp-next").click()
    assert "No face found" in page.one(DETECT, ".gfp-note").text
    page.shot("9_no_face")
    page.keys(Keys.ENTER)  # the button has the focus still
    assert page.faces(DETECT, 1) == [True]
    first = page.one(PASTE, ".gfp-before").get_attribute("src")
    page.one(PASTE, ".gfp-next").click()
    assert page.one(PASTE, ".gfp-before").get_attribute("src") != first


def test_another_node_may_make_the_choice(page: Page) -> None:
    graph = detect_graph("three.png")
    graph["8"] = {"class_type": "PrimitiveString", "inputs": {"value": "first 1"}}
    graph[DETECT]["inputs"]["which"] = ["8", 0]
    page.load(graph, {**PLACES, "8": (0, 560)})
    page.queue()
    assert page.faces(DETECT) == [True, False, False]
    page.one(DETECT, "[data-number='1']").click()
    assert page.faces(DETECT) == [True, False, False]
    assert not page.one(DETECT, ".gfp-all").is_enabled()


def test_slider_shows_before_and_after(page: Page) -> None:
    inputs = {"image": [PHOTO, 0], "model": "lite", "strength": 1.0, "upscale": 2.0}
    graph = {
        PHOTO: {"class_type": "LoadImage", "inputs": {"image": "one.png"}},
        "2": {"class_type": "GFPRestorePhoto", "inputs": inputs},
    }
    page.load(graph, {PHOTO: PLACES[PHOTO], "2": (300, 40, 420, 200)})
    page.queue()
    page.wait(lambda: page.js("return arguments[0].naturalWidth", page.one("2", "img")), "after")
    stage = page.one("2", ".gfp-stage")
    assert page.position("2") == 50
    width = stage.size["width"]
    drag = ActionChains(page.driver).move_to_element(stage).click_and_hold()
    drag.move_by_offset(-round(width / 4), 20).release().perform()
    assert page.position("2") == pytest.approx(25, abs=1)
    page.shot("10_slider")
    page.keys(Keys.ARROW_RIGHT)
    assert page.position("2") == pytest.approx(26, abs=1)
    ActionChains(page.driver).move_to_element(stage).perform()  # not held: nothing moves
    assert page.position("2") == pytest.approx(26, abs=1)
    before, after = (page.one("2", css) for css in (".gfp-before", "img:not(.gfp-before)"))
    assert before.rect == after.rect
    names = page.js("return app.graph.getNodeById(2).widgets.map((widget) => widget.name)")
    assert names[-1] == "gfp_compare", "the core's own preview would show it twice"
    clip = page.js("return getComputedStyle(arguments[0]).clipPath", before)
    assert clip.startswith("inset(0")


def one_node(photo: str = "three.png", **inputs: Any) -> dict[str, Any]:
    """The node that does all, behind Load Image."""
    inputs = {"image": [PHOTO, 0], "model": "lite", "strength": 1.0, **inputs}
    return {
        PHOTO: {"class_type": "LoadImage", "inputs": {"image": photo}},
        "2": {"class_type": "GFPRestorePhoto", "inputs": inputs},
    }


def test_one_node_shows_its_faces_and_lets_them_be_clicked(
    page: Page, photos: dict[str, np.ndarray]
) -> None:
    page.load(one_node(), {PHOTO: PLACES[PHOTO], "2": (300, 40, 520, 200)})
    page.queue(150)
    assert page.faces("2") == [True, True, True]
    assert page.text("2").startswith("3 of 3 faces restored")
    page.one("2", "[data-number='1'] .gfp-chip").click()
    assert page.widget("2") == "0, 2"
    ActionChains(page.driver).move_to_element(page.one("2", ".gfp-buttons")).perform()
    page.js("document.activeElement.blur()")
    assert page.text("2") == "2 of 3 chosen"
    entry = page.queue(150)
    assert entry["prompt"][2]["2"]["inputs"]["which"] == "0, 2"
    page.wait(lambda: page.text("2").startswith("2 of 3 faces restored"), "the report")
    page.shot("15_one_node")
    page.write("2", "7")
    page.queue(150)
    page.wait(lambda: "the most faces in a picture are 3" in page.text("2"), "the report")
    page.load(one_node("nobody.png"), {PHOTO: PLACES[PHOTO], "2": (300, 40, 520, 200)})
    page.queue(150)
    page.wait(lambda: page.text("2") == "No face found", "the report")


def test_slider_zooms_and_hands_out_the_picture(page: Page) -> None:
    page.load(one_node(), {PHOTO: PLACES[PHOTO], "2": (300, 40, 520, 200)})
    page.queue(150)
    stage = page.one("2", ".gfp-stage")
    page.wait(lambda: page.js("return arguments[0].naturalWidth", page.one("2", "img")), "after")
    scale = "return Number(arguments[0].style.getPropertyValue('--zoom'))"

    def zoomed() -> float:
        return page.js(scale, page.one("2", ".gfp-layer"))

    assert zoomed() == 1
    pointer = ActionChains(page.driver)
    pointer.move_to_element_with_offset(stage, -100, 20).double_click().perform()
    width = page.js("return arguments[0].clientWidth", stage)
    assert zoomed() == pytest.approx(max(2, 1112 / width), rel=0.01)
    assert page.position("2") == 50, "the divider stays"
    page.shot("16_zoomed")
    canvas = page.js("return app.canvas.ds.scale")
    wheel = ActionChains(page.driver)
    wheel.scroll_from_origin(ScrollOrigin.from_element(stage), 0, -200).perform()
    assert zoomed() > 2.5
    assert page.js("return app.canvas.ds.scale") == canvas
    page.keys("0")
    assert zoomed() == 1
    wheel = ActionChains(page.driver)
    wheel.key_down(Keys.CONTROL).scroll_from_origin(ScrollOrigin.from_element(stage), 0, -60)
    wheel.key_up(Keys.CONTROL).perform()  # as a touchpad's pinch arrives
    assert zoomed() == pytest.approx(1.82, abs=0.1)
    page.keys("0")
    page.js(PINCH, stage)
    assert zoomed() == pytest.approx(2, abs=0.1)
    assert page.js("return app.canvas.ds.scale") == canvas
    page.keys("0")
    after = page.one("2", "img:not(.gfp-before)")
    links = [page.one("2", css).get_attribute("href") for css in (".gfp-open", ".gfp-save")]
    assert links[0] == links[1]
    assert "/view?filename=GFP_" in links[0]
    assert page.one("2", ".gfp-save").get_attribute("download").endswith(".jpg")
    file = page.comfyui.file(links[0].removeprefix(page.comfyui.url))
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.size == (1112, 512) == tuple(page.js(SIZE, after))
    page.js("document.activeElement.blur()")


SIZE = "return [arguments[0].naturalWidth, arguments[0].naturalHeight]"
PINCH = """
const {left, top, width, height} = arguments[0].getBoundingClientRect();
const [x, y] = [left + width / 2, top + height / 2];
const send = (type, pointerId, dx) => arguments[0].dispatchEvent(new PointerEvent(type, {
  pointerId, pointerType: "touch", button: type === "pointermove" ? -1 : 0, buttons: 1,
  clientX: x + dx, clientY: y, bubbles: true, cancelable: true,
}));
const capture = Element.prototype.setPointerCapture;
const has = Element.prototype.hasPointerCapture;
Element.prototype.setPointerCapture = () => {};  // these pointers are not the browser's own
Element.prototype.hasPointerCapture = () => true;
try {
  send("pointerdown", 11, -40);
  send("pointerdown", 12, 40);
  send("pointermove", 11, -80);
  send("pointermove", 12, 80);
  send("pointerup", 11, -80);
  send("pointerup", 12, 80);
} finally {
  Element.prototype.setPointerCapture = capture;
  Element.prototype.hasPointerCapture = has;
}
"""


@pytest.mark.parametrize(("count", "shown"), [(64, "/ 64"), (260, "/ 256 (260)")])
def test_all_frames_of_a_batch_are_stepped_through(page: Page, count: int, shown: str) -> None:
    graph = one_node("small.png")
    repeat = {"image": [PHOTO, 0], "amount": count}
    graph["3"] = {"class_type": "RepeatImageBatch", "inputs": repeat}
    graph["2"]["inputs"]["image"] = ["3", 0]
    page.load(graph, {PHOTO: PLACES[PHOTO], "3": (0, 500), "2": (300, 40, 520, 200)})
    page.queue(150)
    assert page.one("2", ".gfp-stepper").text.split() == ["‹", "1", *shown.split(), "›"]
    status = page.one("2", ".gfp-stepper [role=status]")
    said = f"The first 256 of {count} frames are shown." if count > 256 else ""
    assert status.get_attribute("title") == said
    page.one("2", ".gfp-previous").click()
    assert page.one("2", ".gfp-stepper").text.split()[1] == shown.split()[1], "round to the last"


SEARCHES = (
    "face",
    "face enhance",
    "face detailer",
    "upscale face",
    "restore",
    "gfpgan",
    "codeformer",
    "face restore",
)


def test_searching_for_faces_finds_the_one_node_first(page: Page, comfyui: Any) -> None:
    if not comfyui.get("/object_info/GFPRestorePhoto")["GFPRestorePhoto"].get("search_aliases"):
        pytest.skip("this ComfyUI knows no other names of nodes")
    rows = (  # the pack's blueprints are found by the same words, and may stand before
        "return [...document.querySelectorAll('[role=dialog] [data-testid*=result]')]"
        ".map((row) => row.innerText.split('\\n')).filter((row) => !row.includes('Blueprint'))"
        ".map(([name]) => name).slice(0, 1)"
    )
    for words in SEARCHES:
        page.js("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        field = page.wait(
            lambda: page.driver.find_elements(By.CSS_SELECTOR, "[role=dialog] input"), "the search"
        )[0]
        field.send_keys(words)
        page.wait(lambda: page.js(rows) == ["Face Restore (GFP)"], f"the node for {words}", 10)
        field.send_keys(Keys.ESCAPE)
        page.wait(
            lambda: not page.driver.find_elements(By.CSS_SELECTOR, "[role=dialog]"), "no dialog"
        )


@pytest.mark.parametrize("is_new", [False, True])
def test_pictures_grow_and_those_of_progress_go(
    page: Page, is_new: bool, request: pytest.FixtureRequest
) -> None:
    if is_new:
        request.addfinalizer(page.open)
        page.open(**{"Comfy.VueNodes.Enabled": True})
    graph = split_graph("one.png")
    graph[RESTORE]["inputs"]["seed"] = 7 + is_new  # computed, not known
    graph["9"] = one_node("one.png", seed=7 + is_new)["2"]
    page.load(graph, {**PLACES, "9": (0, 700, 420, 200)})
    page.show("9")
    page.queue(150)
    stage = page.one("9", ".gfp-stage")
    page.wait(lambda: page.js("return arguments[0].naturalWidth", page.one("9", "img")), "after")
    page.js("app.graph.getNodeById(9).setSize([900, 1200]); app.canvas.setDirty(true, true)")
    version = page.js("return window.__COMFYUI_FRONTEND_VERSION__").split(".")
    if not is_new or [int(part) for part in version[:2]] >= [1, 40]:  # 1.32's Nodes 2.0 let none
        page.wait(lambda: page.one("9", ".gfp-stage").size["width"] > 550, "a larger picture", 10)
    assert stage.size["height"] == pytest.approx(stage.size["width"], abs=2)
    left = (
        "return Object.keys(app.nodePreviewImages ?? {}).length"
        " + app.graph.nodes.filter(({type, imgs}) => type === 'GFPRestoreFaces' && imgs).length"
    )
    page.wait(lambda: page.js(left) == 0, "the pictures of progress to go", 10)
    pictures = "return document.querySelectorAll(`[data-node-id='${arguments[0]}'] img`).length"
    if is_new:
        assert page.js(pictures, RESTORE) == 0
        assert page.js(pictures, "9") == 2, "before and after"


def test_few_widgets_until_more_are_asked_for(page: Page) -> None:
    graph = {**one_node(), "3": {"class_type": "GFPRestoreOptions", "inputs": {}}}
    page.load(graph, {PHOTO: PLACES[PHOTO], "2": (300, 40, 420, 200), "3": (760, 40, 300, 100)})
    shown = (
        "const node = app.graph.getNodeById(arguments[0]);"
        "return node.widgets.filter((w) => !w.hidden && !w.element && w.type !== 'button')"
        ".map((w) => w.name)"
    )
    few = ["model", "strength", "upscale", "which", "preset"]
    assert page.js(shown, "2") == few
    height = page.js("return app.graph.getNodeById(2).size[1]")
    press = "app.graph.getNodeById(2).widgets.find((w) => w.name === 'gfp_more_button').callback()"
    page.js(press)
    assert len(page.js(shown, "2")) == 17
    assert page.js("return app.graph.getNodeById(2).size[1]") > height + 200
    page.shot("17_more")
    page.js(press)
    assert page.js(shown, "2") == few
    assert page.js("return app.graph.getNodeById(2).size[1]") == height

    # A graph in which one of them was changed opens with them.
    graph["2"]["inputs"]["score"] = 0.5
    page.load(graph, {PHOTO: PLACES[PHOTO], "2": (300, 40, 420, 200), "3": (760, 40, 300, 100)})
    assert "score" in page.js(shown, "2")
    assert "padding" not in page.js(shown, "3")


def test_weights_that_are_not_here_say_so_in_the_list(page: Page) -> None:
    page.load(one_node(model="gfpgan-1.4"), {PHOTO: PLACES[PHOTO], "2": (300, 40, 420, 200)})
    script = (
        "const widget = app.graph.getNodeById(2).widgets.find((w) => w.name === 'model');"
        "return [widget.value, widget.options.getOptionLabel(widget.value),"
        " widget.options.getOptionLabel('lite')]"
    )
    assert page.js(script) == ["gfpgan-1.4", "gfpgan-1.4 · 349 MB · download", "lite"]


AS_THE_PAGE_REPLACES = """
const [names, done] = arguments;
const old = app.graph.getNodeById(2);
const node = LiteGraph.createNode("GFPRestorePhoto");
Object.assign(node, {id: old.id, pos: [...old.pos], size: [315, 100], graph: app.graph});
app.graph._nodes[app.graph._nodes.indexOf(old)] = app.graph._nodes_by_id[2] = node;
for (const [name, value] of names) {
  const widget = node.widgets.find((one) => one.name === name);
  widget.value = value;
  widget.callback?.(value);
}
done(names.map(([name]) => node.widgets.find((one) => one.name === name).value));
"""
"""What the page does where a node takes the place of another pack's, see its replaceWithMapping."""


def test_what_a_replaced_node_is_given_is_called_as_here(page: Page) -> None:
    page.load(one_node(), {PHOTO: PLACES[PHOTO], "2": (300, 40, 420, 200)})
    theirs = [("model", "GFPGANv1.4.pth"), ("which", "largest"), ("detector_model", "YOLOv5l")]
    ours = page.driver.execute_async_script(AS_THE_PAGE_REPLACES, [*theirs, ("strength", 0.5)])
    assert ours == ["gfpgan-1.4", "first 1", "retinaface_mobile025", 0.5]
    height = "const node = app.graph.getNodeById(2); return node.size[1] - node.computeSize()[1]"
    assert page.js(height) >= 0, "a node of another pack may be lower"
    assert page.one("2", ".gfp-panel, p").is_displayed()


OTHER_PACKS = Path(__file__).with_name("other_packs")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("facerestore_cf", {"fidelity": 0.7, "detector_model": "retinaface_mobile025"}),
        ("reactor", {"model": "gfpgan-1.4", "strength": 0.8, "which": "all"}),
        ("reactor_advanced", {"model": "restoreformer-plus-plus", "which": "first 1"}),
    ],
)
def test_graphs_of_other_packs_become_ours_and_run(
    name: str, wanted: dict[str, Any], page: Page, comfyui: Any
) -> None:
    """As saved by the page, from the schemas of their nodes; run with the bundled model."""
    if "node_replacements" not in str(comfyui.get("/features")):
        pytest.skip("this ComfyUI replaces no nodes in graphs")
    graph = json.loads((OTHER_PACKS / f"{name}.graph.json").read_text(encoding="utf-8"))
    page.driver.execute_async_script(
        "const [graph, done] = arguments; app.loadGraphData(graph).then(() => done())", graph
    )
    page.click("//*[@data-testid='error-overlay-see-errors']")
    page.click("//button[contains(., 'Replace All')]")
    page.wait(lambda: page.js("return app.graph.getNodeById(3).type") == "GFPRestorePhoto", "ours")
    made = page.js("return (await app.graphToPrompt()).output")
    assert wanted.items() <= made["3"]["inputs"].items()
    assert made["9"]["inputs"]["images"] == ["3", 0]
    page.js(
        "for (const {widgets} of app.graph.nodes) for (const widget of widgets ?? [])"
        " if (widget.name === 'model') widget.value = 'lite'"
    )
    assert page.queue(150)["outputs"]["9"]["images"]
    page.one("3", ".gfp-stage")
    page.shot(f"18_{name}")


def test_every_language_says_everything(page: Page) -> None:
    strings = page.driver.execute_async_script(
        "const done = arguments[0];"
        "import('/extensions/gfp_face_restoration/js/strings.js').then((m) => done(m.STRINGS))"
    )
    assert set(strings) == {"en", "de", "zh", "ja", "ko", "fr", "es", "ru"}
    for language, texts in strings.items():
        assert list(texts) == list(strings["en"]), language
        for key, text in texts.items():
            wanted = set(re.findall(r"\{\d\}", strings["en"][key]))
            assert set(re.findall(r"\{\d\}", text)) == wanted, f"{language}: {key}"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("11_light_german", {"Comfy.ColorPalette": "light", "Comfy.Locale": "de"}),
        ("12_nodes_2", {"Comfy.VueNodes.Enabled": True}),
    ],
)
def test_other_palette_language_and_renderer(
    page: Page, name: str, settings: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(page.open)
    page.open(**settings)
    page.load(split_graph(), PLACES)
    page.shot(f"{name}_empty")
    page.queue()
    assert page.faces(DETECT) == [True, True, True]
    page.one(DETECT, "[data-number='0']").click()
    assert page.widget(DETECT) == "1, 2"
    words = "2 von 3 gewählt" if settings.get("Comfy.Locale") == "de" else "2 of 3 chosen"
    page.show(DETECT)
    page.js("app.canvas.ds.scale = 0.6; app.canvas.setDirty(true, true)")
    page.settle()
    ActionChains(page.driver).move_to_element(page.one(DETECT, ".gfp-bar")).perform()
    page.js("document.activeElement.blur()")
    assert page.text(DETECT) == words
    page.show(PASTE)
    page.js("app.canvas.ds.scale = 0.6; app.canvas.setDirty(true, true)")
    page.settle()
    slider = page.one(PASTE, ".gfp-stage")
    ActionChains(page.driver).move_to_element(slider).click().perform()
    assert min(slider.size["width"], slider.size["height"]) > 100
    page.shot(name)
