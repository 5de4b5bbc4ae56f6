"""Checkpoint files to state dicts and networks; whatever is wrong with a file is one clear error.

The format is found from the content, not from the file's name: safetensors, or PyTorch's own in
its zip and its legacy form, the latter two read with ``weights_only=True`` so that a pickle cannot
run code.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..networks import registry, spandrel_adapter
from ..networks.face_descriptor import FaceDescriptor
from ..networks.state import quote_some
from . import WeightsError
from .packages import read_member

logger = logging.getLogger(__name__)

# What official files wrap the state dict in, the better choice first (EMA before raw weights).
WRAPPERS = ("params_ema", "params", "g_ema", "state_dict")
# What a file may unpack to. PyTorch stores entries uncompressed, so an honest file is about as
# large as what is in it; half-precision tensors become twice as large.
_GROWTH, _ALWAYS_ALLOWED = 4, 16 * 2**20
# Pickle of PyTorch's legacy magic number, with which such a file begins.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DESCRIPTOR_FILE = "face_recognition_model"
_DESCRIPTOR_ADVICE = (
    "get it with `gfp weights get face-descriptor`, or download the project vladmandic/face-api "
    f"and give its folder, its .tgz package or the file {_DESCRIPTOR_FILE}.bin"
)
_NOT_WEIGHTS = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file it stands for"),
    (b"<", "a web page, perhaps saved in place of a download that failed"),
    (b"\x80", "a bare Python pickle, which is not read because it may hold code"),
)


def load_network(path: str | os.PathLike[str], architecture: str | None = None) -> nn.Module:
    """Load a checkpoint into the network it belongs to.

    Args:
        path: the file.
        architecture: name of a row of `registry.ARCHITECTURES`; by default the one that the
            file's metadata names, as converted files do, or else the one identified from the
            tensors' names. A network that is none of these is loaded through spandrel, if that is
            installed and knows it, which a log line says.

    Returns:
        The network on the CPU, in float32, in evaluation mode.

    Raises:
        WeightsError: the file cannot be read, or fits no (or not this) architecture; says why.
    """
    state, metadata = load_state_dict(path)
    named = metadata.get("architecture")
    if architecture is None and any(named == row.name for row in registry.ARCHITECTURES):
        architecture = named
    try:
        if architecture is None:
            architecture = registry.identify(state).name
    except ValueError as error:
        return _load_foreign(state, path, error)
    try:
        return registry.build(state, architecture).eval()
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _load_foreign(
    state: dict[str, Tensor], path: str | os.PathLike[str], unknown: ValueError
) -> nn.Module:
    """A network that is none of this package's.

    Raises:
        WeightsError: it is none of spandrel's either; says ``unknown`` and why.
    """
    try:
        net = spandrel_adapter.from_state_dict(state)
    except (ImportError, ValueError) as error:
        raise WeightsError(f"{path}: {unknown}; {error}") from error
    logger.info("%s: no network of this package; loaded as spandrel's %s", path, net.architecture)
    return net.eval()


def load_descriptor(source: str | os.PathLike[str]) -> FaceDescriptor:
    """Load the face descriptor with its weights, in evaluation mode.

    Args:
        source: the file ``face_recognition_model.bin`` of vladmandic/face-api; a folder that holds
            it, or has it under ``model``; or the project's package as ``.tgz``. A manifest beside
            the file is read; without one it is taken for the published file.

    Raises:
        FileNotFoundError: no weights there; the message says where to get them.
        ValueError: the file does not hold this net; names it.
    """
    source = Path(source)
    if source.is_dir() and (source / "model").is_dir():
        source = source / "model"
    if source.is_dir() or not source.name.endswith(".tgz"):
        folder = source if source.is_dir() else source.parent
        beside = folder / f"{_DESCRIPTOR_FILE}-weights_manifest.json"
        manifest = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    else:
        member = f"package/model/{_DESCRIPTOR_FILE}-weights_manifest.json"
        manifest = json.load(read_member(source, member, _DESCRIPTOR_ADVICE))
    if source.is_file() and source.suffix == ".bin":
        data = source.read_bytes()
    else:
        data = read_member(
            source, f"package/model/{_DESCRIPTOR_FILE}.bin", _DESCRIPTOR_ADVICE
        ).read()
    try:
        return FaceDescriptor.from_tfjs(data, manifest)
    except ValueError as error:
        raise ValueError(f"{source} {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """What is in a checkpoint file."""

    state: dict[str, Tensor]
    """The tensors under their bare names, floating-point ones as finite float32, on the CPU."""
    metadata: dict[str, str]
    """The file's metadata; empty but for safetensors."""
    format: str
    """``safetensors``, ``PyTorch (zip)`` or ``PyTorch (legacy)``."""
    wrappers: tuple[str, ...]
    """Keys under which the state dict was found in the file, the outermost first."""
    prefixes: tuple[str, ...]
    """What was taken from the front of the tensors' names."""
    left_out: int
    """Number of tensors in the file that are none of the network's."""
    dtypes: dict[str, int]
    """Number of tensors in the file of each type."""


