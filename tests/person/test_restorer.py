"""Whose face gets what was learned, and whose the base."""

import dataclasses
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.options import RestoreOptions
from gfp_core.person.restorer import PersonRestorer
from gfp_core.pipeline import FaceRestorer, find_restorer
from gfp_core.recipe import network_hashes
from gfp_core.restore import Restorer
from gfp_core.scale.shipping import pack, unpack
from gfp_core.weights.difference import Difference, compressed, hash_of
from gfp_core.weights.store import Weights


class Adding(torch.nn.Module):
    """Adds a share to every pixel; the base adds nothing."""

    out_size = 64

    def __init__(self, share):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, x):
        return x + self.share


class Embedder:
    """The red of a crop says who it is."""

    dimensions = 2

    def embed(self, crops):
        red = crops.mean(dim=(2, 3))[:, 0]
        return torch.stack([red.cos(), red.sin()], dim=1)


def faces(*frames):
    """Faces of these frames, the first dark, the next lighter."""
    crops = torch.full((len(frames), 3, 64, 64), 0.2)
    for index in range(len(frames)):
        crops[index] += 0.3 * index
    landmarks = (TEMPLATE / 8).astype(np.float32)
    listed = tuple(Face(frame, (0, 0, 64, 64), 0.9, landmarks) for frame in frames)
    return Faces(listed, ((64, 64),) * (max(frames) + 1), crops=crops)


def gains(restored):
    return [round(float(gain), 3) for gain in (restored.restored - restored.crops).mean((1, 2, 3))]


def person(embedding=None):
    return PersonRestorer(lambda strength: Adding(0.4 * strength), embedding)


def test_all_faces_get_what_was_learned_unless_some_are_named() -> None:
    assert gains(person().restore(faces(0, 0))) == [0.2, 0.2]
    calls = []
    restored = person().restore(
        faces(0, 0, 0),
        is_person=[False, True, False],
        person_strength=0.5,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert gains(restored) == [0.0, 0.1, 0.0]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_the_provider_is_that_of_both_networks() -> None:
    restorer = PersonRestorer(lambda strength: Adding(0.4 * strength), provider="openvino")
    assert (restorer.provider, restorer.base.provider) == ("openvino", "openvino")
    assert restorer._at(0.5).provider == "openvino"


def test_strength_0_is_the_base_bit_for_bit() -> None:
    base = Restorer(Adding(0.0)).restore(faces(0, 0)).restored
    assert torch.equal(person().restore(faces(0, 0), person_strength=0.0).restored, base)
    with pytest.raises(ValueError, match="person_strength"):
        person().restore(faces(0), person_strength=1.5)


def test_threads_share_a_restorer_each_with_its_own_strength() -> None:
    restorer, interval = person(), sys.getswitchinterval()

    def work(strength):
        return {
            tuple(gains(restorer.restore(faces(0), person_strength=strength))) for _ in range(400)
        }

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(work, [0.25, 0.5, 0.75, 1.0]))
        assert results == [{(0.05,)}, {(0.1,)}, {(0.15,)}, {(0.2,)}]
    finally:
        sys.setswitchinterval(interval)


def test_no_faces_are_no_error() -> None:
    empty = faces(0).select([])
    assert person().restore(empty).restored.shape[0] == 0


@pytest.mark.parametrize(
    ("numbers", "expected"), [("all", [0.2, 0.2]), ("1", [0.0, 0.2]), ("none", [0.0, 0.0])]
)
def test_the_person_is_chosen_by_number(numbers, expected) -> None:
    options = RestoreOptions.of(person_faces=numbers, color="restorer")
    assert gains(FaceRestorer(person()).restore_faces(faces(0, 0), options)) == expected


def test_without_an_embedder_only_a_face_alone_is_the_person(caplog) -> None:
    options = RestoreOptions.of(color="restorer")
    restored = FaceRestorer(person()).restore_faces(faces(0, 0, 1), options)
    assert gains(restored) == [0.0, 0.0, 0.2]
    assert "person_faces" in caplog.text


def test_with_an_embedder_the_face_alike_is_the_person() -> None:
    options = RestoreOptions.of(color="restorer", people_limit=5.0)
    who = Embedder().embed(torch.full((1, 3, 4, 4), 0.5))[0]
    together = FaceRestorer(person(who), embedder=Embedder())
    assert gains(together.restore_faces(faces(0, 0), options)) == [0.0, 0.2]


def test_another_embedder_than_the_persons_tells_nobody_apart(caplog) -> None:
    options = RestoreOptions.of(color="restorer")
    who = torch.tensor([0.6, 0.8, 0.0])  # of three numbers; the embedder gives two
    restored = FaceRestorer(person(who), embedder=Embedder()).restore_faces(faces(0, 0), options)
    assert gains(restored) == [0.0, 0.0]
    assert "get an embedder" in caplog.text


EMBEDDING = torch.tensor([0.6, 0.8])


@pytest.fixture
def person_file(base_state, base_file, tmp_path):
    """What was learned, beside its base."""
    name = "core.final_conv.bias"
    learned = {**base_state, name: base_state[name] + 0.1}
    difference = Difference(compressed(base_state, learned), base_file.name, hash_of(base_state))
    dataclasses.replace(difference, embedding=EMBEDDING).save(tmp_path / "person.safetensors")
    return tmp_path / "person.safetensors"


def test_a_persons_file_loads_as_a_persons_restorer(person_file, base_file) -> None:
    restorer = find_restorer(person_file)
    assert isinstance(restorer, PersonRestorer)
    torch.testing.assert_close(restorer.embedding, EMBEDDING)
    assert type(find_restorer(base_file)) is Restorer


def test_a_persons_base_and_embedder_go_to_the_machines_of_a_cluster(
    person_file, base_file, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    embedder = tmp_path / "who.safetensors"
    embedder.write_bytes(b"an embedder")
    options = RestoreOptions.of(model=person_file, embedder=embedder)
    parcels = pack(options, Weights(), lambda data: data)
    for file in (person_file, base_file, embedder):
        file.unlink()
    there, settings = unpack(options, parcels, lambda data: data)
    assert isinstance(
        find_restorer(there.networks.model, weights=Weights(settings)), PersonRestorer
    )
    assert Path(there.networks.embedder).read_bytes() == b"an embedder"
    by_number = options.replace(person_faces="0")
    assert len(parcels) == 3  # nothing to compare where a number says who it is
    person_file.write_bytes(parcels[0].content)
    base_file.write_bytes(parcels[1].content)
    assert len(pack(by_number, Weights(), lambda data: data)) == 2


def test_what_tells_a_person_from_others_counts_among_what_made_a_result(
    person_file, tmp_path, monkeypatch
) -> None:
    """Who gets an embedder, as the log advises, gets other results by the same command."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options, weights = RestoreOptions.of(model=person_file), Weights()
    without = network_hashes(options, weights, people=False)
    assert "embedder" not in without
    embedder = tmp_path / "who.safetensors"
    embedder.write_bytes(b"an embedder")
    options = options.replace(embedder=embedder)
    hashes = network_hashes(options, weights, people=False)
    assert hashes == {**without, "embedder": hashlib.sha256(b"an embedder").hexdigest()}
    assert network_hashes(options.replace(person_faces="all"), weights, people=False) == without
