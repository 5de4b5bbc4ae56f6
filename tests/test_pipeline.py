"""The five steps as one, with fakes in place of the networks, and once with the real ones."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfp_core import masks
from gfp_core.detect import FaceDetector
from gfp_core.networks import registry
from gfp_core.networks.parsing import FacePart
from gfp_core.pipeline import FaceRestorer, find_device, find_model
from gfp_core.track import Tracks
from tests import needs


def photo(height: int = 96, width: int = 80, channels: int = 3, face: bool = True) -> torch.Tensor:
    frame = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    frame[0, :, 0, 0] = 0.9 if face else 0.1
    return frame


def test_only_the_face_changes(fake_restorer):
    frames = photo()
    before = frames.clone()
    result = fake_restorer.restore(frames, auto_strength=False)
    assert torch.equal(frames, before)
    assert len(result.faces) == 1
    assert result.faces.crops.shape == result.faces.restored.shape == (1, 3, 64, 64)
    assert result.mask.shape == (1, 96, 80)
    outside = (result.mask == 0).expand_as(frames[:, 0])
    assert 0.5 < outside.float().mean() < 0.95
    assert torch.equal(result.frames[:, :, outside[0]], frames[:, :, outside[0]])
    middle = (slice(None), slice(None), slice(44, 52), slice(36, 44))
    assert result.mask[0, 44:52, 36:44].min() > 0.999
    assert (result.frames[middle] - (1 - frames[middle])).abs().mean() < 0.15


@pytest.mark.parametrize("channels", [3, 4])
def test_no_face_no_change(fake_restorer, channels, caplog):
    frames = photo(channels=channels, face=False)
    frames[0, 0, 5, 5] = 7.5
    frames[0, 1, 6, 6] = torch.nan
    with caplog.at_level(logging.INFO):
        result = fake_restorer.restore(frames)
    assert result.frames.numpy().tobytes() == frames.numpy().tobytes()
    assert not result.mask.any()
    assert len(result.faces) == 0
    assert [record.message for record in caplog.records if "No face" in record.message] == [
        "No face found: the image is left as it is."
    ]


def test_frames_without_a_face_are_named(fake_restorer, caplog):
    frames = torch.cat([photo(face=False), photo(), photo(face=False)])
    with caplog.at_level(logging.INFO):
        result = fake_restorer.restore(frames)
    assert "No face found in 2 of 3 frames (0, 2)" in caplog.text
    assert torch.equal(result.frames[[0, 2]], frames[[0, 2]])
    assert not torch.equal(result.frames[1], frames[1])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 5),
    strength=st.floats(0, 1),
)
def test_pixels_outside_the_mask_are_bit_identical(fake_restorer, height, width, seed, strength):
    frames = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(seed))
    result = fake_restorer.restore(frames, strength=strength)
    untouched = (result.mask == 0)[:, None].expand_as(frames)
    assert torch.equal(result.frames[untouched], frames[untouched])
    assert torch.equal(result.frames[:, 3], frames[:, 3])


def test_upscale_and_background(fake_restorer):
    result = fake_restorer.restore(photo(channels=4), upscale=2)
    assert result.frames.shape == (1, 4, 192, 160)
    assert result.mask.shape == (1, 192, 160)
    background = torch.full((1, 3, 120, 100), 0.25)
    result = fake_restorer.restore(photo(), background=background)
    assert torch.equal(result.frames[:, :, 0], background[:, :, 0])
    assert (result.frames - background).abs().max() > 0.1
    assert fake_restorer.restore(photo(face=False), upscale=1.5).frames.shape == (1, 3, 144, 120)


def test_options_reach_the_detector(fake_restorer):
    options = {
        "score": 0.3,
        "min_size": 10.0,
        "max_size": 99.0,
        "long_side": 640,
        "rotations": (0, 180),
        "flip": True,
    }
    fake_restorer.restore(photo(), **options)
    assert fake_restorer.detector.calls == [options]


def test_fidelity_reaches_the_restorer(fake_restorer):
    fake_restorer.restore(photo())
    fake_restorer.restore(photo(), fidelity=0.25)
    assert fake_restorer.restorer.fidelities == [None, 0.25]


@pytest.mark.parametrize("face", [True, False])
def test_progress_rises_to_its_end_and_can_cancel(fake_restorer, face):
    seen = []
    frames = torch.cat([photo(face=face), photo(face=False)])
    fake_restorer.restore(frames, progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {6}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (6, 6)

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fake_restorer.restore(frames, progress=cancel)


def test_landmarks_that_are_no_face_do_not_stop_the_others(fake_restorer, caplog):
    frames = torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    frames[:, 0, 0, 0] = 1
    detect = fake_restorer.detector.detect

    def detect_a_line(frames, **options):
        found = detect(frames, **options)
        line = np.linspace((40, 40), (60, 60), 5, dtype=np.float32)
        return replace(
            found,
            faces=(found.faces[0], replace(found.faces[1], landmarks=line), found.faces[2]),
        )

    fake_restorer.detector.detect = detect_a_line
    result = fake_restorer.restore(frames)
    assert [face.frame for face in result.faces.faces] == [0, 2]
    assert torch.equal(result.frames[1], frames[1])
    assert not torch.equal(result.frames[0], frames[0])
    assert "frame 1" in caplog.text
    assert "left as it is" in caplog.text


def test_what_is_no_batch_is_refused():
    detector = FaceDetector(torch.nn.Conv2d(3, 1, 1))
    for frames in (torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="frames"):
            FaceRestorer(None, detector).restore(frames)  # type: ignore[arg-type]


def test_unknown_model_and_device(tmp_path):
    path, architecture = find_model("lite")
    assert path.name == "lite.safetensors"
    assert architecture == "GFPGANLite"
    assert find_model("lite-1") == (path, architecture)  # as files of options of before name it
    with pytest.raises(ValueError, match=r"x\.pth"):
        find_model(tmp_path / "x.pth")
    (tmp_path / "x.pth").touch()
    assert find_model(tmp_path / "x.pth") == (tmp_path / "x.pth", None)
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device nonsense cannot be used here"):
        find_device("nonsense")
    if not torch.cuda.is_available():
        assert find_device().type == "cpu"
        with pytest.raises(ValueError, match="there is: cpu"):
            find_device("cuda")


def test_grey_input_stays_grey(fake_restorer):
    frames = photo().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).clone()
    frames[0, :, 0, 0] = 0.9
    restore = fake_restorer.restorer.restore

    def tinted(faces, **options):
        faces = restore(faces, **options)
        return replace(faces, restored=faces.restored * torch.tensor([1, 0.8, 0.6]).view(3, 1, 1))

    fake_restorer.restorer.restore = tinted
    kept = fake_restorer.restore(frames).frames
    assert (kept - kept.mean(dim=1, keepdim=True)).abs().max() < 0.01
    painted = fake_restorer.restore(frames, color="restorer").frames
    assert (painted - painted.mean(dim=1, keepdim=True)).abs().max() > 0.05


def test_colour_options_reach_their_step(fake_restorer):
    frames = photo()
    frames[0, :, 0, 0] = 0.9
    plain, matched = (fake_restorer.restore(frames, color=c).frames for c in ("restorer", "match"))
    half = fake_restorer.restore(frames, color="match", color_strength=0.5).frames
    torch.testing.assert_close(half, (plain + matched) / 2, atol=1e-4, rtol=0)
    forced = fake_restorer.restore(frames, color="restorer", grey="on").frames
    taken = fake_restorer.restore(frames, color="input").frames
    assert torch.equal(forced, taken)
    assert not torch.equal(forced, plain)


def test_the_colours_of_a_references_face(fake_restorer, caplog):
    frames = photo().repeat(2, 1, 1, 1)
    frames[:, :, 0, 0] = 0.9
    tints = torch.tensor([[1.0, 0.7, 0.5], [0.5, 0.7, 1.0]])
    reference = frames * tints[:, :, None, None]
    reference[:, :, 0, 0] = 0.9  # a face

    def tint(reference):
        faces = fake_restorer.restore(frames, color="reference", reference=reference).faces
        middle = faces.restored[:, :, 20:50, 24:40].mean(dim=(2, 3))
        return middle[:, 0] / middle[:, 2]

    one, each = tint(reference[:1]), tint(reference)
    assert min(one) > 1.2
    assert each[0] > 1.2 > 0.9 > each[1]
    caplog.set_level("INFO")
    reference[:, :, 0, 0] = 0.1  # none: all of it counts
    assert min(tint(reference[:1])) > 1.2
    assert "No face found in reference 0" in caplog.text
    with pytest.raises(ValueError, match="1 or 2, 3 or 4"):
        tint(reference.repeat(2, 1, 1, 1))
    frames[:, 0, 0, 0] = 0.1  # refused whether there is a face or not
    with pytest.raises(ValueError, match="needs a reference"):
        tint(None)


# Choosing, identity, frames in order


def test_a_region_without_faces_restores_nobody(fake_restorer):
    frames = torch.cat([photo(), photo()])
    region = torch.zeros(2, 96, 80)
    region[1] = 1
    result = fake_restorer.restore(frames, region=region)
    assert [face.frame for face in result.faces.faces] == [1]
    assert torch.equal(result.frames[0], frames[0])
    with pytest.raises(ValueError, match="bring it to the frames' size"):
        fake_restorer.restore(frames, region=torch.ones(1, 96, 79))


def test_only_the_people_asked_for_are_restored(fake_restorer, fake_embedder):
    frames = photo().repeat(2, 1, 1, 1)
    frames[0, 1:] *= 0.1  # reddish
    frames[1, :2] *= 0.1  # bluish
    frames[:, :, 0, 0] = 0.9
    with pytest.raises(ValueError, match=r"embedder.*gfp weights get face-descriptor"):
        fake_restorer.restore(frames, people=torch.eye(3)[:1])
    fake_restorer.embedder = fake_embedder
    result = fake_restorer.restore(frames, people=torch.eye(3)[2:])
    assert [face.frame for face in result.faces.faces] == [1]
    assert torch.equal(result.frames[0], frames[0])
    assert not torch.equal(result.frames[1], frames[1])


def test_the_identity_guard_takes_back_what_it_must(fake_restorer, fake_embedder):
    frames = photo()
    frames[:, 1:, 5:] *= 0.1  # a red face, whose negative is another
    fake_restorer.embedder = fake_embedder
    result = fake_restorer.restore(frames, color="restorer", identity_limit=10.0)
    assert result.angles[0] > 15
    assert result.strengths.tolist() == [0]
    assert torch.equal(result.frames, frames)  # bit by bit
    plain = fake_restorer.restore(frames, color="restorer")
    assert plain.angles is None
    assert (plain.frames - frames).abs().max() > 0.5


def test_sharp_faces_stay(fake_restorer):
    frames = photo()
    assert len(fake_restorer.restore(frames, max_sharpness=1.0).faces) == 1
    result = fake_restorer.restore(frames, max_sharpness=0.0)
    assert len(result.faces) == 0
    assert torch.equal(result.frames, frames)


def test_frames_in_order_pass_on_what_they_saw(fake_restorer):
    frames = photo().repeat(3, 1, 1, 1)
    assert fake_restorer.restore(frames).tracks is None
    whole = fake_restorer.restore(frames, tracks=Tracks(), score=0.7)  # the fake is sure by 0.75
    assert whole.tracks.tracks[0].age == 3
    # Looked for with less confidence, so that a face does not blink.
    assert [call["score"] for call in fake_restorer.detector.calls] == [0.9, 0.5]
    first = fake_restorer.restore(frames[:2], tracks=Tracks(), score=0.7)
    rest = fake_restorer.restore(frames[2:], tracks=first.tracks, score=0.7)
    assert rest.tracks.tracks[0].age == 3
    assert rest.tracks.tracks[0].number == 0
    assert len(fake_restorer.restore(frames, tracks=Tracks(), score=0.8).faces) == 0


def tinted_clip(count: int = 8) -> torch.Tensor:
    """A still picture whose tint alternates, and behind a cut another one."""
    tints = torch.tensor([[1.0, 0.8, 0.7], [0.7, 0.8, 1.0]])
    frames = photo().repeat(count, 1, 1, 1) * tints.repeat(count // 2, 1)[:, :, None, None]
    frames[5:] = frames[5:].flip(3) ** 4
    frames[:, 0, 0, 0] = 0.9
    return frames


def face_colors(restorer, frames, sizes, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 3) of the restored faces, and (B,) their strengths, where frames come in batches."""
    crops, strengths, tracks = [], [], Tracks()
    for batch in frames.split(sizes):
        result = restorer.restore(batch, tracks=tracks, score=0.7, **options)
        tracks = result.tracks
        crops.append(result.faces.restored.mean(dim=(2, 3)))
        strengths.append(result.strengths)
    return torch.cat(crops), torch.cat(strengths)


