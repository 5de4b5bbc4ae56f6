"""Looks at the nodes from within a ComfyUI: `test_nodes.py` runs this file in a process of its own.

ComfyUI's modules have names (nodes, utils, comfy) that must not get in the way of other tests.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.environ["GFP_COMFYUI"])
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.model_management  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402


def load_pack() -> Any:
    """The repository as ComfyUI imports it: by its path, as a package."""
    name = "gfp_pack"
    spec = importlib.util.spec_from_file_location(
        name, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.nodes")


NODES = load_pack()
INPUTS, SOCKETS = NODES.inputs, NODES.sockets
MODULES = {
    name: importlib.import_module(f"gfp_pack.nodes.comfy.{name}")
    for name in ("folders", "memory", "models", "node", "pictures")
}
FOLDERS, MODELS, NODE, PICTURES = (
    MODULES[name] for name in ("folders", "models", "node", "pictures")
)
OPTIONS = importlib.import_module("gfp_pack.gfp_core.options")
asyncio.run(NODES.GFPExtension().get_node_list())


@pytest.mark.parametrize("node", NODES.NODES, ids=lambda node: node.__name__)
def test_null_and_what_is_left_out_are_the_schemas_default(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = node.define_schema().inputs
    wanted = {each.id: getattr(each, "default", None) for each in inputs}
    monkeypatch.setattr(node, "run", classmethod(lambda cls, **values: values))
    assert node.execute() == wanted
    assert node.execute(**dict.fromkeys(wanted)) == wanted
    given = {name: name for name in wanted}
    assert node.execute(**given) == given


def test_null_in_a_prompt_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = NODE.prompt_handler(NODES.NODES)
    inputs = {"image": ["1", 0], "model": None, "which": None, "seed": None, "strength": 0.5}
    request = {"prompt": {"2": {"class_type": "GFPRestorePhoto", "inputs": inputs}}}
    assert handle(request)["prompt"]["2"]["inputs"] == {
        "image": ["1", 0],
        "model": "lite",
        "which": "all",
        "seed": 0,
        "strength": 0.5,
    }
    masks = {"faces": ["1", 0], "parts": None, "grow": None}
    node = {"class_type": "GFPFaceMasks", "inputs": masks}
    monkeypatch.setattr(NODE, "defaults", lambda node: {"parts": ["skin", "eyes"], "grow": 0.0})
    handle({"prompt": {"2": node}})
    assert masks == {"faces": ["1", 0], "grow": 0.0}, "ComfyUI would take the list for a link"
    for odd in ({}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": None, "2": {}, "3": 4}}):
        assert handle(odd) == odd
    others = {"prompt": {"1": {"class_type": "LoadImage", "inputs": {"image": None}}}}
    assert handle(others)["prompt"]["1"]["inputs"] == {"image": None}


def test_a_restorer_runs_on_another_engine_by_one_option(
    photo: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in PyTorch; what is not installed is one sentence, said where it is loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = importlib.import_module("gfp_pack.gfp_core.networks.lite").GFPGANLite
    net = network(out_size=64, num_style_feat=8, narrow=0.0625, channel_multiplier=1)
    file = tmp_path / "tiny.safetensors"
    save_file({name: part.clone() for name, part in net.state_dict().items()}, file)
    fetched = MODELS.fetched
    monkeypatch.setattr(
        MODELS, "fetched", lambda role, name: file if role == "restorer" else fetched(role, name)
    )
    load = NODES.GFPLoadRestorer.execute
    with torch.inference_mode():
        usual, other = load(model="lite"), load(model="lite", engine="onnxruntime", provider="cpu")
        pictures = [
            NODES.GFPRestorePhoto.execute(image=photo, model="lite", restorer=each.args[0]).args[0]
            for each in (usual, other)
        ]
    assert (other.args[0].runner.engine, other.args[0].runner.provider) == ("onnxruntime", "cpu")
    assert list(tmp_path.rglob("*.onnx")), "exported, and used without a fallback"
    assert not torch.equal(photo, pictures[1])
    assert (pictures[0] - pictures[1]).abs().max() < 0.01

    export = torch.onnx.export

    def cancelled(*given: Any, **more: Any) -> Any:
        comfy.model_management.interrupt_current_processing()
        return export(*given, **more)

    monkeypatch.setattr(torch.onnx, "export", functools.wraps(export)(cancelled))
    next(tmp_path.rglob("*.onnx")).unlink()
    with torch.inference_mode():
        again = load(model="lite", engine="onnxruntime", provider="cpu").args[0]
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            NODES.GFPRestorePhoto.execute(image=photo.clone(), model="lite", restorer=again)
    monkeypatch.setattr(MODELS, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(ValueError, match=r"^engine: onnxruntime needs onnx: install [^\n]*\.$"):
        load(model="lite", engine="onnxruntime")


def test_a_detector_runs_on_another_engine_by_one_option(
    photo: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values = {"model": "retinaface_mobile025", "engine": "onnxruntime", "provider": "cpu"}
    with torch.inference_mode():
        other = NODES.GFPLoadDetector.execute(**values).args[0]
        found = [
            NODES.GFPDetectFaces.execute(image=photo, detector=each).args[0].faces.faces
            for each in (NODES.GFPLoadDetector.execute(model=values["model"]).args[0], other)
        ]
    assert other.runner.engine == "onnxruntime"
    assert list(tmp_path.rglob("*.onnx")), "exported, and used without a fallback"
    assert len(found[0]) == len(found[1]) == 1
    assert np.abs(found[0][0].landmarks - found[1][0].landmarks).max() < 0.1
    monkeypatch.setattr(MODELS, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^engine: onnxruntime needs onnxruntime and onnx"):
        NODES.GFPLoadDetector.execute(**values)


def test_file_names_of_other_packs_are_the_catalogues_weights() -> None:
    inputs = {"model": "GFPGANv1.4.pth", "detector_model": "nothing.pth"}
    request = {"prompt": {"2": {"class_type": "GFPRestorePhoto", "inputs": inputs}}}
    NODE.prompt_handler(NODES.NODES)(request)
    assert inputs == {"model": "gfpgan-1.4", "detector_model": "nothing.pth"}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("GFPGANv1.4.pth", "gfpgan-1.4"),
        ("codeformer-v0.1.0.pth", "codeformer"),
        ("codeformer.pth", "codeformer"),
        ("GPEN-BFR-512.onnx", "gpen-512"),
        ("GPEN-BFR-1024.onnx", "gpen-1024"),
        ("GFPGANv1.3.pth", "gfpgan-1.3"),
        ("RestoreFormer_PP.pth", "restoreformer-plus-plus"),
        ("RestoreFormer.pth", "restoreformer"),
        ("gfpgan-1.4", "gfpgan-1.4"),
        ("lite-1", "lite"),
        ("none", "none"),
        (None, None),
        (["4", 0], ["4", 0]),
    ],
)
def test_names_of_other_packs_are_translated(file: Any, name: Any, tmp_path: Path) -> None:
    assert FOLDERS.translate("restorer", file) == name


@pytest.mark.parametrize("is_here", [False, True])
def test_every_name_that_is_not_offered_means_one_that_is(is_here: bool, tmp_path: Path) -> None:
    """Also where the other pack's file is in the folder, as it is for who has used that pack."""
    if is_here:
        (tmp_path / "GFPGANv1.4.pth").touch()
    folder_paths.add_model_folder_path("facerestore_models", str(tmp_path))
    try:
        names = FOLDERS.names_elsewhere("restorer")
        assert FOLDERS.translate("restorer", "GFPGANv1.4.pth") == "gfpgan-1.4"
        offers = FOLDERS.choices("restorer")
    finally:
        folder_paths.folder_names_and_paths["facerestore_models"][0].remove(str(tmp_path))
    assert "GFPGANv1.4.pth" not in offers
    assert names["gfpganv1.4.pth"] == "gfpgan-1.4"
    assert names["codeformer-v0.1.0.pth"] == "codeformer"
    assert set(names.values()) <= set(offers)
    assert not set(names) & set(offers)
    assert FOLDERS.names_elsewhere("detector")["yolov5l"] == "retinaface_mobile025"


