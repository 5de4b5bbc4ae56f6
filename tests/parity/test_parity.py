"""The networks compute what reference implementations computed: see ``make.py``."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.parity.networks import NETWORKS, network, picture

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", NETWORKS)
def test_output_equals_the_stored_one(name: str) -> None:
    expected = load_file(HERE / "outputs.safetensors")[name]
    assert expected.std() > 0.5
    with torch.inference_mode():
        result = network(name)(picture(expected.shape[-1]))
    error = (result - expected).abs()
    scale = max(1.0, expected.abs().max().item())
    assert error.max().item() <= 1e-4 * scale
    assert error.mean().item() <= 1e-5 * scale
