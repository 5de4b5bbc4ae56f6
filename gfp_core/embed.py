"""Embed faces: 128 or more numbers that are near each other for pictures of one person.

The network is the face descriptor of ``networks/face_descriptor.py``, or one of those of
``networks/embedding.py``. It is optional: no weights are bundled, and only what compares faces (a
reference, the identity guard) asks for them. Two embeddings of one network are compared by the
angle between them, in degrees: for the face descriptor about 9 for two good photographs of one
person, 33 for two people (see docs/metrics.md). The others put two people near 90 degrees, so that
limits must be set anew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .align import align, drop_what_is_no_face
from .devices import deterministic, pick
from .faces import Progress
from .networks.embedding import AlignedEmbedder
from .networks.face_descriptor import inner_face
from .weights import WeightsError, get_command
from .weights.files import is_graph
from .weights.forms import check_graph
from .weights.loading import load_descriptor
from .weights.resolve import refer
from .weights.store import Weights

if TYPE_CHECKING:
    from .detect import FaceDetector

logger = logging.getLogger(__name__)

NAME = "face-descriptor"
"""The descriptor's weights in the catalogue."""
REFERENCE_SIZE = 512
"""Side of the crops that are cut from pictures of reference."""
DIMENSIONS = 128
"""Numbers of an embedding by the face descriptor."""
_CHUNK = 32


class FaceEmbedder:
    """Turns aligned crops into embeddings that say who a face is."""

    def __init__(self, net: nn.Module, *, device: torch.device | str | None = None) -> None:
        """Take the network.

        Args:
            net: (N, 3, 150, 150) RGB in [0, 1] -> (N, 128), as `networks.face_descriptor`; or an
                `AlignedEmbedder`, which takes the crops themselves.
            device: where to run; None leaves the network where it is.
        """
        self.net = net.eval() if device is None else net.eval().to(device)
        self.dimensions: int = getattr(net, "dimensions", DIMENSIONS)
        """Numbers of an embedding."""

    @property
    def device(self) -> torch.device:
        """Where the network is, and therefore runs."""
        parameter = next(self.net.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @torch.inference_mode()
    def embed(self, crops: Tensor) -> Tensor:
        """Embed aligned crops.

        Args:
            crops: (N, 3, S, S) RGB in [0, 1], aligned to the FFHQ template; values outside are
                clamped, NaN counts as black.

        Returns:
            (N, dimensions) float32 of length 1, on the CPU.

        Raises:
            ValueError: the crops have another shape.
        """
        if crops.ndim != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3]:
            raise ValueError(f"crops must be (N, 3, S, S), not {tuple(crops.shape)}")
        if not len(crops):
            return torch.empty(0, self.dimensions)
        embeddings = []
        with deterministic(self.device, allow_tf32=False):
            for part in crops.split(_CHUNK):
                rgb = part.to(self.device, torch.float32).nan_to_num(nan=0.0).clamp(0, 1)
                x = rgb if isinstance(self.net, AlignedEmbedder) else inner_face(rgb)
                embeddings.append(F.normalize(self.net(x).float(), dim=1).cpu())
        return torch.cat(embeddings)

    def describe(self, pictures: Sequence[Tensor], detector: FaceDetector) -> Tensor:
        """Embed the people shown in pictures: the largest face in each.

        Args:
            pictures: (C, H, W) RGB or RGBA in [0, 1] each, of any sizes.
            detector: finds the faces.

        Returns:
            (len(pictures), dimensions) float32 of length 1, on the CPU.

        Raises:
            ValueError: there is no picture, or no face in one of them; says which.
        """
        crops = []
        for number, picture in enumerate(pictures):
            frame = picture[None]
            faces = drop_what_is_no_face(detector.detect(frame))
            if not len(faces):
                raise ValueError(
                    f"no face found in picture {number} of reference: give one that shows the "
                    "face larger and from the front"
                )
            if len(faces) > 1:
                logger.info(
                    "Picture %d of reference shows %d faces: the largest counts.",
                    number,
                    len(faces),
                )
            crop = align(frame, faces.largest(), REFERENCE_SIZE).crops
            assert crop is not None
            crops.append(crop.cpu())
        if not crops:
            raise ValueError("a reference needs at least one picture")
        return self.embed(torch.cat(crops))


def load_embedder(
    embedder: str | os.PathLike[str] = NAME,
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
) -> FaceEmbedder:
    """Load an embedder by its name in the catalogue or from its file.

    Args:
        embedder: name of an embedder in the catalogue, what `load_descriptor` takes, or an ONNX
            file of ``networks/embedding.py``.
        device: where to run; see `devices.pick`. ONNX files run on the CPU.
        weights: where named weights are looked for, which are downloaded if they are not on this
            machine; by default as the user's settings say.
        progress: of a download, see `Weights.get`.

    Raises:
        WeightsError: it is neither, or its weights are not available; says how to get them.
    """
    weights = Weights() if weights is None else weights
    reference = refer(embedder, "embedder", weights)
    try:
        file, _, architecture = reference.fetch(weights, progress)
    except WeightsError as error:
        raise WeightsError(
            "Comparing faces (a reference, the identity guard) needs weights that are not "
            f"bundled; get them with: {get_command(os.fspath(embedder))}\n{error}"
        ) from error
    try:
        if is_graph(file):
            check_graph(file)
            return FaceEmbedder(AlignedEmbedder(file, architecture))
        if file.is_file() and file.suffix not in (".tgz", ".bin"):
            check_graph(file)  # says what it is
        return FaceEmbedder(load_descriptor(file), device=pick(device))
    except (ValueError, OSError) as error:
        raise WeightsError(str(error)) from error
