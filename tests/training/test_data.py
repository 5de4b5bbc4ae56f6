"""Data of the training: split by person, augmentation, reproducible items."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfp_core.training.data import MARGIN, FacePairs, person_of, split_people, to_net

NAMES = [f"{n:03d}_{mood}.jpg" for n in range(24) for mood in ("neutral", "smiling")] + [
    f"female_{n:03d}.jpg" for n in range(24)
]


def test_person_of():
    assert person_of("012_neutral.jpg") == person_of("012_smiling.jpg") == "012"
    assert person_of("female_012.jpg") != person_of("female_013.jpg")


@given(st.permutations(NAMES), st.integers(2, 9))
def test_no_person_is_in_both_parts(names, every):
    training, validation = split_people(names, every)
    assert sorted(training + validation) == sorted(names)
    assert not set(map(person_of, training)) & set(map(person_of, validation))
    assert len({person_of(name) for name in validation}) == 48 // every


def test_items_are_reproducible_and_differ():
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, 64 + 2 * MARGIN, 64 + 2 * MARGIN, 3), dtype=np.uint8)
    pairs, again = (FacePairs(faces, 8, seed=5, size=64) for _ in range(2))
    other = FacePairs(faces, 8, seed=6, size=64)
    for i in range(8):
        assert all(torch.equal(a, b) for a, b in zip(pairs[i], again[i], strict=True))
    assert not torch.equal(pairs[0][0], pairs[1][0])
    assert not torch.equal(pairs[0][0], other[0][0])


def test_to_net_covers_the_range():
    assert to_net(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