def test_onnx_files_of_other_packs_are_not_offered(tmp_path: Path) -> None:
    (tmp_path / "GPEN-BFR-512.onnx").touch()
    folder_paths.add_model_folder_path("facerestore_models", str(tmp_path))
    assert "GPEN-BFR-512.onnx" not in FOLDERS.choices("restorer")
    assert FOLDERS.find("restorer", "GPEN-BFR-512.onnx").entry.name == "gpen-512"


REPLACEMENTS = importlib.import_module("gfp_pack.nodes.replacements")


@pytest.mark.parametrize("known", REPLACEMENTS.REPLACEMENTS, ids=lambda known: known.old)
def test_nodes_of_other_packs_fit_ours(known: Any) -> None:
    """The table that the page replaces by names inputs of ours, and all that are required."""
    (node,) = (node for node in NODES.NODES if node.__name__ == known.new)
    ours = {each.id: each for each in node.define_schema().inputs}
    filled = {new for new, _ in (*known.inputs, *known.page, *known.values)}
    assert {id for id, each in ours.items() if not each.optional} <= filled <= set(ours)
    assert {name for name, _ in known.defaults} <= set(known.widgets)
    assert {known.model, known.detector} - {""} <= set(known.widgets)
    assert {old for _, old in known.page} <= set(known.widgets)


@pytest.mark.parametrize(
    ("kind", "inputs", "wanted"),
    [
        (
            "ReActorRestoreFace",
            {"model": "GFPGANv1.4.pth"},
            {"model": "gfpgan-1.4", "strength": 1.0, "fidelity": 0.5},
        ),
        (
            "ReActorRestoreFace",
            {"model": "GPEN-BFR-512.onnx", "visibility": 0.8, "facedetection": "YOLOv5l"},
            {"model": "gpen-512", "strength": 0.8, "detector_model": "retinaface_mobile025"},
        ),
        ("ReActorRestoreFace", {"model": "none"}, {"model": "lite", "which": "none"}),
        ("ReActorRestoreFace", {"model": ["9", 0]}, {"model": ["9", 0]}),
        ("FaceRestoreModelLoader", {"model_name": "codeformer.pth"}, {"model": "codeformer"}),
        (
            "FaceRestoreCFWithModel",
            {"facerestore_model": ["2", 0], "facedetection": "retinaface_resnet50"},
            {
                "restorer": ["2", 0],
                "model": "lite",
                "strength": 1.0,
                "fidelity": 0.5,
                "detector_model": "retinaface_mobile025",
            },
        ),
        *(
            ("ReActorRestoreFaceAdvanced", theirs, ours)
            for theirs, ours in (
                ({"face_selection": "all", "sort_by": "x_position"}, {"which": "all"}),
                ({"face_selection": "filter"}, {"which": "0", "order": "smallest"}),
                (
                    {"face_selection": "filter", "reverse_order": True, "take_count": 3},
                    {"which": "0, 1, 2", "order": "largest"},
                ),
                (
                    {"face_selection": "filter", "sort_by": "x_position", "take_start": 1},
                    {"which": "1", "order": "left to right"},
                ),
                (
                    {"face_selection": "largest", "take_start": 1, "take_count": 2},
                    {"which": "1, 2", "order": "largest"},
                ),
                # Ours cannot say these: ComfyUI refuses them by the name of the input.
                (
                    {
                        "face_selection": "filter",
                        "sort_by": "x_position",
                        "reverse_order": True,
                    },
                    {"which": "filter"},
                ),
                (
                    {"face_selection": "filter", "sort_by": "detection_confidence"},
                    {"which": "filter"},
                ),
                ({"face_selection": "filter", "take_start": ["7", 0]}, {"which": "filter"}),
                ({"face_selection": ["7", 0]}, {"which": ["7", 0]}),
            )
        ),
    ],
)
def test_inputs_of_other_packs_become_ours(
    kind: str, inputs: dict[str, Any], wanted: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    prompt = {"1": {"class_type": kind, "inputs": {"image": ["0", 0], **inputs}}}
    with caplog.at_level("INFO"):
        REPLACEMENTS.prepare_prompt({"prompt": prompt})
    entry = prompt["1"]
    assert entry["class_type"].startswith("GFP")
    assert wanted.items() <= entry["inputs"].items()
    assert f"{kind} is not installed" in caplog.text
    if "detector_model" in wanted:
        assert "retinaface_mobile025 in its place" in caplog.text


def test_installed_nodes_of_other_packs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    import nodes

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "ReActorRestoreFace", object)
    prompt = {"1": {"class_type": "ReActorRestoreFace", "inputs": {"model": "GFPGANv1.4.pth"}}}
    REPLACEMENTS.prepare_prompt({"prompt": prompt})
    assert prompt["1"]["class_type"] == "ReActorRestoreFace"
    assert prompt["1"]["inputs"] == {"model": "GFPGANv1.4.pth"}


