"""Associative recall with many queries (MQAR, Arora et al., arXiv 2312.04927): pairs, then several queries about them.

lm-eval scores one answer of a prompt. The earlier queries are therefore shown with their right answers, and the last is asked. This is the
sequence that MQAR scores with teacher forcing. The dial is the number of pairs; chance is the same at every setting of the dial.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from harness_ext.tasks.balanced import check_balance, draw_answers
from harness_ext.tasks.keyed import check_enough_keys, check_kind, draw_keys, render
from harness_ext.tasks.lookup import VALUES
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, checked, whole


class Options(TaskOptions):
    """The options of the tasks of many queries, with the prefix ``mqar_``.

    Attributes:
        pairs: Number of different keys: the dial.
        values: Number of different values, which are the choices.
        queries: Number of queries before the last one, with their values.
        keys: ``words``, or ``digits`` as in the ``kv`` tasks.
    """

    prefix: ClassVar[str] = "mqar_"
    items: int = whole(1024, 1, MOST_ITEMS)
    pairs: int = whole(32, 2, 1000)
    values: int = whole(8, 2, len(VALUES))
    queries: int = whole(8, 0, 1000)
    keys: str = checked("words", check_kind)
    seed: int = whole(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_balance(self, carriers="pairs")
        check_enough_keys(f"mqar_pairs={self.pairs}", self.keys, self.pairs)


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only. Over items, the pair that is asked for takes every position in the prompt.

    Returns:
        ``prompt``, ``choices``, ``target`` and ``position`` (of the pair that is asked for, from 0).
    """
    rng = np.random.RandomState([options.seed, 0x3A9A, options.pairs, index])
    position = index % options.pairs
    answers = draw_answers(
        rng, VALUES, asked=position, target=(index + index // options.pairs) % options.values, count=options.pairs,
        values=options.values, queries=options.queries,
    )  # fmt: skip
    keys = draw_keys(rng, options.keys, options.pairs)
    shown = [(key, answers.choices[answer]) for key, answer in zip(keys, answers.of, strict=True)]
    return {
        "prompt": render(options.keys, [*shown, *(shown[pair] for pair in answers.earlier)], keys[position]),
        "choices": answers.choices,
        "target": answers.target,
        "position": position,
    }
