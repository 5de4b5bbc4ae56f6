"""The workflows: they run in the real ComfyUI, their pixels are gfp_core's, both forms agree."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gfp_core.pipeline import FaceRestorer, Restoration
from gfp_core.weights.packages import read_member

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (REPOSITORY / "example_workflows").glob("*.json"))

# What each workflow sets, as gfp_core is told it. All else is at its default in both.
OPTIONS: dict[str, dict[str, Any]] = {
    "01 Restore a photo": {},
    "02 Choose faces by a click": {"order": "left to right"},
    "05 Old grey or sepia photo": {
        "color": "input",
        "score": 0.7,
        "min_size": 24,
        "rotations": (0, 180),
        "upscale": 2.0,
    },
    "06 After a diffusion model": {"strength": 0.8},
    "08 Into an enlarged photo": {},
    "12 Video frames without flicker": {"video": True},
    "13 Step by step": {},
}
FACES = {
    "02 Choose faces by a click": 4,
    "12 Video frames without flicker": 8,
    "13 Step by step": 4,
}
"""How many faces there are in the examples, where it is not one."""
CLIP = "11 Video from file to file"
PERSON = "14 Learn one person"
NEED_WEIGHTS = {
    "03 Certain people only",
    "04 Leave glasses and hands alone",
    "07 Compare three models",
    "09 With an upscale model",
    "10 SeedVR2 background with our faces",
}
"""These need weights that are not at hand: they are run with what stands in for them."""


def prompt(name: str) -> dict[str, Any]:
    """A workflow in API format; its file has the words of the title."""
    slug = name.split(" ", 1)[1].lower().replace(" ", "_")
    return json.loads((REPOSITORY / "workflows/api" / f"{slug}.json").read_text(encoding="utf-8"))


def graph(name: str) -> dict[str, Any]:
    """A workflow as the page opens it."""
    path = REPOSITORY / "example_workflows" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def known(comfyui: Any, nodes: dict[str, Any]) -> dict[str, Any]:
    """The server's nodes, with all that the workflow uses; older versions of ComfyUI lack some."""
    info = comfyui.object_info()
    lacking = {node["class_type"] for node in nodes.values()} - set(info)
    assert not any(name.startswith("GFP") for name in lacking)
    if lacking:
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(lacking))}")
    return info


def find(nodes: dict[str, Any], *kinds: str) -> str:
    """The id of the only node of one of these kinds."""
    (found,) = [id for id, node in nodes.items() if node["class_type"] in kinds]
    return found


def look_at(nodes: dict[str, Any], links: dict[str, Any]) -> None:
    """Adds nodes that save images of a prompt: their ids, and the links to what they save."""
    for key, link in links.items():
        inputs = {"images": link, "filename_prefix": f"test_{key}"}
        nodes[key] = {"class_type": "SaveImage", "inputs": inputs}


@pytest.fixture(scope="module")
def restorer() -> FaceRestorer:
    """gfp_core's own, with the bundled model."""
    return FaceRestorer.load(device="cpu")


def expected(restorer: FaceRestorer, name: str, given: np.ndarray, **more: Any) -> Restoration:
    """What gfp_core makes of (B, H, W, C) uint8 frames."""
    return restorer.restore(as_frames(given), **OPTIONS[name], **more)


def as_frames(pixels: np.ndarray) -> Tensor:
    """(B, H, W, C) uint8 as frames (B, C, H, W) in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 1)


def levels(frames: Tensor) -> np.ndarray:
    """Frames as (B, H, W, C) levels, cut off as ComfyUI's Save Image does."""
    return (frames.movedim(1, -1) * 255).clamp(0, 255).to(torch.uint8).numpy()


