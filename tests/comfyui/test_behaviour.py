"""How the nodes behave in the real ComfyUI: refusals, cancelling, caching, memory, odd images."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gfp_core.crops import exchange_crops
from gfp_core.paste import paste
from gfp_core.pipeline import FaceRestorer

REPOSITORY = Path(__file__).resolve().parents[2]
LITE = REPOSITORY / "gfp_core" / "weights" / "lite.safetensors"
PHOTO, DETECTOR, LOADER, DETECT, RESTORE, COLOR, PASTE, SAVE = "12345678"
SIMPLE = "photo"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def save(image: list[Any]) -> dict[str, Any]:
    return node("SaveImage", images=image, filename_prefix="behaviour")


def split(photo: str = "photo.png") -> dict[str, Any]:
    """Every step as a node of its own, and the crops on their way through other nodes."""
    return {
        PHOTO: node("LoadImage", image=photo),
        DETECTOR: node("GFPLoadDetector", model="retinaface_mobile025"),
        LOADER: node("GFPLoadRestorer", model="lite"),
        DETECT: node("GFPDetectFaces", image=[PHOTO, 0], detector=[DETECTOR, 0]),
        RESTORE: node("GFPRestoreFaces", faces=[DETECT, 0], restorer=[LOADER, 0]),
        COLOR: node("GFPColorEnhance", faces=[RESTORE, 0], mode="auto", strength=1.0),
        PASTE: node("GFPPasteBack", image=[PHOTO, 0], faces=[COLOR, 0], strength=1.0),
        SAVE: save([PASTE, 0]),
    }


def simple(photo: str = "photo.png", **inputs: Any) -> dict[str, Any]:
    """All steps in one node."""
    inputs = {"image": [PHOTO, 0], "model": "lite", "strength": 1.0, **inputs}
    return {
        PHOTO: node("LoadImage", image=photo),
        SIMPLE: node("GFPRestorePhoto", **inputs),
        SAVE: save([SIMPLE, 0]),
    }


def through_crops() -> dict[str, Any]:
    """Restored crops leave for another node, which doubles them, and come back to be pasted."""
    return {
        **split(),
        "out": node("GFPCropsFromFaces", faces=[COLOR, 0]),
        "double": node(
            "ImageScaleBy", image=["out", 1], upscale_method="nearest-exact", scale_by=2.0
        ),
        "back": node("GFPFacesFromCrops", crops=["double", 0], faces=[COLOR, 0], use_as="restored"),
        PASTE: node("GFPPasteBack", image=[PHOTO, 0], faces=["back", 0], strength=1.0),
    }


def cached(entry: dict[str, Any]) -> set[str]:
    """The nodes that were answered from the cache."""
    return set(dict(entry["status"]["messages"])["execution_cached"]["nodes"])


def failure(comfyui: Any, prompt: dict[str, Any]) -> dict[str, Any]:
    """What ComfyUI says of the node at which a prompt fails."""
    with pytest.raises(comfyui.FailedError) as failed:
        comfyui.queue(prompt)
    return dict(failed.value.entry["status"]["messages"])["execution_error"]


def loads(log: str) -> list[str]:
    """The networks that ComfyUI was asked to bring to their device."""
    return re.findall(r"Requested to load (\S+)", log)


# --- What is refused ------------------------------------------------------------------------------

BAD = [
    (simple, SIMPLE, "strength", 1.5),
    (simple, SIMPLE, "strength", -0.1),
    (simple, SIMPLE, "upscale", 0),
    (simple, SIMPLE, "upscale", 17),
    (simple, SIMPLE, "fidelity", 2),
    (simple, SIMPLE, "score", "high"),
    (simple, SIMPLE, "min_size", -1),
    (simple, SIMPLE, "feather", 0.9),
    (simple, SIMPLE, "batch", 65),
    (simple, SIMPLE, "seed", -1),
    (simple, SIMPLE, "model", "nothing.pth"),
    (simple, SIMPLE, "detector_model", "nothing"),
    (simple, SIMPLE, "mask", "circle"),
    (simple, SIMPLE, "color", "pink"),
    (simple, SIMPLE, "order", "age"),
    (simple, SIMPLE, "rotations", "45"),
    (simple, SIMPLE, "which", "the one on the left"),
    (simple, SIMPLE, "which", "filter"),
    (split, LOADER, "model", "../lite.pth"),
    (split, LOADER, "engine", "tensorrt"),
    (split, LOADER, "provider", "gpu"),
    (split, LOADER, "precision", "fp8"),
    (split, LOADER, "device", "tpu"),
    (split, DETECTOR, "model", "nothing"),
    (split, DETECTOR, "device", "tpu"),
    (split, DETECT, "which", "1-3"),
    (split, DETECT, "order", "age"),
    (split, DETECT, "rotations", "none"),
    (split, DETECT, "crop_size", 32),
    (split, RESTORE, "fidelity", -0.5),
    (split, COLOR, "mode", "pink"),
    (split, COLOR, "grey", "maybe"),
    (split, COLOR, "smoothing", 1.2),
    (split, PASTE, "mask", "circle"),
    (split, PASTE, "feather", -0.1),
    (through_crops, "back", "use_as", "anything"),
]


@pytest.mark.parametrize(
    ("graph", "id", "name", "value"),
    BAD,
    ids=[f"{id}-{name}-{value}" for _, id, name, value in BAD],
)
def test_bad_values_are_refused_by_validation(
    graph: Any, id: str, name: str, value: Any, comfyui: Any, photos: Path
) -> None:
    prompt = graph()
    prompt[id]["inputs"][name] = value
    with pytest.raises(comfyui.RefusedError) as refused:
        comfyui.submit(prompt)
    assert set(refused.value.answer["node_errors"]) == {id}
    (error,) = refused.value.answer["node_errors"][id]["errors"]
    assert error["extra_info"]["input_name"] == name
    assert error["details"].startswith(name)


def test_null_in_headless_json_is_the_default(comfyui: Any, photos: Path) -> None:
    """What a template's empty field becomes: no error, and a restored face."""
    usual = comfyui.queue(simple())
    info = comfyui.object_info()["GFPRestorePhoto"]["input"]
    nulls = dict.fromkeys([*info["required"], *info["optional"]])
    outputs = comfyui.queue(simple(**{**nulls, "image": [PHOTO, 0]}))
    assert np.array_equal(comfyui.saved(outputs[SAVE]), comfyui.saved(usual[SAVE]))


