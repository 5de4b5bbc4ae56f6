"""Clips frame by frame: planes, time stamps, colors, sound."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

av = pytest.importorskip("av")

from gfp_core.io.video import (  # noqa: E402
    SUFFIXES,
    Clip,
    Encoding,
    Frame,
    Segment,
    VideoError,
    Window,
    join,
)
from tests.io import clip_maker  # noqa: E402
from tests.io.clip_maker import (  # noqa: E402
    BASE,
    make_clip,
    make_frames,
    packets_of,
    stamps_of,
    times,
)

BOX = (slice(None), slice(None), slice(8, 20), slice(9, 21))


def rewrite(source: Path, target: Path, *, codec: str | None = None, change: float = 0.1) -> None:
    """Write a clip anew, brighter in a box, in segments of five frames."""
    paths: list[Path] = []
    with Clip(source) as clip:
        encoding = Encoding.choose(clip, target, codec, None, None)
        segment = None
        for frame in clip.frames():
            if frame.index % 5 == 0:
                if segment is not None:
                    segment.close()
                paths.append(target.with_name(f"{target.name}.{len(paths)}"))
                segment = Segment(paths[-1], clip, encoding)
            before = frame.to_tensor()
            after = before.clone()
            after[BOX] += change
            assert segment is not None
            segment.write(frame.with_change(before, after))
        assert segment is not None
        segment.close()
    join(paths, source, target, container=SUFFIXES[target.suffix])


def frames_of(path: Path) -> list[Frame]:
    with Clip(path) as clip:
        return list(clip.frames())


KINDS = {
    "h264.mp4": {},
    "ten_bits.mp4": {"pixel_format": "yuv420p10le", "options": {"crf": "10"}},
    "full_range.mp4": {"pixel_format": "yuvj420p", "colors": {"color_range": 2}},
    "bt709.mkv": {"colors": {"color_primaries": 1, "color_trc": 1, "colorspace": 1}},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "sound": 0},
    "ffv1.avi": {"codec": "ffv1"},
    "turned.mp4": {"rotation": 90},
}


@pytest.mark.parametrize("name", KINDS)
def test_times_sound_and_colors_are_the_clips(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, **KINDS[name])
    target = tmp_path / f"out_{name}"
    rewrite(source, target)
    assert stamps_of(target) == stamps_of(source)
    with av.open(str(source)) as before, av.open(str(target)) as after:
        first, second = before.streams.video[0], after.streams.video[0]
        for attribute in ("color_primaries", "color_trc", "colorspace", "color_range", "pix_fmt"):
            pair = [getattr(each.codec_context, attribute) for each in (first, second)]
            assert pair[0] == pair[1], attribute
        assert after.metadata["title"] == "a clip"
        if not name.endswith(".avi"):
            titles = [
                [(each["metadata"]["title"], each["end"] * each["time_base"]) for each in chapters]
                for chapters in (before.chapters(), after.chapters())
            ]
            assert titles[0] == titles[1] != []
    if KINDS[name].get("sound", 1):
        assert packets_of(target, "audio") == packets_of(source, "audio")
    assert [frame.turns for frame in frames_of(target)] == [
        frame.turns for frame in frames_of(source)
    ]


def test_a_variable_rate_stays_variable(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4")
    rewrite(source, tmp_path / "out.mp4")
    assert stamps_of(tmp_path / "out.mp4") == [pts * BASE for pts in times(12)]


@pytest.mark.parametrize("name", ["h264.mp4", "ten_bits.mp4", "full_range.mp4", "turned.mp4"])
def test_samples_that_no_change_touches_are_the_decoders(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, **KINDS[name])
    rewrite(source, tmp_path / "out.mkv", codec="ffv1")
    for before, after in zip(frames_of(source), frames_of(tmp_path / "out.mkv"), strict=True):
        turned = before.turns
        box = np.zeros(np.rot90(before.planes[0], turned).shape, bool)
        box[8:20, 9:21] = True
        box = np.rot90(box, -turned)
        # Chroma samples that stand for a pixel of the box.
        small = box.reshape(box.shape[0] // 2, 2, box.shape[1] // 2, 2).any(axis=(1, 3))
        for plane, other, inside in zip(
            before.planes, after.planes, (box, small, small), strict=True
        ):
            assert np.array_equal(plane[~inside], other[~inside])
        assert (before.planes[0][box] < after.planes[0][box]).mean() > 0.9


def test_a_change_comes_back_as_it_was_made(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuv444p10le", frames=1)
    frame = frames_of(source)[0]
    before = frame.to_tensor()
    after = before.clone()
    after[:, 0, 10:20, 10:20] += 0.1
    after[:, 1:, 10:20, 10:20] -= 0.05
    again = frame.with_change(before, after).to_tensor()
    assert (again - after).abs().max() < 2 / 1023


def test_colors_are_those_of_the_decoder(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", pixel_format="yuv444p", frames=1)
    frame = frames_of(source)[0]
    with av.open(str(source)) as clip:
        rgb = next(clip.decode(video=0)).to_ndarray(format="rgb24").astype(np.float32) / 255
    ours = frame.to_tensor()[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert np.abs(ours - rgb).max() < 3 / 255


def test_odd_sizes_are_encoded(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "odd.mkv", codec="ffv1", size=(63, 47), frames=6)
    rewrite(source, tmp_path / "out.mp4", codec="h264")
    assert frames_of(tmp_path / "out.mp4")[0].planes[0].shape == (48, 64)
    rewrite(source, tmp_path / "out.mkv")
    assert frames_of(tmp_path / "out.mkv")[0].planes[0].shape == (47, 63)


@pytest.mark.parametrize(
    ("name", "codec", "unused"),
    [("a.mov", "prores", "no --crf and no --encoder-preset"), ("a.gif", None, "no --crf and no ")],
)
def test_what_a_codec_has_no_use_for_is_said(
    tmp_path: Path, name: str, codec: str | None, unused: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Clip(make_clip(tmp_path / "clip.mp4", frames=1, sound=0)) as clip:
        encoding = Encoding.choose(clip, tmp_path / name, codec, 20.0, "slow")
        assert unused in caplog.text
        assert "crf" not in encoding.options()
        caplog.clear()
        Encoding.choose(clip, tmp_path / "a.mp4", None, 20.0, "slow")
    assert not caplog.text


def test_a_gif_of_more_frames_than_it_can_hold_leaves_some_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 240 frames a second, hundredths of a second hold some 100."""
    monkeypatch.setattr(clip_maker, "times", lambda count: [375 * index for index in range(count)])
    source = make_clip(tmp_path / "in.mp4", frames=24, sound=0)
    rewrite(source, tmp_path / "out.gif")
    stamps = stamps_of(tmp_path / "out.gif")
    assert stamps == [Fraction(index, 100) for index in range(len(stamps))]
    assert f"{24 - len(stamps)} frames are left out" in caplog.text


