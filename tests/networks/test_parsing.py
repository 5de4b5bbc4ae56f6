import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize

from gfp_core.networks import parsing
from gfp_core.networks.parsing import FacePart

# What facexlib's inference scripts normalize with, and the parts in the order of their comments.
CONVENTIONS = {
    "BiSeNet": (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip "
        "neck neck_l cloth hair hat",
    ),
    "ParseNet": (
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair "
        "hat ear_r neck_l neck cloth",
    ),
}
PARTS = {
    "background": FacePart.BACKGROUND,
    "skin": FacePart.SKIN,
    "nose": FacePart.NOSE,
    "eye_g": FacePart.GLASSES,
    "l_eye": FacePart.LEFT_EYE,
    "r_eye": FacePart.RIGHT_EYE,
    "l_brow": FacePart.LEFT_BROW,
    "r_brow": FacePart.RIGHT_BROW,
    "l_ear": FacePart.LEFT_EAR,
    "r_ear": FacePart.RIGHT_EAR,
    "mouth": FacePart.MOUTH,
    "u_lip": FacePart.UPPER_LIP,
    "l_lip": FacePart.LOWER_LIP,
    "hair": FacePart.HAIR,
    "hat": FacePart.HAT,
    "ear_r": FacePart.EARRING,
    "neck_l": FacePart.NECKLACE,
    "neck": FacePart.NECK,
    "cloth": FacePart.CLOTHES,
}


@pytest.mark.parametrize("name", parsing.NAMES)
def test_as_facexlib_says_by_hand(name: str) -> None:
    torch.manual_seed(0)
    trained = parsing.build(name).eval()
    loaded = parsing.from_state_dict(trained.state_dict())
    assert parsing.identify(trained.state_dict()) == loaded.name == name
    crop = torch.rand(1, 3, 64, 64)  # fully convolutional: any size will do
    (mean, deviation), order = CONVENTIONS[name]
    with torch.inference_mode():
        scores = loaded(crop)
        by_hand = trained(normalize(crop, mean, deviation))[0]
    assert scores.shape == (1, parsing.CLASSES, 64, 64)
    channels = {label: channel for channel, label in enumerate(order.split())}
    for label, part in PARTS.items():
        np.testing.assert_allclose(scores[0, part], by_hand[0, channels[label]], atol=1e-6)


def test_what_is_wrong_is_said() -> None:
    state = dict(parsing.build("ParseNet").state_dict())
    with pytest.raises(ValueError, match="those of ParseNet"):
        parsing.from_state_dict(state, "BiSeNet")
    del state["out_img_conv.conv2d.bias"]
    with pytest.raises(ValueError, match=r"1 of \d+ tensors missing: 'out_img_conv.conv2d.bias'"):
        parsing.from_state_dict(state)
    with pytest.raises(ValueError, match="no parsing network"):
        parsing.from_state_dict({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="choose one of BiSeNet, ParseNet"):
        parsing.build("SegNet")
