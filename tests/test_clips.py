"""A clip restored: every frame once, resumed with the same result, copied where no face is."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("av")

from gfp_core import clips
from gfp_core.clips import restore_clip
from gfp_core.io.video import Clip, Segment, VideoError
from gfp_core.options import ClipOptions, RestoreOptions
from gfp_core.pipeline import Extra
from tests.io.clip_maker import BASE, make_clip, make_frames, packets_of, stamps_of, times


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "SEGMENT", 5)


OPTIONS = RestoreOptions.of(score=0.5)
"""The fixture's detector is sure of its faces by 0.75."""


def restore(*arguments: Any, options: RestoreOptions = OPTIONS, **more: Any) -> Any:
    restorer, source, target, *rest = arguments
    return restore_clip(restorer, source, target, options, *rest, **more)


class Cancelled(BaseException):
    """What a progress function raises."""


def cancel_at(number: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == number:
            raise Cancelled

    return progress


def test_every_frame_is_restored_once(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    done: list[int] = []
    summary = restore(
        fake_restorer, source, tmp_path / "out.mp4", progress=lambda now, _: done.append(now)
    )
    assert (summary.frames, summary.faces, summary.with_faces) == (12, 12, 12)
    assert len(summary.scenes) == 1
    assert done == [*range(1, 13), 12]
    assert stamps_of(tmp_path / "out.mp4") == stamps_of(source)
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]
    assert packets_of(tmp_path / "out.mp4", "video") != packets_of(source, "video")


@pytest.mark.parametrize("stop", [3, 5, 8, 11])
def test_a_cancelled_run_goes_on_with_the_same_result(
    tmp_path: Path, fake_restorer: Any, stop: int
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    # Lossless, for x264 gives small pictures other bits from run to run.
    how = ClipOptions.of(codec="ffv1")
    restore(fake_restorer, source, tmp_path / "whole.mkv", how)
    target = tmp_path / "out.mkv"
    with pytest.raises(Cancelled):
        restore(fake_restorer, source, target, how, progress=cancel_at(stop))
    assert not target.exists()
    summary = restore(fake_restorer, source, target, how)
    assert summary.resumed_at == stop // 5 * 5
    assert (summary.frames, summary.faces) == (12, 12)
    for kind in ("video", "audio"):
        assert packets_of(target, kind) == packets_of(tmp_path / "whole.mkv", kind)


def test_a_cancelled_run_can_leave_a_clip_that_plays(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    with pytest.raises(Cancelled):
        restore(
            fake_restorer, source, tmp_path / "out.mp4", progress=cancel_at(8), keep_partial=True
        )
    shown = stamps_of(tmp_path / "out.part.mp4")
    assert shown == stamps_of(source)[: len(shown)]
    assert len(shown) in (7, 8)


def test_other_options_begin_anew(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    with pytest.raises(Cancelled):
        restore(fake_restorer, source, tmp_path / "out.mp4", progress=cancel_at(8))
    options = OPTIONS.replace(strength=0.5)
    summary = restore(fake_restorer, source, tmp_path / "out.mp4", options=options)
    assert summary.resumed_at == 0


def test_a_clip_without_a_face_is_copied(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=7, face=False)
    summary = restore(fake_restorer, source, tmp_path / "out.mp4")
    assert summary.is_copy
    assert packets_of(tmp_path / "out.mp4", "video") == packets_of(source, "video")
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
    options = ClipOptions.of(codec="ffv1")
    assert not restore(fake_restorer, source, tmp_path / "out.mkv", options).is_copy


def test_a_part_of_a_clip(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    options = ClipOptions.of(start=0.1, end=0.3)
    summary = restore(fake_restorer, source, tmp_path / "out.mp4", options)
    inside = [pts * BASE for pts in times(12) if 0.1 <= pts * BASE < 0.3]
    assert summary.frames == len(inside)
    shown = stamps_of(tmp_path / "out.mp4")
    assert [float(stamp - shown[0]) for stamp in shown] == pytest.approx(
        [float(stamp - inside[0]) for stamp in inside]
    )


def test_upscaled_frames_are_larger(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=3)
    options = OPTIONS.replace(upscale=2)
    restore(fake_restorer, source, tmp_path / "out.mp4", options=options)
    import av

    with av.open(str(tmp_path / "out.mp4")) as clip:
        assert (clip.streams.video[0].width, clip.streams.video[0].height) == (128, 96)


def test_a_clip_without_a_face_is_enlarged_by_a_network(tmp_path: Path, fake_restorer: Any) -> None:
    class Twice:
        scale = 2

        def enlarge(self, frames: Any, factor: Any = None, progress: Any = None) -> Any:
            return frames.repeat_interleave(2, 2).repeat_interleave(2, 3)

    fake_restorer.upscaler = Twice()
    source = make_clip(tmp_path / "clip.mp4", frames=3, face=False)
    assert not restore(fake_restorer, source, tmp_path / "out.mp4").is_copy
    import av

    with av.open(str(tmp_path / "out.mp4")) as clip:
        assert (clip.streams.video[0].width, clip.streams.video[0].height) == (128, 96)


def test_a_cut_is_counted(tmp_path: Path, fake_restorer: Any, monkeypatch: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=6)
    cuts = iter([False, False, True, False, False])
    monkeypatch.setattr(clips, "is_cut", lambda *_: next(cuts))
    summary = restore(fake_restorer, source, tmp_path / "out.mp4")
    assert [scene.frames for scene in summary.scenes] == [3, 3]
    assert summary.scenes[1].start == pytest.approx(float(times(4)[3] * BASE), abs=1e-3)


def test_a_full_disk_ends_the_run_and_the_next_goes_on(
    tmp_path: Path, fake_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    write = Segment.write

    def full(self: Segment, frame: Any) -> None:
        if frame.index == 8:
            raise OSError(errno.ENOSPC, "no space left")
        write(self, frame)

    monkeypatch.setattr(Segment, "write", full)
    with pytest.raises(OSError, match="no space left"):
        restore(fake_restorer, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    monkeypatch.setattr(Segment, "write", write)
    assert restore(fake_restorer, source, tmp_path / "out.mp4").resumed_at == 5


def test_the_input_is_never_the_output(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2)
    with pytest.raises(VideoError, match="is the input and would be overwritten"):
        restore(fake_restorer, source, source)
    with pytest.raises(VideoError, match="does not end like a clip"):
        restore(fake_restorer, source, tmp_path / "out.txt")
    options = ClipOptions.of(start=2, end=1)
    with pytest.raises(VideoError, match=r"end \(1 s\) must lie behind start \(2 s\)"):
        restore(fake_restorer, source, tmp_path / "out.mp4", options)


def test_two_runs_at_one_target_do_not_meet(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=7)
    target = tmp_path / "out.mp4"
    refused: list[str] = []

    def begin_another(done: int, total: int) -> None:
        if done == 6:
            with pytest.raises(VideoError) as error:
                restore(fake_restorer, source, target)
            refused.append(str(error.value))

    assert restore(fake_restorer, source, target, progress=begin_another).frames == 7
    assert refused == [f"another run is making {target}: wait for it, or choose another output"]
    assert stamps_of(target) == stamps_of(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def two_faces(fake_restorer: Any) -> None:
    """Let the fixture's detector see two faces of 16 pixels, the larger one to the right."""
    from gfp_core.faces import Face, Faces
    from gfp_core.geometry import TEMPLATE

    def detect(frames: Tensor, **_: Any) -> Faces:
        faces = []
        for left, side in ((4.0, 16.0), (34.0, 20.0)):
            landmarks = (TEMPLATE / 512 * side + (left, 14)).astype(np.float32)
            faces.append(Face(0, (left, 14.0, left + side, 14 + side), 0.9, landmarks))
        return Faces(tuple(faces), ((48, 64),))

    fake_restorer.detector.detect = detect


def changed_halves(source: Path, result: Path) -> tuple[bool, bool]:
    """Return whether anything differs in the left and the right half of any frame."""
    import av

    with av.open(str(source)) as first, av.open(str(result)) as second:
        differences = [
            a.to_ndarray(format="gray") != b.to_ndarray(format="gray")
            for a, b in zip(first.decode(video=0), second.decode(video=0), strict=True)
        ]
    changed = np.any(differences, axis=0)
    return bool(changed[:, :28].any()), bool(changed[:, 32:].any())


@pytest.mark.parametrize("by", ["index", "order", "region", "person"])
def test_faces_are_chosen_as_in_pictures(tmp_path: Path, fake_restorer: Any, by: str) -> None:
    source = make_clip(tmp_path / "clip.mkv", frames=3, options={"qp": "0"}, face=False)
    two_faces(fake_restorer)
    options, extra = OPTIONS, Extra()
    if by == "index":  # the larger one
        options = OPTIONS.replace(select="0")
    elif by == "order":
        options = OPTIONS.replace(select="1", order="left to right")
    elif by == "region":
        region = torch.zeros(1, 48, 64)
        region[..., 32:] = 1
        extra = Extra(region=region)
    else:

        class Embedder:
            def embed(self, faces: Tensor) -> Tensor:
                return torch.eye(2)[: len(faces)]  # two people, in the detector's order

        fake_restorer.embedder = Embedder()
        extra = Extra(people=torch.tensor([[0.0, 1.0]]))
    how = ClipOptions.of(codec="ffv1")
    summary = restore(
        fake_restorer, source, tmp_path / "out.mkv", how, extra=extra, options=options
    )
    assert (summary.frames, summary.faces) == (3, 3)
    assert changed_halves(source, tmp_path / "out.mkv") == (False, True)


def test_names_with_colons_are_no_protocols(
    tmp_path: Path, fake_restorer: Any, monkeypatch: Any
) -> None:
    make_clip(tmp_path / "clip.mp4", frames=3).rename(tmp_path / "rec-2024T12:30.mp4")
    (tmp_path / "day:1").mkdir()
    monkeypatch.chdir(tmp_path)
    for target in ("out:1.mp4", "day:1/out.mp4"):
        assert restore(fake_restorer, Path("rec-2024T12:30.mp4"), Path(target)).frames == 3


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_texts_that_are_not_unicode_stop_nothing(
    tmp_path: Path, fake_restorer: Any, ending: str
) -> None:
    source = make_clip(tmp_path / "clip.avi", frames=3)
    source.write_bytes(source.read_bytes().replace(b"a clip", b"\xe4 clip"))
    target = tmp_path / f"out.{ending}"
    restore(fake_restorer, source, target)
    with Clip(target) as clip:
        title = clip.container.metadata["title"]
    assert title == ("\udce4 clip" if ending == "avi" else "\u00e4 clip")
    assert packets_of(target, "audio") == packets_of(source, "audio")


def test_the_longest_names_have_folders_of_their_own(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    first, second = (tmp_path / f"{chr(26085) * 82}{end}.mp4" for end in "ab")
    with pytest.raises(Cancelled):
        restore(fake_restorer, source, first, progress=cancel_at(8), keep_partial=True)
    assert clips.part_path(first).is_file()
    assert restore(fake_restorer, source, second).resumed_at == 0
    assert restore(fake_restorer, source, first).resumed_at == 5
    assert {*tmp_path.iterdir()} == {source, first, second}


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_clip_that_begins_late_is_counted_from_its_beginning(
    tmp_path: Path, fake_restorer: Any, ending: str
) -> None:
    source = make_clip(tmp_path / f"clip.{ending}", frames=12, sound=0, begin=10 * 90_000)
    stamps = stamps_of(source)
    assert stamps[0] == 10
    target = tmp_path / f"out.{ending}"
    summary = restore(fake_restorer, source, target)
    assert (stamps_of(target), summary.damage) == (stamps, "")
    assert summary.scenes[0].start == 0
    done: list[tuple[int, int]] = []
    part = ClipOptions.of(start=0.1, end=0.3)
    restore(fake_restorer, source, target, part, progress=lambda *counts: done.append(counts))
    expected = [stamp - 10 for stamp in stamps if 10.1 <= stamp < 10.3]
    # Where the first frame is not at the beginning, MP4 says so in milliseconds.
    shifted = [each - Fraction(1, 10) for each in expected]
    assert stamps_of(target) == pytest.approx(shifted, abs=1e-3)
    assert max(total for _, total in done) <= len(expected) + 2


def test_what_a_cancelled_run_left_is_no_input_of_the_same_output(
    tmp_path: Path, fake_restorer: Any
) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    target = tmp_path / "out.mp4"
    with pytest.raises(Cancelled):
        restore(fake_restorer, source, target, progress=cancel_at(8), keep_partial=True)
    left = clips.part_path(target)
    before = left.read_bytes()
    with pytest.raises(VideoError, match=r"out\.part\.mp4 is what a cancelled run left of"):
        restore(fake_restorer, left, target)
    assert left.read_bytes() == before


def test_a_cancelled_run_leaves_files_of_others_alone(tmp_path: Path, fake_restorer: Any) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=12)
    foreign = tmp_path / "out.part.mp4"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(Cancelled):
        restore(
            fake_restorer, source, tmp_path / "out.mp4", progress=cancel_at(8), keep_partial=True
        )
    restore(fake_restorer, source, tmp_path / "out.mp4")
    assert foreign.read_bytes() == b"somebody's"


def test_transparency_is_enlarged_with_the_colors(tmp_path: Path, fake_restorer: Any) -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    source = make_frames(tmp_path / "clip.mkv", "bgra", alpha=[alpha] * 2)
    options = OPTIONS.replace(upscale=2)
    restore(fake_restorer, source, tmp_path / "out.mkv", options=options)
    with Clip(tmp_path / "out.mkv") as clip:
        (frame, _) = clip.frames()
    assert frame.planes[3].shape == (96, 128)
    assert frame.planes[3][:, :60].max() == 0
    assert frame.planes[3][:, 68:].min() == 255
