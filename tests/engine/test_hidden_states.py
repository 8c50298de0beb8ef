"""Hidden states of a CUDA device wait in host memory, and are those that were kept, in whatever order they are read and replaced."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
import tiny
import torch

from harness_ext import prune
from harness_ext.engine import hidden_states as module
from harness_ext.engine import upload
from harness_ext.engine.hidden_states import HiddenStates
from harness_ext.engine.memory import pinned_given_back

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Line:
    """In the place of a stream: each copy is made when something waits for it, after all copies that were begun before."""

    made: list[Line]

    def __init__(self, device: torch.device) -> None:
        assert device.type == "cuda"
        self.queue: list[Any] = []
        self.on_device = 0
        self.made.append(self)

    def copy(self, tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int]:
        copies = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            self.queue.append(lambda source=tensor, target=copies[name]: target.copy_(source))
        self.on_device += 1
        return copies, len(self.queue)

    def copy_home(self, tensor: torch.Tensor, home: torch.Tensor | None) -> torch.Tensor:
        target = torch.full(tensor.shape, torch.nan, dtype=tensor.dtype) if home is None else home
        states = tensor.clone()  # a later change of the tensor waits for the copy
        self.queue.append(lambda: target.copy_(states))
        return target

    def wait(self, done: int, _: Any) -> None:
        for copy in self.queue[:done]:
            copy()
        self.queue[:done] = [lambda: None] * done


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(Line, "made", [], raising=False)
    monkeypatch.setattr(module, "SideStream", Line)
    return Line.made


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_reads_what_was_kept_last_in_any_order(count, seed, lines):
    rng = random.Random(seed)
    here, there, expected = HiddenStates(CPU), HiddenStates(CUDA), []
    for number in range(count):
        states = torch.full((2, 3), float(number))
        expected.append(states.clone())
        for kept in (here, there):
            kept.append(states)
        states.fill_(-1)  # a copy was kept
    for step in range(60):
        batch = rng.randrange(count)
        if rng.random() < 0.5:
            shape, dtype = rng.choice([((2, 3), torch.float32), ((2, 4), torch.float32), ((2, 3), torch.float64)])
            expected[batch] = torch.full(shape, 100.0 + step, dtype=dtype)
            for kept in (here, there):
                kept.replace(batch, expected[batch].clone())
        for kept in (here, there):
            assert kept[batch].dtype == expected[batch].dtype
            assert kept[batch].equal(expected[batch])
    for kept in (here, there):
        assert all(states.equal(one) for states, one in zip(kept, expected, strict=True))


def test_a_pass_reads_each_batch_once_and_ahead(lines):
    kept = HiddenStates(CUDA)
    for number in range(3):
        kept.append(torch.full((2,), float(number)))
    for passes in (1, 2):
        for batch in range(3):
            states = kept[batch]
            assert states.tolist() == [batch + passes - 1.0] * 2
            kept.replace(batch, states + 1)
        assert lines[0].on_device == 3 * passes + 1  # and the first one of the next pass


def test_what_is_written_into_a_batch_does_not_reach_what_is_kept(lines):
    kept = HiddenStates(CUDA)
    kept.append(torch.zeros(2))
    kept[0].fill_(1)
    assert kept[0].tolist() == [0, 0]


def test_states_of_the_same_shape_take_no_new_memory():
    kept = HiddenStates(CPU)
    kept.append(torch.zeros(2))
    place = kept[0].data_ptr()
    kept.replace(0, torch.ones(2))
    assert kept[0].data_ptr() == place


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt-neox"])
@pytest.mark.parametrize("options", [{"pruner": "sparsegpt"}, {"pruner": "wanda", "true_sequential": True}], ids=str)
def test_the_pruned_model_is_the_same_bit_for_bit(name, options, monkeypatch, lines):
    """With streams that are made on the CPU, in the place of those of a device."""
    monkeypatch.setattr("harness_ext.engine.walk.BATCH_TOKENS", 2 * tiny.token_ids().shape[1])

    def pruned():
        model = tiny.model(name, layers=3)
        prune(model, sparsity=0.5, calibration=tiny.token_ids(7), **options)
        return tiny.weights(model)

    stays = pruned()
    monkeypatch.setattr("harness_ext.engine.walk.HiddenStates", lambda _: HiddenStates(CUDA))
    assert tiny.same(pruned(), stays)
    assert len(lines) == 2  # of the proof and of the pruning
    assert all(line.on_device for line in lines)


def test_a_side_stream_brings_home_after_the_work_of_the_device(monkeypatch):
    """What needs CUDA is in the place of it; the order of the calls is what is tested."""
    calls: list[Any] = []

    class Stream:
        def __init__(self, *_: Any) -> None:
            self.name = "side"

        def wait_stream(self, other: Any) -> None:
            calls.append((self.name, "waits for", other.name))

        def __enter__(self) -> None:
            calls.append("on side")

        def __exit__(self, *_: object) -> None:
            calls.append("off side")

    main, empty, copy = Stream(), torch.empty, torch.Tensor.copy_
    main.name = "main"
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory, **options: calls.append(("pinned", pin_memory)) or empty(*shape, **options)
    )
    monkeypatch.setattr(torch.Tensor, "copy_", lambda home, tensor, non_blocking: calls.append(non_blocking) or copy(home, tensor))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append(("kept for", stream.name)))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: calls.append(f"on {device}") or tensor)
    line = upload.SideStream(CUDA)
    home = line.copy_home(torch.ones(2), None)
    assert home.tolist() == [1, 1]
    order = ["on cuda", ("side", "waits for", "main"), "on side", True, "off side", ("kept for", "side")]
    assert calls == [("pinned", True), *order]
    calls.clear()
    assert line.copy_home(torch.zeros(2), home) is home
    assert home.tolist() == [0, 0]
    assert calls == order


def test_memory_that_cannot_be_pinned_is_an_error_about_memory(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(MemoryError, match="want fewer or shorter calibration sequences"):
        upload._pinned(torch.zeros(2))


@pytest.mark.parametrize(("device", "times"), [("cuda", 1), ("cpu", 0)])
def test_pinned_memory_is_returned_also_after_an_error(device, times, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: calls.append(None), raising=False)
    with suppress(ZeroDivisionError), pinned_given_back(torch.device(device)):
        raise ZeroDivisionError
    assert len(calls) == times


@pytest.mark.gpu
def test_a_real_device_reads_every_bit_that_was_kept():
    drawn = [torch.randint(1000, (400, 1000), generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    kept = HiddenStates(CUDA)
    for states in drawn:
        kept.append(states.to(CUDA))
    for passes in range(6):
        for batch in range(4):
            states = kept[batch]
            assert states.is_cuda
            assert states.cpu().equal(drawn[batch] + passes)
            kept.replace(batch, states + 1)
