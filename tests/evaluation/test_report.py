"""The table of metrics."""

import cv2
import pytest
import torch

from gfp_core.evaluation.report import evaluate, markdown
from gfp_core.evaluation.testset import save_pictures
from gfp_core.metrics.distances import psnr, ssim


@pytest.fixture
def truth():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_table_holds_every_picture_of_every_method(truth):
    close, far = truth * 0.99, truth * 0.5
    calls = []
    table = evaluate(
        truth,
        {"far": far, "close": close},
        {"PSNR ↑": psnr, "SSIM ↑": ssim},
        chunk=2,
        progress=lambda *call: calls.append(call),
    )
    assert list(table) == ["far", "close", "ground truth"]
    assert torch.allclose(table["far"]["PSNR ↑"], psnr(far, truth).double())
    assert table["close"]["SSIM ↑"].mean() > table["far"]["SSIM ↑"].mean()
    assert calls == [(i, 9) for i in range(1, 10)]
    lines = markdown(table).splitlines()
    assert lines[0] == "| | PSNR ↑ | SSIM ↑ |"
    assert lines[2] == (f"| far | {psnr(far, truth).mean():.2f} | {ssim(far, truth).mean():.4f} |")
    assert lines[-1] == "| ground truth | - | 1.00 |"


def test_pictures_are_clipped_as_saving_would(truth):
    table = evaluate(truth.round(), {"over": truth.round() * 3 - 1}, {"PSNR ↑": psnr})
    assert table["over"]["PSNR ↑"].isinf().all()


def test_pictures_of_another_size_are_refused(truth):
    with pytest.raises(ValueError, match="differ in shape"):
        evaluate(truth, {"small": truth[..., ::2, ::2]}, {"PSNR ↑": psnr})
    with pytest.raises(ValueError, match="ground truth"):
        evaluate(truth, {"ground truth": truth}, {"PSNR ↑": psnr})


def test_pictures_whose_names_differ_by_their_ending_alone_are_all_saved(tmp_path):
    images = torch.tensor([0.0, 0.2, 0.4, 1.0]).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    save_pictures(tmp_path, ["a.jpg", "A.png", "b.jpg", "a.tif"], images)
    saved = {file.stem: cv2.imread(str(file))[0, 0, 0] for file in tmp_path.iterdir()}
    assert saved == {"a": 0, "A-2": 51, "b": 102, "a-3": 255}
