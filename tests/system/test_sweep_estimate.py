"""What ``--dry-run`` says a sweep costs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sweeps import prepare, sweep
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MptConfig

from harness_ext.host import preflight
from harness_ext.sweep import estimate, prepared, preview, probe
from harness_ext.sweep.items import Requests
from harness_ext.sweep.prepared import Checked
from harness_ext.sweep.probe import Speed
from harness_ext.tasks import facts, relations

OPTIONS = ["calibration.samples=4", "calibration.length=16"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tasks": ["icl_linear,icl_tree"], "metadata": {"icl_items": 200}},
        {"tasks": ["lab_facts_closed,kv_4"], "metadata": {"facts_items": 150, "lookup_items": 40}},
        {"tasks": ["icl_linear"], "metadata": {"icl_items": 200}, "limit": 50},
        {"tasks": ["icl_linear"], "metadata": {"icl_items": 200}, "limit": 0.1},
        {"tasks": ["icl_linear"], "metadata": {"icl_items": 8}},
        pytest.param({"tasks": ["lab_facts_open"], "metadata": {"facts_items": 4000}, "limit": 200}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_few_items_tell_what_all_of_them_ask(fields: dict[str, Any]) -> None:
    prepared = prepare(**fields)
    whole = prepared.items["lab-xs"].requests
    names, few = estimate.few_requests(prepared.catalogue, prepared.sweep)
    assert names == list(prepared.items["lab-xs"].digests)
    assert (few.count, few.prompts) == (whole.count, whole.prompts)
    assert few.characters == pytest.approx(whole.characters, rel=0.1)


def test_the_items_of_a_task_of_others_are_counted(tmp_path) -> None:
    import harness_run

    harness_run.write_tasks(tmp_path / "tasks")
    prepared = prepare(tasks=harness_run.TASKS, include_path=[str(tmp_path / "tasks")], metadata={})
    assert estimate.few_requests(prepared.catalogue, prepared.sweep)[1].count == prepared.items["lab-xs"].requests.count == 4 * 3 + 4


class TestPreview:
    def rows(self, monkeypatch: pytest.MonkeyPatch, tmp_path, speed: Speed, **fields: Any) -> list[float | None]:
        monkeypatch.setattr(preview, "measure", lambda *_: speed)
        return [row.seconds for row in preview.preview(Checked(prepare(**fields).sweep), tmp_path / "none").rows]

    def test_calibration_passes_cost_time_and_text_that_the_model_writes_does_once(self, monkeypatch, tmp_path) -> None:
        fields = {"pruner": ["wanda", "sparsegpt", "magnitude"], "options": OPTIONS}
        dense, wanda, sparsegpt, magnitude = self.rows(monkeypatch, tmp_path, Speed(token=1.0, step=1000.0), **fields)
        assert magnitude == dense
        assert sparsegpt == pytest.approx(dense + 3 * 64)
        assert wanda == pytest.approx(sparsegpt + 1000)

    def test_text_of_another_seed_is_written_again(self, monkeypatch, tmp_path) -> None:
        fields = {"pruner": ["wanda"], "options": OPTIONS, "seeds": ["0,1"], "sparsity": ["0.3,0.6"]}
        _, first, second, third, fourth = self.rows(monkeypatch, tmp_path, Speed(token=0.0, step=1000.0), **fields)
        assert first == third == pytest.approx(second + 1000) == pytest.approx(fourth + 1000)

    def test_a_model_that_cannot_be_made_has_no_estimate(self, monkeypatch, tmp_path) -> None:
        monkeypatch.setattr(prepared, "skeleton", lambda *_: None)
        assert self.rows(monkeypatch, tmp_path, Speed(1.0, 1.0)) == [None, None]

    def test_finished_trials_tell_more_than_a_measurement(self, monkeypatch, tmp_path) -> None:
        sweep(tmp_path / "out", sparsity=["0.5"])
        monkeypatch.setattr(preview, "measure", None)
        found = preview.preview(Checked(prepare(sparsity=["0.5,0.7"]).sweep), tmp_path / "out")
        assert [row.done for row in found.rows] == [True, True, False]
        assert found.rows[2].seconds is not None

    def test_other_items_and_other_settings_are_not_done(self, monkeypatch, tmp_path) -> None:
        sweep(tmp_path / "out", sparsity=["0.5"])
        for change in ({"metadata": {"icl_items": 9}}, {"limit": 4}, {"num_fewshot": 1}, {"tasks": ["icl_tree"]}):
            found = preview.preview(Checked(prepare(**change).sweep), tmp_path / "out")
            assert not any(row.done for row in found.rows), change


class TestProbe:
    CONFIG = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2)

    def test_a_small_model_is_measured_whole(self) -> None:
        began = time.monotonic()
        speed = probe.measure(prepare().sweep, self.CONFIG, 10_000, 32)
        assert 0 < speed.token < speed.step < time.monotonic() - began

    def test_the_time_of_a_large_model_is_that_of_its_blocks(self, monkeypatch) -> None:
        blocks = []

        def seconds(model, shape, device) -> float:
            blocks.append(len(model.model.layers))
            return 2.0 + 3.0 * blocks[-1]

        monkeypatch.setattr(probe, "_seconds", seconds)
        speed = probe.measure(prepare().sweep, self.CONFIG, 10**9, 16)
        assert set(blocks) == {1, 2}
        assert speed == Speed(pytest.approx((2 + 3 * 5) / 16), pytest.approx(2 + 3 * 5))

    def test_it_draws_from_no_generator_and_is_repeated_in_the_dtype_of_the_sweep(self, monkeypatch) -> None:
        dtypes = []
        monkeypatch.setattr(probe, "_seconds", lambda model, shape, device: dtypes.append(model.dtype) or 1.0)
        before = torch.get_rng_state()
        probe.measure(prepare(dtype="bfloat16").sweep, self.CONFIG, 10_000, 16)
        assert torch.equal(torch.get_rng_state(), before)
        assert set(dtypes) == {torch.bfloat16}


def test_requests_of_a_share_are_those_of_all() -> None:
    instances = [SimpleNamespace(doc_id=doc_id, args=("four", " x")) for doc_id in (0, 0, 1, 1)]
    tasks = {"a": SimpleNamespace(instances=instances)}
    assert Requests.of(tasks) == Requests(count=4, prompts=2, characters=8)
    assert Requests.of(tasks, {"a": 0.5}) == Requests(count=8, prompts=4, characters=16)


def relation_file(folder: Path, count: int) -> str:
    samples = [{"subject": f"Town{number}", "object": f"Country{number % 40}"} for number in range(count)]
    content = {"name": "town in country", "prompt_templates": ["{} is a town in"], "samples": samples}
    file = folder / "towns.json"
    file.write_text(json.dumps(content))
    return str(file)


class TestAllFacts:
    """``facts_items`` of 0, or none: all facts of the files, of which a dry run makes few items."""

    def fields(self, folder: Path, **metadata: Any) -> dict[str, Any]:
        return {"tasks": ["lre_closed,lre_open"], "metadata": {"relations": relation_file(folder, 300), **metadata}}

    def test_they_are_counted(self, tmp_path) -> None:
        prepared = prepare(**self.fields(tmp_path))
        few = estimate.few_requests(prepared.catalogue, prepared.sweep)[1]
        whole = prepared.items["lab-xs"].requests
        assert (few.count, few.prompts) == (whole.count, whole.prompts) == (2 * 300 * 17, 2 * 300)
        assert few.characters == pytest.approx(whole.characters, rel=0.1)

    def test_few_items_of_them_are_made(self, tmp_path, monkeypatch) -> None:
        prepared = prepare(**self.fields(tmp_path))
        made = []
        row = facts._row
        monkeypatch.setattr(facts, "_row", lambda *arguments: made.append(1) or row(*arguments))
        estimate.few_requests(prepared.catalogue, prepared.sweep)
        assert len(made) == 2 * estimate.FEW

    def test_known_facts_alone_are_counted(self, tmp_path) -> None:
        known = tmp_path / "known.json"
        known.write_text(json.dumps({"known": [f"town in country/Town{number}" for number in range(0, 300, 2)]}))
        prepared = prepare(**self.fields(tmp_path, facts_known=str(known)))
        few = estimate.few_requests(prepared.catalogue, prepared.sweep)[1]
        assert few.prompts == prepared.items["lab-xs"].requests.prompts == 2 * 150

    def test_the_trials_after_it_get_all_items(self, tmp_path) -> None:
        prepared = prepare(**self.fields(tmp_path))
        estimate.few_requests(prepared.catalogue, prepared.sweep)
        tasks = prepared.catalogue.tasks(prepared.catalogue.load("lab-xs"))
        assert {len(task.eval_docs) for task in tasks.values()} == {300}


def test_a_changed_relation_file_is_read_again(tmp_path) -> None:
    path = Path(relation_file(tmp_path, 30))
    assert len(relations.read_relations(path)[0]) == 30
    relation_file(tmp_path, 40)
    assert len(relations.read_relations(path)[0]) == 40


def test_blocks_are_looked_for_once_for_all_trials(monkeypatch) -> None:
    looked = []
    find_blocks = preflight.find_blocks
    monkeypatch.setattr(preflight, "find_blocks", lambda model, modules: looked.append(modules) or find_blocks(model, modules))
    prepare(sparsity=["0.1:0.5:0.1"], modules=["attention", "ffn"])
    assert sorted(looked) == ["attention", "ffn"]


def test_waiting_for_a_busy_cpu_is_not_measured() -> None:
    def model(ids: torch.Tensor) -> None:
        time.sleep(0.3)

    assert probe._seconds(model, (1, 1), torch.device("cpu")) < 0.1


@pytest.mark.parametrize(
    "config",
    [LlamaConfig(max_position_embeddings=96), MptConfig(max_seq_len=96), GPT2Config(n_positions=96)],
    ids=lambda one: one.model_type,
)
def test_the_length_is_known_whatever_the_configuration_calls_it(config: Any) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert estimate.size(model) == (sum(weight.numel() for weight in model.parameters()), 96)
