"""All talk with ComfyUI: its folders, its model management, its progress bar, its previews.

Every node reaches ComfyUI through here, and what differs between its versions is settled here.
"""

from __future__ import annotations

import inspect
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..gfp_core.detect import FaceDetector
from ..gfp_core.embed import FaceEmbedder, load_embedder
from ..gfp_core.faces import Faces
from ..gfp_core.networks import registry
from ..gfp_core.options import Precision
from ..gfp_core.parse import FaceParser, load_parser
from ..gfp_core.pipeline import find_detector, find_model
from ..gfp_core.restore import DEFAULT_CHUNK, Restorer
from ..gfp_core.weights.catalogue import Entry
from ..gfp_core.weights.loading import load_network
from ..gfp_core.weights.settings import Settings
from ..gfp_core.weights.store import Weights

Role = Literal["restorer", "detector", "parser", "embedder"]
DevicePolicy = Literal["auto", "cpu"]
Runner = TypeVar("Runner")

FOLDERS: dict[Role, tuple[str, ...]] = {
    "restorer": ("facerestore_models",),
    "detector": ("facedetection", "detection"),
    "parser": ("facedetection",),
    "embedder": ("facedetection",),
}
"""ComfyUI's names of the folders with weights, by role; downloads go to the first."""
_ENDINGS = {".safetensors", ".pth", ".pt", ".ckpt", ".onnx"}

PREVIEW_FRAMES = 16
"""Frames of a batch that are shown on a node."""
PREVIEW_SIDE = 1600
"""Longest side of a preview in pixels."""


def register_folders() -> None:
    """Make the weights' folders known to ComfyUI, beside those that the user has added."""
    for names in FOLDERS.values():
        for name in names:
            default = str(Path(folder_paths.models_dir) / name)
            folder_paths.add_model_folder_path(name, default)
            # A folder new to ComfyUI has no endings, which would list every file in it.
            endings = folder_paths.folder_names_and_paths[name][1]
            if not endings:
                endings.update(_ENDINGS)


# --- What older versions of ComfyUI do not know ---------------------------------------------------


def schema(**arguments: Any) -> io.Schema:
    """A node's schema, without what this version of ComfyUI cannot take."""
    known = inspect.signature(io.Schema).parameters
    return io.Schema(**{name: value for name, value in arguments.items() if name in known})


def advanced(widget: Any) -> Any:
    """The same input, shown only to who asks for advanced inputs; headless it can be left out."""
    widget.optional = True
    if "advanced" in inspect.signature(type(widget)).parameters:
        widget.advanced = True
    else:  # 0.3.75 hands unknown properties on to the page, which knows this one
        widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


# --- Weights --------------------------------------------------------------------------------------


def weights(role: Role) -> Weights:
    """The weights of the user's settings, searched first in ComfyUI's folders."""
    folders = [
        folder
        for name in FOLDERS[role]
        if name in folder_paths.folder_names_and_paths
        for folder in folder_paths.get_folder_paths(name)
    ]
    return Weights(Settings.load(folders=folders, strict=False))


def offered(role: Role) -> list[Entry]:
    """The rows of the catalogue that can be chosen for a role."""
    known = {row.name for row in registry.ARCHITECTURES}
    return [
        entry
        for entry in weights(role).offered.entries
        if entry.role == role and (role != "restorer" or entry.architecture in known)
    ]


def choices(role: Role) -> list[str]:
    """What a loader offers: the catalogue's names, then the user's own files."""
    names = [entry.name for entry in offered(role)]
    return [*names, *(name for name in _files(role) if name not in names)]


def _files(role: Role) -> list[str]:
    if role != "restorer":  # the other folders hold files of every kind, for other packs
        return []
    return [name for folder in FOLDERS[role] for name in folder_paths.get_filename_list(folder)]


def describe(role: Role) -> str:
    """A line for each choice of the catalogue: its terms and what it is good for."""
    return "\n".join(
        f"{entry.name}: {entry.licence}; commercial use: {entry.commercial}. {entry.good_for}."
        for entry in offered(role)
    )


def find_file(role: Role, choice: str) -> Path | None:
    """The user's own file of this name, as a loader lists it; None if it is a name of the list."""
    if choice in {entry.name for entry in weights(role).catalogue.entries}:
        return None
    for folder in FOLDERS[role]:
        path = folder_paths.get_full_path(folder, choice)
        if path is not None:
            return Path(path)
    return None


