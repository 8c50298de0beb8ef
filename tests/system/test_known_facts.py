"""The list of facts that a model knows: who writes it, what is in it, and what a task makes of it."""

from __future__ import annotations

import json
from functools import partial

import lm_eval.tasks
import pytest
from lm_eval.api.model import LM
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.host import known_facts as listing
from harness_ext.host import registration
from harness_ext.host.known_facts import NoKnownFactsError, closed_task, known_facts, write
from harness_ext.tasks import lab_facts, relations

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
    with pytest.raises(NoKnownFactsError, match="lre_closed: the model answers none of 6 facts"):
        known_facts(Knowing(()), closed_task("lre_closed", {"relations": capitals}))


@pytest.mark.parametrize("condition", ["closed", "open", "override"])
def test_a_task_keeps_the_known_facts_and_nothing_else_about_them_changes(capitals, tmp_path, condition):
    out = tmp_path / "known.json"
    write(known_facts(Knowing(), closed_task("lre_closed", {"relations": capitals})), out)
    everything = relations.load(condition=condition, relations=capitals)["test"].to_list()
    kept = relations.load(condition=condition, relations=capitals, facts_known=str(out))["test"].to_list()
    assert kept == [row for row in everything if row["subject"] in KNOWS]


def test_the_known_facts_are_those_of_the_draw_so_that_a_run_with_and_one_without_the_list_are_paired(tmp_path):
    known = lab_facts.load(condition="closed", people="memorised")["test"]["id"][::2]
    out = tmp_path / "known.json"
    write({"known": known}, out)
    drawn = lab_facts.load(condition="open", people="memorised", facts_items=64, facts_seed=5)["test"].to_list()
    kept = lab_facts.load(condition="open", people="memorised", facts_items=64, facts_seed=5, facts_known=str(out))["test"].to_list()
    assert kept == [row for row in drawn if row["id"] in set(known)]
    assert 16 < len(kept) < 48


def refused(path, content, message):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadOptionError, match=message):
        lab_facts.load(condition="closed", people="memorised", facts_items=4, facts_known=str(path))


def test_a_file_that_is_no_list_of_known_facts_is_refused(tmp_path):
    path = tmp_path / "known.json"
    refused(path, "", "cannot be read")
    refused(path, "{", "cannot be read")
    for content in ([], {}, {"known": []}, {"known": [1]}, {"known": "birthplace/X Y"}):
        refused(path, content, "want a JSON object with a non-empty list 'known'")
    refused(path, {"known": ["capital/Peru"]}, "1 of its 1 facts are not among these 24576, for example 'capital/Peru'")
    drawn = {row["id"] for row in lab_facts.load(condition="closed", people="memorised", facts_items=4)["test"]}
    other = next(row["id"] for row in lab_facts.load(condition="closed", people="memorised")["test"] if row["id"] not in drawn)
    refused(path, {"known": [other]}, "none of its 1 facts is among the 4 drawn")


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
    ("arguments", "message"),
    [
        (["--task", "lre_closd"], "no task named 'lre_closd'. Did you mean 'lre_closed'?"),
        (["--task", "lre_closed"], "the lre tasks need relation files"),
        (["--task", "lab_facts_open"], "--task lab_facts_open: want a task that asks for facts closed-book"),
        (["--task", "kv_4", "--metadata", '{"lookup_items": 4}'], "--task kv_4: want a task that asks for facts closed-book"),
        (["--metadata", "{"], "--metadata {: not JSON"),
        (["--metadata", "[]"], "--metadata []: want a JSON object"),
        (["--metadata", '{"facts_sed": 1}'], "Did you mean 'facts_seed'?"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_a_model_is_loaded_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(listing, "load_model", lambda *_: pytest.fail("a model was loaded"))
    result = run("--out", tmp_path / "known.json", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_replaced_without_being_told_to(tmp_path, monkeypatch, capitals):
    monkeypatch.setattr(listing, "load_model", lambda *_: Knowing())
    out = tmp_path / "known" / "list.json"
    arguments = ["--out", out, "--task", "lre_closed", "--metadata", json.dumps({"relations": capitals})]
    assert "want the path of a file in a folder that exists" in run(*arguments).stderr
    out.parent.mkdir()
    out.write_text("mine")
    assert "the file exists: want another path, or --force" in run(*arguments).stderr
    assert out.read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0
    assert "capital/Peru" in out.read_text()


def test_an_unknown_model_is_named():
    with pytest.raises(UnknownNameError, match=r"no model named 'prund-hf'\. Did you mean 'pruned-hf'\?"):
        listing.load_model("prund-hf", "", 1)
