"""Where the weights of a model are while it is pruned: all in place, or one decoder block at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch

from harness_ext.engine.layers import DecoderBlock
from harness_ext.engine.upload import Upload
from harness_ext.errors import BadOptionError, NumericalError
from harness_ext.method.finite import all_finite

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def parse_device(device: str | torch.device, given: str) -> torch.device:
    """Parses the name of a device.

    Args:
        given: the argument as the user wrote it. The message begins with it.

    Raises:
        BadOptionError: this is not the name of a device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BadOptionError(f"{given}: want a device such as cpu, cuda or cuda:1") from error


class Placement:
    """The weights of a model in memory, where they are. Subclasses bring each decoder block to the device, or from a file, and away again.

    Args:
        model: what is outside the decoder blocks (embeddings, norms, buffers) is always in place.
    """

    in_memory: ClassVar[bool] = True
    """Whether the weights of all blocks are in host memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where blocks compute."""
        device: torch.device = self.model.device
        return device

    @contextmanager
    def session(self) -> Iterator[None]:
        """Around a run: what a walk uses outside the blocks is where they compute, within the context."""
        yield

    @contextmanager
    def loaded(self, block: DecoderBlock, *, write: bool) -> Iterator[None]:
        """Has the weights of a block in place, within the context.

        Args:
            write: whether its weights will be changed; they are kept then when the context ends without an error.
        """
        yield

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All parameters and buffers by name, in the order of the names."""
        yield from sorted(self.model.state_dict().items())

    def digest(self) -> str:
        """SHA-256 over the names, dtypes, shapes and bytes of all parameters and buffers, as 16 hexadecimal digits.

        Raises:
            NumericalError: a parameter has NaN or infinite values.
        """
        sha = hashlib.sha256()
        parameters = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        for name, tensor in self.tensors():
            if name in parameters and not all_finite(tensor):
                raise NumericalError(f"{name} has NaN or infinite values")
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]


class OneBlockOnDevice(Placement):
    """A model in host memory. During a run, one block at a time is on the device that computes; the next one is brought there meanwhile.

    What is outside the blocks is there, too. The language model head is not, because a walk does not use it.

    Args:
        model: on the CPU.
        blocks: its decoder blocks.
        device: such as ``cuda``.
    """

    def __init__(self, model: PreTrainedModel, blocks: list[DecoderBlock], device: torch.device) -> None:
        super().__init__(model)
        self._device = device
        self._modules = [block.module for block in blocks]
        self._numbers = {id(module): number for number, module in enumerate(self._modules)}
        self._home: torch.device = model.device
        self._held: dict[int, bool] = {}  # blocks in place -> whether their weights are changed
        self._upload = Upload(device, copy=True)

    @property
    def device(self) -> torch.device:
        return self._device

    @contextmanager
    def session(self) -> Iterator[None]:
        self._move_rest(self._device)
        try:
            yield
        finally:
            self._upload.close()
            self._move_rest(self._home)

    @contextmanager
    def loaded(self, block: DecoderBlock, *, write: bool) -> Iterator[None]:
        number = self._numbers[id(block.module)]
        if number in self._held:
            self._held[number] |= write
            yield
            return
        tensors = _tensors(block.module)
        at_home = {name: tensor.data for name, tensor in tensors.items()}
        copies = self._upload.take(number, lambda: at_home)
        for name, tensor in tensors.items():
            tensor.data = copies.pop(name)
        self._look_ahead(number + 1, tensors)
        self._held[number] = write
        try:
            yield
            for name, tensor in tensors.items():
                if self._held[number] or not isinstance(tensor, torch.nn.Parameter):
                    at_home[name].copy_(tensor.data)
        finally:
            del self._held[number]
            for name, tensor in tensors.items():
                tensor.data = at_home[name]

    def _look_ahead(self, number: int, held: Mapping[str, torch.Tensor]) -> None:
        """Has a block brought to the device, unless it shares a tensor with the one that is there now, which may change."""
        if number == len(self._modules):
            return
        tensors = _tensors(self._modules[number])
        if not {id(tensor) for tensor in tensors.values()} & {id(tensor) for tensor in held.values()}:
            self._upload.start(number, lambda: {name: tensor.data for name, tensor in tensors.items()})

    def _move_rest(self, device: torch.device) -> None:
        inside = {id(p) for m in self.model.modules() if id(m) in self._numbers for p in [*m.parameters(), *m.buffers()]}
        rest = {id(tensor) for tensor in _tensors(self.model.base_model).values()} - inside  # with a head that is tied to the embeddings
        for module in self.model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and id(tensor) in rest:
                        if isinstance(tensor, torch.nn.Parameter):
                            tensor.data = tensor.data.to(device)
                        else:
                            tensors[name] = tensor.to(device)


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a module by name, each once."""
    return dict([*module.named_parameters(), *module.named_buffers()])
