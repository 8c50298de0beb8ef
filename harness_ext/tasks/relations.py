"""Reads real facts from JSON files of relations, in the format of LRE (Hernandez et al., arXiv 2308.09124).

A file has ``name``, templates with one ``{}`` for the subject, and ``samples`` with ``subject`` and ``object``. A folder is searched for
such files. The closed-book prompt is the first of ``prompt_templates_zs``, or else of ``prompt_templates``; the answer continues it. The
sentence that states a fact is the first of ``prompt_templates`` with the object. ``question`` asks for the object. The ten published
relations below have a question here.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.errors import BadOptionError, nearest, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options, options_of
from harness_ext.tasks.facts import FactError, ask, check_condition, check_shots_and_form, count_rows, rows
from harness_ext.tasks.recall import check_recall, recall_rows
from harness_ext.tasks.scoring import comparable, distinct

if TYPE_CHECKING:
    import datasets

OPTION = "relations"
LARGEST_FILE = 64 * 2**20  # bytes
LONGEST_TEXT = 1000  # characters of a subject or an object
MOST_REPEATED = 0.1

# Questions for published relations by name, because their files have no questions.
QUESTIONS = {
    "city in country": "In which country is {}?",
    "company hq": "In which city are the headquarters of {}?",
    "country capital city": "What is the capital of {}?",
    "country currency": "What is the official currency of {}?",
    "country language": "Which language do most people in {} speak?",
    "landmark on continent": "On which continent is {}?",
    "person occupation": "What is the occupation of {}?",
    "plays pro sport": "Which sport does {} play?",
    "product by company": "Which company created {}?",
    "star constellation name": "Which constellation is {} part of?",
}

check_options = Options.check_metadata


class RelationError(FactError):
    """A file that does not contain a relation, or a folder without such files."""


def reads(**_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (Options.prefix, OPTION)


def check_task(*, condition: str, recall: bool = False, **metadata: Any) -> Options:
    """Checks the options of a task without making its items. The relation files are read.

    Args:
        condition: ``closed``, ``open`` or ``override``; set in the task's YAML.
        recall: whether the items are those of :mod:`harness_ext.tasks.recall`; set in the task's YAML.
        metadata: ``relations`` (a file or folder) and the ``facts_*`` options. Other names are ignored.

    Raises:
        BadOptionError: ``relations`` is missing, an option is unknown or impossible, or a relation has no question and the form needs one.
        RelationError: a file cannot be read as a relation.
        FactError: a relation has too few facts for the exemplars.
    """
    check_condition(condition)
    options = options_of(metadata)
    check_shots_and_form(_facts(metadata), options)
    if recall:
        check_recall(_facts(metadata), condition, options)
    return options


def load(*, condition: str, recall: bool = False, **metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the tasks. Arguments and errors as for :func:`check_task`."""
    import datasets

    check_condition(condition)
    options = options_of(metadata)
    return {"test": datasets.Dataset.from_list((recall_rows if recall else rows)(_facts(metadata), condition, options))}


