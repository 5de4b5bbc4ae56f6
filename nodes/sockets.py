"""The types of the pack's sockets, and what they carry."""

from __future__ import annotations

from collections.abc import Callable
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
FaceLandmarks = io.Custom("FACE_LANDMARKS")  # the core's
Segs = io.Custom("SEGS")  # the Impact Pack's


class FacesOfImage(tuple[Tensor, ...]):
    """What a GFP_FACES socket carries.

    As a tuple it consists of the crops that it holds, which ComfyUI's cache counts in tuples (0.33)
    or asks for (0.3.75) when memory runs short.
    """

    frames: Tensor | None
    """The frames (B, C, H, W) they were cut from, upstream's own and never changed; None where
    another node has worked on the crops, so that they must not be cut anew."""

    def __new__(
        cls, faces: Faces, frames: Tensor | None, make: Callable[[], Faces] | None = None
    ) -> FacesOfImage:
        """Take faces.

        Args:
            faces: with all that is to be held.
            frames: see `frames`.
            make: makes the faces with their crops, where ``faces`` are held without: so a socket
                that nothing is connected to holds nothing.
        """
        made = super().__new__(
            cls, [each for each in (faces.crops, faces.restored) if each is not None]
        )
        made.frames, made._faces, made._make = frames, faces, make
        return made

    _faces: Faces
    _make: Callable[[], Faces] | None

    def __eq__(self, other: object) -> bool:
        """Whether it is this very object: tensors cannot be compared by one word."""
        return self is other

    def __ne__(self, other: object) -> bool:
        """Whether it is another object."""
        return self is not other

    __hash__ = object.__hash__

    @property
    def faces(self) -> Faces:
        """The faces with their crops."""
        return self._faces if self._make is None else self._make()

    @property
    def restored_faces(self) -> Faces:
        """The faces with their crops before and after.

        Raises:
            ValueError: they are not restored yet.
        """
        faces = self.faces
        if len(faces) and faces.restored is None:
            raise ValueError("These faces are not restored: connect Run Face Restorer (GFP) first.")
        return faces

    def with_faces(self, faces: Faces) -> FacesOfImage:
        """Return other faces of the same frames."""
        return FacesOfImage(faces, self.frames)

    def get_ram_usage(self) -> int:
        """Return the bytes that are held; ComfyUI's older caches ask."""
        return sum(each.numel() * each.element_size() for each in self)

    def at_size(self, size: int) -> Faces:
        """Return the faces with crops of ``size`` pixels, cut anew where that is possible."""
        faces = self.faces
        if faces.crops is None or faces.crops.shape[-1] == size:
            return faces
        if self.frames is None:
            return resize_crops(faces, size)
        return align(self.frames, faces, size)


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
