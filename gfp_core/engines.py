"""Other ways to run a network than PyTorch: OpenVINO on a CPU, for those who choose it."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .io.atomic import commit
from .weights.settings import cache_folder

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference from PyTorch, in [-1, 1], with which an exported network is taken."""


class EngineError(RuntimeError):
    """An engine cannot run a network; says why."""


def openvino_form(
    net: nn.Module,
    size: int,
    folder: Path | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Callable[[Tensor], Tensor]:
    """A network in OpenVINO, one face at a time.

    The first time it is exported, which takes half a minute and more, compared with PyTorch, and
    kept on disk under a hash of its weights and of the versions involved.

    Args:
        net: maps (1, 3, size, size) to the same; on the CPU, in evaluation mode.
        size: side of the crops.
        folder: where exported networks are kept; by default in the user's cache.
        dtype: float32, or bfloat16 for twice the speed where the CPU has instructions for it; where
            it has none OpenVINO stays with float32.

    Returns:
        (B, 3, size, size) float32 on the CPU -> the same shape.

    Raises:
        ImportError: OpenVINO is not installed; names the extra.
        EngineError: it cannot export the network, or what it exports gives another picture.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "the engine 'openvino' needs OpenVINO: pip install gfp-face-restoration[openvino]"
        ) from error

    if folder is None:
        cache = cache_folder()
        if cache is None:
            raise EngineError("OpenVINO needs a folder for its networks: set XDG_CACHE_HOME")
        folder = cache / "openvino"
    about = f"{size} {version('openvino')}"
    path = folder / f"{fingerprint(net, about)}.xml"
    sample = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fresh = not path.is_file()
    try:
        model: Any = openvino.Core().read_model(path) if not fresh else _export(net, sample)
        run = _compile(model, torch.float32 if fresh else dtype)
    except RuntimeError as error:  # of the converter and of the compiler
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(f"OpenVINO cannot run {type(net).__name__}: {reason}") from error
    if not fresh:
        return run
    with torch.no_grad():
        difference = float((run(sample) - net(sample)).abs().max())
    if not difference <= TOLERANCE:
        raise EngineError(f"OpenVINO's {type(net).__name__} is {difference:.1e} from PyTorch's")
    _keep(model, path)
    return run if dtype == torch.float32 else _compile(model, dtype)


def _compile(model: Any, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)

    def run(x: Tensor) -> Tensor:
        request = compiled.create_infer_request()  # its own, for threads may call at once
        faces = [torch.from_numpy(request.infer([face[None].numpy()])[0]).clone() for face in x]
        return torch.cat(faces)

    return run


def _export(net: nn.Module, sample: Tensor) -> Any:
    import openvino

    logger.info("Exporting %s to OpenVINO, once.", type(net).__name__)
    with torch.no_grad(), warnings.catch_warnings():
        # Python's decisions are for this size and a CPU, as they should be.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", FutureWarning)  # that tracing will go some day
        traced = torch.jit.trace(net, sample, check_trace=False)
        return openvino.convert_model(traced, example_input=sample)


def _keep(model: Any, path: Path) -> None:
    """Write both files of an exported network; the one that is looked for appears last."""
    import openvino

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            openvino.save_model(model, written, compress_to_fp16=False)
            commit(written.with_suffix(".bin"), path.with_suffix(".bin"))
            commit(written, path)
    except OSError as error:
        logger.warning("The exported network cannot be kept in %s: %s", path.parent, error)


def fingerprint(net: nn.Module, about: str) -> str:
    """Hash a network, its weights, PyTorch's version and ``about``: what an export depends on."""
    digest = hashlib.sha256(f"{type(net).__name__} {about} {torch.__version__}".encode())
    for module in ("engines.py", "onnx_engine.py", "networks"):  # what is traced
        source_path = Path(__file__).with_name(module)
        for source in [source_path] if source_path.is_file() else sorted(source_path.glob("*.py")):
            digest.update(source.read_bytes())
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        if not tensor.is_contiguous() and tensor.ndim == 4:  # channels last: hashed as it lies
            tensor = tensor.permute(0, 2, 3, 1)
        digest.update(tensor.detach().contiguous().numpy().reshape(-1).data)
    return digest.hexdigest()[:32]
