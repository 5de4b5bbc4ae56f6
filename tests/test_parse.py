import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from facexlib.utils.misc import img2tensor
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from gfp_core.networks import parsing
from gfp_core.parse import FaceParser, FacePart, load_parser, parts_mask
from gfp_core.weights import WeightsError
from gfp_core.weights.settings import Settings
from gfp_core.weights.store import Weights
from tests import needs


class Quarters(nn.Module):
    """Takes dark pixels for hair and bright ones for skin; remembers what it was shown."""

    def __init__(self, fails_above: int = 100) -> None:
        super().__init__()
        self.shown: list[Tensor] = []
        self.fails_above = fails_above

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.fails_above:
            raise RuntimeError("CUDA out of memory")
        self.shown.append(x)
        scores = x.new_zeros(len(x), len(FacePart), *x.shape[2:])
        scores[:, FacePart.HAIR] = 1 - x.mean(1)
        scores[:, FacePart.SKIN] = x.mean(1)
        return scores


def halves(count: int, size: int) -> Tensor:
    """Crops dark in the upper half, bright below."""
    crops = torch.zeros(count, 3, size, size)
    crops[:, :, size // 2 :] = 1
    return crops


@pytest.mark.parametrize("size", [1, 32, 512, 768])
def test_labels_at_the_crops_size(size: int) -> None:
    net = Quarters()
    crops = halves(2, size)
    before = crops.clone()
    labels = FaceParser(net).parse(crops)
    assert labels.shape == (2, size, size)
    assert labels.dtype == torch.uint8
    assert all(x.shape[1:] == (3, 512, 512) for x in net.shown)
    assert (labels[:, : size // 2] == FacePart.HAIR).all()
    assert (labels[:, size // 2 :] == FacePart.SKIN).all()
    assert torch.equal(crops, before)


def test_what_is_no_colour_is_clipped() -> None:
    net = Quarters()
    crops = torch.full((1, 3, 512, 512), 7.0, dtype=torch.float64)
    crops[..., 0] = torch.nan
    crops[..., 1] = -1
    labels = FaceParser(net).parse(crops)
    assert net.shown[0].dtype == torch.float32
    assert (net.shown[0].amin(), net.shown[0].amax()) == (0, 1)
    assert (labels[..., :2] == FacePart.HAIR).all()
    assert (labels[..., 2:] == FacePart.SKIN).all()


def test_progress_and_cancelling() -> None:
    steps: list[tuple[int, int]] = []
    FaceParser(Quarters()).parse(halves(3, 8), progress=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    net = Quarters()
    with pytest.raises(KeyboardInterrupt):
        FaceParser(net).parse(halves(3, 8), progress=cancel)
    assert len(net.shown) == 1
    assert FaceParser(net).parse(halves(0, 8)).shape == (0, 8, 8)


def test_a_full_device_gets_fewer_at_a_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_eights(run, total, chunk, device, hint):  # type: ignore[no-untyped-def]
        return original(run, total, 8, device, hint)

    from gfp_core import parse

    original = parse.in_chunks
    monkeypatch.setattr(parse, "in_chunks", in_eights)
    net = Quarters(fails_above=2)
    labels = FaceParser(net).parse(halves(5, 8))
    assert [len(x) for x in net.shown] == [2, 2, 1]
    assert torch.equal(labels, FaceParser(Quarters()).parse(halves(5, 8)))
    assert "going on with 2 at a time" in caplog.text


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (torch.zeros(3, 8, 8), r"crops must be \(N, 3, S, S\), not \(3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), "crops must be"),
        (torch.zeros(1, 3, 8, 9), "crops must be"),
        (torch.zeros(1, 3, 0, 0), "at least a pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating point"),
    ],
)
def test_wrong_crops(crops: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceParser(Quarters()).parse(crops)


def test_mask_of_parts() -> None:
    labels = torch.arange(len(FacePart), dtype=torch.uint8).view(1, 1, -1)
    mask = parts_mask(labels, {FacePart.HAIR, 14})
    assert mask.dtype == torch.bool
    assert mask.nonzero()[:, 2].tolist() == [13, 14]
    assert not parts_mask(labels, ()).any()
    with pytest.raises(ValueError, match="99 is not a valid FacePart"):
        parts_mask(labels, [99])


def by_hand(net: nn.Module, name: str, image: NDArray[np.uint8]) -> Tensor:
    """What facexlib's inference scripts do with a (512, 512, 3) uint8 BGR picture."""
    constants = {
        "BiSeNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "ParseNet": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }
    x = img2tensor(image.astype("float32") / 255.0, bgr2rgb=True, float32=True)
    normalize(x, *constants[name], inplace=True)
    with torch.inference_mode():
        return net(x[None])[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", parsing.NAMES)
def test_equal_to_facexlib_run_by_hand(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = parsing.build(name).eval()
    image = skimage.data.astronaut()
    scores = by_hand(net, name, np.ascontiguousarray(image[..., ::-1]))
    if name == "ParseNet":  # untrained, it sees but one part: take each channel's mean away
        mean = scores.mean((0, 2, 3), keepdim=True)
        scores = scores - mean
        net.out_mask_conv.conv2d.bias.data -= mean.flatten()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    parser = load_parser(path=tmp_path / "net.pth", device="cpu")
    assert parser.net.name == name
    labels = parser.parse(torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None])
    expected = torch.tensor(parsing._CONVENTIONS[name].order)[scores.argmax(1)]
    assert len(expected.unique()) > 3
    assert (labels == expected).float().mean() > 0.9999  # but for ties


@needs.newer_torch
def test_a_parser_by_name(tmp_path: Path) -> None:
    torch.save(parsing.build("BiSeNet").state_dict(), tmp_path / "mine.pth")
    content = (tmp_path / "mine.pth").read_bytes()
    (tmp_path / "weights.toml").write_text(
        '[[weights]]\nname = "mine"\nrole = "parser"\narchitecture = "BiSeNet"\nfile = "mine.pth"\n'
        f'size = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        'licence = "MIT"\ncommercial = "no"\nreason = "a test"\n',
        encoding="utf-8",
    )
    settings = Settings(
        folders=(tmp_path,), catalogue_file=tmp_path / "weights.toml", downloads=False
    )
    weights = Weights(settings)
    parser = load_parser("mine", device="cpu", weights=weights)
    assert parser.net.name == "BiSeNet"
    assert parser.device.type == "cpu"
    with pytest.raises(WeightsError, match="lite is a restorer, not a parser"):
        load_parser("lite", weights=weights)
    with pytest.raises(WeightsError, match="bisenet: not on this machine"):
        load_parser(weights=weights)
    with pytest.raises(WeightsError, match=r"mine\.pth: the tensors are those of BiSeNet"):
        load_parser("parsenet", path=tmp_path / "mine.pth", weights=weights)