def inputs_of(comfyui: Any, kind: str) -> dict[str, Any]:
    """A node's inputs and their schemas, as the server has them."""
    known = comfyui.get(f"/object_info/{kind}")[kind]["input"]
    return {**known.get("required", {}), **known.get("optional", {})}


def has_default(spec: list[Any]) -> bool:
    return isinstance(spec[0], list) or "default" in spec[1]


def test_null_in_every_node_is_the_default(comfyui: Any, photos: Path) -> None:
    """Nulls for all that is not connected, in each node that works without a download."""
    plain = through_crops()
    plain["masks"] = node("GFPFaceMasks", faces=["back", 0], shape="ellipse", feather=0.1)
    plain[PASTE]["inputs"] |= {"face_masks": ["masks", 0]}
    nulls = json.loads(json.dumps(plain))
    for entry in nulls.values():
        if entry["class_type"].startswith("GFP"):
            for name in inputs_of(comfyui, entry["class_type"]):
                if not isinstance(entry["inputs"].get(name), list):
                    entry["inputs"][name] = None
    with_nulls, usual = (comfyui.queue(prompt)[SAVE] for prompt in (nulls, plain))
    assert np.array_equal(comfyui.saved(with_nulls), comfyui.saved(usual))


def test_nulls_alone_are_one_error_for_each_socket_that_is_needed(comfyui: Any) -> None:
    ours = [kind for kind in comfyui.object_info() if kind.startswith("GFP")]
    for kind in ours:
        needed = comfyui.get(f"/object_info/{kind}")[kind]["input"].get("required", {})
        sockets = {name for name, spec in needed.items() if not has_default(spec)}
        if not sockets:
            continue
        prompt = {"1": node(kind, **dict.fromkeys(inputs_of(comfyui, kind)))}
        prompt["2"] = node("PreviewAny", source=["1", 0])
        with pytest.raises(comfyui.RefusedError) as refused:
            comfyui.submit(prompt)
        errors = refused.value.answer["node_errors"]["1"]["errors"]
        names = [error["extra_info"]["input_name"] for error in errors]
        assert sorted(names) == sorted(sockets), kind
        assert {error["type"] for error in errors} == {"required_input_missing"}, kind


