"""Read and write clips frame by frame: time stamps, sound, colors and bit depth are kept.

A frame keeps the planes that the decoder gave. What a restoration changes is added to these planes
as a difference, in the clip's own color space and subsampling, so that every sample that no
change touches is the decoder's, bit by bit.

Needs the extra ``video`` (PyAV), which ComfyUI brings.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .formats import CLIP_SUFFIXES
from .metadata import RECORD_KEYWORD, readable

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

logger = logging.getLogger(__name__)

T = TypeVar("T")

Plane = NDArray[Any]

SUFFIXES = CLIP_SUFFIXES
"""Endings of clips, and FFmpeg's names of their containers."""


class VideoError(ValueError):
    """A clip cannot be read or written; says which, why, and what to do."""


@dataclass(frozen=True)
class Encoder:
    """Say how a codec is asked for, and for which quality."""

    names: tuple[str, ...]
    """FFmpeg's encoders of the codec, the first that is there counts."""
    crf: int | None = None
    """Default of the constant quality, about that of a good source; None where there is none."""
    preset: str = ""
    """FFmpeg's option for the speed of encoding."""
    options: dict[str, str] = field(default_factory=dict)
    containers: tuple[str, ...] = ("mp4", "mov", "matroska")


ENCODERS = {
    "h264": Encoder(("libx264",), 22, "preset", containers=("mp4", "mov", "matroska", "avi")),
    "h265": Encoder(("libx265",), 22, "preset", {"x265-params": "log-level=error"}),
    "av1": Encoder(("libsvtav1",), 30, "preset", containers=("mp4", "matroska", "webm")),
    "vp9": Encoder(
        ("libvpx-vp9",),
        30,
        "cpu-used",
        {"b": "0", "row-mt": "1"},
        ("mp4", "matroska", "webm"),
    ),
    "prores": Encoder(("prores_ks",), None, "", {"profile": "3"}, ("mov", "matroska")),
    "ffv1": Encoder(("ffv1",), None, "", {"level": "3", "slicecrc": "1"}, ("matroska", "avi")),
    # Frames wait without loss for the palettes that `join` finds.
    "gif": Encoder(("ffv1",), None, "", {"level": "3"}, ("gif",)),
}
"""Codecs that can be chosen. The qualities are those at which a clip stays at about its size, and
differs from the source by less than its own compression did, see docs/video.md."""
_HARDWARE = ("nvenc", "qsv", "amf", "videotoolbox", "vaapi", "v4l2m2m")
_QUALITIES = {"nvenc": "cq", "qsv": "global_quality"}
"""What hardware encoders call the constant quality; others go by the clip's bit rate alone."""
_NAMES = {"hevc": "h265"}  # FFmpeg's names of decoders, where the codec's name here is another
_TRANSFERS_HDR = {16: "PQ", 18: "HLG"}
# Red's and blue's share of the luma, by AVColorSpace (ITU-T H.273, table 4).
_MATRICES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_SUBSAMPLINGS = {
    (0, 0): "444",
    (1, 0): "422",
    (1, 1): "420",
    (0, 1): "440",
    (2, 0): "411",
    (2, 2): "410",
}
"""FFmpeg's names, by how often chroma is halved to the side and downwards."""
_FULL_RANGE = 2
_EARLY = 0.5
"""Seconds by which the length that a container says may be wrong."""
_UNTURNED = ("avi", "gif")
"""Containers that cannot say that a player turns the frames."""


def is_clip(path: Path) -> bool:
    """Return whether a path ends like a clip."""
    return path.suffix.lower() in SUFFIXES


def import_av() -> Any:
    """Import PyAV.

    Raises:
        VideoError: PyAV is not installed; names the extra.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError(
            f"clips need PyAV ({error}): pip install 'gfp-face-restoration[video]'"
        ) from error
    av.logging.set_level(av.logging.FATAL)
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 has a log of its own: errors alone
    return av


def _file(path: Path) -> str:
    """Return a path in full: FFmpeg takes a name like 12:30.mp4 for a protocol's."""
    return os.path.abspath(path)


