"""Counting words: who counts is right, and who does anything simpler guesses."""

from __future__ import annotations

from collections import Counter

import pytest
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.tasks import dials
from harness_ext.tasks.counting import WORDS, Options, item

EACH = [{"length": length} for length in (20, 40, 80, 160)]
MORE = [{"length": 12, "most": 3, "queries": 3}, {"length": 10, "queries": 0}, {"length": 90, "most": 9, "queries": 9}]


def made(items, **options):
    return [item(Options(**options), index) for index in range(items)]


def lines_of(prompt):
    """The words of the list, the questions with their numbers, and the last word that is asked for."""
    first, _, *asked, last = prompt.split("\n")
    return first.removeprefix("List: ").split(", "), [tuple(line.split(": ")) for line in asked], last.removesuffix(":")


@pytest.mark.parametrize("options", [*EACH, *MORE], ids=str)
def test_who_counts_is_right(options):
    read = Options(**options)
    for row in made(64, **options):
        listed, asked, query = lines_of(row["prompt"])
        counts = Counter(listed)
        assert len(listed) == read.length
        assert str(counts[query]) == row["choices"][row["target"]]
        assert [str(counts[word]) for word, _ in asked] == [number for _, number in asked]
        assert query not in dict(asked)
        assert set(Counter(counts.values()).values()) == {read.words // read.most}
        assert sorted(number for _, number in asked) == sorted(row["choices"] * (read.queries // read.most))


@pytest.mark.parametrize("options", EACH, ids=str)
def test_readers_who_do_not_count_the_word_score_chance(options):
    hits = Counter()
    rows = made(1024, **options)
    for row in rows:
        listed, asked, query = lines_of(row["prompt"])
        counts = Counter(listed)
        guesses = {"constant": "2", "last answered": asked[-1][1], "first answered": asked[0][1], "first choice": row["choices"][0]}
        guesses["most frequent"] = str(max(counts[word] for word in counts if counts[word] < 4))
        guesses["number of the nearest word"] = min(asked, key=lambda pair, query=query: abs(WORDS.index(pair[0]) - WORDS.index(query)))[1]
        hits.update(name for name, guess in guesses.items() if guess == row["choices"][row["target"]])
        hits.update(dict.fromkeys(guesses, 0))
    for name, count in hits.items():
        assert abs(count - 256) < 4 * (1024 * 3 / 16) ** 0.5, name


def test_the_word_that_is_asked_for_is_any_word():
    asked = Counter(lines_of(row["prompt"])[2] for row in made(1600))
    assert set(asked) == set(WORDS)
    assert max(asked.values()) < 20 + 5 * 20**0.5


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"length": 25}, ["counting_length=25", "multiple of 10"]),
        ({"length": 210}, ["counting_length=210", "84 different words", "80"]),
        ({"length": 10}, ["counting_queries=4", "at most 0"]),
        ({"queries": 3}, ["counting_queries=3", "counting_most=4"]),
        ({"most": 10}, ["counting_most=10", "9"]),
    ],
)
def test_an_impossible_option_is_refused(options, parts):
    with raises_line(BadOptionError, *parts):
        dials.check_task(dial="counting", **{f"counting_{name}": value for name, value in options.items()})
