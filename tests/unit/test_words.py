"""Words of categories with arbitrary labels: what the prompt tells, what it does not, and word lists that are refused."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest
from refusals import raises_line

from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.tasks.icl import Options, check_task, item
from harness_ext.tasks.words import LABELS, read_categories

ITEMS = 300
CATEGORY_OF = {word: name for name, words in read_categories(None).items() for word in words}


def made(family="words", items=ITEMS, **options):
    chosen = Options(**({"exemplars": 16} | options))
    return [item(family, chosen, index) for index in range(items)]


def lines_of(row):
    """(word, label) of each exemplar, and the word that is asked for, read from the prompt alone."""
    *lines, last = row["prompt"].split("\n")
    assert last.endswith(" ->")
    return [tuple(line.split(" -> ")) for line in lines], last.removesuffix(" ->")


def test_the_packages_own_words_are_twelve_categories_of_twenty_single_words():
    categories = read_categories(None)
    assert [len(words) for words in categories.values()] == [20] * 12
    assert len(CATEGORY_OF) == 240
    assert all(word.isascii() and word.isalpha() and word.islower() for word in CATEGORY_OF)


@pytest.mark.parametrize("labels", [2, 3, 4])
@pytest.mark.parametrize("exemplars", [8, 16, 17])
def test_who_knows_the_categories_is_always_right(labels, exemplars):
    for row in made(labels=labels, exemplars=exemplars):
        exemplars_, query = lines_of(row)
        label_of = {CATEGORY_OF[word]: label for word, label in exemplars_}
        assert len(label_of) == labels
        assert label_of[CATEGORY_OF[query]] == row["choices"][row["target"]]
        assert row["choices"] == list(LABELS[:labels])


@pytest.mark.parametrize("family", ["words", "words_shuffled"])
@pytest.mark.parametrize(("labels", "exemplars"), [(2, 16), (4, 16), (3, 16)])
def test_labels_and_categories_are_balanced_and_no_word_occurs_twice(family, labels, exemplars):
    targets = Counter()
    for row in made(family, labels=labels, exemplars=exemplars):
        shown, query = lines_of(row)
        words = [word for word, _ in shown]
        assert len({*words, query}) == exemplars + 1
        for counts in (Counter(label for _, label in shown), Counter(CATEGORY_OF[word] for word in words)):
            assert len(counts) == labels
            assert max(counts.values()) - min(counts.values()) <= (exemplars % labels > 0)
        targets[row["target"]] += 1
    assert max(targets.values()) - min(targets.values()) <= 1


@pytest.mark.parametrize("family", ["words", "words_shuffled"])
def test_the_first_the_last_and_a_constant_label_are_guesses(family):
    rows = made(family, items=2000)
    for guess in (lambda shown: shown[0][1], lambda shown: shown[-1][1], lambda shown: "A"):
        right = sum(guess(lines_of(row)[0]) == row["choices"][row["target"]] for row in rows)
        assert abs(right - 1000) < 4 * 500**0.5  # four standard errors of 2,000 guesses


def test_a_category_has_every_label_in_some_items():
    labels = defaultdict(set)
    for row in made():
        for word, label in lines_of(row)[0]:
            labels[CATEGORY_OF[word]].add(label)
    assert len(labels) == 12
    assert all(each == {"A", "B"} for each in labels.values())


def test_shuffled_labels_are_independent_of_the_categories():
    agree = 0
    rows = made("words_shuffled", items=2000)
    for row in rows:
        shown, query = lines_of(row)
        by_category = defaultdict(Counter)
        for word, label in shown:
            by_category[CATEGORY_OF[word]][label] += 1
        assert all(counts == {"A": 4, "B": 4} for counts in by_category.values())
        alike = [label for word, label in shown if CATEGORY_OF[word] == CATEGORY_OF[query]]
        agree += alike[-1] == row["choices"][row["target"]]
    assert abs(agree - 1000) < 4 * 500**0.5


def test_an_item_is_a_function_of_the_seed_and_its_place():
    first, again, other, fewer = made(), made(), made(seed=1), made(items=7)
    assert first == again
    assert first[:7] == fewer
    assert sum(a["prompt"] != b["prompt"] for a, b in zip(first, other, strict=True)) > ITEMS - 5
    assert len({row["prompt"] for row in first}) == ITEMS


def test_words_of_ones_own(tmp_path):
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"x": ["a", "b", "c"], "y": ["d", "e", "New York"]}))
    options = check_task(family="words", icl_exemplars=4, icl_categories=str(file))
    assert set("abc") <= {word for index in range(50) for word in item("words", options, index)["words"]}
    file.write_text(json.dumps({"x": ["f", "g", "h"], "y": ["i", "j", "k"]}))
    assert set(item("words", options, 0)["words"]) <= set("fghijk")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"x": ["a", "b"], "y": ["c", "B"]}, ["'B'", "'x'", "'y'"]),
        ({"x": ["a", "a"], "y": ["c", "d"]}, ["'a'", "'x'"]),
        ('{"x": ["a"], "x": ["b"], "y": ["c"]}', ["'x'", "twice"]),
        ({"x": ["a", "b"]}, ["two categories"]),
        (["a", "b"], ["JSON object"]),
        ({"x": ["a", 3], "y": ["c", "d"]}, ["'x'", "3"]),
        ({"x": ["a", " "], "y": ["c", "d"]}, ["'x'", "' '"]),
        ({"x": ["a", "b\nc"], "y": ["c", "d"]}, ["'x'", "b"]),
        ({"x": "ab", "y": ["c"]}, ["list"]),
        ("{", ["cannot be read"]),
        (b"\xff\xfe", ["cannot be read"]),
        ({"x": ["a", "b", "c"], "y": ["d", "e"]}, ["'y'", "icl_exemplars=4", "3"]),
    ],
)
def test_a_list_of_words_that_no_item_can_be_made_of_is_refused(tmp_path, content, parts):
    file = tmp_path / "words.json"
    file.write_bytes(content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode())
    with raises_line(BadOptionError, *parts):
        check_task(family="words", icl_exemplars=4, icl_categories=str(file))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"icl_categories": "/nowhere/words.json"}, ["icl_categories=", "cannot be read"]),
        ({"icl_categories": 3}, ["icl_categories=3", "file"]),
        ({"icl_exemplars": 40}, ["icl_exemplars=40", "20", "21"]),
        ({"icl_exemplars": 1}, ["icl_exemplars=1"]),
        ({"icl_exmplars": 8}, ["'icl_exmplars'", "Did you mean 'icl_exemplars'?"]),
    ],
)
def test_an_impossible_option_is_refused(options, parts):
    with raises_line(BadOptionError, *parts):
        check_task(family="words", **({"icl_exemplars": 16} | options))


def test_more_labels_than_categories_and_an_unknown_family_are_refused(tmp_path):
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"x": ["a", "b", "c"], "y": ["d", "e", "f"]}))
    with raises_line(BadOptionError, "icl_labels=3", "2 categories"):
        check_task(family="words", icl_exemplars=3, icl_labels=3, icl_categories=str(file))
    with raises_line(UnknownNameError, "'word'", "Did you mean 'words'?"):
        check_task(family="word")
