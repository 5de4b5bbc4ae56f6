"""The types of the pack's sockets, and what they carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.align import align
from ..gfp_core.crops import resize_crops
from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions
from .comfy.models import Managed

Restorer = io.Custom("GFP_RESTORER")
Detector = io.Custom("GFP_DETECTOR")
FacesType = io.Custom("GFP_FACES")
Parser = io.Custom("GFP_PARSER")
Embedder = io.Custom("GFP_EMBEDDER")
Options = io.Custom("GFP_OPTIONS")
BoundingBox = io.Custom("BOUNDING_BOX")  # the core's, which older versions have no class for


@dataclass(frozen=True)
class FacesOfImage:
    """What a GFP_FACES socket carries."""

    faces: Faces
    frames: Tensor | None
    """The frames (B, C, H, W) they were cut from, upstream's own and never changed; None where
    another node has worked on the crops, so that they must not be cut anew."""

    def at_size(self, size: int) -> Faces:
        """Return the faces with crops of ``size`` pixels, cut anew where that is possible."""
        crops = self.faces.crops
        if crops is None or crops.shape[-1] == size:
            return self.faces
        if self.frames is None:
            return resize_crops(self.faces, size)
        return align(self.frames, self.faces, size)


@dataclass(frozen=True, eq=False)
class FurtherOptions:
    """What a GFP_OPTIONS socket carries."""

    options: RestoreOptions = field(default_factory=RestoreOptions)
    parser: Managed[Any] | None = None
    embedder: Managed[Any] | None = None
    region: Tensor | None = None
    """ComfyUI's MASK."""
    frame_mask: Tensor | None = None
    """ComfyUI's MASK."""
    people: Tensor | None = None
    """Pictures (R, H, W, C)."""
    reference: Tensor | None = None
    """Pictures (1 or B, H, W, C)."""
