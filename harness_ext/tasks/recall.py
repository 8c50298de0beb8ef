"""What recall means: the items of the closed-book tasks with all answers of a relation to rank, and one more exemplar to help.

A small model may not write an answer and still hold it likelier than the other answers of the relation. It may also write it after another
fact of the relation. An item has both prompts, so that all scores are of the same facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness_ext.errors import BadOptionError, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options
from harness_ext.tasks.facts import answers_by_relation, check_shots_and_form, rows
from harness_ext.tasks.substitution import contradicting


def check_recall(facts: Sequence[Fact], condition: str, options: Options) -> None:
    """Checks, before a model is loaded, that the facts can be asked with one more exemplar.

    Raises:
        BadOptionError: facts are not asked closed-book, or no answers are ranked.
        FactError: too few facts for the exemplars.
    """
    _check(condition, options)
    check_shots_and_form(facts, _with_help(options))


def recall_rows(facts: Sequence[Fact], condition: str, options: Options) -> list[dict[str, Any]]:
    """The items of :func:`harness_ext.tasks.facts.rows`, closed-book, with more columns.

    Returns:
        A row for each fact. ``ranked`` has all different answers of the relation in random order, or as many as ``facts_ranked`` says,
        with the index ``ranked_target`` of the right one. Other accepted answers, and answers that contain it or are a part of it, are
        left out. ``choices``, the up to 16 answers of the plain tasks, are the ones to recognise the right answer among. ``helped_prompt``
        is the prompt with one more exemplar, whose id is ``helper``.

    Raises:
        BadOptionError: as :func:`check_recall`, and as :func:`harness_ext.tasks.facts.rows`.
        FactError: as :func:`harness_ext.tasks.facts.rows`.
    """
    _check(condition, options)
    by_relation, by_id = answers_by_relation(facts), {fact.id: fact for fact in facts}
    made: list[dict[str, Any]] = []
    for plain, helped in zip(rows(facts, condition, options), rows(facts, condition, _with_help(options)), strict=True):
        fact = by_id[plain["id"]]
        others = contradicting(by_relation[fact.relation], fact.answers)
        answers = [fact.answers[0], *_some(others, plain["choices"], options, len(made))]
        order = np.random.RandomState([options.seed, 0x4ECA, len(made)]).permutation(len(answers))
        made.append(
            plain
            | {
                "ranked": [answers[place] for place in order],
                "ranked_target": order.tolist().index(0),
                "helped_prompt": helped["prompt"],
                "helper": helped["shots"][-1],
            }
        )
    return made


def _some(others: Sequence[str], choices: Sequence[str], options: Options, item: int) -> list[str]:
    """The wrong answers to rank: all, or the choices and a random part of the rest."""
    if not options.ranked or len(others) < options.ranked:
        return list(others)
    chosen = [answer for answer in others if answer in choices]
    rest = [answer for answer in others if answer not in choices]
    drawn = np.random.RandomState([options.seed, 0x4ECB, item]).permutation(len(rest))[: options.ranked - 1 - len(chosen)]
    return chosen + [rest[place] for place in drawn]


def _with_help(options: Options) -> Options:
    return replace(options, shots=options.shots + 1)


def _check(condition: str, options: Options) -> None:
    if condition != "closed":
        raise BadOptionError(f"recall: true, condition={shown(condition)}: recall is asked closed-book: want closed")
    if not options.choices:
        raise BadOptionError("facts_choices=0: the right answer is recognised among several: want at least 2")
    if options.ranked and options.ranked < options.choices:
        raise BadOptionError(f"facts_ranked={options.ranked}: want 0 (all answers) or at least facts_choices={options.choices}")
