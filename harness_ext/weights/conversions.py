"""Tensors that a checkpoint stores in other pieces than the model: experts one by one, for example, that the model has in one parameter.

transformers puts them together when it loads a checkpoint, and takes them apart when it saves one. The same rules are applied here to the
pieces of one block at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from harness_ext.errors import UnsupportedModelError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Piece(NamedTuple):
    """A stored tensor."""

    stored: str
    """Its name in the files."""
    renamed: str
    """Its name by the rules that only rename."""
    pattern: str
    """The pattern of the conversion that matches it."""


class Match(NamedTuple):
    """Where a stored tensor belongs."""

    name: str
    """The name in the model."""
    piece: Piece | None
    """Set where it is a piece of that tensor."""


class Whole:
    """Tensors of the model that are made of the same stored ones.

    Args:
        first: the name in the model that the pieces are renamed to.
        converter: the rule of transformers.
        pieces: in the order in which they are put together.
    """

    def __init__(self, model: PreTrainedModel, first: str, converter: Any, pieces: list[Piece]) -> None:
        self._model, self._first, self._converter, self.pieces = model, first, converter, pieces
        self.names: tuple[str, ...] = ()
        """The names in the model."""

    @property
    def stored(self) -> list[str]:
        return [piece.stored for piece in self.pieces]

    def check(self, folder: object, headers: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        """Puts the pieces together and takes them apart again, without memory for their values.

        Raises:
            UnsupportedModelError: a piece is missing or of another shape, or the pieces would not be the same.
        """
        state = self._model.state_dict()
        shapes = {piece.stored: headers[piece.stored][0] for piece in self.pieces}
        try:
            joined = self.join({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
            fits = all(name in state and tensor.shape == state[name].shape for name, tensor in joined.items())
        except (RuntimeError, ValueError, KeyError):  # of torch, and of the rules
            fits = False
        if not fits:
            raise UnsupportedModelError(f"{folder}: the files do not hold all parts of {self._first}, or parts of another shape")
        self.names = tuple(joined)
        try:
            parts = {name: tuple(tensor.shape) for name, tensor in self.split(joined).items()}
        except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
            raise UnsupportedModelError(
                f"{folder}: {self._first} cannot be taken apart again: {one_line(error)}; prune it whole"
            ) from error
        if parts != shapes:
            raise UnsupportedModelError(f"{folder}: {self._first} would be stored in other pieces than it is: prune it whole")

    def join(self, pieces: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the model, by name.

        Args:
            pieces: by their names in the files; is emptied.
        """
        converter = copy.deepcopy(self._converter)
        for piece in self.pieces:
            converter.add_tensor(self._first, piece.stored, piece.pattern, pieces.pop(piece.stored))
        return _tensors(converter.convert(self._first, model=self._model, config=self._model.config))

    def split(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The stored tensors, by their names in the files.

        Args:
            tensors: by their names in the model.
        """
        converter = self._converter.reverse_transform()
        first = ""
        for name in self.names:
            renamed, pattern = converter.rename_source_key(name)
            first = first or renamed
            converter.add_tensor(renamed, name, pattern, tensors[name])
        parts = _tensors(converter.convert(first, model=self._model, config=self._model.config))
        prefix = f"{self._model.base_model_prefix}."
        stored = {variant: piece.stored for piece in self.pieces for variant in _variants(piece.renamed, prefix)}
        return {stored[name]: tensor for name, tensor in parts.items()}


def matcher(model: PreTrainedModel, wanted: Iterable[str]) -> Callable[[str], Match]:
    """Says where a stored tensor belongs: files may have, or lack, the prefix of the model without its head, be named as in an older
    version of transformers, or hold pieces. To be asked in the order of :func:`in_order`.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    names, prefix = set(wanted), f"{model.base_model_prefix}."
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]

    def match(stored: str) -> Match:
        candidates = [stored]
        for renaming in renamings:
            candidates.append(renaming.rename_source_key(candidates[-1])[0])
        for converter in converters:
            name, pattern = converter.rename_source_key(candidates[-1])
            if pattern is not None:
                for variant in _variants(name, prefix):
                    if variant in names:
                        return Match(variant, Piece(stored, candidates[-1], pattern))
                break
        for candidate in reversed(candidates):
            for variant in _variants(candidate, prefix):
                if variant in names:
                    return Match(variant, None)
        return Match(stored, None)

    return match


def wholes(model: PreTrainedModel, matches: Iterable[Match]) -> list[Whole]:
    """What the pieces among some matches make, in the order of the first piece of each."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in rules for pattern in rule.source_patterns}
    pieces: dict[str, list[Piece]] = {}
    for match in matches:
        if match.piece:
            pieces.setdefault(match.name, []).append(match.piece)
    return [Whole(model, name, by_pattern[found[0].pattern], found) for name, found in pieces.items()]


def in_order(stored: Iterable[str]) -> list[str]:
    """Names of stored tensors in the order in which transformers goes through them: numbers count as numbers."""
    from transformers.core_model_loading import dot_natural_key

    return sorted(stored, key=dot_natural_key)


def _variants(name: str, prefix: str) -> tuple[str, str, str]:
    return name, prefix + name, name.removeprefix(prefix)


def _tensors(converted: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value[0] if isinstance(value, list) else value for name, value in converted.items()}
