"""The weights of a checkpoint folder, and whose they are in the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from harness_ext.errors import UnsupportedModelError, one_line
from harness_ext.weights.completeness import others, refuse_missing, refuse_shapes, some
from harness_ext.weights.conversions import Whole, in_order, matcher, wholes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool} | {
    f"{sign}{bits}": getattr(torch, f"{'u' if sign == 'U' else ''}int{bits}") for sign in "IU" for bits in (8, 16, 32, 64)
}


class WeightFiles:
    """The safetensors of a folder, matched with a model by name. Tensors that the model has not are named in the log, and left out.

    Args:
        model: on the meta device, with tied weights tied. Tensors are read in the dtypes that it has.

    Raises:
        UnsupportedModelError: no safetensors there, or tensors that are missing or of another shape than the model's.
    """

    def __init__(self, folder: Path, model: PreTrainedModel) -> None:
        self.files = stored_files(folder)
        """The file that holds each stored tensor, by the name in the files."""
        self.aliases = _aliases(model)
        """All names of a tensor of the model, by each of them: more than one where weights are tied."""
        self.names: dict[str, str] = {}
        """The name in the files, by the name in the model, of tensors that are stored as they are; of tied weights, one of the names."""
        self.wholes: dict[str, Whole] = {}
        """How the others are put together, by the name in the model."""
        self._match(folder, model)
        state = model.state_dict()
        self._shapes = {name: tuple(state[name].shape) for name in (*self.names, *self.wholes)}
        self.dtypes = {name: state[name].dtype for name in self._shapes}
        """What each tensor is read in, by its name in the model."""
        headers = _headers(self.files)
        shapes = {name: headers[stored][0] for name, stored in self.names.items()}
        refuse_shapes(folder, {name: (shape, self._shapes[name]) for name, shape in shapes.items() if shape != self._shapes[name]})

    def empty(self, name: str) -> torch.Tensor:
        """A tensor of the model on the meta device, with its shape and dtype."""
        return torch.empty(self._shapes[name], dtype=self.dtypes[name], device="meta")

    def stored(self, names: Iterable[str]) -> list[str]:
        """The names in the files of tensors of the model."""
        return [stored for name in names for stored in (self.wholes[name].stored if name in self.wholes else [self.names[name]])]

    def read(self, names: Collection[str], file: Path | None = None) -> dict[str, torch.Tensor]:
        """Reads tensors of the model into host memory.

        Args:
            names: in the model; all that are made of the same stored tensors, or none of them.
            file: where they are, if not in the files of the folder.

        Raises:
            UnsupportedModelError: a file that cannot be read.
        """
        files = self.files if file is None else dict.fromkeys(self.stored(names), file)
        tensors = read(files, {name: self.names[name] for name in names if name in self.names}, self.dtypes)
        for whole in dict.fromkeys(self.wholes[name] for name in names if name in self.wholes):
            names_of_pieces = dict(zip(whole.stored, whole.stored, strict=True))
            pieces = read(files, names_of_pieces, dict.fromkeys(whole.stored, self.dtypes[whole.names[0]]), copy=False)
            mapped = {piece.untyped_storage().data_ptr() for piece in pieces.values()}
            for name, tensor in whole.join(pieces).items():
                tensors[name] = tensor.clone() if tensor.untyped_storage().data_ptr() in mapped else tensor
        return tensors

    def as_stored(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors of the model, as in ``read``, in the pieces and under the names of the files."""
        stored = {self.names.get(name, name): tensor for name, tensor in tensors.items() if name not in self.wholes}
        for whole in dict.fromkeys(self.wholes[name] for name in tensors if name in self.wholes):
            stored |= whole.split(tensors)
        return stored

    def _match(self, folder: Path, model: PreTrainedModel) -> None:
        wanted = set(self.aliases)
        match = matcher(model, wanted)
        matches = {stored: match(stored) for stored in in_order(self.files)}
        for stored, (name, piece) in matches.items():
            if name in wanted and piece is None:
                first = next((alias for alias in self.aliases[name] if alias in self.names), None)
                if first is None:
                    self.names[name] = stored
                elif not torch.equal(*(read(self.files, {"it": either}, {})["it"] for either in (stored, self.names[first]))):
                    raise UnsupportedModelError(
                        f"{folder}: {stored} and {self.names[first]} differ, and the model ties them: load it whole"
                    )
        headers = _headers(self.files)
        for whole in wholes(model, matches.values()):
            whole.check(folder, headers)
            self.wholes |= dict.fromkeys(whole.names, whole)
        held = {*self.names, *self.wholes}
        missing = {name for name in wanted if not any(alias in held for alias in self.aliases[name])}
        buffers = {name for name, _ in model.named_buffers()}
        extra = {name: stored for stored, (name, piece) in matches.items() if piece is None and name not in wanted | buffers}
        report = SimpleNamespace(missing_keys=missing, unexpected_keys=set(extra))
        model._adjust_missing_and_unexpected_keys(report)  # takes out what from_pretrained ignores
        self.computed = sorted(missing - report.missing_keys)
        """Tensors of the model that the files need not hold and do not, such as counters that start at zero."""
        refuse_missing(folder, model, report.missing_keys)
        if report.unexpected_keys:
            names = some(sorted(extra[name] for name in report.unexpected_keys))
            log.warning("%s: the files hold %s, which %s has not: not used, and not written", folder, names, type(model).__name__)