@pytest.mark.parametrize("options", [{}, {"color": "mean_std"}, {"fade": True}])
def test_frame_by_frame_gives_what_a_whole_batch_gives(fake_restorer, options):
    frames = tinted_clip()
    if options.pop("fade", False):  # frames whose sharpness alternates
        soft = torch.nn.functional.avg_pool2d(frames[::2], 9, 1, 4)
        frames[::2, :, 1:] = soft[:, :, 1:]
        frames[:, 0, 0, 0] = 0.9
    whole = face_colors(fake_restorer, frames, [8], **options)
    for sizes in ([1] * 8, [3, 3, 2]):
        parts = face_colors(fake_restorer, frames, sizes, **options)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_colours_of_a_clip_are_steadied_up_to_its_cuts(fake_restorer):
    """The restorer knows no tint: all of it comes from the frames, by way of the statistics."""
    frames = tinted_clip()
    crop = fake_restorer.restore(photo(), color="restorer").faces.restored
    fake_restorer.restorer.restore = lambda faces, **_: replace(
        faces, restored=crop.repeat(len(faces), 1, 1, 1)
    )
    steady, _ = face_colors(fake_restorer, frames, [1] * 8)
    alone = torch.cat(
        [fake_restorer.restore(frame[None]).faces.restored.mean(dim=(2, 3)) for frame in frames]
    )
    steps, before = (x[:5, 0].diff().abs() for x in (steady, alone))
    assert before.min() > 0.1
    assert steps.max() < 0.25 * before.min()
    torch.testing.assert_close(steady[[0, 5]], alone[[0, 5]], atol=1e-6, rtol=0)


