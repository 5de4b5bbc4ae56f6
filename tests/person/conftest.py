"""A network small enough to learn in a test, and photographs for it."""

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from gfp_core.networks.lite import GFPGANLite
from gfp_core.person.photographs import Portrait, Portraits, border_of
from gfp_core.weights.convert import write_safetensors

SIZE = 64


@pytest.fixture
def base_state():
    """The state dict of a tiny restorer."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = GFPGANLite(out_size=SIZE, num_style_feat=8, narrow=0.0625, channel_multiplier=1)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.fixture
def base_file(tmp_path, base_state):
    """Its file."""
    write_safetensors(base_state, {}, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def portraits():
    """One aligned face with its border."""
    side = SIZE + 2 * border_of(SIZE)
    face = cv2.resize(astronaut()[20:220, 130:330], (side, side), interpolation=cv2.INTER_AREA)
    return Portraits([Portrait("a.jpg", np.ascontiguousarray(face))], SIZE)
