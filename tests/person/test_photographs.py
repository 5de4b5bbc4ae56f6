"""Which photographs are learned from, and which are left out with the reason."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE
from gfp_core.person.photographs import gather

FACE = (224, 112)  # the middle of the astronaut's face


class Detector:
    """Sees faces of given centers and sides, the same in every picture."""

    def __init__(self, *faces):
        self.faces = faces

    def detect(self, frames, **options):
        height, width = frames.shape[2:]
        found = []
        for (x, y), side in self.faces:
            corner = np.array([x, y], np.float32) - side / 2
            landmarks = (TEMPLATE / 512 * side + corner).astype(np.float32)
            found.append(Face(0, (*corner, *(corner + side)), 0.9, landmarks))
        return Faces(tuple(found), ((height, width),))


class Embedder:
    """Tells people apart by how red they are."""

    def embed(self, crops):
        red = crops.mean(dim=(2, 3))[:, 0]
        return torch.stack([red.cos(), red.sin()], dim=1) if len(crops) else torch.empty(0, 2)


def photo(factor=1.0, blur=0):
    frames = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    if blur:
        small = torch.nn.functional.interpolate(frames, scale_factor=1 / blur, mode="area")
        frames = torch.nn.functional.interpolate(small, frames.shape[2:], mode="bilinear")
    return frames * torch.tensor([factor, 1.0, 1.0]).view(1, 3, 1, 1)


def test_a_sharp_face_is_cut_with_its_border() -> None:
    portraits = gather([("a", photo())], Detector((FACE, 160)), 128)
    assert len(portraits) == 1
    assert portraits.portraits[0].face.shape == (160, 160, 3)
    assert portraits.embedding is None


@pytest.mark.parametrize(
    ("frames", "side", "reason"),
    [(photo(), 40, "too small: 40 pixels"), (photo(blur=12), 160, "too blurred")],
)
def test_poor_photographs_are_left_out_with_the_reason(frames, side, reason) -> None:
    with pytest.raises(ValueError, match=rf"no photograph can be learned from \(b: .*{reason}"):
        gather([("b", frames)], Detector((FACE, side)), 128)


def test_a_photograph_without_a_face_is_left_out_and_the_others_count(caplog) -> None:
    class Sees(Detector):
        def detect(self, frames, **options):
            faces = super().detect(frames)
            return faces if frames.mean() > 0.1 else faces.select([])

    photographs = [("dark", photo() * 0), ("good", photo())]
    portraits = gather(photographs, Sees((FACE, 160)), 128)
    assert [each.name for each in portraits.portraits] == ["good"]
    assert "dark: left out: no face found" in caplog.text


def test_another_person_is_refused_by_likeness_to_the_first() -> None:
    photographs = [("a", photo()), ("b", photo(factor=0.05)), ("c", photo(factor=0.95))]
    embedder = Embedder()
    embedder.embed = lambda crops: torch.nn.functional.normalize(
        crops.mean(dim=(2, 3))[:, :2] - torch.tensor([0.2, 0.0]), dim=1
    )
    portraits = gather(photographs, Detector((FACE, 160)), 128, embedder=embedder)
    assert [each.name for each in portraits.portraits] == ["a", "c"]
    assert "another person" in portraits.refused["b"]
    assert portraits.embedding is not None
    assert portraits.embedding.norm() == pytest.approx(1)


@pytest.mark.parametrize("again", ["the same file", "mirrored", "saved again", "smaller"])
def test_the_same_photograph_counts_once(again) -> None:
    frames = photo()
    second = {
        "the same file": frames,
        "mirrored": frames.flip(3),
        "saved again": (frames * 16).round() / 16,
        "smaller": torch.nn.functional.interpolate(frames, scale_factor=0.75, mode="area"),
    }[again]
    mirrored = ((512 - FACE[0], FACE[1]), 160)
    smaller = ((FACE[0] * 0.75, FACE[1] * 0.75), 120)
    centers = {"mirrored": mirrored, "smaller": smaller}

    class Sees(Detector):
        def detect(self, frames, **options):
            faces = Detector(centers.get(again, (FACE, 160)) if frames is second else (FACE, 160))
            return faces.detect(frames)

    portraits = gather([("a", frames), ("b", second)], Sees(), 128)
    assert [each.name for each in portraits.portraits] == ["a"]
    assert portraits.refused["b"] == "it is the same picture as a"


def test_two_photographs_of_one_sitting_both_count() -> None:
    frames = photo()
    other = frames.clone()
    other[..., 120:150, 205:245] = other[..., 120:150, 205:245].flip(2)  # the mouth
    other = other * 0.95
    assert len(gather([("a", frames), ("b", other)], Detector((FACE, 160)), 128)) == 2


def test_the_face_is_selected_by_its_number() -> None:
    detector = Detector((FACE, 160), ((400, 380), 130))
    largest = gather([("a", photo())], detector, 128).portraits[0].face
    chosen = gather([("a", photo())], detector, 128, faces="0").portraits[0].face
    assert np.array_equal(largest, chosen)
    with pytest.raises(ValueError, match="no face number"):
        gather([("a", photo())], detector, 128, faces="5")


def test_too_many_photographs_are_refused() -> None:
    photographs = ((str(number), photo()) for number in range(21))
    with pytest.raises(ValueError, match="more than 20"):
        gather(photographs, Detector((FACE, 160)), 128)