def furthest(one: np.ndarray, other: np.ndarray) -> int:
    """The greatest difference in levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_pixels_are_those_of_gfp_core(
    name: str, comfyui: Any, photos: Path, restorer: FaceRestorer
) -> None:
    """Each file as it is, on a real photo with the bundled model.

    In one of them the part before the image is not run: a diffusion model needs a checkpoint, so
    Load Image stands in for VAE Decode there, and what VAE Decode asks for falls away.

    One level of difference is allowed: sums of floats depend on how many threads make them, and
    where Save Image cuts off, the last bit decides between two levels.
    """
    nodes = prompt(name)
    if name.startswith("06"):
        image = {"image": "photo.png"}
        nodes[find(nodes, "VAEDecode")] = {"class_type": "LoadImage", "inputs": image}
    restoring = find(nodes, "GFPRestorePhoto", "GFPPasteBack")
    looks = {"given": nodes[restoring]["inputs"]["image"], "restored": [restoring, 0]}
    if "upscaled" in nodes[restoring]["inputs"]:
        looks["background"] = nodes[restoring]["inputs"]["upscaled"]
    look_at(nodes, looks)

    before = len(comfyui.log())
    outputs = comfyui.queue(nodes)
    assert not re.search("error|exception|traceback", comfyui.log()[before:], re.IGNORECASE)

    saved = {key: comfyui.saved(outputs[key]) for key in looks}
    more = {}
    if "background" in saved:
        more["background"] = as_frames(saved["background"])
    wanted = expected(restorer, name, saved["given"], **more)
    assert len(wanted.faces) == FACES.get(name, 1)
    assert furthest(saved["restored"], levels(wanted.frames)) <= 1
    assert (wanted.mask > 0.5).any(), "a face was restored"

    if name.startswith("12"):
        check_video(comfyui, outputs, len(saved["given"]))
        pairs = zip(saved["given"], saved["restored"], strict=True)
        assert all(furthest(before, after) > 0 for before, after in pairs)
    else:
        own = find(prompt(name), "SaveImage")
        assert np.array_equal(comfyui.saved(outputs[own]), saved["restored"])


def check_video(comfyui: Any, outputs: dict[str, Any], frames: int) -> None:
    """The video saved has every frame and the rate of the one that was read."""
    import av

    (saved,) = outputs[find(prompt("12 Video frames without flicker"), "SaveVideo")]["images"]
    with av.open(str(comfyui.base / "output" / saved["filename"])) as video:
        assert float(video.streams.video[0].average_rate) == 8
        assert len(list(video.decode(video=0))) == frames


@pytest.mark.parametrize("name", sorted(NEED_WEIGHTS - {"07 Compare three models"}))
def test_what_needs_weights_runs_with_stand_ins(name: str, comfyui: Any, photos: Path) -> None:
    """An enlarged picture for that of an upscaler; no parser; certain people with the embedder."""
    nodes = prompt(name)
    if name.startswith("03") and not put_descriptor(comfyui.base / "models" / "facedetection"):
        pytest.skip("no face descriptor in GFP_EVALUATION_WEIGHTS")
    restoring = nodes[find(nodes, "GFPRestorePhoto")]["inputs"]
    if "upscaled" in restoring:
        scale = {"image": restoring["image"], "upscale_method": "lanczos", "scale_by": 2}
        nodes["scaled"] = {"class_type": "ImageScaleBy", "inputs": scale}
        restoring["upscaled"] = ["scaled", 0]
    for node in nodes.values():
        node["inputs"].pop("parser", None)
    restoring["upscale"] = 1.0
    nodes["report"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": [find(nodes, "GFPRestorePhoto"), 3]},
    }
    outputs = comfyui.queue({id: nodes[id] for id in needed(nodes, "report")})
    faces = 2 if name.startswith("04") else 1
    assert outputs["report"]["text"][0].startswith(f"{faces} of {faces} faces restored")


def test_three_models_are_compared(comfyui: Any, photos: Path) -> None:
    nodes = prompt("07 Compare three models")
    comparing = nodes[find(nodes, "GFPCompareRestorers")]["inputs"]
    assert comparing["models"].split(", ") == ["lite", "gfpgan-1.4", "codeformer"]
    comparing["models"] = "lite, lite"
    outputs = comfyui.queue(nodes)
    assert outputs[find(nodes, "GFPCompareRestorers")]["images"]


def needed(nodes: dict[str, Any], last: str) -> list[str]:
    """The nodes that one needs, and itself."""
    ids = [last]
    for id in ids:
        values = nodes[id]["inputs"].values()
        ids += [value[0] for value in values if isinstance(value, list) and value[0] not in ids]
    return ids


def put_descriptor(folder: Path) -> bool:
    """Put the face descriptor's weights there, if GFP_EVALUATION_WEIGHTS has them."""
    given = os.environ.get("GFP_EVALUATION_WEIGHTS")
    packages = sorted(Path(given).glob("*face-api*.tgz")) if given else []
    folder.mkdir(exist_ok=True)
    for package in packages[:1]:
        for name in ("face_recognition_model.bin", "face_recognition_model-weights_manifest.json"):
            member = read_member(package, f"package/model/{name}", "look into the package")
            (folder / name).write_bytes(member.read())
    return bool(packages)


