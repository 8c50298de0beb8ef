"""The scores of one item: SQuAD's exact match, and the ranking of choices."""

from __future__ import annotations

import string

import numpy as np
import pytest

from harness_ext.tasks import icl
from harness_ext.tasks.scoring import above_chance, likeliest, matches, normalise, score_choices

PIECES = [
    "The", "the", "AN", "a", "A", "an", "Theatre", "anthem", "Paris", "ÉCOLE", "straße", "東京", "a_b", "the_", "O'Neill", "U.S.", "3.5",
    "\u2013", "\u2014the", "an\u2019a", "\u0301", "\u00a0", "\u2003", "\t", "\n", " ", "  ", *"().,;:!?-_\"'$+*[]\\",
]  # fmt: skip


def described(text):
    """Lower case, no punctuation, no articles, no extra white space: word by word, without regular expressions."""
    kept = [character for character in text.lower() if character not in string.punctuation]
    words, run = [], ""
    for character in [*kept, " "]:
        if character.isalnum():
            run += character
            continue
        words.append(" " if run in {"a", "an", "the"} else run)
        words.append(character)
        run = ""
    return " ".join("".join(words).split())


def test_answers_are_normalised_as_squad_describes():
    rng = np.random.RandomState([0])
    for _ in range(1000):
        text = "".join(PIECES[i] + " " * rng.randint(2) for i in rng.randint(len(PIECES), size=rng.randint(8)))
        assert normalise(text) == described(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "beatles"),
        ("An apple a day.", "apple day"),
        ("Theatre of another Anthem", "theatre of another anthem"),
        ("U.S.A.", "usa"),
        ("A.", ""),
        ("...", ""),
        ("", ""),
        ("the_end", "theend"),
        ("Saint-Étienne", "saintétienne"),
    ],
)
def test_an_answer_is_normalised(text, expected):
    assert normalise(text) == expected
    assert normalise(normalise(text)) == expected


@pytest.mark.parametrize(
    ("completion", "answers", "expected"),
    [
        ("Paris", ["Paris"], True),
        (" paris.", ["Paris"], True),
        (" the PARIS", ["Paris"], True),
        ("\n Paris", ["Paris"], True),  # some models begin with a line break
        ("Paris, the capital", ["Paris"], True),
        ("Paris (France)", ["Paris"], True),
        ("Paris\nQuestion: Who?", ["Paris"], True),
        ("Paris! Of course", ["Paris"], True),
        ("Paris Saint-Germain", ["Paris"], False),
        ("Paris is the capital", ["Paris"], False),
        ("not Paris", ["Paris"], False),
        ("Lyon, Paris", ["Paris"], False),
        ("Lyon\nParis", ["Paris"], False),
        ("Parisian", ["Paris"], False),
        ("St. Louis", ["St. Louis"], True),
        ("St. Louis, Missouri. It", ["St. Louis"], True),
        ("St. Louis", ["St"], True),  # what ends where a clause may end counts
        ("St Louis", ["St. Louis"], True),
        ("St. Paul", ["St. Louis"], False),
        ("Washington, D.C.", ["Washington, D.C."], True),
        ("Washington, D.C. is", ["Washington, D.C."], True),
        ("3.5 million", ["3.5 million"], True),
        ("", ["Paris"], False),
        (" \n", ["Paris"], False),
        (".", ["Paris"], False),
        ("The", ["Paris"], False),
        ("Paris", [], False),
        ("", ["", "the", "..."], False),  # an answer of which nothing is left is no answer
        ("the.", ["The", "!"], True),
        ("A+", ["A+", "AB+"], True),
        ("a", ["A+", "AB+"], False),
        ("AB+, I think", ["A+", "AB+"], True),
        ("the book", ["the"], False),
        ("Lutetia", ["Paris", "Lutetia"], True),
        ("東京", ["東京"], True),
        ("ZÜRICH.", ["Zürich"], True),
    ],
)
def test_a_completion_matches_if_it_is_an_answer_up_to_where_a_clause_may_end(completion, answers, expected):
    assert matches(completion, answers) is expected
    assert matches(completion, iter(answers)) is expected


@pytest.mark.parametrize("choices", [2, 16])
def test_a_score_above_chance_is_zero_for_chance_and_one_for_all_right(choices):
    assert above_chance(1, choices) == 1
    assert above_chance(1 / choices, choices) == 0
    right = [1.0, 0.0, 0.0, 1.0, 0.0]
    assert np.mean([above_chance(score, choices) for score in right]) == pytest.approx(above_chance(0.4, choices))


def test_the_likeliest_choice_is_the_first_of_the_highest():
    for _ in range(3):
        assert likeliest([(-3.0, False), (-1.0, False), (-1.0, True), (-9.0, False)]) == 1
    assert likeliest([(float("-inf"), False), (-1000.0, False)]) == 1


def test_the_icl_tasks_are_scored_by_the_same_function():
    assert icl.process_results is score_choices
    assert score_choices({"target": 2}, [(-3.0, False), (-4.0, False), (-1.0, True)]) == {"acc": 1, "acc_norm_chance": 1, "exact_match": 1}
    assert score_choices({"target": 0}, [(-3.0, False), (-1.0, True)]) == {"acc": 0, "acc_norm_chance": -1, "exact_match": 0}
