"""Face parsing: crops to label maps, which say of every pixel what part of the face it shows.

The networks are those of ``networks/parsing.py`` and ``networks/mediapipe_parsing.py``, which see a
face at 512 px whatever its crop's size.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .devices import deterministic, in_chunks, pick
from .faces import Progress
from .networks import mediapipe_parsing, parsing
from .networks.parsing import FacePart
from .tensors import check_crops
from .weights import WeightsError
from .weights.files import is_graph
from .weights.forms import check_graph
from .weights.loading import load_state_dict
from .weights.resolve import refer
from .weights.store import Weights

SIZE = 512
"""Side in pixels of the crops that the networks were trained on."""


class FaceParser:
    """Finds the parts of faces with a parsing network.

    The network may be moved to another device between calls: `parse` runs where it finds it.
    """

    def __init__(self, net: nn.Module, *, device: torch.device | str | None = None) -> None:
        """Take a network into service: evaluation mode, on ``device``.

        Args:
            net: maps (B, 3, 512, 512) RGB in [0, 1] to (B, 19, 512, 512) scores in the order of
                `FacePart`, as `parsing.FaceParsing` does.
            device: where to move the network; by default it stays where it is.
        """
        self.net = net.eval() if device is None else net.eval().to(device)

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        parameter = next(self.net.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def parse(self, crops: Tensor, progress: Progress | None = None) -> Tensor:
        """Label every pixel of the crops of aligned faces.

        When memory runs out, fewer crops go through the network at once, and a log line says so.

        Args:
            crops: (N, 3, S, S) floating point RGB in [0, 1], of any S, aligned as by
                `align.align`. Values outside count as clipped, NaN as black.
            progress: called as ``progress(done, N)`` after each chunk; may raise to cancel.

        Returns:
            (N, S, S) uint8 on the crops' device: a `FacePart` for every pixel.

        Raises:
            ValueError: the crops are of another shape or type.
        """
        check_crops(crops)
        total, device = crops.shape[0], self.device
        labels = torch.empty((total, *crops.shape[2:]), dtype=torch.uint8, device=crops.device)
        done = 0
        for part in in_chunks(
            lambda start, stop: self._parse(crops[start:stop], device),
            total,
            1 if device.type == "cpu" else 8,
            device,
            "a single face is too much for the parsing network; run it on the CPU.",
        ):
            labels[done : done + len(part)] = part
            done += len(part)
            if progress is not None:
                progress(done, total)
        return labels

    @torch.inference_mode()
    def _parse(self, crops: Tensor, device: torch.device) -> Tensor:
        x = crops.to(device, torch.float32).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
        x = _resample(x, SIZE)
        with deterministic(device, allow_tf32=False):
            scores = self.net(x)
        # Scores and not labels are resampled: what is between two parts is no third one.
        return _resample(scores, crops.shape[-1]).argmax(dim=1).to(torch.uint8)


def parts_mask(labels: Tensor, parts: Collection[FacePart | int]) -> Tensor:
    """Select the pixels of a face that show one of some parts.

    Args:
        labels: (N, S, S) integers, as from `FaceParser.parse`.
        parts: the parts, for instance ``{FacePart.HAIR, FacePart.HAT}``.

    Returns:
        (N, S, S) bool on the labels' device.

    Raises:
        ValueError: a number is no part.
    """
    selected = torch.zeros(len(FacePart), dtype=torch.bool, device=labels.device)
    for part in parts:
        selected[FacePart(part)] = True
    return selected[labels.long()]


def load_parser(
    name: str | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
) -> FaceParser:
    """Load a parser by its name in the catalogue or from its file.

    Weights that are named and not on this machine are downloaded, see `Weights.get`.

    Args:
        name: ``"bisenet"`` (17 times as fast), ``"parsenet"``, or another parser in the catalogue.
            None takes what the file holds, and without a file BiSeNet.
        path: a checkpoint, or an ONNX or TensorFlow Lite file of ``mediapipe_parsing``, instead of
            the catalogue's.
        device: where to run; see `devices.pick`. MediaPipe's networks run on the CPU.
        weights: where named weights are looked for; by default as the user's settings say.

    Raises:
        WeightsError: the name is none of a parser, the weights cannot be had, or the file cannot
            be read or holds something else.
    """
    architecture = None
    if name is not None or path is None:
        weights = Weights() if weights is None else weights
        reference = refer("bisenet" if name is None else name, "parser", weights)
        if path is None:
            path, _, architecture = reference.fetch(weights)
        elif reference.entry is not None:
            architecture = reference.entry.architecture
    if architecture in mediapipe_parsing.NETWORKS or is_graph(path):
        check_graph(path)
        try:
            return FaceParser(mediapipe_parsing.load(Path(path), architecture))
        except ValueError as error:
            raise WeightsError(str(error)) from error
    state, _ = load_state_dict(path)
    try:
        net = parsing.from_state_dict(state, architecture)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return FaceParser(net, device=pick(device))


def _resample(x: Tensor, size: int) -> Tensor:
    """(B, C, S, S) -> (B, C, size, size), bilinear, without aliasing; itself if it fits already."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