def _headers(files: Mapping[str, Path]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The shape and dtype of each stored tensor."""
    from safetensors import safe_open

    found = {}
    for file in dict.fromkeys(files.values()):
        with _reading(file), safe_open(file, "pt") as opened:
            for stored in (name for name, holder in files.items() if holder == file):
                part = opened.get_slice(stored)
                if (kind := part.get_dtype()) not in DTYPES:
                    raise UnsupportedModelError(f"{file}: {stored} is of {kind}: want a checkpoint in bf16, fp16 or fp32")
                found[stored] = tuple(part.get_shape()), DTYPES[kind]
    return found


def stored_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a checkpoint folder. Of a tensor that several files hold, the last counts, as for ``from_pretrained``.

    Raises:
        UnsupportedModelError: no safetensors there, an index that names files that are not, or a file that is cut off.
    """
    from safetensors import safe_open

    files: dict[str, Path] = {}
    for file in _shards(folder):
        with _reading(file), safe_open(file, "pt") as opened:
            files |= dict.fromkeys(opened.keys(), file)
    return files


def _shards(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise UnsupportedModelError(f"{folder}: want {SINGLE}, or shards and {INDEX}: there is neither")
    with _reading(folder / INDEX):
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in names if not (folder / name).is_file()]
    if not names:
        raise UnsupportedModelError(f"{folder / INDEX}: names no file")
    if missing:
        raise UnsupportedModelError(f"{folder / missing[0]}: no such file, and {INDEX} names it" + others(len(missing) - 1, "files"))
    return [folder / name for name in names]


def stored_dtype(folder: Path) -> torch.dtype:
    """The dtype that ``from_pretrained`` takes for a checkpoint whose configuration names none: that of the first floating-point tensor.

    Raises:
        UnsupportedModelError: as :func:`stored_files`.
    """
    from safetensors import safe_open

    first = _shards(folder)[0]
    with _reading(first), safe_open(first, "pt") as opened:
        dtypes = [DTYPES.get(opened.get_slice(name).get_dtype(), torch.uint8) for name in list(opened.keys())]
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


def read(
    files: Mapping[str, Path], names: Mapping[str, str], dtypes: Mapping[str, torch.dtype], *, copy: bool = True
) -> dict[str, torch.Tensor]:
    """Reads tensors into host memory.

    Args:
        files: the file of each stored tensor.
        names: which to read: the name of each in the files, by the name to return it under.
        dtypes: of those to be converted, by the names to return them under.
        copy: whether to read at once. Else tensors that are not converted are views of the mapped file, which is read when they are used.

    Raises:
        UnsupportedModelError: a file that cannot be read.
    """
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for file in dict.fromkeys(files[stored] for stored in names.values()):
        with _reading(file), safe_open(file, "pt") as opened:
            for name, stored in names.items():
                if files[stored] == file:
                    mapped = opened.get_tensor(stored)
                    tensors[name] = mapped.to(dtypes.get(name, mapped.dtype), copy=copy)
    return tensors


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:  # the last: an index that is none
        raise UnsupportedModelError(f"{file}: cannot be read: {one_line(error)}") from error


def _aliases(model: PreTrainedModel) -> dict[str, list[str]]:
    own = set(model.state_dict())
    names: dict[int, list[str]] = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        if name in own:  # others are buffers that are computed anew
            names.setdefault(id(tensor), []).append(name)
    return {name: group for group in names.values() for name in group}
