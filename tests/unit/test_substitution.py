"""Corpus substitution: which occurrences of an answer count, which are replaced, and which must stay."""

from __future__ import annotations

import numpy as np
import pytest
from occurrences import occurrences

from harness_ext.tasks.fact import Fact
from harness_ext.tasks.fact_options import Options
from harness_ext.tasks.facts import rows
from harness_ext.tasks.scoring import normalise
from harness_ext.tasks.substitution import contradicts, replace, states


@pytest.mark.parametrize(
    ("passage", "answers", "expected"),
    [
        ("Lima. LIMA, lima!", ["Lima"], "X. X, X!"),
        ("Limas Lima_ 2Lima Éliman Lima's", ["Lima"], "Limas Lima_ 2Lima Éliman X's"),
        ("New York and York", ["York", "New York"], "X and X"),
        ("New York and York", ["New York", "York"], "X and X"),
        ("York, New York, NY", ["New York", "York, New York", "York"], "X, NY"),
        ("New  \n York, New\u00a0York", ["New York"], "X, X"),
        ("What? (Nevada) Whata Nevada", ["What? (Nevada)"], "X Whata Nevada"),
        ("A+B*C AAB [A-Z]+ Q", ["A+B*C", "[A-Z]+"], "X AAB X Q"),
        ("C++ or C++11 or C", ["C++"], "X or C++11 or C"),
        ("$100 or 100", ["$100"], "X or 100"),
        ("ZÜRICH, Zürich, Zurich", ["zürich"], "X, X, Zurich"),
        ("ΑΘΉΝΑ or Αθήνα", ["Αθήνα"], "X or X"),
        ("東京 東京都", ["東京"], "X 東京都"),
        ("a.b axb", ["a.b"], "X axb"),
        ("nothing of it", ["Lima"], "nothing of it"),
        ("", ["Lima"], ""),
    ],
)
def test_literal_whole_words_are_replaced_in_any_case_and_the_longest_first(passage, answers, expected):
    assert replace(passage, answers, "X") == expected
    assert states(passage, answers) is (passage != expected)
    assert states(passage, answers) is any(occurrences(passage, answer) for answer in answers)


@pytest.mark.parametrize("substitute", [r"\1", r"\g<0>", "$0", "{}", "Lima"])
def test_a_substitute_is_put_in_as_it_is(substitute):
    assert replace("(Lima)", ["Lima"], substitute) == f"({substitute})"


def test_random_passages_hold_no_answer_after_a_replacement():
    rng = np.random.RandomState([7])
    words = ["New", "york", "York", "City", "NY.", "C++", "(a)", "\n", "été"]
    for _ in range(300):
        passage, *answers = (" ".join(words[i] for i in rng.randint(len(words), size=size)) for size in (12, 1, 2, 3))
        answers = [answer for answer in answers if normalise(answer)]
        if answers:
            assert not any(occurrences(replace(passage, answers, "zzz"), answer) for answer in answers)


@pytest.mark.parametrize(
    ("answer", "accepted", "expected"),
    [
        ("York", ["New York"], False),
        ("New York", ["York"], False),
        ("New York", ["Leeds", "york"], False),
        ("Yorkshire", ["York"], True),
        ("York", ["Yorkshire"], True),
        ("the Lima", ["Lima!"], False),
        ("Oslo", ["Lima", "Rome"], True),
        ("", ["Lima"], False),
        ("...", ["Lima"], True),
        ("A+", ["A-"], True),
        ("Lima", ["..."], True),
        ("Lima", [""], True),
        ("ZÜRICH", ["Zürich"], False),
    ],
)
def test_an_answer_contradicts_others_if_neither_holds_the_other_as_words(answer, accepted, expected):
    assert contradicts(answer, accepted) is expected


# --- a subject that states its own answer

COUNTRIES = {
    "Mexico City": "Mexico",
    "Guatemala City": "Guatemala",
    "Lima": "Peru",
    "Oslo": "Norway",
    "Singapore": "Singapore",
    "Quito": "Ecuador",
}
CAPITALS = [
    Fact(id=city, relation="in", subject=city, question=f"{city} is in", answers=(country,), evidence=f"{city} is in {country}.")
    for city, country in COUNTRIES.items()
]


@pytest.mark.parametrize(
    ("passage", "answers", "subject", "expected"),
    [
        ("Mexico City is in Mexico.", ["Mexico"], "Mexico City", "Mexico City is in X."),
        ("mexico  city, Mexico", ["Mexico"], "Mexico City", "mexico  city, X"),
        ("Mexico City is in Mexico.", ["Mexico"], "Lima", "X City is in X."),
        ("York is in New York", ["New York"], "York", "York is in X"),
        ("Singapore is in Singapore", ["Singapore"], "Singapore", "Singapore is in X"),
        ("Singapore", ["Singapore"], "Singapore", "X"),
        ("Lima is in Peru", ["Peru"], "", "Lima is in X"),
    ],
)
def test_an_answer_inside_the_subject_stays(passage, answers, subject, expected):
    assert replace(passage, answers, "X", subject=subject) == expected


def test_what_stays_inside_the_subject_is_not_stated():
    assert states("Mexico City", ["Mexico"])
    assert not states("mexico city is in Peru", ["Mexico"], besides="Mexico City")
    assert states("Mexico City is in Mexico", ["Mexico"], besides="Mexico City")


@pytest.mark.parametrize("seed", range(2))
def test_an_item_whose_subject_states_its_answer_still_asks_for_the_subject_and_is_marked(seed):
    closed, opened, override = (rows(CAPITALS, condition, Options(seed=seed)) for condition in ("closed", "open", "override"))
    for one, two, three in zip(closed, opened, override, strict=True):
        city, country = one["subject"], COUNTRIES[one["subject"]]
        assert [row["leaks"] for row in (one, two, three)] == [country in city] * 3
        (substitute,) = three["answers"]
        assert three["prompt"].endswith(f" {city} is in")
        assert f"{city} is in {country}." in two["prompt"]
        assert f"{city} is in {substitute}." in three["prompt"]
        assert three["prompt"] == two["prompt"].replace(f"{city} is in {country}.", f"{city} is in {substitute}.")
