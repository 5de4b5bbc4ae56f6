"""What was learned, stored small and added to its base."""

import pytest
import torch

from gfp_core.weights import WeightsError
from gfp_core.weights.difference import (
    LEFT,
    RIGHT,
    Difference,
    compressed,
    hash_of,
)
from gfp_core.weights.inspection import inspect
from gfp_core.weights.loading import load_network, load_state_dict, read_difference
from gfp_core.weights.store import Weights


def tuned(state, seed=0, rank=2):
    """The state dict with a change of low rank in every matrix."""
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for name, tensor in state.items():
        if tensor.ndim >= 2 and min(tensor.shape[:2]) > 1:
            rows = tensor.shape[0]
            left = torch.randn(rows, rank, generator=generator)
            right = torch.randn(rank, tensor.numel() // rows, generator=generator)
            changed[name] = tensor + 0.01 * (left @ right).reshape(tensor.shape)
        else:
            changed[name] = tensor
    return changed


def save(base_state, base_file, path, **about):
    learned = tuned(base_state)
    difference = Difference(
        compressed(base_state, learned), base_file.name, hash_of(base_state), about
    )
    difference.save(path)
    return learned


def test_a_change_of_low_rank_is_kept_up_to_half_precision(base_state) -> None:
    learned = tuned(base_state)
    tensors = compressed(base_state, learned)
    assert any(name.endswith(LEFT) for name in tensors)
    back = Difference(tensors, "tiny", "").added_to(base_state)
    for name, tensor in learned.items():
        change = (tensor - base_state[name]).abs().max()
        assert (back[name] - tensor).abs().max() <= 2e-3 * change + 1e-7, name


def test_the_size_is_kept_to_and_the_largest_parts_go_first(base_state) -> None:
    learned = tuned(base_state, rank=8)

    def error(limit):
        tensors = compressed(base_state, learned, limit)
        assert sum(2 * tensor.numel() for tensor in tensors.values()) <= limit
        back = Difference(tensors, "tiny", "").added_to(base_state)
        return sum(float((back[name] - learned[name]).square().sum()) for name in learned)

    whole, half, none = error(10**7), error(30_000), error(6_000)
    assert whole < half < none


def test_nothing_changed_stores_nothing(base_state) -> None:
    assert compressed(base_state, base_state) == {}


def test_strength_0_is_the_base_bit_for_bit_and_half_lies_between(base_state) -> None:
    learned = tuned(base_state)
    difference = Difference(compressed(base_state, learned), "tiny", "")
    none, half, whole = (difference.added_to(base_state, share) for share in (0, 0.5, 1))
    for name, tensor in base_state.items():
        assert none[name] is tensor
        middle = (tensor.float() + whole[name].float()) / 2
        torch.testing.assert_close(half[name].float(), middle, rtol=1e-4, atol=1e-6)


def test_a_file_is_loaded_with_the_base_beside_it(base_state, base_file, tmp_path) -> None:
    path = tmp_path / "person.safetensors"
    learned = save(base_state, base_file, path, steps="7")
    difference = read_difference(path)
    assert difference is not None
    assert difference.about["steps"] == "7"
    assert read_difference(base_file) is None
    x = torch.rand(1, 3, 64, 64)
    nets = [load_network(path), load_network(base_file), load_network(path, person_strength=0)]
    nets[0].load_state_dict(nets[0].state_dict())
    with torch.inference_mode():
        with_person, base, none = (net(x) for net in nets)
        nets[1].load_state_dict(learned)
        as_learned = nets[1](x)
    assert torch.equal(base, none)
    assert not torch.equal(base, with_person)
    torch.testing.assert_close(with_person, as_learned, rtol=1e-2, atol=1e-3)


def test_the_same_content_gives_the_same_bytes(base_state, base_file, tmp_path) -> None:
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    for path in (first, second):
        save(base_state, base_file, path, steps="7", seed="0", photographs="2")
    assert first.read_bytes() == second.read_bytes()


def test_another_base_is_refused(base_state, base_file, tmp_path) -> None:
    path = tmp_path / "person.safetensors"
    save(
        {**base_state, "core.final_conv.bias": base_state["core.final_conv.bias"] + 1},
        base_file,
        path,
    )
    with pytest.raises(WeightsError, match=r"learned on other weights than the tiny\.safetensors"):
        load_network(path)


def test_a_missing_base_is_named(base_state, base_file, tmp_path) -> None:
    path = tmp_path / "person.safetensors"
    save(base_state, base_file, path)
    base_file.unlink()
    with pytest.raises(WeightsError, match=r"its base tiny\.safetensors is not here"):
        load_network(path)


def test_a_base_of_the_catalogue_is_found_by_its_name(tmp_path) -> None:
    state, _ = load_state_dict(Weights().get("lite"))
    name = "core.final_conv.bias"
    learned = {**state, name: state[name] + 0.5}
    path = tmp_path / "person.safetensors"
    Difference(compressed(state, learned), "lite", hash_of(state)).save(path)
    net = load_network(path)
    torch.testing.assert_close(net.state_dict()[name], learned[name], rtol=1e-3, atol=1e-3)


def test_inspecting_says_what_the_file_is(base_state, base_file, tmp_path) -> None:
    path = tmp_path / "person.safetensors"
    save(base_state, base_file, path, architecture="GFPGANLite")
    inspection = inspect(path)
    assert (inspection.role, inspection.architecture) == ("restorer", "GFPGANLite")
    assert "learned of a person, to be added to tiny.safetensors" in inspection.reason


@pytest.mark.parametrize("right", [torch.zeros(3, 4), torch.zeros(8), torch.zeros(1, 2, 4)])
def test_factors_that_do_not_fit_are_named(right):
    torn = Difference({"a" + LEFT: torch.zeros(4, 2), "a" + RIGHT: right}, "base", "0" * 64)
    with pytest.raises(WeightsError, match="factors of the person's 'a' do not fit"):
        torn.added_to({"a": torch.zeros(4, 4)})