def test_a_saved_workflow_may_name_a_model_as_it_was_called(comfyui: Any, photos: Path) -> None:
    usual, old = comfyui.queue(simple()), comfyui.queue(simple(model="lite-1"))
    assert np.array_equal(comfyui.saved(old[SAVE]), comfyui.saved(usual[SAVE]))
    assert "lite-1" not in str(comfyui.object_info()["GFPRestorePhoto"]["input"])


def test_unpainted_mask_of_load_image_is_no_mask(comfyui: Any, photos: Path) -> None:
    usual = comfyui.queue(simple())
    prompt = simple(options=["options", 0])
    masks = {"region": [PHOTO, 1], "frame_mask": [PHOTO, 1]}
    prompt["options"] = node("GFPRestoreOptions", **masks)
    masked = comfyui.queue(prompt)
    assert np.array_equal(comfyui.saved(masked[SAVE]), comfyui.saved(usual[SAVE]))


OTHER_PACKS = Path(__file__).with_name("other_packs")
"""Prompts of other packs, written by their schemas; photo.png is the picture."""


@pytest.mark.parametrize("name", ["facerestore_cf", "reactor", "reactor_advanced"])
def test_prompts_of_other_packs_run(name: str, comfyui: Any, photos: Path) -> None:
    """With a model that is here: the pixels are those of our node, and the log says what it did."""
    prompt = json.loads((OTHER_PACKS / f"{name}.json").read_text(encoding="utf-8"))
    usual = comfyui.queue(simple())
    before = len(comfyui.log())
    for entry in prompt.values():
        for key in ("model", "model_name"):
            if key in entry["inputs"]:
                entry["inputs"][key] = "lite"
    outputs = comfyui.queue(prompt)
    assert np.array_equal(comfyui.saved(outputs["9"]), comfyui.saved(usual[SAVE]))
    assert "is not installed: GFP" in comfyui.log()[before:]
    assert "retinaface_mobile025 in its place" in comfyui.log()[before:]


@pytest.mark.parametrize("name", ["facerestore_cf", "reactor", "reactor_advanced"])
def test_models_of_other_packs_are_asked_for_by_their_files(
    name: str, comfyui: Any, photos: Path
) -> None:
    """As they were saved: the model is the catalogue's, and the first words say what to do."""
    prompt = json.loads((OTHER_PACKS / f"{name}.json").read_text(encoding="utf-8"))
    message = failure(comfyui, prompt)["exception_message"]
    file = {"facerestore_cf": "codeformer.pth", "reactor": "GFPGANv1.4.pth"}
    assert message.startswith(f"Put {file.get(name, 'RestoreFormer++.ckpt')} into {comfyui.base}")
    assert "gfp weights" not in message


# --- Cancelling -----------------------------------------------------------------------------------


def test_cancel_stops_within_one_face(comfyui: Any, photos: Path) -> None:
    """While the third of many faces is worked on; the next prompt runs as if nothing had been."""
    prompt = split("second.png")
    prompt["many"] = node("RepeatImageBatch", image=[PHOTO, 0], amount=16)
    prompt[DETECT]["inputs"]["image"] = prompt[PASTE]["inputs"]["image"] = ["many", 0]
    prompt[RESTORE]["inputs"]["batch"] = 1
    at_cancel, at_end = asyncio.run(cancel(comfyui, prompt, RESTORE, 2))
    assert at_cancel < 8
    assert at_end <= at_cancel + 1

    outputs = comfyui.queue(simple("second.png"))
    assert outputs[SAVE]["images"]


async def cancel(comfyui: Any, prompt: dict[str, Any], id: str, at: int) -> tuple[int, int]:
    """Cancels once a node's bar has come as far; how far it then was, and in the end."""
    import aiohttp

    done, at_cancel = 0, None
    async with (
        aiohttp.ClientSession(comfyui.url) as session,
        session.ws_connect("/ws?clientId=cancelling") as socket,
    ):
        await session.post("/prompt", json={"prompt": prompt, "client_id": "cancelling"})
        while True:
            message = await socket.receive(timeout=120)
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # a preview
            content = message.json()
            data = content["data"]
            if content["type"] == "progress" and data["node"] == id:
                done = data["value"]
                if done >= at and at_cancel is None:
                    await session.post("/interrupt")
                    at_cancel = done
            if content["type"] == "execution_interrupted":
                assert at_cancel is not None
                return at_cancel, done
            assert content["type"] not in ("execution_success", "execution_error"), content


