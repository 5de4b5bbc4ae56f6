"""Checkpoint files to state dicts and networks; whatever is wrong with a file is one clear error.

The format is found from the content, not from the file's name, before PyTorch sees the file (see
`forms`): safetensors, or PyTorch's own in its zip and its legacy form. The latter two are read with
``weights_only=True`` by PyTorch 2.6 or newer, so that a pickle cannot run code.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..networks import parsing, registry, retinaface, spandrel_adapter
from ..networks.face_descriptor import FaceDescriptor
from ..networks.state import OwnState, quote_some
from . import WeightsError, forms
from .difference import Difference, about_of, check_base, difference_of, find_base
from .files import open_regular
from .packages import read_member

if TYPE_CHECKING:
    from .store import Weights

logger = logging.getLogger(__name__)

MIN_TORCH = (2, 6)
"""Version of PyTorch from which on pickles are read: older ones can be made to run code."""
WRAPPERS = (
    "params_ema",
    "net_g_ema",
    "g_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "ema_model",
    "averaged_model",
    "ema_params",
    "ema",
    "teacher",
    "params",
    "net_g",
    "netg",
    "generator",
    "g",
    "state_dict",
    "model",
    "student",
    "weights",
    "net",
)
"""What files wrap the state dict in, the better choice first (averages before raw weights); in any
case of letters, and also with ``_state_dict`` behind."""
# Beginnings of names that are no part of any network's, and are taken off wherever all have one.
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "params_ema.",
    "params.",
    "state_dict.",
    "net_g.",
    "net_g_ema.",
)
_DESCRIPTOR_FILE = "face_recognition_model"
_DESCRIPTOR_ADVICE = (
    "get it with `gfp weights get face-descriptor`, or download the project vladmandic/face-api "
    f"and give its folder, its .tgz package or the file {_DESCRIPTOR_FILE}.bin"
)


def load_network(
    path: str | os.PathLike[str],
    architecture: str | None = None,
    *,
    person_strength: float = 1.0,
    weights: Weights | None = None,
) -> nn.Module:
    """Load a checkpoint into the network it belongs to.

    Args:
        path: the file: a network's, or the difference that `person.learn` made, which is added to
            its base.
        architecture: name of a row of `registry.ARCHITECTURES`; by default the one that the
            file's metadata names, as converted files do, or else the one identified from the
            tensors' names. A network that is none of these is loaded through spandrel, if that is
            installed and knows it, which a log line says.
        person_strength: share of such a difference; 0 gives the base.
        weights: where the base of such a difference is looked for; by default as the user's
            settings say.

    Returns:
        The network on the CPU, in float32, in evaluation mode.

    Raises:
        WeightsError: the file cannot be read, fits no (or not this) architecture, or is a
            difference to weights that are not here; says why.
    """
    state, metadata = load_state_dict(path)
    difference = difference_of(state, metadata, Path(path))
    if difference is not None:
        base = find_base(difference, Path(path), weights)
        return load_with(difference, base, Path(path), person_strength)
    return network_of(state, metadata, path, architecture)


def load_with(difference: Difference, base: Path, path: Path, strength: float = 1.0) -> nn.Module:
    """Load a base with a share of what was learned added to it.

    Args:
        difference: what was learned.
        base: file of the base.
        path: file of the difference, for messages.
        strength: the share; 0 gives the base.

    Raises:
        WeightsError: the base cannot be read, or is another than the difference was learned on.
    """
    state, metadata = load_state_dict(base)
    check_base(difference, state, path)
    changed = difference.added_to(state, strength)
    return network_of(changed, metadata, path, difference.about.get("architecture"))


def read_difference(path: str | os.PathLike[str]) -> Difference | None:
    """Read what a network learned beyond its base; None if the file is no difference.

    Raises:
        WeightsError: the file cannot be read.
    """
    path = Path(path)
    with _opened(path) as file:
        if forms.identify(file, path) != "safetensors":
            return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if about_of(file.metadata() or {}) is None:
                return None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or truncated safetensors: {error}") from error
    state, metadata = load_state_dict(path)
    return difference_of(state, metadata, path)


def network_of(
    state: dict[str, Tensor],
    metadata: Mapping[str, str],
    path: str | os.PathLike[str],
    architecture: str | None = None,
) -> nn.Module:
    """Build the network of a state dict that was read from a file; see `load_network`."""
    named = metadata.get("architecture")
    if architecture is None and any(named == row.name for row in registry.ARCHITECTURES):
        architecture = named
    try:
        if architecture is None:
            architecture = registry.identify(state).name
    except registry.NotRunError as error:
        raise WeightsError(f"{path}: {error}") from error
    except ValueError as error:
        return _load_foreign(state, path, error)
    try:
        # A file in use cannot be replaced on Windows: there the network has a copy.
        own = state if os.name == "nt" else OwnState(state)
        return registry.build(own, architecture).eval()
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _load_foreign(
    state: dict[str, Tensor], path: str | os.PathLike[str], unknown: ValueError
) -> nn.Module:
    """Load a network that is none of this package's.

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
        manifest = _json(beside.read_bytes(), beside) if beside.is_file() else None
    else:
        member = f"package/model/{_DESCRIPTOR_FILE}-weights_manifest.json"
        content = read_member(source, member, _DESCRIPTOR_ADVICE).read()
        manifest = _json(content, f"{source}: {member}")
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


