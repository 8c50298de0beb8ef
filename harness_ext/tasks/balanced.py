"""Balanced answers of the tasks with a dial: a reader who ignores the question is right as often as a guess.

Each choice is the answer of equally many carriers in the prompt (keys, chains, variables). Earlier questions of the prompt have each choice
as their answer equally often. The commonest, the rarest, the first and the last answer therefore all score ``1 / choices``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness_ext.errors import BadOptionError
from harness_ext.tasks.options import TaskOptions


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


def check_balance(options: TaskOptions, *, carriers: str, choices: str = "values", per_choice: int = 1, each: int = 1) -> None:
    """Checks that answers can be balanced. The message begins with the option that was set, and has the values that fit the others.

    Args:
        options: with ``queries``, the number of earlier questions.
        carriers: name of the option for the number of carriers, such as ``pairs``.
        choices: name of the option for the number of choices.
        per_choice, each: the option ``carriers`` is ``per_choice`` times the number of carriers over ``each``: both 1, unless the option is
            another size than that number.

    Raises:
        BadOptionError: a number is no multiple of the number of choices, or too many questions come first.
    """
    size, values, queries = (int(getattr(options, name)) for name in (carriers, choices, "queries"))
    for name, number in ((carriers, size * each // per_choice), ("queries", queries)):
        if number % values:
            first, wanted = (choices, "a divisor") if options.is_set(choices) and not options.is_set(name) else (name, "a multiple")
            second = name if first == choices else choices
            raise BadOptionError(f"{options.told(first)}: want {wanted} of {options.told(second)}: each answer occurs equally often")
    most, least = size * each // per_choice - values, (queries + values) * per_choice // each
    if queries > most:
        first = next((name for name in (carriers, "queries", choices) if options.is_set(name)), "queries")
        fits = {carriers: f"at least {least}", "queries": f"at most {most}"}
        others = [name for name in (carriers, "queries", choices) if name != first]
        wants = [f"want {fits[first]}", f"or {options.prefix}{others[0]} {fits[others[0]]}"] if first in fits else [
            "want " + ", or ".join(f"{options.prefix}{name} {fits[name]}" for name in others)
        ]  # fmt: skip
        raise BadOptionError(
            f"{options.told(first)} with {' and '.join(options.told(name) for name in others)}: {', '.join(wants)}, so that each of the "
            f"{values} answers is left for the last question"
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
