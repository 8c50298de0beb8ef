"""Lookup over several hops: a key leads to a key, and after several steps to a value.

All chains of keys have the same length, and their pairs are in random order. The dial is how many steps before the end of its chain a key
is asked for. Prompts therefore have the same pairs at every setting of the dial. One step is the lookup of the ``kv`` tasks.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError
from harness_ext.tasks.balanced import check_balance, draw_answers
from harness_ext.tasks.keyed import check_enough_keys, check_kind, draw_keys, render
from harness_ext.tasks.lookup import VALUES
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, checked, whole


class Options(TaskOptions):
    """The options of the tasks of several hops, with the prefix ``hops_``.

    Attributes:
        steps: Number of pairs that lead from the key to the value: the dial.
        length: Number of pairs of each chain.
        chains: Number of chains.
        values: Number of different values, which are the choices.
        queries: Number of other chains that are asked for first, with their values.
        keys: ``digits``, as in the ``kv`` tasks, or ``words``.
    """

    prefix: ClassVar[str] = "hops_"
    items: int = whole(1024, 1, MOST_ITEMS)
    steps: int = whole(1, 1, 100)
    length: int = whole(4, 1, 100)
    chains: int = whole(8, 2, 1000)
    values: int = whole(4, 2, len(VALUES))
    queries: int = whole(4, 0, 1000)
    keys: str = checked("digits", check_kind)
    seed: int = whole(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps > self.length:
            raise BadOptionError(f"{self.told('steps')}: want at most {self.told('length')}, the number of pairs of a chain")
        check_balance(self, carriers="chains")
        check_enough_keys(f"hops_chains={self.chains}, hops_length={self.length}", self.keys, self.chains * self.length)


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only. Over items, the pair with the right value takes every position in the prompt.

    The number of steps has no influence on the random numbers: items of different dials have the same pairs.

    Returns:
        ``prompt``, ``choices``, ``target`` and ``position`` (of the pair with the right value, from 0).
    """
    pairs, last = options.chains * options.length, options.length - 1
    rng = np.random.RandomState([options.seed, 0x40B5, options.chains, options.length, index])
    answers = draw_answers(
        rng, VALUES, asked=0, target=(index + index // pairs) % options.values, count=options.chains, values=options.values,
        queries=options.queries,
    )  # fmt: skip
    keys = draw_keys(rng, options.keys, pairs)
    order = rng.permutation(np.delete(np.arange(pairs), last)).tolist()
    position = index % pairs
    order.insert(position, last)  # the end of the first chain, which is asked for

    def value(chain: int) -> str:
        return answers.choices[answers.of[chain]]

    shown = [(keys[pair], value(pair // options.length) if pair % options.length == last else keys[pair + 1]) for pair in order]
    first = options.length - options.steps
    asked = [(keys[chain * options.length + first], value(chain)) for chain in answers.earlier]
    return {
        "prompt": render(options.keys, [*shown, *asked], keys[first]),
        "choices": answers.choices,
        "target": answers.target,
        "position": position,
    }
