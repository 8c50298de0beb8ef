"""The records of a sweep: what they say, which trial they are of, and what becomes of damaged ones."""

from __future__ import annotations

import csv
import logging
import shutil
from types import SimpleNamespace

import pytest
from refusals import raises_line
from sweeps import files, prepare, sweep

from harness_ext import BadOptionError
from harness_ext.report.reading import read
from harness_ext.sweep import load
from harness_ext.sweep import run as running
from harness_ext.sweep.records import scan
from harness_ext.sweep.trial import write


class TestRecords:
    def test_that_are_there_are_refused_without_an_option_that_a_sweep_has_not(self, tmp_path):
        (tmp_path / "trials").mkdir()
        sparsity = SimpleNamespace(ratio=0.5)
        trial = SimpleNamespace(arguments={}, plan=SimpleNamespace(sparsity=sparsity))
        given = (tmp_path, None, trial, {"limit": 8}, {"config": {"pruning": {}, "command": "lm_eval"}}, {}, {})
        write(*given)
        with raises_line(BadOptionError, str(tmp_path), "exists") as refused:
            write(*given)
        assert "--" not in str(refused.value)

    def test_say_what_was_done(self, done):
        dense, pruned = load(done)
        assert dense.is_dense
        assert (dense.pruner, dense.sparsity, dense.modules, dense.calibration, dense.seed) == (None, "0", None, None, None)
        assert (pruned.pruner, pruned.sparsity, pruned.ratio, pruned.achieved_sparsity) == ("magnitude", "0.5", 0.5, 0.5)
        assert (pruned.allocation, pruned.modules, pruned.calibration, pruned.seed) == ("uniform", "all", None, None)
        assert dense.nonzero == dense.parameters == pruned.parameters > pruned.nonzero
        assert dense.items == pruned.items
        assert pruned.tasks == ["icl_linear"]
        assert [row["doc_id"] for row in pruned.samples("icl_linear")] == list(range(8))
        assert pruned.command.startswith("lm_eval --model pruned-hf --model_args pretrained=lab-xs,pruner=magnitude,sparsity=0.5 --tasks")

    def test_the_table_has_every_score(self, done):
        rows = list(csv.DictReader((done / "results.csv").open()))
        for record in load(done):
            scores = record.results["results"]["icl_linear"]
            found = {row["metric"]: row for row in rows if row["key"] == record.key}
            assert {f"{metric},none": float(row["value"]) for metric, row in found.items()} == {
                name: value for name, value in scores.items() if "," in name and "_stderr" not in name
            }
            assert float(found["acc"]["stderr"]) == scores["acc_stderr,none"]

    def test_a_run_again_loads_nothing_and_changes_nothing(self, copy, monkeypatch):
        before = files(copy)
        monkeypatch.setattr(running, "DenseModel", None)
        summary = sweep(copy)
        assert (summary.before, summary.done, summary.failed) == (2, 0, [])
        assert files(copy) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"metadata": {"icl_items": 9}},
            {"metadata": {"icl_items": 8, "icl_seed": 1}},
            {"limit": 4},
            {"dtype": "bfloat16"},
            {"batch_size": 3},
            {"tasks": ["icl_tree"]},
            {"tasks": ["icl_linear", "icl_tree"]},
            {"sparsity": ["0.25"]},
            {"pruner": ["random"]},
            {"modules": ["ffn"]},
            {"precision": "float64"},
            {"pretrained": ["lab-s"]},
        ],
    )
    def test_a_changed_setting_has_a_key_of_its_own(self, done, change):
        old = {job.key for job in prepare().jobs if not job.trial.is_dense}
        assert old <= {record.key for record in load(done)}
        assert not old & {job.key for job in prepare(**change).jobs}

    def test_the_content_of_a_calibration_file_is_part_of_the_key(self, tmp_path):
        text = tmp_path / "text.txt"
        keys = []
        for content in ("one text", "another text"):
            text.write_text(content)
            keys.append([job.key for job in prepare(pruner=["wanda"], calibration=[str(text)]).jobs])
        assert keys[0][0] == keys[1][0]
        assert keys[0][1] != keys[1][1]

    def test_the_place_of_a_model_is_not_part_of_the_key_and_its_content_is(self, tmp_path):
        from harness_ext.plugins import Plugins

        folder = Plugins().models.get("lab-xs")[0]
        shutil.copytree(folder, tmp_path / "copy")
        keys = [job.key for job in prepare().jobs]
        assert [job.key for job in prepare(pretrained=[str(tmp_path / "copy")]).jobs] == keys
        with pytest.raises(BadOptionError, match=r"two trials are the same: lab-xs dense and .*copy dense"):
            prepare(pretrained=["lab-xs", str(tmp_path / "copy")])
        card = tmp_path / "copy" / "README.md"
        card.write_text(card.read_text() + "\n")
        assert [job.key for job in prepare(pretrained=[str(tmp_path / "copy")]).jobs] == keys
        config = tmp_path / "copy" / "config.json"
        config.write_text(config.read_text() + "\n")
        assert not set(keys) & {job.key for job in prepare(pretrained=[str(tmp_path / "copy")]).jobs}

    @pytest.mark.parametrize("file", ["trial.json", "results.json", "samples_icl_linear.jsonl.gz"])
    @pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
    def test_a_damaged_one_is_moved_aside_and_done_again(self, copy, file, damage, caplog):
        before = files(copy)
        record = load(copy)[1]
        path = record.folder / file
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            half = len(content) // 2
            path.write_bytes(content[:half] if damage == "cut" else content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
        assert [found.key for found in load(copy)] == [load(copy)[0].key]
        assert "is corrupt and left out" in caplog.text
        with caplog.at_level(logging.WARNING):
            summary = sweep(copy)
        assert (summary.before, summary.done) == (1, 1)
        assert "moved to .corrupt-" in caplog.text
        assert (copy / "trials" / f".corrupt-{record.key}-1").is_dir()
        assert {name: content for name, content in files(copy).items() if ".corrupt" not in str(name)} == before

    def test_what_is_not_named_like_a_record_is_left_alone(self, copy, caplog):
        key = load(copy)[1].key
        mine = [
            copy / "trials" / name for name in ("notes.txt", "mine", f"{key}.bak", f"{key}0", key.upper(), ".notes.part", ".mine.part.lock")
        ]
        mine += [copy / ".upload.tar.part", copy / "failed" / ".mine.json.0123abcd.part", copy / "failed" / "notes.json"]
        unfinished = [
            copy / "trials" / f".{key}.0123abcd.part",
            copy / ".results.csv.0123abcd.part",
            copy / "failed" / f".{key}.json.0123abcd.part",
        ]
        (copy / "failed").mkdir(exist_ok=True)
        for path in [*mine, *unfinished]:
            path.write_text("{}")
        with caplog.at_level(logging.WARNING):
            summary = sweep(copy)
        assert (summary.before, summary.done, summary.failed) == (2, 0, [])
        assert "corrupt" not in caplog.text
        assert [path.name for path in mine if not path.is_file()] == []
        assert [path.name for path in unfinished if path.exists()] == []
        assert scan(copy)[1] == {}
        trials, gaps = read([copy])
        assert (len(trials), gaps) == (2, [])

    def test_one_that_was_renamed_is_not_taken_for_another(self, copy):
        record = load(copy)[1]
        record.folder.rename(record.folder.with_name("0" * 16))
        assert list(scan(copy)[1].values()) == ["trial.json does not have its checksum"]

    def test_load_wants_a_folder_of_a_sweep(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no folder 'trials'"):
            load(tmp_path)


def test_a_helper_beside_a_plugin_is_part_of_the_key(install_plugin, tmp_path):
    source = (
        "from harness_ext import Pruner, hookimpl\nfrom own_helper import power\nclass Own(Pruner):\n    name = 'own'\n"
        "    def score(self, weight, statistic):\n        return weight.abs() ** power()\n"
        "@hookimpl\ndef register_pruners(register):\n    register(Own)\n"
    )
    install_plugin("own-pruner", source)
    helper = tmp_path / "site-packages" / "own_helper.py"
    helper.write_text("def power():\n    return 1\n")
    before = {job.trial.is_dense: job.key for job in prepare(pruner=["own"]).jobs}
    helper.write_text("def power():\n    return 2\n")
    after = {job.trial.is_dense: job.key for job in prepare(pruner=["own"]).jobs}
    assert before[True] == after[True]
    assert before[False] != after[False]
