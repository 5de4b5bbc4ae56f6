"""What the results of steps depend on, for `comfy.memory`: equal keys, equal faces."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions
from ..gfp_core.pipeline import Extra
from .comfy.memory import digest
from .comfy.models import Managed

Key = tuple[Any, ...]


def detection_key(
    image: Tensor,
    options: RestoreOptions,
    extra: Extra,
    size: int,
    *networks: Managed[Any] | None,
) -> Key:
    """Return what `FaceRestorer.detect` depends on; networks are the detector and the embedder."""
    return (
        digest(image),
        size,
        tuple(None if network is None else network.serial for network in networks),
        options.detection,
        options.padding,
        options.identity.people_limit,
        options.video,
        digest(extra.region),
        digest(extra.people),
    )


def faces_key(faces: Faces) -> Key:
    """Return what faces that another node gives are known by."""
    return tuple((each.frame, each.box, each.landmarks.tobytes()) for each in faces.faces)


def restoration_key(
    detection: Key,
    selected: Faces,
    options: RestoreOptions,
    extra: Extra,
    restorer: Managed[Any],
) -> Key:
    """Return what `FaceRestorer.restore_faces` depends on; ``selected`` are its faces."""
    return (
        detection,
        tuple((face.frame, face.box) for face in selected.faces),
        restorer.serial,
        options.fidelity,
        options.seed,
        options.steps,
        options.color,
        options.person,
        digest(extra.reference),
    )
