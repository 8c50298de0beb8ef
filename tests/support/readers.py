"""Readers of the prompts of the tasks with a dial. They know the written form of a prompt, and nothing of how items are made."""

from __future__ import annotations

import re
from collections import Counter


def pairs_of(prompt):
    """The pairs of a lookup prompt in order, and the key that it asks for."""
    if prompt.startswith("Key:"):
        *pairs, query = prompt.split("\n\n")
        return [re.fullmatch(r"Key: (.+)\nValue: (.+)", pair).groups() for pair in pairs], re.fullmatch(r"Key: (.+)\nValue:", query)[1]
    *pairs, query = prompt.split("\n")
    return [tuple(pair.split(" -> ")) for pair in pairs], query.removesuffix(" ->")


def told_and_asked(prompt, told):
    """The pairs that a prompt tells, the queries with answers after them, and the last query. ``told`` is the number of pairs."""
    pairs, query = pairs_of(prompt)
    return pairs[:told], pairs[told:], query


def follow(pairs, key):
    """The value at the end of a chain, and the number of steps to it."""
    table, steps = dict(pairs), 0
    while key in table:
        key, steps = table[key], steps + 1
    return key, steps


def controls(answers, earlier):
    """What readers answer who do not look at the question.

    Args:
        answers: all answers that the prompt tells, in order.
        earlier: the answers of the earlier questions, in order.
    """
    counts = Counter([*answers, *earlier])
    by_count = sorted(counts, key=lambda answer: (counts[answer], answer))
    guesses = {"first told": answers[0], "last told": answers[-1], "most frequent": by_count[-1], "rarest": by_count[0]}
    if earlier:
        guesses |= {"last answered": earlier[-1], "first answered": earlier[0]}
    return guesses
