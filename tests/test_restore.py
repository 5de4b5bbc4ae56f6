import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfp_core.faces import Face, Faces
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.restore import Engine, Restorer

SIZE = 16


class Negative(nn.Module):
    """Turns a picture into its negative, and remembers how it was called."""

    out_size = SIZE

    def __init__(self, hook: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(-1.0))
        self.hook = hook
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        if self.hook is not None:
            self.hook(x)
        return x * self.factor


def faces_with(crops: Tensor | None, count: int | None = None) -> Faces:
    number = len(crops) if count is None and crops is not None else count or 0
    face = Face(0, (0.0, 0.0, 9.0, 9.0), 0.9, np.zeros((5, 2), np.float32))
    return Faces(faces=(face,) * number, frame_sizes=((32, 32),), crops=crops)


def crops_of(count: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def restored_by(net: nn.Module, crops: Tensor, **arguments: object) -> Tensor:
    restored = Restorer(net).restore(faces_with(crops), **arguments).restored  # type: ignore[arg-type]
    assert restored is not None
    return restored


def test_the_network_sees_minus_one_to_one_and_gives_zero_to_one() -> None:
    seen = []
    net = Negative(lambda x: seen.append(x.clone()))
    crops = crops_of(2)
    restored = restored_by(net, crops)
    assert torch.equal(torch.cat(seen), crops * 2 - 1)
    torch.testing.assert_close(restored, 1 - crops)
    assert restored.dtype == torch.float32


def test_output_is_clamped() -> None:
    net = Negative()
    nn.init.constant_(net.factor, 5.0)
    restored = restored_by(net, crops_of(1))
    assert restored.min() == 0
    assert restored.max() == 1


def test_input_outside_the_range_is_clamped_and_left_as_it_was() -> None:
    crops = crops_of(1) * 3 - 1
    before = crops.clone()
    torch.testing.assert_close(restored_by(Negative(), crops), 1 - crops.clamp(0, 1))
    assert torch.equal(crops, before)


def test_the_rest_of_the_faces_is_kept() -> None:
    faces = faces_with(crops_of(2))
    result = Restorer(Negative()).restore(faces)
    assert result.faces is faces.faces
    assert result.crops is faces.crops
    assert faces.restored is None


def test_the_result_is_an_ordinary_tensor() -> None:
    restored = restored_by(Negative(), crops_of(1))
    assert not restored.is_inference()
    assert not restored.requires_grad
    restored += 1  # an inference tensor would refuse


@pytest.mark.parametrize(("chunk", "calls"), [(None, [1] * 5), (2, [2, 2, 1]), (9, [5])])
def test_chunks(chunk: int | None, calls: list[int]) -> None:
    net, crops = Negative(), crops_of(5)
    steps: list[tuple[int, int]] = []
    restored = restored_by(
        net, crops, chunk=chunk, progress=lambda done, total: steps.append((done, total))
    )
    torch.testing.assert_close(restored, 1 - crops)
    assert net.calls == calls
    assert steps == [(sum(calls[: i + 1]), 5) for i in range(len(calls))]


def test_a_real_network_is_deterministic_in_chunks_of_any_size() -> None:
    torch.manual_seed(0)
    net = GFPGANClean(out_size=SIZE, num_style_feat=8, narrow=0.0625, num_mlp=1)
    net.stylegan_decoder.style_conv1.weight.data.fill_(0.5)
    net.train()
    crops = crops_of(5)
    results = [restored_by(net, crops, chunk=chunk) for chunk in (1, 2, 5)]
    assert not net.training
    assert torch.equal(results[1], restored_by(net, crops, chunk=2))
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-5)
    assert results[0].std() > 0.05


def test_no_faces() -> None:
    net = Negative()
    for faces in (faces_with(None, 0), faces_with(crops_of(0))):
        result = Restorer(net).restore(faces)
        assert result.restored is not None
        assert result.restored.shape == (0, 3, SIZE, SIZE)
    assert net.calls == []