def _json(content: bytes, name: object) -> Any:
    """Read JSON.

    Raises:
        WeightsError: it is none; names the file.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name}: no JSON, or damaged: {error}") from error


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
    unused: int
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
    metadata: dict[str, str] = {}
    wrappers: tuple[str, ...] = ()
    content: object
    with _opened(path) as file:
        form = forms.identify(file, path)
        if form != "safetensors":
            content = load_pickle(file, path)
            _say_left_out(content, path)
            content, wrappers = _unwrap(content)
    if form == "safetensors":
        content, metadata = _read_safetensors(path)
    whole, dtypes = _check(content, path)
    if about_of(metadata) is not None:  # its names are those of its base already
        return Checkpoint(whole, metadata, form, wrappers, (), 0, dtypes)
    state, prefixes = _without_prefixes(whole, path)
    return Checkpoint(state, metadata, form, wrappers, prefixes, len(whole) - len(state), dtypes)


def load_pickle(
    source: BinaryIO | str | os.PathLike[str],
    name: object = None,
    *,
    device: torch.device | str = "cpu",
) -> Any:
    """Read what ``torch.save`` wrote, without running any code in the file.

    The only way to `torch.load` of this package. The archive's form is looked at first, see
    `forms.identify`. Harmless objects beside the tensors that PyTorch refuses by itself (NumPy
    numbers, paths, a defaultdict, what Lightning notes) come as stand-ins, which hold nothing;
    nothing of the modules they name is imported or called.

    Args:
        source: a file, or a binary stream that can be read again from its beginning.
        name: of a stream, for messages.
        device: where the tensors go.

    Raises:
        WeightsError: PyTorch is too old to be trusted with this, the file is of another form,
            damaged, or holds code.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with _opened(path) as file:
            return load_pickle(file, path, device=device)
    if forms.identify(source, name) == "safetensors":
        raise WeightsError(f"{name}: a safetensors file, not one of torch.save")
    if _torch_version() < MIN_TORCH:
        raise WeightsError(
            f"{name}: PyTorch {torch.__version__} may run code that is hidden in such a file "
            "(CVE-2025-32434): install PyTorch 2.6 or newer to read .pth, .pt and .ckpt files, or "
            "take a safetensors file, which older ones read safely"
        )
    try:
        try:
            return torch.load(source, map_location=device, weights_only=True)
        except pickle.UnpicklingError as error:
            if _global_in(error) not in _STAND_INS:
                raise
        source.seek(0)
        with _LOCK, torch.serialization.safe_globals(list(_STAND_INS.values())):
            return torch.load(source, map_location=device, weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way; no callback runs in here
        code = _global_in(error)
        if code:
            reason = f"holds code ({code}), which is never run; ask for a file of tensors only"
        else:
            first_line = (str(error).splitlines() or [""])[0][:200]
            reason = f"damaged or truncated: {first_line or type(error).__name__}"
        raise WeightsError(f"{name}: {reason}") from error


_LOCK = threading.Lock()  # PyTorch's list of what may be read is one for the whole process


class _StandIn:
    """Stands for an object of another program: takes and forgets whatever it is given."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _empty_dict(*_: object) -> dict[object, object]:
    return {}


def _stand_in(name: str) -> tuple[Any, str]:
    if name == "collections.defaultdict":
        return _empty_dict, name
    return type(name, (_StandIn,), {}), name


# Full names in pickles: of what is stood in for. Older NumPy has its parts under numpy.core.
_STAND_INS: dict[str, tuple[Any, str]] = {
    name: _stand_in(name)
    for name in (
        "collections.defaultdict",
        *(f"builtins.{kind}" for kind in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        "numpy.dtype",
        "numpy.ndarray",
        *(
            f"numpy.dtypes.{kind}{bits}DType"
            for kind in ("Int", "UInt")
            for bits in (8, 16, 32, 64)
        ),
        *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Float16", "Float32", "Float64", "Str")),
        *(
            f"{module}.{kind}"
            for module in ("pathlib", "pathlib._local")
            for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        ),
        "argparse.Namespace",
        "typing.Any",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
        *(
            f"{package}.callbacks.{callback}"
            for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
            for callback in (
                "model_checkpoint.ModelCheckpoint",
                "early_stopping.EarlyStopping",
                "lr_monitor.LearningRateMonitor",
            )
        ),
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    )
}


def _global_in(error: BaseException) -> str:
    """Give the full name of what a pickle asks for and may not have; else an empty text."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    if match is None:
        return ""
    # PyTorch leaves "builtins." out.
    return match[1] if "." in match[1] else f"builtins.{match[1]}"


def _torch_version() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])


