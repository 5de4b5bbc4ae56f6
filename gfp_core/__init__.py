"""Face restoration with a generative facial prior: detect, align, restore, color, paste back.

What other programs need is here; docs/python.md shows how. Names are imported when they are used,
so that ``import gfp_core`` takes no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faces import Face, Faces, Tracks
    from .io.images import from_frames, read_image, to_frames, write_image
    from .options import RestoreOptions
    from .pipeline import Extra, FaceRestorer, Restoration

__version__ = "0.1.0"

__all__ = [
    "Extra",
    "Face",
    "FaceRestorer",
    "Faces",
    "Restoration",
    "RestoreOptions",
    "Tracks",
    "from_frames",
    "read_image",
    "to_frames",
    "write_image",
]

_HOMES = {
    "Extra": "pipeline",
    "Face": "faces",
    "FaceRestorer": "pipeline",
    "Faces": "faces",
    "Restoration": "pipeline",
    "RestoreOptions": "options",
    "Tracks": "faces",
    "from_frames": "io.images",
    "read_image": "io.images",
    "to_frames": "io.images",
    "write_image": "io.images",
}


def __getattr__(name: str) -> Any:
    """Import one of the public names from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