@pytest.mark.parametrize("load", ["restorer", "face_detector", "face_parser", "face_embedder"])
@pytest.mark.parametrize("form", ["absolute", "upwards", "upload"])
def test_a_linked_name_reaches_no_file_elsewhere(load: str, form: str, tmp_path: Path) -> None:
    """Whether there is a file or not, the message is the same."""
    function = getattr(MODELS, f"load_{load}")
    more = ("auto", "auto") if load == "restorer" else ("auto",)
    there, not_there = tmp_path / "there.safetensors", tmp_path / "none.safetensors"
    there.write_bytes((REPOSITORY / "gfp_core/weights/lite.safetensors").read_bytes())

    def written(path: Path) -> str:
        if form == "absolute":
            return str(path)
        up = os.path.relpath(path, folder_paths.models_dir + "/facerestore_models")
        return up if form == "upwards" else f"../../input/{path.name}"

    messages = []
    for path in (there, not_there):
        with pytest.raises(ValueError, match="there is no") as raised:
            function(written(path), *more)
        messages.append(str(raised.value).replace(path.name, "NAME"))
    assert messages[0] == messages[1]


def test_wrong_settings_take_no_node_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.toml"
    file.write_text("[settings\nfolders = 3", encoding="utf-8")
    monkeypatch.setenv("GFP_CATALOGUE", str(file))
    for node in NODES.NODES:
        node.define_schema()
    assert "lite" in FOLDERS.choices("restorer")
    MODELS.load_restorer("lite", "auto", "auto")
    with pytest.raises(ValueError, match=r"weights\.toml"):
        MODELS.load_restorer("gfpgan-1.4", "auto", "auto")


# --- Options, declared once -----------------------------------------------------------------------


def ids_of(name: str) -> set[str]:
    return {each.id for each in getattr(NODES, name).define_schema().inputs}


def test_every_option_is_in_a_node_unless_its_declaration_says_why_not() -> None:
    offered = ids_of("GFPRestorePhoto") | ids_of("GFPRestoreOptions")
    for each in OPTIONS.options_of(OPTIONS.RestoreOptions):
        ids = set(INPUTS.PARTS) if each.name == "parts" else {each.node_id}
        if "node" in each.absent:
            assert len(each.absent["node"]) > 10, each.name
        else:
            assert ids <= offered, f"{each.name} is in no node"
    assert not INPUTS.remaining(), "name these in a list, at its end: a later one would move them"


def test_a_new_option_is_offered_at_the_end_of_the_options_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Sparkle(OPTIONS.Options):  # type: ignore[misc, name-defined]
        glitter: float = OPTIONS.option(0.25, "Share of glitter.", 0, 2, step=0.5)

    @dataclass(frozen=True)
    class MoreOptions(OPTIONS.RestoreOptions):  # type: ignore[misc, name-defined]
        sparkle: Sparkle = field(default_factory=Sparkle)

    MoreOptions.__annotations__["sparkle"] = Sparkle
    monkeypatch.setattr(INPUTS, "RestoreOptions", MoreOptions)
    last = NODES.GFPRestoreOptions.define_schema().inputs[-1]
    assert (last.id, last.default, last.min, last.max, last.step) == ("glitter", 0.25, 0, 2, 0.5)
    assert last.tooltip == "Share of glitter."
    carried = NODES.GFPRestoreOptions.execute(glitter=1.5).args[0].options
    assert carried.get("glitter") == 1.5


@pytest.mark.parametrize("name", ["GFPRestorePhoto", "GFPRestoreOptions", "GFPDetectFaces"])
def test_widgets_at_their_defaults_are_the_default_options(name: str) -> None:
    node = getattr(NODES, name)
    values = NODE.defaults(node)
    assert INPUTS.to_options(values) == OPTIONS.RestoreOptions()
    assert INPUTS.to_options({}) == OPTIONS.RestoreOptions()


def test_what_is_set_comes_before_a_preset() -> None:
    def options(**values: Any) -> Any:
        return NODES.GFPRestoreOptions.execute(**values).args[0].options

    preset = OPTIONS.RestoreOptions.preset("natural")
    assert options(preset="natural") == preset
    assert options(preset="natural", grain=0.9) == preset.replace(grain=0.9)
    photo = INPUTS.to_options({"strength": 0.25, "feather": 0.1}, options(preset="portrait"))
    assert photo == OPTIONS.RestoreOptions.preset("portrait").replace(strength=0.25)
    assert options() == OPTIONS.RestoreOptions()


# --- Masks as ComfyUI has them --------------------------------------------------------------------


def test_load_images_mask_of_an_unpainted_picture_is_no_mask() -> None:
    assert PICTURES.from_mask(torch.zeros(1, 64, 64), (100, 200)) is None
    painted = torch.zeros(1, 64, 64)
    painted[0, :32] = 1
    resized = PICTURES.from_mask(painted, (100, 200), (400, 800))
    assert resized.shape == (1, 100, 200)
    assert resized[0, :45].min() == 1
    assert resized[0, 55:].max() == 0
    fitting = torch.ones(2, 400, 800)
    assert PICTURES.from_mask(fitting, (100, 200), (400, 800)) is fitting
    assert PICTURES.from_mask(fitting[0], (400, 800)).shape == (1, 400, 800)
    assert PICTURES.from_mask(None, (100, 200)) is None


UNPAINTED = torch.zeros(1, 64, 64)
MASKS = {
    "unpainted": (UNPAINTED, UNPAINTED),
    "unpainted, without a batch": (UNPAINTED[0], UNPAINTED),
    "another size": (torch.ones(1, 30, 50), torch.ones(1, 30, 50)),
    "one for all": (torch.ones(1, 256, 256), torch.ones(1, 128, 128)),
    "one, without a batch": (torch.ones(256, 256), torch.ones(512, 512)),
    "integers": (torch.ones(2, 256, 256, dtype=torch.uint8), torch.ones(2, 512, 512)),
    "half precision": (torch.ones(2, 256, 256).half(), torch.ones(2, 512, 512).half()),
}
"""Forms of a mask that allows all, of two frames of 256 x 256, and of two faces."""


@pytest.mark.parametrize("form", MASKS)
def test_every_mask_that_allows_all_changes_nothing(form: str, photo: torch.Tensor) -> None:
    """In each input for masks, whatever its form; a face's mask of ones is its whole crop."""
    of_frames, of_faces = MASKS[form]
    image = torch.cat([photo, photo])

    def photo_with(**masks: torch.Tensor) -> torch.Tensor:
        options = NODES.GFPRestoreOptions.execute(**masks).args[0]
        return NODES.GFPRestorePhoto.execute(image=image, model="lite", options=options).args[0]

    with torch.inference_mode():
        usual = photo_with()
        for name in ("region", "frame_mask"):
            assert torch.equal(photo_with(**{name: of_frames}), usual), name
        faces, *_ = detect(image)
        assert len(faces.faces) == 2
        assert detect(image, region=of_frames)[4] == 2
        restorer = MODELS.last_used("restorer", "lite")
        faces = NODES.GFPRestoreFaces.execute(faces=faces, restorer=restorer).args[0]

        def pasted(**masks: torch.Tensor) -> torch.Tensor:
            paste = NODES.GFPPasteBack.execute
            return paste(image=image, faces=faces, strength=1.0, **masks).args[0]

        assert torch.equal(pasted(frame_mask=of_frames), pasted())
        if form.startswith("unpainted"):
            assert torch.equal(pasted(face_masks=of_faces), pasted())
        else:
            whole = torch.ones(2, 512, 512)
            assert torch.equal(pasted(face_masks=of_faces), pasted(face_masks=whole))


