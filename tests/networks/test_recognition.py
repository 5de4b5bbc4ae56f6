import pytest
import torch
from torch import Tensor

from gfp_core.networks import parsing, retinaface
from gfp_core.networks.gfpgan import GFPGANBilinear, GFPGANClean
from gfp_core.networks.recognition import Unrecognized, recognize

SMALL = {"out_size": 16, "num_style_feat": 4, "narrow": 0.015625, "num_mlp": 1}


def test_a_restorer() -> None:
    state = GFPGANClean(**SMALL).state_dict()
    found = recognize(state)
    assert (found.role, found.architecture, found.size) == ("restorer", "GFPGANClean", 16)
    assert found.takes == "RGB in [-1, 1]"
    assert found.hyperparameters["narrow"] == 0.015625
    assert found.twins == ()
    assert "'conv_body_first.weight'" in found.reason
    assert torch.equal(found.net.final_linear.weight, state["final_linear.weight"])


def test_a_network_that_is_known_and_not_run_is_named() -> None:
    state = {**GFPGANClean(**SMALL).state_dict(), "final_extend_linear.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"^this is GFPGAN-1024.* take gfpgan-1\.4"):
        recognize(state)


def test_a_restorer_with_a_twin() -> None:
    state = GFPGANBilinear(**SMALL).state_dict()
    found = recognize(state)
    assert (found.architecture, found.twins) == ("GFPGANv1", ("GFPGANBilinear",))
    assert "those of GFPGANBilinear; taken for the first of them" in found.reason
    assert recognize(state, "GFPGANBilinear").architecture == "GFPGANBilinear"


@pytest.mark.parametrize("name", ["retinaface_mobile025", "retinaface_resnet50"])
def test_a_detector(name: str) -> None:
    found = recognize(retinaface.build(name).state_dict())
    assert (found.role, found.architecture) == ("detector", name)
    assert found.hyperparameters == {"folded": False}
    net = retinaface.build(name)
    assert found.parameters == sum(p.numel() for p in net.parameters())
    retinaface.fold_batch_norm(net)
    folded = recognize(net.state_dict())
    assert folded.hyperparameters == {"folded": True}
    assert folded.parameters == found.parameters


@pytest.mark.parametrize("name", parsing.NAMES)
def test_a_parser(name: str) -> None:
    found = recognize(parsing.build(name).state_dict())
    assert (found.role, found.architecture) == ("parser", name)


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key not in names}


@pytest.mark.slow
def test_what_is_not_recognized() -> None:
    gan = GFPGANClean(**SMALL).state_dict()
    with pytest.raises(
        ValueError, match=r"nearest is GFPGANClean, but .* missing: 'final_linear.b"
    ):
        recognize(without(gan, "final_linear.bias"))
    with pytest.raises(
        ValueError, match=r"nearest is GFPGANClean, of whose 285 .* it lacks 'conv_b"
    ):
        recognize(without(gan, "conv_body_first.weight"))
    face = retinaface.build("retinaface_mobile025").state_dict()
    with pytest.raises(
        ValueError, match="nearest is retinaface_mobile025, of whose 300 tensors 299"
    ):
        recognize(without(face, "ssh1.conv7X7_2.0.weight"))
    parser = parsing.build("BiSeNet").state_dict()
    with pytest.raises(ValueError, match="nearest is BiSeNet, of whose 191 tensors 190 are there"):
        recognize(without(parser, "cp.resnet.conv1.weight"))
    with pytest.raises(Unrecognized, match="has any of its tensors: 'a'"):
        recognize({"a": torch.zeros(1)})


def test_what_is_not_what_it_is_said_to_be() -> None:
    gan = GFPGANClean(**SMALL).state_dict()
    with pytest.raises(ValueError, match="its tensors are those of no detector"):
        recognize(gan, "retinaface_mobile025")
    with pytest.raises(ValueError, match="nearest is GFPGANv1, but it is not a state dict"):
        recognize(gan, "GFPGANv1")
    with pytest.raises(ValueError, match="this version has no network Unheard"):
        recognize(gan, "Unheard")
