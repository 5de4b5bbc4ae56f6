"""Faces and recipes small enough for a test."""

import numpy as np
import pytest
import torch
from torch import nn

from gfp_core.training.feature_nets import VGGFeatures
from gfp_core.training.objective import Objective
from gfp_core.training.pack import FacePack, PackWriter
from gfp_core.training.processes import Processes
from gfp_core.training.recipes import load_recipe
from gfp_core.training.regions import regions_of

SIZE = 32
_GAN = f"{{ out_size = {SIZE}, num_style_feat = 8, narrow = 0.0625, channel_multiplier = 1 }}"
_CODEC = (
    "{ ch = 32, ch_mult = [1, 1], num_res_blocks = 1, z_channels = 8, embed_dim = 8, "
    "n_embed = 16, heads = 1 }"
)
MODELS = {
    "gfpgan": _GAN,
    "lite": _GAN,
    "lite-wild": _GAN,
    "pose-varied": _GAN,
    "restoreformer-dictionary": _CODEC,
    "restoreformer": _CODEC,
}
JUDGES = {_GAN: "{ narrow = 0.0625 }", _CODEC: "{ ndf = 8, n_layers = 2 }"}
"""By model."""
LATER = {
    "lite": ("adversarial", "component", "component_style", "identity"),
    "lite-wild": ("adversarial",),
}
"""Terms that come late, by recipe."""
WINDOWED = ["discriminator.args={ ndf = 4, n_layers = 1, plain = true }", "data.window=16"]


def tiny_recipe(name, *changes, values="paper", steps=4):
    """A recipe of the library, narrow, at 32 px, its later stages from the second step on."""
    return load_recipe(
        name,
        values,
        [
            f"model.args={MODELS[name]}",
            "model.frozen=[]",
            f"discriminator.args={JUDGES[MODELS[name]]}",
            "discriminator.r1_every=2",
            "loss.component_width=0.125",
            f"data.size={SIZE}",
            "data.batch=2",
            "data.workers=0",
            f"schedule.steps={steps}",
            "run.precision=float32",
            "run.log_every=1",
            "run.sheet_every=1000",
            "run.sheet_faces=1",
            *(f"loss.{term}.start=1" for term in LATER.get(name, ())),
            *(WINDOWED if name == "lite-wild" else ()),
            *changes,
        ],
    )


@pytest.fixture(scope="session")
def pack_folder(tmp_path_factory):
    """Two faces for training and one for validation: blots at the places of eyes and mouth."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    side = SIZE + 8
    landmarks = np.array([[12, 15], [20, 15], [16, 20], [13, 24], [19, 24]], np.float32) + 4
    with PackWriter(folder, size=SIZE, margin=4, quality=101) as writer:
        for i in range(3):
            face = np.full((side, side, 3), rng.integers(90, 200, 3), np.uint8)
            for x, y in landmarks.astype(int):
                face[y - 2 : y + 2, x - 2 : x + 2] = rng.integers(0, 256, 3)
            writer.add(
                face,
                name=f"{i}.png",
                person=str(i),
                split="validation" if i == 2 else "training",
                regions=regions_of(landmarks, face_size=SIZE),
            )
    return folder


@pytest.fixture
def pack(pack_folder):
    return FacePack(pack_folder)


@pytest.fixture
def alone():
    return Processes(torch.device("cpu"))


class TinyIdentity(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images):
        return self.net(images).flatten(1)

    def activations(self, images):
        return [self.net(images)]


def tiny_objective(recipe):
    """Its losses by small random nets."""
    torch.manual_seed(1)
    perceptual = VGGFeatures(narrow=0.0625)
    return Objective(recipe, perceptual=perceptual, identity=TinyIdentity())
