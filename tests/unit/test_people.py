"""The synthetic people: a fixed population from which nothing about an answer can be told by the name."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from harness_ext.tasks.people import FIRST_NAMES, LAST_NAMES, MEMORISED, MET_IN_PASSAGES, WORDS, population

SEEDS = range(2)


def test_the_population_of_seed_0_is_the_one_the_embedded_models_were_trained_on():
    people = population.__wrapped__(0)
    everything = (people.attributes, people.memorised, people.met, people.unseen, people.facts.tolist())
    assert hashlib.sha256(repr([list(map(tuple, part)) for part in everything]).encode()).hexdigest()[:16] == "656f074ae181408f"


def test_the_population_depends_on_the_seed_alone():
    for state in (0, 1):
        np.random.seed(state)
        people = population.__wrapped__(5)
        assert people.memorised == population(5).memorised
        assert (people.facts == population(5).facts).all()
    assert not (population(5).facts == population(6).facts).all()
    assert set(population(5).memorised) != set(population(6).memorised)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_of_names_is_in_exactly_one_of_the_three_groups(seed):
    people = population(seed)
    groups = (people.memorised, people.met, people.unseen)
    everyone = [person for group in groups for person in group]
    assert [len(group) for group in groups] == [MEMORISED, MET_IN_PASSAGES, FIRST_NAMES * LAST_NAMES - MEMORISED - MET_IN_PASSAGES]
    assert all(groups)
    first, last = {person.first for person in everyone}, {person.last for person in everyone}
    assert (len(first), len(last)) == (FIRST_NAMES, LAST_NAMES)
    assert set(everyone) == {(a, b) for a in first for b in last}
    assert len(everyone) == len(set(everyone))


def test_the_embedded_models_memorised_32768_facts_and_never_met_8192_people():
    people = population(0)
    assert people.facts.size == 32_768
    assert len(people.unseen) == 8_192


@pytest.mark.parametrize("seed", SEEDS)
def test_both_parts_of_a_name_occur_in_every_group(seed):
    # Otherwise a model that never saw a name could not be asked to read it.
    people = population(seed)
    for group in (people.memorised, people.met, people.unseen):
        assert len({person.first for person in group}) == FIRST_NAMES
        assert len({person.last for person in group}) == LAST_NAMES


@pytest.mark.parametrize("seed", SEEDS)
def test_all_names_and_values_are_different_words(seed):
    people = population(seed)
    assert [len(set(attribute.values)) for attribute in people.attributes] == [WORDS**2] * len(people.attributes)
    words = [word.lower() for word in people.words()]
    assert len(words) == FIRST_NAMES + LAST_NAMES + 2 * WORDS * len(people.attributes)
    assert len(set(words)) == len(words) - WORDS  # jobs and hobbies have the same first words
    assert all(word.isalpha() and word.isascii() for word in words)


def test_questions_and_statements_name_the_person_once_and_statements_the_value_once():
    for attribute in population(0).attributes:
        assert attribute.question.count("{}") == 1
        assert attribute.question.endswith("?")
        assert attribute.statement.count("{}") == 2


def test_the_answer_is_the_value_that_the_fact_points_at():
    people = population(0)
    for person, attribute in ((0, 0), (17, 3), (MEMORISED - 1, 2)):
        assert people.answer(person, attribute) == people.attributes[attribute].values[people.facts[person, attribute]]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_values_of_each_attribute_are_uniform(seed):
    facts = population(seed).facts
    assert facts.shape == (MEMORISED, len(population(seed).attributes))
    for words in (facts // WORDS, facts % WORDS):
        for values in words.T:
            assert stats.chisquare(np.bincount(values, minlength=WORDS)).pvalue > 1e-4


def information(a, b):
    """Mutual information of two integer variables in nats, as estimated from their joint counts."""
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1)
    joint /= joint.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log(joint[joint > 0] / independent[joint > 0])).sum())


def surprise(a, b, shuffles=40):
    """By how many standard deviations the information exceeds that of shuffled pairs."""
    rng = np.random.RandomState(0)
    shuffled = [information(a, rng.permutation(b)) for _ in range(shuffles)]
    return (information(a, b) - np.mean(shuffled)) / np.std(shuffled)


def parts(people):
    """Each part of the names of the memorised people, and their order, as integers."""
    for part in zip(*people.memorised, strict=True):
        yield np.unique(part, return_inverse=True)[1]
    yield np.arange(MEMORISED) // 32


@pytest.mark.parametrize("seed", SEEDS)
def test_names_tell_nothing_about_facts_and_facts_nothing_about_one_another(seed):
    people = population(seed)
    words = [*(people.facts // WORDS).T, *(people.facts % WORDS).T]
    pairs = [(part, values) for part in parts(people) for values in words] + list(combinations(words, 2))
    assert max(surprise(a, b) for a, b in pairs) < 4


def test_the_test_of_independence_sees_a_leak():
    # One person in eight has a birthplace that the last name decides.
    people = population(0)
    _, last, _ = parts(people)
    leaky = np.where(np.arange(MEMORISED) % 8 == 0, last % WORDS, people.facts[:, 0] // WORDS)
    assert surprise(last, leaky) > 8
