"""Networks in ComfyUI's memory management: loaded by name, and on their device while they work."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import comfy.model_management
import comfy.model_patcher
import torch

from ...gfp_core.detect import FaceDetector
from ...gfp_core.embed import FaceEmbedder, load_embedder
from ...gfp_core.options import Engine, Precision, Provider
from ...gfp_core.parse import FaceParser
from ...gfp_core.pipeline import (
    FaceRestorer,
    find_detector,
    find_parser,
    find_restorer,
    restorer_of,
)
from ...gfp_core.restore import DEFAULT_CHUNK, Restorer
from ...gfp_core.weights import WeightsError
from ...gfp_core.weights.catalogue import Role
from ...gfp_core.weights.difference import Difference
from . import folders
from .memory import is_stateless
from .progress import Bar

logger = logging.getLogger(__name__)

DevicePolicy = Literal["auto", "cpu"]
ENGINE_PACKAGES: dict[Engine, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx"),
}
"""What has to be installed for engines that are not PyTorch."""
Runner = TypeVar("Runner")


@dataclass(frozen=True, eq=False)
class Managed(Generic[Runner]):
    """A network that ComfyUI moves to its device for use, and away when others need the memory."""

    name: str
    """As the loader lists it."""
    runner: Runner
    patcher: comfy.model_patcher.ModelPatcher | None
    """None for what does not run in PyTorch."""
    serial: int = field(default_factory=itertools.count().__next__)
    """Another for each network that was loaded."""

    def ready(self, memory: float = 0.0) -> Runner:
        """Bring the network to its device, with ``memory`` bytes free beside it.

        Of networks that work together see `join`.
        """
        _bring([self], memory)
        return self.runner


def join(
    restorer: Managed[Restorer] | None = None,
    detector: Managed[FaceDetector] | None = None,
    parser: Managed[FaceParser] | None = None,
    embedder: Managed[FaceEmbedder] | None = None,
    *,
    memory: float = 0.0,
) -> FaceRestorer:
    """Bring the networks that work together to their devices, with ``memory`` bytes free beside.

    ComfyUI is asked for all of them at once: asked for one after the other it may move the first
    away again for the second, and does where it runs with --disable-smart-memory.
    """
    networks = (restorer, detector, parser, embedder)
    _bring([network for network in networks if network is not None], memory)
    return FaceRestorer(
        restorer=None if restorer is None else restorer.runner,
        detector=None if detector is None else detector.runner,
        parser=None if parser is None else parser.runner,
        embedder=None if embedder is None else embedder.runner,
    )


def _bring(networks: Sequence[Managed[Any]], memory: float) -> None:
    """Bring networks to their devices, all at once."""
    patchers = [network.patcher for network in networks if network.patcher is not None]
    if patchers:
        comfy.model_management.load_models_gpu(
            patchers, memory_required=memory, force_full_load=True
        )
    for patcher in patchers:
        patcher.model.to(patcher.load_device)


def load_restorer(
    name: str,
    precision: Precision = "auto",
    policy: DevicePolicy = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
) -> Managed[Restorer]:
    """Read a restorer; it is downloaded first if need be.

    Raises:
        ValueError: the weights are not available or not readable, or the engine's packages are not
            installed; says why and what to do.
    """
    device = _device_beside(engine, policy)
    restorer = find_restorer(
        fetched("restorer", name),
        precision=precision,
        engine=engine,
        provider=provider,
        weights=folders.weights("restorer"),
    )
    return _manage(name, restorer, device)


def _device_beside(engine: Engine, policy: DevicePolicy) -> DevicePolicy:
    """Return where PyTorch's network is beside an engine.

    Raises:
        ValueError: the engine's packages are not installed; says what to do.
    """
    packages = ENGINE_PACKAGES.get(engine, ())
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ValueError(
            f"engine: {engine} needs {' and '.join(missing)}: install what is missing for "
            f"{sys.executable} (of onnxruntime the build for your card), or choose auto."
        )
    # Another engine has memory of its own; PyTorch's network stays where it is exported from.
    return "cpu" if packages else policy


def manage_person(
    difference: Difference, name: str, precision: Precision, policy: DevicePolicy
) -> Managed[Restorer]:
    """Make a restorer of what was learned of a person.

    Raises:
        ValueError: its base is not here.
    """
    path = Path(folders.paths("restorer")[0]) / name
    weights = folders.weights("restorer")
    return _manage(
        name, restorer_of(difference, path, precision=precision, weights=weights), policy
    )


def device_of(policy: DevicePolicy) -> torch.device:
    """Return the device that a policy stands for."""
    cpu = torch.device("cpu")
    return cpu if policy == "cpu" else comfy.model_management.get_torch_device()


def make_room(needed: float, device: torch.device) -> None:
    """Let ComfyUI move other networks away until so many bytes are free on a device."""
    comfy.model_management.free_memory(needed, device)


def load_face_detector(
    name: str, policy: DevicePolicy, engine: Engine = "auto", provider: Provider = "auto"
) -> Managed[FaceDetector]:
    """Read a detector; it is downloaded first if need be.

    Raises:
        ValueError: as `load_restorer`.
    """
    device = _device_beside(engine, policy)
    detector = find_detector(
        fetched("detector", name),
        device="cpu",
        weights=folders.weights("detector"),
        engine=engine,
        provider=provider,
    )
    if engine == "onnxruntime" and type(detector) is not FaceDetector:
        logger.warning("%s is no RetinaFace: onnxruntime does not run it.", name)
    detector.before_look = comfy.model_management.throw_exception_if_processing_interrupted
    return _manage(name, detector, device)


def load_face_parser(name: str, policy: DevicePolicy) -> Managed[FaceParser]:
    """Read a face parser; it is downloaded first if need be.

    Raises:
        ValueError: the weights are not available or not readable; says why and what to do.
    """
    target = fetched("parser", name)
    parser = find_parser(target, device="cpu", weights=folders.weights("parser"))
    return _manage(name, parser, policy)


def load_face_embedder(name: str, policy: DevicePolicy) -> Managed[FaceEmbedder]:
    """Read a face embedder; it is downloaded first if need be.

    Raises:
        ValueError: the weights are not available or not readable; says why and what to do.
    """
    target = fetched("embedder", name)
    embedder = load_embedder(target, device="cpu", weights=folders.weights("embedder"))
    return _manage(name, embedder, policy)


LAST_USED: dict[Role, tuple[str, Managed[Any]]] = {}
"""One network of each role, for nodes that name it instead of taking a loader's: so it is not read
again for each image. It is in main memory, and on the device as long as ComfyUI lets it."""


def last_used(role: Literal["restorer", "detector"], name: str) -> Managed[Any]:
    """Return the network of this name with the loader's defaults; the one before it is let go.

    Raises:
        ValueError: the weights are not available or not readable; says why and what to do.
    """
    key = folders.fingerprint(role, name)
    if role not in LAST_USED or LAST_USED[role][0] != key:
        LAST_USED.pop(role, None)  # first, for there may be no room for both
        loaded: Managed[Any] = (
            load_restorer(name, "auto", "auto")
            if role == "restorer"
            else load_face_detector(name, "auto")
        )
        if is_stateless():
            return loaded
        LAST_USED[role] = key, loaded
    return LAST_USED[role][1]


def working_memory(
    restorer: Managed[Restorer], batch_size: int | None, count: int = DEFAULT_CHUNK
) -> float:
    """Return the bytes that a restorer needs beside its weights for a batch of ``count`` faces."""
    return restorer.runner.bytes_per_face * min(batch_size or DEFAULT_CHUNK, count)


def fetched(role: Role, name: str) -> Path | str:
    """Return the user's file, or the row's name once its weights are on this machine."""
    reference = folders.find(role, name)
    if reference.entry is None:
        assert reference.path is not None
        return reference.path
    if role == "detector" and folders.is_here(role, reference.entry):
        return reference.entry.name  # perhaps in a package
    try:
        reference.fetch(folders.weights(role), Bar())
    except WeightsError as error:
        raise WeightsError(folders.advise(role, reference, error)) from error
    return reference.entry.name


def _stop_when_cancelled(net: torch.nn.Module) -> None:
    """Let every layer look whether the user cancels: one pass may take ten seconds on a CPU."""

    def look(*_: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    for module in net.modules():
        if not any(True for _ in module.children()):
            module.register_forward_pre_hook(look)


def _manage(name: str, runner: Runner, policy: DevicePolicy) -> Managed[Runner]:
    net = getattr(runner, "net", None)
    if not isinstance(net, torch.nn.Module):
        return Managed(name, runner, None)
    _stop_when_cancelled(net)
    load = device_of(policy)
    # Not CoreModelPatcher: the dynamic one of newer versions leaves our layers where they are.
    return Managed(name, runner, comfy.model_patcher.ModelPatcher(net, load, torch.device("cpu")))
