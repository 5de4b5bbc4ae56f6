"""ComfyUI's folders with weights: what a node offers, and what a name given to a node means."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...gfp_core.networks import registry
from ...gfp_core.weights import WeightsError
from ...gfp_core.weights.catalogue import Entry, Role
from ...gfp_core.weights.resolve import Reference, refer
from ...gfp_core.weights.settings import Settings
from ...gfp_core.weights.store import Weights

FOLDERS: dict[Role, tuple[str, ...]] = {
    "restorer": ("facerestore_models",),
    "detector": ("facedetection", "detection"),
    "parser": ("facedetection",),
    "embedder": ("facedetection",),
}
"""ComfyUI's names of the folders with weights, by role; downloads go to the first."""
_ENDINGS = {".safetensors", ".pth", ".pt", ".ckpt", ".onnx"}


def register() -> None:
    """Make the weights' folders known to ComfyUI, beside those that the user has added."""
    for names in FOLDERS.values():
        for name in names:
            default = str(Path(folder_paths.models_dir) / name)
            folder_paths.add_model_folder_path(name, default)
            # A folder new to ComfyUI has no endings, which would list every file in it.
            endings = folder_paths.folder_names_and_paths[name][1]
            if not endings:
                endings.update(_ENDINGS)


def weights(role: Role) -> Weights:
    """Return the weights of the user's settings, searched first in ComfyUI's folders.

    Wrong settings of the user do not take the nodes away: bundled weights go on working then, and
    who asks for others is told what is wrong.
    """
    return Weights(Settings.load(folders=paths(role), strict=False))


def paths(role: Role) -> list[str]:
    """Return ComfyUI's folders with weights of a role."""
    return [
        folder
        for name in FOLDERS[role]
        if name in folder_paths.folder_names_and_paths
        for folder in folder_paths.get_folder_paths(name)
    ]


def offered(role: Role) -> list[Entry]:
    """Return the rows of the catalogue that can be chosen for a role."""
    networks = {row.name for row in registry.ARCHITECTURES}
    return [
        entry
        for entry in weights(role).offered.entries
        if entry.role == role and (role != "restorer" or entry.architecture in networks)
    ]


def choices(role: Role) -> list[str]:
    """Return what a loader offers: the catalogue's names, then the user's own files."""
    names = [entry.name for entry in offered(role)]
    return [*names, *(name for name in _files(role) if name not in names)]


def describe(role: Role) -> str:
    """Return a line for each choice of the catalogue: its terms and what it is good for."""
    return "\n".join(
        f"{entry.name}: {entry.licence}; commercial use: {entry.commercial}. {entry.good_for}."
        for entry in offered(role)
    )


def find(role: Role, name: str) -> Reference:
    """Find what a name given to a node stands for.

    A name is the catalogue's, or a file's below ComfyUI's folders of the role, wherever the name
    comes from: a widget, another node, or a prompt without a page.

    Raises:
        WeightsError: there is no such name; says nothing about files elsewhere.
    """
    return refer(name, role, weights(role), folders=paths(role))


def fingerprint(role: Role, name: str) -> str:
    """Return what changes when the user's own file is replaced; rows are known by their hash."""
    try:
        path = find(role, name).path
        status = None if path is None else path.stat()
    except (WeightsError, OSError):  # said where the weights are loaded
        status = None
    return name if status is None else f"{name} {status.st_size} {status.st_mtime_ns}"


def _files(role: Role) -> list[str]:
    if role != "restorer":  # the other folders hold files of every kind, for other packs
        return []
    return [name for folder in FOLDERS[role] for name in folder_paths.get_filename_list(folder)]
