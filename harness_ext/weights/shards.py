"""A checkpoint folder that is larger than memory: one decoder block at a time is read from its files, and written to new ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import torch

from harness_ext.atomic import whole_file, writing
from harness_ext.engine.layers import DecoderBlock, find_blocks
from harness_ext.engine.memory import give_back
from harness_ext.engine.placement import Placement
from harness_ext.engine.upload import Upload
from harness_ext.weights.export import save_generation_settings
from harness_ext.weights.skeleton import build, compute, place
from harness_ext.weights.weight_files import INDEX, WeightFiles, stored_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REST = -1  # the place of what is outside the decoder blocks, where a block has its number


class Shards(Placement):
    """A model whose decoder blocks are in files, what is outside them in memory. At most two blocks are in memory at once: the one that
    is held, and the next, which a thread reads, and brings to the device, meanwhile.

    Use it as a context, or call :meth:`close`.
    """

    in_memory: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel, blocks: list[DecoderBlock], source: WeightFiles, out: Path, device: torch.device) -> None:
        super().__init__(model)
        self._blocks, self._source, self._out, self._device = blocks, source, out, device
        self._number = {block.name: number for number, block in enumerate(blocks)}
        self._places: dict[int, list[str]] = {place: [] for place in (*self._number.values(), REST)}
        """For each block, and for the rest: the names of its tensors in the model."""
        for name in (*source.names, *source.wholes):
            self._places[self._place_of(source.aliases[name])].append(name)
        self._held: dict[int, bool] = {}  # blocks in place -> whether they are to be written
        self._written: set[int] = set()
        self._upload = Upload(device, copy=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        out: Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        trust_remote_code: bool = False,
    ) -> Shards:
        """Builds the model without the weights of its decoder blocks.

        Args:
            folder: a checkpoint with ``model.safetensors``, or with shards and their index.
            out: the folder to write to; it exists.
            dtype: of the weights; by default that of the configuration, or of the files where it has none.
            device: where blocks compute.

        Raises:
            UnsupportedModelError: no safetensors there, a model that cannot be walked, or tensors that are missing or of another shape than
                the model's.
        """
        from transformers import AutoConfig, GenerationConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = build(config, dtype or config.dtype or stored_dtype(folder), trust_remote_code=trust_remote_code)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        source = WeightFiles(folder, model)
        shards = cls(model, find_blocks(model), source, out, torch.device(device))
        compute(model, source.computed)
        for number in shards._number.values():
            shards._empty(number)
        shards._place(REST, shards._read(REST))
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and not buffer.is_meta:
                    module._buffers[name] = buffer.to(shards.device)
        return shards

    @property
    def device(self) -> torch.device:
        return self._device

    @contextmanager
    def loaded(self, block: DecoderBlock, *, write: bool) -> Iterator[None]:
        number = self._number[block.name]
        if number in self._held:
            self._held[number] |= write
            yield
            return
        self._place(number, self._upload.take(number, partial(self._read, number)))
        give_back()
        if number + 1 < len(self._blocks) and number + 1 not in self._held:
            self._upload.start(number + 1, partial(self._read, number + 1))
        self._held[number] = write
        try:
            yield
            if self._held[number]:
                self._write(number, self._in_place(number))
                self._written.add(number)
        finally:
            del self._held[number]
            self._empty(number)
            give_back()

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        state = self.model.state_dict()
        for name in sorted(state):
            number = next((number for number, names in self._places.items() if name in names and number != REST), REST)
            if number == REST or number in self._held:
                yield name, state[name]
            else:
                yield name, self._read(number, only=name)[name]
                give_back()

    def finish(self) -> None:
        """Writes what is not written yet, the configuration and the index; ``out`` is then a whole checkpoint.

        Raises:
            WriteError: the disk is full, or the file system refuses.
        """
        for number in self._number.values():
            if number not in self._written:
                self._write(number, self._read(number))
                give_back()
        state = self.model.state_dict()
        computed = {name: state[name] for name in self._source.computed}
        self._write(REST, self._in_place(REST) | computed)
        files = {stored: self._file(number).name for number, names in self._places.items() for stored in self._source.stored(names)}
        files |= dict.fromkeys(computed, self._file(REST).name)
        held = {*computed, *(name for names in self._places.values() for name in names)}
        tensors = [tensor for name, tensor in state.items() if name in held]
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
        with writing(self._out):
            (self._out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            self.model.config.dtype = str(self.model.dtype).removeprefix("torch.")
            self.model.config.architectures = [type(self.model).__name__]
            self.model.config.save_pretrained(self._out)
            save_generation_settings(self.model, self._out)

    def close(self) -> None:
        """Ends the thread that reads ahead."""
        self._upload.close()

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _place_of(self, aliases: list[str]) -> int:
        """The block that holds a tensor. What several blocks share is outside of them all."""
        owners = {next((number for name, number in self._number.items() if alias.startswith(f"{name}.")), REST) for alias in aliases}
        return owners.pop() if len(owners) == 1 else REST

    def _read(self, number: int, only: str | None = None) -> dict[str, torch.Tensor]:
        """The tensors of a block, in host memory: from its new file if it was written, else from the source."""
        names = self._places[number] if only is None else [only]
        return self._source.read(names, self._file(number) if number in self._written else None)

    def _write(self, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
        from safetensors.torch import save_file

        file = self._file(number)
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in self._source.as_stored(tensors).items()}
        with whole_file(file, flush=False) as part:  # all is flushed at the end, with the folder
            save_file(stored, part, {"format": "pt"})

    def _file(self, number: int) -> Path:
        count = len(self._blocks) + 1
        return self._out / f"model-{count if number == REST else number + 1:05d}-of-{count:05d}.safetensors"

    def _in_place(self, number: int) -> dict[str, torch.Tensor]:
        state = self.model.state_dict()
        return {name: state[name] for name in self._places[number]}

    def _place(self, number: int, tensors: Mapping[str, torch.Tensor]) -> None:
        for name in list(tensors):
            place(self.model, self._source.aliases[name], tensors[name].to(self._device))

    def _empty(self, number: int) -> None:
        for name in self._places[number]:
            place(self.model, self._source.aliases[name], self._source.empty(name))
