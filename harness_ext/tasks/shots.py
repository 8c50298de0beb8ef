"""Chooses exemplars for a question: other facts of the relation that say nothing about the fact in question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from harness_ext.tasks.fact import Fact
from harness_ext.tasks.substitution import contradicts, spelling, states


def suitable(shot: Fact, asked: Fact) -> bool:
    """Whether a fact can be an exemplar for another fact: it has a different subject and different answers, and states none of them."""
    if spelling(shot.subject) == spelling(asked.subject) != "":
        return False
    texts = (shot.question, shot.evidence, *shot.answers)
    told = (*asked.answers, *filter(str.strip, [asked.subject]))
    return all(contradicts(answer, asked.answers) for answer in shot.answers) and not any(states(text, told) for text in texts)


def choose(facts: Sequence[Fact], asked: Fact, order: Iterable[int], count: int, can_be_overridden: Callable[[int], bool]) -> list[int]:
    """Indices of the exemplars, the same in all conditions.

    Args:
        facts: all facts.
        asked: the fact in question. No exemplar states it.
        order: indices of candidates of the same relation, in random order.
        count: number of exemplars.
        can_be_overridden: whether the passage of a fact can state another answer.

    Returns:
        At most ``count`` indices. Facts that can be overridden come first. Among them, facts with a new answer come before facts with the
        answer of an earlier exemplar.
    """
    first: list[int] = []
    later: list[int] = []
    last: list[int] = []
    used: set[str] = set()
    for index in order:
        if len(first) == count:
            break
        if suitable(facts[index], asked):
            answer = spelling(facts[index].answers[0])
            if answer in used:
                later.append(index)
            elif can_be_overridden(index):
                first.append(index)
                used.add(answer)
            else:
                last.append(index)
    if len(first) < count:
        repeated = [index for index in later if can_be_overridden(index)]
        last = [*repeated, *last, *(index for index in later if index not in repeated)]
    return [*first, *last][:count]