def test_the_strengths_of_a_clip_are_steadied(fake_restorer):
    frames = photo(600, 600).repeat(4, 1, 1, 1)
    soft = cv2.GaussianBlur(frames[0].permute(1, 2, 0).numpy(), (0, 0), 8)
    frames[::2, :, 1:] = torch.from_numpy(soft).permute(2, 0, 1)[:, 1:]
    _, steady = face_colors(fake_restorer, frames, [1, 3])
    alone = torch.cat([fake_restorer.restore(frame[None]).strengths for frame in frames])
    assert alone.diff().abs().min() > 0.05
    expected = alone.clone()
    for i in range(1, 4):
        expected[i] = 0.8 * expected[i - 1] + 0.2 * alone[i]
    torch.testing.assert_close(steady, expected, atol=0.01, rtol=0)


# With the real networks


@pytest.mark.slow
def test_real_networks_restore_a_photograph():
    from skimage.data import astronaut

    restorer = FaceRestorer.load(device="cpu")
    frames = torch.from_numpy(astronaut().transpose(2, 0, 1)[None].astype(np.float32) / 255)
    first = restorer.restore(frames)
    assert len(first.faces) == 1
    x1, y1, x2, y2 = first.faces.faces[0].box
    assert 170 < x1 < 210 < 240 < x2 < 290
    assert 30 < y1 < 80 < 150 < y2 < 200
    untouched = (first.mask == 0)[:, None].expand_as(frames)
    assert 0.8 < untouched.float().mean() < 0.99
    assert torch.equal(first.frames[untouched], frames[untouched])
    difference = (first.frames - frames)[~untouched].abs()
    assert 0.001 < difference.mean() < 0.1
    assert torch.equal(restorer.restore(frames).frames, first.frames)
    # What is no face is left alone.
    turned = frames[:, :, 256:, 256:]
    assert torch.equal(restorer.restore(turned).frames, turned)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RestoreFormer", "CodeFormer"])
