"""Faces at the sizes that networks work at, from 256 to 2048 px, through all five steps."""

import math
from pathlib import Path

import pytest
import skimage.data
import torch
from torch import Tensor

from gfp_core.detect import FaceDetector, load_detector
from gfp_core.networks.gpen import GPEN
from gfp_core.pipeline import FaceRestorer
from gfp_core.restore import Restorer
from gfp_core.weights.loading import load_network
from tests import needs


def photo() -> Tensor:
    picture = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)
    return picture[None].float() / 255


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    needs.default_detector()
    return load_detector()


def narrow_gpen(size: int) -> GPEN:
    """Three channels at full size: as few as carry colours."""
    torch.manual_seed(0)
    return GPEN(size, num_style_feat=16, num_mlp=1, narrow=3 * size / 32768)


def passing_gpen(size: int) -> GPEN:
    """A network whose weights are such that it gives back its input.

    The input's colours are the first three features of the encoder at full size, the generator's
    last layer has them beside its own, and the last picture is made of nothing else. Biases keep
    all activations on their straight part.
    """
    net = narrow_gpen(size)
    last, to_rgb = net.generator.convs[-1], net.generator.to_rgbs[-1]
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".modulation.weight" in name or ("to_rgb" in name and ".conv.weight" in name):
                parameter.zero_()
        first, fused = net.ecd0[0]
        fused.bias.fill_(2)
        first.weight.zero_()
        last.noise.weight.fill_(1)
        last.activate.bias.zero_()
        channels = to_rgb.conv.weight.shape[2]
        for colour in range(3):
            first.weight[colour, colour] = math.sqrt(3)
            to_rgb.conv.weight[0, colour, channels // 2 + colour] = math.sqrt(channels) / 2
        to_rgb.bias.fill_(-2)
    return net


def test_the_passing_network_gives_back_its_input() -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(passing_gpen(64)(x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [256, 512, 1024, pytest.param(2048, marks=pytest.mark.slow)])
def test_a_face_comes_back_to_its_place(size: int, detector: FaceDetector) -> None:
    frames = photo()
    result = FaceRestorer(Restorer(passing_gpen(size)), detector).restore(
        frames, auto_strength=False
    )
    assert len(result.faces) == 1
    crops, restored = result.faces.crops, result.faces.restored
    assert crops is not None
    assert restored is not None
    assert crops.shape == restored.shape == (1, 3, size, size)
    torch.testing.assert_close(restored, crops, rtol=0, atol=1e-4)

    inside = (result.mask[0] > 0.999).expand(3, -1, -1)
    assert inside.sum() > 3 * 1000
    error = (result.frames - frames)[0][inside].square().mean().sqrt()
    moved = (torch.roll(frames, 1, dims=3) - frames)[0][inside].square().mean().sqrt()
    assert error < moved / 5, (error, moved)
    outside = (result.mask[0] == 0).expand(3, -1, -1)
    assert torch.equal(result.frames[0][outside], frames[0][outside])


@pytest.mark.parametrize("size", [256, 1024])
@needs.newer_torch
def test_a_checkpoint_of_each_size_restores(
    size: int, detector: FaceDetector, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save({"g_ema": narrow_gpen(size).state_dict()}, path)
    net = load_network(path)
    frames = photo()
    faces = FaceRestorer(Restorer(net), detector)
    assert faces.restorer.size == size
    result = faces.restore(frames)
    assert torch.equal(result.frames, faces.restore(frames).frames)
    touched = (result.mask > 0)[:, None].expand_as(frames)
    assert torch.equal(result.frames[~touched], frames[~touched])
    assert (result.frames[touched] - frames[touched]).abs().mean() > 0.01
