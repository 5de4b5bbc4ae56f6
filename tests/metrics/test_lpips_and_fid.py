"""LPIPS, FID and landmark distance against other implementations and hand-written formulas."""

import logging

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torch import nn

from gfp_core.detect import load_detector
from gfp_core.evaluation.report import add_fid, available_metrics, csv_text, evaluate, markdown
from gfp_core.metrics.fid import FIDInception, frechet_distance
from gfp_core.metrics.landmarks import LandmarkDistance
from gfp_core.metrics.lpips import LPIPS
from tests import needs


# The authors' package asks torchvision in its old words.
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_lpips_is_that_of_its_authors(trunk):
    """With the trunk's weights random, which are a download, and the authors' heads."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    theirs = lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
    heads = {f"lin{i}.model.1.weight": theirs.lins[i].model[1].weight.data for i in range(5)}
    convolutions = [m for m in theirs.net.modules() if isinstance(m, nn.Conv2d)]
    from torchvision import models

    net = models.vgg16() if trunk == "vgg" else models.alexnet()
    own = [m for m in net.features if isinstance(m, nn.Conv2d)]
    for mine, other in zip(own, convolutions, strict=True):
        mine.load_state_dict(other.state_dict())
    ours = LPIPS.of(trunk, net.state_dict(), heads)
    a, b = torch.rand(2, 3, 64, 72), torch.rand(2, 3, 64, 72)
    with torch.no_grad():
        expected = theirs(a * 2 - 1, b * 2 - 1).flatten()
        assert torch.allclose(ours(a, b), expected, rtol=1e-4)
        assert torch.allclose(ours(a, a), torch.zeros(2))


def test_frechet_distance_is_that_of_scipy():
    scipy = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 6)), rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 1
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        first + second - 2 * scipy.sqrtm(first @ second).real
    )
    found = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert found == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(a)) == pytest.approx(0, abs=1e-8)
    # Fewer pictures than features: covariances without an inverse.
    few = frechet_distance(torch.from_numpy(a[:3]), torch.from_numpy(b[:3]))
    assert np.isfinite(few)
    with pytest.raises(ValueError, match="cannot compare"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))


@pytest.mark.slow
def test_inception_pools_as_the_published_one():
    """Blocks are compared with pooling written by hand, on random weights."""
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    state = inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    ).state_dict()
    net = FIDInception.of(state)
    with torch.no_grad():
        features = net(torch.rand(1, 3, 64, 64))
        assert features.shape == (1, 2048)
        x = torch.rand(1, 192, 6, 6)
        found = net.net.Mixed_5b(x)[:, -32:]
        pooled = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        assert torch.allclose(found, net.net.Mixed_5b.branch_pool.behind(pooled), atol=1e-5)
        y = torch.rand(1, 2048, 4, 4)
        expected = net.net.Mixed_7c.block.branch_pool(nn.functional.max_pool2d(y, 3, 1, 1))
        assert torch.allclose(net.net.Mixed_7c(y)[:, -192:], expected)


class Means(nn.Module):
    """Stands in for the Inception net."""

    def forward(self, images):
        return images.mean((2, 3))


def test_fid_is_one_number_a_method():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 3, 16, 16, generator=generator)
    methods = {"near": truth * 0.99, "far": truth * 0.3}
    table = evaluate(truth, methods, {"mean": lambda a, _: a.mean((1, 2, 3))})
    add_fid(table, {**methods, "ground truth": truth}, truth, Means(), chunk=4)
    values = {name: row["FID ↓"].item() for name, row in table.items()}
    assert values["ground truth"] == pytest.approx(0, abs=1e-9)
    assert 1e-6 < values["near"] < values["far"]
    assert markdown(table).splitlines()[0] == "| | mean | FID ↓ |"
    lines = csv_text(table, list("abcdef")).splitlines()
    assert lines[0] == "method,picture,mean,FID"
    assert len(lines) == 1 + 3 * 7
    assert lines[1].startswith("near,a,0.")
    assert lines[1].endswith(",")
    assert lines[7].startswith("near,mean,")
    assert float(lines[7].split(",")[3]) == pytest.approx(values["near"])


def test_landmark_distance_is_the_shift_of_the_face(caplog):
    needs.default_detector()
    measure = LandmarkDistance(load_detector())
    face = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    moved = torch.roll(face, (3, 4), (2, 3))
    assert measure(face, face).item() == 0
    assert measure(face, moved).item() == pytest.approx(5, abs=0.7)
    with caplog.at_level(logging.WARNING):
        both = measure(torch.cat([face, face * 0]), torch.cat([face, face]))
    assert both[0] == 0
    assert both[1].isnan()
    assert "no face found in 1 of 2" in caplog.text


def test_metrics_without_their_nets_are_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        metrics, left_out = available_metrics(truth=True, mobilenet=tmp_path / "none")
    assert list(metrics) == ["PSNR ↑", "SSIM ↑", "NIQE ↓"]
    for what in ("LPIPS", "MobileNetV2 distance", "descriptor distance", "Deg", "landmark"):
        assert any(line.startswith(what) for line in left_out)
    assert "LPIPS is left out" in caplog.text
    metrics, left_out = available_metrics(truth=False)
    assert (list(metrics), left_out) == (["NIQE ↓"], [])


def test_a_table_without_truth_has_no_row_for_it():
    images = torch.rand(3, 3, 16, 16)
    table = evaluate(
        None, {"input": images, "other": images / 2}, {"m": lambda a, b: a.mean((1, 2, 3))}
    )
    assert list(table) == ["input", "other"]
    assert len(csv_text(table, ["a", "b", "c"]).splitlines()) == 9
