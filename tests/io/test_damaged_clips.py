"""Clips as they come: truncated, empty, broken inside, with covers, subtitles and wrong times."""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

from gfp_core.clips import restore_clip  # noqa: E402
from gfp_core.io.video import ENCODERS, SUFFIXES, Clip, VideoError  # noqa: E402
from gfp_core.options import ClipOptions, RestoreOptions  # noqa: E402
from tests.io.clip_maker import (  # noqa: E402
    BASE,
    make_clip,
    packets_of,
    picture,
    stamps_of,
    times,
)

OPTIONS = RestoreOptions.of(score=0.5)
"""The fixture's detector is sure of its faces by 0.75."""


HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, \
Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, \
Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
"""What FFmpeg's encoders of subtitles begin with."""


def copied(source: Path, target: Path, change: Any = None) -> Path:
    """Copy a clip packet by packet, through ``change``, which may return None to leave one out."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as output:
        streams = {
            stream.index: output.add_stream_from_template(stream, opaque=True)
            for stream in clip.streams
        }
        for number, packet in enumerate(clip.demux()):
            if not packet.size:
                continue
            index = packet.stream.index
            if change is None or change(number, packet) is not None:
                packet.stream = streams[index]
                output.mux(packet)
    return target


def test_a_truncated_mp4_without_its_index_is_named(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    source.write_bytes(source.read_bytes()[:-3000])
    with pytest.raises(VideoError, match=r"clip\.mp4 cannot be read as a clip"):
        restore_clip(fake_restorer, source, tmp_path / "out.mp4", OPTIONS)


def test_a_truncated_mkv_gives_what_there_is_and_says_so(
    tmp_path: Path, fake_restorer: Any
) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=30)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 3])
    summary = restore_clip(fake_restorer, source, tmp_path / "out.mkv", OPTIONS)
    assert 5 < summary.frames < 30
    assert stamps_of(tmp_path / "out.mkv") == stamps_of(source)[: summary.frames]


@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.7])
def test_what_is_missing_at_the_end_is_said_wherever_the_file_breaks(
    tmp_path: Path, fake_restorer: Any, share: float
) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=90)
    source = tmp_path / "clip.mkv"
    content = whole.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    summary = restore_clip(fake_restorer, source, tmp_path / "out.mkv", OPTIONS)
    assert 0 < summary.frames < 90
    assert re.search(r"the last [\d.]+ s cannot be read|left out", summary.damage)
    summary = restore_clip(fake_restorer, whole, tmp_path / "out.mkv", OPTIONS)
    assert (summary.frames, summary.damage) == (90, "")


def test_a_clip_without_a_frame_is_named(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mkv")
    empty = copied(
        source, tmp_path / "empty.mkv", lambda _, packet: None if packet.stream.index == 0 else 1
    )
    with pytest.raises(VideoError, match=r"empty\.mkv holds no frame"):
        restore_clip(fake_restorer, empty, tmp_path / "out.mkv", OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "empty.mkv"]


def test_a_broken_packet_in_the_middle_is_counted_and_the_sound_stays(
    tmp_path: Path, fake_restorer: Any
) -> None:
    source = make_clip(tmp_path / "clip.mkv")
    expected = stamps_of(source)
    data = bytearray(source.read_bytes())
    broken = packets_of(source, "video")[5]
    start = data.index(broken)
    data[start : start + len(broken)] = bytes(len(broken))
    source.write_bytes(data)
    summary = restore_clip(fake_restorer, source, tmp_path / "out.mkv", OPTIONS)
    assert summary.frames == 11
    assert "1 broken packets were left out" in summary.damage
    stamps = stamps_of(tmp_path / "out.mkv")
    assert stamps == [stamp for stamp in expected if stamp in stamps]
    assert packets_of(tmp_path / "out.mkv", "audio") == packets_of(source, "audio")


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (63, 48)])
def test_odd_sizes(tmp_path: Path, fake_restorer: Any, size: tuple[int, int]) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", size=size, frames=3)
    restore_clip(fake_restorer, source, tmp_path / "out.mp4", OPTIONS, ClipOptions.of(codec="h264"))
    with Clip(tmp_path / "out.mp4") as clip:
        shape = next(clip.frames()).planes[0].shape
    assert shape == (48, 64)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("h264", "mp4"), ("h265", "mp4"), ("av1", "mp4"), ("prores", "mov")]
)
@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_clips(
    tmp_path: Path, fake_restorer: Any, codec: str, suffix: str, frames: int
) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", frames=frames, sound=0)
    target = tmp_path / f"out.{suffix}"
    restore_clip(fake_restorer, source, target, OPTIONS, ClipOptions.of(codec=codec))
    assert stamps_of(target) == stamps_of(source)
    with av.open(str(target)) as clip:
        times_of_decoding = [packet.dts for packet in clip.demux(video=0) if packet.size]
    assert times_of_decoding == sorted(times_of_decoding)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_codec_in_every_container_that_is_said_to_hold_it(
    tmp_path: Path, fake_restorer: Any, name: str, caplog: Any
) -> None:
    """Of a clip with alpha, which most codecs hold in another form or not at all."""
    source = make_clip(
        tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuva420p", frames=3, sound=0
    )
    for suffix, container in SUFFIXES.items():
        target = tmp_path / f"out{suffix}"
        if container in ENCODERS[name].containers:
            restore_clip(fake_restorer, source, target, OPTIONS, ClipOptions.of(codec=name))
            assert len(stamps_of(target)) == 3
            is_said = f"{source}: " in caplog.text and "holds no transparency" in caplog.text
            assert is_said == (name not in ("ffv1", "gif", "vp9")), name
        else:
            with pytest.raises(VideoError, match=r"holds no"):
                restore_clip(fake_restorer, source, target, OPTIONS, ClipOptions.of(codec=name))
            assert not target.exists()


def test_sound_that_is_longer_than_the_pictures_is_kept(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=6, sound=4)
    restore_clip(fake_restorer, source, tmp_path / "out.mp4", OPTIONS)
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert before.streams.audio[0].duration == after.streams.audio[0].duration


def test_a_cover_is_kept_and_is_not_the_clip(tmp_path: Path, fake_restorer: Any) -> None:
    source = tmp_path / "clip.mp4"
    cover = av.VideoFrame.from_ndarray(picture(0, 32, 32), format="rgb24")
    jpeg = av.CodecContext.create("mjpeg", "w")
    jpeg.width, jpeg.height, jpeg.pix_fmt, jpeg.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    data = bytes(jpeg.encode(cover.reformat(format="yuvj420p"))[0])
    plain = make_clip(tmp_path / "plain.mp4", frames=3)
    with av.open(str(plain)) as clip, av.open(str(source), "w") as output:
        attached = output.add_stream("mjpeg", rate=25)
        attached.width, attached.height, attached.pix_fmt = 32, 32, "yuvj420p"
        attached.disposition = av.stream.Disposition.attached_pic
        streams = {
            each.index: output.add_stream_from_template(each, opaque=True)
            for each in (*clip.streams.video, *clip.streams.audio)
        }
        packet = av.Packet(data)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = attached, 0, 0, True
        packet.time_base = Fraction(1, 25)
        output.mux(packet)
        for packet in clip.demux(*clip.streams.video, *clip.streams.audio):
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    with av.open(str(source)) as clip:
        flag = av.stream.Disposition.attached_pic
        assert any(each.disposition & flag for each in clip.streams.video)
    summary = restore_clip(fake_restorer, source, tmp_path / "out.mp4", OPTIONS)
    assert summary.frames == 3
    with av.open(str(tmp_path / "out.mp4")) as clip:
        kinds = [
            bool(each.disposition & av.stream.Disposition.attached_pic)
            for each in clip.streams.video
        ]
        covers = [each for each in clip.streams.video if each.disposition]
        assert sorted(kinds) == [False, True]
        pictures = [
            bytes(packet)
            for packet in clip.demux(*clip.streams.video)
            if packet.stream.disposition & av.stream.Disposition.attached_pic and packet.size
        ]
    assert covers
    assert pictures == [data]


@pytest.mark.parametrize("wrong", [10**7, 0, None])
def test_a_wrong_time_stamp_moves_one_frame_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int | None
) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    decoded = Clip._decoded

    def damaged(self: Clip) -> Any:
        for number, frame in enumerate(decoded(self)):
            if number == 5:
                frame.pts = wrong
            yield frame

    monkeypatch.setattr(Clip, "_decoded", damaged)
    with Clip(source) as clip:
        stamps = [frame.pts * clip.time_base for frame in clip.frames()]
        assert clip.damage.stamps == 1
    expected = [pts * BASE for pts in times(12)]
    assert stamps[:5] + stamps[6:] == expected[:5] + expected[6:]
    assert expected[4] < stamps[5] < expected[6]


@pytest.mark.parametrize(
    ("container", "codec", "text"), [("mkv", "srt", b"Hello"), ("mp4", "mov_text", b"\0\5Hello")]
)
def test_subtitles_are_copied(
    tmp_path: Path, fake_restorer: Any, container: str, codec: str, text: bytes
) -> None:
    plain = make_clip(tmp_path / f"plain.{container}", frames=9)
    source = tmp_path / f"clip.{container}"
    with av.open(str(plain)) as clip, av.open(str(source), "w") as output:
        kinds = (*clip.streams.video, *clip.streams.audio)
        streams = {each.index: output.add_stream_from_template(each, opaque=True) for each in kinds}
        subtitles = output.add_stream(codec)
        subtitles.codec_context.subtitle_header = HEADER
        subtitles.metadata["language"] = "ger"
        packet = av.Packet(text)
        packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
        packet.pts = packet.dts = 40
        packet.duration = 100
        output.mux(packet)
        for packet in clip.demux(*kinds):
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    restore_clip(fake_restorer, source, tmp_path / f"out.{container}", OPTIONS)
    before, after = (
        packets_of(path, "subtitle") for path in (source, tmp_path / f"out.{container}")
    )
    assert after == before
    assert text in after
    with av.open(str(tmp_path / f"out.{container}")) as clip:
        assert clip.streams.subtitles[0].metadata["language"] == "ger"


def test_frames_that_change_their_size_are_refused_where_they_do(
    tmp_path: Path, fake_restorer: Any
) -> None:
    """Transport streams and some recordings do; FFmpeg's raw H.264 is the simplest of them."""
    source = tmp_path / "clip.mkv"
    first = make_clip(tmp_path / "a.h264", frames=4, sound=0)
    second = make_clip(tmp_path / "b.h264", frames=4, sound=0, size=(80, 48))
    source.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(VideoError, match=r"clip\.mkv changes its size at frame 4 .* with --end"):
        restore_clip(fake_restorer, source, tmp_path / "out.mkv", OPTIONS)