def test_a_gif_keeps_its_times(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4", sound=0)
    rewrite(source, tmp_path / "one.gif")
    rewrite(tmp_path / "one.gif", tmp_path / "two.gif")
    assert stamps_of(tmp_path / "two.gif") == stamps_of(tmp_path / "one.gif")
    expected = [float(stamp) for stamp in stamps_of(source)]
    assert np.allclose([float(s) for s in stamps_of(tmp_path / "two.gif")], expected, atol=0.006)


def test_broken_packets_are_left_out_and_the_sound_stays_in_step(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mkv", codec="ffv1", options={"slicecrc": "1"}, frames=12)
    data = bytearray(source.read_bytes())
    third = packets_of(source, "video")[3]
    place = data.index(third)
    data[place : place + len(third)] = bytes(len(third))
    source.write_bytes(data)
    rewrite(source, tmp_path / "out.mkv")
    assert packets_of(tmp_path / "out.mkv", "audio") == packets_of(source, "audio")
    assert (
        set(stamps_of(tmp_path / "out.mkv"))
        <= {round(pts * BASE * 1000) / 1000 for pts in times(12)}
        or len(stamps_of(tmp_path / "out.mkv")) >= 11
    )


def test_a_truncated_clip_gives_what_there_is(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=30)
    source.write_bytes(source.read_bytes()[:-2000])
    rewrite(source, tmp_path / "out.mkv")
    assert 5 < len(stamps_of(tmp_path / "out.mkv")) <= 30


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp4", b"no clip at all", "cannot be read as a clip"),
        ("empty.mp4", b"", "cannot be read as a clip"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoError, match=rf"{name} {message}"):
        Clip(path)


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 48000
        output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    with pytest.raises(VideoError, match="holds no moving pictures"):
        Clip(path)


def test_hdr_is_refused(tmp_path: Path) -> None:
    colors = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    source = make_clip(
        tmp_path / "hdr.mkv",
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": "log-level=error:colorprim=9:transfer=16:colormatrix=9"},
        colors=colors,
        frames=2,
    )
    with pytest.raises(VideoError, match=r"is HDR \(PQ\)"):
        Clip(source)


def test_a_codec_that_the_container_does_not_take_is_refused(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2)
    with Clip(source) as clip:
        with pytest.raises(VideoError, match="a webm file holds no h264"):
            Encoding.choose(clip, tmp_path / "out.webm", "h264", None, None)
        with pytest.raises(VideoError, match="there is no encoder h266"):
            Encoding.choose(clip, tmp_path / "out.mp4", "h266", None, None)
        assert Encoding.choose(clip, tmp_path / "out.webm", None, None, None).codec == "vp9"
        assert Encoding.choose(clip, tmp_path / "out.mp4", None, None, None).codec == "h264"


def test_a_window_holds_its_start_and_not_its_end() -> None:
    window = Window(1.0, 2.0)
    assert [window.holds(seconds) for seconds in (0.99, 1.0, 1.99, 2.0)] == [
        False,
        True,
        True,
        False,
    ]


def test_the_tensor_is_upright(tmp_path: Path) -> None:
    plain = frames_of(make_clip(tmp_path / "plain.mkv", codec="ffv1", frames=1))[0].to_tensor()
    source = make_clip(tmp_path / "turned.mp4", rotation=90, frames=1, options={"crf": "1"})
    turned = frames_of(source)[0].to_tensor()
    assert turned.shape == (1, 3, 64, 48)
    assert (torch.rot90(plain, 1, (2, 3)) - turned).abs().mean() < 0.02


def test_hardware_that_is_not_there_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg names the encoder, and opening it fails, as without a driver."""
    source = make_clip(tmp_path / "clip.mp4", frames=1)
    codec = type("Codec", (), {"type": "video", "video_formats": ()})
    context = MagicMock()
    context.create.return_value.open.side_effect = av.error.ExternalError(1, "no device found")
    monkeypatch.setattr(av, "Codec", lambda *_: codec())
    monkeypatch.setattr(av, "CodecContext", context)
    with Clip(source) as clip, pytest.raises(VideoError) as error:
        Encoding.choose(clip, tmp_path / "out.mp4", "h264_nvenc", None, None)
    assert str(error.value) == (
        f"{source}: the encoder h264_nvenc does not work on this machine (no device found); "
        "choose another --codec, such as h264"
    )
    monkeypatch.undo()
    with Clip(source) as clip, pytest.raises(VideoError, match="there is no encoder h264_none"):
        Encoding.choose(clip, tmp_path / "out.mp4", "h264_none", None, None)


@pytest.mark.parametrize(
    ("name", "option"), [("h264_nvenc", "cq"), ("hevc_qsv", "global_quality"), ("x", "crf")]
)
def test_the_quality_has_the_name_that_the_hardware_knows(name: str, option: str) -> None:
    assert Encoding(name, 23.0).options() == {option: "23"}
    assert Encoding(name).options() == {}


def test_an_encoder_that_fails_on_the_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2)
    with Clip(source) as clip:
        segment = Segment(tmp_path / "x.nut", clip, Encoding("h264"))
        first, second = clip.frames()
        segment.write(first)
        segment._stream = MagicMock(width=64, height=48)
        segment._stream.encode.side_effect = av.error.ExternalError(1, "device lost")
        with pytest.raises(VideoError, match=r"the encoder libx264 failed \(device lost\)"):
            segment.write(second)


@pytest.mark.parametrize("name", ["out.gif", "out.avi"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_where_the_player_is_not_told_to_turn_the_frames_are_turned(
    tmp_path: Path, name: str, rotation: int
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2, rotation=rotation, sound=0)
    rewrite(source, tmp_path / name, change=0)
    first, second = (frames_of(path)[0] for path in (source, tmp_path / name))
    assert (first.turns, second.turns) == (rotation // 90, 0)
    assert first.to_tensor().shape == second.to_tensor().shape
    assert (first.to_tensor() - second.to_tensor()).abs().mean() < 0.03


@pytest.mark.parametrize("codec", ["h264", "av1", "vp9"])
def test_a_preset_that_the_encoder_does_not_know_is_refused_before_the_work(
    tmp_path: Path, codec: str
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=1)
    with Clip(source) as clip, pytest.raises(VideoError, match="--encoder-preset nonsense"):
        Encoding.choose(clip, tmp_path / "out.mp4", codec, None, "nonsense")
    with Clip(source) as clip:
        preset = "veryfast" if codec == "h264" else "8"
        assert Encoding.choose(clip, tmp_path / "out.mp4", codec, None, preset).preset == preset


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (65, 49)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv411p", "yuv410p", "yuv444p10le"])
@pytest.mark.parametrize("box", [(8, 20, 9, 21), (3, 4, 0, 1), (40, 49, 55, 65)])
def test_a_change_of_a_part_is_that_of_the_whole(
    tmp_path: Path, size: tuple[int, int], pixel_format: str, box: tuple[int, int, int, int]
) -> None:
    """What is added to the box alone is what `Layout.add` adds to the whole planes."""
    kind = {"codec": "ffv1", "pixel_format": pixel_format, "size": size, "sound": 0}
    (frame,) = frames_of(make_clip(tmp_path / "clip.mkv", frames=1, **kind))  # type: ignore[arg-type]
    before = frame.to_tensor()
    after = before.clone()
    generator = torch.Generator().manual_seed(0)
    part = after[:, :, box[0] : box[1], box[2] : box[3]]
    part += 0.3 * torch.rand(part.shape, generator=generator)
    change = (after - before)[0].permute(1, 2, 0).contiguous().numpy()
    expected = frame.layout.add(frame.planes, change)
    for mine, whole in zip(frame.with_change(before, after).planes, expected, strict=True):
        assert np.array_equal(mine, whole)


@pytest.mark.parametrize(
    ("pixel_format", "codec", "name"),
    [
        ("rgb555le", "rawvideo", "clip.avi"),
        ("rgb565le", "rawvideo", "clip.avi"),
        ("rgb8", "rawvideo", "clip.nut"),
        ("monob", "rawvideo", "clip.nut"),
        ("yuv420p9le", "ffv1", "clip.mkv"),
        ("gbrp9le", "ffv1", "clip.mkv"),
    ],
)
def test_samples_of_few_or_odd_bits_are_read(
    tmp_path: Path, pixel_format: str, codec: str, name: str
) -> None:
    source = make_frames(tmp_path / name, pixel_format, codec=codec)
    frame = frames_of(source)[0]
    expected = frame.origin.to_ndarray(format="rgb24").transpose(2, 0, 1) / 255
    assert np.abs(frame.to_tensor()[0].numpy() - expected).mean() < 0.02
    rewrite(source, tmp_path / "out.mkv", codec="ffv1")
    assert len(frames_of(tmp_path / "out.mkv")) == 2


def test_a_gif_keeps_what_shows_through(tmp_path: Path) -> None:
    alpha = np.full((3, 48, 64), 255, np.uint8)
    for index in range(3):
        alpha[index, :, 20 + 10 * index : 30 + 10 * index] = 0  # wanders: the frame before goes
    source = make_frames(tmp_path / "clip.mkv", "bgra", alpha=[*alpha])
    rewrite(source, tmp_path / "out.gif")
    shown = [frame.planes[3] for frame in frames_of(tmp_path / "out.gif")]
    assert [np.array_equal(*pair) for pair in zip(shown, alpha, strict=True)] == [True] * 3


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_mirrored_clip_is_shown_mirrored(tmp_path: Path, rotation: int) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=3, rotation=rotation, sound=0)
    data = bytearray(plain.read_bytes())
    at = data.index(b"tkhd") + 44  # of a, b, u, c, d: fixed-point numbers of the matrix
    a, b, _, c, d = struct.unpack_from(">5i", data, at)
    struct.pack_into(">5i", data, at, -a, b, 0, -c, d)  # x is counted from the right
    source = tmp_path / "clip.mp4"
    source.write_bytes(data)
    before, expected = (frames_of(path)[0].to_tensor() for path in (source, plain))
    torch.testing.assert_close(before, expected.flip(3))
    rewrite(source, tmp_path / "out.mkv", codec="ffv1", change=0)
    assert torch.equal(frames_of(tmp_path / "out.mkv")[0].to_tensor(), before)
