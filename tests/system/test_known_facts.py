"""The list of facts that a model knows: who writes it, what is in it, and what a task makes of it."""

from __future__ import annotations

import json
from functools import partial

import lm_eval.tasks
import pytest
from lm_eval.api.model import LM
from refusals import raises_line
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.host import known_facts as listing
from harness_ext.host import registration
from harness_ext.host.known_facts import NoKnownFactsError, closed_task, known_facts, write
from harness_ext.tasks import lab_facts, relations
from harness_ext.tasks.people import population

CAPITALS = {"France": "Paris", "Peru": "Lima", "Norway": "Oslo", "Kenya": "Nairobi", "Cuba": "Havana", "Egypt": "Cairo"}
KNOWS = ("Peru", "Kenya", "Egypt")


class Knowing(LM):
    """Answers for the subjects it knows, and says something else for the others. It ranks nothing."""

    def __init__(self, subjects=KNOWS):
        super().__init__()
        self.subjects = subjects

    def generate_until(self, requests, disable_tqdm=False):
        return [f" {CAPITALS[r.doc['subject']]}, of course." if r.doc["subject"] in self.subjects else " Atlantis" for r in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(-1.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.fixture
def capitals(tmp_path):
    path = tmp_path / "capital.json"
    samples = [{"subject": country, "object": city} for country, city in CAPITALS.items()]
    path.write_text(json.dumps({"name": "capital", "prompt_templates": ["The capital of {} is"], "samples": samples}))
    return str(path)


@pytest.fixture(autouse=True)
def own_tasks_only(monkeypatch):
    """Indexing lm-eval's thousands of files takes seconds."""
    registration.register()
    own = partial(lm_eval.tasks.TaskManager, include_path=registration.task_folders(), include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", own)


def test_the_list_holds_the_facts_that_the_model_writes_in_the_order_of_the_task(capitals):
    found = known_facts(Knowing(), closed_task("lre_closed", {"relations": capitals, "facts_seed": 3}))
    assert found["known"] == [f"capital/{country}" for country in KNOWS]
    assert (found["asked"], found["task"]) == (6, "lre_closed")
    assert found["options"] == {"relations": capitals, "facts_seed": 3}
    assert known_facts(Knowing(), closed_task("lre_closed", {"relations": capitals}), limit=3)["known"] == ["capital/Peru"]


def test_a_model_that_knows_nothing_gives_no_list(capitals):
    with raises_line(NoKnownFactsError, "lre_closed", "6"):
        known_facts(Knowing(()), closed_task("lre_closed", {"relations": capitals}))


@pytest.mark.parametrize("condition", ["closed", "open", "override"])
def test_a_task_keeps_the_known_facts_and_nothing_else_about_them_changes(capitals, tmp_path, condition):
    out = tmp_path / "known.json"
    write(known_facts(Knowing(), closed_task("lre_closed", {"relations": capitals})), out)
    everything = relations.load(condition=condition, relations=capitals)["test"].to_list()
    kept = relations.load(condition=condition, relations=capitals, facts_known=str(out))["test"].to_list()
    assert kept == [row for row in everything if row["subject"] in KNOWS]


def test_the_known_facts_are_those_of_the_draw_so_that_a_run_with_and_one_without_the_list_are_paired(tmp_path):
    known = [fact.id for fact in lab_facts.facts_of(population(0), "memorised")][::2]
    out = tmp_path / "known.json"
    write({"known": known}, out)
    drawn = lab_facts.load(condition="open", people="memorised", facts_items=64, facts_seed=5)["test"].to_list()
    kept = lab_facts.load(condition="open", people="memorised", facts_items=64, facts_seed=5, facts_known=str(out))["test"].to_list()
    assert kept == [row for row in drawn if row["id"] in set(known)]
    assert 16 < len(kept) < 48


def test_a_file_that_is_no_list_of_known_facts_is_refused(tmp_path):
    path = tmp_path / "known.json"
    drawn = {row["id"] for row in lab_facts.load(condition="closed", people="memorised", facts_items=4)["test"]}
    other = next(fact.id for fact in lab_facts.facts_of(population(0), "memorised") if fact.id not in drawn)
    wrong = [[], {}, {"known": []}, {"known": [1]}, {"known": "birthplace/X Y"}]
    cases = [("", []), ("{", []), *((json.dumps(content), ["'known'"]) for content in wrong)]
    cases += [(json.dumps({"known": ["capital/Peru"]}), ["32768", "'capital/Peru'"]), (json.dumps({"known": [other]}), ["4"])]
    for content, parts in cases:
        path.write_text(content)
        with raises_line(BadOptionError, f"facts_known={path}", *parts):
            lab_facts.load(condition="closed", people="memorised", facts_items=4, facts_known=str(path))


def test_a_list_is_written_whole_or_not_at_all(tmp_path):
    out = tmp_path / "known.json"
    write({"known": ["a"]}, out)

    class Unwritable:
        def __str__(self):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write({"known": [Unwritable()]}, out)
    assert json.loads(out.read_text()) == {"known": ["a"]}
    assert [path.name for path in tmp_path.iterdir()] == ["known.json"]


# --- the command


def run(*arguments):
    return CliRunner().invoke(app, ["known-facts", *map(str, arguments)])


def test_the_command_writes_the_list_and_says_how_many(tmp_path, monkeypatch, capitals):
    monkeypatch.undo()
    monkeypatch.setattr(listing, "load_model", lambda name, arguments, batch_size: Knowing())
    out = tmp_path / "known.json"
    result = run("--out", out, "--task", "lre_closed", "--metadata", json.dumps({"relations": capitals}))
    assert result.exit_code == 0, result.output
    assert "3 of 6 facts known" in result.stdout
    assert json.loads(out.read_text())["known"] == [f"capital/{country}" for country in KNOWS]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--task", "lre_closd"], ["'lre_closd'", "Did you mean 'lre_closed'?"]),
        (["--task", "lre_closed"], ["relations"]),
        (["--task", "lab_facts_open", "--metadata", '{"facts_items": 4}'], ["--task lab_facts_open"]),
        (["--task", "kv_4", "--metadata", '{"lookup_items": 4}'], ["--task kv_4"]),
        (["--metadata", "{"], ["--metadata {", "JSON"]),
        (["--metadata", "[]"], ["--metadata []", "JSON object"]),
        (["--metadata", '{"facts_sed": 1}'], ["facts_sed", "Did you mean 'facts_seed'?"]),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_a_model_is_loaded_and_nothing_is_written(tmp_path, monkeypatch, arguments, parts):
    monkeypatch.setattr(listing, "load_model", lambda *_: pytest.fail("a model was loaded"))
    result = run("--out", tmp_path / "known.json", *arguments)
    assert result.exit_code == 1
    assert all(part in result.stderr for part in parts), result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_replaced_without_being_told_to(tmp_path, monkeypatch, capitals):
    monkeypatch.setattr(listing, "load_model", lambda *_: Knowing())
    out = tmp_path / "known" / "list.json"
    arguments = ["--out", out, "--task", "lre_closed", "--metadata", json.dumps({"relations": capitals})]
    assert f"--out {out}" in run(*arguments).stderr
    out.parent.mkdir()
    out.write_text("mine")
    assert "--force" in run(*arguments).stderr
    assert out.read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0
    assert "capital/Peru" in out.read_text()


def test_an_unknown_model_is_named():
    with raises_line(UnknownNameError, "'prund-hf'", "Did you mean 'pruned-hf'?"):
        listing.load_model("prund-hf", "", 1)