def load_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the state dict of a checkpoint, see `read_checkpoint`.

    Returns:
        The tensors under their bare names, floating-point ones as finite float32, on the CPU; and
        the file's metadata (empty but for safetensors).

    Raises:
        WeightsError: the file cannot be used; names it and says why.
    """
    checkpoint = read_checkpoint(path)
    return checkpoint.state, checkpoint.metadata


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, and how it was packed.

    Args:
        path: a safetensors file, or a ``.pth``/``.ckpt`` in PyTorch's zip or legacy format, bare
            or wrapped as official files are.

    Raises:
        WeightsError: the file is missing, empty, truncated, no checkpoint, holds code, or has
            entries that are not finite tensors; names the file.
    """
    path = Path(path)
    head = _read_head(path)
    metadata: dict[str, str] = {}
    wrappers: tuple[str, ...] = ()
    content: object
    if head.startswith(b"PK\x03\x04") or _LEGACY_MAGIC in head[:32]:
        _refuse_zip_bomb(path)
        form = "PyTorch (zip)" if head.startswith(b"PK") else "PyTorch (legacy)"
        content, wrappers = _unwrap(_read_torch(path))
    elif head[8:9] == b"{":
        form = "safetensors"
        content, metadata = _read_safetensors(path)
    else:
        guess = next(
            (what for start, what in _NOT_WEIGHTS if head.lstrip().startswith(start)),
            "neither safetensors nor a PyTorch file",
        )
        raise WeightsError(f"{path}: not a checkpoint: {guess}")
    whole, dtypes = _check(content, path)
    state, prefixes = _without_prefix(whole, path)
    return Checkpoint(state, metadata, form, wrappers, prefixes, len(whole) - len(state), dtypes)


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path}: a folder, not a checkpoint file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise WeightsError(f"{path}: the file is empty")
    return head


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or truncated safetensors: {error}") from error


def _limit(path: Path) -> int:
    """Bytes that the content of a file may have."""
    return max(_GROWTH * path.stat().st_size, _ALWAYS_ALLOWED)


def _refuse_zip_bomb(path: Path) -> None:
    """Refuse, before it is unpacked, an archive that unpacks to far more than its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # not a zip file, or a damaged one, which reading it will say
    if unpacked > _limit(path):
        raise WeightsError(
            f"{path}: {path.stat().st_size} bytes that unpack to {unpacked}: no checkpoint is "
            "packed like this, and it is not read"
        )


def _read_torch(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way; no callback runs in here
        message = str(error)
        code = re.search(r"GLOBAL ([\w.]+)", message)
        if code:
            reason = f"holds code ({code[1]}), which is never run; ask for a file of tensors only"
        elif "TorchScript" in message:
            reason = "a TorchScript program, not a state dict"
        else:
            first_line = (message.splitlines() or [""])[0][:200]
            reason = f"damaged or truncated: {first_line or type(error).__name__}"
        raise WeightsError(f"{path}: {reason}") from error


def _unwrap(content: object) -> tuple[object, tuple[str, ...]]:
    """What is inside the wrappers, and these; two at most, for a pickle may contain itself."""
    wrappers: list[str] = []
    while isinstance(content, Mapping) and len(wrappers) < 2:
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
        wrappers.append(key)
    return content, tuple(wrappers)


def _check(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """All entries as finite dense tensors, floating-point ones as float32; and the types seen."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if not content:
        raise WeightsError(f"{path}: holds no tensors")
    state, not_finite, held = {}, [], 0
    dtypes: Counter[str] = Counter()
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: not a state dict: entry {str(key)[:80]!r} is a {type(value).__name__}, "
                "not a tensor"
            )
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise WeightsError(f"{path}: tensor '{key}' is sparse, quantised or complex")
        # Views let a small file claim any size; this is before a copy makes it true.
        held += value.numel() * max(value.element_size(), 4)
        if held > _limit(path):
            raise WeightsError(f"{path}: its tensors are far larger than the file, at {key!r}")
        dtypes[str(value.dtype).removeprefix("torch.")] += 1
        if value.is_floating_point():
            value = value.detach().to(torch.float32)
            if not torch.isfinite(value).all():
                not_finite.append(key)
        state[key] = value
    if not_finite:
        raise WeightsError(
            f"{path}: {len(not_finite)} tensors hold NaN or infinity: {quote_some(not_finite)}"
        )
    return state, dict(dtypes)


def _without_prefix(
    state: dict[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Bare names: without ``module.`` (data-parallel training) and ``vqvae.`` (RestoreFormer)."""
    prefixes = []
    if all(key.startswith("module.") for key in state):
        prefixes.append("module.")
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if any(key.startswith("vqvae.") for key in state):
        prefixes.append("vqvae.")
        whole = len(state)
        state = {
            key.removeprefix("vqvae."): tensor
            for key, tensor in state.items()
            if key.startswith("vqvae.") and key != "vqvae.quantize.utility_counter"
        }
        logger.info("%s: %d tensors beside the network left out", path, whole - len(state))
    return state, tuple(prefixes)
