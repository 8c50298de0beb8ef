"""Results of checkpoints that ``harness-ext prune`` wrote are of pruned and quantised models, whoever loads them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM
from report_folders import rows, write_plain
from sweeps import sweep
from typer.testing import CliRunner

from harness_ext import PrunedHFLM
from harness_ext.commands.cli import app
from harness_ext.report import report
from harness_ext.report.compare import compare_results
from harness_ext.report.reading import read
from harness_ext.sweep.records import load

pytestmark = pytest.mark.usefixtures("quick_figures")

WAYS = {
    "pruned": ("--pruner", "magnitude", "--sparsity", "0.5"),
    "quantised": ("--pruner", "rtn", "--bits", "4"),
    "both": ("--pruner", "rtn", "--bits", "4", "--sparsity", "0.5"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp("checkpoints") / name for name in WAYS}
    for name, options in WAYS.items():
        ran = CliRunner().invoke(app, ["prune", "--pretrained", "lab-xs", "--out", str(found[name]), *options])
        assert ran.exit_code == 0, ran.output
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    sweep(out, pretrained=["lab-xs", *map(str, folders.values())], sparsity=["0"])
    return out


def by_folder(trials: list[Any], folder: Path) -> Any:
    (trial,) = [trial for trial in trials if trial.from_checkpoint and f"={folder}," in f"{trial.command},".replace(" ", ",")]
    return trial


@pytest.mark.parametrize("name", WAYS)
def test_a_dense_run_of_a_checkpoint_is_the_model_of_its_record(name: str, folders: dict[str, Path], swept: Path) -> None:
    record = json.loads((folders[name] / "pruning.json").read_text())
    trials, _ = read([swept])
    (dense,) = [trial for trial in trials if trial.is_dense]
    trial = by_folder(trials, folders[name])
    assert not trial.is_dense
    assert (trial.pretrained, trial.dense_digest) == (dense.pretrained, dense.dense_digest)
    assert (trial.plan["pruner"], trial.sparsity, trial.weight_bits) == (
        record["plan"]["pruner"], record["plan"]["sparsity"], record["plan"].get("bits"),
    )  # fmt: skip
    assert trial.achieved == record["achieved_sparsity"]
    assert trial.fingerprint == record["fingerprint"]
    (written,) = [written for written in load(swept) if written.pretrained == str(folders[name])]
    assert not written.is_dense
    assert record["plan"]["pruner"] in str(written.checkpoint)
    assert written.achieved_sparsity == record["achieved_sparsity"]


def test_the_report_has_one_dense_model(swept: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    done = report([swept], tmp_path / "out", axis="bits", resamples=100)
    scores = rows(done.page.parent, "scores")
    assert sorted((row["pruner"], row["bits"], row["sparsity"]) for row in scores if row["task"] == "icl_linear") == [
        ("", "", "0"), ("magnitude", "", "0.5"), ("rtn", "4", "0"), ("rtn", "4", "0.5"),
    ]  # fmt: skip
    dense = {row["model"] for row in rows(done.page.parent, "bits") if not row["series"]}
    assert dense == {"lab-xs"}


def test_other_classes_of_lm_eval_have_the_record_beside_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, folder in folders.items():
        file = of_hf(tmp_path / name, str(folder))
        (trial,), gaps = read([file])
        record = json.loads((folder / "pruning.json").read_text())
        assert trial.weight_bits == record["plan"].get("bits")
        assert trial.dense_digest == record["dense_digest"]
        assert not trial.is_dense
        assert any("pruning record" in gap and record["plan"]["pruner"] in gap for gap in gaps)


def test_what_a_folder_was_is_not_guessed(folders: dict[str, Path], tmp_path: Path) -> None:
    of_hf(tmp_path / "gone", str(tmp_path / "no" / "such"))
    of_hf(tmp_path / "short", "llama-wanda-50")
    of_hf(tmp_path / "later", str(folders["quantised"]), date=time.time() - 10**6)
    of_hf(tmp_path / "hub", "org/small")
    trials, gaps = read([tmp_path])
    assert [trial.pretrained for trial in trials] == ["org/small (hf)"]
    for folder, said in (("gone", "is not there"), ("short", "is not there"), ("later", "after the results"), ("hub", "org/small")):
        assert any(f"/{folder}/" in gap and said in gap for gap in gaps), folder


def test_what_is_done_to_a_checkpoint_is_told_apart_from_the_same_on_dense_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    sweep(tmp_path / "run", pretrained=["lab-xs", str(folders["quantised"])], sparsity=["0", "0.5"])
    trials, _ = read([tmp_path / "run"])
    assert len({trial.dense_digest for trial in trials}) == 1
    assert sum(trial.is_dense for trial in trials) == 1
    pruned = [trial for trial in trials if trial.sparsity == "0.5"]
    assert {trial.weight_bits for trial in pruned} == {None, 4}
    assert len({json.dumps(trial.settings) for trial in pruned}) == 2
    done = report([tmp_path / "run"], tmp_path / "out", resamples=100)
    assert {row["series"] for row in rows(done.page.parent, "curves")} == {"magnitude"}


def test_a_checkpoint_can_be_compared_with_the_dense_model(swept: Path, folders: dict[str, Path]) -> None:
    compared = compare_results(f"{swept}:pruner=magnitude", f"{swept}:bits=4,sparsity=0", resamples=100)
    assert compared.pairs


def test_the_perplexity_command_and_model_cards_say_what_the_model_is(folders: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Each of these words is in the text. " * 100)
    ran = CliRunner().invoke(app, ["perplexity", "--pretrained", str(folders["quantised"]), "--text", str(text), "--window", "32"])
    assert ran.exit_code == 0, ran.output
    assert "rtn, 4 bits" in ran.output
    assert "dense" not in ran.output
    out = tmp_path / "again"
    ran = CliRunner().invoke(app, ["prune", "--pretrained", str(folders["quantised"]), "--out", str(out), *WAYS["pruned"]])
    assert ran.exit_code == 0, ran.output
    (line,) = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("| base model")]
    assert "rtn, 4 bits" in line
    record = PrunedHFLM(str(out), device="cpu").pruning_record
    assert record["checkpoint"]["checkpoint"]["plan"]["bits"] == 4


def of_hf(folder: Path, pretrained: str, date: float | None = None) -> Path:
    """Results of ``lm_eval --model hf``, which have no pruning record."""
    file = write_plain(folder, {"icl_linear": [1, 0] * 50}, "0", stamp="2026-01-09T00-00-00")
    results = json.loads(file.read_text(encoding="utf-8"))
    del results["config"]["pruning"]
    results["config"] |= {"model": "hf", "model_args": {"pretrained": pretrained}, "model_dtype": "torch.float16"}
    file.write_text(json.dumps(results | ({} if date is None else {"date": date})), encoding="utf-8")
    return file


def test_a_model_that_cannot_be_loaded_is_not_looked_up_for_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of a name on the hub waits for the network: one that fails in loading must not wait twice."""
    looked_up: list[str] = []

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("not on the hub")

    monkeypatch.setattr(HFLM, "__init__", fail)
    monkeypatch.setattr("harness_ext.host.model.of_checkpoint", lambda name, **_: looked_up.append(name) or {})
    with pytest.raises(OSError, match="not on the hub"):
        PrunedHFLM(pretrained="no-one/no-model", device="cpu")
    assert looked_up == []
