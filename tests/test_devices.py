"""Chunks that halve when memory runs out."""

import logging
from types import SimpleNamespace

import pytest
import torch

from gfp_core.devices import in_chunks, in_threads, is_out_of_memory, keep_freed_memory, pick

CPU = torch.device("cpu")


def limited(most: int, calls: list[tuple[int, int]]):
    """A function over a range that has memory for ``most`` items."""

    def run(start: int, stop: int) -> list[int]:
        calls.append((start, stop))
        if stop - start > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return list(range(start, stop))

    return run


def test_halves_until_it_fits_and_says_so(caplog):
    calls: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        results = list(in_chunks(limited(2, calls), 7, 8, CPU, "buy memory"))
    assert [item for result in results for item in result] == list(range(7))
    assert calls == [(0, 7), (0, 3), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert "going on with 3 at a time" in caplog.text


def test_one_item_too_large_raises_with_the_hint(caplog):
    with pytest.raises(RuntimeError, match="out of memory"):
        list(in_chunks(limited(0, []), 3, 4, CPU, "buy memory"))
    assert "buy memory" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyboardInterrupt(), OSError()])
def test_other_errors_pass(error):
    calls = []

    def run(start: int, stop: int) -> None:
        calls.append(start)
        raise error

    with pytest.raises(type(error)):
        list(in_chunks(run, 4, 4, CPU, ""))
    assert calls == [0]


def test_nothing_to_do():
    assert list(in_chunks(limited(1, []), 0, 4, CPU, "")) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_known(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_c_library_keeps_what_it_is_told_to(monkeypatch):
    told = []
    glibc = SimpleNamespace(mallopt=lambda option, value: told.append((option, value)))
    monkeypatch.setattr("ctypes.CDLL", lambda _: glibc)
    keep_freed_memory(2**28)
    assert told == [(-3, 2**25), (-1, 2**28)]
    told.clear()
    keep_freed_memory()
    assert told == [(-4, 0), (-1, -1), (-2, 2**28)]
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_freed_memory()


@pytest.mark.parametrize("name", ["mps", "hpu", "meta", "0", "", "cuda:x", "directml", "nonsense"])
def test_a_device_that_is_not_there_is_one_short_line(name, monkeypatch):
    monkeypatch.setattr("gfp_core.devices._available", lambda: ["cpu"])
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is an MPS device")
    with pytest.raises(
        ValueError, match=f"^device {name} cannot be used here.*there is: cpu$"
    ) as e:
        pick(name)
    assert len(str(e.value)) < 150
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"cuda", "xpu", "mps"}, "cuda"),
        ({"xpu", "mps"}, "xpu"),
        ({"mps"}, "mps"),
        (set(), "cpu"),
    ],
)
def test_the_fastest_device_that_is_there_is_taken(there, expected, monkeypatch):
    for name, module in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name in there)
    for name in (None, "auto", "gpu"):
        assert pick(name) == torch.device(expected)


def test_devices_go_by_any_of_their_names(monkeypatch):
    assert pick("CPU") == pick(CPU) == CPU
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.empty(1))
    assert pick("rocm:1") == torch.device("cuda:1")


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_give_results_in_order(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert list(in_threads(lambda item: item * item, range(20))) == [i * i for i in range(20)]


def test_an_exception_in_a_thread_is_the_callers(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    begun = []

    def run(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(run, range(100)))
    assert len(begun) < 10