def _opened(path: Path) -> BinaryIO:
    """Open a checkpoint.

    Raises:
        WeightsError: it cannot be read.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: a folder, not a checkpoint file")
    try:
        return open_regular(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or truncated safetensors: {error}") from error


def _unwrap(content: object) -> tuple[object, tuple[str, ...]]:
    """Take off the wrappers, and name these; few at most, for a pickle may contain itself.

    A wrapper of an unknown name is taken if nothing else in the file holds tensors.
    """
    wrappers: list[str] = []
    while isinstance(content, Mapping) and len(wrappers) < 3:
        if any(isinstance(value, Tensor) for value in content.values()):
            break
        inner = [key for key, value in content.items() if _holds_tensors(value)]
        named = [key for key in _wrapper_order(content) if isinstance(content[key], Mapping)]
        if not named and len(inner) != 1:
            break
        key = next((key for key in named if key in inner), (named or inner)[0])
        content = content[key]
        wrappers.append(str(key))
    return content, tuple(wrappers)


def _wrapper_order(names: Iterable[object]) -> list[Any]:
    """Select the names of `WRAPPERS` from names, in its order."""
    keys = {str(name).lower(): name for name in names}
    order = (name for wrapper in WRAPPERS for name in (wrapper, f"{wrapper}_state_dict"))
    return [keys[name] for name in order if name in keys]


def _holds_tensors(content: object, depth: int = 0) -> bool:
    """Tell whether a mapping is a state dict or wraps one."""
    if not isinstance(content, Mapping) or depth > 2:
        return False
    values = content.values()
    names = all(isinstance(key, str) for key in content)
    return names and any(
        isinstance(value, Tensor) or _holds_tensors(value, depth + 1) for value in values
    )


def _check(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Check all entries: finite dense tensors, as float32 if floating-point; count their types."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if not content:
        raise WeightsError(f"{path}: holds no tensors")
    if _is_optimizer(content):
        raise WeightsError(
            f"{path}: what an optimizer needs to go on with a training, without the network: take "
            "the file of the network that was saved beside it"
        )
    state, not_finite, total = {}, [], 0
    dtypes: Counter[str] = Counter()
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: not a state dict: entry {str(key)[:80]!r} is a {type(value).__name__}, "
                f"not a tensor{_several(content)}"
            )
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise WeightsError(f"{path}: tensor {str(key)[:80]!r} is sparse, quantised or complex")
        # Views let a small file claim any size; this is before a copy makes it true.
        total += value.numel() * max(value.element_size(), 4)
        if total > forms.size_limit(path.stat().st_size):
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


def _is_optimizer(content: Mapping[Any, Any]) -> bool:
    """Tell whether a file holds the state of an optimizer and nothing besides that is weights."""
    if any(isinstance(value, Tensor) for value in content.values()):
        return False
    return "param_groups" in content or any("optim" in str(key).lower() for key in content)


def _say_left_out(content: object, path: Path) -> None:
    """Say that averages in a list (torch_ema, diffusers) are left out: nothing names them."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(value, Mapping) and isinstance(value.get("shadow_params"), list):
                logger.warning(
                    "%s: the averages under %r are a list without names and left out; the weights "
                    "that they are of are used, which restore less well",
                    *(path, str(key)[:40]),
                )


def _several(content: Mapping[Any, Any]) -> str:
    """Say what to do with a file that holds more than one state dict; empty if it does not."""
    inner = [str(key)[:40] for key, value in content.items() if _holds_tensors(value)]
    if len(inner) < 2:
        return ""
    return f"; it holds {quote_some(inner)}: save one of these in a file of its own"


def _without_prefixes(
    state: dict[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take off what stands before the bare names, and list it.

    ``module.`` is data-parallel training's, ``_orig_mod.`` that of torch.compile, ``vqvae.`` that
    of RestoreFormer; a wrapper's name may have become one. Any other common beginning, such as
    Lightning's attribute, is taken off where a network of this package comes out.
    """
    prefixes: list[str] = []
    whole = len(state)
    while len(prefixes) < 5:
        if prefix := _common_prefix(state):
            state = _below(state, prefix)
        elif any(key.startswith("vqvae.") for key in state):
            prefix = "vqvae."
            state = _below(state, prefix)
            state.pop("quantize.utility_counter", None)
        elif prefix := _network_prefix(state):
            state = _below(state, prefix)
        else:
            break
        prefixes.append(prefix)
    if len(state) < whole:
        logger.info("%s: %d tensors beside the network left out", path, whole - len(state))
    return state, tuple(prefixes)


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix, without it."""
    return {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }


def _network_prefix(state: dict[str, Tensor]) -> str:
    """Find the first part of names under which a network of this package is; else an empty text."""
    if _is_network(state):
        return ""
    roots = {key.split(".")[0] for key in state if "." in key}
    first = _wrapper_order(roots)
    for root in (*first, *sorted(roots.difference(first))):
        inner = _below(state, f"{root}.")
        while prefix := _common_prefix(inner):
            inner = _below(inner, prefix)
        if _is_network(inner):
            return f"{root}."
    return ""


def _common_prefix(state: dict[str, Tensor]) -> str:
    return next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), "")


def _is_network(state: dict[str, Tensor]) -> bool:
    return (
        retinaface.identify(state) is not None
        or parsing.identify(state) is not None
        or any(all(key in state for key in row.signature) for row in registry.ARCHITECTURES)
    )
