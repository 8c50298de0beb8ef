"""Fact tasks about synthetic people: facts that the embedded models memorised, and facts about people unseen in training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from harness_ext.errors import BadOptionError, UnknownNameError, did_you_mean, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options, options_of
from harness_ext.tasks.facts import ask, check_condition, count_rows, rows
from harness_ext.tasks.people import People, population
from harness_ext.tasks.recall import check_recall, recall_rows

if TYPE_CHECKING:
    import datasets

GROUPS = ("memorised", "unseen")

check_options = Options.check_metadata


def reads(**_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (Options.prefix,)


def check_task(*, condition: str, people: str, recall: bool = False, **metadata: Any) -> Options:
    """Checks the options of a task without making its items.

    Args:
        condition: ``closed``, ``open`` or ``override``; set in the task's YAML.
        people: ``memorised`` or ``unseen``; set in the task's YAML.
        recall: whether the items are those of :mod:`harness_ext.tasks.recall`; set in the task's YAML.
        metadata: metadata of the task. Names that do not begin with ``facts_`` are ignored.

    Raises:
        UnknownNameError, BadOptionError: a condition, group of people or option is unknown or impossible, or facts of unseen people are
            asked closed-book.
    """
    check_condition(condition)
    if people not in GROUPS:
        raise UnknownNameError(f"no people named {shown(people)}.{did_you_mean(people, GROUPS)} People: {', '.join(GROUPS)}")
    if people == "unseen" and condition == "closed":
        raise BadOptionError("people=unseen, condition=closed: nobody was ever told these facts: want open or override")
    options = options_of(metadata)
    if options.form == "sentence":
        raise BadOptionError("facts_form=sentence: facts about people are asked as questions: want question")
    everyone = population(0)
    most = len(getattr(everyone, people)) * len(everyone.attributes)
    if options.items > most:
        raise BadOptionError(f"facts_items={options.items}: there are {most} facts about {people} people to draw from")
    if recall:
        check_recall(facts_of(everyone, people), condition, options)
    return options


def load(*, condition: str, people: str, recall: bool = False, **metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the tasks. Arguments and errors as for :func:`check_task`."""
    import datasets

    options = check_task(condition=condition, people=people, recall=recall, **metadata)
    return {"test": datasets.Dataset.from_list((recall_rows if recall else rows)(facts_of(population(0), people), condition, options))}


def count(*, condition: str, people: str, recall: bool = False, **metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`check_task`."""
    options = check_task(condition=condition, people=people, recall=recall, **metadata)
    return count_rows(facts_of(population(0), people), options)


@functools.lru_cache(maxsize=4)  # making the facts takes longer than making the items of a task
def facts_of(everyone: People, people: str) -> list[Fact]:
    """The four facts of each person. Facts of unseen people are drawn here, uniformly and independently of the name."""
    persons = getattr(everyone, people)
    values = everyone.facts
    if people == "unseen":
        values = np.random.RandomState([0, 0x0D7A]).randint(0, 64, size=(len(persons), len(everyone.attributes)))
    facts = []
    for person, row in zip(persons, values.tolist(), strict=True):
        for attribute, value in zip(everyone.attributes, row, strict=True):
            answer = attribute.values[value]
            facts.append(
                Fact(
                    id=f"{attribute.name}/{person}",
                    relation=attribute.name,
                    subject=str(person),
                    question=ask(attribute.question.format(person)),
                    answers=(answer,),
                    evidence=attribute.statement.format(person, answer),
                )
            )
    return facts