@dataclass(frozen=True)
class Layout:
    """Describe the planes of a pixel format, and the way from them to RGB."""

    format: str
    """FFmpeg's name of the planar, little-endian format the planes are in."""
    depth: int
    """Bits of a sample in these planes; the clip's own may be fewer."""
    is_rgb: bool
    is_gray: bool
    has_alpha: bool
    has_palette: bool
    matrix: tuple[float, float]
    """Red's and blue's share of the luma."""
    is_full_range: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> Layout:
        """Return the layout of a decoded frame."""
        pixel = frame.format
        bits = max(component.bits for component in pixel.components)
        depth = min((each for each in (8, 10, 12, 14, 16) if each >= bits), default=16)
        is_rgb = pixel.is_rgb or pixel.has_palette
        is_gray = len([c for c in pixel.components if not c.is_alpha]) == 1 and not is_rgb
        has_alpha = any(component.is_alpha for component in pixel.components) or pixel.has_palette
        name = _planar_name(pixel, depth, is_rgb, is_gray, has_alpha)
        standard = _MATRICES[1] if frame.height > 576 else _MATRICES[6]
        is_full = (
            is_rgb or pixel.name.startswith(("yuvj", "mono")) or frame.color_range == _FULL_RANGE
        )
        matrix = _MATRICES.get(int(frame.colorspace), standard)
        return cls(name, depth, is_rgb, is_gray, has_alpha, pixel.has_palette, matrix, is_full)

    @property
    def dtype(self) -> Any:
        """NumPy's type of a sample."""
        return np.uint8 if self.depth == 8 else np.dtype("<u2")

    @property
    def _luma(self) -> tuple[float, float]:
        """Offset and span of the luma in steps of a sample."""
        unit = 2 ** (self.depth - 8)
        return (0.0, 2.0**self.depth - 1) if self.is_full_range else (16.0 * unit, 219.0 * unit)

    @property
    def _chroma(self) -> tuple[float, float]:
        unit = 2 ** (self.depth - 8)
        span = 2.0**self.depth - 1 if self.is_full_range else 224.0 * unit
        return 128.0 * unit, span

    def to_rgb(self, planes: Sequence[Plane]) -> NDArray[np.float32]:
        """Return planes as (H, W, 3) float32 RGB, nominally in [0, 1]; alpha is left out."""
        if self.is_rgb:
            green, blue, red = (_float(plane) for plane in planes[:3])
            return np.stack([red, green, blue], axis=2) / np.float32(2**self.depth - 1)
        offset, span = self._luma
        luma = (_float(planes[0]) - np.float32(offset)) / np.float32(span)
        if self.is_gray:
            return np.repeat(luma[:, :, None], 3, axis=2)
        middle, range_ = self._chroma
        size = (luma.shape[1], luma.shape[0])
        blue, red = (
            np.asarray(
                cv2.resize((_float(plane) - np.float32(middle)) / np.float32(range_), size),
                np.float32,
            )
            for plane in planes[1:3]
        )
        return _float(cv2.transform(np.dstack([luma, blue, red]), self._to_rgb_matrix))

    def add(self, planes: Sequence[Plane], change: NDArray[np.float32]) -> list[Plane]:
        """Return planes with a change of (H, W, 3) RGB added; samples it is zero in are the same.

        Chroma that is subsampled gets the mean of the changes it stands for.
        """
        top = 2**self.depth - 1
        if self.is_rgb:
            parts = [change[:, :, channel] * top for channel in (1, 2, 0)]
        else:
            ycc = _float(cv2.transform(change, np.linalg.inv(self._to_rgb_matrix)))
            parts = [ycc[:, :, 0] * self._luma[1]]
            if not self.is_gray:
                span = self._chroma[1]
                for channel, plane in ((1, planes[1]), (2, planes[2])):
                    size = (plane.shape[1], plane.shape[0])
                    # Samples at an odd edge stand for fewer pixels.
                    part = _padded(ycc[:, :, channel], change.shape, plane.shape)
                    parts.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA) * span)
        added = [
            np.clip(np.rint(plane + part), 0, top).astype(plane.dtype)
            for plane, part in zip(planes, parts, strict=False)
        ]
        return [*added, *planes[len(parts) :]]

    @cached_property
    def _to_rgb_matrix(self) -> NDArray[np.float64]:
        """(3, 3): RGB of luma, blue's and red's chroma, each in shares of its span."""
        red, blue = self.matrix
        green = 1 - red - blue
        return np.array(
            [
                [1, 0, 2 * (1 - red)],
                [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
                [1, 2 * (1 - blue), 0],
            ]
        )


def _padded(
    part: NDArray[np.float32], size: tuple[int, ...], chroma: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return a part with its last row and column repeated, where a chroma sample reaches beyond."""
    bottom = -size[0] % round(size[0] / chroma[0])
    right = -size[1] % round(size[1] / chroma[1])
    if not bottom and not right:
        return part
    return _float(cv2.copyMakeBorder(part, 0, bottom, 0, right, cv2.BORDER_REPLICATE))


def _float(samples: NDArray[Any]) -> NDArray[np.float32]:
    return samples.astype(np.float32, copy=False)


def _planar_name(pixel: Any, depth: int, is_rgb: bool, is_gray: bool, has_alpha: bool) -> str:
    """Return the planar little-endian format that holds a format's samples unchanged."""
    ending = "" if depth == 8 else f"{depth}le"
    if is_rgb:
        return ("gbrap" if has_alpha else "gbrp") + ending
    if is_gray:
        return "gray" + ending
    horizontal = (64 // pixel.chroma_width(64)).bit_length() - 1
    vertical = (64 // pixel.chroma_height(64)).bit_length() - 1
    kind = _SUBSAMPLINGS[horizontal, vertical]
    return f"yuv{'a' if has_alpha else ''}{kind}p{ending}"


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a clip, as it was decoded."""

    index: int
    """Number in the clip, from 0."""
    pts: int
    """Time stamp in units of the clip's time base."""
    duration: int
    """In the same units; 0 where it is not known."""
    layout: Layout
    planes: tuple[Plane, ...]
    """As the layout says, each (h, w); not upright where the clip is turned."""
    turns: int
    """Quarter turns, counter-clockwise, that make the frame upright."""
    origin: Any = None
    """The decoder's frame, for what is copied from it."""

    def to_tensor(self) -> Tensor:
        """Return the frame upright, as (1, 3, H, W) float32 RGB, nominally in [0, 1]."""
        rgb = np.rot90(self.layout.to_rgb(self.planes), self.turns)
        return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]

    def with_change(self, before: Tensor, after: Tensor) -> Frame:
        """Return the frame with what differs between two tensors of `to_tensor`'s form.

        Args:
            before: (1, 3, H, W) what `to_tensor` gave.
            after: (1, 3, H, W) the same, restored.
        """
        change = (after - before)[0].permute(1, 2, 0).cpu().numpy()
        turned = np.rot90(change, -self.turns)
        box = _box_of(turned)
        if box is None:
            return self
        size = turned.shape
        boxes = [tuple(_share(box[i], size[i], p.shape[i]) for i in (0, 1)) for p in self.planes]
        parts = [plane[part] for plane, part in zip(self.planes, boxes, strict=True)]
        planes = [plane.copy() for plane in self.planes]
        changed = self.layout.add(parts, np.ascontiguousarray(turned[box]))
        for plane, part, samples in zip(planes, boxes, changed, strict=True):
            plane[part] = samples
        return replace(self, planes=tuple(planes))

    def resized(self, after: Tensor) -> Frame:
        """Return a frame of another size, whose planes are made of (1, 3, H', W') alone."""
        rgb = np.rot90(after[0].permute(1, 2, 0).cpu().numpy(), -self.turns)
        height, width = rgb.shape[:2]
        blank = tuple(
            np.zeros(_scaled(plane.shape, self.planes[0].shape, (height, width)), plane.dtype)
            for plane in self.planes
        )
        if not self.layout.is_rgb and not self.layout.is_gray:
            for plane in blank[1:3]:
                plane[:] = 2 ** (self.layout.depth - 1)
        blank[0][:] = 0
        if len(blank) == 4:
            blank[3][:] = cv2.resize(self.planes[3], blank[3].shape[::-1])
        start = self.layout.to_rgb(blank)
        planes = self.layout.add(blank, np.ascontiguousarray(rgb) - start)
        return replace(self, planes=tuple(planes), origin=self.origin)


def _box_of(change: NDArray[np.float32]) -> tuple[slice, slice] | None:
    """Return the rows and columns of (H, W, 3) that are not all zero, from one chroma sample on."""
    changed: NDArray[np.bool_] = np.any(change, axis=2)
    slices = []
    for axis in (1, 0):
        indices = np.flatnonzero(changed.any(axis=axis))
        if not len(indices):
            return None
        # No format's chroma samples stand for more than four pixels a side; how many can be told
        # from 32 pixels on, where the last sample stands for fewer.
        stop = min(-(-(int(indices[-1]) + 1) // 4) * 4, changed.shape[1 - axis])
        start = max(0, min(int(indices[0]), stop - 32))
        slices.append(slice(start // 4 * 4, stop))
    return slices[0], slices[1]


def _share(box: slice, luma: int, plane: int) -> slice:
    """Return the samples of a plane that stand for a box's rows or columns of the luma."""
    step = round(luma / plane)
    return slice(box.start // step, -(-box.stop // step))


def _scaled(
    plane: tuple[int, ...], luma: tuple[int, ...], size: tuple[int, int]
) -> tuple[int, int]:
    """Return the size of a plane beside a luma plane of another size."""
    rows, columns = round(luma[0] / plane[0]), round(luma[1] / plane[1])
    return -(-size[0] // rows), -(-size[1] // columns)


@dataclass
class Damage:
    """Count what was wrong in a clip and mended."""

    packets: int = 0
    """Packets that could not be decoded."""
    stamps: int = 0
    """Frames without a time stamp, or with one that is not after the frame's before."""
    missing: float = 0.0
    """Seconds by which the clip ends before the time that its head says."""

    def __str__(self) -> str:
        """Say it, or nothing."""
        parts = []
        if self.packets:
            parts.append(f"{self.packets} broken packets were left out")
        if self.stamps:
            parts.append(f"{self.stamps} time stamps were mended")
        if self.missing:
            parts.append(f"the last {self.missing:.1f} s cannot be read")
        return ", ".join(parts)


class Clip:
    """Read a clip.

    Example:
        >>> with Clip(path) as clip:
        ...     for frame in clip.frames():
        ...         rgb = frame.to_tensor()
    """

    def __init__(self, path: Path) -> None:
        """Open a clip.

        Raises:
            VideoError: the file is no clip, holds no moving pictures, or is one of HDR.
        """
        self.path = path
        self.damage = Damage()
        self._av = import_av()
        try:
            self.container: Any = self._av.open(_file(path), metadata_errors="surrogateescape")
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{path} cannot be read as a clip ({_reason(error)})") from error
        try:
            self.stream = self._find_stream()
            self._refuse_hdr(int(self.stream.codec_context.color_trc or 0))
        except VideoError:
            self.container.close()
            raise

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def _find_stream(self) -> Any:
        cover = self._av.stream.Disposition.attached_pic
        for stream in self.container.streams.video:
            if not stream.disposition & cover and stream.codec_context is not None:
                return stream
        raise VideoError(f"{self.path} holds no moving pictures")

    def _refuse_hdr(self, number: int) -> None:
        if transfer := _TRANSFERS_HDR.get(number):
            raise VideoError(
                f"{self.path} is HDR ({transfer}), whose colors the networks do not know: convert "
                "the clip to SDR first"
            )

    @property
    def codec(self) -> str:
        """Name of the codec, as `ENCODERS` calls it."""
        name: str = self.stream.codec_context.codec.canonical_name
        return _NAMES.get(name, name)

    @property
    def time_base(self) -> Fraction:
        """Unit of the time stamps in seconds."""
        base: Fraction = self.stream.time_base
        return base

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self.stream.average_rate or self.stream.guessed_rate or Fraction(25)

    @property
    def start(self) -> float:
        """Seconds at which the clip begins: 0 but for a recording that was cut out of another."""
        return max(0, self.container.start_time or 0) / 1_000_000

    @property
    def frame_count(self) -> int | None:
        """How many frames there are, where the container says or lets one tell; else None."""
        if self.stream.frames:
            return int(self.stream.frames)
        if self.container.duration:
            return round((self._end - self.start) * self.rate) or None
        return None

    @property
    def _end(self) -> float:
        """Seconds at which all ends, as the container says; 0 where the container does not."""
        length = (self.container.duration or 0) / 1_000_000
        # Matroska counts from zero, wherever its first frame is.
        return (
            length + self.start
            if length and "matroska" not in self.container.format.name
            else length
        )

    def frames(self) -> Iterator[Frame]:
        """Decode the frames in order of their time stamps; what is broken is left out and counted.

        Raises:
            VideoError: no frame can be decoded.
        """
        step = max(1, round(1 / (self.rate * self.time_base)))
        self.stream.thread_type = "AUTO"
        index, last = 0, None
        for decoded, following in _with_next(self._decoded()):
            pts = _mended(decoded.pts, None if following is None else following.pts, last, step)
            self.damage.stamps += pts != decoded.pts
            yield self._frame(decoded, index, pts)
            last, index = pts, index + 1
        if not index:
            raise VideoError(f"{self.path} holds no frame that can be decoded")

    def _decoded(self) -> Iterator[VideoFrame]:
        packets = self.container.demux()
        end = 0.0  # of all that is there, for the sound may well go on behind the pictures
        while True:
            try:
                packet = next(packets)
                if packet.pts is not None:
                    end = max(end, float((packet.pts + packet.duration) * packet.time_base))
                if packet.stream.index != self.stream.index:
                    continue
            except StopIteration:
                missing = self._end - end
                self.damage.missing = missing if missing > _EARLY else 0.0
                return
            except self._av.FFmpegError as error:  # the file ends in the middle of a packet
                logger.warning("%s ends early (%s).", self.path, _reason(error))
                self.damage.packets += 1
                packet = None
            try:
                decoded = self.stream.decode(packet)
            except self._av.FFmpegError:
                self.damage.packets += 1
                continue
            yield from decoded
            if packet is None:
                return

    def _frame(self, decoded: VideoFrame, index: int, pts: int) -> Frame:
        self._refuse_hdr(int(decoded.color_trc or 0))
        layout = Layout.of(decoded)
        name = decoded.format.name
        same = {layout.format, layout.format.replace("yuv", "yuvj", 1)}
        planar = decoded if name in same else decoded.reformat(format=layout.format)
        planes = tuple(_array(plane, layout.dtype) for plane in planar.planes)
        if _is_mirrored(self._av, decoded):
            # No writer says so: rows in the other order, turned as before, look the same.
            planes = tuple(np.ascontiguousarray(plane[::-1]) for plane in planes)
        # Degrees counter-clockwise by which a player turns the frame.
        turns = round(decoded.rotation / 90) % 4
        return Frame(index, pts, int(decoded.duration or 0), layout, planes, turns, decoded)


def _is_mirrored(av: Any, frame: VideoFrame) -> bool:
    """Return whether a player shows a frame from behind: its matrix's determinant is negative."""
    data: Any = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None:
        return False
    matrix = np.frombuffer(bytes(data), np.int32)[:5].astype(np.float64)
    return bool(matrix[0] * matrix[4] - matrix[1] * matrix[3] < 0)


def _with_next(items: Iterator[T]) -> Iterator[tuple[T, T | None]]:
    """Yield every item with the one that follows, None for the last."""
    item = next(items, None)
    for following in items:
        assert item is not None
        yield item, following
        item = following
    if item is not None:
        yield item, None


def _mended(pts: int | None, following: int | None, last: int | None, step: int) -> int:
    """Return a frame's time stamp: behind the one before and, if it can be, before the next.

    A stamp far ahead of those that follow is wrong itself: they would all have to be changed.
    """
    expected = 0 if last is None else last + step
    if pts is None:
        return expected
    if last is not None and pts <= last:
        return last + 1
    if following is not None and following < pts and (last is None or following > last + 1):
        return min(expected, following - 1)
    return pts


def _array(plane: Any, dtype: Any) -> Plane:
    size = np.dtype(dtype).itemsize
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // size)
    return rows[:, : plane.width].copy()


@dataclass(frozen=True)
class Encoding:
    """Say how the frames of a clip are encoded."""

    codec: str
    """One of `ENCODERS`, or the name of an encoder of FFmpeg, such as h264_nvenc."""
    crf: float | None = None
    preset: str | None = None
    upright: bool = False
    """Whether frames are turned themselves, where the container cannot say it to the player."""

    @classmethod
    def choose(
        cls, clip: Clip, target: Path, codec: str | None, crf: float | None, preset: str | None
    ) -> Encoding:
        """Return the encoding asked for; by default the clip's codec, where the target takes it.

        Raises:
            VideoError: there is no such encoder, or the container cannot hold the codec.
        """
        container = SUFFIXES[target.suffix.lower()]
        if codec is None:
            wanted = clip.codec if container != "gif" else "gif"
            fallback = {"webm": "vp9", "gif": "gif"}.get(container, "h264")
            fits = wanted in ENCODERS and container in ENCODERS[wanted].containers
            codec = wanted if fits else fallback
        encoding = cls(codec, crf, preset, container in _UNTURNED)
        known = ENCODERS.get(codec)
        if known is not None and container not in known.containers:
            raise VideoError(
                f"{target}: a {container} file holds no {codec}; choose another --codec, or one of "
                f"the endings of {', '.join(known.containers)}"
            )
        encoding._say_unused(target)
        encoding._try(clip)
        return encoding

    def _say_unused(self, target: Path) -> None:
        """Say which wishes a codec without loss, or of one quality, has no use for."""
        known = ENCODERS.get(self.codec)
        if known is None:  # FFmpeg says it
            return
        unused = ["--crf"] * (self.crf is not None and known.crf is None)
        unused += ["--encoder-preset"] * bool(self.preset and not known.preset)
        if unused:
            logger.warning(
                "%s: %s has no %s: passed over", target, self.codec, " and no ".join(unused)
            )

    def _try(self, clip: Clip) -> None:
        """Open an encoder once where it may refuse: the hardware or the preset may not be there.

        Raises:
            VideoError: there is no such encoder, or it does not work here or with these options.
        """
        name = self.encoder()
        if self.codec in ENCODERS and not self.preset:
            return
        av = import_av()
        try:
            context = av.CodecContext.create(name, "w")
            context.options = self.options()
            context.width, context.height = clip.stream.width, clip.stream.height
            formats = av.Codec(name, "w").video_formats
            context.pix_fmt = formats[0].name if formats else "yuv420p"
            context.time_base, context.framerate = clip.time_base, clip.rate
            context.open()
        except (av.FFmpegError, ValueError, TypeError) as error:
            if self.codec in ENCODERS:
                text = f"does not take --encoder-preset {self.preset} ({_reason(error)})"
            else:
                text = (
                    f"does not work on this machine ({_reason(error)}); choose another --codec, "
                    "such as h264"
                )
            raise VideoError(f"{clip.path}: the encoder {name} {text}") from error

    def encoder(self) -> str:
        """Return FFmpeg's name of the encoder.

        Raises:
            VideoError: there is none.
        """
        av = import_av()
        known = ENCODERS.get(self.codec)
        for name in known.names if known else (self.codec,):
            with contextlib.suppress(av.FFmpegError, ValueError):
                codec = av.Codec(name, "w")
                if codec.type == "video":
                    return str(name)
        hardware = [name for name in sorted(av.codecs_available) if name.endswith(_HARDWARE)]
        raise VideoError(
            f"there is no encoder {self.codec} here; there are {', '.join(ENCODERS)}"
            + (f", and perhaps {', '.join(hardware)}" if hardware else "")
        )

    def options(self) -> dict[str, str]:
        """Return the encoder's options."""
        known = ENCODERS.get(self.codec, Encoder((self.codec,), None, "preset"))
        options = dict(known.options)
        crf = known.crf if self.crf is None else self.crf
        if known.crf is None and self.codec in ENCODERS:
            crf = None
        if crf is not None:
            name = next((name for end, name in _QUALITIES.items() if self.codec.endswith(end)), "")
            options[name or "crf"] = f"{crf:g}"
        if self.preset and known.preset:
            options[known.preset] = self.preset
        return options


class Segment:
    """Write frames into one file of a clip's moving pictures alone, see `join`."""

    def __init__(
        self, path: Path, clip: Clip, encoding: Encoding, *, is_first: bool = True
    ) -> None:
        """Begin a file; its time stamps are written exactly, relative to its first frame.

        What the encoder changes of the frames is logged by the clip's first segment.

        Raises:
            VideoError: the encoder refuses the frames.
        """
        self._av = import_av()
        self.path, self._clip, self._encoding = path, clip, encoding
        self._encoder, self._is_first = encoding.encoder(), is_first
        # NUT does not know ProRes, and QuickTime begins at zero only without rounding.
        container = "mov" if self._encoder.startswith("prores") else "nut"
        options = {"avoid_negative_ts": "disabled"}
        if container == "mov":
            options["movflags"] = "use_metadata_tags"
        self._output: Any = self._av.open(_file(path), "w", format=container, options=options)
        self._stream: Any = None
        self._frames = 0
        self._base = 0
        self._format = ""

    def write(self, frame: Frame) -> None:
        """Encode one frame.

        Raises:
            VideoError: the encoder refuses the frame.
            OSError: the disk is full.
        """
        encoded = self._picture(frame)
        if self._encoding.upright and frame.turns:
            encoded = self._upright(encoded, frame.turns)
        if self._stream is None:
            self._begin(frame, encoded)
        encoded = self._fitted(encoded)
        self._frames += 1
        try:
            for packet in self._stream.encode(encoded):
                self._output.mux(packet)
        except self._av.FFmpegError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Encode what is left, and end the file."""
        try:
            if self._stream is not None:
                for packet in self._stream.encode(None):
                    if self._frames <= 2:
                        # Of so few frames x265 hands on no decoding times, but what lay in memory.
                        packet.dts = packet.pts
                    self._output.mux(packet)
            self._output.close()
        except self._av.FFmpegError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> Exception:
        """Return what a failed write means: a full disk, or an encoder that gave up."""
        if _is_disk_full(error):
            return _write_error(self.path, error)
        return VideoError(
            f"{self._clip.path}: the encoder {self._encoder} failed ({_reason(error)}); choose "
            "another --codec"
        )

    def _begin(self, frame: Frame, encoded: VideoFrame) -> None:
        clip, source = self._clip, self._clip.stream.codec_context
        encoder = self._encoder
        self._base = frame.pts
        self._output.metadata[_BASE] = str(frame.pts * clip.time_base)
        rotation = 0 if self._encoding.upright else int(frame.origin.rotation)
        self._output.metadata[_ROTATION] = str(rotation)
        self._format = _pixel_format(self._av, encoder, frame.layout)
        width, height = _encoded_size(encoded, self._format, encoder)
        if self._is_first:
            self._log_changes(frame.layout, encoded, (width, height))
        stream = self._output.add_stream(encoder, rate=clip.rate, options=self._encoding.options())
        stream.width, stream.height, stream.pix_fmt = width, height, self._format
        stream.time_base = clip.time_base
        context = stream.codec_context
        context.time_base = clip.time_base
        context.framerate = clip.rate
        context.thread_count = 0
        if self._encoding.codec not in ENCODERS and clip.stream.bit_rate:
            context.bit_rate = clip.stream.bit_rate  # their own would be the same for every size
        if ratio := source.sample_aspect_ratio:
            lies = self._encoding.upright and frame.turns % 2
            context.sample_aspect_ratio = 1 / ratio if lies else ratio
        _copy_colors(frame, context, self._format)
        # Players of mp4 and mov need the parameter sets in front.
        context.flags |= int(self._av.codec.context.Flags.global_header)
        self._stream = stream

    def _log_changes(self, layout: Layout, frame: VideoFrame, size: tuple[int, int]) -> None:
        target = self._av.VideoFormat(self._format)
        changes = []
        if size != (frame.width, frame.height):
            changes.append(
                f"{frame.width} x {frame.height} pixels, but {self._encoder} needs even sizes: the "
                "last row or column is repeated"
            )
        has_alpha = any(component.is_alpha for component in target.components)
        # A palette could hold a transparent color; whether it does, the format does not say.
        if layout.has_alpha and not layout.has_palette and not has_alpha:
            changes.append(f"{self._encoder} holds no transparency: it is left out; ffv1 keeps it")
        depth = max(component.bits for component in target.components)
        if depth < layout.depth:
            changes.append(f"{self._encoder} takes {depth} of the {layout.depth} bits of a sample")
        for change in changes:
            logger.warning("%s: %s.", self._clip.path, change)

    def _picture(self, frame: Frame) -> VideoFrame:
        """Return the frame as the decoder's class, in the layout's own format."""
        layout = frame.layout
        height, width = frame.planes[0].shape
        picture: VideoFrame = self._av.VideoFrame(width, height, layout.format)
        for plane, samples in zip(picture.planes, frame.planes, strict=True):
            line = plane.line_size // samples.itemsize
            rows = np.zeros((plane.height, line), samples.dtype)
            rows[:, : plane.width] = samples
            plane.update(rows.tobytes())
        picture.pts, picture.time_base = frame.pts, self._clip.time_base
        if frame.duration:
            picture.duration = frame.duration
        picture.colorspace = frame.origin.colorspace
        picture.color_range = _FULL_RANGE if layout.is_full_range else 1
        return picture

    def _upright(self, picture: VideoFrame, turns: int) -> VideoFrame:
        """Turn a picture counter-clockwise by quarters, and keep what else is known of it."""
        graph: Any = self._av.filter.Graph()
        last = graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format.name,
            time_base=picture.time_base,
        )
        for _ in range(turns):
            turned = graph.add("transpose", "cclock")
            last.link_to(turned)
            last = turned
        last.link_to(graph.add("buffersink"))
        graph.configure()
        graph.push(picture)
        result: VideoFrame = graph.pull()
        return result

    def _fitted(self, picture: VideoFrame) -> VideoFrame:
        """Return the picture in the encoder's pixel format and size."""
        pts, base, duration = int(picture.pts or 0), picture.time_base, picture.duration
        if picture.format.name != self._format:
            picture = _converted(picture, self._format)
        width, height = self._stream.width, self._stream.height
        if (picture.width, picture.height) != (width, height):
            picture = _with_even_size(self._av, picture, width, height)
        picture.pts, picture.time_base = pts - self._base, base
        if duration:
            picture.duration = duration
        return picture


def _copy_colors(frame: Frame, context: Any, format: str) -> None:
    """Copy primaries, transfer, matrix and range into an encoder."""
    origin = frame.origin
    context.color_primaries = origin.color_primaries
    context.color_trc = origin.color_trc
    if frame.layout.is_rgb and not format.startswith(("gbr", "rgb", "bgr", "pal")):
        context.colorspace, context.color_range = 1, 1  # see `_converted`
    else:
        context.colorspace = origin.colorspace
        context.color_range = _FULL_RANGE if frame.layout.is_full_range else origin.color_range


def _converted(picture: VideoFrame, format: str) -> VideoFrame:
    """Return a picture in another pixel format; RGB becomes BT.709 of limited range."""
    if picture.format.is_rgb and not format.startswith(("gbr", "rgb", "bgr", "pal")):
        return picture.reformat(
            format=format, dst_colorspace=1, dst_color_range=1, src_color_range=2
        )
    if format == "pal8":
        return picture.reformat(format="rgb8")
    return picture.reformat(
        format=format, src_color_range=picture.color_range, dst_color_range=picture.color_range
    )


def _pixel_format(av: Any, encoder: str, layout: Layout) -> str:
    """Return the encoder's pixel format that loses least of a layout."""
    formats = [each.name for each in av.Codec(encoder, "w").video_formats or ()]
    if encoder == "libx265":  # names formats with alpha also where x265 was built without alpha
        formats = [name for name in formats if not name.startswith("yuva")]
    if not formats or layout.format in formats:
        return layout.format
    names = [layout.format.replace("yuva", "yuv").replace("gbrap", "gbrp")]
    ending = "" if layout.depth == 8 else "10le"
    if layout.is_gray:
        names += ["yuv420p" + ending]
    if layout.is_rgb:
        packed = ["bgra", "rgba"] if layout.has_alpha else ["bgr0", "rgb24"]
        names += [*(packed if layout.depth == 8 else []), "rgb8", "yuv444p" + ending]
    for kind in ("444", "422", "420"):
        names.append(layout.format[:3] + kind + "p" + ending)
    names += ["yuv420p" + ending, "yuv422p" + ending, "yuv444p" + ending, "yuv420p", "nv12"]
    for name in names:
        if name in formats:
            return name
    return str(formats[0])


def _encoded_size(picture: VideoFrame, format: str, encoder: str) -> tuple[int, int]:
    """Return the size that an encoder takes: subsampled codecs want whole chroma samples."""
    width, height = picture.width, picture.height
    if encoder in ("ffv1", "gif"):
        return width, height
    columns = 2 if "420" in format or "422" in format or format == "nv12" else 1
    rows = 2 if "420" in format or format == "nv12" else 1
    return -(-width // columns) * columns, -(-height // rows) * rows


def _with_even_size(av: Any, picture: VideoFrame, width: int, height: int) -> VideoFrame:
    """Return a picture with its last row and column repeated."""
    result: VideoFrame = av.VideoFrame(width, height, picture.format.name)
    for before, after in zip(picture.planes, result.planes, strict=True):
        dtype = np.uint8 if picture.format.components[0].bits == 8 else np.dtype("<u2")
        samples = _array(before, dtype)
        rows = np.zeros((after.height, after.line_size // samples.itemsize), dtype)
        rows[:, : after.width] = np.pad(
            samples,
            ((0, after.height - samples.shape[0]), (0, after.width - samples.shape[1])),
            mode="edge",
        )
        after.update(rows.tobytes())
    result.colorspace, result.color_range = picture.colorspace, picture.color_range
    return result


@dataclass(frozen=True)
class Window:
    """A part of a clip, in seconds."""

    start: float = 0.0
    end: float | None = None

    def holds(self, seconds: float) -> bool:
        """Return whether a time lies in the window."""
        # Sound may begin before zero, with samples that prime its decoder.
        begun = not self.start or seconds >= self.start - 1e-9
        return begun and (self.end is None or seconds < self.end - 1e-9)


def join(
    segments: Sequence[Path],
    clip_path: Path,
    target: Path,
    window: Window | None = None,
    *,
    container: str,
    record: str | None = None,
) -> None:
    """Put encoded segments, and all else that a clip holds, into one file without encoding again.

    Sound, subtitles, data, covers, chapters, attachments and metadata are copied packet by packet;
    what the container does not take is left out, which a log line says.

    Args:
        segments: files of `Segment`, in order, one or more.
        clip_path: the clip they were made of.
        target: the file to write.
        window: the part of the clip that the segments hold; all of it by default.
        container: FFmpeg's name of the target's format.
        record: what was done to the clip, for `read_record`, in place of an older record; None
            keeps that of the clip, an empty text removes it. GIF has no place for it.

    Raises:
        VideoError: the container refuses what it is given.
        OSError: the disk is full.
    """
    av = import_av()
    if container == "gif":
        try:
            return _write_gif(av, segments, target, window or Window())
        except av.FFmpegError as error:
            raise _write_error(target, error) from error
    with Clip(clip_path) as clip:
        is_mov = container in ("mp4", "mov")
        # FFmpeg writes either a cover or keys of any name into an MP4.
        has_keys = container != "avi" and not (is_mov and _has_cover(av, clip.container))
        flags = "+faststart" + "+use_metadata_tags" * has_keys
        options = {"movflags": flags} if is_mov else {}
        try:
            with av.open(
                _file(target),
                "w",
                format=container,
                options=options,
                metadata_errors="surrogateescape",
            ) as output:
                metadata = _metadata(clip.container, record, has_keys=has_keys)
                _mux(av, segments, clip, output, window or Window(), metadata)
        except av.FFmpegError as error:
            raise _write_error(target, error) from error


def _write_gif(av: Any, segments: Sequence[Path], target: Path, window: Window) -> None:
    """Write segments as a GIF, each frame with the palette that fits it best.

    Of frames that would be shown in one hundredth of a second the first is taken.
    """
    graph: Any = None
    last, omitted = -1, 0
    with av.open(_file(target), "w", format="gif") as output:
        for path in segments:
            with av.open(_file(path)) as segment:
                source = segment.streams.video[0]
                start = Fraction(segment.metadata[_BASE]) - Fraction(window.start)
                if graph is None:
                    graph = _palette_graph(av, source)
                    stream = output.add_stream("gif", rate=source.average_rate or 25)
                    stream.width, stream.height, stream.pix_fmt = (
                        source.width,
                        source.height,
                        "pal8",
                    )
                    stream.codec_context.time_base = Fraction(1, 100)
                for frame in segment.decode(source):
                    frame.pts = round((frame.pts * source.time_base + start) * 100)
                    frame.time_base = Fraction(1, 100)
                    if frame.pts <= last:
                        omitted += 1
                        continue
                    last = frame.pts
                    graph.push(frame)
                    _drain(av, graph, stream, output)
        graph.push(None)
        _drain(av, graph, stream, output)
        for packet in stream.encode(None):
            output.mux(packet)
    if omitted:
        logger.warning(
            "%d frames are left out: a GIF shows none for less than a hundredth of a second.",
            omitted,
        )


def _palette_graph(av: Any, source: Any) -> Any:
    graph = av.filter.Graph()
    buffer = graph.add_buffer(
        width=source.width, height=source.height, format=source.pix_fmt, time_base=Fraction(1, 100)
    )
    split = graph.add("split")
    # FFmpeg reads every GIF with alpha, and a palette has one color for what shows through.
    has_alpha = any(component.is_alpha for component in source.format.components)
    palette = graph.add("palettegen", f"stats_mode=single:reserve_transparent={int(has_alpha)}")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    sink = graph.add("buffersink")
    buffer.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _drain(av: Any, graph: Any, stream: Any, output: Any) -> None:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        for packet in stream.encode(frame):
            output.mux(packet)


def read_record(path: Path) -> str | None:
    """Return what was done to a clip, as `join` wrote it; None where nothing says it.

    Raises:
        VideoError: the file cannot be read as a clip.
    """
    with Clip(path) as clip:
        return _record_in(clip.container.metadata)


def _record_in(metadata: Mapping[str, str]) -> str | None:
    for key, value in metadata.items():
        if key.casefold().replace("_", " ") == RECORD_KEYWORD:  # Matroska: GFP_RESTORATION
            return value
        if key == _COMMENT and value.startswith(RECORD_KEYWORD):
            return value.removeprefix(RECORD_KEYWORD).lstrip()
    return None


def _has_cover(av: Any, source: Any) -> bool:
    flag = av.stream.Disposition.attached_pic
    return any(stream.disposition & flag for stream in source.streams.video)


def _metadata(source: Any, record: str | None, *, has_keys: bool) -> dict[str, str]:
    """Return the clip's metadata, with the record of what was done.

    Where the container takes no keys but its own, the record is the comment, if there is none.
    """
    metadata = {
        key: value
        for key, value in source.metadata.items()
        if key not in _OF_THE_FILE and _record_in({key: value}) is None
    }
    record = _record_in(source.metadata) if record is None else record
    if record and not has_keys:
        metadata.setdefault(_COMMENT, f"{RECORD_KEYWORD}\n{record}")
    elif record:
        metadata[RECORD_KEYWORD] = record
    return metadata


def _mux(
    av: Any,
    segments: Sequence[Path],
    clip: Clip,
    output: Any,
    window: Window,
    metadata: Mapping[str, str],
) -> None:
    source = clip.container
    streams: dict[int, Any] = {}
    for stream in source.streams:
        if stream.index == clip.stream.index:
            with av.open(_file(segments[0])) as first:
                streams[stream.index] = _add_video(output, clip, first)
        elif (added := _add(output, stream, clip.path)) is not None:
            streams[stream.index] = added
    output.metadata.update(metadata)
    _copy_chapters(source, output, window)
    if output.format.name != "avi":  # whose texts are of no encoding
        for each in (output, *output.streams):
            each.metadata.update({k: readable(v) for k, v in each.metadata.items()})
    offset = Fraction(window.start).limit_denominator(10**9)
    copied = _in_order(_source_packets(av, clip, streams, window))
    encoded = _segment_packets(av, segments, clip.time_base)
    for stream_index, packet in _merged(copied, encoded, clip.stream.index):
        if offset:
            shift = round(offset / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = streams[stream_index]
        output.mux(packet)


_BASE = "gfp_base"
"""Key of a segment's metadata: when its first frame is shown, in seconds, as a fraction."""
_ROTATION = "gfp_rotation"
"""Key of a segment's metadata: degrees, counter-clockwise, by which a player turns the frames."""
_COMMENT = "comment"
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER")


def _add_video(output: Any, clip: Clip, segment: Any) -> Any:
    """Add the stream of a clip's pictures, as a segment has them encoded."""
    stream = output.add_stream_from_template(segment.streams.video[0], opaque=True)
    source = clip.stream
    stream.time_base = clip.time_base
    stream.metadata.update(
        {k: v for k, v in source.metadata.items() if k.lower() not in ("encoder", "duration")}
    )
    stream.disposition = source.disposition
    rotation = int(segment.metadata[_ROTATION])
    if rotation and hasattr(stream, "set_display_rotation"):
        stream.set_display_rotation(rotation)
    return stream


def _add(output: Any, stream: Any, path: Path) -> Any | None:
    """Add a stream to copy; None where the container does not take it, which the log says."""
    try:
        if stream.type == "attachment":
            name = readable(stream.metadata.get("filename", "attachment"))
            output.add_attachment(name, stream.mimetype or "", stream.data)
            return None
        _try_header(output.format.name, stream)
        return _add_copy(output, stream)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        # The track of an mp4's chapters comes back with the chapters themselves.
        is_chapters = stream.type == "data" and stream.container.chapters()
        logger.log(
            logging.DEBUG if is_chapters else logging.WARNING,
            "%s: the %s stream %d is left out, for the output's format does not take it (%s).",
            path,
            stream.type,
            stream.index,
            _reason(error),
        )
        return None


def _add_copy(output: Any, stream: Any) -> Any:
    added = output.add_stream_from_template(stream, opaque=True)
    added.metadata.update({k: v for k, v in stream.metadata.items() if k.lower() != "duration"})
    added.disposition = stream.disposition
    if stream.time_base:
        added.time_base = stream.time_base
    return added


def _try_header(container: str, stream: Any) -> None:
    """Write a file's head with one stream alone: some containers refuse a stream only there."""
    with import_av().open(
        io.BytesIO(), "w", format=container, metadata_errors="surrogateescape"
    ) as trial:
        _add_copy(trial, stream)
        trial.start_encoding()


def _copy_chapters(source: Any, output: Any, window: Window) -> None:
    chapters = []
    for chapter in source.chapters():
        base = chapter["time_base"]
        if base is None:
            continue
        start, end = chapter["start"] * base, chapter["end"] * base
        stop = end if window.end is None else min(end, Fraction(window.end).limit_denominator())
        begin = max(start, Fraction(window.start).limit_denominator())
        if begin >= stop:
            continue
        offset = Fraction(window.start).limit_denominator()
        chapters.append(
            {
                **chapter,
                "metadata": {k: readable(v) for k, v in chapter["metadata"].items()},
                "start": round((begin - offset) / base),
                "end": round((stop - offset) / base),
            }
        )
    if chapters:
        output.set_chapters(chapters)


def _source_packets(
    av: Any, clip: Clip, streams: dict[int, Any], window: Window
) -> Iterator[tuple[int, Any]]:
    """Yield the packets of a clip's streams that are copied."""
    chosen = [
        stream
        for stream in clip.container.streams
        if stream.index in streams and stream.index != clip.stream.index
    ]
    if not chosen:
        return
    packets = clip.container.demux(*chosen)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        cover = packet.stream.disposition & av.stream.Disposition.attached_pic
        if cover and packet.size:
            packet.pts = packet.dts = 0  # MP4 gives none
        if packet.dts is None and packet.pts is None:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if cover or window.holds(float(time * packet.time_base)):
            yield packet.stream.index, packet


def _in_order(packets: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Yield packets, those of sound with stamps that rise, for writers refuse all others.

    A stamp behind that of the following packet is wrong itself, as that of a frame is.
    """
    waiting: dict[int, Any] = {}
    last: dict[int, int] = {}

    def mended(index: int, packet: Any, following: int | None) -> tuple[int, Any]:
        before = last.get(index)
        is_late = following is not None and packet.dts >= following
        if before is not None and (is_late or packet.dts <= before):
            packet.pts = packet.dts = before + 1
        last[index] = packet.dts
        return index, packet

    for index, packet in packets:
        if packet.stream.type != "audio" or packet.dts is None:
            yield index, packet
            continue
        if index in waiting:
            yield mended(index, waiting[index], packet.dts)
        waiting[index] = packet
    for index, packet in waiting.items():
        yield mended(index, packet, None)


def _segment_packets(av: Any, segments: Sequence[Path], base: Fraction) -> Iterator[Any]:
    """Yield the packets of segments in order of decoding, with stamps for it that rise throughout.

    An encoder's own would begin anew with each segment. The i-th packet is due when the frame is
    shown that comes ``delay`` before it in order of showing: never after its own frame is.
    """
    coded = [packet.pts for packet in _packets(av, segments, base)]
    shown = sorted(coded)
    rank = {pts: index for index, pts in enumerate(shown)}
    delay = max((index - rank[pts] for index, pts in enumerate(coded)), default=0)
    step = max(1, shown[1] - shown[0]) if len(shown) > 1 else 1
    for index, packet in enumerate(_packets(av, segments, base)):
        before = index - delay
        packet.dts = shown[before] if before >= 0 else shown[0] + before * step
        yield packet


def _packets(av: Any, segments: Sequence[Path], base: Fraction) -> Iterator[Any]:
    """Yield the packets of segments, with the clip's time stamps in its unit."""
    for path in segments:
        with av.open(_file(path)) as segment:
            start = round(Fraction(segment.metadata[_BASE]) / base)
            for packet in segment.demux(segment.streams.video[0]):
                if packet.size:
                    duration = round((packet.duration or 0) * packet.time_base / base)
                    pts = start + round(packet.pts * packet.time_base / base)
                    packet.time_base, packet.pts, packet.duration = base, pts, duration
                    yield packet


def _merged(
    copied: Iterator[tuple[int, Any]], encoded: Iterator[Any], video: int
) -> Iterator[tuple[int, Any]]:
    """Yield two rows of packets in order of their times, so that none has to be kept waiting."""
    packet, frame_packet = next(copied, None), next(encoded, None)
    while packet is not None or frame_packet is not None:
        if frame_packet is None or (packet is not None and _time(packet[1]) <= _time(frame_packet)):
            assert packet is not None
            yield packet
            packet = next(copied, None)
        else:
            yield video, frame_packet
            frame_packet = next(encoded, None)


def _time(packet: Any) -> Fraction:
    stamp = packet.dts if packet.dts is not None else packet.pts
    time: Fraction = stamp * packet.time_base
    return time


def _write_error(path: Path, error: Exception) -> Exception:
    """Return the error of a file that cannot be written; a full disk stays an `OSError`."""
    if _is_disk_full(error):
        return OSError(28, f"no space left on the disk of {path}")
    return VideoError(f"{path} cannot be written ({_reason(error)})")


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == 28


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text).partition("\n")[0]
