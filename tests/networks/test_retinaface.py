"""RetinaFace: the layers against the reference outputs, priors and decoding against facexlib."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmarks import baselines
from gfp_core.networks import fast_layers, retinaface


def seeded(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """A RetinaFace whose batch norms have statistics that would show if they were lost."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    return net.eval()


@pytest.mark.parametrize("name", retinaface.NAMES)
def test_keys_and_shapes_are_the_official_ones(official_keys, name):
    official = official_keys[name.replace("retinaface", "RetinaFace")]
    state = retinaface.build(name).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == official


def test_reference_outputs(shared_dir):
    folder = shared_dir / "parity/RetinaFace_mobile025"
    expected = load_file(folder / "io.safetensors")
    net = retinaface.from_state_dict(load_file(folder / "weights.safetensors"))
    with torch.no_grad():
        outputs = net(expected["input"])
    for output, key in zip(outputs, ("loc", "conf", "landms"), strict=True):
        torch.testing.assert_close(output, expected[key], rtol=0, atol=1e-4)
    height, width = json.loads((folder / "meta.json").read_text())["tensors"]["input"]["shape"][2:]
    relative = retinaface.priors(height, width) / torch.tensor([width, height, width, height])
    torch.testing.assert_close(relative, expected["priors"])


@pytest.mark.parametrize("backbone", ["mobile0.25", "resnet50"])
@pytest.mark.parametrize("rows", [1, 70, 333])
def test_equal_to_facexlib(backbone, rows, monkeypatch):
    # Bands of few rows, as those of a large picture.
    monkeypatch.setattr(fast_layers, "BAND_BYTES", 2 * 101 * 16 * 40)
    net = seeded(baselines.build_detector(backbone))
    image = torch.randn(2, 3, rows, 101, generator=torch.Generator().manual_seed(1)) * 60
    folded = retinaface.from_state_dict(net.state_dict())
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        for ours, published in zip(folded(image), net.double()(image.double()), strict=True):
            scale = max(1.0, float(published.abs().max()))
            assert ours.shape == published.shape
            assert (ours - published).abs().max() < 1e-4 * scale


@pytest.mark.parametrize(
    ("name", "floats"), [("retinaface_mobile025", 4), ("retinaface_resnet50", 16)]
)
def test_a_large_picture_goes_in_bands(monkeypatch, name, floats):
    net = retinaface.from_state_dict(seeded(retinaface.build(name)).state_dict())
    image = torch.randn(1, 3, 203, 64)
    seen, finest = [], []
    last = net.body.stage1 if floats == 4 else net.body.layer2[0]
    last.register_forward_hook(lambda _, __, result: seen.append(result.shape[2] * 8))
    net.ssh1.register_forward_hook(lambda _, __, result: finest.append(result.shape[2]))
    with torch.inference_mode():
        whole = net(image)
        monkeypatch.setattr(fast_layers, "BAND_BYTES", 64 * 4 * floats * 24)
        banded = net(image)
    assert (seen, finest[:1]) == ([208, 48, *[72] * 6, 64, 40], [26])
    assert len(finest) > 2
    for one, other in zip(whole, banded, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(1.0, float(one.abs().max())))


def test_folded_state_dict_is_taken_as_it_is():
    folded = retinaface.from_state_dict(
        seeded(retinaface.build("retinaface_mobile025")).state_dict()
    )
    again = retinaface.from_state_dict(folded.state_dict())
    for key, tensor in folded.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", retinaface.NAMES)
def test_identified_by_keys(name):
    state = retinaface.build(name).state_dict()
    assert retinaface.identify(state) == name
    assert retinaface.identify({"conv_body_first.weight": torch.zeros(1)}) is None


def test_wrong_states_are_refused():
    state = retinaface.build("retinaface_mobile025").state_dict()
    with pytest.raises(ValueError, match="no detector"):
        retinaface.from_state_dict({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"fpn\.merge1\.0\.weight"):
        retinaface.from_state_dict({k: v for k, v in state.items() if k != "fpn.merge1.0.weight"})
    with pytest.raises(ValueError, match="another shape"):
        retinaface.from_state_dict({**state, "fpn.merge1.0.weight": torch.zeros(64, 64, 1, 1)})
    with pytest.raises(ValueError, match="unknown detector"):
        retinaface.build("yolo")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 97), (333, 40), (64, 32)])
def test_priors_are_facexlibs(height, width):
    from facexlib.detection.retinaface import generate_config
    from facexlib.detection.retinaface_utils import PriorBox

    expected = PriorBox(generate_config("resnet50"), image_size=(height, width)).forward()
    ours = retinaface.priors(height, width)
    scale = torch.tensor([width, height, width, height])
    torch.testing.assert_close(ours, expected * scale, rtol=1e-5, atol=1e-4)


def test_every_output_has_its_prior():
    net = retinaface.build("retinaface_mobile025").eval()
    for height, width in [(1, 1), (1, 97), (33, 65), (31, 8)]:
        with torch.no_grad():
            boxes, classes, landmarks = net(torch.zeros(1, 3, height, width))
        count = len(retinaface.priors(height, width))
        assert boxes.shape[1] == classes.shape[1] == landmarks.shape[1] == count


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), data=st.data())
def test_some_priors_are_those_of_all(height, width, data):
    count = retinaface.count_priors(height, width)
    index = torch.tensor(
        data.draw(st.lists(st.integers(0, count - 1), max_size=9)), dtype=torch.long
    )
    some = retinaface.priors_at(index, height, width)
    assert torch.equal(some, retinaface.priors(height, width)[index])


@pytest.mark.parametrize("name", retinaface.NAMES)
def test_without_the_finest_level_the_others_are_the_same(name):
    torch.manual_seed(0)
    net = retinaface.build(name).eval()
    frames = 20 * torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        whole, part = net(frames), net(frames, finest=False)
    count = 2 * (4 * 5 + 2 * 3)  # two priors in each cell of 16 and of 32 pixels
    for all_levels, coarse in zip(whole, part, strict=True):
        assert coarse.shape[1] == count < all_levels.shape[1]
        torch.testing.assert_close(coarse, all_levels[:, -count:])


def test_preprocess_leaves_frames_alone_and_survives_what_is_no_colour():
    frames = torch.rand(1, 4, 3, 2)
    frames[0, :, 0, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1])
    frames[0, :, 1, 0] = torch.tensor([1.5, -2.0, 0.5, 1])
    before = frames.clone()
    bgr = retinaface.preprocess(frames)
    assert torch.equal(frames.nan_to_num(7), before.nan_to_num(7))
    assert bgr.shape == (1, 3, 3, 2)
    mean = torch.tensor(retinaface.MEAN_BGR)
    torch.testing.assert_close(bgr[0, :, 0, 0], torch.tensor([0.0, 255, 0]) - mean)
    torch.testing.assert_close(bgr[0, :, 1, 0], torch.tensor([127.5, 0, 255]) - mean)