# --- What is given is not changed -----------------------------------------------------------------


def test_images_and_crops_upstream_are_unchanged(comfyui: Any, photos: Path) -> None:
    """ComfyUI hands out a node's result again and again: saved before and after, it is the same."""
    from PIL import Image

    def saved_as(prefix: str) -> tuple[set[str], list[np.ndarray]]:
        looks = {"photo": [PHOTO, 0], "crops": [DETECT, 1], "restored": [RESTORE, 1]}
        prompt = {id: split()[id] for id in (PHOTO, DETECTOR, LOADER, DETECT, RESTORE)}
        for key, link in looks.items():
            prompt[key] = node("SaveImage", images=link, filename_prefix=prefix)
        entry = comfyui.wait(comfyui.submit(prompt))
        return cached(entry), [comfyui.saved(entry["outputs"][key]) for key in looks]

    _, before = saved_as("before")
    comfyui.queue({**through_crops(), **simple()})
    held, after = saved_as("after")
    assert held >= {PHOTO, DETECT, RESTORE}, "the very tensors that the other nodes were given"
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(before[0][0], np.asarray(Image.open(photos / "photo.png")))


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GFPLoadRestorer", "GFPRestorePhoto"])
def test_broken_model_file_is_named_and_the_server_goes_on(
    kind: str, comfyui: Any, photos: Path
) -> None:
    folder = comfyui.base / "models" / "facerestore_models"
    folder.mkdir(exist_ok=True)
    (folder / "broken.pth").write_bytes(b"this is no checkpoint")
    try:
        prompt = split()
        prompt[LOADER]["inputs"]["model"] = "broken.pth"
        if kind == "GFPRestorePhoto":
            prompt = simple(model="broken.pth")
        error = failure(comfyui, prompt)
    finally:
        (folder / "broken.pth").unlink()
    assert error["node_type"] == kind
    assert "broken.pth" in error["exception_message"]
    assert comfyui.queue(simple())[SAVE]["images"]


