"""The five steps as one: find, align, restore, colour, paste back."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .align import Border, align, fit_similarity
from .choose import Order, Which, choose
from .color import ColorMode, apply_color
from .detect import DEFAULT_SCORE, FaceDetector, load_detector
from .faces import Faces, Preview, Progress
from .networks import registry
from .paste import MaskShape, paste
from .restore import Engine, Precision, Restorer
from .weights import WeightsError
from .weights.loading import load_network
from .weights.store import Weights

logger = logging.getLogger(__name__)

_STAGES = 3  # that report progress: detection, restoration, pasting


@dataclass(frozen=True)
class Restoration:
    """What became of a batch of frames."""

    frames: Tensor
    """(B, C, H', W') of the type of the frames given: the restored frames."""
    mask: Tensor
    """(B, H', W') float32 in [0, 1]: the share of restored face in every pixel."""
    faces: Faces
    """The faces found, with their crops before and after; without crops where there is none."""


class FaceRestorer:
    """Restores the faces of frames; the whole way with one call.

    Example:
        >>> faces = FaceRestorer.load()
        >>> restored = faces.restore(to_frames(read_image("photo.jpg"))).frames
    """

    def __init__(self, restorer: Restorer, detector: FaceDetector) -> None:
        """Join a restorer and a detector.

        Args:
            restorer: restores crops of its size.
            detector: finds the faces.
        """
        self.restorer = restorer
        self.detector = detector

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "lite",
        detector: str | os.PathLike[str] = "retinaface_mobile025",
        *,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        engine: Engine = "auto",
        weights: Weights | None = None,
    ) -> FaceRestorer:
        """Load the networks.

        Weights that are named and not on this machine are downloaded, see `Weights.get`.

        Args:
            model: name of weights in the catalogue, or a checkpoint file of any known architecture.
            detector: name of a detector in the catalogue, or a file that holds one.
            device: where both run; None takes CUDA if there is one, else the CPU.
            precision: of the restorer's arithmetic, see `Restorer` for this and ``engine``.
            engine: what runs the restorer.
            weights: where named weights are looked for; by default as the user's settings say.

        Raises:
            ValueError: a name is unknown, a file is no checkpoint or one of another kind, named
                weights cannot be had, or the device is unknown or not there; says which and what
                to do.
        """
        place = find_device(device)
        weights = Weights() if weights is None else weights
        net = load_network(*find_model(model, weights))
        found = find_detector(detector, device=place, weights=weights)
        return cls(Restorer(net, device=place, precision=precision, engine=engine), found)

    def restore(
        self,
        frames: Tensor,
        *,
        strength: float = 1.0,
        fidelity: float | None = None,
        upscale: float = 1.0,
        background: Tensor | None = None,
        mask: MaskShape = "ellipse",
        feather: float = 0.1,
        color: ColorMode = "auto",
        border: Border = "replicate",
        score: float = DEFAULT_SCORE,
        min_size: float = 0.0,
        max_size: float | None = None,
        long_side: int | None = None,
        rotations: Sequence[int] = (0,),
        flip: bool = False,
        order: Order = "largest",
        which: Which = "all",
        seed: int | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Restoration:
        """Restore the faces of a batch of frames.

        Pixels that no face touches keep their values, bit by bit, unless the frames are upscaled.
        Frames without a face come back as they are, which a log line says.

        Args:
            frames: (B, C, H, W) float RGB or RGBA in [0, 1]; values outside are kept. Not changed.
            strength: share of the restored face in the middle of the mask, from 0 to 1.
            fidelity: quality (0) or likeness to the input (1), where the network lets one choose;
                see `Restorer.restore`.
            upscale: size of the result relative to the frames.
            background: (B, 3 or 4, H', W'): the frames already brought to another size, instead
                of `upscale`.
            mask: the outline inside which a face is restored.
            feather: width of the mask's fade as a share of the crop's side, from 0 to 0.5.
            color: whose colours the faces take, see `color.apply_color`.
            border: what the network is shown beyond the frame's edge, see `align.align`.
            score: confidence above which a detection counts, see `FaceDetector.detect` for this
                and the options that follow.
            min_size: smallest face in pixels.
            max_size: largest face in pixels; None for no limit.
            long_side: cap of the frame's long side in detection.
            rotations: turns in which faces are looked for.
            flip: whether the mirrored frame is looked at as well.
            order: what counts first among the faces of a frame, see `choose.choose`.
            which: the faces that are restored, in this order.
            seed: of the network's noise, see `Restorer.restore` for this and ``chunk``.
            chunk: faces that go through the network at once.
            progress: called with (parts done, parts in all); may raise to cancel.
            preview: called with restored crops as soon as they are finished.

        Raises:
            ValueError: the frames are no such tensor, or an option is out of range.
        """
        batch = frames.shape[0] if frames.ndim else 0
        faces = find_faces(
            self.detector,
            frames,
            score=score,
            min_size=min_size,
            max_size=max_size,
            long_side=long_side,
            rotations=rotations,
            flip=flip,
            progress=_stage(progress, 0, batch),
        )
        faces = choose(faces, order=order, which=which)
        if len(faces):
            faces = align(frames, faces, self.restorer.size, border=border)
            faces = self.restorer.restore(
                faces,
                fidelity=fidelity,
                seed=seed,
                chunk=chunk,
                progress=_stage(progress, 1, batch),
                preview=preview,
            )
            faces = apply_color(faces, color)
        image, covered = paste(
            frames,
            faces,
            mask=mask,
            feather=feather,
            strength=strength,
            upscale=upscale,
            background=background,
            progress=_stage(progress, 2, batch),
        )
        if progress is not None and not len(faces):
            progress(_STAGES * batch, _STAGES * batch)
        return Restoration(image, covered, faces)


def find_faces(detector: FaceDetector, frames: Tensor, **options: Any) -> Faces:
    """The faces of a batch of frames that can be aligned; the log names frames without any.

    Args:
        detector: finds them.
        frames: (B, C, H, W), see `FaceDetector.detect`.
        **options: of `FaceDetector.detect`.

    Raises:
        ValueError: the frames are no such tensor, or an option is out of range.
    """
    faces = _drop_what_is_no_face(detector.detect(frames, **options))
    _report_frames_without_face(faces)
    return faces


def find_device(device: torch.device | str | None = None) -> torch.device:
    """The device to run on: the one named, or CUDA if there is one, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # PyTorch's own messages go on for pages.
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device} cannot be used here ({reason}); try cpu") from error
    return found


