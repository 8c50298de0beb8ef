"""Relation files: what becomes of them, and what is wrong with those that are refused."""

import json
import re
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext.errors import BadOptionError, HarnessExtError, UnknownNameError
from harness_ext.host import registration
from harness_ext.tasks import relations
from harness_ext.tasks.fact_options import Options, options_of
from harness_ext.tasks.facts import CONDITIONS, rows
from harness_ext.tasks.relations import RelationError, check_task, load, read_relation, read_relations
from harness_ext.tasks.scoring import normalise

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "lre"
CONFIGS = Path(__file__).parents[2] / "task_configs"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published relation files are not at {PUBLISHED}")

CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Peru": "Lima",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Chad": "N'Djamena",
}


def relation(**changes):
    content = {
        "name": "capital",
        "prompt_templates": ["The capital of {} is", "{} has the capital"],
        "prompt_templates_zs": ["What is the capital of {}? It is"],
        "samples": [{"subject": subject, "object": answer} for subject, answer in CAPITALS.items()],
    }
    return {key: value for key, value in (content | changes).items() if value is not None}


@pytest.fixture
def file(tmp_path):
    def write(content, name="capital.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def items(path, condition, **options):
    return load(condition=condition, relations=str(path), **options)["test"]


def test_a_file_that_nobody_has_seen_gives_three_conditions_of_the_same_items(file):
    path = file(relation())
    closed, opened, override = (items(path, condition) for condition in CONDITIONS)
    assert closed["id"] == opened["id"] == override["id"]
    assert set(closed["subject"]) == set(CAPITALS)
    for row in closed:
        assert row["prompt"] == f"What is the capital of {row['subject']}? It is"
        assert row["answers"] == [CAPITALS[row["subject"]]]
    for row in opened:
        assert f"The capital of {row['subject']} is {CAPITALS[row['subject']]}." in row["prompt"]
        assert row["prompt"].endswith(f" What is the capital of {row['subject']}? It is")
        assert len(re.findall("The capital of", row["prompt"])) == 6
    for row in override:
        (said,) = row["answers"]
        assert said in CAPITALS.values()
        assert said != CAPITALS[row["subject"]]
        assert f"The capital of {row['subject']} is {said}." in row["prompt"]
        assert CAPITALS[row["subject"]] not in row["prompt"]
        assert row["memory"] == [CAPITALS[row["subject"]]]


def test_a_relation_without_zero_shot_templates_asks_with_its_statement(file):
    (facts,) = read_relations(file(relation(prompt_templates_zs=None)))
    assert facts[0].question == "The capital of France is"


def test_a_folder_is_searched_with_its_sub_folders_and_a_byte_order_mark_is_no_fault(file, tmp_path):
    file(relation(), "a/capital.json")
    file(b"\xef\xbb\xbf" + json.dumps(relation(name="another")).encode(), "b/c/another.json")
    assert [facts[0].relation for facts in read_relations(tmp_path)] == ["capital", "another"]


def test_objects_in_a_list_aliases_and_repeated_subjects_are_all_right(file):
    samples = [{"subject": f"S{i}", "object": f"Answer {i}"} for i in range(20)]
    samples[3] = {"subject": "S3", "object": ["Chad", "Tchad"], "aliases": ["Republic of Chad"]}
    samples.append({"subject": "S5", "object": "The other"})
    facts = {fact.subject: fact for fact in read_relation(file(relation(samples=samples)))}
    assert len(facts) == 20
    assert facts["S3"].answers == ("Chad", "Tchad", "Republic of Chad")
    assert facts["S5"].answers == ("Answer 5", "The other")
    assert facts["S5"].evidence == "The capital of S5 is Answer 5."


def test_an_answer_that_is_part_of_another_is_neither_its_substitute_nor_a_choice_beside_it(file):
    cities = ["York", "New York", "Leeds", "Bath", "Derby", "Hull"]
    path = file(relation(samples=[{"subject": f"S{i}", "object": city} for i, city in enumerate(cities)]))
    for seed in range(20):
        for row in items(path, "override", facts_seed=seed):
            if "York" in row["memory"][0]:
                assert "York" not in row["answers"][0]
                assert sum("York" in choice for choice in row["choices"]) == 1


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty"]),
        (b"  \n", ["empty"]),
        (json.dumps(relation(name="caf\u00e9"), ensure_ascii=False).encode("latin-1"), ["UTF-8", "byte"]),
        (json.dumps(relation()).encode("utf-16"), ["UTF-8", "byte 0"]),
        (b"{", ["JSON"]),
        (b"[" * 100_000, ["JSON"]),
        ([], ["JSON object", "list"]),
        (relation(name=None, nmae="x"), ["'name'", "'nmae'"]),
        (relation(name=" "), ["'name'"]),
        (relation(samples=None), ["'samples'"]),
        (relation(samples=[]), ["'samples'"]),
        (relation(samples=["France"]), ["sample 1", "'subject'", "'object'", "'France'"]),
        (relation(samples=[{"object": "Paris"}]), ["sample 1", "'subject'"]),
        (relation(samples=[{"subject": "France", "objekt": "Paris"}]), ["'object'", "'objekt'"]),
        (relation(samples=[{"subject": "", "object": "Paris"}]), ["'subject'", "''"]),
        (relation(samples=[{"subject": "France", "object": 7}]), ["sample 1", "'object'", "7"]),
        (relation(samples=[{"subject": "France", "object": []}]), ["'object'"]),
        (relation(samples=[{"subject": "France", "object": " "}]), ["'object'", "' '"]),
        (
            relation(samples=[{"subject": "France", "object": "P" * 10_000_000}]),
            ["sample 1", "'object'", "10,000,000", "1,000"],
        ),
        (relation(samples=[{"subject": "France", "object": "Paris"}] * 2), ["'France'"]),
        (relation(prompt_templates=["The capital is"]), ["'prompt_templates'", "'The capital is'"]),
        (relation(prompt_templates=["{} and {}"]), ["'prompt_templates'", "{}"]),
        (relation(prompt_templates=None), ["'prompt_templates'", "'prompt_templates_zs'"]),
        (relation(prompt_templates_zs="{}"), ["'prompt_templates_zs'"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_relation_is_named_with_the_rule(file, content, parts):
    path = file(content)
    with raises_line(RelationError, str(path), *parts) as error:
        check_task(condition="closed", relations=str(path))
    assert len(str(error.value)) < 400


def test_a_relation_with_one_answer_can_be_asked_but_not_contradicted(file):
    path = file(relation(samples=[{"subject": subject, "object": "Paris"} for subject in CAPITALS]))
    assert len(items(path, "open")) == len(CAPITALS)
    with raises_line(HarnessExtError, "capital/", "override"):
        items(path, "override")


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with raises_line(RelationError, str(tmp_path / "none")):
        read_relations(tmp_path / "none")
    with raises_line(RelationError, str(tmp_path), "*.json"):
        read_relations(tmp_path)


def test_two_files_of_one_name_are_refused(file, tmp_path):
    file(relation(), "a.json")
    file(relation(), "b.json")
    with raises_line(RelationError, "a.json", "b.json", "'capital'"):
        read_relations(tmp_path)


def test_a_file_that_is_too_large_is_not_read(file, monkeypatch):
    monkeypatch.setattr(relations, "LARGEST_FILE", 10)
    with raises_line(RelationError, "10"):
        read_relation(file(relation()))


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({}, ["--metadata", '{"relations": "DIR-or-FILE"}']),
        ({"relatons": "x"}, ["'relatons'"]),
        ({"relations": 3}, ["relations=3"]),
        ({"relations": ""}, ["relations=''"]),
        ({"relations": "x", "facts_sed": 1}, ["'facts_sed'", "Did you mean 'facts_seed'"]),
    ],
    ids=str,
)
def test_without_relations_the_stock_command_says_what_to_pass_before_a_model_is_loaded(metadata, parts):
    with raises_line(BadOptionError, *parts):
        TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata=metadata).match_tasks(["lre"])