def test_replaced_model_file_is_read_again(comfyui: Any, photos: Path) -> None:
    """A file that was broken and is whole now, under the same name."""
    folder = comfyui.base / "models" / "facerestore_models"
    folder.mkdir(exist_ok=True)
    file, bundled = folder / "mine.safetensors", LITE.read_bytes()
    prompt = simple(model=file.name)
    try:
        file.write_bytes(bundled[: len(bundled) // 2])
        assert file.name in failure(comfyui, prompt)["exception_message"]
        file.write_bytes(bundled)
        mine = comfyui.queue(prompt)
    finally:
        file.unlink()
    usual = comfyui.queue(simple())
    assert np.array_equal(comfyui.saved(mine[SAVE]), comfyui.saved(usual[SAVE]))


# --- The cache and the memory ---------------------------------------------------------------------


@pytest.mark.parametrize("graph", [simple, split])
def test_same_prompt_again_comes_from_the_cache(graph: Any, comfyui: Any, photos: Path) -> None:
    first = comfyui.wait(comfyui.submit(graph()))
    again = comfyui.wait(comfyui.submit(graph()))
    assert cached(again) >= set(graph())
    assert again["outputs"][SAVE] == first["outputs"][SAVE]


def test_same_input_gives_the_same_pixels(comfyui: Any, photos: Path) -> None:
    """Without the cache: another node's prompt has emptied it in between."""

    def run() -> np.ndarray:
        comfyui.queue({"1": node("LoadImage", image="landscape.png"), "2": save(["1", 0])})
        entry = comfyui.wait(comfyui.submit(split()))
        assert not cached(entry) & {RESTORE, PASTE}
        return comfyui.saved(entry["outputs"][SAVE])

    assert np.array_equal(run(), run())


@pytest.mark.parametrize("graph", [simple, split])
def test_second_image_does_not_load_the_networks_again(
    graph: Any, comfyui: Any, photos: Path
) -> None:
    comfyui.queue(graph())
    before = len(comfyui.log())
    entry = comfyui.wait(comfyui.submit(graph("second.png")))
    assert not loads(comfyui.log()[before:])
    if graph is split:
        assert {DETECTOR, LOADER} <= cached(entry)


def test_networks_leave_the_memory_when_asked_and_come_back(comfyui: Any, photos: Path) -> None:
    comfyui.queue(split())
    before = len(comfyui.log())
    comfyui.post("/free", {"unload_models": True})
    comfyui.queue(split("second.png"))  # may start before ComfyUI has done as told
    comfyui.queue(split())
    assert sorted(loads(comfyui.log()[before:])) == ["FastLite", "RetinaFace"]


# --- Odd images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [simple, split])
def test_image_without_a_face_keeps_its_pixels(graph: Any, comfyui: Any, photos: Path) -> None:
    from PIL import Image

    outputs = comfyui.queue(graph("landscape.png"))
    given = np.asarray(Image.open(photos / "landscape.png"))
    assert np.array_equal(comfyui.saved(outputs[SAVE])[0], given)


@pytest.mark.parametrize("graph", [simple, split])
def test_alpha_is_kept(graph: Any, comfyui: Any, photos: Path) -> None:
    """The alpha is old_photo.png's red channel, so that every pixel has another."""
    prompt = graph()
    prompt["mask"] = node("LoadImageMask", image="old_photo.png", channel="red")
    prompt["rgba"] = node("JoinImageWithAlpha", image=[PHOTO, 0], alpha=["mask", 0])
    for one in prompt.values():
        if one["class_type"].startswith("GFP") and one["inputs"].get("image") == [PHOTO, 0]:
            one["inputs"]["image"] = ["rgba", 0]
    prompt["given"] = save(["rgba", 0])
    outputs = comfyui.queue(prompt)
    given, restored = comfyui.saved(outputs["given"]), comfyui.saved(outputs[SAVE])
    assert restored.shape[-1] == 4
    assert np.array_equal(given[..., 3], restored[..., 3])
    assert not np.array_equal(given[..., :3], restored[..., :3])


# --- Crops through other nodes --------------------------------------------------------------------


def test_crops_come_back_from_another_node(comfyui: Any, photos: Path) -> None:
    """Doubled by a core node and pasted: as gfp_core does it with crops of that size."""
    from PIL import Image

    outputs = comfyui.queue(through_crops())
    pixels = np.asarray(Image.open(photos / "photo.png")).astype(np.float32) / 255
    frames = torch.from_numpy(pixels).movedim(-1, 0)[None]
    faces = FaceRestorer.load(device="cpu").restore(frames).faces
    assert faces.restored is not None
    larger = F.interpolate(faces.restored, scale_factor=2, mode="nearest-exact")
    wanted, _ = paste(frames, exchange_crops(faces, larger))
    levels = (wanted.movedim(1, -1) * 255).clamp(0, 255).to(torch.uint8).numpy()
    # One level for sums of floats, which depend on the number of threads.
    assert np.abs(comfyui.saved(outputs[SAVE]).astype(int) - levels).max() <= 1


def test_crops_of_no_face_pass_through(comfyui: Any, photos: Path) -> None:
    from PIL import Image

    prompt = through_crops()
    prompt[PHOTO]["inputs"]["image"] = "landscape.png"
    outputs = comfyui.queue(prompt)
    given = np.asarray(Image.open(photos / "landscape.png"))
    assert np.array_equal(comfyui.saved(outputs[SAVE])[0], given)


# --- Everything forbidden that can be, see docs/comfyui-cloud.md ----------------------------------

WRITTEN = ("temp/", "output/", "user/", "comfyui.", ".cache/gfp", "gfp/hashes", "__pycache__")
"""Where ComfyUI itself, previews and the hashes of weights are written."""


@pytest.fixture(scope="module")
def switched(comfyui: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A second server, with the switches and the same pictures."""
    server = type(comfyui)(comfyui.core, tmp_path_factory.mktemp("switched"), **comfyui.SWITCHES)
    try:
        shutil.copytree(photos, server.base / "input", dirs_exist_ok=True)
        server.start()
        yield server
    finally:
        server.stop()


def test_the_page_lists_every_switch(comfyui: Any) -> None:
    text = (REPOSITORY / "docs" / "comfyui-cloud.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(GFP_\w+)=1`", text)) == {
        *comfyui.SWITCHES,
        "GFP_COMMERCIAL_ONLY",
        "GFP_NO_DOWNLOAD",
    }


@pytest.mark.parametrize("graph", [simple, split, through_crops])
def test_all_nodes_work_as_without(graph: Any, switched: Any, comfyui: Any) -> None:
    before = {str(path.relative_to(switched.base)) for path in switched.base.rglob("*")}
    pixels = [server.saved(server.queue(graph())[SAVE]) for server in (switched, comfyui)]
    assert np.array_equal(*pixels)
    after = {str(path.relative_to(switched.base)) for path in switched.base.rglob("*")}
    foreign = [name for name in after - before if not any(part in name for part in WRITTEN)]
    assert not foreign


def test_what_is_not_here_is_not_fetched(switched: Any) -> None:
    message = failure(switched, simple(detector_model="yunet"))["exception_message"]
    assert message.startswith("Put face_detection_yunet_2023mar.onnx into")
    assert "downloads are forbidden" in message


# --- Learning a person ----------------------------------------------------------------------------


def learning(seed: int = 0, **inputs: Any) -> dict[str, Any]:
    """A person learned in three steps, and restored."""
    more = {"steps": 3, "save": True, "name": "somebody", "seed": seed, **inputs}
    prompt = simple("second.png", restorer=["learn", 0])
    prompt["good"] = node("LoadImage", image="good.png")
    prompt["learn"] = node("GFPLearnPerson", images=["good", 0], model="lite", **more)
    return prompt


@pytest.fixture(scope="module")
def good(comfyui: Any, photos: Path) -> Iterator[None]:
    """good.png, a photograph to learn from; the persons saved are removed in the end."""
    from PIL import Image
    from skimage.data import astronaut

    large = Image.fromarray(astronaut()[:300, 80:380]).resize((500, 500), Image.Resampling.BICUBIC)
    large.save(photos / "good.png")
    yield
    for file in (comfyui.base / "models").rglob("somebody.safetensors"):
        file.unlink()


@pytest.mark.usefixtures("good")
def test_a_person_is_learned_within_comfyui_saved_and_loaded(comfyui: Any) -> None:
    learned = comfyui.queue(learning())
    plain = comfyui.saved(comfyui.queue(simple("second.png"))[SAVE])
    assert not np.array_equal(comfyui.saved(learned[SAVE]), plain)
    name = "persons/somebody.safetensors"
    choices = comfyui.object_info()["GFPLoadRestorer"]["input"]["required"]["model"]
    assert name in str(choices)

    loader = simple("second.png", restorer=["loader", 0])
    loader["loader"] = node("GFPLoadRestorer", model=name)
    loaded = comfyui.queue(loader)
    assert np.array_equal(comfyui.saved(loaded[SAVE]), comfyui.saved(learned[SAVE]))

    loader["options"] = node("GFPRestoreOptions", person_strength=0.0)
    loader[SIMPLE]["inputs"]["options"] = ["options", 0]
    assert np.array_equal(comfyui.saved(comfyui.queue(loader)[SAVE]), plain)

    error = failure(comfyui, learning(seed=1, name="../x"))
    assert "is no name of a file" in error["exception_message"]


@pytest.mark.usefixtures("good")
def test_the_separate_nodes_take_a_learned_person(comfyui: Any) -> None:
    plain, own = split("second.png"), split("second.png")
    own |= {id: learning()[id] for id in ("good", "learn")}
    own[RESTORE]["inputs"]["restorer"] = ["learn", 0]
    own_pixels, plain_pixels, whole_pixels = (
        comfyui.saved(comfyui.queue(graph)[SAVE]) for graph in (own, plain, learning())
    )
    assert np.array_equal(own_pixels, whole_pixels)
    assert not np.array_equal(own_pixels, plain_pixels)


@pytest.mark.usefixtures("good")
def test_cancel_ends_learning_at_once_and_saves_nothing(comfyui: Any) -> None:
    prompt = learning(seed=2, steps=60, name="cancelled")
    at_cancel, at_end = asyncio.run(cancel(comfyui, prompt, "learn", 2))
    assert at_cancel < 30
    assert at_end <= at_cancel + 1
    assert not list(comfyui.base.rglob("cancelled*"))
    assert comfyui.queue(learning())[SAVE]["images"]
