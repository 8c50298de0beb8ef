"""Lookup over several hops and with many queries: readers of the prompt alone are right, and readers of anything else guess."""

from __future__ import annotations

from collections import Counter

import pytest
from readers import controls, follow, pairs_of, told_and_asked
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.tasks import dials, hops, lookup, mqar
from harness_ext.tasks.keyed import words
from harness_ext.tasks.lookup import VALUES

HOPS = [{"steps": steps, "keys": keys} for keys in ("digits", "words") for steps in (1, 2, 3, 4)]
HOPS += [{"steps": 2, "length": 3, "chains": 5, "values": 5, "queries": 0}]
MQAR = [{"pairs": pairs, "keys": keys} for keys, most in (("words", 128), ("digits", 512)) for pairs in (16, 32, most)]
MQAR += [{"pairs": 4, "values": 4, "queries": 0}]


def made(kind, items, **options):
    return [kind.item(kind.Options(**options), index) for index in range(items)]


def right(row):
    return row["choices"][row["target"]]


@pytest.mark.parametrize("options", HOPS, ids=str)
def test_who_follows_the_chain_is_right_after_as_many_steps_as_the_dial_says(options):
    chains, length = options.get("chains", 8), options.get("length", 4)
    for row in made(hops, 64, **options):
        pairs, asked, query = told_and_asked(row["prompt"], chains * length)
        assert len(dict(pairs)) == chains * length
        assert follow(pairs, query) == (right(row), options["steps"])
        assert [follow(pairs, key) for key, _ in asked] == [(value, options["steps"]) for _, value in asked]
        assert query not in dict(asked)
        assert len(dict(asked)) == options.get("queries", 4)
        starts = set(dict(pairs)) - {value for _, value in pairs}
        assert sorted(follow(pairs, key)[1] for key in starts) == [length] * chains  # distractors are as long
        assert follow(pairs, pairs[row["position"]][0]) == (right(row), 1)


@pytest.mark.parametrize("options", MQAR, ids=str)
def test_who_looks_the_key_up_is_right(options):
    for row in made(mqar, 64, **options):
        pairs, asked, query = told_and_asked(row["prompt"], options["pairs"])
        assert len(dict(pairs)) == options["pairs"]
        assert dict(pairs)[query] == right(row)
        assert pairs[row["position"]] == (query, right(row))
        assert set(asked) <= set(pairs)
        assert query not in dict(asked)
        assert len(set(asked)) == options.get("queries", 8)


@pytest.mark.parametrize(("kind", "options"), [*((hops, options) for options in HOPS), *((mqar, options) for options in MQAR)], ids=str)
def test_each_choice_is_told_and_answered_equally_often(kind, options):
    for row in made(kind, 16, **options):
        read = kind.Options(**options)
        told = read.pairs if kind is mqar else read.chains * read.length
        pairs, asked, _ = told_and_asked(row["prompt"], told)
        values = Counter(value for _, value in pairs if value in VALUES)
        assert set(values) == set(row["choices"])
        assert len(set(values.values())) == 1
        assert len(set(Counter(value for _, value in asked).values())) == (read.queries > 0)
        assert {value for _, value in asked} <= set(row["choices"])


def near(keys, query):
    """The other key that is nearest to a key: by number, or by the alphabet."""
    order = sorted({*keys, query})
    place = order.index(query)
    return order[place - 1] if place else order[1]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(hops, options) for options in HOPS[:8]]
    + [(mqar, {"pairs": pairs, "keys": keys}) for pairs in (16, 32) for keys in ("digits", "words")],
    ids=str,
)
def test_readers_who_do_not_use_the_key_score_chance(kind, options):
    rows = made(kind, 1024, **options)
    read = kind.Options(**options)
    told = read.pairs if kind is mqar else read.chains * read.length
    hits = Counter()
    for row in rows:
        pairs, asked, query = told_and_asked(row["prompt"], told)
        guesses = controls([value for _, value in pairs if value in VALUES], [value for _, value in asked])
        if read.queries:
            guesses["nearest key"] = follow(pairs, near([key for key, _ in pairs], query))[0]
            guesses["nearest query"] = dict(asked)[near([key for key, _ in asked], query)]
        guesses["constant"] = "king"
        guesses["first choice"] = row["choices"][0]
        hits.update(name for name, guess in guesses.items() if guess == right(row))
        hits.update(dict.fromkeys(guesses, 0))
    for name, count in hits.items():
        share = 1 / 16 if name == "constant" else 1 / read.values
        if name == "nearest key":  # of the other keys, one carrier less has the right answer, or the key is of the same chain
            assert count < 1024 * (share + (read.length - 1) / told if kind is hops else share) + 4 * (1024 * share * (1 - share)) ** 0.5
        else:
            assert abs(count - 1024 * share) < 4 * (1024 * share * (1 - share)) ** 0.5, name


