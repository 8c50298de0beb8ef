"""Balanced answers of the tasks with a dial: a reader who ignores the question is right as often as a guess.

Each choice is the answer of equally many carriers in the prompt (keys, chains, variables). Earlier questions of the prompt have each choice
as their answer equally often. The commonest, the rarest, the first and the last answer therefore all score ``1 / choices``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness_ext.errors import BadOptionError


class Answers(NamedTuple):
    """Who has which answer, and who is asked.

    Attributes:
        choices: The possible answers in random order.
        of: The answer of each carrier, as an index into ``choices``.
        earlier: Carriers that the prompt asks for first, with their answers.
        target: The answer of the carrier that is asked last.
    """

    choices: list[str]
    of: list[int]
    earlier: list[int]
    target: int


def check_balance(prefix: str, *, carriers: str, count: int, values: int, queries: int, choices: str = "values") -> None:
    """Checks that answers can be balanced.

    Args:
        prefix: prefix of the options, such as ``mqar_``.
        carriers: name of the option for the number of carriers, such as ``pairs``.
        count, values, queries: numbers of carriers, of choices, and of earlier questions.
        choices: name of the option for the number of choices.

    Raises:
        BadOptionError: a number is no multiple of the number of values, or too many questions come first.
    """
    for name, number in ((carriers, count), ("queries", queries)):
        if number % values:
            raise BadOptionError(
                f"{prefix}{name}={number}: want a multiple of {prefix}{choices}={values}: each answer occurs equally often"
            )
    if queries > count - values:
        raise BadOptionError(
            f"{prefix}queries={queries}: want at most {count - values}, so that each of the {values} answers is left for the last question"
        )


def draw_answers(
    rng: np.random.RandomState, pool: Sequence[str], *, asked: int, target: int, count: int, values: int, queries: int
) -> Answers:
    """Draws the choices, an answer for each carrier, and the carriers that are asked first.

    Args:
        pool: all possible answers.
        asked: the carrier that is asked last.
        target: index of its answer among the choices.
        count, values, queries: numbers of carriers, of choices, and of earlier questions; see :func:`check_balance`.
    """
    choices = [pool[place] for place in rng.permutation(len(pool))[:values]]
    others = np.repeat(np.arange(values), count // values).tolist()
    others.remove(target)
    answers = [others[place] for place in rng.permutation(count - 1)]
    answers.insert(asked, target)
    earlier: list[int] = []
    for value in range(values):
        able = [carrier for carrier, answer in enumerate(answers) if answer == value and carrier != asked]
        earlier += [able[place] for place in rng.permutation(len(able))[: queries // values]]
    return Answers(choices, answers, [earlier[place] for place in rng.permutation(len(earlier))], target)
