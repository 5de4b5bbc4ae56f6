"""Looks at the nodes from within a ComfyUI: `test_nodes.py` runs this file in a process of its own.

ComfyUI's modules have names (nodes, utils, comfy) that must not get in the way of other tests.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

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
HOST, INPUTS = NODES.host, NODES.inputs
HOST.register_folders()


def defaults(node: Any) -> dict[str, Any]:
    """What a schema gives for inputs that are left out."""
    return {
        one.id: one.default
        for one in node.define_schema().inputs
        if getattr(one, "default", None) is not None
    }


@pytest.mark.parametrize("node", NODES.NODES, ids=lambda node: node.__name__)
def test_what_is_left_out_is_the_schemas_default(node: Any) -> None:
    """Headless prompts may leave out optional inputs: `execute` then uses the same values."""
    functions = [node.execute]
    if node.__name__ == "GFPRestorePhoto":
        from gfp_pack.gfp_core.pipeline import FaceRestorer

        from_node = importlib.import_module("gfp_pack.nodes.restore_photo")
        # The first to have a parameter decides: what a function does not know it hands on.
        functions += [from_node._restore, FaceRestorer.restore]
    optional = {one.id for one in node.define_schema().inputs if one.optional}
    known: dict[str, Any] = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                known.setdefault(name, parameter.default)
            if name == "parts":  # the switches of the parts come together, see `chosen_parts`
                left_on = INPUTS.chosen_parts({})
                known |= {part: part in left_on for part in get_args(INPUTS.Part)}
    wanted = {name: value for name, value in defaults(node).items() if name in optional}
    assert {name: known.get(name) for name in wanted} == wanted


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
        if isinstance(value, INPUTS.FacesOfImage):
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
    faces, crops, _, _, count = run("GFPDetectFaces", image=photo, detector=detector)
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
    restorer = HOST.load_restorer("lite", "auto", "auto")
    detector = HOST.load_detector("retinaface_mobile025", "auto")
    patchers = [restorer.patcher, detector.patcher]
    restorer.ready(), detector.ready()
    loaded = comfy.model_management.loaded_models()
    assert all(any(patcher is one for one in loaded) for patcher in patchers)
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.loaded_models()
    restorer.ready()
    assert any(restorer.patcher is one for one in comfy.model_management.loaded_models())


@pytest.mark.parametrize(
    "load",
    [
        lambda: HOST.load_restorer("gfpgan-1.4", "auto", "auto"),
        lambda: HOST.load_detector("retinaface_resnet50", "auto"),
        lambda: HOST.load_parsing("bisenet", "auto"),
        lambda: HOST.load_embedding("face-descriptor", "auto"),
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

    monkeypatch.setattr(HOST.Weights, "get", download)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        load()
    assert told == [(3, 10)]


def test_only_what_is_for_commerce_is_offered_if_so_set(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = HOST.choices("restorer")
    assert {"lite", "codeformer"} <= set(usual)
    monkeypatch.setenv("GFP_COMMERCIAL_ONLY", "1")
    left = HOST.choices("restorer")
    assert "lite" in left
    assert not {"codeformer", "gfpgan-1.4"} & set(left)
    assert "codeformer" not in INPUTS.restorer_choice().tooltip
    assert HOST.choices("detector"), "ComfyUI refuses every prompt of a node with an empty choice"


def test_users_own_folders_are_kept(tmp_path: Path) -> None:
    """Extra model paths of the user, before and after the pack makes its folders known."""
    (tmp_path / "mine.pth").touch()
    (tmp_path / "notes.txt").touch()
    folder_paths.add_model_folder_path("facerestore_models", str(tmp_path))
    HOST.register_folders()
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
    monkeypatch.setattr(HOST.io, "Schema", OldSchema)
    assert vars(HOST.schema(**told)) == {"node_id": "X", "inputs": None}
    monkeypatch.setattr(HOST.io, "Schema", NewSchema)
    assert vars(HOST.schema(**told)) == {**told, "inputs": None}


def test_advanced_inputs_are_marked_in_every_core() -> None:
    old = HOST.advanced(OldWidget("x", {"other": 1}))
    assert old.extra_dict == {"other": 1, "advanced": True}
    new = HOST.advanced(NewWidget("x"))
    assert new.advanced is True
    assert new.extra_dict is None
    assert old.optional is new.optional is True