def test_a_name_near_that_of_the_relations_is_told():
    with raises_line(BadOptionError, "--metadata", "Given was 'relatons'.") as error:
        check_task(condition="closed", relatons="x", version=1)
    assert not str(error.value).endswith("?")


def test_an_unknown_condition_is_refused(file):
    with raises_line(UnknownNameError, "'opne'", "Did you mean 'open'"):
        check_task(condition="opne", relations=str(file(relation())))


def test_foreign_metadata_is_ignored(file):
    assert check_task(condition="open", relations=str(file(relation())), pretrained="x", items=3, seed=1) == Options()


@published
def test_the_published_files_give_three_conditions_of_the_same_items():
    read = read_relations(PUBLISHED)
    assert len(read) == 10
    for facts in read:
        source = next(
            content for path in PUBLISHED.glob("*.json") if (content := json.loads(path.read_text()))["name"] == facts[0].relation
        )
        assert {fact.subject for fact in facts} == {sample["subject"].strip() for sample in source["samples"]}
        for sample in source["samples"]:
            (fact,) = [fact for fact in facts if fact.subject == sample["subject"].strip()]
            assert normalise(sample["object"]) in map(normalise, fact.answers)
    facts = [fact for of_relation in read for fact in of_relation]
    # Every fact of the small relations, and of the large ones as many as a test has time for.
    options = options_of({"facts_items": 400})
    closed, opened, override = (rows(facts, condition, options) for condition in CONDITIONS)
    assert [row["id"] for row in closed] == [row["id"] for row in opened] == [row["id"] for row in override]
    assert len({row["id"] for row in closed}) == 400
    assert len({row["relation"] for row in closed}) >= 8


