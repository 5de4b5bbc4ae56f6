"""What all tests share."""

import ast
import lzma
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gfp_core.faces import Face, Faces, Progress
from gfp_core.geometry import TEMPLATE
from gfp_core.tensors import to_float

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: no more threads than cores
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of parity data and photographs beside the repository, or $GFP_SHARED."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = beside if beside.is_dir() else Path(os.environ.get("GFP_SHARED", ""))
    if not (folder / "parity").is_dir():
        pytest.skip("needs the folder ../shared, or GFP_SHARED")
    return folder


@pytest.fixture(scope="session")
def official_keys() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the tensors of official checkpoints of full size, by network and by name."""
    file = Path(__file__).parent / "parity" / "keys.tsv.xz"
    networks: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in lzma.decompress(file.read_bytes()).decode().splitlines():
        name, key, shape, _ = line.split("\t")
        networks.setdefault(name, {})[key] = ast.literal_eval(shape)
    return networks


class FakeDetector:
    """Sees one face in the middle of every frame whose top left pixel is more red than not."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def detect(self, frames: Tensor, *, progress: Progress | None = None, **options: Any) -> Faces:
        self.calls.append(options)
        batch, _, height, width = frames.shape
        faces = []
        for index in range(batch):
            if to_float(frames[index, 0, 0, 0]) > 0.5:
                side = min(height, width, 1200) / 2
                centre = np.array([width, height], np.float32) / 2
                box = (*(centre - side / 2).tolist(), *(centre + side / 2).tolist())
                landmarks = (TEMPLATE / 512 - 0.5) * side + centre
                faces.append(Face(index, box, 0.75, landmarks.astype(np.float32)))
            if progress is not None:
                progress(index + 1, batch)
        return Faces(tuple(faces), ((height, width),) * batch)


class FakeRestorer:
    """Turns every crop into its negative."""

    size = 64
    name = "fake"

    def __init__(self) -> None:
        self.fidelities: list[float | None] = []

    def restore(
        self,
        faces: Faces,
        *,
        fidelity: float | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Faces:
        self.fidelities.append(fidelity)
        assert faces.crops is not None
        if progress is not None:
            progress(len(faces), len(faces))
        return replace(faces, restored=1 - faces.crops)


@pytest.fixture
def fake_restorer() -> Any:
    """A `FaceRestorer` without networks: faces are where the top left pixel is red."""
    from gfp_core.pipeline import FaceRestorer

    return FaceRestorer(FakeRestorer(), FakeDetector())  # type: ignore[arg-type]


class FakeEmbedder:
    """Goes by the mean colour: red, green and blue pictures are 90 degrees apart."""

    def embed(self, crops: Tensor) -> Tensor:
        return torch.nn.functional.normalize(crops.mean(dim=(2, 3)), dim=1)


@pytest.fixture
def fake_embedder() -> Any:
    """An embedder without a network."""
    return FakeEmbedder()


@pytest.fixture(scope="session")
def face_api() -> Path:
    """The archive of vladmandic/face-api in the folder $GFP_EVALUATION_WEIGHTS."""
    folder = os.environ.get("GFP_EVALUATION_WEIGHTS")
    found = sorted(Path(folder).glob("*face-api*.tgz")) if folder else []
    if not found:
        pytest.skip("GFP_EVALUATION_WEIGHTS names no folder with *face-api*.tgz")
    return found[0]
