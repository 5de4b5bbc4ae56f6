"""Networks as ONNX files, and onnxruntime, which runs these on the cards of all makers.

onnxruntime comes in one package for each kind of card (onnxruntime, onnxruntime-gpu,
onnxruntime-directml, onnxruntime-openvino, ...), of which one excludes the others: that
which is installed is taken, and no extra of this package names any.
"""

from __future__ import annotations

import inspect
import io
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .engines import TOLERANCE, EngineError, fingerprint
from .io.atomic import write_bytes
from .options import Provider
from .weights.settings import cache_folder

logger = logging.getLogger(__name__)

PROVIDERS: dict[Provider, str] = {
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""onnxruntime's names, in the order in which "auto" tries them."""
_BY_NAME_ONLY = ("tensorrt",)  # builds for minutes what CUDA runs at once
_BATCHES = ("cuda", "rocm")
"""Providers that take any number of faces at once; for the others each shape is another network."""
ACCELERATOR_TOLERANCE = 0.02
"""Largest difference of a card from PyTorch on the CPU, in [-1, 1]: 2.5 levels of 255."""
OPSET = 17
INPUT, FIDELITY, OUTPUT = "face", "fidelity", "restored"
"""Names of what goes in and what comes out of an exported restorer."""
_EXPORT_ERRORS = (
    RuntimeError,  # the exporter's own, and PyTorch's
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)
"""What an export fails with. Not any Exception: the network may be traced with the hooks of a host
whose cancel is one."""
_INSTALL = (
    "the engine 'onnxruntime' needs {}: pip install gfp-face-restoration[onnx] and the build of "
    "onnxruntime for your card, if none is installed (onnxruntime, onnxruntime-gpu, "
    "onnxruntime-directml, onnxruntime-openvino; one only)"
)


class Session:
    """A network that onnxruntime runs, on the first provider that can."""

    def __init__(self, model: bytes, provider: Provider = "auto") -> None:
        """Load an exported network.

        Args:
            model: the ONNX file's bytes.
            provider: of `PROVIDERS`; "auto" for the first that works. Where a provider does not,
                the CPU's takes its place, which the log says.

        Raises:
            ImportError: onnxruntime is not installed; names the extra.
            EngineError: no provider runs the network.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(_INSTALL.format("onnxruntime")) from error
        self._model = model
        self._lock = threading.Lock()  # DirectML's sessions run one call at a time
        available = set(onnxruntime.get_available_providers())
        names: list[Provider] = [provider]
        if provider == "auto":
            names = [
                name
                for name, full in PROVIDERS.items()
                if full in available and name not in _BY_NAME_ONLY
            ]
        elif provider != "cpu":
            names.append("cpu")
        self._candidates = names
        self.provider: Provider = "auto"
        """The provider in use."""
        self.next_provider("")

    def next_provider(self, reason: str) -> None:
        """Go on with the next provider.

        Args:
            reason: why the one before is not used, for the log.

        Raises:
            EngineError: there is none left.
        """
        before = self.provider
        while self._candidates:
            name = self._candidates.pop(0)
            if reason:
                logger.warning(
                    "onnxruntime's provider %s is not used: %s; going on with %s",
                    before,
                    reason,
                    name,
                )
            before = name
            try:
                self._session = _open(self._model, name)
            except Exception as error:  # each provider has errors of its own
                reason = _reason(error)
                continue
            self.provider = name
            return
        raise EngineError(f"onnxruntime cannot run it with {before}: {reason}")

    @property
    def takes_batches(self) -> bool:
        """Whether several faces at once are faster than one after the other."""
        return self.provider in _BATCHES

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run the network on tensors of the CPU; gives tensors of the CPU."""
        feeds = {
            declared.name: tensor.detach().contiguous().numpy()
            for declared, tensor in zip(self._session.get_inputs(), inputs, strict=True)
        }
        while True:
            is_serial = self.provider == "directml"
            lock: AbstractContextManager[Any] = self._lock if is_serial else nullcontext()
            try:
                with lock:
                    results = self._session.run(None, feeds)
                break
            except Exception as error:  # of the provider's own kind
                if not self._candidates:
                    raise
                self.next_provider(_reason(error))
        return [torch.from_numpy(result) for result in results]


def _open(model: bytes, provider: Provider) -> Any:
    """Open a session of one provider, beside which the CPU's may run what that one does not know.

    Raises:
        RuntimeError: onnxruntime took another provider, which it does when one cannot start.
    """
    import onnxruntime

    full = PROVIDERS[provider]
    if full not in onnxruntime.get_available_providers():
        raise RuntimeError("the installed build of onnxruntime has no such provider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait in a loop would take the cores from PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == "directml":
        options.enable_mem_pattern = False
    if provider not in _BATCHES:
        options.add_free_dimension_override_by_name("faces", 1)
    settings: dict[str, str] = {}
    if provider == "cuda":
        settings = {"use_tf32": "0"}
    providers: list[Any] = [(full, settings)]
    if provider != "cpu":
        providers.append(PROVIDERS["cpu"])
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    if session.get_providers()[0] != full:
        raise RuntimeError("the provider did not start; are the card's drivers installed?")
    return session


class OnnxRestorer:
    """A restorer that onnxruntime runs: called with faces, and with a fidelity if it has one."""

    def __init__(self, net: nn.Module, size: int, session: Session) -> None:
        """Take a session of ``net``; see `onnx_form`."""
        self.session = session
        self._default_fidelity = getattr(net, "default_fidelity", None)

    def __call__(self, x: Tensor, fidelity: float | None = None) -> Tensor:
        """(B, 3, S, S) float32 on the CPU -> the same shape."""
        inputs: list[Tensor] = []
        if self._default_fidelity is not None:
            inputs.append(torch.tensor(self._default_fidelity if fidelity is None else fidelity))
        if self.session.takes_batches:
            return self.session(x, *inputs)[0]
        return torch.cat([self.session(face[None], *inputs)[0] for face in x])


def onnx_form(
    net: nn.Module, size: int, provider: Provider = "auto", folder: Path | None = None
) -> OnnxRestorer:
    """Make the form of a restorer that onnxruntime runs.

    The first time it is exported, compared with PyTorch and kept on disk, under a hash of its
    weights and of the versions involved.

    Args:
        net: maps (B, 3, size, size) to the same; on the CPU, in evaluation mode.
        size: side of the crops.
        provider: see `Session`.
        folder: where exported networks are kept; by default in the user's cache.

    Raises:
        ImportError: onnxruntime or onnx is not installed; names the extra.
        EngineError: the network cannot be exported, or no provider gives PyTorch's picture.
    """
    path = _path(net, str(size), folder)
    is_fresh = path is None or not path.is_file()
    model = export_restorer(net, size) if is_fresh else cast(Path, path).read_bytes()
    form = OnnxRestorer(net, size, Session(model, provider))
    sample = _sample(size)
    with torch.no_grad():
        expected = None
        while is_fresh or form.session.provider != "cpu":
            expected = net(sample) if expected is None else expected
            limit = TOLERANCE if form.session.provider == "cpu" else ACCELERATOR_TOLERANCE
            try:
                difference = float((form(sample) - expected).abs().max())
                if difference <= limit:
                    break
                reason = f"its picture is {difference:.1e} from PyTorch's"
            except Exception as error:  # some fail at the first run only
                reason = _reason(error)
            form.session.next_provider(reason)
    if is_fresh and path is not None:
        keep(model, path)
    logger.info("onnxruntime runs %s with %s.", type(net).__name__, form.session.provider)
    return form


def detector_form(
    net: nn.Module, finest: bool, provider: Provider = "auto", folder: Path | None = None
) -> Session:
    """Make the form of a RetinaFace that onnxruntime runs, on pictures of any size.

    Args:
        net: of `networks.retinaface`, on the CPU, in evaluation mode.
        finest: whether it looks for small faces.
        provider: see `Session`.
        folder: as in `onnx_form`.

    Returns:
        (B, 3, H, W) as `retinaface.preprocess` gives it, on the CPU -> what the network gives.

    Raises:
        ImportError: onnxruntime or onnx is not installed; names the extra.
        EngineError: the network cannot be exported or run.
    """
    path = _path(net, f"finest={finest}", folder)
    if path is not None and path.is_file():
        return Session(path.read_bytes(), provider)
    axes = {0: "pictures", 2: "rows", 3: "columns"}
    prior_axes = {0: "pictures", 1: "priors"}
    outputs = ("boxes", "classes", "landmarks")
    model = _export(
        _Looking(net, finest),
        (100 * torch.rand(2, 3, 96, 128) - 50,),
        inputs=("pictures",),
        outputs=outputs,
        axes={"pictures": axes, **dict.fromkeys(outputs, prior_axes)},
        name=type(net).__name__,
    )
    session = Session(model, provider)
    if path is not None:
        keep(model, path)
    return session


class _Looking(nn.Module):
    """A detector with its choice of levels made."""

    def __init__(self, net: nn.Module, finest: bool) -> None:
        super().__init__()
        self.net, self.finest = net, finest

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result: tuple[Tensor, Tensor, Tensor] = self.net(pictures, finest=self.finest)
        return result


class _WithFidelity(nn.Module):
    """A network whose fidelity is an input like the face."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, fidelity: Tensor) -> Tensor:
        result: Tensor = self.net(x, fidelity=fidelity)
        return result


def export_restorer(net: nn.Module, size: int) -> bytes:
    """Export a restorer as ONNX.

    Args:
        net: in evaluation mode, on the CPU; its fast form for speed.
        size: side of the crops.

    Returns:
        The file's bytes. Input "face" is (faces, 3, size, size) float32 RGB in [-1, 1], output
        "restored" the same; a network with a fidelity has the scalar "fidelity" as second input.

    Raises:
        ImportError: the package onnx is not installed; names the extra.
        EngineError: PyTorch cannot export the network, or it goes in steps.
    """
    if hasattr(net, "default_steps"):
        raise EngineError(
            f"{type(net).__name__} cannot be exported to ONNX: it goes through its network in "
            "steps; take a restorer that does not, or run it with PyTorch"
        )
    arguments: tuple[Tensor, ...] = (_sample(size),)
    inputs: tuple[str, ...] = (INPUT,)
    exported = net
    if (fidelity := getattr(net, "default_fidelity", None)) is not None:
        arguments += (torch.tensor(float(fidelity)),)
        inputs += (FIDELITY,)
        exported = _WithFidelity(net)
    axes = {INPUT: {0: "faces"}, OUTPUT: {0: "faces"}}
    return _export(
        exported, arguments, inputs=inputs, outputs=(OUTPUT,), axes=axes, name=type(net).__name__
    )


def _export(
    net: nn.Module,
    arguments: tuple[Tensor, ...],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
    name: str,
) -> bytes:
    try:
        import onnx  # noqa: F401  (PyTorch's exporter needs it)
    except ImportError as error:
        raise ImportError(_INSTALL.format("the package onnx for the export")) from error
    logger.info("Exporting %s to ONNX, once.", name)
    export: Callable[..., Any] = torch.onnx.export
    settings: dict[str, Any] = {}
    if "dynamo" in inspect.signature(export).parameters:
        settings["dynamo"] = False  # the newer exporter needs another package, and knows no views
    buffer = io.BytesIO()
    is_fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sizes are constants, as they should be
            export(
                net,
                arguments,
                buffer,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                **settings,
            )
    except _EXPORT_ERRORS as error:
        reason = _reason(error)
        raise EngineError(f"{name} cannot be exported to ONNX: {reason}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast_attention)
    return buffer.getvalue()


def keep(model: bytes, path: Path) -> None:
    """Write an exported network; where that is not possible the log says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, model)
    except OSError as error:
        logger.warning("The exported network cannot be kept in %s: %s", path.parent, error)


def _path(net: nn.Module, kind: str, folder: Path | None) -> Path | None:
    """Name the file of an exported network; None where there is no folder for it."""
    if folder is None:
        cache = cache_folder()
        if cache is None:
            return None
        folder = cache / "onnx"
    about = f"{kind} {OPSET} {_version('onnx')}"
    return folder / f"{fingerprint(net, about)}.onnx"


def _reason(error: Exception) -> str:
    """Shorten an error of another library to its first line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "none"


def _sample(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
