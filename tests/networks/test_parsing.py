import pytest
import torch

from gfp_core.networks import parsing


@pytest.mark.parametrize("name", parsing.NAMES)
def test_a_state_dict_is_recognised_and_loaded_exactly(name: str) -> None:
    torch.manual_seed(0)
    trained = parsing.build(name).eval()
    loaded = parsing.from_state_dict(trained.state_dict())
    assert parsing.identify(trained.state_dict()) == name
    crop = torch.rand(1, 3, 64, 64)  # fully convolutional: any size will do
    with torch.inference_mode():
        scores = loaded(crop)[0]
        assert torch.equal(scores, trained(crop)[0])
    assert scores.shape == (1, parsing.CLASSES, 64, 64)


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