def test_pictures_of_another_form_are_told_in_one_sentence(photo: torch.Tensor) -> None:
    for image in (photo[0], photo[None], photo[..., :1], (255 * photo).byte()):
        with pytest.raises(ValueError, match=r"^An image must be .*, not \(.*\), \w+\.$"):
            NODES.GFPRestorePhoto.execute(image=image, model="lite")
    for mask in (torch.ones(1, 256, 256, 1), torch.ones(256)):
        options = NODES.GFPRestoreOptions.execute(frame_mask=mask).args[0]
        with pytest.raises(ValueError, match=r"^A mask must be \(batch, height, width\), not "):
            NODES.GFPRestorePhoto.execute(image=photo, model="lite", options=options)


def test_no_node_changes_what_it_is_given() -> None:
    """Images, crops and faces, through every node, by their bytes."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()[:256, 96:352].copy()).float()[None] / 255
    photo[0, 0, 0] = torch.tensor([1.5, -0.25, 0.0])  # values outside survive
    background = torch.nn.functional.interpolate(photo.movedim(-1, 1), scale_factor=2)
    background = background.movedim(1, -1).contiguous()
    held: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(value: Any) -> Any:
        tensors = [value]
        if isinstance(value, SOCKETS.FacesOfImage):
            tensors = [value.frames, value.faces.crops, value.faces.restored]
        held.extend((one, one.clone()) for one in tensors if isinstance(one, torch.Tensor))
        return value

    def run(name: str, **inputs: Any) -> tuple[Any, ...]:
        with torch.inference_mode():
            result = getattr(NODES, name).execute(**inputs)
        assert result.expand is None
        return tuple(watched(value) for value in result.args)

    watched(photo), watched(background)
    (restorer,) = run("GFPLoadRestorer", model="lite")
    (detector,) = run("GFPLoadDetector", model="retinaface_mobile025")
    faces, crops, _, _, count, _ = run("GFPDetectFaces", image=photo, detector=detector)
    assert count == 1
    restored, after = run("GFPRestoreFaces", faces=faces, restorer=restorer)
    assert faces.faces.restored is None
    for mode in ("match", "enhance", "low_frequency"):
        colored, _ = run("GFPColorEnhance", faces=restored, image=photo, mode=mode, strength=0.5)
    run("GFPCropsFromFaces", faces=colored)
    for use_as in ("restored", "input"):
        run("GFPFacesFromCrops", crops=after, faces=restored, use_as=use_as)
    run("GFPFacesFromCrops", crops=crops, use_as="restored")
    for upscaled in (None, background):
        pasted, _ = run("GFPPasteBack", image=photo, faces=colored, strength=1.0, upscaled=upscaled)
        run(
            "GFPRestorePhoto",
            image=photo,
            model="lite",
            strength=1.0,
            upscaled=upscaled,
            restorer=restorer,
            detector=detector,
        )
    assert not torch.equal(pasted[:, ::2, ::2], photo)
    assert len(held) > 30
    for now, before in held:
        assert torch.equal(now, before)


def test_networks_are_in_comfyuis_memory_management() -> None:
    restorer = MODELS.load_restorer("lite", "auto", "auto")
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    patchers = [restorer.patcher, detector.patcher]
    restorer.ready(), detector.ready()
    loaded = comfy.model_management.loaded_models()
    assert all(any(patcher is one for one in loaded) for patcher in patchers)
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.loaded_models()
    restorer.ready()
    assert any(restorer.patcher is one for one in comfy.model_management.loaded_models())


def test_networks_that_work_together_are_on_their_device_together(
    photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --disable-smart-memory, where what ComfyUI is not asked for is moved away."""
    on_device: list[Any] = []
    at_work = []

    def load(patchers: Any, **_: Any) -> None:
        on_device[:] = patchers

    restorer = MODELS.load_restorer("lite", "auto", "auto")
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    for managed, name in ((detector, "detect"), (restorer, "restore")):
        step = getattr(managed.runner, name)

        def taken(*given: Any, managed: Any = managed, step: Any = step, **more: Any) -> Any:
            at_work.append(any(managed.patcher is one for one in on_device))
            return step(*given, **more)

        monkeypatch.setattr(managed.runner, name, taken)
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    with torch.inference_mode():
        NODES.GFPRestorePhoto.execute(
            image=photo.clone(), model="lite", restorer=restorer, detector=detector
        )
    assert at_work == [True, True]


def test_previews_of_each_run_have_names_of_their_own() -> None:
    """Also where another node seeds Python's random numbers, which are not drawn from."""
    names = []
    for _ in range(2):
        random.seed(3)
        state = random.getstate()
        names += [each["filename"] for each in PICTURES.save_previews(torch.zeros(2, 3, 8, 8))]
        assert random.getstate() == state
    assert len(set(names)) == 4


