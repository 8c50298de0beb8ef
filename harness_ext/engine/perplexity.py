"""Perplexity of a model on a text, in the protocol of the pruning papers: windows that do not overlap, the token as the unit."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from harness_ext.engine.terminal import progress
from harness_ext.errors import BadOptionError, CalibrationError, NumericalError, did_you_mean, shown
from harness_ext.method.calibration import check_ids
from harness_ext.method.lengths import longest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 2048
"""Tokens in a window, in most of the papers."""
BOS = ("text", "window", "none")
"""Where a BOS token stands: ``text``: where the tokenizer puts one, once before the text, as in the papers; ``window``: at the beginning
of each window; ``none``: nowhere."""
ROWS = 1024  # of logits that are in float32 at once


class ShortTextError(CalibrationError):
    """A text has fewer tokens than a window."""


@dataclass(frozen=True)
class Protocol:
    """How a perplexity is measured.

    Args:
        window: tokens in a window; by default 2,048, or what the model takes if that is less.
        bos: one of :data:`BOS`.

    Raises:
        BadOptionError: a window of fewer than 2 tokens, or another ``bos``.
    """

    window: int | None = None
    bos: str = BOS[0]

    def __post_init__(self) -> None:
        if self.window is not None and (isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 2):
            raise BadOptionError(f"window={shown(self.window)}: want at least 2 tokens")
        if self.bos not in BOS:
            raise BadOptionError(f"bos={shown(self.bos)}: want {', '.join(BOS)}.{did_you_mean(str(self.bos), BOS)}")

    def window_for(self, model: PreTrainedModel) -> int:
        """Tokens in a window for this model.

        Args:
            model: may be on the meta device.

        Raises:
            BadOptionError: more than the model takes.
        """
        limit = longest(model)
        if self.window is not None and limit is not None and self.window > limit:
            raise BadOptionError(f"window={self.window}: the model takes at most {limit} tokens")
        return self.window or min(limit or WINDOW, WINDOW)


@dataclass(frozen=True)
class Perplexity:
    """A measured perplexity.

    Args:
        window: tokens in each window.
        scored: tokens in each window whose probability counts: all but the first.
        losses: the mean negative log-likelihood of the scored tokens of each window, in nats a token.
        digest: of the token ids of all windows.
        dropped: tokens at the end of the text that fill no window.
    """

    window: int
    scored: int
    losses: tuple[float, ...]
    digest: str
    dropped: int

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of a token, in nats."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def value(self) -> float:
        """``exp(loss)``."""
        return math.exp(self.loss)

    @property
    def stderr(self) -> float | None:
        """The standard error of ``value``, from the spread of the windows (delta method); None for a single window."""
        count = len(self.losses)
        if count < 2:
            return None
        spread = math.fsum((loss - self.loss) ** 2 for loss in self.losses) / (count - 1)
        return self.value * math.sqrt(spread / count)

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "token_perplexity": self.value, "stderr": self.stderr, "loss": self.loss, "windows": len(self.losses), "window": self.window,
            "scored_tokens": self.scored * len(self.losses), "dropped_tokens": self.dropped, "tokens_digest": self.digest,
            "losses": list(self.losses),
        }  # fmt: skip


def windows(text: str, tokenizer: PreTrainedTokenizerBase, window: int, bos: str, *, most: int | None = None) -> tuple[torch.Tensor, int]:
    """Cuts a text into windows that do not overlap. What is left at its end is dropped.

    Args:
        window: tokens in a window.
        bos: one of :data:`BOS`.
        most: no more windows than these.

    Returns:
        int64 [windows, window], and how many tokens of the text are in no window.

    Raises:
        ShortTextError: the text has fewer tokens than a window.
        BadOptionError: ``bos="window"``, and the tokenizer has no BOS token.
    """
    first = tokenizer.bos_token_id if bos == "window" else None
    if bos == "window" and first is None:
        raise BadOptionError("bos='window': the tokenizer has no BOS token")
    ids = torch.tensor(tokenizer(text, add_special_tokens=bos == "text", verbose=False)["input_ids"], dtype=torch.int64)
    size = window - (first is not None)
    count = len(ids) // size
    if not count:
        raise ShortTextError(f"the text has {len(ids)} tokens, fewer than one window of {size}: want a longer text, or a smaller window")
    count = min(count, most or count)
    cut = ids[: count * size].view(count, size)
    if first is not None:
        cut = torch.cat([torch.full((count, 1), first), cut], 1)
    return cut, len(ids) - count * size


def perplexity(model: PreTrainedModel, cut: torch.Tensor, *, dropped: int = 0, batch_size: int = 1) -> Perplexity:
    """Measures the perplexity of a model in evaluation mode.

    ``exp`` of the mean negative log-likelihood of all tokens but the first of each window, each given the tokens before it in its window.

    Args:
        cut: int64 [windows, window].
        dropped: for the result.
        batch_size: windows in a forward pass.

    Raises:
        NumericalError: a probability is not finite.
        CalibrationError: windows longer than the model takes, or token ids that are not in its vocabulary.
    """
    check_ids(cut, model, "the text")
    losses: list[float] = []
    batches = torch.split(cut, batch_size)
    with torch.inference_mode(), progress("perplexity", len(batches)) as advance:
        for batch in batches:
            losses += _losses(model, batch.to(model.device))
            advance()
    found = Perplexity(cut.shape[1], cut.shape[1] - 1, tuple(losses), hashlib.sha256(cut.numpy().tobytes()).hexdigest()[:16], dropped)
    if not found.loss < math.log(sys.float_info.max):  # NaN included
        raise NumericalError("the model's log-likelihoods are NaN or infinite: it has no perplexity on this text")
    return found


def _losses(model: PreTrainedModel, batch: torch.Tensor) -> list[float]:
    """The mean negative log-likelihood of each window, summed in float64."""
    logits = model(input_ids=batch, use_cache=False).logits
    found = []
    for scores, targets in zip(logits[:, :-1], batch[:, 1:], strict=True):
        parts = zip(torch.split(scores, ROWS), torch.split(targets, ROWS), strict=True)
        sums = [functional.cross_entropy(rows.float(), wanted, reduction="none").double().sum() for rows, wanted in parts]
        found.append(float(torch.stack(sums).sum()) / len(targets))
    return found
