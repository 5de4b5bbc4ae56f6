"""Restore the faces of frames: detect, align, restore, color and paste back, behind one facade.

`FaceRestorer.restore` is the whole way; its three thirds, `find`, `restore_faces` and `paste`, are
public, and so is `stream`, which is `restore` for frames in order. All take the same options.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .align import align, drop_what_is_no_face
from .color import apply_color
from .color.modes import check_reference
from .detect import FaceDetector, load_detector
from .devices import pick, trim_memory
from .embed import FaceEmbedder, load_embedder
from .faces import Faces, Preview, Progress, Tracks
from .find import EMBEDDER_ADVICE, find_faces, find_in_order
from .geometry import face_ellipse
from .identity import compare
from .masks import make_masks
from .options import (
    AUTO,
    Engine,
    Options,
    Precision,
    Provider,
    RestoreOptions,
    options_of,
    parse_selection,
)
from .parse import FaceParser, load_parser
from .paste import check_background, paste
from .person.restorer import PersonRestorer
from .restore import Restorer
from .select import blurred, inside, like, rank, select
from .sharpness import auto_strength, face_sharpness
from .steady import steady_crops
from .tensors import check_masks, clamp01
from .track import SMOOTHING, smooth_over_time
from .upscale import Upscaler, load_upscaler
from .weights.difference import Difference, find_base
from .weights.files import is_graph
from .weights.loading import load_network, load_with, read_difference
from .weights.resolve import refer, resolve
from .weights.store import Weights

logger = logging.getLogger(__name__)

Network = TypeVar("Network")

_LARGE = 4_000_000
"""Pixels of a frame from which on what detection has freed is worth giving back to the system."""
_STAGES = 3  # that report progress: detection, restoration, pasting; a fourth is enlarging


@dataclass(frozen=True, eq=False)
class Extra:
    """What belongs to the frames and travels beside the options: tensors, and the tracks."""

    background: Tensor | None = None
    """(B, 3 or 4, H', W'): the frames already brought to another size; faces are pasted into them
    and the result has their size, in place of ``options.upscale``."""
    frame_mask: Tensor | None = None
    """(1 or B, H, W) in [0, 1], of the frames' size or the result's: where they may be touched."""
    region: Tensor | None = None
    """(1 or B, H, W), above 0.5 where faces are restored, see `select.inside`."""
    reference: Tensor | None = None
    """(1 or B, 3 or 4, H, W) pictures for the color "reference": one for all frames, or one for
    each. The colors are those of the largest face in it, or of the whole picture where there is
    none, which a log line says."""
    people: Tensor | None = None
    """(R, D) embeddings of the people to restore, made by `FaceRestorer.describe`."""
    face_masks: Tensor | None = None
    """(N, S, S) in [0, 1]: the masks of the faces in their crops, in place of ``options.mask``."""
    tracks: Tracks | None = None
    """For frames in order: ``Tracks()`` with the first, then those of the `Restoration` before."""
    in_place: bool = False
    """Paste into the frames (or the background) themselves, see `paste.paste`."""

    def check(self, count: int, options: RestoreOptions) -> None:
        """Refuse, before the work, what does not belong to ``count`` frames or to the options.

        Raises:
            ValueError: says what is wrong.
        """
        check_reference(options.color.mode, self.reference)
        for name, mask in (("frame_mask", self.frame_mask), ("region", self.region)):
            if mask is not None:
                check_masks(mask, count, name)
        if self.background is not None:
            check_background(self.background, count, options.upscale)


@dataclass(frozen=True)
class Restoration:
    """What became of a batch of frames."""

    frames: Tensor
    """(B, C, H', W') of the type of the input frames: the restored frames."""
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

    A call changes nothing that another one sees: several threads may share a `FaceRestorer`.

    Example:
        >>> faces = FaceRestorer.load()
        >>> frames = to_frames(read_image("photo.jpg"))
        >>> restored = faces.restore(frames, RestoreOptions.of(strength=0.8)).frames
    """

    def __init__(
        self,
        restorer: Restorer | None = None,
        detector: FaceDetector | None = None,
        parser: FaceParser | None = None,
        embedder: FaceEmbedder | None = None,
        upscaler: Upscaler | None = None,
    ) -> None:
        """Join networks.

        Args:
            restorer: restores crops of its size. `find` and `paste` go without.
            detector: detects the faces. `restore_faces` and `paste` go without.
            parser: tells the parts of faces apart, for masks that leave what stands before them.
            embedder: tells who is who; only for people and ``identity_limit``.
            upscaler: makes the background where `restore` is given none.
        """
        self.restorer = restorer
        self.detector = detector
        self.parser = parser
        self.embedder = embedder
        self.upscaler = upscaler

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "lite",
        detector: str | os.PathLike[str] = "retinaface_mobile025",
        *,
        parser: str | os.PathLike[str] | None = None,
        embedder: str | os.PathLike[str] | None = None,
        background_model: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        engine: Engine = "auto",
        provider: Provider = "auto",
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
            background_model: name of an upscaler in the catalogue ("realesrgan-x4plus"), or its
                file; None where the rest of the picture is enlarged by interpolation.
            device: where all run; see `devices.pick`.
            precision: of the restorer's arithmetic, see `Restorer` for this and ``engine``.
            engine: what runs the restorer; "onnxruntime" runs the detector too.
            provider: what onnxruntime runs on.
            weights: where named weights are looked for; by default as the user's settings say.

        Raises:
            ValueError: a name is unknown, a file is no checkpoint or one of another kind, named
                weights are not available, or the device is unknown or not there; says which and
                what to do.
        """
        device = pick(device)
        weights = Weights() if weights is None else weights
        together = cls(
            restorer=find_restorer(
                model,
                device=device,
                precision=precision,
                engine=engine,
                provider=provider,
                weights=weights,
            ),
            detector=find_detector(
                detector, device=device, weights=weights, engine=engine, provider=provider
            ),
            parser=find_parser(parser, device=device, weights=weights) if parser else None,
            embedder=load_embedder(embedder, device=device, weights=weights) if embedder else None,
        )
        if background_model:
            together.upscaler = load_upscaler(background_model, device=device, weights=weights)
        trim_memory()
        return together

    @classmethod
    def load_for(
        cls, options: RestoreOptions, *, people: bool = False, weights: Weights | None = None
    ) -> FaceRestorer:
        """Load the networks that options need: the parser and the embedder only where they do.

        Args:
            options: their ``networks`` and ``runtime`` say which networks, where and how.
            people: whether certain people will be asked for (`Extra.people`).
            weights: where named weights are looked for; by default as the user's settings say.

        Raises:
            ValueError: as `load`.
        """
        networks, runtime = options.networks, options.runtime
        compares = people or options.identity.identity_limit is not None
        together = cls.load(
            networks.model,
            networks.detector,
            parser=networks.parser or ("bisenet" if options.mask.needs_parser else None),
            embedder=networks.embedder if compares else None,
            background_model=networks.background_model,
            device=runtime.device,
            precision=runtime.precision,
            engine=runtime.engine,
            provider=runtime.provider,
            weights=weights,
        )
        restorer = together.restorer
        if isinstance(restorer, PersonRestorer) and not compares and options.person.can_compare:
            weights = Weights() if weights is None else weights
            together.embedder = _embedder_at_hand(
                restorer, networks.embedder, weights, restorer.device
            )
        return together

    def restore(
        self,
        frames: Tensor,
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
        **keywords: Any,
    ) -> Restoration:
        """Restore the faces of a batch of frames.

        Pixels that no face touches keep their values, bit by bit, unless the frames are upscaled.
        Frames without a face come back as they are, which a log line says.

        Args:
            frames: (B, C, H, W) float RGB or RGBA in [0, 1]; values outside are kept. Not
                changed, unless ``extra.in_place`` is asked for. B may be 0.
            options: how, see `options.RestoreOptions`; None for the defaults.
            extra: tensors that belong to these frames; with ``tracks`` (or ``options.video``) the
                frames are in order: faces are followed, their landmarks and restored crops
                steadied, and their colors and strengths smoothed over time, so that they do not
                flicker.
            progress: called with (parts done, parts in all); may raise to cancel.
            preview: called with restored crops as soon as they are finished.
            **keywords: single options and fields of `Extra` by their names, over those:
                ``restore(frames, strength=0.8)``; ``mask`` and ``blend`` may also be groups.

        Raises:
            ValueError: the frames are no such tensor, an option is unknown or out of range, or a
                network is missing that an option needs.
        """
        options, extra = _with_keywords(options, extra, keywords)
        self._check(options, extra)
        batch = frames.shape[0] if frames.ndim else 0
        extra.check(batch, options)
        stages, enlarges = _STAGES, self.upscaler is not None and extra.background is None
        stages += enlarges
        faces = self.find(frames, options, extra=extra, progress=_stage(progress, 0, batch, stages))
        if frames.shape[-2:].numel() > _LARGE:
            trim_memory()
        faces = self.restore_faces(
            faces,
            options,
            extra=extra,
            progress=_stage(progress, 1, batch, stages),
            preview=preview,
        )
        if enlarges:
            progress_of_tiles = _stage(progress, 2, batch, stages)
            options, extra = self._enlarged(frames, options, extra, progress_of_tiles)
        result = self.paste(
            frames,
            faces,
            options,
            extra=extra,
            progress=_stage(progress, stages - 1, batch, stages),
        )
        if progress is not None and not len(faces):
            progress(stages * batch, stages * batch)
        return result

    def _enlarged(
        self,
        frames: Tensor,
        options: RestoreOptions,
        extra: Extra,
        progress: Progress | None,
    ) -> tuple[RestoreOptions, Extra]:
        """Make the background with the upscaler, of the size that the options ask for."""
        assert self.upscaler is not None
        factor = options.upscale if options.upscale != 1 else None
        background = self.upscaler.enlarge(frames, factor, progress=progress)
        return replace(options, upscale=1.0), replace(extra, background=background, in_place=True)

    def stream(
        self,
        batches: Iterable[Tensor],
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
        **keywords: Any,
    ) -> Iterator[Restoration]:
        """Restore frames in order, that come in batches of any size, one frame or a thousand.

        Tracks, landmarks, colors and strengths go from one batch to the next, so that the result
        does not depend on how the frames are cut into batches. Memory is that of one batch.

        Args:
            batches: (B, C, H, W) each, as for `restore`; read one at a time.
            options: as for `restore`.
            extra: as for `restore`, the same for all batches: tensors in it hold one picture for
                all frames. Its tracks are those to begin with, if the frames go on from others.
            progress: called as in `restore`, for each batch by itself; may raise to cancel.
            preview: as in `restore`.
            **keywords: as for `restore`.

        Yields:
            The restoration of each batch, whose ``tracks`` another stream can go on from.

        Raises:
            ValueError: as `restore`.
        """
        options, extra = _with_keywords(options, extra, keywords)
        tracks = Tracks() if extra.tracks is None else extra.tracks
        for frames in batches:
            result = self.restore(
                frames,
                options,
                extra=replace(extra, tracks=tracks),
                progress=progress,
                preview=preview,
            )
            assert result.tracks is not None
            tracks = result.tracks
            yield result

    def find(
        self,
        frames: Tensor,
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> Faces:
        """Find the faces that are to be restored, and cut them out: the first third of `restore`.

        Args:
            frames: as for `restore`.
            options: as for `restore`; detection and selection count, and ``padding``.
            extra: as for `restore`; region, people and tracks count.
            size: side of the crops in pixels; by default what the restorer takes.
            progress: called with (frames done, frames in all); may raise to cancel.

        Returns:
            The faces with their crops, by frame and in the order of the options; with their tracks
            where frames are in order.

        Raises:
            ValueError: as `restore`.
        """
        candidates = self.detect(frames, options, extra=extra, size=size, progress=progress)
        return self.select(frames, candidates, options, size=size)

    def detect(
        self,
        frames: Tensor,
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        size: int | None = None,
        progress: Progress | None = None,
    ) -> Faces:
        """Detect the faces among which `select` selects: the first half of `find`.

        They are those of the region and of the people in ``extra``, in the detector's order.
        Arguments and errors are those of `find`.
        """
        options, extra = _or_default(options, extra)
        detector = _need(self.detector, "detector")
        tracks = _tracks(options, extra)
        if extra.people is not None:
            self._need_embedder()
        if tracks is None:
            faces = find_faces(detector, frames, options.detection, progress=progress)
        else:
            faces = find_in_order(
                detector,
                frames,
                tracks,
                options.detection,
                embedder=self.embedder,
                progress=progress,
            )
        if extra.region is not None:
            faces = inside(faces, extra.region)
        if extra.people is not None and len(faces):
            if faces.embeddings is None:
                faces = self._aligned(frames, faces, options, size)
                assert faces.crops is not None
                faces = replace(faces, embeddings=self._need_embedder().embed(faces.crops))
            faces = like(faces, extra.people, limit=options.identity.people_limit)
        return faces

    def select(
        self,
        frames: Tensor,
        candidates: Faces,
        options: RestoreOptions | None = None,
        *,
        size: int | None = None,
    ) -> Faces:
        """Select faces by their numbers and their sharpness, and cut them out: half of `find`.

        Arguments and errors are those of `find`; ``candidates`` are from `detect`.
        """
        options, _ = _or_default(options, None)
        selection = options.selection
        faces = select(candidates, order=selection.order, numbers=selection.select)
        if not len(faces):
            return faces
        faces = self._aligned(frames, faces, options, size)
        if options.auto_strength or selection.max_sharpness is not None:
            # What padding adds must not count; where it replicates the edge, the crops do.
            crops = faces.crops if options.padding == "replicate" else None
            faces = replace(faces, sharpness=face_sharpness(frames, faces, crops=crops))
        if selection.max_sharpness is not None:
            faces = blurred(faces, selection.max_sharpness)
        return faces

    def restore_faces(
        self,
        faces: Faces,
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Faces:
        """Restore faces that were cut out, and color them: the second third of `restore`.

        Args:
            faces: with crops of the restorer's size, as `find` gives them. Not changed.
            options: as for `restore`; fidelity, seed, steps, color and batch size count.
            extra: as for `restore`; the reference counts.
            progress: called with (faces done, faces in all); may raise to cancel.
            preview: called with restored crops as soon as they are finished.

        Returns:
            The faces with ``restored`` crops; their tracks, if any, hold the colors and the crops
            of the last frame.

        Raises:
            ValueError: as `restore`, or the crops are of another size.
        """
        options, extra = _or_default(options, extra)
        check_reference(options.color.mode, extra.reference)
        if not len(faces):
            return faces
        reference = extra.reference
        if reference is not None:
            reference = self._reference_crops(reference, faces, options)
        restorer = _need(self.restorer, "restorer")
        keywords: dict[str, Any] = {}
        if isinstance(restorer, PersonRestorer):
            keywords["is_person"] = self._is_person(restorer, faces, options)
            keywords["person_strength"] = options.person.person_strength
        faces = restorer.restore(
            faces,
            fidelity=options.fidelity,
            seed=options.seed,
            steps=options.steps,
            chunk=options.runtime.batch_size or None,
            progress=progress,
            preview=preview,
            **keywords,
        )
        faces = apply_color(
            faces,
            options.color.mode,
            strength=options.color.strength,
            keep_monochrome=options.color.keep_monochrome,
            reference=reference,
            smoothing=0.0 if faces.tracks is None else options.video.color_smoothing,
        )
        return steady_crops(faces, options.video.steadiness)

    def paste(
        self,
        frames: Tensor,
        faces: Faces,
        options: RestoreOptions | None = None,
        *,
        extra: Extra | None = None,
        progress: Progress | None = None,
    ) -> Restoration:
        """Paste restored faces into their frames: the last third of `restore`.

        Args:
            frames: those the faces were found in.
            faces: restored faces.
            options: as for `restore`; strengths, mask, blend, identity limit and upscale count.
            extra: as for `restore`; background, frame mask, face masks and ``in_place`` count.
            progress: called with (faces done, faces in all); may raise to cancel.

        Raises:
            ValueError: as `restore`, or the faces do not belong to the frames.
        """
        options, extra = _or_default(options, extra)
        self._check(options, extra)
        angles, strengths, faces = self._strengths(frames, faces, options)
        masks: Any = extra.face_masks
        if masks is None:
            masks = options.mask
            if self.parser is not None and len(faces):
                masks = make_masks(faces, masks, parser=self.parser, progress=_beat(progress))
        image, covered = paste(
            frames,
            faces,
            mask=masks,
            frame_mask=extra.frame_mask,
            blend=options.blend,
            strength=strengths,
            upscale=options.upscale,
            background=extra.background,
            in_place=extra.in_place,
            progress=progress,
        )
        return Restoration(image, covered, faces, angles, strengths, faces.tracks)

    def describe(self, pictures: Sequence[Tensor]) -> Tensor:
        """Embed the people shown in pictures, one in each, for `Extra.people`.

        Args:
            pictures: (C, H, W) RGB or RGBA in [0, 1] each, of any sizes.

        Returns:
            (len(pictures), D) embeddings of the largest face in each.

        Raises:
            ValueError: a picture shows no face, or there is no embedder.
        """
        return self._need_embedder().describe(pictures, _need(self.detector, "detector"))

    def _check(self, options: RestoreOptions, extra: Extra) -> None:
        """Refuse, before the work, options that need a network which is missing."""
        if options.mask.needs_parser and self.parser is None and extra.face_masks is None:
            raise ValueError("the mask 'parts' needs a parser: FaceRestorer.load(parser='bisenet')")
        if extra.people is not None or options.identity.identity_limit is not None:
            self._need_embedder()

    def _need_embedder(self) -> FaceEmbedder:
        if self.embedder is None:
            raise ValueError(
                f"comparing faces (people, identity_limit) needs an embedder: {EMBEDDER_ADVICE}"
            )
        return self.embedder

    def _aligned(
        self, frames: Tensor, faces: Faces, options: RestoreOptions, size: int | None
    ) -> Faces:
        """The faces with crops of a size; those cut before are not cut again."""
        size = _need(self.restorer, "restorer").size if size is None else size
        if faces.crops is not None and faces.crops.shape[-1] == size:
            return faces
        return align(frames, faces, size, padding=options.padding)

    def _strengths(
        self, frames: Tensor, faces: Faces, options: RestoreOptions
    ) -> tuple[Tensor | None, Tensor, Faces]:
        """Angles by which faces were turned, the strength of each face, and the faces with both."""
        shares = torch.ones(len(faces))
        if options.auto_strength:
            shares = auto_strength(frames, faces, faces.sharpness)
        angles = None
        limit = options.identity.identity_limit
        if limit is not None:
            angles, identity_shares = compare(faces, self._need_embedder(), limit=limit)
            shares = shares * identity_shares
        if faces.tracks is not None:
            smoothed, faces = smooth_over_time(faces, {"strength": shares}, SMOOTHING)
            shares = smoothed["strength"]
        return angles, shares * options.strength, faces

    def _is_person(
        self, restorer: PersonRestorer, faces: Faces, options: RestoreOptions
    ) -> list[bool]:
        """Tell of each face whether it is the one that the restorer was learned for."""
        numbers = options.person.person_faces
        if numbers != AUTO:
            chosen = parse_selection(numbers)
            return [number in chosen for number in rank(faces)]
        embedder, embedding = self.embedder, restorer.embedding
        # Learned with an embedder of another kind, a person cannot be told by this one.
        if embedding is not None and embedder and embedder.dimensions == len(embedding):
            assert faces.crops is not None
            if faces.embeddings is None:
                faces = replace(faces, embeddings=embedder.embed(faces.crops))
            person, limit = embedding[None], options.identity.people_limit
            own = {id(face) for face in like(faces, person, limit=limit).faces}
            return [id(face) in own for face in faces.faces]
        counts = Counter(face.frame for face in faces.faces)
        if any(count > 1 for count in counts.values()):
            logger.warning(
                "Pictures of several people: nobody gets what was learned, for nothing here tells "
                "people apart. Say with person_faces which face it is, or get an embedder: "
                "gfp weights get face-descriptor."
            )
        return [counts[face.frame] == 1 for face in faces.faces]

    def _reference_crops(self, reference: Tensor, faces: Faces, options: RestoreOptions) -> Tensor:
        """(1 or N, 4, S, S): what gives each face its colors; alpha says where the face is."""
        count, size = len(faces.frame_sizes), _need(self.restorer, "restorer").size
        if reference.ndim != 4 or reference.shape[0] not in (1, count):
            raise ValueError(
                f"reference must be (1 or {count}, 3 or 4, H, W), not {tuple(reference.shape)}"
            )
        detected = _need(self.detector, "detector").detect(reference)
        largest = drop_what_is_no_face(detected).largest()
        crops = []
        for index in range(len(reference)):
            face = largest.of_frame(index)
            if len(face):
                crop = align(reference, face, size, padding=options.padding).crops
                assert crop is not None
                alpha = torch.from_numpy(face_ellipse(size))[None, None]
            else:
                logger.info("No face found in reference %d: all its colors count.", index)
                picture = clamp01(reference[index : index + 1].float())
                picture = F.interpolate(picture, (size, size), mode="area")
                crop, alpha = picture[:, :3], picture[:, 3:]
                alpha = alpha if alpha.shape[1] else torch.ones_like(crop[:, :1])
            crops.append(torch.cat([crop, alpha.to(crop)], dim=1))
        if len(crops) > 1:
            crops = [crops[face.frame] for face in faces.faces]
        return torch.cat(crops)


def _or_default(
    options: RestoreOptions | None, extra: Extra | None
) -> tuple[RestoreOptions, Extra]:
    return options or RestoreOptions(), extra or Extra()


def _with_keywords(
    options: RestoreOptions | None, extra: Extra | None, keywords: Mapping[str, Any]
) -> tuple[RestoreOptions, Extra]:
    """Options and extra, with single ones by their names over them; former names are logged."""
    options, extra = _or_default(options, extra)
    names = {field.name for field in dataclasses.fields(Extra)}
    tensors = {name: value for name, value in keywords.items() if name in names}
    single = {name: value for name, value in keywords.items() if name not in names}
    groups = {each.group for each in options_of(RestoreOptions)}
    for name in list(single):
        if isinstance(single[name], Options):  # a whole group, such as mask=Mask("hull")
            options = replace(options, **{name: single.pop(name)})
        elif single[name] is None and name in groups:
            del single[name]
    return options.replace(**single), replace(extra, **tensors)


def _need(network: Network | None, name: str) -> Network:
    if network is None:
        raise ValueError(f"this FaceRestorer has no {name}: give it one")
    return network


def _tracks(options: RestoreOptions, extra: Extra) -> Tracks | None:
    """The tracks to go on from, where frames are in order; else None."""
    return Tracks() if extra.tracks is None and options.video.video else extra.tracks


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
    """Find the file of a model and its architecture, for `load_network`.

    Args:
        model: name of weights in the catalogue, or a file. Only the catalogue's own names come
            before a file of the same name.
        weights: where named weights are looked for.
        progress: of a download, see `Weights.get`.

    Returns:
        The file; and the architecture if the catalogue says it, else None.

    Raises:
        WeightsError: it is neither, or the weights are not available.
    """
    weights = Weights() if weights is None else weights
    file, _, architecture = resolve(model, "restorer", weights, progress=progress)
    return file, architecture


def find_restorer(
    model: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    precision: Precision = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
    weights: Weights | None = None,
    progress: Progress | None = None,
) -> Restorer:
    """Load a restorer by its name or from its file: a network's, or what was learned of a person.

    Args:
        model: name of weights in the catalogue, or a file.
        device: where it runs.
        precision: of its arithmetic, see `Restorer` for this and ``engine``.
        engine: what runs it.
        provider: what onnxruntime runs a network's file on.
        weights: where named weights, and the base of a person's file, are looked for.
        progress: of a download, see `Weights.get`.

    Returns:
        A `PersonRestorer` for a person's file.

    Raises:
        WeightsError: it is neither, its weights are not available, or it is a person's whose base
            is not here.
    """
    weights = Weights() if weights is None else weights
    path, architecture = find_model(model, weights, progress=progress)
    difference = None if is_graph(path) else read_difference(path)
    if difference is None:
        net = load_network(path, architecture)
        return Restorer(net, device=device, precision=precision, engine=engine, provider=provider)
    return restorer_of(
        difference,
        path,
        device=device,
        precision=precision,
        engine=engine,
        provider=provider,
        weights=weights,
    )


def restorer_of(
    difference: Difference,
    path: Path,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "auto",
    engine: Engine = "auto",
    provider: Provider = "auto",
    weights: Weights | None = None,
) -> PersonRestorer:
    """Make a person's restorer of what was learned; errors as `find_restorer`.

    Args:
        difference: what was learned.
        path: the file that holds it, or would; its base may lie beside it.
        device: where it runs.
        precision: of its arithmetic.
        engine: what runs it.
        provider: what onnxruntime runs on.
        weights: where the base is looked for.
    """
    base = find_base(difference, path, weights)

    def build(strength: float) -> nn.Module:
        return load_with(difference, base, path, strength)

    return PersonRestorer(
        build,
        difference.embedding,
        device=device,
        precision=precision,
        engine=engine,
        provider=provider,
    )


def _embedder_at_hand(
    restorer: PersonRestorer, name: str, weights: Weights, device: torch.device
) -> FaceEmbedder | None:
    """Load what tells people apart, where it is on this machine: it is not fetched for this."""
    if restorer.embedding is None:
        return None
    reference = refer(name, "embedder", weights)
    if reference.entry is not None and weights.locate(reference.entry.name) is None:
        return None
    embedder = load_embedder(name, device=device, weights=weights)
    return embedder if embedder.dimensions == len(restorer.embedding) else None


def find_detector(
    detector: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    engine: Engine = "auto",
    provider: Provider = "auto",
) -> FaceDetector:
    """Load a detector by its name or from its file, see `detect.load_detector`.

    Args:
        detector: name of a detector in the catalogue, or a file that holds one.
        device: where it runs.
        weights: where named weights are looked for.
        progress: of a download, see `Weights.get`.
        engine: "onnxruntime" has it run RetinaFace.
        provider: what onnxruntime runs on.

    Raises:
        WeightsError: it is neither, or its weights are not available.
    """
    weights = Weights() if weights is None else weights
    reference = refer(detector, "detector", weights)
    if reference.entry is not None and reference.entry.name == "retinaface_mobile025":
        try:
            return load_detector(
                reference.entry.name, device=device, engine=engine, provider=provider
            )
        except ImportError as error:
            logger.warning("%s; using the official weights instead.", error)
    file, _, architecture = reference.fetch(weights, progress)
    return load_detector(architecture, path=file, device=device, engine=engine, provider=provider)


def find_parser(
    parser: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    weights: Weights | None = None,
) -> FaceParser:
    """Load a parser by its name or from its file, see `parse.load_parser`.

    Raises:
        WeightsError: it is neither, or its weights are not available.
    """
    weights = Weights() if weights is None else weights
    reference = refer(parser, "parser", weights)
    if reference.entry is None:
        return load_parser(path=reference.path, device=device)
    return load_parser(reference.entry.name, device=device, weights=weights)


def _stage(
    progress: Progress | None, stage: int, frames: int, stages: int = _STAGES
) -> Progress | None:
    """Report the progress of one stage as a part of the whole, in shares of frames."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(stage * frames + done * frames // max(total, 1), stages * frames)

    return report


def _beat(progress: Progress | None) -> Progress | None:
    """Report nothing done again and again, so that parsing can be cancelled."""
    return None if progress is None else lambda _, total: progress(0, total)
