import json
from pathlib import Path

import pytest
import torch

from gfp_core.cli import main
from gfp_core.evaluation.gpu_report import gpu_report
from gfp_core.restore import Restorer
from tests.parity.networks import network


@pytest.mark.slow
def test_the_command_writes_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    arguments = ["bench", "--gpu-report", str(path), "--device", "cpu", "--rounds", "1"]
    assert main(arguments) == 0
    report = json.loads(path.read_text())
    assert report["network"] == "GFPGANLite"
    assert report["detector"]["correct"]
    fp32, bf16 = report["precisions"]["fp32"], report["precisions"]["bf16"]
    assert fp32["correct"]
    assert fp32["largest difference"] < 1e-4  # the same device
    assert 0 < bf16["largest difference"] < 0.4
    assert [row["faces"] for row in fp32["batches"]] == [1, 2]
    assert all(row["seconds a face"] > 0 for row in fp32["batches"])
    assert "need CUDA" in report["graphs"]["error"]


class Off(torch.nn.Module):
    """A network whose copies, as on another device, are off by something."""

    def __init__(self, net: torch.nn.Module, offset: float = 0.0) -> None:
        super().__init__()
        self.net, self.offset = net, offset

    def __deepcopy__(self, _: object) -> "Off":
        return Off(self.net, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.net(x) + self.offset
        return result


def test_a_wrong_picture_is_called_wrong_and_an_error_is_reported() -> None:
    restorer = Restorer(network("GFPGANv1Clean"))
    restorer.net, restorer.size = Off(restorer.net), 32
    report = gpu_report(restorer, torch.device("cpu"), batches=(1,), repetitions=1)
    assert not report["precisions"]["fp32"]["correct"]
    assert report["precisions"]["bf16"]["correct"]  # to its own limit
    assert "on a GPU only" in report["compile"]["error"]