def test_a_clip_of_another_ending_is_read_where_links_are_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    video = importlib.import_module("gfp_pack.nodes.restore_video")
    clip = tmp_path / "clip.wmv"
    clip.write_bytes(b"frames")
    with video.source_file(video.InputImpl.VideoFromFile(str(clip))) as (path, *_):
        assert path.read_bytes() == b"frames"
    assert not path.exists()
    assert clip.exists()


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The marks under which persons were learned, which takes no time here."""
    learn = importlib.import_module("gfp_pack.nodes.learn_person")
    marks: list[str] = []

    def lesson(_: Any, __: Any, mark: str, *___: Any, **____: Any) -> Any:
        marks.append(mark)
        return SimpleNamespace(
            base="lite", about={"photographs": "1", "steps": "3", "gain": "0.1"}, save=None
        )

    monkeypatch.delenv("GFP_STATELESS", raising=False)
    monkeypatch.setattr(learn, "_learn", lesson)
    monkeypatch.setattr(learn.models, "manage_person", lambda *_: None)
    learn.LEARNED.clear()
    return marks


def test_a_person_is_learned_again_with_another_detector(lessons: list[str]) -> None:
    def run(**values: Any) -> int:
        NODES.GFPLearnPerson.execute(images=torch.zeros(1, 8, 8, 3), model="lite", **values)
        return len(lessons)

    assert [run(), run()] == [1, 1]
    other = MODELS.Managed("retinaface_resnet50", None, None)
    assert [run(detector=other), run(detector=other), run()] == [2, 2, 2]


def test_no_person_is_kept_where_that_is_forbidden(
    lessons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GFP_STATELESS", "1")
    values = {"images": torch.zeros(1, 8, 8, 3), "model": "lite"}
    NODES.GFPLearnPerson.execute(**values)
    assert len(lessons) == 1
    assert not importlib.import_module("gfp_pack.nodes.learn_person").LEARNED
    with pytest.raises(ValueError, match="GFP_STATELESS"):
        NODES.GFPLearnPerson.execute(**values, save=True)


def test_a_comparison_runs_again_when_a_file_it_names_was_replaced(tmp_path: Path) -> None:
    own = Path(FOLDERS.paths("restorer")[0]) / "compared.pth"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(b"1")
    try:
        ask = NODES.GFPCompareRestorers.fingerprint_inputs
        before = ask(models="lite, compared.pth", fidelity=0.5)
        assert ask(models="lite,compared.pth") == before
        own.write_bytes(b"22")
        assert ask(models="lite, compared.pth") != before
        assert ask(models=None) == ask(), "another node names them"
    finally:
        own.unlink()


def test_a_wrong_name_among_compared_ones_is_said_before_the_work(
    photo: torch.Tensor, counted: list[str]
) -> None:
    with pytest.raises(ValueError, match="no model called"), torch.inference_mode():
        NODES.GFPCompareRestorers.execute(image=photo, models="lite, light")
    assert counted == []


@pytest.mark.parametrize(
    "load",
    [
        lambda: MODELS.load_restorer("gfpgan-1.4", "auto", "auto"),
        lambda: MODELS.load_face_detector("retinaface_resnet50", "auto"),
        lambda: MODELS.load_face_parser("bisenet", "auto"),
        lambda: MODELS.load_face_embedder("face-descriptor", "auto"),
    ],
)
def test_downloads_move_the_nodes_bar_and_can_be_cancelled(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def download(self: Any, name: str, *, progress: Any = None) -> Path:
        progress(3, 10)
        comfy.model_management.interrupt_current_processing()
        progress(4, 10)
        raise AssertionError("it went on after the user's cancel")

    def hook(value: int, total: int, preview: Any, **_: Any) -> None:
        told.append((value, total))

    monkeypatch.setattr(FOLDERS.Weights, "get", download)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load()
    assert told == [(3, 10)]


def test_only_what_is_for_commerce_is_offered_if_so_set(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = FOLDERS.choices("restorer")
    assert {"lite", "codeformer"} <= set(usual)
    monkeypatch.setenv("GFP_COMMERCIAL_ONLY", "1")
    left = FOLDERS.choices("restorer")
    assert "lite" in left
    assert not {"codeformer", "gfpgan-1.4"} & set(left)
    assert "codeformer" not in INPUTS.model_choice("restorer", "lite").tooltip
    detectors = INPUTS.model_choice("detector", INPUTS.DETECTOR).options
    assert detectors, "ComfyUI refuses prompts of a node with an empty choice"


def test_users_own_folders_are_kept(tmp_path: Path) -> None:
    """Extra model paths of the user, before and after the pack makes its folders known."""
    (tmp_path / "mine.pth").touch()
    (tmp_path / "notes.txt").touch()
    folder_paths.add_model_folder_path("facerestore_models", str(tmp_path))
    FOLDERS.register()
    names = folder_paths.get_filename_list("facerestore_models")
    assert "mine.pth" in names
    assert "notes.txt" not in names


class OldSchema:
    """Of a core without the newest arguments."""

    def __init__(self, node_id: str, inputs: list[Any] | None = None) -> None:
        self.node_id, self.inputs = node_id, inputs


class NewSchema(OldSchema):
    """Of a core that has them."""

    def __init__(
        self,
        node_id: str,
        inputs: list[Any] | None = None,
        search_aliases: list[str] | None = None,
        essentials_category: str | None = None,
    ) -> None:
        super().__init__(node_id, inputs)
        self.search_aliases, self.essentials_category = search_aliases, essentials_category


class OldWidget:
    """An input of a core whose inputs cannot be advanced."""

    def __init__(self, id: str, extra_dict: dict[str, Any] | None = None) -> None:
        self.id, self.extra_dict, self.optional = id, extra_dict, False


class NewWidget(OldWidget):
    """An input that can."""

    def __init__(self, id: str, advanced: bool | None = None) -> None:
        super().__init__(id)
        self.advanced = advanced


def test_arguments_that_the_core_does_not_know_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"node_id": "X", "search_aliases": ["y"], "essentials_category": "Image Tools"}
    monkeypatch.setattr(NODE.io, "Schema", OldSchema)
    assert vars(NODE.schema(**told)) == {"node_id": "X", "inputs": None}
    monkeypatch.setattr(NODE.io, "Schema", NewSchema)
    assert vars(NODE.schema(**told)) == {**told, "inputs": None}


def test_advanced_inputs_are_marked_in_every_core() -> None:
    old = NODE.advanced(OldWidget("x", {"other": 1}))
    assert old.extra_dict == {"other": 1, "advanced": True}
    new = NODE.advanced(NewWidget("x"))
    assert new.advanced is True
    assert new.extra_dict is None
    assert old.optional is new.optional is True


# --- The one node ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A face of a real photograph, as an IMAGE."""
    from skimage import data

    return torch.from_numpy(data.astronaut()[:256, 96:352].copy()).float()[None] / 255


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps that were taken, as they are taken."""
    from gfp_pack.gfp_core.pipeline import FaceRestorer

    steps: list[str] = []
    for name in ("detect", "restore_faces"):
        step = getattr(FaceRestorer, name)

        def taken(self: Any, *given: Any, name: str = name, step: Any = step, **more: Any) -> Any:
            steps.append(name)
            return step(self, *given, **more)

        monkeypatch.setattr(FaceRestorer, name, taken)
    return steps


def test_nothing_is_computed_twice(photo: torch.Tensor, counted: list[str]) -> None:
    def run(image: torch.Tensor = photo, **values: Any) -> Any:
        before = len(counted)
        with torch.inference_mode():
            result = NODES.GFPRestorePhoto.execute(image=image, model="lite", **values)
        return result.args[0], counted[before:]

    first = photo.clone()
    full, steps = run(first)
    assert steps == ["detect", "restore_faces"]
    half, steps = run(first, strength=0.5)
    assert steps == []
    assert not torch.equal(full, half)
    again, steps = run(first)
    assert steps == []
    assert torch.equal(full, again)
    for values, wanted in (
        ({"which": "none"}, ["restore_faces"]),
        ({"seed": 3}, ["restore_faces"]),
        ({"color": "restorer"}, ["restore_faces"]),
        ({"score": 0.5}, ["detect", "restore_faces"]),
    ):
        assert run(first, **values)[1] == wanted, values
    first[0, :8] = 0  # another pack has changed the image in place
    changed, steps = run(first)
    assert steps == ["detect", "restore_faces"]
    assert not torch.equal(changed, full)
    assert not MODULES["memory"].DETECTED._size()


def test_other_choices_of_faces_do_not_detect_again(
    photo: torch.Tensor, counted: list[str]
) -> None:
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    image = photo.clone()
    counts = []
    for values in ({}, {"which": "none"}, {"order": "smallest"}, {"which": "first 1"}):
        with torch.inference_mode():
            result = NODES.GFPDetectFaces.execute(image=image, detector=detector, **values)
        counts.append(result.args[4])
    assert counts == [1, 0, 1, 1]
    assert counted == ["detect"]


def test_results_go_with_their_image(photo: torch.Tensor) -> None:
    memory = MODULES["memory"]
    memo = memory.Memo()
    faces = importlib.import_module("gfp_pack.gfp_core.faces").Faces((), ())
    image = photo.clone()
    assert memo.get(image, "key", lambda: faces) is faces
    assert memo.get(image, "key", lambda: None) is faces
    del image
    assert memo._entries == []
    assert memory.digest(photo) != memory.digest(photo.half())
    assert memory.digest(photo) == memory.digest(photo.movedim(1, 2).contiguous().movedim(1, 2))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "1 of 1 faces restored"),
        ({"which": "none"}, "0 of 1 faces restored."),
        ({"which": "7"}, "0 of 1 faces restored, which = 7, but the most faces in a picture are 1"),
        ({"min_size": 16384}, "No face found."),
    ],
)
def test_the_node_says_what_it_did(photo: torch.Tensor, values: Any, text: str) -> None:
    with torch.inference_mode():
        result = NODES.GFPRestorePhoto.execute(image=photo, model="lite", **values)
    assert result.args[3].startswith(text)
    assert next(each["key"] for each in result.ui["gfp_report"]) in ("restored", "noFace")
    (frame,) = result.ui["gfp_compare"]
    assert (frame["width"], frame["height"], frame["count"]) == (256, 256, 1)
    assert len(frame["faces"]) == int("min_size" not in values)


def test_sharp_faces_that_are_left_are_counted(photo: torch.Tensor) -> None:
    options = NODES.GFPRestoreOptions.execute(max_sharpness=0.0).args[0]
    with torch.inference_mode():
        result = NODES.GFPRestorePhoto.execute(image=photo, model="lite", options=options)
    assert result.args[3] == "0 of 1 faces restored, 1 sharp enough already."
    assert torch.equal(result.args[0], photo)


@pytest.mark.parametrize(
    ("values", "further", "words"),
    [
        ({"mask": "parts"}, {}, "connect Load Face Parser"),
        ({"color": "reference"}, {}, "needs a reference picture"),
        ({"upscale": 2.0, "upscaled": torch.zeros(1, 9, 9, 3)}, {}, "not both"),
        ({"upscaled": torch.zeros(2, 9, 9, 3)}, {}, "2 backgrounds for 1 frames"),
        ({}, {"frame_mask": torch.ones(2, 9, 9)}, r"frame_mask must be \(1 or 1, "),
        ({}, {"region": torch.ones(2, 9, 9)}, r"region must be \(1 or 1, "),
    ],
)
def test_what_an_option_needs_is_told_before_the_work(
    values: Any, further: Any, words: str, photo: torch.Tensor, counted: list[str]
) -> None:
    options = NODES.GFPRestoreOptions.execute(**further).args[0]
    with pytest.raises(ValueError, match=words), torch.inference_mode():
        NODES.GFPRestorePhoto.execute(image=photo, model="lite", options=options, **values)
    assert counted == []


def test_cancel_comes_between_two_layers(photo: torch.Tensor) -> None:
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    detector.ready()
    large = torch.nn.functional.interpolate(photo.movedim(-1, 1), scale_factor=4)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        detector.runner.detect(large)
    assert len(detector.runner.detect(large)) == 1


def test_cancel_comes_while_a_large_image_is_hashed() -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        MODULES["memory"].digest(torch.zeros(1, 4, 4, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pictures_work(photo: torch.Tensor, dtype: torch.dtype) -> None:
    """As ``--fp16-intermediates`` gives them: the face is restored as in float32."""
    half = photo.to(dtype)
    with torch.inference_mode():
        result = NODES.GFPRestorePhoto.execute(image=half, model="lite")
        usual = NODES.GFPRestorePhoto.execute(image=photo, model="lite").args[0]
        split = pasted_by_steps(half)
    assert result.args[3].startswith("1 of 1 faces restored")
    for image in (result.args[0], split):
        assert image.dtype == dtype
        assert image.shape == photo.shape
        assert (image.float() - usual).abs().mean() < 0.004
        assert torch.equal(image[:, :20], half[:, :20]), "what no face touches"


def pasted_by_steps(image: torch.Tensor) -> torch.Tensor:
    """An image through the nodes of the single steps, its crops through other nodes."""
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    restorer = MODELS.load_restorer("lite", "auto", "auto")
    faces = NODES.GFPDetectFaces.execute(image=image, detector=detector).args[0]
    faces, crops = NODES.GFPRestoreFaces.execute(faces=faces, restorer=restorer).args
    faces, _ = NODES.GFPColorEnhance.execute(faces=faces, mode="auto", strength=1.0).args
    _, crops = NODES.GFPCropsFromFaces.execute(faces=faces).args
    crops = crops.to(image.dtype)
    (faces,) = NODES.GFPFacesFromCrops.execute(crops=crops, faces=faces, use_as="restored").args
    return NODES.GFPPasteBack.execute(image=image, faces=faces, strength=1.0).args[0]


# --- What faces hold ------------------------------------------------------------------------------


def held_bytes(value: Any) -> int:
    """The bytes of tensors that ComfyUI's cache finds in an output (0.33)."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(held_bytes, value)) if isinstance(value, (list, tuple)) else 0