def test_a_person_is_learned_and_stands_beside_the_plain_result(
    comfyui: Any, photos: Path, restorer: FaceRestorer
) -> None:
    """In two steps here; the one result is gfp_core's, the learned one is another."""
    nodes = prompt(PERSON)
    learn = find(nodes, "GFPLearnPerson")
    nodes[learn]["inputs"]["steps"] = 2
    own, plain = sorted(
        (id for id, node in nodes.items() if node["class_type"] == "GFPRestorePhoto"),
        key=lambda id: "restorer" not in nodes[id]["inputs"],
    )
    look_at(nodes, {"given": nodes[plain]["inputs"]["image"], "own": [own, 0], "plain": [plain, 0]})
    outputs = comfyui.queue(nodes)
    pixels = {key: comfyui.saved(outputs[key]) for key in ("given", "own", "plain")}
    assert outputs[find(nodes, "PreviewAny")]["text"][0].startswith("Learned from 1 picture(s)")
    wanted = restorer.restore(as_frames(pixels["given"]))
    assert len(wanted.faces) == 1
    assert furthest(pixels["plain"], levels(wanted.frames)) <= 1
    assert furthest(pixels["own"], pixels["plain"]) > 1


def test_a_video_goes_from_file_to_file(comfyui: Any, photos: Path, restorer: FaceRestorer) -> None:
    """Rate and sound are those of the clip, faces are restored, and no part is left behind."""
    import av

    source = photos / "clip_with_sound.mp4"
    with av.open(str(photos / "clip.mp4")) as clip, av.open(str(source), "w") as output:
        video = output.add_stream_from_template(clip.streams.video[0], opaque=True)
        audio = output.add_stream("aac", rate=48000, layout="mono")
        for packet in clip.demux():
            if packet.size:
                packet.stream = video
                output.mux(packet)
        wave = np.sin(np.arange(24 * 1024) / 20).astype(np.float32)[None]
        for start in range(0, wave.shape[1], 1024):
            sample = av.AudioFrame.from_ndarray(wave[:, start : start + 1024], "fltp", "mono")
            sample.sample_rate, sample.pts = 48000, start
            output.mux(audio.encode(sample))
        output.mux(audio.encode(None))
    nodes = prompt(CLIP)
    nodes[find(nodes, "LoadVideo")]["inputs"]["file"] = source.name
    nodes["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["2", 1]}}
    before = len(comfyui.log())
    outputs = comfyui.queue(nodes)
    assert not re.search("error|exception|traceback", comfyui.log()[before:], re.IGNORECASE)
    assert outputs["report"]["text"][0].startswith("4 frames, 3 faces in 3 of them")
    (saved,) = outputs[find(nodes, "SaveVideo")]["images"]
    result = comfyui.base / "output" / saved["filename"]
    frames = [decoded(path) for path in (source, result)]
    assert frames[0].shape == frames[1].shape
    wanted = next(restorer.stream([as_frames(frames[0])])).frames
    # Save Video and the encoder of a clip are lossy.
    assert np.abs(frames[1].astype(int) - levels(wanted)).mean() < 4
    assert np.abs(frames[1][0].astype(int) - frames[0][0]).max() > 20
    sounds = []
    for path in (source, result):
        with av.open(str(path)) as clip:
            assert clip.streams.video[0].average_rate == 8
            sounds.append([bytes(each) for each in clip.demux(clip.streams.audio[0]) if each.size])
    assert sounds[0] == sounds[1]
    left = [path.name for path in (comfyui.base / "temp").iterdir() if "part" in path.name]
    assert not left


def test_a_cancelled_video_leaves_no_file(comfyui: Any, photos: Path) -> None:
    before = {path.name for path in (comfyui.base / "temp").iterdir()}
    nodes = prompt(CLIP)
    nodes[find(nodes, "GFPRestoreVideo")]["inputs"]["strength"] = 0.123
    id = comfyui.submit(nodes)
    folder = comfyui.base / "temp"

    def has_begun() -> bool:
        return any("gfp-parts" in path.name for path in folder.iterdir())

    end = time.monotonic() + 120
    while not has_begun() and time.monotonic() < end:
        time.sleep(0.01)
    comfyui.post("/interrupt", {})
    entry = comfyui.wait(id)
    assert entry["status"]["status_str"] == "error"
    assert {path.name for path in folder.iterdir()} == before


def decoded(path: Path) -> np.ndarray:
    """The frames of a clip, (B, H, W, 3) uint8."""
    import av

    with av.open(str(path)) as clip:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)])


