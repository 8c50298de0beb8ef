"""The next block is brought to the device while this one is worked on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from harness_ext import prune
from harness_ext.engine import upload as module
from harness_ext.engine.layers import DecoderBlock, find_blocks
from harness_ext.engine.placement import OneBlockOnDevice
from harness_ext.engine.upload import SideStream, Upload

OTHER = torch.device("cpu:0")


def numbers(start: float) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {"a": torch.arange(start, start + 3), "b": torch.full((2, 2), start)}


@pytest.fixture
def upload() -> Any:
    made = Upload(OTHER, copy=True)
    yield made
    made.close()


class TestUpload:
    @pytest.mark.parametrize("started", [[], [1], [2], [1, 2], [2, 1], [1, 1]])
    def test_brings_what_is_asked_for_whatever_was_begun(self, upload: Upload, started: list[int]) -> None:
        for number in started:
            upload.start(number, numbers(number))
        found = upload.take(1, numbers(1))
        assert found["a"].tolist() == [1, 2, 3]
        assert found["b"].tolist() == [[1, 1], [1, 1]]

    def test_reads_in_a_thread_what_was_begun_and_once(self, upload: Upload) -> None:
        names = []

        def read() -> dict[str, torch.Tensor]:
            names.append(threading.current_thread().name)
            return {}

        upload.start(0, read)
        upload.start(0, read)
        upload.take(0, read)
        upload.take(0, read)
        assert len(names) == 2
        assert names[0].startswith("next block")
        assert names[1] == threading.main_thread().name

    def test_copies_are_not_the_tensors(self, upload: Upload) -> None:
        tensor = torch.zeros(3)
        upload.take(0, lambda: {"a": tensor})["a"].fill_(1)
        assert tensor.tolist() == [0, 0, 0]

    def test_an_error_is_raised_where_the_block_is_wanted(self, upload: Upload) -> None:
        def fail() -> dict[str, torch.Tensor]:
            raise OSError("no such file")

        upload.start(0, fail)
        with pytest.raises(OSError, match="no such file"):
            upload.take(0, numbers(0))

    def test_where_there_was_no_room_for_two_blocks_it_is_brought_when_there_is(self, upload: Upload) -> None:
        def full() -> dict[str, torch.Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory")

        upload.start(0, full)
        assert upload.take(0, numbers(4))["a"].tolist() == [4, 5, 6]
        with pytest.raises(torch.OutOfMemoryError):
            upload.take(1, full)

    def test_the_work_of_the_device_waits_for_copies_on_a_side_stream(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[Any] = []

        class Line:
            def __init__(self, device: torch.device) -> None:
                assert device.type == "cuda"

            def copy(self, tensors: Any) -> Any:
                calls.append(("copy", threading.current_thread() is threading.main_thread()))
                return {name: tensor.clone() for name, tensor in tensors.items()}, "done"

            def wait(self, done: Any, tensors: Any) -> None:
                calls.append((done, len(list(tensors)), threading.current_thread() is threading.main_thread()))

        monkeypatch.setattr(module, "SideStream", Line)
        upload = Upload(torch.device("cuda"), copy=True)
        upload.start(1, numbers(1))
        assert upload.take(1, numbers(1))["a"].tolist() == [1, 2, 3]
        upload.close()
        assert calls == [("copy", False), ("done", 2, True)]


def test_a_side_stream_copies_from_pinned_memory_and_the_main_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs CUDA is in the place of it; the order of the calls is what is tested."""
    calls: list[Any] = []

    class Stream:
        def __init__(self, *_: Any) -> None:
            self.name = "side"

        def record_event(self) -> str:
            calls.append(("record", self.name))
            return "event"

        def wait_event(self, event: str) -> None:
            calls.append((self.name, "waits for", event))

        def __enter__(self) -> None:
            calls.append("on side")

        def __exit__(self, *_: object) -> None:
            calls.append("off side")

    main = Stream()
    main.name = "main"

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        calls.append((device.type, "non-blocking" if non_blocking else "blocking"))
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pin") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append(("kept for", stream.name)))
    line = SideStream(torch.device("cuda"))
    copies, done = line.copy({"a": torch.ones(2)})
    line.wait(done, copies.values())
    expected = [
        "on side",
        "pin",
        ("cuda", "non-blocking"),
        ("record", "side"),
        "off side",
        ("main", "waits for", "event"),
        ("kept for", "main"),
    ]
    assert calls == expected
    assert copies["a"].tolist() == [1, 1]


