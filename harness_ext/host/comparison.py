"""Whether answers to shared prompts are those of lm-eval, but for rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from harness_ext.host.requests import Answer, Group, Request, Stock

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.25  # of float16 and bfloat16; where it is passed, lm-eval's answers at two batch sizes tell how far they differ
FURTHER = 4  # prompts of the batch that also tell it: one prompt may happen to round alike at two batch sizes
ALONE = 4  # choices of a prompt that are asked alone


class Comparison:
    """Compares answers with those of lm-eval, for one model.

    Args:
        lm: a causal language model of lm-eval.
    """

    def __init__(self, lm: HFLM) -> None:
        self.lm = lm

    def difference(
        self, answers: Mapping[int, Answer], group: Group, others: Sequence[Group], requests: Sequence[Request], stock: Stock, size: int
    ) -> str | None:
        """What is different in the answers to a prompt, or None if it is rounding.

        Args:
            answers: those to compare, by the indices of their requests.
            group: the prompt.
            others: further prompts of its batch. In half precision they also tell how much rounding there is.
            stock: lm-eval's own function, which answers requests.
            size: the batch size.
        """
        own = stock([requests[place] for place in group.places], size)
        expected = {place: value for place, (value, _) in zip(group.places, own, strict=True)}
        beyond = {place: value for place, value in expected.items() if not near(answers[place][0], value, self.tolerance(value))}
        if not beyond:
            return None
        rounding = 0.0
        if not self._dtypes() <= set(TOLERANCE):
            groups = [group, *(other for other in others if other is not group)][: FURTHER + 1]
            rounding = max(self.rounding([requests[place] for place in one.places], stock, size) for one in groups)
        for place, value in beyond.items():
            if not near(answers[place][0], value, self.tolerance(value) + rounding):
                return f"a log-likelihood is {answers[place][0]:.4f} and not {value:.4f}"
        return None

    def tolerance(self, expected: float) -> float:
        """How far an answer may be from one of lm-eval, in nats."""
        return max(TOLERANCE.get(dtype, HALF_TOLERANCE) for dtype in self._dtypes()) * max(1.0, 0.1 * abs(expected))

    def rounding(self, requests: list[Request], stock: Stock, size: int) -> float:
        """How far lm-eval's answers to a prompt are from those to some of its requests alone, in nats, at most.

        The size of a batch changes log-likelihoods. Pruned models round more: their logits are less certain.
        """
        own = stock(requests, size)
        apart = [abs(stock([request], size)[0][0] - answer) for request, (answer, _) in list(zip(requests, own, strict=True))[:ALONE]]
        return max((one for one in apart if math.isfinite(one)), default=0.0)

    def _dtypes(self) -> set[torch.dtype]:
        """The dtypes of the weights, of matrix products and of log-probabilities."""
        return {self.lm.model.dtype, self.lm.mixed_precision_dtype or self.lm.model.dtype, self.lm.softmax_dtype or self.lm.model.dtype}


def near(answer: float, expected: float, tolerance: float) -> bool:
    """Whether two log-likelihoods are equal but for rounding. NaN equals NaN, and an infinite one only itself."""
    if math.isnan(answer) and math.isnan(expected):
        return True
    return answer == expected or (math.isfinite(expected) and abs(answer - expected) <= tolerance)