def test_who_stops_after_one_step_has_no_value_unless_the_dial_is_one():
    for steps in (1, 2, 3, 4):
        for row in made(hops, 32, steps=steps):
            pairs, query = pairs_of(row["prompt"])
            assert (dict(pairs)[query] in VALUES) is (steps == 1)


def test_dials_of_hops_differ_in_their_questions_alone():
    for first, *others in zip(*(made(hops, 16, steps=steps) for steps in (1, 2, 3, 4)), strict=True):
        told = [pairs_of(row["prompt"])[0][:32] for row in (first, *others)]
        assert all(pairs == told[0] for pairs in told)
        assert {(row["target"], row["position"]) for row in (first, *others)} == {(first["target"], first["position"])}


def test_one_hop_over_chains_of_one_pair_is_the_form_of_the_kv_tasks():
    plain = hops.item(hops.Options(length=1, chains=16, values=16, queries=0), 5)["prompt"]
    kv = lookup.item(lookup.Options(pairs=16), 5)["prompt"]

    def form(prompt):
        return [(len(pairs), [len(key) for key, _ in pairs], len(query)) for pairs, query in [pairs_of(prompt)]]

    assert form(plain) == form(kv)
    assert plain.split("\n")[1].startswith("Value: ")


@pytest.mark.parametrize(("kind", "pairs"), [(hops, 32), (mqar, 16)])
def test_the_pair_with_the_value_is_at_every_place_equally_often_with_every_answer(kind, pairs):
    values = kind.Options().values
    rows = made(kind, pairs * values, **({"pairs": pairs} if kind is mqar else {}))
    assert Counter((row["position"], row["target"]) for row in rows) == dict.fromkeys(
        ((place, target) for place in range(pairs) for target in range(values)), 1
    )


def test_no_value_is_a_key():
    assert not set(words()) & set(VALUES)
    assert len(set(words())) == len(words()) > 200


@pytest.mark.parametrize(
    ("dial", "options", "parts"),
    [
        ("hops", {"steps": 5}, ["hops_steps=5", "hops_length=4"]),
        ("hops", {"steps": 0}, ["hops_steps=0"]),
        ("hops", {"chains": 9}, ["hops_chains=9", "multiple of hops_values=4"]),
        ("hops", {"queries": 3}, ["hops_queries=3", "multiple of hops_values=4"]),
        ("hops", {"queries": 8}, ["hops_queries=8", "at most 4"]),
        ("hops", {"keys": "word"}, ["hops_keys='word'", "Did you mean 'words'?"]),
        ("hops", {"keys": 3}, ["hops_keys=3", "digits"]),
        ("hops", {"keys": "words", "chains": 60}, ["hops_chains=60, hops_length=4", "240 keys", "237"]),
        ("hops", {"chains": 252}, ["hops_chains=252", "1008 keys", "1000"]),
        ("hops", {"values": 17}, ["hops_values=17", "16"]),
        ("mqar", {"pairs": 12}, ["mqar_pairs=12", "mqar_values=8"]),
        ("mqar", {"pairs": 8}, ["mqar_queries=8", "at most 0"]),
        ("mqar", {"pairs": 240}, ["mqar_pairs=240", "237"]),
        ("mqar", {"values": 1}, ["mqar_values=1", "2"]),
    ],
)
def test_an_impossible_option_is_refused(dial, options, parts):
    with raises_line(BadOptionError, *parts):
        dials.check_task(dial=dial, **{f"{dial}_{name}": value for name, value in options.items()})