def fingerprint(role: Role, choice: str) -> str:
    """Changes when the user's own file is replaced; the catalogue's are known by their hash."""
    path = find_file(role, choice)
    if path is None:
        return choice
    found = path.stat()
    return f"{choice} {found.st_size} {found.st_mtime_ns}"


# --- Networks in ComfyUI's memory -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Managed(Generic[Runner]):
    """A network that ComfyUI moves to its device for use, and away when others need the memory."""

    name: str
    """As the loader lists it."""
    runner: Runner
    patcher: comfy.model_patcher.ModelPatcher | None
    """None for what does not run in PyTorch."""

    def ready(self, memory: float = 0.0) -> Runner:
        """Have it on its device, with ``memory`` bytes free beside it."""
        if self.patcher is not None:
            comfy.model_management.load_models_gpu(
                [self.patcher], memory_required=memory, force_full_load=True
            )
            self.patcher.model.to(self.patcher.load_device)
        return self.runner


def _manage(name: str, runner: Runner, policy: DevicePolicy) -> Managed[Runner]:
    net = getattr(runner, "net", None)
    if not isinstance(net, torch.nn.Module):
        return Managed(name, runner, None)
    cpu = torch.device("cpu")
    load = cpu if policy == "cpu" else comfy.model_management.get_torch_device()
    # Not CoreModelPatcher: the dynamic one of newer versions leaves our layers where they are.
    return Managed(name, runner, comfy.model_patcher.ModelPatcher(net, load, cpu))


def load_restorer(choice: str, precision: Precision, policy: DevicePolicy) -> Managed[Restorer]:
    """Read a restorer; it is downloaded first if need be.

    Raises:
        ValueError: it cannot be had or read; says why and what to do.
    """
    path = find_file("restorer", choice)
    found = find_model(path or choice, weights("restorer"), progress=Bar())
    return _manage(choice, Restorer(load_network(*found), precision=precision), policy)


def load_detector(choice: str, policy: DevicePolicy) -> Managed[FaceDetector]:
    """Read a detector; it is downloaded first if need be.

    Raises:
        ValueError: it cannot be had or read; says why and what to do.
    """
    found = find_detector(choice, device="cpu", weights=weights("detector"), progress=Bar())
    return _manage(choice, found, policy)


LAST_USED: dict[Role, tuple[str, Managed[Any]]] = {}
"""One network of each role, for nodes that name it instead of taking a loader's: so it is not read
again for each image. It is in main memory, and on the device as long as ComfyUI lets it."""


def last_used(role: Literal["restorer", "detector"], choice: str) -> Managed[Any]:
    """The network of this name with the loader's defaults; the one before it is let go.

    Raises:
        ValueError: it cannot be had or read; says why and what to do.
    """
    key = fingerprint(role, choice)
    if role not in LAST_USED or LAST_USED[role][0] != key:
        LAST_USED.pop(role, None)  # first, for there may be no room for both
        loaded: Managed[Any] = (
            load_restorer(choice, "auto", "auto")
            if role == "restorer"
            else load_detector(choice, "auto")
        )
        LAST_USED[role] = key, loaded
    return LAST_USED[role][1]


def load_parsing(choice: str, policy: DevicePolicy) -> Managed[FaceParser]:
    """Read a face parser; it is downloaded first if need be.

    Raises:
        ValueError: it cannot be had or read; says why and what to do.
    """
    path = weights("parser").get(choice, progress=Bar())
    return _manage(choice, load_parser(path=path, device="cpu"), policy)


def load_embedding(choice: str, policy: DevicePolicy) -> Managed[FaceEmbedder]:
    """Read a face embedder; it is downloaded first if need be.

    Raises:
        ValueError: it cannot be had or read; says why and what to do.
    """
    found = load_embedder(choice, device="cpu", weights=weights("embedder"), progress=Bar())
    return _manage(choice, found, policy)


def people(
    pictures: Tensor | None, embedder: Managed[FaceEmbedder] | None, detector: FaceDetector
) -> Tensor | None:
    """The embeddings of the people in pictures (R, H, W, C), if there are any.

    Raises:
        ValueError: one of them shows no face.
    """
    if pictures is None or embedder is None:
        return None
    return embedder.ready().describe(list(to_frames(pictures)), detector)


