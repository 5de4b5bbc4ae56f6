"""The third step: aligned crops through a restoration network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from .devices import deterministic, in_chunks
from .engines import EngineError, openvino_form
from .faces import Faces, Preview, Progress
from .networks.fast import fast_form
from .onnx_engine import OnnxRestorer, onnx_form
from .options import Engine, Precision, Provider
from .tensors import clamp01

logger = logging.getLogger(__name__)

Forward: TypeAlias = Callable[[Tensor], Tensor]
DEFAULT_CHUNK = 8
"""Faces that go through a network at once on a GPU; one on a CPU, where more gain nothing."""
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _Way(NamedTuple):
    """What runs a network and where."""

    forward: Forward
    device: torch.device
    dtype: torch.dtype
    takes_batches: bool
    """Whether several faces at once are faster."""


class Restorer:
    """Runs a restoration network over the faces of a batch of frames.

    The network may be moved to another device between calls: `restore` runs where it finds it.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        engine: Engine = "auto",
        provider: Provider = "auto",
    ) -> None:
        """Take a network into service: evaluation mode, on ``device``.

        What runs is `net`: the network's fast form, if it has one (`networks.fast`), with its
        weights as they are now.

        Args:
            net: maps (B, 3, S, S) RGB in [-1, 1] to the same; its ``out_size`` says S. One whose
                fidelity can be set has a ``default_fidelity``, and takes ``fidelity``; one in
                steps has ``default_steps``, and takes ``steps``.
            device: where to move the network; by default it stays where it is.
            precision: of the arithmetic. "auto" takes half precision (fp16) where the device
                computes it faster (CUDA from compute capability 7.0), else float32. Weights stay
                float32 in any case.
            engine: what runs the network. "auto" takes the fast form, "plain" the network as
                published; "openvino" exports it to OpenVINO, which is faster on a CPU, at its first
                use, and goes without where that cannot be (another device, fp16, a seed,
                OpenVINO missing), which the log says; "onnxruntime" likewise, in float32, for cards
                that PyTorch does not know.
            provider: what onnxruntime runs on, see `onnx_engine.Session`.

        Raises:
            ValueError: the network does not say its size, or precision or engine are unknown.
        """
        size = getattr(net, "out_size", None)
        if not isinstance(size, int):
            raise ValueError(f"{type(net).__name__} is no restorer: it has no size (out_size)")
        if precision != "auto" and precision not in _DTYPES:
            raise ValueError(f"precision must be auto, fp32, fp16 or bf16, not {precision!r}")
        if engine not in get_args(Engine):
            raise ValueError(f"engine must be auto, plain, openvino or onnxruntime, not {engine!r}")
        net = net.eval() if device is None else net.to(device).eval()
        self.net = net if engine == "plain" else fast_form(net)
        self.precision = precision
        self.engine: Engine = engine
        self.provider: Provider = provider
        self._exported: Forward | None = None
        self.size = size
        """Side of the crops in pixels."""
        self.name = str(getattr(net, "architecture", type(net).__name__))
        """Name of the architecture, as in `networks.registry`."""
        self.has_fidelity = hasattr(net, "default_fidelity")
        """Whether `restore`'s ``fidelity`` has an effect."""
        self.has_steps = hasattr(net, "default_steps")
        """Whether `restore`'s ``steps`` has an effect."""

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        parameter = next(self.net.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def bytes_per_face(self) -> int:
        """Memory that one face needs while it goes through the network, beside its weights.

        Measured in float32, where the network does not say it itself, with GFPGANClean: 0.8 GB.
        """
        published = 800_000_000 * self.size**2 // 512**2
        return int(getattr(self.net, "bytes_per_face", published))

    @property
    def has_noise(self) -> bool:
        """Whether the network adds noise to its features, which a seed changes."""
        return bool(_noise_buffers(self.net))

    def restore(
        self,
        faces: Faces,
        *,
        fidelity: float | None = None,
        seed: int | None = None,
        steps: int | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Faces:
        """Restore the crops of all faces.

        The result does not depend on anything but the input, the network and the precision: the
        same call gives the same bits, another chunk size or another number of threads the same up
        to rounding. When memory runs out the chunk is halved, down to one face. The network is not
        changed: several threads may call one restorer, each with its own seed and fidelity.

        Args:
            faces: aligned faces, with crops (N, 3, S, S) in [0, 1]; values outside are clamped,
                NaN is black, for no network has seen such values.
            fidelity: from 0, as good a face as the network can make, to 1, as faithful to the
                crop as it can be; None for the network's default. A network without this choice
                (see `has_fidelity`) ignores it, which a log line says.
            seed: of the noise that StyleGAN2 decoders add (Karras et al. 2020, section 2.1) or a
                flow starts from, the same for every face, so that frames do not flicker; by
                default, and where the network has none, the noise stored with its weights.
            steps: how many, where the network goes in steps (see `has_steps`); None for its
                default. Others ignore it, which a log line says.
            chunk: faces to run at once; by default 1 on a CPU, 8 elsewhere.
            progress: called as ``progress(done, N)`` after each chunk; may raise to cancel.
            preview: called with each chunk's restored crops, before ``progress``.

        Returns:
            The faces with ``restored`` set: (N, 3, S, S) float32 RGB in [0, 1], on the crops'
            device.

        Raises:
            ValueError: the faces are not aligned, the crops have another size than the network,
                ``fidelity`` lies outside [0, 1], or ``steps`` or ``chunk`` is not positive.
            RuntimeError: the network gives NaN or infinity even in float32.
        """
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        forward, device, dtype, takes_batches = self._way(fidelity, seed, steps)
        crops = self._checked_crops(faces)
        if chunk is None:
            chunk = DEFAULT_CHUNK if takes_batches else 1
        restored = torch.empty(crops.shape, dtype=torch.float32, device=crops.device)
        total, start = len(crops), 0
        for results in in_chunks(
            lambda first, stop: self._run_checked(forward, crops[first:stop], device, dtype, first),
            total,
            chunk,
            device,
            f"a single face is too much for {self.name}; run it on the CPU.",
        ):
            stop = start + len(results)
            restored[start:stop] = results
            if preview is not None:
                preview(restored[start:stop])
            start = stop
            if progress is not None:
                progress(start, total)
        return replace(faces, restored=restored)

    def _checked_crops(self, faces: Faces) -> Tensor:
        """Return the crops (N, 3, S, S) of the faces, or say why the network cannot take them."""
        if faces.crops is None:
            if len(faces) > 0:
                raise ValueError("the faces have no crops: align them before restoring")
            return torch.zeros(0, 3, self.size, self.size)
        if faces.crops.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"crops of shape {tuple(faces.crops.shape[1:])} do not fit {self.name}, which "
                f"takes (3, {self.size}, {self.size}): align with size={self.size}"
            )
        return faces.crops

    def _dtype(self, device: torch.device) -> torch.dtype:
        if self.precision != "auto":
            return _DTYPES[self.precision]
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
        # Not bf16, whose 8 bits of precision show as banding.
        return torch.float16 if fast else torch.float32

    def _way(self, fidelity: float | None, seed: int | None, steps: int | None) -> _Way:
        """Choose what runs the network, its fidelity, steps and noise set, and where."""
        if fidelity is not None and not 0 <= fidelity <= 1:
            raise ValueError(f"fidelity must lie between 0 and 1, not {fidelity}")
        options: dict[str, float] = {}
        if fidelity is not None and self.has_fidelity:
            options["fidelity"] = fidelity
        elif fidelity is not None:
            logger.warning("%s has no fidelity to set: %g has no effect", self.name, fidelity)
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        if steps is not None and self.has_steps:
            options["steps"] = steps
        elif steps is not None:
            logger.warning("%s does not go in steps: %d has no effect", self.name, steps)
        noise = {}
        if seed is not None:  # drawn on the CPU, so that it is the same on every device
            generator = torch.Generator().manual_seed(int(seed))
            for name, stored in _noise_buffers(self.net).items():
                noise[name] = torch.randn(stored.shape, generator=generator).to(stored)
        device = self.device
        dtype = self._dtype(device)
        if self.engine == "openvino" and (exported := self._openvino(bool(options or noise))):
            return _Way(exported, device, dtype, False)
        if self.engine == "onnxruntime" and (form := self._onnxruntime(bool(noise))):
            takes_batches = form.session.takes_batches
            return _Way(
                partial(form, fidelity=options.get("fidelity")),
                torch.device("cpu"),
                torch.float32,
                takes_batches,
            )
        forward = partial(_with_buffers(self.net, noise), **options)
        return _Way(forward, device, dtype, device.type != "cpu")

    def _openvino(self, changed: bool) -> Forward | None:
        """The network in OpenVINO, or None where PyTorch has to do, which the log says."""
        dtype = self._dtype(self.device)
        reason = ""
        if self.device.type != "cpu" or dtype == torch.float16:
            reason = "it is for float32 and bfloat16 on a CPU"
        elif self.has_steps:
            reason = f"{self.name} goes through its network in steps"
        elif changed:
            reason = "it has the network's own noise and fidelity only"
        return self._export(lambda: openvino_form(self.net, self.size, dtype=dtype), reason)

    def _onnxruntime(self, changed: bool) -> OnnxRestorer | None:
        """The network in onnxruntime, or None where PyTorch has to do, which the log says."""
        reason = ""
        if self.precision not in ("auto", "fp32"):
            reason = "it is for float32"
        elif self.has_steps:
            reason = f"{self.name} goes through its network in steps"
        elif changed:
            reason = "it has the network's own noise only"

        def make() -> OnnxRestorer:
            net = self.net if self.device.type == "cpu" else copy.deepcopy(self.net).cpu()
            return onnx_form(net, self.size, self.provider)

        form = self._export(make, reason)
        assert form is None or isinstance(form, OnnxRestorer)
        return form

    def _export(self, make: Callable[[], Forward], reason: str) -> Forward | None:
        """Make the engine's form of the network once; None, and a log line, where it is not used.

        Args:
            make: exports it.
            reason: why the engine is not to be used, if it is not.
        """
        engine = self.engine
        if not reason:
            try:
                if self._exported is None:
                    self._exported = make()
                return self._exported
            except (ImportError, EngineError) as error:
                reason = str(error)
                self.engine = "auto"  # once is enough
        title = {"openvino": "OpenVINO"}.get(engine, engine)
        logger.warning("%s is not used: %s", title, reason)
        return None

    def _run_checked(
        self,
        forward: Forward,
        crops: Tensor,
        device: torch.device,
        dtype: torch.dtype,
        first: int,
    ) -> Tensor:
        """Restore crops ``first``, ``first`` + 1, ..., in float32 if ``dtype`` overflows."""
        if not torch.isfinite(crops).all():
            logger.warning("crops hold NaN or infinity; taken as black or white")
        result = _run(forward, crops, device, dtype)
        indices = f"faces {first} to {first + len(crops) - 1}"
        if dtype != torch.float32 and not torch.isfinite(result).all():
            logger.warning("%s overflows in %s: %s run again in float32", self.name, dtype, indices)
            result = _run(forward, crops, device, torch.float32)
        if not torch.isfinite(result).all():
            raise RuntimeError(
                f"{self.name} gives NaN or infinity for {indices}: its weights must be damaged"
            )
        return ((result + 1) / 2).clamp(0, 1)


def _with_buffers(net: nn.Module, buffers: Mapping[str, Tensor]) -> nn.Module:
    """Return a network that shares all but some of its buffers with another.

    Only the modules that lead to those buffers are new. The network itself is never changed, as
    `torch.func.functional_call` would for the time of a call: other threads may be running it.

    Args:
        net: the network, which stays as it is.
        buffers: tensors by their full names, instead of the network's own.
    """
    if not buffers:
        return net
    view = net.__class__.__new__(net.__class__)
    view.__dict__.update(net.__dict__)
    view._buffers, view._modules = dict(net._buffers), dict(net._modules)
    inner: dict[str, dict[str, Tensor]] = {}
    for name, tensor in buffers.items():
        child, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(child, {})[rest] = tensor
        else:
            view._buffers[name] = tensor
    for child, tensors in inner.items():
        view._modules[child] = _with_buffers(net.get_submodule(child), tensors)
    return view


def _noise_buffers(net: nn.Module) -> dict[str, Tensor]:
    """The noise that a StyleGAN2 decoder stores for its layers, under its names."""
    return {name: noise for name, noise in net.named_buffers() if ".noises.noise" in f".{name}"}


def _run(forward: Forward, crops: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> the same shape, float32, about [-1, 1], on ``device``."""
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        deterministic(device, allow_tf32=dtype != torch.float32),
    ):
        x = clamp01(crops.to(device, torch.float32)) * 2 - 1
        return forward(x).float()
