"""Answers to shared prompts are held to lm-eval's, but for as much rounding as lm-eval's own answers show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness_ext.host.comparison import FURTHER, HALF_TOLERANCE, Comparison
from harness_ext.host.requests import Group, Request

CHOICES, PROMPTS = 3, 7
GROUPS = [Group([prompt], list(range(prompt * CHOICES, (prompt + 1) * CHOICES))) for prompt in range(PROMPTS)]
REQUESTS: list[Request] = [(("", ""), [place // CHOICES], [place]) for place in range(PROMPTS * CHOICES)]


def difference(off: float, alone: list[float], dtype: torch.dtype = torch.bfloat16) -> str | None:
    """What is wrong with the first prompt, whose second answer is ``off`` nats from lm-eval's of -5.

    Args:
        alone: how far lm-eval's answers to requests asked alone are from those in a batch, for each prompt.
    """

    def stock(asked: list[Request], _: int | None) -> list[tuple[float, bool]]:
        return [(-5.0 + (alone[prompt] if len(asked) == 1 else 0.0), False) for _, (prompt,), _ in asked]

    lm = SimpleNamespace(model=SimpleNamespace(dtype=dtype), mixed_precision_dtype=None, softmax_dtype=None)
    answers = {place: (-5.0 + (off if place == 1 else 0.0), False) for place in range(len(REQUESTS))}
    return Comparison(lm).difference(answers, GROUPS[0], GROUPS, REQUESTS, stock, 8)


@pytest.mark.parametrize("tells", range(FURTHER + 1))
def test_any_of_the_first_prompts_tells_how_far_lm_evals_answers_are_apart(tells: int) -> None:
    alone = [2.0 if prompt == tells else 0.0 for prompt in range(PROMPTS)]
    assert difference(2.0, alone) is None
    assert difference(6.0, alone) == "a log-likelihood is 1.0000 and not -5.0000"


def test_prompts_beyond_the_first_are_not_asked() -> None:
    assert difference(2.0, [0.0] * (FURTHER + 1) + [2.0] * (PROMPTS - FURTHER - 1)) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_rounding_explains_what_is_not_finite(value: float) -> None:
    assert difference(value, [100.0] * PROMPTS) is not None


def test_float32_is_held_to_its_tolerance_whatever_lm_evals_answers_do() -> None:
    assert difference(5e-4, [2.0] * PROMPTS, torch.float32) is None
    assert difference(0.1, [2.0] * PROMPTS, torch.float32) is not None


def test_within_the_tolerance_nothing_is_asked_alone() -> None:
    assert difference(HALF_TOLERANCE, [0.0] * PROMPTS) is None
