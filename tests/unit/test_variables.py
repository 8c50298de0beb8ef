"""Variable tracking: who runs the program is right, and who reads the numbers alone guesses."""

from __future__ import annotations

from collections import Counter

import pytest
from readers import controls
from refusals import raises_line

from harness_ext.errors import BadOptionError
from harness_ext.tasks import dials
from harness_ext.tasks.variables import Options, item

EACH = [{"steps": steps} for steps in (1, 2, 3, 4)]
MORE = [{"chains": 20, "values": 10, "queries": 10, "steps": 3, "length": 3}, {"chains": 4, "values": 4, "queries": 0}]


def made(items, **options):
    return [item(Options(**options), index) for index in range(items)]


def lines_of(prompt):
    """The assignments of a program, the checks with their numbers, and the variable of the last check."""
    *lines, last = prompt.split("\n")
    assignments = [tuple(line.split(" = ")) for line in lines if " = " in line]
    checks = [tuple(line.removeprefix("assert ").split(" == ")) for line in lines if " == " in line]
    assert len(assignments) + len(checks) == len(lines)
    return assignments, checks, last.removeprefix("assert ").removesuffix(" ==")


@pytest.mark.parametrize("options", [*EACH, *MORE], ids=str)
def test_who_runs_the_program_is_right(options):
    read = Options(**options)
    for row in made(64, **options):
        program, end = row["prompt"].rsplit("assert ", 1)
        names = {}
        exec(program, {}, names)  # the program runs, its checks hold, and no variable is used before it has a value
        assert str(names[end.removesuffix(" ==")]) == row["choices"][row["target"]]
        assert len(names) == read.chains * read.length


@pytest.mark.parametrize("options", [*EACH, *MORE], ids=str)
def test_the_dial_is_the_number_of_assignments_and_all_chains_are_as_long(options):
    read = Options(**options)
    for row in made(32, **options):
        assignments, checks, query = lines_of(row["prompt"])
        before = dict(assignments)

        def steps(name, before=before):
            return 0 if name not in before else 1 + steps(before[name])

        assert [steps(name) for name in (query, *dict(checks))] == [read.steps] * (read.queries + 1)
        last = set(before) - set(before.values())
        assert [steps(name) for name in last] == [read.length] * read.chains
        assert query not in dict(checks)
        numbers = Counter(value for _, value in assignments if value.isdigit())
        assert set(numbers) == set(row["choices"])
        assert len(set(numbers.values())) == 1
        assert len(set(Counter(number for _, number in checks).values())) == (read.queries > 0)


@pytest.mark.parametrize("options", EACH, ids=str)
def test_readers_who_do_not_follow_the_variables_score_chance(options):
    rows = made(1024, **options)
    hits = Counter()
    for row in rows:
        assignments, checks, query = lines_of(row["prompt"])
        guesses = controls([value for _, value in assignments if value.isdigit()], [number for _, number in checks])
        guesses["first choice"] = row["choices"][0]
        guesses["nearest name"] = min(checks, key=lambda check: abs(ord(check[0]) - ord(query)))[1]
        hits.update(name for name, guess in guesses.items() if guess == row["choices"][row["target"]])
        hits.update(dict.fromkeys(guesses, 0))
    for name, count in hits.items():
        assert abs(count - 1024 / 3) < 4 * (1024 * 2 / 9) ** 0.5, name


def test_programs_of_all_dials_are_the_same_up_to_the_questions():
    for rows in zip(*(made(8, **options) for options in EACH), strict=True):
        assert len({row["prompt"].split("\nassert")[0] for row in rows}) == 1
        assert len({row["prompt"] for row in rows}) == len(EACH)


def test_the_answer_is_every_number_equally_often():
    rows = made(900)
    assert Counter(row["target"] for row in rows) == {0: 300, 1: 300, 2: 300}
    counts = Counter(row["choices"][row["target"]] for row in rows)
    assert len(counts) == 10
    assert all(abs(count - 90) < 4 * 9 for count in counts.values())


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"steps": 5}, ["variables_steps=5", "variables_length=4"]),
        ({"chains": 7}, ["variables_chains=7", "variables_values=3"]),
        ({"queries": 4}, ["variables_queries=4", "variables_values=3"]),
        ({"queries": 6}, ["variables_queries=6", "at most 3"]),
        ({"values": 11}, ["variables_values=11", "10"]),
        ({"chains": 99, "length": 7}, ["variables_chains=99, variables_length=7", "693", "671"]),
    ],
)
def test_an_impossible_option_is_refused(options, parts):
    with raises_line(BadOptionError, *parts):
        dials.check_task(dial="variables", **{f"variables_{name}": value for name, value in options.items()})