def working_memory(restorer: Managed[Restorer], batch: int) -> float:
    """Bytes that a restorer needs beside its weights for one batch."""
    runner = restorer.runner
    return runner.bytes_per_face * (batch or DEFAULT_CHUNK)


def fidelity_for(restorer: Managed[Restorer], fidelity: float) -> float | None:
    """A node's fidelity, for restorers that have one; the others would warn of it each time."""
    return fidelity if restorer.runner.has_fidelity else None


def restore(
    restorer: Managed[Restorer], faces: Faces, *, fidelity: float, seed: int, batch: int
) -> Faces:
    """Restore faces with the node's bar, previews and cancel; 0 stands for the defaults."""
    bar = Bar()
    return restorer.ready(
        working_memory(restorer, min(batch or DEFAULT_CHUNK, len(faces)))
    ).restore(
        faces,
        fidelity=fidelity_for(restorer, fidelity),
        seed=seed or None,
        chunk=batch or None,
        progress=bar,
        preview=bar.preview,
    )


# --- Images, progress, previews -------------------------------------------------------------------


def to_frames(image: Tensor) -> Tensor:
    """ComfyUI's IMAGE (B, H, W, C) as the library's frames (B, C, H, W): a view, not a copy."""
    return image.movedim(-1, 1)


def to_image(frames: Tensor) -> Tensor:
    """Frames (B, C, H, W) as ComfyUI's IMAGE (B, H, W, C), where it keeps what nodes hand on."""
    place = comfy.model_management.intermediate_device()
    return frames.movedim(1, -1).contiguous().to(place)


def to_mask(mask: Tensor) -> Tensor:
    """A mask (B, H, W) where ComfyUI keeps what nodes hand on."""
    return mask.to(comfy.model_management.intermediate_device())


def nothing(reason: str) -> ExecutionBlocker:
    """For an output that has nothing to give: nodes that use it stop with this message."""
    return ExecutionBlocker(f"This output of the node is empty, for {reason}.")


def crops_to_image(faces: Faces, crops: Tensor | None) -> Tensor:
    """Crops as an IMAGE; one black picture for no face, because nodes fail on an empty batch."""
    if crops is None or not len(faces):
        side = 512 if crops is None else crops.shape[-1]
        crops = torch.zeros(1, 3, side, side)
    return to_image(crops)


class Bar:
    """A node's progress bar: call it with (done, total); it raises when the user cancels."""

    def __init__(self) -> None:
        self._bar: comfy.utils.ProgressBar | None = None
        self._preview: tuple[str, Image.Image, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total)
        self._bar.update_absolute(done, total, self._preview)
        self._preview = None

    def preview(self, crops: Tensor) -> None:
        """Show the last of (N, 3, S, S) crops in [0, 1] with the next step of the bar."""
        pixels = crops[-1].movedim(0, -1).mul(255).round().byte().cpu().numpy()
        self._preview = ("JPEG", Image.fromarray(pixels), 512)


def save_previews(frames: Tensor) -> list[dict[str, str]]:
    """Reduced copies of the first frames (B, C, H, W) in ComfyUI's folder for temporary files.

    Returns:
        What the page needs to fetch each: its filename, subfolder and type.
    """
    small = [_reduced(frame) for frame in frames[:PREVIEW_FRAMES]]
    letters = "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8))
    saved = ui.ImageSaveHelper.save_images(
        small, f"GFP_{letters}", io.FolderType.temp, cls=None, compress_level=1
    )
    return [dict(one) for one in saved]


def comparison(before: Tensor, after: Tensor) -> dict[str, Any]:
    """What the page's slider needs: previews of frames (B, C, H, W) before and after."""
    pairs = zip(save_previews(before), save_previews(after), strict=True)
    return {"gfp_compare": [{"before": old, "after": new} for old, new in pairs]}


def _reduced(frame: Tensor) -> Tensor:
    """(C, H, W) as (H', W', C), at most PREVIEW_SIDE long."""
    frame = torch.nan_to_num(frame.detach().float(), posinf=1.0, neginf=0.0)
    scale = PREVIEW_SIDE / max(frame.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in frame.shape[-2:]]
        frame = F.interpolate(frame[None], size, mode="bilinear", antialias=True)[0]
    return frame.movedim(0, -1)