def test_names_that_are_nothing_but_articles_and_punctuation_are_names(file):
    samples = [{"subject": "A", "object": "A+"}, {"subject": "The The", "object": "B-"}, {"subject": "!!!", "object": "0"}]
    rows = items(file(relation(samples=samples)), "open")
    assert [row["subject"] for row in rows] == ["A", "The The", "!!!"]
    assert [row["answers"] for row in rows] == [["A+"], ["B-"], ["0"]]


def test_an_unknown_condition_is_found_before_the_files_are_read():
    with raises_line(UnknownNameError, "'opne'"):
        load(condition="opne", relations="no/such/file.json")


def test_a_relation_with_a_question_is_asked_with_it(file):
    path = file(relation(question=" What is the capital of {}? "))
    for row in items(path, "open", facts_form="question", facts_distractors=0):
        asked = f"Question: What is the capital of {row['subject']}?\nAnswer:"
        assert row["prompt"] == f"Context: The capital of {row['subject']} is {CAPITALS[row['subject']]}.\n{asked}"
    assert items(path, "closed")["prompt"] == items(file(relation()), "closed")["prompt"]


@pytest.mark.parametrize("question", ["What is it?", "{} or {}?", 3, ["What is the capital of {}?"], None, ""])
def test_a_question_without_a_place_for_the_subject_is_refused(file, question):
    path = file(json.dumps(relation() | {"question": question}).encode())
    with raises_line(RelationError, str(path), "'question'", "{}"):
        read_relation(path)


def test_too_few_facts_for_the_exemplars_or_no_question_are_refused_before_a_model_is_loaded(file):
    path = str(file(relation()))
    check_task(condition="closed", relations=path, facts_shots=6)
    with raises_line(HarnessExtError, "'capital'", "7 facts", "facts_shots=7"):
        check_task(condition="closed", relations=path, facts_shots=7)
    with raises_line(BadOptionError, "facts_form=question", "'capital'"):
        check_task(condition="closed", relations=path, facts_form="question")


@published
def test_the_published_relations_have_questions_and_exemplars():
    for facts in read_relations(PUBLISHED):
        assert facts[0].question_form.startswith("Question: Wh") or facts[0].question_form.startswith(("Question: In ", "Question: On "))
    for condition in CONDITIONS:
        options = {"facts_form": "question", "facts_shots": 2, "facts_items": 200, "facts_distractors": 0}
        for row in items(PUBLISHED, condition, **options):
            *exemplars, item = row["prompt"].split("\n\n")
            assert len(exemplars) == 2
            assert item.endswith("\nAnswer:")
            for told in (*row["answers"], *row["memory"]):
                assert not any(re.search(rf"(?<!\w){re.escape(told)}(?!\w)", text, re.IGNORECASE) for text in exemplars)


def test_the_few_shot_tasks_ask_in_the_forms_that_small_models_can_do(file):
    content = relation(question="What is the capital of {}?")
    manager = TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata={"relations": str(file(content))})
    tasks = manager.load(["lre_few_shot"])["tasks"]
    rows_of = {name.removeprefix("lre_"): list(task.test_docs()) for name, task in tasks.items()}
    assert set(rows_of) == {"closed_4shot", "open_2shot", "override_2shot"}
    for closed, opened, override in zip(*rows_of.values(), strict=True):
        assert closed["id"] == opened["id"] == override["id"]
        assert closed["shots"][:2] == opened["shots"] == override["shots"]
        assert closed["prompt"].count("\nWhat") == 4
        for row in (opened, override):
            assert row["prompt"].count("Context: ") == row["prompt"].count("Question: ") == row["prompt"].count("Answer:") == 3
            assert row["prompt"].count(" is ") == 6
    other = TaskManager(
        include_path=str(CONFIGS), include_defaults=False, metadata={"relations": str(file(content)), "facts_shots": 1}
    ).load(["lre_open_2shot"])
    assert {len(doc["shots"]) for doc in other["tasks"]["lre_open_2shot"].test_docs()} == {1}
