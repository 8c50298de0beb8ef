"""Checks that several processes, each with a part of the calibration tokens, can measure a statistic."""

from __future__ import annotations

import torch

from harness_ext.method.statistic import Statistic
from harness_ext.testing.contracts.given import fail

TOKENS, WIDTH = 48, 16


def check_additive(statistic: type[Statistic] | None, who: str) -> None:
    """Measures two parts of the tokens, adds the tensors that ``additive`` names, and compares the sum with one measurement of all tokens.

    Args:
        statistic: the class of the statistic; None passes.
        who: the plugin that uses it, for errors.
    """
    if statistic is None:
        return
    name = statistic.__qualname__
    if not statistic.additive:
        fail(
            f"{who}: its statistic {name} names nothing additive, so it passes in one process and fails in two. "
            "Name the tensors that add up over tokens in additive, or set several_processes = False in the test class"
        )
    tokens = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))
    whole, first, second = (statistic(WIDTH, tokens.device, tokens.dtype) for _ in range(3))
    for measured, part in ((whole, tokens), (first, tokens[: TOKENS // 3]), (second, tokens[TOKENS // 3 :])):
        measured.update(part)
    first.tokens += second.tokens
    if first.tokens != whole.tokens:
        fail(f"{who}: its statistic {name} counts {first.tokens} tokens in two parts and {whole.tokens} at once: add len(inputs) to tokens")
    for attribute in statistic.additive:
        tensor = getattr(first, attribute, None)
        if not isinstance(tensor, torch.Tensor):
            fail(f"{who}: its statistic {name} has no tensor {attribute!r}, which additive names")
        tensor += getattr(second, attribute)
    for attribute, expected in _tensors(whole).items():
        if not torch.allclose(_tensors(first)[attribute], expected, rtol=1e-4, atol=1e-5):
            advice = "it does not add up" if attribute in statistic.additive else "additive does not name it"
            fail(f"{who}: its statistic {name} differs in {attribute!r} between two processes and one: {advice}")


def _tensors(statistic: Statistic) -> dict[str, torch.Tensor]:
    """The tensors of a statistic in float64. Square matrices are cut to their upper triangle, because the lower one may be undefined."""
    tensors = {name: value for name, value in vars(statistic).items() if isinstance(value, torch.Tensor)}
    return {name: (value.triu() if value.ndim == 2 and len(value) == value.shape[1] else value).double() for name, value in tensors.items()}