def test_faces_that_nobody_asks_for_hold_no_crops(
    photo: torch.Tensor, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GFP_STATELESS", "1")
    image = photo.clone()
    with torch.inference_mode():
        faces = NODES.GFPRestorePhoto.execute(image=image, model="lite").args[2]
        assert held_bytes([faces]) == faces.get_ram_usage() == 0
        assert counted == ["detect", "restore_faces"]
        made = faces.faces
        pasted = NODES.GFPPasteBack.execute(image=image, faces=faces, strength=1.0).args[0]
        whole = NODES.GFPRestorePhoto.execute(image=image, model="lite").args[0]
    assert made.crops.shape == made.restored.shape == (1, 3, 512, 512)
    assert torch.equal(pasted, whole)


def test_what_faces_hold_is_counted_by_comfyuis_cache(photo: torch.Tensor) -> None:
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    with torch.inference_mode():
        faces = NODES.GFPDetectFaces.execute(image=photo, detector=detector).args[0]
    assert held_bytes([[faces]]) == faces.get_ram_usage() == 3 * 512 * 512 * 4
    assert hash(faces)
    assert faces != (faces.faces.crops,)


# --- Faces of other nodes -------------------------------------------------------------------------

EXCHANGE = importlib.import_module("gfp_pack.nodes.exchange")


@pytest.fixture(scope="module")
def two() -> torch.Tensor:
    """The photograph twice, side by side, as an IMAGE."""
    from skimage import data

    one = torch.from_numpy(data.astronaut()[:256, 96:352].copy()).float()[None] / 255
    return torch.cat([one, one], dim=2)


def detect(image: torch.Tensor, **values: Any) -> tuple[Any, ...]:
    detector = MODELS.load_face_detector("retinaface_mobile025", "auto")
    with torch.inference_mode():
        return NODES.GFPDetectFaces.execute(image=image, detector=detector, **values).args


def test_boxes_and_segments_say_which_faces(two: torch.Tensor) -> None:
    _, _, boxes, _, count, segments = detect(two, order="left to right")
    assert count == 2
    right = boxes[0][1]
    for form in (right, [right], [[right]]):
        assert detect(two, boxes_in=form)[2] == [[right]]
    only_right = (segments[0], segments[1][1:])
    assert detect(two, segs_in=only_right)[2] == [[right]]
    assert detect(two, boxes_in=[[boxes[0][0]]], segs_in=only_right)[4] == 0
    assert detect(two, boxes_in=[[]])[4] == 0
    with pytest.raises(ValueError, match="boxes are of 2 pictures, the image has 1"):
        detect(two, boxes_in=[[right], [right]])
    enlarged = ((512, 1024), [segments[1][1]._replace(bbox=[2 * x for x in only_right[1][0].bbox])])
    assert detect(two, segs_in=enlarged)[2] == [[right]], "of an image of another size"


def test_segments_are_the_impact_packs(two: torch.Tensor) -> None:
    *_, mask, _, (size, segments) = detect(two, order="left to right")
    assert size == (256, 512)
    fields = "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper"
    assert segments[0]._fields == tuple(fields.split())
    for each in segments:
        x1, y1, x2, y2 = each.crop_region
        assert 0 <= x1 <= each.bbox[0] < each.bbox[2] <= x2 <= 512
        assert each.cropped_mask.shape == (y2 - y1, x2 - x1)
        assert 0 < each.cropped_mask.mean() < 1
        assert (each.cropped_mask <= mask[0, y1:y2, x1:x2].numpy()).all()
    assert segments[0].bbox[2] < 256 < segments[1].bbox[0]


def test_faces_of_nobody_and_of_another_form(two: torch.Tensor) -> None:
    assert detect(two, segs_in=((0, 0), []))[4] == 0, "EmptySegs of the Impact Pack"
    for name, value, words in (
        ("segs_in", (), "SEGS must be"),
        ("boxes_in", [[1, 2, 3, 4]], "boxes must be of x, y, width and height each, not 1$"),
        ("boxes_in", [{"x": 1, "y": 2}], "boxes must be of x"),
        ("landmarks", {}, "landmarks must be those of"),
        ("region", torch.ones(3, *two.shape[1:3]), r"region must be \(1 or 1, "),
    ):
        with pytest.raises(ValueError, match=words):
            detect(two, **{name: value})


def test_what_a_step_needs_before_it_is_told_by_the_names_of_nodes(two: torch.Tensor) -> None:
    faces = detect(two)[0]
    for run in (
        lambda: NODES.GFPPasteBack.execute(image=two, faces=faces, strength=1.0),
        lambda: NODES.GFPColorEnhance.execute(faces=faces, mode="match", strength=1.0),
        lambda: NODES.GFPFaceMasks.execute(faces=faces, shape="box", feather=0.1),
    ):
        with pytest.raises(ValueError, match=r"connect Run Face Restorer \(GFP\) first\.$"):
            run()
    restorer = MODELS.last_used("restorer", "lite")
    with torch.inference_mode():
        faces = NODES.GFPRestoreFaces.execute(faces=faces, restorer=restorer).args[0]
    with pytest.raises(ValueError, match="connect Load Face Parser"):
        NODES.GFPFaceMasks.execute(faces=faces, shape="parts", feather=0.1)
    with pytest.raises(ValueError, match="connect it to face_masks"):
        NODES.GFPPasteBack.execute(image=two, faces=faces, strength=1.0, mask="parts")


def test_segments_are_of_one_image_only(two: torch.Tensor) -> None:
    from comfy_execution.graph_utils import ExecutionBlocker

    *_, count, segments = detect(torch.cat([two, two]))
    assert count == 4
    assert isinstance(segments, ExecutionBlocker)


@pytest.mark.parametrize("points", [478, 468])
def test_landmarks_of_the_core_are_faces(
    points: int, two: torch.Tensor, counted: list[str]
) -> None:
    """A mesh that has our landmarks at its points gives the same crops, in another size too."""
    faces = detect(two, order="left to right")[0]
    found = []
    for face in faces.faces.faces:
        mesh = np.zeros((points, 2), np.float32)
        eyes = EXCHANGE.EYES if points == 478 else EXCHANGE.EYE_CORNERS
        for indices, place in zip(eyes, face.landmarks, strict=False):
            mesh[list(indices)] = place
        mesh[EXCHANGE.NOSE] = face.landmarks[2]
        mesh[list(EXCHANGE.MOUTH)] = face.landmarks[3:]
        box = np.array(face.box)
        found.append({"landmarks_xy": 2 * mesh, "bbox_xyxy": 2 * box, "score": 0.6})
    landmarks = {"frames": [found], "image_size": (512, 1024), "connection_sets": {}}
    given = detect(two, landmarks=landmarks, order="left to right")
    assert torch.allclose(given[1], faces.faces.crops.movedim(1, -1), atol=1e-4)
    assert [box["score"] for box in given[2][0]] == [0.6, 0.6]
    assert detect(two, landmarks=landmarks, which="0")[4] == 1
    assert detect(two, landmarks=landmarks, min_size=1000)[4] == 0
    with pytest.raises(ValueError, match="landmarks are of 1 pictures, the image has 2"):
        detect(torch.cat([two, two]), landmarks=landmarks)


@pytest.mark.parametrize("language", ["en", "de", "zh", "ja", "ko", "fr", "es", "ru"])
def test_inputs_of_newer_cores_are_known_in_every_language(language: str) -> None:
    """The schema of an older ComfyUI does not have them."""
    compare = importlib.import_module("gfp_pack.nodes.compare_restorers")
    texts = {
        ("GFPFaceMasks", "parts"): INPUTS.PARTS_TOOLTIP,
        ("GFPCompareRestorers", compare.GROUP): compare.RESTORER_TOOLTIP,
    }
    file = REPOSITORY / "locales" / language / "nodeDefs.json"
    nodes = json.loads(file.read_text(encoding="utf-8"))
    for (node, id), english in texts.items():
        entry = nodes[node]["inputs"][id]
        assert entry["name"]
        assert (entry["tooltip"] == english) == (language == "en")


# --- Inputs that grow, and lists ------------------------------------------------------------------


def test_old_sockets_of_a_comparison_go_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    node = NODES.GFPCompareRestorers
    monkeypatch.setattr(node, "RENAMED", {"restorer_2": "restorers.restorer_2"})
    inputs = {"image": ["1", 0], "restorer_2": ["3", 0]}
    request = {"prompt": {"2": {"class_type": "GFPCompareRestorers", "inputs": inputs}}}
    NODE.prompt_handler(NODES.NODES)(request)
    assert inputs == {"image": ["1", 0], "restorers.restorer_2": ["3", 0]}


def test_a_group_of_restorers_is_compared(photo: torch.Tensor) -> None:
    lite = MODELS.load_restorer("lite", "auto", "auto")
    with torch.inference_mode():
        result = NODES.GFPCompareRestorers.execute(image=photo, restorers={"restorer_2": lite})
    assert [line.split()[0] for line in result.args[1].splitlines()] == ["lite"]


@pytest.mark.parametrize("parts", [["eyes", "skin"], "skin, eyes"])
def test_parts_in_one_list_come_before_the_switches(parts: Any) -> None:
    assert INPUTS.to_options({"parts": parts, "hair": True}).mask.parts == ("skin", "eyes")
    default = OPTIONS.RestoreOptions().mask.parts
    assert INPUTS.to_options({"parts": [], "hair": True}).mask.parts == (*default, "hair")
    assert INPUTS.to_options({"parts": list(default)}).mask.parts == default
    with pytest.raises(ValueError, match="parts must be one of"):
        INPUTS.to_options({"parts": ["chin"]})


class ShowingSchema(OldSchema):
    """Of a core in which nodes can show something without being an output."""

    def __init__(
        self, node_id: str, is_output_node: bool = False, has_intermediate_output: bool = False
    ) -> None:
        super().__init__(node_id)
        self.output, self.shows = is_output_node, has_intermediate_output


def test_nodes_that_show_something_are_outputs_in_old_cores_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = {node.__name__ for node in NODES.NODES if node.define_schema().is_output_node}
    wanted = {"GFPRestorePhoto", "GFPDetectFaces", "GFPPasteBack", "GFPCompareRestorers"}
    assert shown == wanted
    monkeypatch.setattr(NODE.io, "Schema", ShowingSchema)
    made = NODE.schema(node_id="X", shows=True)
    assert (made.output, made.shows) == (False, True)


def test_weights_that_are_not_here_say_first_what_to_do() -> None:
    with pytest.raises(ValueError, match="downloads are forbidden") as raised:
        MODELS.load_restorer("gfpgan-1.4", "auto", "auto")
    first = str(raised.value).splitlines()[0]
    folder = FOLDERS.paths("restorer")[0]
    assert first.startswith(f"Put GFPGANv1.4.pth into {folder}")
    assert f'-m gfp_core weights get gfpgan-1.4 --output "{folder}"' in str(raised.value)
    assert "gfp weights" not in str(raised.value)


def test_choices_say_what_is_a_download() -> None:
    choices, labels = FOLDERS.choices("restorer"), FOLDERS.labels("restorer")
    assert labels["gfpgan-1.4"] == "gfpgan-1.4 · 349 MB · download"
    assert "lite" not in labels
    assert choices.index("lite") < choices.index("gfpgan-1.4") < choices.index("gfpgan-1")
    assert "lite-1" not in choices, "an old name means another row, and is not shown"
    assert INPUTS.model_choice("restorer", "lite").default == "lite"


def test_for_commerce_the_free_weights_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFP_COMMERCIAL_ONLY", "1")
    for role, name, free in (
        ("detector", "retinaface_mobile025", "blazeface-full"),
        ("parser", "bisenet", "face-mesh"),
        ("embedder", "face-descriptor", "auraface"),
    ):
        choice = INPUTS.model_choice(role, name)
        assert choice.default == free
        assert free in choice.options
        assert name not in choice.options
        assert FOLDERS.translate(role, name) == free, "what saved workflows name"


def test_comparing_needs_an_image_and_names_alone(photo: torch.Tensor) -> None:
    compare = NODES.GFPCompareRestorers.execute
    with torch.inference_mode():
        result = compare(image=photo, models="lite, lite-1")
    sheet, timings = result.args
    assert sheet.shape[2] > 2.5 * sheet.shape[1], "the input and two columns beside one another"
    assert [line.split()[0] for line in timings.splitlines() if line.startswith("lite")]
    assert len(result.ui["images"]) == 1
    with pytest.raises(ValueError, match="connect one, or name models"):
        compare(image=photo)
    with pytest.raises(ValueError, match="needs faces or an image"):
        compare(models="lite")
    with pytest.raises(ValueError, match="there is no model called '/etc/passwd'"):
        compare(image=photo, models="lite, /etc/passwd")


def test_nothing_is_kept_where_that_is_forbidden(
    photo: torch.Tensor, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GFP_STATELESS", "1")
    MODELS.LAST_USED.clear()
    image = photo.clone()
    for _ in range(2):
        with torch.inference_mode():
            NODES.GFPRestorePhoto.execute(image=image, model="lite")
    assert counted == ["detect", "restore_faces"] * 2
    assert MODELS.LAST_USED == {}
    memory = MODULES["memory"]
    assert not any(entry[1]() is image for entry in memory.DETECTED._entries)
