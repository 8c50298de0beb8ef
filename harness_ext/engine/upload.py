"""Brings the tensors of a decoder block to the device that computes, while the device works on the block before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

Tensors = Mapping[str, torch.Tensor]
Read = Callable[[], Tensors]


class _Copied(NamedTuple):
    tensors: dict[str, torch.Tensor]
    done: torch.cuda.Event | None
    """When the copies are made, where the device works on its own."""


class Upload:
    """Reads the tensors of a block and copies them to a device, in a thread of its own. At most one block is on its way at any time.

    To a CUDA device they go through pinned memory and on a stream of their own, so that the copies run beside the work of the device.

    Args:
        copy: whether tensors that are on the device already are copied as well.
    """

    def __init__(self, device: torch.device, *, copy: bool) -> None:
        self._device, self._copy = device, copy
        self._line = SideStream(device) if device.type == "cuda" else None
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, Future[_Copied]] | None = None

    def start(self, number: int, read: Read) -> None:
        """Begins with the block of this number, unless it is on its way already. Another one that is on its way is given up."""
        if self._ahead and self._ahead[0] == number:
            return
        self.drop()
        self._thread = self._thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="next block")
        self._ahead = number, self._thread.submit(self._bring, read)

    def take(self, number: int, read: Read) -> dict[str, torch.Tensor]:
        """The tensors of a block on the device, which is on its way or is brought now."""
        ahead, self._ahead = self._ahead, None
        copied = None
        if ahead and ahead[0] == number:
            try:
                copied = ahead[1].result()
            except torch.OutOfMemoryError:  # there was no room beside the last block, which is gone now
                ahead = None
        elif ahead:
            ahead[1].cancel()
        copied = copied or self._bring(read)
        if self._line and copied.done:
            self._line.wait(copied.done, copied.tensors.values())
        return copied.tensors

    def drop(self) -> None:
        """Gives up what is on its way."""
        if self._ahead:
            self._ahead[1].cancel()
        self._ahead = None

    def close(self) -> None:
        """Ends the thread."""
        self.drop()
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None

    @torch.no_grad()
    def _bring(self, read: Read) -> _Copied:
        tensors = read()
        if self._line:
            return _Copied(*self._line.copy(tensors))
        return _Copied({name: tensor.to(self._device, copy=self._copy) for name, tensor in tensors.items()}, None)


class SideStream:
    """A stream of a CUDA device for copies beside its other work."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, tensors: Tensors) -> tuple[dict[str, torch.Tensor], torch.cuda.Event]:
        """Copies of tensors in host memory, and the event that they are made. Pinned memory is kept by torch until then."""
        with torch.cuda.stream(self._stream):
            copies = {name: tensor.contiguous().pin_memory().to(self._device, non_blocking=True) for name, tensor in tensors.items()}
            return copies, self._stream.record_event()

    def copy_home(self, tensor: torch.Tensor, home: torch.Tensor | None) -> torch.Tensor:
        """A copy, in pinned host memory, of a tensor that the current stream computes. It is made after the earlier copies of this stream,
        so only this stream may read it.

        Args:
            home: where it goes, of the same dtype and shape; None takes new memory.

        Raises:
            MemoryError: there is no such memory.
        """
        if home is None:
            home = _pinned(tensor)
        tensor = tensor.to(self._device)  # of blocks on several devices
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            home.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)
        return home

    def wait(self, done: torch.cuda.Event, tensors: Iterable[torch.Tensor]) -> None:
        """Has the current stream wait for copies, and keeps their memory until its work with them is done."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        for tensor in tensors:
            tensor.record_stream(current)


def _pinned(like: torch.Tensor) -> torch.Tensor:
    try:
        return torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=True)
    except RuntimeError as error:  # torch raises no error of its own
        size = like.nbytes / 2**20
        raise MemoryError(f"{size:.0f} MiB of host memory cannot be pinned: want fewer or shorter calibration sequences") from error
