"""The networks compute what reference implementations computed: see ``make.py``."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfp_core.networks.fast import fast_form
from tests.parity.networks import FULL_SIZE, GRID, NETWORKS, network, picture

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


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_forms_are_exact_to_2e_4_of_their_range(name: str) -> None:
    expected = load_file(HERE / "full_size.safetensors")[name]
    extent = expected.max() - expected.min()
    assert expected.std() > 0.5
    net, x = network(name), picture(512)
    fast = fast_form(net)
    for forward, face in (
        (net, x),
        (fast, x),
        (fast, x.contiguous(memory_format=torch.channels_last)),
    ):
        with torch.inference_mode():
            result = forward(face)[:, :, ::GRID, ::GRID]
        assert (result - expected).abs().max() <= 2e-4 * extent
