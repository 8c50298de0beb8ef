"""Exemplars before a fact: other facts of its relation, the same in all conditions, which give nothing of the item away."""

from __future__ import annotations

import re
from dataclasses import replace as changed

import pytest
from occurrences import occurrences
from refusals import raises_line
from test_facts import ALL, OF, PEOPLE, fact, made, passage_of

from harness_ext.errors import BadOptionError
from harness_ext.tasks.fact_options import Options
from harness_ext.tasks.facts import CONDITIONS, FactError, check_shots_and_form
from harness_ext.tasks.shots import suitable

SENTENCES = [
    changed(one, question=one.evidence.removesuffix(f" {one.answers[0]}."), question_form=one.question)
    for one in ALL
    if one.relation == "born"
]


def parts_of(row):
    """The exemplars and the item itself, as (passage, question, answer); the last answer is empty."""
    pattern = re.compile(r"(?:Context: ([^\n]*)\n)?(Question: [^\n]*\nAnswer:)(?: ([^\n]*))?")
    found = [pattern.fullmatch(text) for text in row["prompt"].split("\n\n")]
    assert all(found)
    return [(match[1] or "", match[2], match[3] or "") for match in found]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("options", [{"shots": 3}, {"shots": 1, "distractors": 0}, {"shots": 2, "seed": 3, "distractors": 9}])
def test_exemplars_are_facts_of_the_relation_and_say_nothing_about_the_item(condition, options):
    for row in made(condition, **options):
        asked = OF[row["id"]]
        shots = [OF[name] for name in row["shots"]]
        *shown, (_, question, answer) = parts_of(row)
        assert len(shots) == len({shot.subject for shot in shots}) == len(shown) == options["shots"]
        assert (question, answer) == (asked.question, "")
        assert {shot.relation for shot in shots} == {asked.relation}
        exemplars = row["prompt"].rsplit("\n\n", 1)[0]
        assert not occurrences(exemplars, asked.subject)
        for told in {*asked.answers, *row["answers"]}:
            assert not occurrences(exemplars, told)
        for shot, (passage, question, answer) in zip(shots, shown, strict=True):
            assert suitable(shot, asked)
            assert question == shot.question
            assert bool(passage) is (condition != "closed")
            if condition == "override":
                assert not any(occurrences(passage, right) for right in shot.answers)
                assert occurrences(passage, answer) == 1
                assert answer in {one.answers[0] for one in ALL if one.relation == shot.relation} - set(shot.answers)
            else:
                assert answer == shot.answers[0]
                assert not passage or occurrences(passage, answer) == 1


def test_passages_of_one_prompt_do_not_contradict_each_other():
    for row in made("override", shots=3):
        subjects = [OF[name].subject for name in (*row["shots"], row["id"])]
        for place, (passage, _, _) in enumerate(parts_of(row)):
            assert not any(occurrences(passage, subject) for subject in subjects[:place] + subjects[place + 1 :])


def test_the_exemplars_are_the_same_in_all_conditions_and_the_first_of_more():
    few, more = ([made(condition, shots=shots) for condition in CONDITIONS] for shots in (2, 4))
    for rows in zip(*few, *more, strict=True):
        assert len({tuple(row["shots"][:2]) for row in rows}) == 1


def test_without_exemplars_an_item_is_as_before_and_with_them_it_ends_with_the_same_question_and_choices():
    for condition in CONDITIONS:
        for plain, row in zip(made(condition, distractors=0), made(condition, shots=2, distractors=0), strict=True):
            assert "shots" not in plain
            assert row["prompt"].endswith(f"\n\n{plain['prompt']}")
            assert {name: row[name] for name in plain if name != "prompt"} == {name: plain[name] for name in plain if name != "prompt"}


def test_the_seed_draws_other_exemplars_and_one_seed_the_same():
    first, again, other = (made("closed", shots=2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert sum(a["shots"] != b["shots"] for a, b in zip(first, other, strict=True)) > len(ALL) / 2


def test_exemplars_have_different_answers_where_there_are_enough():
    for row in made("closed", shots=3):
        assert len({OF[name].answers[0] for name in row["shots"]}) == 3


def test_sentences_are_continued_line_by_line_or_asked_as_questions():
    cloze = made("closed", source=SENTENCES, shots=2)[0]
    *shots, last = cloze["prompt"].split("\n")
    assert last == SENTENCES[0].question
    assert shots == [f"{OF[name].subject} was born in {OF[name].answers[0]}" for name in cloze["shots"]]
    asked = made("open", source=SENTENCES, form="question", distractors=0)[0]
    assert passage_of(asked) == SENTENCES[0].evidence
    assert made("closed", source=SENTENCES, form="sentence") == made("closed", source=SENTENCES)
    assert made("closed", source=SENTENCES, form="question")[0]["prompt"] == SENTENCES[0].question_form


@pytest.mark.parametrize(("source", "form"), [(ALL, "sentence"), ([changed(one, question_form="") for one in SENTENCES], "question")])
def test_a_form_that_the_facts_do_not_have_is_refused(source, form):
    for call in (lambda: made("closed", source=source, form=form), lambda: check_shots_and_form(source, Options(form=form))):
        with raises_line(BadOptionError, f"facts_form={form}", "'born'"):
            call()


def test_too_few_facts_for_the_exemplars_are_refused_with_relation_count_and_shots():
    with raises_line(FactError, "'born'", "20", "facts_shots=20"):
        check_shots_and_form(SENTENCES, Options(shots=20))
    check_shots_and_form(SENTENCES, Options(shots=19))
    alike = [fact(person, "born", ("Lima",)) for person in PEOPLE[:5]] + [fact(person, "born", ("Oslo",)) for person in PEOPLE[5:7]]
    assert len(made("closed", source=alike, shots=2)) == 7
    with raises_line(FactError, "'born'", "7", "facts_shots=3", " 2 "):
        made("closed", source=alike, shots=3)
    with raises_line(FactError, "'born'", "override"):  # every other answer is the item's own, or takes its place
        made("override", source=alike, shots=2)


def test_exemplars_without_evidence_are_asked_closed_book():
    source = [changed(one, evidence="") for one in ALL]
    for row in made("closed", source=source, shots=2):
        assert len(row["shots"]) == 2
