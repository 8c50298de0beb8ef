"""The contract of a calibration source: where the token ids come from that the statistics are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch

from harness_ext.errors import BadOptionError, CalibrationError
from harness_ext.options import Configurable

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
        if self.seed < 0:
            raise BadOptionError(f"calibration.seed={self.seed}: want a number of at least 0")

    def check(self) -> None:
        """Called before any weight is loaded: raise here if a file is missing or an option is left out."""

    def texts(self) -> Iterator[str]:
        """Documents, in an order that depends on nothing but the options."""
        raise NotImplementedError

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
        limit = getattr(model.config, "max_position_embeddings", None) or LONGEST_DEFAULT
        if self.length is not None and self.length > limit:
            raise BadOptionError(f"calibration.length={self.length}: the model takes at most {limit} tokens")
        return self.length or min(limit, LONGEST_DEFAULT)


def digest(input_ids: torch.Tensor) -> str:
    """SHA-256 of the shape and the ids, as 16 hexadecimal digits."""
    ids = input_ids.cpu().to(torch.int64).contiguous()
    return hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().astype("<i8").tobytes()).hexdigest()[:16]