def test_a_file_of_another_network_restores_a_photograph(name, tmp_path, caplog):
    """Random weights: what matters is that the file is found out, and its face pasted."""
    from skimage.data import astronaut

    network = next(row.network for row in registry.ARCHITECTURES if row.name == name)
    torch.manual_seed(0)
    net = network()
    with torch.no_grad():
        net.quantize.embedding.weight.normal_()
    torch.save({"params_ema": net.state_dict()}, tmp_path / "net.pth")
    restorer = FaceRestorer.load(tmp_path / "net.pth", device="cpu")
    assert restorer.restorer.name == name
    assert restorer.restorer.size == 512
    assert restorer.restorer.has_fidelity == (name == "CodeFormer")
    frames = torch.from_numpy(astronaut().transpose(2, 0, 1)[None].astype(np.float32) / 255)
    result = restorer.restore(frames, fidelity=1.0, color="restorer")
    assert ("RestoreFormer has no fidelity" in caplog.text) == (name == "RestoreFormer")
    assert result.faces.restored.shape == (1, 3, 512, 512)
    with torch.inference_mode():
        expected = (net.eval()(result.faces.crops * 2 - 1) + 1) / 2
    if name == "RestoreFormer":
        torch.testing.assert_close(result.faces.restored, expected.clamp(0, 1), rtol=0, atol=1e-3)
    else:  # that was of its default fidelity
        assert not torch.allclose(result.faces.restored, expected.clamp(0, 1), rtol=0, atol=1e-3)
    untouched = (result.mask == 0)[:, None].expand_as(frames)
    assert torch.equal(result.frames[untouched], frames[untouched])
    assert (result.frames - frames)[~untouched].abs().mean() > 0.02


