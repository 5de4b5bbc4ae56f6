"""The facade: its thirds, frames in order, options in all their forms, and what calls share."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from gfp_core import Extra, FaceRestorer, RestoreOptions
from gfp_core.options import Blend, Mask, OptionError
from gfp_core.track import Tracks


def photo(count: int = 1, height: int = 96, width: int = 80, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(count, 3, height, width, generator=generator)
    frames[:, 0, 0, 0] = 0.9  # a face
    return frames


def clip(count: int = 7) -> torch.Tensor:
    """Frames of one still picture, each with noise of its own."""
    frames = photo().repeat(count, 1, 1, 1)
    frames += 0.05 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    frames[:, 0, 0, 0] = 0.9
    return frames


def test_the_thirds_one_by_one_are_the_whole(fake_restorer):
    frames, options = photo(2), RestoreOptions.of(strength=0.7, grain=0.5, color="mean_std")
    whole = fake_restorer.restore(frames, options)
    faces = fake_restorer.find(frames, options)
    restored = fake_restorer.restore_faces(faces, options)
    result = fake_restorer.paste(frames, restored, options)
    assert torch.equal(result.frames, whole.frames)
    assert torch.equal(result.mask, whole.mask)
    assert torch.equal(result.strengths, whole.strengths)
    assert faces.restored is None  # no third changes what it is given
    halves = fake_restorer.select(frames, fake_restorer.detect(frames, options), options)
    assert torch.equal(halves.crops, faces.crops)


def test_a_third_goes_without_the_networks_of_the_others(fake_restorer):
    frames = photo()
    finder = FaceRestorer(detector=fake_restorer.detector)
    faces = finder.find(frames, size=64)
    faces = FaceRestorer(fake_restorer.restorer).restore_faces(faces)
    assert torch.equal(
        FaceRestorer().paste(frames, faces).frames, fake_restorer.restore(frames).frames
    )
    with pytest.raises(ValueError, match="no restorer"):
        finder.find(frames)
    with pytest.raises(ValueError, match="no detector"):
        FaceRestorer(fake_restorer.restorer).restore(frames)


def test_options_groups_and_flat_names_say_the_same(fake_restorer):
    frames = photo(2)
    options = RestoreOptions(strength=0.5, mask=Mask("hull"), blend=Blend(detail=0.0))
    expected = fake_restorer.restore(frames, options).frames
    for keywords in (
        {"strength": 0.5, "mask": "hull", "detail": 0},
        {"strength": 0.5, "mask": Mask("hull"), "blend": Blend(detail=0.0)},
    ):
        assert torch.equal(fake_restorer.restore(frames, **keywords).frames, expected)
    over = fake_restorer.restore(frames, RestoreOptions.of(strength=0.1), mask="hull", detail=0)
    assert not torch.equal(over.frames, expected)


def test_former_keywords_go_on_working_and_unknown_ones_name_the_nearest(fake_restorer, caplog):
    frames = photo()
    expected = fake_restorer.restore(frames, select="first", keep_monochrome="on").frames
    with caplog.at_level(logging.WARNING):
        result = fake_restorer.restore(frames, which="first", grey="on", chunk=1, border="reflect")
    assert result.frames.shape == expected.shape
    assert torch.equal(fake_restorer.restore(frames, which="first", grey="on").frames, expected)
    with pytest.raises(OptionError, match="no option strenght; the nearest is strength"):
        fake_restorer.restore(frames, strenght=0.5)


@pytest.mark.parametrize("name", ["strength", "mask", "blend", "max_size", "select", "tracks"])
def test_none_is_the_default(fake_restorer, name):
    frames = photo()
    plain = fake_restorer.restore(frames).frames
    assert torch.equal(fake_restorer.restore(frames, **{name: None}).frames, plain)
    assert torch.equal(fake_restorer.restore(frames, None, extra=None).frames, plain)


def test_whole_numbers_are_strengths(fake_restorer):
    frames = photo()
    for number in (0, 1):
        assert torch.equal(
            fake_restorer.restore(frames, strength=number).frames,
            fake_restorer.restore(frames, strength=float(number)).frames,
        )
    assert torch.equal(fake_restorer.restore(frames, strength=0).frames, frames)


@pytest.mark.parametrize("options", [{}, {"upscale": 2.0}, {"tracks": Tracks()}])
def test_an_empty_batch_gives_an_empty_batch(fake_restorer, options):
    calls = []
    result = fake_restorer.restore(
        photo()[:0], progress=lambda done, total: calls.append((done, total)), **options
    )
    scale = int(options.get("upscale", 1))
    assert result.frames.shape == (0, 3, 96 * scale, 80 * scale)
    assert result.mask.shape == (0, 96 * scale, 80 * scale)
    assert len(result.faces) == 0
    assert all(done <= total for done, total in calls)


# Frames in order


@pytest.mark.parametrize("sizes", [[1] * 7, [3, 3, 1], [2, 5], [0, 7]])
def test_a_stream_gives_what_a_whole_batch_gives(fake_restorer, sizes):
    frames = clip()
    whole = fake_restorer.restore(frames, tracks=Tracks(), score=0.7)
    results = list(fake_restorer.stream(frames.split(sizes), score=0.7))
    assert [len(result.frames) for result in results] == sizes
    streamed = torch.cat([result.frames for result in results])
    torch.testing.assert_close(streamed, whole.frames, atol=1e-6, rtol=0)
    numbers = [face.track for result in results for face in result.faces.faces]
    assert numbers == [face.track for face in whole.faces.faces] == [0] * 7


def test_grain_changes_from_frame_to_frame_however_a_stream_is_cut(fake_restorer):
    frames = photo().repeat(5, 1, 1, 1)  # noise that stands still, as if on a dirty pane
    options = RestoreOptions.of(score=0.7, grain=1.0, steadiness=0.0, strength=0.5)
    whole = fake_restorer.restore(frames, options, tracks=Tracks()).frames
    for sizes in ([1] * 5, [3, 2]):
        streamed = [result.frames for result in fake_restorer.stream(frames.split(sizes), options)]
        torch.testing.assert_close(torch.cat(streamed), whole, atol=1e-6, rtol=0)
    assert all(not torch.equal(whole[0], frame) for frame in whole[1:])


def test_a_stream_reads_one_batch_at_a_time_and_can_be_gone_on_with(fake_restorer):
    frames, reads = clip(), []

    def batches():
        for index, frame in enumerate(frames):
            reads.append(index)
            yield frame[None]

    options = RestoreOptions.of(score=0.7)
    stream = fake_restorer.stream(batches(), options)
    first = [next(stream) for _ in range(3)]
    assert reads == [0, 1, 2]
    rest = fake_restorer.stream(
        (frame[None] for frame in frames[3:]), options, extra=Extra(tracks=first[-1].tracks)
    )
    streamed = torch.cat([result.frames for result in (*first, *rest)])
    whole = fake_restorer.restore(
        frames, replace(options, video=replace(options.video, video=True))
    )
    torch.testing.assert_close(streamed, whole.frames, atol=1e-6, rtol=0)


def test_what_a_stream_remembers_does_not_grow(fake_restorer):
    """Faces that come and go behind cuts leave nothing."""
    results = fake_restorer.stream(
        (photo(seed=seed) ** (1 + 3 * (seed % 2)) for seed in range(12)), score=0.7
    )
    tracks = [result.tracks for result in results]
    assert tracks[-1].count > 3
    assert max(len(state.tracks) + len(state.ended) for state in tracks) <= 2


# One face is cut out of its frame once


@pytest.fixture
def cuts(monkeypatch):
    """The number of faces in each call that cuts faces out of frames."""
    from gfp_core import align as module

    counts: list[int] = []
    align = module.align

    def counted(frames, faces, *arguments, **options):
        counts.append(len(faces))
        return align(frames, faces, *arguments, **options)

    for name in ("pipeline", "find", "sharpness", "embed"):
        monkeypatch.setattr(f"gfp_core.{name}.align", counted)
    return counts


@pytest.mark.parametrize("options", [{}, {"max_sharpness": 1.0}, {"identity_limit": 20.0}])
def test_a_face_is_cut_out_once(fake_restorer, fake_embedder, cuts, options):
    fake_restorer.restorer.size = 512
    fake_restorer.embedder = fake_embedder
    people = fake_embedder.embed(torch.full((1, 3, 4, 4), 0.5))
    result = fake_restorer.restore(photo(2), **options)
    assert cuts == [2]
    with_people = fake_restorer.restore(photo(2), people=people, **options)
    assert cuts == [2, 2]
    assert torch.equal(with_people.frames, result.frames)


def test_sharpness_measured_on_the_restorers_crop_is_that_of_a_crop_of_its_own(fake_restorer):
    frames = photo(height=300, width=300)
    measured = []
    for size in (64, 512):
        fake_restorer.restorer.size = size
        measured.append(float(fake_restorer.restore(frames).faces.sharpness[0]))
    assert measured[0] == measured[1]
    assert 0 < measured[0] < 1


# What calls share


def test_threads_share_a_restorer(fake_restorer):
    frames = [photo(seed=seed) for seed in range(4)]
    options = [RestoreOptions.of(strength=0.25 * (1 + seed)) for seed in range(4)]
    expected = [fake_restorer.restore(*pair).frames for pair in zip(frames, options, strict=True)]
    before = dict(vars(fake_restorer))
    gate = threading.Barrier(4)

    def work(index: int) -> torch.Tensor:
        gate.wait()
        return fake_restorer.restore(frames[index], options[index]).frames

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for result, single in zip(results, expected, strict=True):
        assert torch.equal(result, single)
    assert vars(fake_restorer) == before
