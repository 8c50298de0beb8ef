"""TriviaQA, PopQA, CounterFact, NQ-open and WebQuestions as fact tasks: from the Hugging Face hub, or from a local file of such rows."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError, UnknownNameError, did_you_mean, one_line, shown
from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options, options_of
from harness_ext.tasks.facts import FactError, check_condition, check_shots_and_form, count_rows, rows
from harness_ext.tasks.hub_rows import SETS, HubSet, RowError, pool
from harness_ext.tasks.options import TaskOptions, checked, whole

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

POPULARITY = ("tail", "torso", "head")


class HubError(FactError):
    """A data set that cannot be loaded, or a local file of its rows that cannot be read."""


def _check_rows(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadOptionError(f"{name}={shown(value)}: want the path of a JSON or JSONL file")


class HubOptions(TaskOptions):
    """The options of the hub sets, with the prefix ``hub_``.

    Attributes:
        rows: A local file of rows to use instead of the hub; none by default.
        words: Largest number of words in a TriviaQA passage.
    """

    prefix: ClassVar[str] = "hub_"
    rows: str | None = checked(None, _check_rows)
    words: int = whole(120, 10, 10**5)


check_options = HubOptions.check_metadata


def reads(**_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (Options.prefix, HubOptions.prefix)


def check_task(*, condition: str, data: str, **metadata: Any) -> Options:
    """Checks the options of a task without loading its data. A local file is read only if exemplars are drawn from it.

    Args:
        condition: ``closed``, ``open`` or ``override``; set in the task's YAML.
        data: ``triviaqa``, ``popqa``, ``counterfact``, ``nq_open`` or ``webqs``; set in the task's YAML.
        metadata: options ``hub_*`` (see :class:`HubOptions`) and ``facts_*``. Other names are ignored.

    Raises:
        UnknownNameError, BadOptionError: a condition, set or option is unknown or impossible, or the condition needs a passage and the
            rows of the set have none.
        HubError: ``hub_rows`` does not exist, or cannot be read for exemplars.
        FactError: a kind of question in ``hub_rows`` has too few facts for the exemplars.
    """
    check_condition(condition)
    if data not in SETS:
        raise UnknownNameError(f"no hub set named {shown(data)}.{did_you_mean(data, SETS)} Sets: {', '.join(SETS)}")
    if condition != "closed" and not SETS[data].evidence:
        raise BadOptionError(f"data={data}, condition={condition}: its rows have no passage that states the answer: want closed")
    own = HubOptions.from_metadata(metadata)
    if own.rows and not os.path.isfile(os.path.expanduser(own.rows)):
        raise HubError(f"hub_rows={own.rows}: no such file")
    options = options_of(metadata)
    if options.form not in (None, SETS[data].form):
        raise BadOptionError(f"data={data}, facts_form={options.form}: its rows have no {options.form}: want {SETS[data].form}")
    if own.rows and options.shots:
        check_shots_and_form(facts_of(data, own.rows, own.words), options)
    return options


def load(*, condition: str, data: str, **metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the tasks. Arguments as for :func:`check_task`.

    Raises:
        HubError: the data set cannot be loaded, or ``hub_rows`` cannot be read.
        FactError: a row breaks the schema of the set, or no item can be made from it.
    """
    import datasets

    options, own = check_task(condition=condition, data=data, **metadata), HubOptions.from_metadata(metadata)
    found = facts_of(data, own.rows, own.words)
    return {"test": datasets.Dataset.from_list(rows(found, condition, options))}


def count(*, condition: str, data: str, **metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`load`."""
    options, own = check_task(condition=condition, data=data, **metadata), HubOptions.from_metadata(metadata)
    if options.items and options.known is None:
        return options.items
    return count_rows(facts_of(data, own.rows, own.words), options)


def facts_of(data: str, file: str | None, words: int) -> list[Fact]:
    """The facts of a set, in its order. Rows without a page that states an answer are left out, and their number is logged."""
    source = SETS[data]
    given = read_rows(Path(file).expanduser()) if file else _hub_rows(source)
    try:
        parsed = [source.parse(number, row, words) for number, row in enumerate(given)]
    except RowError as error:
        raise RowError(f"{f'hub_rows={file}' if file else source.path}: {error}") from error
    found = [fact for fact in parsed if fact is not None]
    if dropped := len(parsed) - len(found):
        log.warning("%s: %d of %d rows have no page that states an answer: left out of all conditions", data, dropped, len(parsed))
    if not found:
        raise HubError(f"{f'hub_rows={file}' if file else source.path}: none of {len(parsed)} rows of {data} gives a fact")
    if source.pooled:
        found = pool(found)
    return with_popularity(found) if data == "popqa" else found


def with_popularity(given: list[Fact]) -> list[Fact]:
    """Adds the column ``popularity``: the third of the set, ranked by page views of the subject. Ties keep the order of the set."""
    views = np.array([fact.extra["s_pop"] for fact in given if fact.extra])
    rank = np.empty(len(given), dtype=np.int64)
    rank[np.argsort(views, kind="stable")] = np.arange(len(given))
    thirds = (rank * len(POPULARITY) // len(given)).tolist()
    return [replace(fact, extra={**(fact.extra or {}), "popularity": POPULARITY[third]}) for fact, third in zip(given, thirds, strict=True)]


def read_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """Reads the rows of a local file: a JSON list of objects, or one JSON object per line.

    Raises:
        HubError: the file is wrong; the message names the file, and the line or row.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HubError(f"hub_rows={file}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise HubError(f"hub_rows={file}: not UTF-8 at byte {error.start}") from error
    if not text.strip():
        raise HubError(f"hub_rows={file}: the file is empty: want rows in JSON or JSONL")
    for place, row in _json_list(file, text) if text.lstrip().startswith("[") else _json_lines(file, text):
        if not isinstance(row, dict):
            raise HubError(f"hub_rows={file}: {place}: want an object, found {shown(str(row)[:80])}")
        yield row


def _json_list(file: Path, text: str) -> Iterable[tuple[str, Any]]:
    try:
        return [(f"row {number}", row) for number, row in enumerate(json.loads(text))]
    except (json.JSONDecodeError, RecursionError) as error:
        raise HubError(f"hub_rows={file}: not JSON: {error}") from error


def _json_lines(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise HubError(f"hub_rows={file}: line {number}: not JSON: {error}") from error


def _hub_rows(source: HubSet) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        loaded = datasets.load_dataset(source.path, source.config, split=source.split)
    except Exception as error:  # the errors of the hub client differ between versions
        reason = one_line(error)
        raise HubError(
            f"{source.path}: cannot be loaded from the hub ({type(error).__name__}: {reason}). Without a network, "
            f'pass --metadata \'{{"hub_rows": "FILE"}}\' with its rows in JSON or JSONL'
        ) from error
    missing = [column for column in source.columns if column not in loaded.column_names]
    if missing:
        raise HubError(f"{source.path}: no column {missing[0]!r}. Columns: {', '.join(loaded.column_names)}")
    return iter(loaded.select_columns(list(source.columns)))
