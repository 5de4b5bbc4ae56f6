"""The five steps as one: find, align, restore, colour, paste back."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from . import sharpness
from .align import align
from .choose import LIKE, Order, Which, blurred, choose, largest
from .color import apply_color
from .detect import DEFAULT_SCORE, FaceDetector, load_detector
from .devices import pick, trim_memory
from .embed import FaceEmbedder, load_embedder
from .faces import Faces, Preview, Progress
from .find import EMBEDDER_ADVICE, drop_what_is_no_face, find_candidates
from .geometry import face_ellipse
from .identity import compare
from .masks import make_masks
from .options import Blend, ColorMode, Engine, KeepMonochrome, Mask, MaskShape, Padding, Precision
from .parse import FaceParser, load_parser
from .paste import DEFAULT_BLEND, paste
from .restore import Restorer
from .tensors import clamp01
from .track import SMOOTHING, Tracks, smooth_over_time
from .weights.loading import load_network
from .weights.resolve import refer, resolve
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
    angles: Tensor | None = None
    """(N,) degrees by which each face was turned, see `identity.compare`; None without it."""
    strengths: Tensor | None = None
    """(N,) in [0, 1]: the strength with which each face was restored."""
    tracks: Tracks | None = None
    """For the frames that follow, where frames are in order; else None."""


class FaceRestorer:
    """Restores the faces of frames; the whole way with one call.

    Example:
        >>> faces = FaceRestorer.load()
        >>> restored = faces.restore(to_frames(read_image("photo.jpg"))).frames
    """

    def __init__(
        self,
        restorer: Restorer,
        detector: FaceDetector,
        parser: FaceParser | None = None,
        embedder: FaceEmbedder | None = None,
    ) -> None:
        """Join a restorer and a detector.

        Args:
            restorer: restores crops of its size.
            detector: finds the faces.
            parser: tells their parts apart, for masks that leave what stands before them.
            embedder: tells who is who; only for the options ``people`` and ``identity_limit``.
        """
        self.restorer = restorer
        self.detector = detector
        self.parser = parser
        self.embedder = embedder

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "lite",
        detector: str | os.PathLike[str] = "retinaface_mobile025",
        *,
        parser: str | os.PathLike[str] | None = None,
        embedder: str | os.PathLike[str] | None = None,
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
            parser: name of a parser in the catalogue ("bisenet"), or a file that holds one; None
                for masks that need none.
            embedder: name of an embedder in the catalogue ("face-descriptor"), or its file; None
                where no faces are compared.
            device: where all run; see `devices.pick`.
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
        parsing = None if parser is None else find_parser(parser, device=place, weights=weights)
        embeds = None
        if embedder is not None:
            embeds = load_embedder(embedder, device=place, weights=weights)
        restorer = Restorer(net, device=place, precision=precision, engine=engine)
        del net  # what runs is its fast form
        trim_memory()
        return cls(restorer, found, parsing, embeds)

    def restore(
        self,
        frames: Tensor,
        *,
        strength: float = 1.0,
        auto_strength: bool = True,
        fidelity: float | None = None,
        upscale: float = 1.0,
        background: Tensor | None = None,
        mask: Mask | MaskShape = "ellipse",
        frame_mask: Tensor | None = None,
        blend: Blend = DEFAULT_BLEND,
        color: ColorMode = "auto",
        color_strength: float = 1.0,
        grey: KeepMonochrome = "auto",
        reference: Tensor | None = None,
        border: Padding = "replicate",
        score: float = DEFAULT_SCORE,
        min_size: float = 0.0,
        max_size: float | None = None,
        long_side: int | None = None,
        rotations: Sequence[int] = (0,),
        flip: bool = False,
        order: Order = "largest",
        which: Which = "all",
        region: Tensor | None = None,
        people: Tensor | None = None,
        people_limit: float = LIKE,
        max_sharpness: float | None = None,
        identity_limit: float | None = None,
        tracks: Tracks | None = None,
        seed: int | None = None,
        chunk: int | None = None,
        in_place: bool = False,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Restoration:
        """Restore the faces of a batch of frames.

        Pixels that no face touches keep their values, bit by bit, unless the frames are upscaled.
        Frames without a face come back as they are, which a log line says.

        Args:
            frames: (B, C, H, W) float RGB or RGBA in [0, 1]; values outside are kept. Not
                changed, unless ``in_place`` is asked for.
            strength: share of the restored face in the middle of the mask, from 0 to 1.
            auto_strength: whether sharp, tiny and doubtful faces are restored less, see
                `sharpness.auto_strength`.
            fidelity: quality (0) or likeness to the input (1), where the network lets one choose;
                see `Restorer.restore`.
            upscale: size of the result relative to the frames.
            background: (B, 3 or 4, H', W'): the frames already brought to another size, instead
                of `upscale`.
            mask: what of each face is restored, see `masks.Mask`. With a parser what stands before
                a face is left; the shape "parts" needs one.
            frame_mask: (1 or B, H, W) in [0, 1]: where the frames may be touched, see `paste`.
            blend: how restored faces go into the frames, see `blend.Blend`.
            color: whose colours the faces take, see `color.apply_color` for this and the two
                options that follow.
            color_strength: share of the correction of colours, from 0 to 1.
            grey: which faces keep the chroma of the frames.
            reference: (1 or B, 3 or 4, H, W) pictures as the frames, for the colour "reference":
                one for all frames, or one for each. The colours are those of the largest face in
                it, or of the whole picture where there is none, which a log line says.
            border: what the network is shown beyond the frame's edge, see `align.align`.
            score: confidence above which a detection counts, see `FaceDetector.detect` for this
                and the options that follow.
            min_size: smallest face in pixels.
            max_size: largest face in pixels; None for no limit.
            long_side: cap of the frame's long side in detection.
            rotations: turns in which faces are looked for.
            flip: whether the mirrored frame is looked at as well.
            order: what counts first among the faces of a frame, see `choose.choose`.
            which: the faces that are restored, in this order, of those that the next two options
                leave.
            region: (B or 1, H, W), above 0.5 where faces are restored, see `choose.inside`.
            people: (R, D) embeddings of the people to restore, made by `describe`.
            people_limit: how far from them a face may be, in degrees, see `choose.like`.
            max_sharpness: faces sharper than this, from 0 to 1, stay as they are; None restores
                sharp ones too. See `sharpness.face_sharpness`.
            identity_limit: degrees from which on a face that is no longer itself is taken back,
                see `identity.compare`, where `identity.LIMIT` is a good one; None does not look.
            tracks: for frames in order: ``Tracks()`` with the first frames, and with those that
                follow what the `Restoration` before says. Faces are followed and their landmarks
                steadied, and their colours and strengths smoothed over time, so that they do not
                flicker, see `track.track`.
            seed: of the network's noise, see `Restorer.restore` for this and ``chunk``.
            chunk: faces that go through the network at once.
            in_place: paste into ``frames`` themselves, see `paste`.
            progress: called with (parts done, parts in all); may raise to cancel.
            preview: called with restored crops as soon as they are finished.

        Raises:
            ValueError: the frames are no such tensor, an option is out of range, or people are to
                be compared without an embedder.
        """
        mask = Mask(mask) if isinstance(mask, str) else mask
        if mask.needs_parser and self.parser is None:
            raise ValueError("the mask 'parts' needs a parser: FaceRestorer.load(parser='bisenet')")
        if people is not None or identity_limit is not None:
            self._need_embedder()
        batch = frames.shape[0] if frames.ndim else 0
        faces = find_candidates(
            self.detector,
            frames,
            tracks=tracks,
            region=region,
            people=people,
            people_limit=people_limit,
            embedder=self.embedder,
            score=score,
            min_size=min_size,
            max_size=max_size,
            long_side=long_side,
            rotations=rotations,
            flip=flip,
            progress=_stage(progress, 0, batch),
        )
        faces = choose(faces, order=order, which=which)
        sharp = None
        if max_sharpness is not None:
            sharp = sharpness.face_sharpness(frames, faces)
            faces, sharp = blurred(faces, sharp, max_sharpness), sharp[sharp <= max_sharpness]
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
            if reference is not None:
                reference = self._reference_crops(reference, faces, border)
            faces = apply_color(
                faces,
                color,
                strength=color_strength,
                grey=grey,
                reference=reference,
                smoothing=0.0 if tracks is None else SMOOTHING,
            )
        strengths = torch.full((len(faces),), strength)
        if auto_strength:
            strengths *= sharpness.auto_strength(frames, faces, sharp)
        angles = None
        if identity_limit is not None:
            angles, shares = compare(faces, self._need_embedder(), limit=identity_limit)
            strengths = strengths * shares
        if tracks is not None:
            smoothed, faces = smooth_over_time(faces, {"strength": strengths}, SMOOTHING)
            strengths = smoothed["strength"]
        image, covered = paste(
            frames,
            faces,
            mask=self._masks(faces, mask, _beat(progress, batch)),
            frame_mask=frame_mask,
            blend=blend,
            strength=strengths,
            upscale=upscale,
            background=background,
            in_place=in_place,
            progress=_stage(progress, 2, batch),
        )
        if progress is not None and not len(faces):
            progress(_STAGES * batch, _STAGES * batch)
        return Restoration(image, covered, faces, angles, strengths, faces.tracks)

    def describe(self, pictures: Sequence[Tensor]) -> Tensor:
        """The people shown in pictures, one in each, for the option ``people`` of `restore`.

        Args:
            pictures: (C, H, W) RGB or RGBA in [0, 1] each, of any sizes.

        Returns:
            (len(pictures), D) embeddings of the largest face in each.

        Raises:
            ValueError: a picture shows no face, or there is no embedder.
        """
        return self._need_embedder().describe(pictures, self.detector)

    def _need_embedder(self) -> FaceEmbedder:
        if self.embedder is None:
            raise ValueError(
                f"comparing faces (people, identity_limit) needs an embedder: {EMBEDDER_ADVICE}"
            )
        return self.embedder

    def _masks(self, faces: Faces, mask: Mask, progress: Progress | None) -> Mask | Tensor:
        """The masks of the faces; left to `paste` where their pixels need not be looked at."""
        if self.parser is None or not len(faces):
            return mask
        return make_masks(faces, mask, parser=self.parser, progress=progress)

    def _reference_crops(self, reference: Tensor, faces: Faces, border: Padding) -> Tensor:
        """(1 or N, 4, S, S): what gives each face its colours; alpha says where the face is."""
        frames, size = len(faces.frame_sizes), self.restorer.size
        if reference.ndim != 4 or reference.shape[0] not in (1, frames):
            raise ValueError(
                f"reference must be (1 or {frames}, 3 or 4, H, W), not {tuple(reference.shape)}"
            )
        found = largest(drop_what_is_no_face(self.detector.detect(reference)))
        places = {face.frame: place for place, face in enumerate(found.faces)}
        crops = []
        for index in range(len(reference)):
            picture = reference[index : index + 1]
            if index in places:
                aligned = align(reference, found.select([places[index]]), size, border=border)
                crop = cast(Tensor, aligned.crops)
                alpha = torch.from_numpy(face_ellipse(size)).to(reference)[None, None]
            else:
                logger.info("No face found in reference %d: all its colours count.", index)
                picture = F.interpolate(clamp01(picture.float()), (size, size), mode="area")
                crop, alpha = picture[:, :3], picture[:, 3:]
                alpha = alpha if alpha.shape[1] else torch.ones_like(crop[:, :1])
            crops.append(torch.cat([crop, alpha.to(crop)], dim=1))
        if len(crops) > 1:
            crops = [crops[face.frame] for face in faces.faces]
        return torch.cat(crops)


def find_device(device: torch.device | str | None = None) -> torch.device:
    """Pick the device to run on; the older name of `devices.pick`.

    Raises:
        ValueError: there is no such device here.
    """
    return pick(device)


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
    file, _, architecture = resolve(model, "restorer", weights, progress=progress)
    return file, architecture


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
    weights = Weights() if weights is None else weights
    reference = refer(detector, "detector", weights)
    if reference.entry is not None and reference.entry.name == "retinaface_mobile025":
        try:
            return load_detector(reference.entry.name, device=device)
        except ImportError as error:
            logger.warning("%s; using the official weights instead.", error)
    file, _, architecture = reference.fetch(weights, progress)
    return load_detector(architecture, path=file, device=device)


def find_parser(
    parser: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
) -> FaceParser:
    """A parser by its name or from its file, see `parse.load_parser`.

    Raises:
        WeightsError: it is neither, or its weights cannot be had.
    """
    weights = Weights() if weights is None else weights
    reference = refer(parser, "parser", weights)
    if reference.entry is None:
        return load_parser(path=reference.path, device=device)
    return load_parser(reference.entry.name, device=device, weights=weights)


def _stage(progress: Progress | None, stage: int, frames: int) -> Progress | None:
    """The progress of one stage as a part of the whole, in thirds of frames."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(stage * frames + done * frames // total, _STAGES * frames)

    return report


def _beat(progress: Progress | None, frames: int) -> Progress | None:
    """Reports two stages done again and again, so that parsing can be cancelled."""
    return None if progress is None else lambda *_: progress(2 * frames, _STAGES * frames)
