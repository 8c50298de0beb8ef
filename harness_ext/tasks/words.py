"""Items of words from several categories. Each category has an arbitrary label, which the model must learn from the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from harness_ext.errors import BadOptionError, shown

Categories = Mapping[str, Sequence[str]]

WORD_FAMILIES = ("words", "words_shuffled")
LABELS = "ABCDEFGHIJ"
SHIPPED = Path(__file__).with_name("words.json")


def read_categories(file: str | None) -> Categories:
    """Reads the words of each category, from a JSON file or from the package's own file.

    Raises:
        BadOptionError: the file is not an object with at least two lists, a word has several lines, or a word occurs twice.
    """
    path = Path(file).expanduser() if file else SHIPPED
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise BadOptionError(f"icl_categories={path}: cannot be read: {error}") from error


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Categories:
    name = f"icl_categories={path}"
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadOptionError(f"{name}: cannot be read: {error}") from error
    except _TwiceError as error:
        raise BadOptionError(f"{name}: the category {shown(str(error))} occurs twice: names are unique") from error
    if not isinstance(content, dict) or len(content) < 2 or not all(isinstance(words, list) for words in content.values()):
        raise BadOptionError(f"{name}: want a JSON object with a list of words for each of at least two categories")
    first: dict[str, str] = {}
    for category, words in content.items():
        for word in words:
            if not isinstance(word, str) or not word.strip() or len(word.splitlines()) > 1:
                raise BadOptionError(f"{name}: category {shown(category)} has {shown(word)}: want a word")
            if (spelling := word.strip().casefold()) in first:
                raise BadOptionError(
                    f"{name}: the word {shown(word)} is in {shown(first[spelling])} and in {shown(category)}: want it once"
                )
            first[spelling] = category
    return {category: tuple(word.strip() for word in words) for category, words in content.items()}


class _TwiceError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for place, (key, _) in enumerate(pairs):
        if key in (other for other, _ in pairs[:place]):
            raise _TwiceError(key)
    return dict(pairs)


def check_enough(categories: Categories, labels: int, exemplars: int) -> None:
    """Checks that any drawn categories have enough words for an item.

    Raises:
        BadOptionError: there are fewer categories than labels, or a category has fewer words than its exemplars and a query.
    """
    if labels > len(categories):
        raise BadOptionError(f"icl_labels={labels}: there are {len(categories)} categories of words, and each label is one of them")
    most = -(-exemplars // labels)
    category = min(categories, key=lambda name: len(categories[name]))
    if len(categories[category]) <= most:
        raise BadOptionError(
            f"icl_exemplars={exemplars}: category {shown(category)} has {len(categories[category])} words: want at least {most + 1}, "
            f"{most} exemplars and a query"
        )


def word_item(categories: Categories, *, labels: int, exemplars: int, seed: int, index: int, shuffled: bool) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only.

    Args:
        labels: number of drawn categories. Each has one label.
        shuffled: whether labels are random. Each category then has all labels equally often, and the right label does not depend on the
            query.

    Returns:
        ``prompt``, ``choices`` (the labels), ``target`` (index of the right label), ``categories`` (in the order of their labels, unless
        shuffled), ``words`` (the query last) and ``labels``. All labels and all categories have equally many exemplars, up to one.
    """
    rng = np.random.RandomState([seed, 0x30D5, labels, index, int(shuffled)])
    names = sorted(categories)
    drawn = [names[place] for place in rng.permutation(len(names))[:labels]]
    target = index % labels
    counts = np.full(labels, exemplars // labels)
    counts[rng.permutation(labels)[: exemplars % labels]] += 1
    asked = int(rng.randint(labels)) if shuffled else target
    words: list[str] = []
    query = ""
    for place, name in enumerate(drawn):
        order = rng.permutation(len(categories[name]))
        words += [categories[name][i] for i in order[: counts[place]]]
        if place == asked:
            query = categories[name][order[counts[place]]]
    exemplar_labels = np.repeat(np.arange(labels), counts)
    if shuffled:
        exemplar_labels = rng.permutation(labels)[np.arange(exemplars) % labels]
    order = rng.permutation(exemplars)
    shown_labels = [int(exemplar_labels[i]) for i in order]
    shown_words = [words[i] for i in order]
    lines = [f"{word} -> {LABELS[label]}" for word, label in zip(shown_words, shown_labels, strict=True)]
    return {
        "prompt": "\n".join([*lines, f"{query} ->"]),
        "choices": list(LABELS[:labels]),
        "target": target,
        "categories": drawn,
        "words": [*shown_words, query],
        "labels": [*shown_labels, target],
    }
