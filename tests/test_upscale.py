"""Backgrounds by a network, in tiles; the networks are small ones of spandrel's architectures."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core import upscale
from gfp_core.cli import main
from gfp_core.io.images import read_image
from gfp_core.pipeline import FaceRestorer
from gfp_core.upscale import Upscaler, load_upscaler
from gfp_core.weights import WeightsError
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights

pytest.importorskip("spandrel")


class CancelledError(Exception):
    pass


def compact(scale: int = 2, seed: int = 0) -> nn.Module:
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(seed)
    return Compact(num_feat=8, num_conv=2, upscale=scale).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "compact.pth"
    torch.save({"params": compact().state_dict()}, path)
    return path


@pytest.fixture
def upscaler(file: Path, monkeypatch: pytest.MonkeyPatch) -> Upscaler:
    monkeypatch.setattr(upscale, "TILE", 40)
    monkeypatch.setattr(upscale, "MARGIN", 16)
    return load_upscaler(file, device="cpu", weights=Weights(Settings(())))


def frames(count: int = 1, height: int = 90, width: int = 101, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def test_tiles_give_what_the_whole_frame_gives(upscaler: Upscaler) -> None:
    x = frames(2)
    calls: list[tuple[int, int]] = []
    result = upscaler.enlarge(x, progress=lambda *done: calls.append(done))
    with torch.inference_mode():
        whole = compact()(x).clamp(0, 1)
    assert result.shape == (2, 3, 180, 202)
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)
    assert calls[-1] == (540, 540)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_network_that_sees_the_whole_tile_leaves_no_seam(upscaler: Upscaler) -> None:
    class Shifts(nn.Module):
        """Adds to each tile a tone of its own, as networks with a wide view do."""

        scale, device = 2, torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.tone = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.tone = 0.2 - self.tone
            return nn.functional.interpolate(x, scale_factor=2) + self.tone

    upscaler.model = Shifts()
    result = upscaler.enlarge(torch.full((1, 3, 120, 120), 0.5))
    assert result.max() - result.min() > 0.1  # the tones are there
    for axis in (2, 3):  # and fall over the margin of 2 * 16 pixels
        assert result.diff(dim=axis).abs().max() < 0.2 / 32 * 1.5


def test_memory_that_runs_out_makes_tiles_lower_and_changes_nothing(
    upscaler: Upscaler, caplog: pytest.LogCaptureFixture
) -> None:
    x = frames()
    expected = upscaler.enlarge(x)
    model = upscaler.model

    class Small:
        scale, device = 2, torch.device("cpu")

        def __call__(self, tile: Tensor) -> Tensor:
            if tile.shape[2] > 36:
                raise RuntimeError("out of memory")
            return model(tile)

    upscaler.model = Small()
    with caplog.at_level(logging.WARNING):
        result = upscaler.enlarge(x)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert "Out of memory on cpu: going on with" in caplog.text


def test_cancel_alpha_and_another_factor(upscaler: Upscaler) -> None:
    def cancel(done: int, total: int) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        upscaler.enlarge(frames(), progress=cancel)
    x = frames(channels=4).double()
    before = x.clone()
    result = upscaler.enlarge(x, 1.5)
    assert (result.shape, result.dtype) == ((1, 4, 135, 152), torch.float64)
    assert torch.equal(x, before)
    assert upscaler.enlarge(frames(0)).shape == (0, 3, 180, 202)


def test_a_result_has_a_pixel_at_least(upscaler: Upscaler) -> None:
    assert upscaler.enlarge(frames(1, 20, 20), 0.01).shape == (1, 3, 1, 1)


def test_only_models_that_enlarge_are_taken(tmp_path: Path) -> None:
    torch.save(compact(1).state_dict(), tmp_path / "same.pth")
    weights = Weights(Settings(()))
    with pytest.raises(WeightsError, match=r"same\.pth: Compact makes RGB pictures no larger"):
        load_upscaler(tmp_path / "same.pth", weights=weights)
    with pytest.raises(WeightsError, match="lite is a restorer, not an upscaler"):
        load_upscaler("lite", weights=weights)
    torch.save({"a.weight": torch.ones(3)}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"none\.pth: spandrel does not know it"):
        load_upscaler(tmp_path / "none.pth", weights=weights)


def test_faces_are_pasted_at_full_resolution(
    upscaler: Upscaler, fake_restorer: FaceRestorer
) -> None:
    x = frames(2)
    x[0, :, 0, 0] = 1  # the fake detector sees a face there
    x[1, :, 0, 0] = 0
    fake_restorer.upscaler = upscaler
    calls: list[tuple[int, int]] = []
    before = x.clone()
    result = fake_restorer.restore(x, progress=lambda *done: calls.append(done))
    background = upscaler.enlarge(x)
    assert result.frames.shape == (2, 3, 180, 202)
    assert torch.equal(x, before)
    untouched = (result.mask == 0)[:, None].expand_as(result.frames)
    assert torch.equal(result.frames[untouched], background[untouched])
    assert not torch.equal(result.frames[0], background[0])
    assert torch.equal(result.frames[1], background[1])
    assert calls[-1] == (8, 8)
    assert calls == sorted(calls)
    assert fake_restorer.restore(x, upscale=3.0).frames.shape == (2, 3, 270, 303)
    given = torch.zeros(2, 3, 10, 11)
    assert fake_restorer.restore(x, background=given).frames.shape == given.shape


def test_the_command_enlarges_the_rest(
    file: Path, fake_restorer: FaceRestorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from PIL import Image

    def load_for(options, **_):
        fake_restorer.upscaler = load_upscaler(options.networks.background_model, device="cpu")
        return fake_restorer

    monkeypatch.setattr(FaceRestorer, "load_for", load_for)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    command = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    command += ["--background-model", str(file)]
    assert main(command) == 0
    result = read_image(tmp_path / "out" / "a.png")
    assert (result.width, result.height) == (100, 120)
    assert main(command) == 0
    assert "1 finished before" in capsys.readouterr().err
    assert main([*command, "--background", str(tmp_path / "a.png")]) != 0
    assert "--background or --background-model" in capsys.readouterr().err