class TestOneBlockOnDevice:
    def test_the_next_block_is_begun_while_this_one_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[str, int]] = []
        for name in ("start", "take"):
            original = getattr(Upload, name)

            def spy(self: Upload, number: int, read: Any, original: Any = original, name: str = name) -> Any:
                calls.append((name, number))
                return original(self, number, read)

            monkeypatch.setattr(Upload, name, spy)
        prune(tiny.model(layers=3), sparsity=0.5, calibration=tiny.token_ids(), device=OTHER)
        once = [("take", 0), ("start", 1), ("take", 1), ("start", 2), ("take", 2)]
        assert calls == 3 * once  # of the model itself, of the walk beside it, and of the pruning

    @pytest.mark.parametrize("tied", [False, True])
    def test_the_embeddings_go_there_and_a_head_of_its_own_does_not(self, tied: bool) -> None:
        model = tiny.model(tie_word_embeddings=tied)
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert (embeddings is head) == tied
        home_of_embeddings, home_of_head, before = embeddings.data, head.data, head.detach().clone()
        with OneBlockOnDevice(model, find_blocks(model), OTHER).session():
            assert embeddings.data_ptr() != home_of_embeddings.data_ptr()
            assert (head.data_ptr() != home_of_head.data_ptr()) == tied
        assert head.equal(before)

    def test_what_is_changed_there_comes_home_only_where_it_is_to(self) -> None:
        model = tiny.model()
        first, _ = blocks = find_blocks(model)
        placement = OneBlockOnDevice(model, blocks, OTHER)
        weight = first.layers[0].stored
        home, before = weight.data_ptr(), weight.detach().clone()
        for write in (False, True):
            with placement.session(), placement.loaded(first, write=write):
                assert weight.data_ptr() != home
                weight.data.fill_(7)
            assert weight.data_ptr() == home
            assert weight.equal(torch.full_like(weight, 7) if write else before)

    def test_what_was_changed_before_an_error_does_not_come_home(self) -> None:
        model = tiny.model()
        first, _ = blocks = find_blocks(model)
        placement = OneBlockOnDevice(model, blocks, OTHER)
        weight = first.layers[0].stored
        home, before = weight.data_ptr(), weight.detach().clone()

        def change_and_fail() -> None:
            with placement.session(), placement.loaded(first, write=True):
                weight.data.fill_(7)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            change_and_fail()
        assert weight.data_ptr() == home
        assert weight.equal(before)

    def test_a_block_that_is_held_twice_stays_until_the_first_is_done(self) -> None:
        model = tiny.model()
        first, _ = blocks = find_blocks(model)
        weight = first.layers[0].stored
        home = weight.data_ptr()
        placement = OneBlockOnDevice(model, blocks, OTHER)
        with placement.session(), placement.loaded(first, write=False):
            with placement.loaded(first, write=True):
                weight.data.fill_(7)
            assert weight.data_ptr() != home
        assert weight.eq(7).all()

    def test_a_block_that_shares_weights_with_this_one_is_brought_after_its_change(self) -> None:
        shared = nn.Linear(3, 3)
        modules = [nn.Sequential(shared), nn.Sequential(shared, nn.ReLU())]
        model: Any = nn.Sequential(*modules)
        model.device = torch.device("cpu")
        blocks = [DecoderBlock(str(number), part, ()) for number, part in enumerate(modules)]
        placement = OneBlockOnDevice(model, blocks, OTHER)
        with placement.loaded(blocks[0], write=True):
            shared.weight.data.fill_(7)
        with placement.loaded(blocks[1], write=False):
            assert shared.weight.eq(7).all()


@pytest.mark.gpu
def test_a_side_stream_of_a_real_device_brings_every_bit() -> None:
    tensors = {str(seed): torch.randn(1000, 1000, generator=torch.Generator().manual_seed(seed)) for seed in range(4)}
    upload = Upload(torch.device("cuda"), copy=True)
    upload.start(0, lambda: tensors)
    found = upload.take(0, lambda: tensors)
    upload.close()
    assert all(found[name].is_cuda and found[name].cpu().equal(tensor) for name, tensor in tensors.items())
