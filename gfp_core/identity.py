"""The identity guard: a face that a restorer turned into someone else's is taken back.

Measured with embeddings of the crops before and after, see ``embed.py``. The restored face is
kept less the further the face has been turned away, down to not at all.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .embed import FaceEmbedder
from .faces import Faces
from .geometry import angles, smoothstep

logger = logging.getLogger(__name__)

LIMIT = 22.0
"""Degrees up to which a restored face is left as it is.

Of 120 faces degraded as for training (60 people), the bundled model turned 98 % by less than 20.5
degrees and none by more than 22.8, most the poorest pictures, whose embeddings are uncertain. Put
in the place of a face, the picture of someone else is at 33 degrees, and for 99 % above 23.
"""
REFUSED = 1.5
"""Times the limit from which on nothing of the restored face is left."""


class Likeness(NamedTuple):
    """How like themselves restored faces are."""

    angles: Tensor
    """(N,) degrees in [0, 180]: how far the restorer turned each face."""
    strengths: Tensor
    """(N,) in [0, 1]: the share of the restored face to keep."""


def compare(faces: Faces, embedder: FaceEmbedder, *, limit: float = LIMIT) -> Likeness:
    """Find out which restored faces no longer look like the input, and how much of them to keep.

    Up to ``limit`` all of a face is kept; from there its share falls smoothly (3t^2 - 2t^3) and
    is none from 1.5 times the limit on. The log says how far the faces were turned, and names those
    beyond the limit.

    Args:
        faces: restored faces.
        embedder: tells who is who.
        limit: angle between the embeddings of the crop and the restored crop, in degrees.

    Returns:
        For each face its angle and the share; `paste.paste` takes these as strengths.

    Raises:
        ValueError: the faces are not restored, or the limit is not above 0.
    """
    if not limit > 0:
        raise ValueError(f"the limit of the identity guard must be above 0 degrees, not {limit}")
    if not len(faces):
        return Likeness(torch.empty(0), torch.empty(0))
    if faces.crops is None or faces.restored is None:
        raise ValueError("the identity guard compares restored faces: restore them first")
    turned = angles(embedder.embed(faces.crops), embedder.embed(faces.restored))
    strengths = 1 - smoothstep((turned - limit) / (limit * (REFUSED - 1)))
    _report(faces, turned, strengths, limit)
    return Likeness(turned, strengths)


def guard(faces: Faces, embedder: FaceEmbedder, *, limit: float = LIMIT) -> Faces:
    """`compare`, and blend the restored crops towards the input by what it says.

    For crops that are used by themselves. Where they are pasted back, give `paste.paste` the
    strengths: a face of which nothing is kept then keeps all detail of its frame.

    Args:
        faces: restored faces.
        embedder: tells who is who.
        limit: see `compare`.

    Raises:
        ValueError: see `compare`.
    """
    return take_back(faces, compare(faces, embedder, limit=limit).strengths)


def take_back(faces: Faces, strengths: Tensor) -> Faces:
    """Blend restored crops towards the input, by the strengths (N,) in [0, 1] of `compare`.

    Raises:
        ValueError: a strength lies outside 0..1.
    """
    strengths = torch.as_tensor(strengths, dtype=torch.float32)
    if not bool(((strengths >= 0) & (strengths <= 1)).all()):
        raise ValueError(f"strengths must lie in 0..1, not {strengths.tolist()}")
    if faces.crops is None or faces.restored is None or bool((strengths == 1).all()):
        return faces
    restored, before = faces.restored.clone(), faces.crops.to(faces.restored)
    weak = (strengths < 1).nonzero().squeeze(1).to(restored.device)
    share = strengths.to(restored)[weak].view(-1, 1, 1, 1)
    restored[weak] = before[weak] + share * (restored[weak] - before[weak])
    return replace(faces, restored=restored)


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
