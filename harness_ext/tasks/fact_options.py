"""The options of the fact tasks, and the file of known facts that ``facts_known`` names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from harness_ext.errors import BadOptionError, did_you_mean, shown
from harness_ext.tasks.options import LARGEST_SEED, TaskOptions, check_whole, checked, whole

FORMS = ("sentence", "question")
MOST_SHOTS = 1000


def _check_known(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise BadOptionError(f"{name}={shown(value)}: want the path of a file that harness-ext known-facts wrote")


def _check_choices(name: str, value: Any) -> None:
    check_whole(name, value, 0, 10**5)
    if value == 1:
        raise BadOptionError(f"{name}=1: want 0 (no ranking) or at least 2")


def _check_form(name: str, value: Any) -> None:
    if value is not None and value not in FORMS:
        raise BadOptionError(f"{name}={shown(value)}: want {' or '.join(FORMS)}.{did_you_mean(str(value), FORMS)}")


class Options(TaskOptions):
    """The options of the fact tasks, with the prefix ``facts_``.

    Attributes:
        items: Number of facts, drawn at random; 0 means all.
        choices: Largest number of ranked answers, including the right one and the substitute. 0 means no ranking.
        ranked: Largest number of answers that a task of recall ranks, the choices among them. 0 means all of the relation.
        distractors: Number of sentences around the one that states the fact. Up to half are about the subject, the rest about the relation.
        seed: Seed of the facts, passages, substitutes and choices.
        known: File written by ``harness-ext known-facts``. Of the drawn facts, only those in the file are kept.
        shots: Number of exemplars in the prompt. They are other facts of the relation, with their answers.
        form: ``sentence`` (to be continued) or ``question``. By default, the form in the source of the facts.
    """

    prefix: ClassVar[str] = "facts_"
    items: int = whole(0, 0, 10**7)
    choices: int = checked(16, _check_choices)
    ranked: int = whole(0, 0, 10**6)
    distractors: int = whole(5, 0, 1000)
    seed: int = whole(0, 0, LARGEST_SEED)
    known: str | None = checked(None, _check_known)
    shots: int = whole(0, 0, MOST_SHOTS)
    form: str | None = checked(None, _check_form)


def options_of(metadata: Mapping[str, Any]) -> Options:
    """Reads the options in the metadata of a task. Names without the prefix are ignored. The file of known facts is checked.

    Raises:
        BadOptionError: an option is unknown or impossible.
    """
    options = Options.from_metadata(metadata)
    if options.known is not None:
        known_ids(options.known)
    return options


def known_ids(path: str) -> set[str]:
    """Reads the ids in a file of known facts.

    Raises:
        BadOptionError: the file cannot be read, or ``harness-ext known-facts`` did not write it.
    """
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadOptionError(f"facts_known={path}: cannot be read: {error}") from error
    ids = content.get("known") if isinstance(content, dict) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) for name in ids):
        raise BadOptionError(f"facts_known={path}: want a JSON object with a non-empty list 'known', as harness-ext known-facts writes it")
    return set(ids)
