"""The contract of a calibration source: where the token ids come from that the statistics are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from harness_ext.errors import BadOptionError, CalibrationError, PluginError
from harness_ext.method.lengths import longest
from harness_ext.method.options import Configurable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST_DEFAULT = 512  # docs/own-model.md has the cost


class Calibration(Configurable):
    """A source of calibration text: override ``texts`` where there is text, ``input_ids`` where there are token ids.

    Annotated class attributes are options, as in a pruner: ``samples`` is set by ``calibration.samples=64``.
    """

    kind: ClassVar[str] = "calibration"
    samples: int = 64
    """How many sequences."""
    length: int | None = None
    """Tokens per sequence; by default what the model can take, at most 512."""
    seed: int = 0
    """Decides which windows of the documents are taken."""
    bos: bool | Literal["auto"] = "auto"
    """Whether each sequence begins with the BOS token; ``auto``: if the tokenizer puts it before a text."""

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

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Called before any weight is loaded, where there is a tokenizer.

        Raises:
            CalibrationError: ``bos=True`` with a tokenizer that has no BOS token.
        """
        if self.bos is True and tokenizer.bos_token_id is None:
            raise CalibrationError("calibration.bos=True: the tokenizer has no BOS token")

    def texts(self) -> Iterator[str]:
        """Yields documents, in an order that only the options decide."""
        raise PluginError(f"{type(self).__qualname__} does not override texts")

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
        """The token ids of each document, without special tokens around it."""
        for text in self.texts():
            yield tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def input_ids(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
        """Token ids, int64 [samples, length], on any device; by default windows at random places of the joined documents, each behind a
        BOS token if ``bos`` says so.

        Raises:
            CalibrationError: the texts hold fewer than ``length`` tokens.
        """
        if tokenizer is None:
            raise CalibrationError(f"calibration {self.name!r} needs a tokenizer: pass tokenizer=")
        self.check_tokenizer(tokenizer)
        length = self.length_for(model)
        tokens: list[int] = []
        for document in self.tokens(tokenizer):
            tokens += document
            if len(tokens) >= 4 * self.samples * length:  # enough to choose from
                break
        if len(tokens) < length:
            raise CalibrationError(
                f"calibration {self.name!r} has {len(tokens)} tokens, fewer than one sequence of {length}: lower calibration.length"
            )
        generator = torch.Generator().manual_seed(self.seed)
        starts = torch.randint(len(tokens) - length + 1, (self.samples,), generator=generator).tolist()
        ids = torch.tensor([tokens[start : start + length] for start in starts])
        first = tokenizer.bos_token_id if self.begins_with_bos(tokenizer) else None
        if first is not None:
            without = ids[:, 0] != first
            ids[without] = torch.cat([torch.full_like(ids[without][:, :1], first), ids[without][:, :-1]], 1)
        return ids

    def cache_key(self, model: PreTrainedModel, model_digest: str) -> Mapping[str, Any] | None:
        """Override it so that the token ids are kept on disk for later runs. Return all that decides them beside the class, the options
        and the tokenizer.

        Args:
            model: the dense model.
            model_digest: a digest of its weights.

        Returns:
            JSON values by name; or None, the default, and the token ids are not kept.
        """
        return None

    def begins_with_bos(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether sequences begin with the BOS token."""
        return adds_bos(tokenizer) if self.bos == "auto" else self.bos

    def length_for(self, model: PreTrainedModel) -> int:
        """``length``, or what the model can take, at most 512."""
        limit = longest(model)
        if self.length is not None and limit is not None and self.length > limit:
            raise BadOptionError(f"calibration.length={self.length}: the model takes at most {limit} tokens")
        return self.length or min(limit or LONGEST_DEFAULT, LONGEST_DEFAULT)


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer puts its BOS token before a text."""
    if tokenizer.bos_token_id is None:
        return False
    plain, full = (tokenizer("a", add_special_tokens=add, verbose=False)["input_ids"] for add in (False, True))
    return len(full) > len(plain) and bool(full[0] == tokenizer.bos_token_id)


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


def describe(input_ids: torch.Tensor, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """What the pruning record says of calibration tokens: samples, length, a digest, and whether all samples begin with the BOS token.

    Args:
        input_ids: int64 [samples, length].
        tokenizer: ``bos`` is left out without one, or if it has no BOS token.
    """
    found = {"samples": len(input_ids), "length": input_ids.shape[1], "digest": digest(input_ids)}
    bos = getattr(tokenizer, "bos_token_id", None)
    return found if bos is None else found | {"bos": bool((input_ids[:, 0] == bos).all())}


def digest(input_ids: torch.Tensor) -> str:
    """SHA-256 of the shape and the ids, as 16 hexadecimal digits."""
    ids = input_ids.cpu().to(torch.int64).contiguous()
    return hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().astype("<i8").tobytes()).hexdigest()[:16]