def find_model(
    model: str | os.PathLike[str],
    weights: Weights | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[Path, str | None]:
    """The file of a model and its architecture, for `load_network`.

    Args:
        model: name of weights in the catalogue, or a file. Only the catalogue's own names come
            before a file of the same name.
        weights: where named weights are looked for.
        progress: of a download, see `Weights.get`.

    Returns:
        The file; and the architecture if the catalogue says it, else None.

    Raises:
        WeightsError: it is neither, or the weights cannot be had.
    """
    weights = Weights() if weights is None else weights
    name = os.fspath(model)
    if name not in (entry.name for entry in weights.catalogue.entries):
        if Path(model).is_file():
            return Path(model), None
        if Path(model).name != name:
            raise WeightsError(f"there is no model file {model}")
    entry = weights.find(name)
    if entry.role != "restorer":
        raise WeightsError(f"{entry.name} is a {entry.role}, not a restorer")
    known = {row.name for row in registry.ARCHITECTURES}
    if entry.architecture not in known:
        raise WeightsError(f"{entry.name}: this version has no network {entry.architecture}")
    return weights.get(entry.name, progress=progress), entry.architecture


def find_detector(
    detector: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
) -> FaceDetector:
    """A detector by its name or from its file, see `detect.load_detector`.

    Args:
        detector: name of a detector in the catalogue, or a file that holds one.
        device: where it runs.
        weights: where named weights are looked for.
        progress: of a download, see `Weights.get`.

    Raises:
        WeightsError: it is neither, or its weights cannot be had.
    """
    if Path(detector).is_file():
        return load_detector(path=Path(detector), device=device)
    weights = Weights() if weights is None else weights
    entry = weights.find(os.fspath(detector))
    if entry.role != "detector":
        raise WeightsError(f"{entry.name} is a {entry.role}, not a detector")
    if entry.name == "retinaface_mobile025":
        try:
            return load_detector(entry.name, device=device)
        except ImportError as error:
            logger.warning("%s; using the official weights instead.", error)
    path = weights.get(entry.name, progress=progress)
    return load_detector(entry.architecture, path=path, device=device)


def _stage(progress: Progress | None, stage: int, frames: int) -> Progress | None:
    """The progress of one stage as a part of the whole, in thirds of frames."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(stage * frames + done * frames // total, _STAGES * frames)

    return report


def _drop_what_is_no_face(faces: Faces) -> Faces:
    """Leave out false detections that cannot be aligned, so that they do not stop the others."""
    kept = []
    for index, face in enumerate(faces.faces):
        try:
            fit_similarity(face.landmarks)
            kept.append(index)
        except ValueError as error:
            box = ", ".join(f"{edge:.0f}" for edge in face.box)
            logger.warning(
                "The face at (%s) of frame %d is left as it is: %s", box, face.frame, error
            )
    return faces if len(kept) == len(faces) else faces.select(kept)


def _report_frames_without_face(faces: Faces) -> None:
    seen = {face.frame for face in faces.faces}
    missing = [index for index in range(len(faces.frame_sizes)) if index not in seen]
    if missing and len(faces.frame_sizes) == 1:
        logger.info("No face found: the image is left as it is.")
    elif missing:
        logger.info(
            "No face found in %d of %d frames (%s): they are left as they are.",
            len(missing),
            len(faces.frame_sizes),
            ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else ""),
        )