def test_hdr_is_refused_before_the_work(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(
        tmp_path / "hdr.mkv",
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": "log-level=error:colorprim=9:transfer=18:colormatrix=9"},
        colors={"color_primaries": 9, "color_trc": 18, "colorspace": 9},
        sound=0,
    )
    with pytest.raises(VideoError, match=r"is HDR \(HLG\), .*: convert the clip to SDR first"):
        restore_clip(fake_restorer, source, tmp_path / "out.mp4", OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["hdr.mkv"]


def test_the_chroma_of_gray_and_alpha_is_kept(tmp_path: Path, fake_restorer: Any) -> None:
    for name, pixel_format in (("gray", "gray"), ("alpha", "yuva420p"), ("rgb", "bgr0")):
        source = make_clip(
            tmp_path / f"{name}.mkv", codec="ffv1", pixel_format=pixel_format, frames=2
        )
        target = tmp_path / f"{name}.out.mkv"
        restore_clip(fake_restorer, source, target, OPTIONS)
        with Clip(source) as before, Clip(target) as after:
            for first, second in zip(before.frames(), after.frames(), strict=True):
                assert first.layout == second.layout
                assert np.array_equal(first.planes[0][:, :10], second.planes[0][:, :10])


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_wrong_stamp_of_sound_moves_one_packet_alone(
    tmp_path: Path, fake_restorer: Any, ending: str
) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=12)
    data = bytearray(source.read_bytes())
    at = data.index(packets_of(source, "audio")[10]) - 3  # of the block's time
    struct.pack_into(">h", data, at, struct.unpack_from(">h", data, at)[0] + 300)
    source.write_bytes(data)
    target = tmp_path / f"out.{ending}"
    restore_clip(fake_restorer, source, target, OPTIONS)
    assert packets_of(target, "audio") == packets_of(source, "audio")
    before, after = (
        [
            packet.pts * packet.time_base
            for packet in clip.demux(clip.streams.audio[0])
            if packet.size
        ]
        for clip in (av.open(str(source)), av.open(str(target)))
    )
    assert after[:10] + after[11:] == pytest.approx(before[:10] + before[11:], abs=1e-3)
    assert before[9] < after[10] < before[11]
