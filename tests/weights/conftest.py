"""A local Hub, and weights that come from it."""

import hashlib
import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from gfp_core.weights import download
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights

# Beside this file, and no package is around them.
_spec = importlib.util.spec_from_file_location(
    "local_hub", Path(__file__).with_name("local_hub.py")
)
local_hub = importlib.util.module_from_spec(_spec)
sys.modules["local_hub"] = local_hub
_spec.loader.exec_module(local_hub)

CONTENT = random.Random(0).randbytes(40_000)


def set_constant(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Set a constant of huggingface_hub, also where its older versions have a second copy."""
    monkeypatch.setattr(constants, name, value)
    if hasattr(file_download, name):
        monkeypatch.setattr(file_download, name, value)


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Sets a constant of huggingface_hub for the rest of the test."""
    return lambda name, value: set_constant(monkeypatch, name, value)


@pytest.fixture
def content() -> bytes:
    """What the file that is downloaded holds."""
    return CONTENT


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A local Hub that huggingface_hub takes for the Hub, with short waits and an own cache.

    The constants are those that HF_ENDPOINT and the other variables set at import; tests that run
    a process of their own set the variables.
    """
    with local_hub.serving() as served:
        served.files["me/nets/net.onnx"] = CONTENT
        values = {
            "ENDPOINT": served.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.address
            + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": False,
        }
        for name, value in values.items():
            set_constant(monkeypatch, name, value)
        monkeypatch.setattr(download, "BLOCK", 1000)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        for name in ("GFP_CATALOGUE", "GFP_WEIGHTS_DIR", "GFP_HUB_REPO", "GFP_NO_DOWNLOAD"):
            monkeypatch.delenv(name, raising=False)
        impatient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
            monkeypatch.setattr(f"{module}.time", impatient)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's folder of weights."""
    return tmp_path / "models"


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Path]:
    """Writes a user's catalogue with the one row ``net``; keywords change fields or drop them."""

    def write(**changes: Any) -> Path:
        fields: dict[str, Any] = {
            "name": "net",
            "role": "detector",
            "architecture": "yunet",
            "file": "net.onnx",
            "format": "onnx",
            "size": len(CONTENT),
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "licence": "MIT",
            "commercial": "yes",
            "reason": "a test",
            "sources": [{"repo": "me/nets", "path": "net.onnx"}],
            **changes,
        }
        lines = [f"{key} = {_toml(value)}" for key, value in fields.items() if value is not None]
        file = tmp_path / "weights.toml"
        file.write_text("[[weights]]\n" + "\n".join(lines), encoding="utf-8")
        return file

    return write


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


@pytest.fixture
def weights(hub: Any, folder: Path, catalogue: Callable[..., Path]) -> Callable[..., Weights]:
    """Weights of a catalogue with the row ``net``, see `catalogue`."""

    def make(settings: dict[str, Any] | None = None, **changes: Any) -> Weights:
        options = {"folders": (folder,), **(settings or {})}
        return Weights(Settings(catalogue_file=catalogue(**changes), **options))

    return make
