"""Faces of two people: only where they go together, and never of the validation part."""

import cv2
import numpy as np
import pytest

from gfp_core.training.mixing import FEATURES, add_mixed_faces, mix_feature
from gfp_core.training.pack import FacePack, PackWriter
from gfp_core.training.regions import regions_of

SIDE = 128
REGIONS = regions_of(np.array([[44, 50], [84, 50], [64, 72], [50, 92], [78, 92]], np.float32), SIDE)


def face(level=150, eyes=60, mouth=90, texture=0):
    """A plain face: skin, two eyes and a mouth; ``texture`` is the seed of its noise."""
    picture = np.full((SIDE, SIDE, 3), level, np.uint8)
    for x, y, _ in REGIONS[:2]:
        cv2.circle(picture, (int(x), int(y)), 5, (eyes,) * 3, -1)
    x, y, _ = REGIONS[2]
    cv2.ellipse(picture, (int(x), int(y)), (12, 5), 0, 0, 360, (mouth,) * 3, -1)
    noise = np.random.default_rng(texture).normal(0, 1, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def at(picture, region):
    """Mean level about the center of a region."""
    x, y = REGIONS[region, :2].astype(int)
    return picture[y - 2 : y + 3, x - 2 : x + 3].mean()


@pytest.mark.parametrize(("feature", "changed"), [("eyes", [0, 1]), ("mouth", [2])])
def test_a_feature_comes_from_the_other_and_the_rest_stays(feature, changed):
    own, other = face(), face(eyes=20, mouth=30)
    before = own.copy()
    mixed = mix_feature(own, REGIONS, other, REGIONS, feature)
    assert mixed is not None
    assert np.array_equal(own, before)
    for region in range(3):
        source = other if region in changed else own
        assert at(mixed, region) == pytest.approx(at(source, region), abs=4)
    assert np.array_equal(mixed[:20], own[:20])
    assert np.array_equal(mixed[-10:], own[-10:])


def test_another_light_is_taken_over_by_the_seam():
    other = face(level=165, eyes=20)
    mixed = mix_feature(face(), REGIONS, other, REGIONS, "eyes")
    assert mixed is not None
    skin = mixed[40:60, 60:68].mean()  # between the eyes
    assert skin == pytest.approx(150, abs=3)


@pytest.mark.parametrize("why", ["skin", "turned", "glasses", "edge"])
def test_faces_that_do_not_go_together_are_not_mixed(why):
    other, regions, own_regions = face(), REGIONS.copy(), REGIONS.copy()
    if why == "skin":
        other = face(level=70)
    elif why == "turned":
        regions[1, 0] -= 12
    elif why == "glasses":
        cv2.line(other, (0, 50), (SIDE, 50), (20, 20, 20), 8)
    else:
        own_regions[:, 1] -= 40
    assert mix_feature(face(), own_regions, other, regions, "eyes") is None


@pytest.fixture
def people(tmp_path):
    with PackWriter(tmp_path, size=SIDE - 16, margin=8, quality=101) as writer:
        for number in range(6):
            writer.add(
                face(eyes=20 + 8 * number, mouth=60 + 5 * number, texture=number),
                name=f"{number // 2}_{number}.jpg",
                person=str(number // 2),
                split="validation" if number >= 4 else "training",
                regions=REGIONS,
                weight=1.0 + number,
            )
    return tmp_path


def test_mixed_faces_are_added_for_training_and_are_the_same_every_time(people):
    before = FacePack(people)
    pictures = [before.picture(i) for i in range(6)]
    assert add_mixed_faces(people, 5, quality=101, seed=4) == 5
    pack = FacePack(people)
    assert len(pack) == 11
    assert [pack.faces[i].name for i in range(6)] == [row.name for row in before]
    assert all(np.array_equal(pack.picture(i), pictures[i]) for i in range(6))
    added = [pack.faces[i] for i in range(6, 11)]
    assert all(row.split == "training" for row in added)
    assert {row.person for row in added} <= {"0 + 1", "1 + 0"}  # two people, no validation face
    assert all(any(feature in row.name for feature in FEATURES) for row in added)
    assert all(row.weight == before.faces[int(row.name[2])].weight for row in added)


def test_too_few_people_are_said(people, caplog):
    pack = FacePack(people)
    with PackWriter(people, size=pack.size, margin=pack.margin, quality=101) as writer:
        writer.copy(pack.faces[0], pack.coded(0))
        writer.copy(pack.faces[1], pack.coded(1))
    assert add_mixed_faces(people, 2) == 0
    assert "only 0 of 2 faces could be mixed" in caplog.text