@pytest.mark.parametrize("name", NAMES)
def test_prompt_fits_the_nodes(name: str, comfyui: Any, photos: Path) -> None:
    """Every link has the type its input wants, and every value is one that is allowed."""
    nodes = prompt(name)
    info = known(comfyui, nodes)
    for id, node in nodes.items():
        kind = info[node["class_type"]]
        wanted = {**kind["input"]["required"], **kind["input"].get("optional", {})}
        assert set(kind["input"]["required"]) <= set(node["inputs"]) <= set(wanted), id
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                source, slot = value
                given = info[nodes[source]["class_type"]]["output"][slot]
                assert wanted[key][0] in (given, "*"), f"{id}: {key}"
            elif key not in USERS_FILES:
                assert is_allowed(value, wanted[key]), f"{id}: {key} is {value!r}"


USERS_FILES = ("image", "file", "ckpt_name", "model_name", "unet_name", "vae_name")


def is_allowed(value: Any, spec: list[Any]) -> bool:
    """Whether a schema allows a value."""
    kind, limits = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(kind, list) or kind == "COMBO":
        return value in (kind if isinstance(kind, list) else limits["options"])
    if kind in ("INT", "FLOAT"):
        return limits["min"] <= value <= limits["max"]
    return isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind])


def test_every_workflow_has_both_forms_and_a_picture() -> None:
    folder = REPOSITORY / "example_workflows"
    assert sorted({*OPTIONS, *NEED_WEIGHTS, CLIP, PERSON}) == NAMES
    slugs = {name.split(" ", 1)[1].lower().replace(" ", "_") for name in NAMES}
    assert {path.stem for path in (REPOSITORY / "workflows/api").glob("*.json")} == slugs
    assert sorted(path.stem for path in folder.glob("*.jpg")) == NAMES
    assert all(path.stat().st_size < 60_000 for path in folder.glob("*.jpg"))


@pytest.mark.parametrize("name", NAMES)
def test_graph_and_prompt_are_in_step(name: str, comfyui: Any) -> None:
    """The graph's widget values, in the order of the server's schema, are those of the prompt."""
    info = known(comfyui, prompt(name))
    assert prompt_of(graph(name), info) == without_titles(prompt(name)), (
        f"change {name} in ComfyUI, then save it to example_workflows/ and export it (API) to "
        "workflows/api/"
    )


def without_titles(nodes: dict[str, Any]) -> dict[str, Any]:
    """A prompt without what is for readers alone."""
    return {
        id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for id, node in nodes.items()
    }


def prompt_of(drawn: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """A graph as a prompt, by the server's schemas alone."""
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    muted = {str(node["id"]) for node in drawn["nodes"] if node["mode"] == MUTED}
    nodes = {}
    for node in drawn["nodes"]:
        if node["type"] == "MarkdownNote" or node["mode"] == MUTED:
            continue
        kind = info[node["type"]]
        inputs = dict(widget_values(kind, node.get("widgets_values", [])))
        for socket in node["inputs"]:
            link = links.get(socket["link"])
            if link is not None and link[0] not in muted:
                inputs[socket["name"]] = link
        nodes[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return nodes


def widget_values(kind: dict[str, Any], values: list[Any]) -> Iterator[tuple[str, Any]]:
    """The values of a node's widgets by their names."""
    left = list(values)
    for part in ("required", "optional"):
        for name in kind["input_order"].get(part, []):
            spec = kind["input"][part][name]
            options = spec[1] if len(spec) > 1 else {}
            typed = isinstance(spec[0], list) or spec[0] in WIDGETS
            if not typed or options.get("forceInput"):
                continue
            if left:  # graphs may be older than a node's last inputs
                yield name, left.pop(0)
            if options.get("control_after_generate"):
                assert left.pop(0) in ("fixed", "increment", "decrement", "randomize")
    assert left in ([], ["image"]), "what is left is the upload button's"


MUTED = 2
"""Mode of a node that takes no part, as the page writes it."""
WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
