"""Needles: who knows the categories of words is right, the question repeats no content word of the text, and others guess."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.tasks import dials
from harness_ext.tasks.needle import Options, item
from harness_ext.tasks.words import read_categories

CATEGORY_OF = {word: name for name, words in read_categories(None).items() for word in words}
CALLED = {  # written anew: what a reader of English understands by a question
    "mammal": "mammals",
    "bird": "birds",
    "fruit": "fruits",
    "vegetable": "vegetables",
    "piece of clothing": "clothes",
    "piece of furniture": "furniture",
    "vehicle": "vehicles",
    "musical instrument": "musical instruments",
}
FUNCTION_WORDS = {"the", "is", "with", "of", "a", "in", "on", "by", "as", "no", "was", "had", "been", "to", "than", "from", "for", "be"}
EACH = [{"length": 0}, {"length": 100}, {"length": 400}, {"length": 400, "people": 3, "shots": 0}, {"length": 100, "shots": 4}]
NEEDLE = re.compile(r"The ([a-z]+) is with ([A-Z][a-z]+)\.")


def made(items, **options):
    return [item(Options(**options), index) for index in range(items)]


def right(row):
    return row["choices"][row["target"]]


def parts_of(prompt):
    """Of each text: the text, what is asked for, and the answer if it is told."""
    parts = []
    for part in prompt.split("\n\n"):
        text, asked = part.split("\n")
        parts.append((text, *re.fullmatch(r"The (.+) is with ?([A-Z][a-z]+)?", asked).groups()))
    return parts


@pytest.mark.parametrize("options", EACH, ids=str)
def test_who_knows_the_categories_is_right_also_in_the_exemplars(options):
    for row in made(64, **options):
        *shots, (text, asked, told) = parts_of(row["prompt"])
        assert told is None
        assert len(shots) == options.get("shots", 2)
        for text_, asked_, answer in [*shots, (text, asked, right(row))]:
            people = {CATEGORY_OF[word]: name for word, name in NEEDLE.findall(text_)}
            assert len(people) == options.get("people", 4)
            assert people[CALLED[asked_]] == answer
        assert {name for _, name in NEEDLE.findall(text)} == set(row["choices"])
        assert f" {row['needle']}" in f" {text}"
        assert right(row) in row["needle"]


@pytest.mark.parametrize("options", EACH, ids=str)
def test_the_question_shares_no_content_word_with_the_text(options):
    for row in made(64, **options):
        for text, asked, _ in parts_of(row["prompt"]):
            content = set(asked.lower().split()) - FUNCTION_WORDS
            assert content
            read = re.findall(r"[a-z]+", text.lower())
            assert not [word for word in read for part in content if part in word]


def test_filler_names_nobody_and_no_thing_and_never_twice_the_same():
    for row in made(32, length=400):
        text, *_ = parts_of(row["prompt"])[-1]
        sentences = [sentence + "." for sentence in text.rstrip(".").split(". ")]
        filler = [sentence for sentence in sentences if not NEEDLE.fullmatch(sentence)]
        assert len(filler) == len(set(filler)) == len(sentences) - 4
        words = {word for sentence in filler for word in re.findall(r"[A-Za-z]+", sentence)}
        assert not words & set(CATEGORY_OF)
        assert not words & {name for row in made(64) for name in row["choices"]}
        assert 400 <= sum(len(sentence.split()) for sentence in filler) < 420


def test_the_word_control_repeats_the_word_of_the_text():
    for row in made(32, ask="word"):
        text, asked, _ = parts_of(row["prompt"])[-1]
        assert dict(NEEDLE.findall(text))[asked] == right(row)


def test_the_control_has_the_same_texts():
    for category, word in zip(made(8), made(8, ask="word"), strict=True):
        assert parts_of(category["prompt"])[-1][0] == parts_of(word["prompt"])[-1][0]
        assert right(category) == right(word)


@pytest.mark.parametrize("people", [2, 3, 4])
def test_the_needle_takes_every_depth_and_the_answer_every_place(people):
    rows = made(1200, length=400, people=people)
    depths = Counter(int(row["depth"] * 4.999) for row in rows)
    assert set(depths) == set(range(5))
    assert max(depths.values()) < 1.5 * min(depths.values())
    order = Counter([name for _, name in NEEDLE.findall(parts_of(row["prompt"])[-1][0])].index(right(row)) for row in rows)
    assert set(order.values()) == {1200 // people}
    targets = Counter(row["target"] for row in rows)
    assert set(targets.values()) == {1200 // people}


def test_readers_who_do_not_use_the_question_score_chance():
    hits = Counter()
    rows = made(1024, length=100)
    for row in rows:
        *shots, (text, _, _) = parts_of(row["prompt"])
        names = [name for _, name in NEEDLE.findall(text)]
        last = shots[-1]
        place = [name for _, name in NEEDLE.findall(last[0])].index(last[2])
        guesses = {"first": names[0], "last": names[-1], "first choice": row["choices"][0], "alphabet": min(names), "place": names[place]}
        hits.update(name for name, guess in guesses.items() if guess == right(row))
    for name, count in hits.items():
        assert abs(count - 256) < 4 * (1024 * 3 / 16) ** 0.5, name


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"length": -1}, ["needle_length=-1"]),
        ({"people": 5}, ["needle_people=5", "4"]),
        ({"shots": 5}, ["needle_shots=5", "4"]),
        ({"ask": "words"}, ["needle_ask='words'", "Did you mean 'word'?"]),
        ({"lenght": 100}, ["'needle_lenght'", "Did you mean 'needle_length'?"]),
    ],
)
def test_an_impossible_option_is_refused(options, parts):
    with raises_line(BadOptionError, *parts):
        dials.check_task(dial="needle", **{f"needle_{name}": value for name, value in options.items()})
