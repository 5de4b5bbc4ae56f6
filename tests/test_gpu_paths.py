"""What no GPU has run, checked without one: fake tensors know devices, types and strides."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gfp_core.networks import retinaface
from gfp_core.networks.fast import fast_form
from gfp_core.tensors import clamp01
from tests import needs
from tests.parity.networks import MORE, NETWORKS, network, small_restorer

CUDA = torch.device("cuda", 0)


def to_fake_cuda(net: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The network with its tensors on a GPU that is not there; it is changed."""
    for module in net.modules():
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    fake = mode.from_tensor(tensor).detach().to(CUDA)
                    is_parameter = tensors is module._parameters
                    tensors[key] = nn.Parameter(fake, requires_grad=False) if is_parameter else fake
    return net


@pytest.fixture
def mode() -> Iterator[FakeTensorMode]:
    """Fake tensors, and an autocast that believes in the GPU."""
    with ExitStack() as stack:
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", bool))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_: True))
        yield stack.enter_context(FakeTensorMode())


@pytest.mark.parametrize("name", [*NETWORKS, *MORE, "PMRF"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@needs.newer_torch
def test_restorers_stay_on_the_gpu(
    name: str, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    net, size = small_restorer(name)
    fast = fast_form(net)
    mode = request.getfixturevalue("mode")
    to_fake_cuda(fast, mode)
    kinds: set[torch.dtype] = set()

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            assert output.device == CUDA
            kinds.add(output.dtype)

    for module in fast.modules():
        module.register_forward_hook(look)
    crops = torch.rand(3, 3, size, size)  # crops are in main memory
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        result = fast(clamp01(crops.to(CUDA, torch.float32)) * 2 - 1).float()
    assert result.device == CUDA
    assert result.shape == crops.shape
    assert dtype in kinds  # the convolutions ran in it
    assert kinds <= {dtype, torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@needs.newer_torch
def test_gfpgans_features_keep_channels_last_on_the_gpu(
    dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    fast = fast_form(network("GFPGANv1Clean"))
    mode = request.getfixturevalue("mode")
    to_fake_cuda(fast, mode)
    outputs: list[Tensor] = []
    for module in fast.modules():
        if module is not fast:
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        fast(torch.rand(2, 3, 32, 32, device=CUDA))
    maps = [output for output in outputs if isinstance(output, Tensor) and output.ndim == 4]
    assert len(maps) > 20
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)


@pytest.mark.parametrize("backbone", retinaface.NAMES)
@pytest.mark.parametrize("finest", [True, False])
@needs.newer_torch
def test_the_detector_stays_on_the_gpu(
    backbone: str, finest: bool, request: pytest.FixtureRequest
) -> None:
    net = retinaface.build(backbone).eval()
    mode = request.getfixturevalue("mode")
    to_fake_cuda(net, mode)
    with torch.no_grad():
        outputs = net(
            torch.rand(2, 4, 97, 130, device=CUDA), finest=finest, prepare=retinaface.preprocess
        )
    assert {output.device for output in outputs} == {CUDA}
    assert {output.dtype for output in outputs} == {torch.float32}


@pytest.mark.parametrize("name", ["GFPGANv1Clean", "lite"])
@needs.newer_torch
def test_the_form_for_gpus_is_one_graph(name: str) -> None:
    """What torch.compile and CUDA graphs need: no step that looks at numbers."""
    net, size = small_restorer(name)
    fast = fast_form(net)
    for module in fast.modules():
        if hasattr(module, "modulation") and isinstance(module.modulation, str):
            module.modulation = "features"
    x = torch.rand(2, 3, size, size) * 2 - 1
    exported = torch.export.export(fast, (x,), strict=False).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), fast(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*NETWORKS, *MORE, "PMRF"])
def test_shapes_need_no_numbers(name: str) -> None:
    net, size = small_restorer(name)
    fast = fast_form(net).to("meta")
    with torch.no_grad():
        result = fast(torch.empty(2, 3, size, size, device="meta"))
    assert result.shape == (2, 3, size, size)
