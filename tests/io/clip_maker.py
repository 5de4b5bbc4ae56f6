"""Clips for tests, made on the spot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BASE = Fraction(1, 90_000)


def picture(index: int, width: int = 64, height: int = 48, *, face: bool = True) -> NDArray[Any]:
    """Return (H, W, 3) uint8: noise, red in the top left corner where a face is to be seen."""
    rng = np.random.default_rng(index)
    pixels = (rng.random((height, width, 3)) * 40 + 100).astype(np.uint8)
    pixels[:, (2 * index) % width] = 255
    pixels[:8, :8] = (250, 90, 90) if face else (60, 90, 90)
    return pixels


def times(count: int) -> list[int]:
    """Return time stamps of a variable frame rate, in units of `BASE`."""
    stamps = [0]
    for index in range(count - 1):
        stamps.append(stamps[-1] + (3000 if index % 3 else 4500))
    return stamps


def make_clip(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    sound: float = 1.2,
    face: bool = True,
    rotation: int = 0,
    colors: dict[str, int] | None = None,
    begin: int = 0,
) -> Path:
    """Write a clip with a title and a chapter; its sound lasts ``sound`` times as long.

    Its first frame is shown at ``begin``, in units of `BASE`.
    """
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.time_base = stream.codec_context.time_base = BASE
        if rotation:
            stream.set_display_rotation(rotation)
        for name, value in (colors or {}).items():
            setattr(stream.codec_context, name, value)
        audio: Any = output.add_stream("aac", rate=48000, layout="stereo") if sound else None
        output.metadata["title"] = "a clip"
        second = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000)}
        output.set_chapters([{**second, "metadata": {"title": "the first"}}])  # type: ignore[typeddict-item]
        stamps = times(frames)
        for index, pts in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(index, *size, face=face), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = begin + pts, BASE
            output.mux(stream.encode(frame))
        for packet in stream.encode(None):
            if frames <= 2:  # x265 hands on no decoding times of so few, but what lay in memory
                packet.dts = packet.pts
            output.mux(packet)
        if audio is not None:
            for start in range(0, int(48000 * stamps[-1] * BASE * sound), 1024):
                wave = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32) * 0.3
                sample = av.AudioFrame.from_ndarray(wave[None].repeat(2, 0), "fltp", "stereo")
                sample.sample_rate, sample.pts, sample.time_base = 48000, start, Fraction(1, 48000)
                output.mux(audio.encode(sample))
            output.mux(audio.encode(None))
    return path


def make_frames(
    path: Path,
    pixel_format: str,
    *,
    codec: str = "ffv1",
    frames: int = 2,
    alpha: list[NDArray[Any]] | None = None,
) -> Path:
    """Write a clip of the pixels of `picture` alone, with the transparency of each frame."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for index in range(frames if alpha is None else len(alpha)):
            pixels, kind = picture(index), "rgb24"
            if alpha is not None:
                pixels, kind = np.dstack([pixels, alpha[index]]), "rgba"
            frame = av.VideoFrame.from_ndarray(pixels, format=kind).reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def stamps_of(path: Path) -> list[Fraction]:
    """Return the times at which a clip's frames are shown, in seconds."""
    with av.open(str(path)) as clip:
        return [frame.pts * frame.time_base for frame in clip.decode(clip.streams.video[0])]


def packets_of(path: Path, kind: str) -> list[bytes]:
    """Return the packets of a clip's first stream of a kind."""
    with av.open(str(path), metadata_errors="surrogateescape") as clip:
        streams = [stream for stream in clip.streams if stream.type == kind]
        return [bytes(packet) for packet in clip.demux(streams[0]) if packet.size]
