"""The identity guard: a face that a restorer turned into someone else's is taken back.

Measured with embeddings of the crops before and after, see ``embed.py``. The restored crop is
blended towards the input, less of it the further the face has been turned away, down to none.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .embed import FaceEmbedder, angles
from .faces import Faces

logger = logging.getLogger(__name__)

LIMIT = 22.0
"""Degrees up to which a restored face is left as it is.

Of 120 faces degraded as for training (60 people), the bundled model turned 98 % by less than 20.5
degrees and none by more than 22.8, most the poorest pictures, whose embeddings are uncertain. Put
in the place of a face, the picture of someone else is at 33 degrees, and for 99 % above 23.
"""
REFUSED = 1.5
"""Times the limit from which on nothing of the restored face is left."""


class Guarded(NamedTuple):
    """What `guard` gives."""

    faces: Faces
    """The faces, with ``restored`` blended towards ``crops`` where need be."""
    angles: Tensor
    """(N,) degrees in [0, 180]: how far the restorer turned each face, before the blending."""
    strengths: Tensor
    """(N,) in [0, 1]: the share of the restored face that was left."""


def guard(faces: Faces, embedder: FaceEmbedder, *, limit: float = LIMIT) -> Guarded:
    """Lower the strength of restored faces that no longer look like the input.

    Up to ``limit`` a face is left as it is; from there its share falls smoothly (3t^2 - 2t^3) and
    is none from 1.5 times the limit on. A log line names the faces that were changed.

    Args:
        faces: restored faces.
        embedder: tells who is who.
        limit: angle between the embeddings of the crop and the restored crop, in degrees.

    Returns:
        The faces, and for each its angle and the share that was left.

    Raises:
        ValueError: the faces are not restored, or the limit is not above 0.
    """
    if limit <= 0:
        raise ValueError(f"the limit of the identity guard must be above 0 degrees, not {limit}")
    if not len(faces):
        return Guarded(faces, torch.empty(0), torch.empty(0))
    if faces.crops is None or faces.restored is None:
        raise ValueError("the identity guard compares restored faces: restore them first")
    turned = angles(embedder.embed(faces.crops), embedder.embed(faces.restored))
    t = ((turned - limit) / (limit * (REFUSED - 1))).clamp(0, 1)
    strengths = 1 - t * t * (3 - 2 * t)
    _report(faces, turned, strengths, limit)
    weak = (strengths < 1).nonzero().squeeze(1).to(faces.restored.device)
    if not len(weak):
        return Guarded(faces, turned, strengths)
    restored, before = faces.restored.clone(), faces.crops.to(faces.restored.device)[weak]
    share = strengths.to(restored.device)[weak].view(-1, 1, 1, 1)
    restored[weak] = before + share * (restored[weak] - before)
    return Guarded(replace(faces, restored=restored), turned, strengths)


def _report(faces: Faces, turned: Tensor, strengths: Tensor, limit: float) -> None:
    logger.info(
        "Restoring turned the faces by %.1f degrees at most, %.1f on average.",
        turned.max(),
        turned.mean(),
    )
    for face, angle, strength in zip(faces.faces, turned.tolist(), strengths.tolist(), strict=True):
        if strength < 1:
            logger.warning(
                "The face at (%s) of frame %d no longer looks like itself (%.1f degrees; the limit "
                "is %g): restored by %.0f %% only.",
                ", ".join(f"{edge:.0f}" for edge in face.box),
                face.frame,
                angle,
                limit,
                100 * strength,
            )
