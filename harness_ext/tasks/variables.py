"""Variable tracking, after RULER (Hsieh et al., arXiv 2404.06654): what is the value of the variable at the end of some assignments?

A program has several chains of assignments. Each begins with a value, and each further variable gets the variable before it. The chains
are mixed, and each is in order. The dial is how many assignments lead from the value to the variable that is asked for. Programs are
the same at every setting of the dial. Unlike lookup over several hops, a variable is known when it is read for the first time.
"""

from __future__ import annotations

import keyword
import string
from typing import Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError
from harness_ext.tasks.balanced import check_balance, draw_answers
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, whole

LETTERS = tuple(string.ascii_lowercase)
PAIRS = tuple(pair for pair in (a + b for a in LETTERS for b in LETTERS) if not keyword.iskeyword(pair))
DIGITS = tuple(string.digits)


class Options(TaskOptions):
    """The options of the tasks of variables, with the prefix ``variables_``.

    Attributes:
        steps: Number of assignments from the value to the variable that is asked for: the dial.
        length: Number of assignments of each chain.
        chains: Number of chains: a second dial.
        values: Number of different values, which are digits and the choices.
        queries: Number of other chains that are asked for first, with their values.
    """

    prefix: ClassVar[str] = "variables_"
    items: int = whole(1024, 1, MOST_ITEMS)
    steps: int = whole(1, 1, 100)
    length: int = whole(4, 1, 100)
    chains: int = whole(6, 2, 100)
    values: int = whole(3, 2, len(DIGITS))
    queries: int = whole(3, 0, 100)
    seed: int = whole(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > self.length:
            raise BadOptionError(f"{self.told('steps')}: want at most {self.told('length')}, the assignments of a chain")
        check_balance(self, carriers="chains")
        if (needed := self.chains * self.length) > len(PAIRS):
            raise BadOptionError(
                f"variables_chains={self.chains}, variables_length={self.length}: {needed} variables: there are {len(PAIRS)} names"
            )


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only. The steps have no influence on the random numbers.

    Returns:
        ``prompt``, ``choices``, ``target`` and ``position`` (of the first assignment of the chain that is asked for, from 0).
    """
    rng = np.random.RandomState([options.seed, 0x7A5B, options.chains, options.length, index])
    answers = draw_answers(
        rng, DIGITS, asked=0, target=index % options.values, count=options.chains, values=options.values, queries=options.queries
    )
    names = draw_names(rng, options.chains * options.length)
    chains = [names[start : start + options.length] for start in range(0, len(names), options.length)]
    order = rng.permutation(np.repeat(np.arange(options.chains), options.length)).tolist()
    lines, written = [], [0] * options.chains
    for chain in order:
        place = written[chain]
        lines.append((chains[chain][place], chains[chain][place - 1] if place else answers.choices[answers.of[chain]]))
        written[chain] += 1
    asked = [(chains[chain][options.steps - 1], answers.choices[answers.of[chain]]) for chain in answers.earlier]
    return {
        "prompt": render(lines, asked, chains[0][options.steps - 1]),
        "choices": answers.choices,
        "target": answers.target,
        "position": order.index(0),
    }


def draw_names(rng: np.random.RandomState, count: int) -> list[str]:
    """Draws different names of variables: single letters, or pairs of letters if there are too few letters."""
    names = LETTERS if count <= len(LETTERS) else PAIRS
    return [names[place] for place in rng.permutation(len(names))[:count]]


def render(lines: list[tuple[str, str]], asked: list[tuple[str, str]], query: str) -> str:
    """The prompt: the assignments, the earlier questions with their answers, and the last question."""
    written = [f"{name} = {value}" for name, value in lines]
    return "\n".join([*written, *(f"assert {name} == {value}" for name, value in asked), f"assert {query} =="])