def test_wrong_input_is_refused() -> None:
    restorer = Restorer(Negative())
    with pytest.raises(ValueError, match="align them"):
        restorer.restore(faces_with(None, 2))
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) do not fit Negative.*align with size=16"):
        restorer.restore(faces_with(torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        restorer.restore(faces_with(crops_of(1)), chunk=0)
    with pytest.raises(ValueError, match="no restorer"):
        Restorer(nn.Identity())
    with pytest.raises(ValueError, match="'fp8'"):
        Restorer(Negative(), precision="fp8")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------- fidelity


class Faithful(nn.Module):
    """As much of the picture as the fidelity says."""

    out_size = SIZE
    default_fidelity = 0.25

    def forward(self, x: Tensor, fidelity: float = default_fidelity) -> Tensor:
        return x * fidelity


@pytest.mark.parametrize(("given", "used"), [(None, 0.25), (0.0, 0.0), (0.7, 0.7), (1, 1.0)])
def test_fidelity(given: float | None, used: float, caplog: pytest.LogCaptureFixture) -> None:
    crops = crops_of(3)
    assert Restorer(Faithful()).has_fidelity
    restored = restored_by(Faithful(), crops, fidelity=given, chunk=2)
    torch.testing.assert_close(restored, ((crops * 2 - 1) * used + 1) / 2)
    assert not caplog.records


@pytest.mark.parametrize("net", [Faithful(), Negative()])
@pytest.mark.parametrize("fidelity", [-0.01, 1.5, float("nan")])
def test_a_fidelity_out_of_range_is_refused(net: nn.Module, fidelity: float) -> None:
    with pytest.raises(ValueError, match="fidelity must lie between 0 and 1"):
        restored_by(net, crops_of(1), fidelity=fidelity)


def test_a_fidelity_without_effect_is_said_once_and_the_face_restored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crops = crops_of(3)
    assert not Restorer(Negative()).has_fidelity
    torch.testing.assert_close(restored_by(Negative(), crops, fidelity=0.5), 1 - crops)
    assert [record.getMessage() for record in caplog.records] == [
        "Negative has no fidelity to set: 0.5 has no effect"
    ]


def test_an_error_in_the_network_never_becomes_an_unrestored_face() -> None:
    class Refuses(Faithful):
        def forward(self, x: Tensor, w: float = 0.5) -> Tensor:  # type: ignore[override]
            return x

    with pytest.raises(TypeError, match="fidelity"):
        restored_by(Refuses(), crops_of(1), fidelity=0.5)


# -------------------------------------------------------------------------------- out of memory


def out_of_memory_above(limit: int, error: Exception) -> Callable[[Tensor], None]:
    def hook(x: Tensor) -> None:
        if len(x) > limit:
            raise error

    return hook


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_chunk(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    net, crops = Negative(out_of_memory_above(2, error)), crops_of(7)
    steps: list[int] = []
    with caplog.at_level(logging.WARNING):
        restored = restored_by(net, crops, chunk=7, progress=lambda done, _: steps.append(done))
    torch.testing.assert_close(restored, 1 - crops)
    assert net.calls == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert [record.args for record in caplog.records] == [
        (torch.device("cpu"), 3),
        (torch.device("cpu"), 1),
    ]


def test_out_of_memory_with_one_face_is_an_error() -> None:
    net = Negative(out_of_memory_above(0, torch.cuda.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        restored_by(net, crops_of(3), chunk=2)
    assert net.calls == [2, 1]


def test_other_errors_come_through_at_once() -> None:
    net = Negative(out_of_memory_above(0, RuntimeError("size mismatch")))
    with pytest.raises(RuntimeError, match="size mismatch"):
        restored_by(net, crops_of(4), chunk=4)
    assert net.calls == [4]


# --------------------------------------------------------------------------------------- cancel


class CancelledError(Exception):
    pass


@pytest.mark.parametrize("error", [CancelledError(), RuntimeError("out of memory, said the user")])
def test_progress_may_cancel(error: Exception) -> None:
    def cancel(done: int, total: int) -> None:
        if done >= 2:
            raise error

    net = Negative()
    with pytest.raises(type(error)):
        restored_by(net, crops_of(6), chunk=2, progress=cancel)
    assert net.calls == [2]


# ------------------------------------------------------------------------------------ precision


def overflow_in_half(x: Tensor) -> None:
    if torch.is_autocast_enabled("cpu"):
        x.fill_(float("inf"))


def test_overflow_is_repeated_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    net, crops = Negative(overflow_in_half), crops_of(2)
    with caplog.at_level(logging.WARNING):
        result = Restorer(net, precision="bf16").restore(faces_with(crops), chunk=2)
    assert result.restored is not None
    torch.testing.assert_close(result.restored, 1 - crops)
    assert net.calls == [2, 2]
    assert "Negative overflows in torch.bfloat16: faces 0 to 1" in caplog.text


def test_a_network_that_gives_nan_is_an_error() -> None:
    net = Negative()
    nn.init.constant_(net.factor, float("nan"))
    with pytest.raises(RuntimeError, match="Negative gives NaN or infinity for faces 0 to 0"):
        restored_by(net, crops_of(1))


def test_pixels_that_are_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    crops = crops_of(1)
    crops[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    with caplog.at_level(logging.WARNING):
        restored = restored_by(Negative(), crops)
    torch.testing.assert_close(restored[0, 0, 0, :3], torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(restored[0, 1:], 1 - crops[0, 1:])
    assert "NaN or infinity" in caplog.text
    assert crops[0, 0, 0, 0].isnan()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.02), ("bf16", 0.1)])
def test_half_precision_is_near_and_only_when_asked_for(precision: str, tolerance: float) -> None:
    torch.manual_seed(0)
    net = GFPGANClean(out_size=SIZE, num_style_feat=8, narrow=0.0625, num_mlp=1)
    faces = faces_with(crops_of(2))
    exact = Restorer(net).restore(faces).restored
    half = Restorer(net, precision=precision).restore(faces).restored  # type: ignore[arg-type]
    assert exact is not None
    assert half is not None
    assert torch.equal(exact, Restorer(net, precision="fp32").restore(faces).restored)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < tolerance
    assert next(net.parameters()).dtype == torch.float32


def test_runs_where_the_network_is() -> None:
    restorer = Restorer(Negative(), device="meta")
    assert restorer.device.type == "meta"
    restorer.net.to_empty(device="cpu")
    assert restorer.device.type == "cpu"
    assert restorer.name == "Negative"
    assert restorer.size == SIZE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "auto"])
def test_cuda(precision: str) -> None:
    torch.manual_seed(0)
    net = GFPGANClean(out_size=64, num_style_feat=32, narrow=0.125, num_mlp=1)
    crops = torch.rand(5, 3, 64, 64)
    expected = Restorer(net).restore(faces_with(crops)).restored
    restorer = Restorer(net, device="cuda", precision=precision)  # type: ignore[arg-type]
    first = restorer.restore(faces_with(crops), chunk=2).restored
    assert first is not None
    assert first.device.type == "cpu"
    assert torch.equal(first, restorer.restore(faces_with(crops), chunk=2).restored)
    tolerance = 1e-4 if precision == "fp32" else 0.02
    torch.testing.assert_close(first, expected, rtol=0, atol=tolerance)


def noisy_net() -> GFPGANClean:
    torch.manual_seed(0)
    net = GFPGANClean(out_size=64, num_style_feat=16, channel_multiplier=1, narrow=0.05)
    for layer in (net.stylegan_decoder.style_conv1, *net.stylegan_decoder.style_convs):
        nn.init.constant_(layer.weight, 0.5)
    return net


def test_a_seed_draws_noise_anew_and_the_same_for_every_face() -> None:
    restorer = Restorer(noisy_net())
    assert restorer.has_noise
    crops = torch.rand(1, 3, 64, 64).repeat(3, 1, 1, 1)
    stored = restorer.net.state_dict()["stylegan_decoder.noises.noise0"].clone()
    plain, one, again, other = (
        restorer.restore(faces_with(crops), seed=seed, chunk=2).restored for seed in (None, 1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)
    torch.testing.assert_close(one[0], one[2])  # of another chunk
    assert torch.equal(restorer.net.state_dict()["stylegan_decoder.noises.noise0"], stored)


def test_a_network_without_noise_ignores_the_seed() -> None:
    assert not Restorer(Negative()).has_noise
    crops = crops_of(1)
    assert torch.equal(restored_by(Negative(), crops, seed=5), restored_by(Negative(), crops))


def test_finished_faces_are_shown_before_progress_is_told() -> None:
    events: list[object] = []
    restored = restored_by(
        Negative(),
        crops_of(3),
        chunk=2,
        preview=lambda crops: events.append(crops.clone()),
        progress=lambda done, total: events.append((done, total)),
    )
    assert events[1::2] == [(2, 3), (3, 3)]
    assert torch.equal(torch.cat(events[::2]), restored)  # type: ignore[arg-type]


def test_a_network_may_say_its_memory() -> None:
    net = Negative()
    assert Restorer(net).bytes_per_face == 800_000_000 * SIZE**2 // 512**2
    net.bytes_per_face = 5  # type: ignore[assignment]
    assert Restorer(net).bytes_per_face == 5


# -------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_threads_with_and_without_a_seed_do_not_disturb_each_other(engine: Engine) -> None:
    restorer = Restorer(noisy_net(), engine=engine)
    faces = faces_with(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)))

    def run(seed: int | None) -> Tensor:
        restored = restorer.restore(faces, seed=seed).restored
        assert restored is not None
        return restored

    seeds = [None, 1, 2, 3]
    alone = {seed: run(seed) for seed in seeds}
    before = {name: buffer.clone() for name, buffer in restorer.net.named_buffers()}
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, seeds * 15))
    for seed, result in zip(seeds * 15, results, strict=True):
        assert torch.equal(result, alone[seed]), seed
    for name, buffer in restorer.net.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert torch.equal(run(None), alone[None])


@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_noise_of_a_seed_is_what_the_network_gives_with_it_stored(engine: Engine) -> None:
    crops = torch.rand(1, 3, 64, 64)
    seeded = Restorer(noisy_net(), engine=engine).restore(faces_with(crops), seed=4).restored
    net = noisy_net()
    generator = torch.Generator().manual_seed(4)
    for name, noise in net.named_buffers():
        if "noises.noise" in name:
            noise.copy_(torch.randn(noise.shape, generator=generator))
    stored = Restorer(net, engine=engine).restore(faces_with(crops)).restored
    assert torch.equal(seeded, stored)
