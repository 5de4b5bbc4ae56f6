"""The identity guard, with an embedder that goes by colour."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from gfp_core.faces import Face, Faces
from gfp_core.identity import compare, guard


def restored(*turns: float) -> Faces:
    """Red faces, and what a restorer made of them: turned towards green by so many degrees."""
    face = Face(0, (0.0, 0.0, 9.0, 9.0), 0.9, np.zeros((5, 2), np.float32))
    angle = torch.deg2rad(torch.tensor(turns))
    colors = torch.stack([angle.cos(), angle.sin(), torch.zeros(len(turns))], dim=1)
    crops = torch.tensor([1.0, 0, 0]).expand(len(turns), 3)
    size = (1, 1, 4, 4)
    return Faces(
        (face,) * len(turns),
        ((10, 10),),
        crops[:, :, None, None].repeat(size),
        colors[:, :, None, None].repeat(size),
    )


def test_strength_falls_smoothly_from_the_limit_down_to_none(fake_embedder):
    turns = [0.0, 5.0, 20.0, 22.5, 25.0, 27.5, 30.0, 80.0]
    faces = restored(*turns)
    result = compare(faces, fake_embedder, limit=20)
    kept = guard(faces, fake_embedder, limit=20)
    assert result.angles.tolist() == pytest.approx(turns, abs=0.01)
    assert result.strengths.tolist() == pytest.approx(
        [1, 1, 1, 0.84375, 0.5, 0.15625, 0, 0], abs=1e-3
    )
    for i, share in enumerate(result.strengths):
        blend = faces.crops[i] + share * (faces.restored[i] - faces.crops[i])
        assert torch.allclose(kept.restored[i], blend, atol=1e-6)
    assert torch.equal(kept.restored[:3], faces.restored[:3])
    assert torch.equal(kept.restored[-1], faces.crops[-1])


def test_nothing_is_changed_in_place_and_what_was_lowered_is_said(fake_embedder, caplog):
    faces = restored(3.0, 50.0)
    before = faces.restored.clone()
    with caplog.at_level(logging.INFO):
        guard(faces, fake_embedder)
    assert torch.equal(faces.restored, before)
    assert "50.0 degrees at most, 26.5 on average" in caplog.text
    assert "frame 0 no longer looks like itself (50.0 degrees; the limit is 22)" in caplog.text


def test_faces_that_stay_themselves_are_the_same_object(fake_embedder):
    faces = restored(3.0, 9.0)
    assert guard(faces, fake_embedder) is faces


def test_restored_crops_in_half_precision_stay_so(fake_embedder):
    faces = restored(3.0, 50.0)
    guarded = guard(replace(faces, restored=faces.restored.half()), fake_embedder).restored
    assert guarded.dtype == torch.float16
    torch.testing.assert_close(guarded[1].float(), faces.crops[1])


def test_what_cannot_be_compared_is_refused(fake_embedder):
    bare = Faces(restored(1.0).faces, ((10, 10),))
    with pytest.raises(ValueError, match="restore them first"):
        guard(bare, fake_embedder)
    with pytest.raises(ValueError, match="above 0 degrees"):
        guard(restored(1.0), fake_embedder, limit=0)
    assert len(compare(bare.select([]), fake_embedder).angles) == 0


@pytest.mark.slow
def test_another_person_is_refused_as_identity_drift(face_api):
    """What looks like somebody else does not get into the picture; the model's own work does."""
    data = pytest.importorskip("skimage.data")
    from gfp_core.pipeline import FaceRestorer

    model = FaceRestorer.load(embedder=face_api, device="cpu")
    assert model.embedder is not None
    frame = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    result = model.restore(frame, identity_limit=22, auto_strength=False)
    assert result.angles[0] < 15
    assert result.strengths[0] == 1
    # The mouth where the eyes are: no restorer's work, but nobody's face.
    flipped = result.faces.restored.flip(2)
    wrong = replace(result.faces, restored=flipped)
    other = compare(wrong, model.embedder)
    assert other.angles[0] > 26
    assert other.strengths[0] < 0.5
    assert torch.equal(guard(wrong, model.embedder, limit=15).restored, wrong.crops)
