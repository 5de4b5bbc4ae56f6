"""Embeddings with a small net made here; with the real one where its weights are."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from gfp_core.embed import FaceEmbedder, load_embedder
from gfp_core.faces import Face
from gfp_core.geometry import angles
from gfp_core.networks.face_descriptor import FaceDescriptor
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import BUILT_IN, read_catalogue
from gfp_core.weights.packages import read_member
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights


@pytest.fixture(scope="module")
def embedder():
    torch.manual_seed(0)
    return FaceEmbedder(FaceDescriptor())


def test_embeddings_have_length_one_and_do_not_depend_on_the_others(embedder):
    crops = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 3 - 1
    crops[1, 0, 5, 5] = torch.nan
    before = crops.clone()
    found = embedder.embed(crops)
    assert found.shape == (3, 128)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))
    assert torch.allclose(found[1:2], embedder.embed(crops[1:2]), atol=1e-5)
    assert torch.equal(crops.nan_to_num(), before.nan_to_num())
    assert embedder.embed(crops[:0]).shape == (0, 128)
    with pytest.raises(ValueError, match="crops must be"):
        embedder.embed(crops[:, :, :50])


def test_angles():
    x, y = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 2, 0]]), torch.tensor([1.0, 1, 0])
    assert torch.allclose(angles(x, y), torch.full((3,), 45.0))
    assert torch.equal(angles(x, x), torch.zeros(3))


def test_a_picture_of_somebody_is_described_by_its_largest_face(fake_restorer, embedder):
    with_face = torch.rand(3, 96, 80, generator=torch.Generator().manual_seed(1))
    with_face[:, 0, 0] = 1
    detector = fake_restorer.detector
    assert embedder.describe([with_face, with_face[:, :64]], detector).shape == (2, 128)
    nobody = torch.zeros(3, 50, 50)
    with pytest.raises(ValueError, match="no face found in picture 1 of reference"):
        embedder.describe([with_face, nobody], detector)
    with pytest.raises(ValueError, match="at least one picture"):
        embedder.describe([], detector)


def test_a_false_detection_that_is_larger_does_not_stop_the_reference(fake_restorer, embedder):
    class Mistaken:
        """Takes the whole picture for a face, too, with landmarks on one line."""

        def detect(self, frames):
            faces = fake_restorer.detector.detect(frames)
            line = np.linspace(5, 60, 10, dtype=np.float32).reshape(5, 2)
            false = Face(0, (0.0, 0.0, 79.0, 95.0), 0.9, line)
            return replace(faces, faces=(false, *faces.faces))

    picture = torch.rand(3, 96, 80, generator=torch.Generator().manual_seed(1))
    picture[:, 0, 0] = 1
    expected = embedder.describe([picture], fake_restorer.detector)
    assert torch.equal(embedder.describe([picture], Mistaken()), expected)
    with pytest.raises(ValueError, match="no face found in picture 0 of reference"):
        embedder.describe([torch.zeros(3, 96, 80)], Mistaken())


def test_without_weights_the_message_says_how_to_get_them(tmp_path):
    weights = Weights(Settings((tmp_path,), downloads=False))
    with pytest.raises(WeightsError, match="gfp weights get face-descriptor") as caught:
        load_embedder(weights=weights)
    assert str(tmp_path) in str(caught.value)  # where to put the file by hand
    assert "face_recognition_model.bin" in str(caught.value)
    with pytest.raises(WeightsError, match="lite is a restorer, not an embedder"):
        load_embedder("lite", weights=weights)
    (tmp_path / "face_recognition_model.bin").write_bytes(b"no net")
    with pytest.raises(WeightsError, match=r"face_recognition_model\.bin .*truncated"):
        load_embedder(tmp_path / "face_recognition_model.bin")


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{", b"\xff\xfe\xff", b"[]", b"{}", b"[1]", b'[{"weights": [{"name": "a"}]}]'],
)
def test_a_damaged_manifest_is_one_clear_error(tmp_path, manifest):
    (tmp_path / "face_recognition_model.bin").write_bytes(bytes(100))
    (tmp_path / "face_recognition_model-weights_manifest.json").write_bytes(manifest)
    with pytest.raises(WeightsError, match="face_recognition_model"):
        load_embedder(tmp_path / "face_recognition_model.bin")


def test_the_published_file_is_that_of_the_catalogue_and_enough_alone(face_api, tmp_path):
    data = read_member(face_api, "package/model/face_recognition_model.bin", "").read()
    entry = read_catalogue(BUILT_IN).find("face-descriptor")
    assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    (tmp_path / "renamed.bin").write_bytes(data)  # found by its content
    weights = Weights(Settings((tmp_path,), downloads=False))
    found = load_embedder(weights=weights, device="cpu")
    assert weights.verify("face-descriptor") == tmp_path / "renamed.bin"
    whole = load_embedder(face_api, device="cpu")
    crops = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.embed(crops), whole.embed(crops))
