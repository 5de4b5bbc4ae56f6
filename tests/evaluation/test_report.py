"""The table and the picture sheet."""

import pytest
import torch

from gfp_core.evaluation.metrics import psnr, ssim
from gfp_core.evaluation.report import evaluate, markdown, sheet


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


def test_sheet_shows_the_chosen_pictures_in_their_columns(truth):
    flat = torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 8, 8) / 10
    page = sheet({"input": truth, "flat": flat}, [3, 1], size=32)
    assert page.shape == (3, 24 + 2 * 32, 64)
    assert torch.allclose(page[:, 24:56, 32:], torch.full((3, 32, 32), 0.3))
    assert torch.allclose(page[:, 56:, 32:], torch.full((3, 32, 32), 0.1))
    assert page[:, :24].min() < 0.5 < page[:, :24].max()
    with pytest.raises(ValueError, match="at least one"):
        sheet({}, [0])