def count(*, condition: str, recall: bool = False, **metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`check_task`."""
    check_condition(condition)
    options = options_of(metadata)
    return count_rows(_facts(metadata), options)


def _facts(metadata: Mapping[str, Any]) -> list[Fact]:
    return [fact for relation in read_relations(_path(metadata)) for fact in relation]


def _path(metadata: Mapping[str, Any]) -> Path:
    path = metadata.get(OPTION)
    if path is None:
        near = nearest(OPTION, [name for name in metadata if name not in ("version", "config_source")])
        given = "" if near is None else f" Given was {near!r}."
        raise BadOptionError(f'the lre tasks need relation files: pass --metadata \'{{"{OPTION}": "DIR-or-FILE"}}\'.{given}')
    if not isinstance(path, str) or not path:
        raise BadOptionError(f"{OPTION}={shown(path)}: want the path of a relation file or of a folder with such files")
    return Path(path).expanduser()


def read_relations(path: Path) -> list[list[Fact]]:
    """Reads a file, or all ``*.json`` files below a folder in the order of their paths. Returns one list of facts for each relation.

    Raises:
        RelationError: the path does not exist, the folder has no files, two relations have one name, or as for :func:`read_relation`.
    """
    if os.path.isdir(path):
        files = sorted(path.rglob("*.json"))
        if not files:
            raise RelationError(f"{path}: no *.json file in this folder: want relation files")
    elif os.path.exists(path):
        files = [path]
    else:
        raise RelationError(f"{path}: no such file or folder: want a relation file or a folder with such files")
    relations, seen = [], dict[str, Path]()
    for file in files:
        status = file.stat()
        facts = list(_facts_of(file, status.st_mtime_ns, status.st_size))
        name = facts[0].relation
        if name in seen:
            raise RelationError(f"{file}: the relation {shown(name)} is already in {seen[name]}: names are unique")
        seen[name] = file
        relations.append(facts)
    return relations


@functools.lru_cache(maxsize=256)
def _facts_of(file: Path, modified: int, size: int) -> tuple[Fact, ...]:
    """The facts of a file with this time of its last change, in nanoseconds, and this size: several tasks of a run read the same files."""
    return tuple(read_relation(file))


def read_relation(file: Path) -> list[Fact]:
    """Reads the facts of one file.

    A subject that occurs several times, as in a few published files, becomes one fact, which accepts all its objects. If more than one
    subject in ten occurs several times, the relation has no single answer and is an error.

    Raises:
        RelationError: the file is wrong; the message names the file, the sample and the rule.
    """
    content = _parse(file)
    name = content.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RelationError(f"{file}: want a relation's 'name', found {shown(name)}.{_near('name', content)}")
    asked, stated = _template(file, content, "prompt_templates_zs", "prompt_templates"), _template(file, content, "prompt_templates")
    question = _question(file, content) if "question" in content else QUESTIONS.get(name, "")
    samples = content.get("samples")
    if not isinstance(samples, list) or not samples:
        raise RelationError(f"{file}: want a list 'samples' with at least one subject and object.{_near('samples', content)}")
    objects: dict[str, list[str]] = {}
    places: dict[str, list[int]] = {}
    for number, sample in enumerate(samples, start=1):
        subject, answers = _sample(file, number, sample)
        objects.setdefault(subject, []).extend(answers)
        places.setdefault(subject, []).append(number)
    repeated = [subject for subject, numbers in places.items() if len(numbers) > 1]
    if len(repeated) > MOST_REPEATED * len(places):
        first = repeated[0]
        raise RelationError(
            f"{file}: the subject {first!r} stands in samples {' and '.join(map(str, places[first]))}, "
            f"and {len(repeated)} of {len(places)} subjects stand more than once: want one answer for at least nine subjects in ten"
        )
    return [
        Fact(
            id=f"{name}/{subject}",
            relation=name,
            subject=subject,
            question=asked.replace("{}", subject),
            question_form=ask(question.replace("{}", subject)) if question else "",
            answers=distinct(answers),
            evidence=f"{stated.replace('{}', subject)} {answers[0]}.",
        )
        for subject, answers in objects.items()
    ]


def _parse(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise RelationError(f"{file}: {size:,} bytes: want at most {LARGEST_FILE:,}")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RelationError(f"{file}: not UTF-8 at byte {error.start}: want a JSON file in UTF-8") from error
    if not text.strip():
        raise RelationError(f"{file}: the file is empty: want a relation in JSON")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RelationError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RelationError(f"{file}: want a JSON object with 'name', 'prompt_templates' and 'samples', found a {type(content).__name__}")
    return content


def _template(file: Path, content: Mapping[str, Any], *names: str) -> str:
    name = next((name for name in names if content.get(name)), names[-1])
    templates = content.get(name)
    first = templates[0] if isinstance(templates, list) and templates else None
    if not isinstance(first, str):
        raise RelationError(f"{file}: want a list {shown(name)} of texts.{_near(name, content)}")
    if first.count("{}") != 1:
        raise RelationError(f"{file}: {shown(name)} begins with {shown(first[:80])}: want exactly one {{}} for the subject")
    return first


def _question(file: Path, content: Mapping[str, Any]) -> str:
    question = content["question"]
    if not isinstance(question, str) or question.count("{}") != 1:
        raise RelationError(f"{file}: 'question' is {shown(str(question)[:80])}: want a text with exactly one {{}} for the subject")
    return question.strip()


def _sample(file: Path, number: int, sample: Any) -> tuple[str, list[str]]:
    """The subject and the accepted answers of a sample: ``object``, which may be a list, and ``aliases``."""
    if not isinstance(sample, dict):
        raise RelationError(f"{file}: sample {number}: want an object with 'subject' and 'object', found {shown(str(sample)[:80])}")
    objects = sample.get("object")
    answers = [*(objects if isinstance(objects, list) else [objects]), *(sample.get("aliases") or [])]
    for key, values in (("subject", [sample.get("subject")]), ("object", answers)):
        for value in values or [None]:
            if not isinstance(value, str) or not comparable(value):
                raise RelationError(f"{file}: sample {number}: {key!r} is {shown(value)}: want a text.{_near(key, sample)}")
            if len(value) > LONGEST_TEXT:
                raise RelationError(f"{file}: sample {number}: {key!r} has {len(value):,} characters: want at most {LONGEST_TEXT:,}")
    return sample["subject"].strip(), [answer.strip() for answer in answers]


def _near(wanted: str, content: Mapping[str, Any]) -> str:
    """A hint for a missing key: the nearest key, or all keys."""
    if wanted in content:
        return ""
    near = nearest(wanted, content)
    return f" Found {near!r}." if near is not None else f" Keys: {', '.join(map(repr, content))[:120]}"
