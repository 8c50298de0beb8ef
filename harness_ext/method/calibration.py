"""The contract of a calibration source: where the token ids come from that the statistics are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch

from harness_ext.errors import BadOptionError, CalibrationError, PluginError
from harness_ext.method.options import Configurable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_DEFAULT = 2048  # buffers sized by a 128k context would not fit anywhere


class Calibration(Configurable):
    """A source of calibration text: override ``texts`` where there is text, ``input_ids`` where there are token ids.

    Annotated class attributes are options, as in a pruner: ``samples`` is set by ``calibration.samples=64``.
    """

    kind: ClassVar[str] = "calibration"
    samples: int = 64
    """How many sequences."""
    length: int | None = None
    """Tokens per sequence; by default what the model can take, at most 2,048."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise BadOptionError(f"calibration.samples={self.samples}: want at least one sequence")
        if self.length is not None and self.length < 2:
            raise BadOptionError(f"calibration.length={self.length}: want at least two tokens")
        if not 0 <= self.seed < 2**32:
            raise BadOptionError(f"calibration.seed={self.seed}: want a number of at least 0 and below 2^32")

    @classmethod
    def check_class(cls) -> None:
        """Called before the source is used, whether a plugin registered it or an instance was passed.

        Raises:
            PluginError: no method is overridden.
        """
        if cls.texts is Calibration.texts and cls.input_ids is Calibration.input_ids:
            raise PluginError(f"{cls.__qualname__} overrides neither texts nor input_ids")

    def check(self) -> None:
        """Called before any weight is loaded: raise here if a file is missing or an option is left out."""

    def texts(self) -> Iterator[str]:
        """Documents, in an order that depends on nothing but the options."""
        raise PluginError(f"{type(self).__qualname__} does not override texts")

    def input_ids(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
        """Token ids, int64 [samples, length], on any device; by default windows at random places of the joined ``texts``.

        Raises:
            CalibrationError: the texts hold fewer than ``length`` tokens.
        """
        if tokenizer is None:
            raise CalibrationError(f"calibration {self.name!r} needs a tokenizer: pass tokenizer=")
        length = self.length_for(model)
        tokens: list[int] = []
        for text in self.texts():
            tokens += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            if len(tokens) >= 4 * self.samples * length:  # enough to choose from
                break
        if len(tokens) < length:
            raise CalibrationError(
                f"calibration {self.name!r} has {len(tokens)} tokens, fewer than one sequence of {length}: lower calibration.length"
            )
        generator = torch.Generator().manual_seed(self.seed)
        starts = torch.randint(len(tokens) - length + 1, (self.samples,), generator=generator).tolist()
        return torch.tensor([tokens[start : start + length] for start in starts])

    def length_for(self, model: PreTrainedModel) -> int:
        """``length``, or what the model can take, at most 2,048."""
        limit = longest(model)
        if self.length is not None and limit is not None and self.length > limit:
            raise BadOptionError(f"calibration.length={self.length}: the model takes at most {limit} tokens")
        return self.length or min(limit or LONGEST_DEFAULT, LONGEST_DEFAULT)


def longest(model: PreTrainedModel) -> int | None:
    """How many tokens the model takes, where its configuration says so."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_ids(input_ids: torch.Tensor, model: PreTrainedModel, source: str) -> None:
    """Checks token ids against a model, which might fail far from the cause, or not at all.

    Raises:
        CalibrationError: of another type or shape than int64 [samples, length], longer than the model takes, or not in its vocabulary.
    """
    if not isinstance(input_ids, torch.Tensor) or input_ids.ndim != 2 or input_ids.dtype != torch.int64 or 0 in input_ids.shape:
        got = f"{input_ids.dtype} {tuple(input_ids.shape)}" if isinstance(input_ids, torch.Tensor) else type(input_ids).__name__
        raise CalibrationError(f"{source}: want int64 token ids [samples, length], not {got}")
    limit, vocabulary = longest(model), len(model.get_input_embeddings().weight)
    if limit is not None and input_ids.shape[1] > limit:
        raise CalibrationError(f"{source}: sequences of {input_ids.shape[1]} tokens, the model takes at most {limit}")
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= vocabulary:
        raise CalibrationError(f"{source}: token ids from {low} to {high}, the model's vocabulary goes from 0 to {vocabulary - 1}")


def digest(input_ids: torch.Tensor) -> str:
    """SHA-256 of the shape and the ids, as 16 hexadecimal digits."""
    ids = input_ids.cpu().to(torch.int64).contiguous()
    return hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().astype("<i8").tobytes()).hexdigest()[:16]