def test_a_parser_keeps_what_stands_before_the_face(fake_restorer):
    class HandInTheMiddle:
        """Sees a hand where the crop was not restored, and skin where it was."""

        def parse(self, crops, progress=None):
            labels = torch.full((len(crops), 64, 64), int(FacePart.SKIN), dtype=torch.uint8)
            if crops is not restored[0]:
                labels[:, 24:40, 24:40] = FacePart.BACKGROUND
            if progress is not None:
                progress(len(crops), len(crops))
            return labels

    restored = []
    restore = fake_restorer.restorer.restore

    def remember(faces, **options):
        faces = restore(faces, **options)
        restored[:] = [faces.restored]
        return faces

    fake_restorer.restorer.restore = remember
    frames = photo()
    with pytest.raises(ValueError, match="needs a parser"):
        fake_restorer.restore(frames, mask="parts")
    both = FaceRestorer(fake_restorer.restorer, fake_restorer.detector, HandInTheMiddle())
    calls = []
    options = {"color": "restorer", "progress": lambda *call: calls.append(call)}
    for mask in ("parts", "ellipse"):
        result = both.restore(frames, mask=mask, **options)
        middle = (slice(44, 52), slice(36, 44))
        assert result.mask[0][middle].max() == 0
        assert result.mask.max() > 0.5
        assert torch.equal(result.frames[0][:, 44:52, 36:44], frames[0][:, 44:52, 36:44])
    assert calls[-1] == (3, 3)
    off = both.restore(frames, mask=masks.Mask(occlusion="off"), **options)
    assert off.mask[0][middle].min() > 0.5
    allowed = torch.zeros(1, *frames.shape[2:])
    assert torch.equal(both.restore(frames, frame_mask=allowed).frames, frames)


def test_faces_restored_less_than_asked_for_are_named(fake_restorer, caplog, monkeypatch):
    """A sharp face comes out nearly as it was; whoever asked for all of it is told."""
    frames = torch.ones(1, 3, 96, 96)
    monkeypatch.setattr("gfp_core.pipeline.face_sharpness", lambda *_, **__: torch.tensor([0.9]))
    with caplog.at_level("INFO"):
        result = fake_restorer.restore(frames, strength=0.5)
    share = 2 * float(result.strengths[0])
    assert 0.2 < share < 0.3  # 0.3 for the sharpness, and the detector was not sure
    assert (
        f"frame 0 is sharp already, or hardly one: it is restored by {100 * share:.0f} %"
        in caplog.text
    )


@needs.newer_torch
def test_the_way_from_photo_to_photo_imports_nothing_heavy():
    needs.default_detector()
    program = """
import sys, torch
before = set(sys.modules)
from gfp_core.pipeline import FaceRestorer
FaceRestorer.load(device="cpu").restore(torch.rand(1, 3, 64, 64))
heavy = {"torchvision", "facexlib", "huggingface_hub", "spandrel", "torch._dynamo", "sympy"}
heavy &= set(sys.modules) - before
sys.exit(str(heavy) if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize("library", [None, object()])
def test_memory_is_given_back_where_it_can_be(monkeypatch, library):
    called = []
    glibc = SimpleNamespace(malloc_trim=called.append) if library is None else library
    monkeypatch.setattr("ctypes.CDLL", lambda _: glibc)
    FaceRestorer.load(device="cpu")
    assert called == ([0] if library is None else [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_large_picture_of_whole_numbers_takes_few_bytes_a_pixel():
    needs.default_detector()
    program = """
import sys, torch
from pathlib import Path
from gfp_core.pipeline import FaceRestorer
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
faces = FaceRestorer.load(device="cpu")
faces.restore(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
frames = torch.zeros(1, 3, 3000, 3000, dtype=torch.uint8)
before = memory("VmRSS")
faces.restore(frames, in_place=True)
needed = (memory("VmHWM") - before) / frames[0, 0].numel()
sys.exit(0 if needed < 25 else f"{needed:.1f} bytes a pixel")
"""
    # Large blocks of their own, given back at once: else what is kept for later counts, by chance.
    allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}
    environment = {**os.environ, **allocator}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, env=environment)
