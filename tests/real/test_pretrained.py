"""A real pretrained model: pruned, saved, read back, streamed, and scored by the stock ``lm_eval`` command.

``python -m harness_ext_smollm2`` fetches the model; ``pytest -m real tests/real`` runs these tests.
"""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import subprocess
from pathlib import Path

import pytest
import torch
from harness_ext_smollm2.place import COMMAND, NAME, folder
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness_ext
from harness_ext import PrunedHFLM

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not folder().is_dir(), reason=f"no {NAME} on this machine: {COMMAND}"),
]

PRUNE = ["--pruner", "wanda", "--sparsity", "0.5", "-o", "calibration.samples=4", "-o", "calibration.length=64"]
FACTS = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Russia": "Moscow", "China": "Beijing",
    "Greece": "Athens", "Egypt": "Cairo", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Sweden": "Stockholm",
    "Norway": "Oslo", "Finland": "Helsinki", "Ireland": "Dublin", "Hungary": "Budapest", "Cuba": "Havana", "Peru": "Lima",
    "Kenya": "Nairobi",
}  # fmt: skip
CHOICES = 8


def prune(out: Path, *more: str) -> Path:
    """A folder that ``harness-ext prune`` wrote."""
    command = ["harness-ext", "prune", "--pretrained", NAME, "--device", "cpu", *PRUNE, "--out", str(out), *more]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return out


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prune(tmp_path_factory.mktemp("pruned") / "model")


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some English for calibration: the documentation that Python brings along."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(pydoc_data.topics.topics["typesmapping"] * 4, encoding="utf-8")
    return path


def capitals() -> list[Instance]:
    """For each country a request for each of eight capitals, the right one first, behind two examples of the relation."""
    cities = list(FACTS.values())
    examples = "The capital of Turkey is Ankara. The capital of Chile is Santiago. "
    return [
        Instance(
            request_type="loglikelihood",
            doc={},
            arguments=(f"{examples}The capital of {country} is", f" {cities[(number + step) % len(cities)]}"),
            idx=0,
        )
        for number, country in enumerate(FACTS)
        for step in range(CHOICES)
    ]


def share_right(scores: list[float]) -> float:
    return float((torch.tensor(scores).view(-1, CHOICES).argmax(1) == 0).double().mean())


def scores_of(lm: HFLM) -> list[float]:
    return [score for score, _ in lm.loglikelihood(capitals(), disable_tqdm=True)]


def test_half_of_the_weights_of_each_layer_are_removed_and_read_back(pruned: Path) -> None:
    model, dense = AutoModelForCausalLM.from_pretrained(pruned), AutoModelForCausalLM.from_pretrained(folder())
    removed = 0
    for name, module in model.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            before = dense.model.layers.get_submodule(name).weight
            kept = module.weight != 0
            assert torch.equal(module.weight[kept], before[kept]), name
            assert int((~kept).sum()) >= module.weight.numel() // 2, name  # 4-bit weights hold zeros of their own
            removed += 1
    assert removed == 7 * len(dense.model.layers)
    record = json.loads((pruned / "pruning.json").read_text(encoding="utf-8"))
    assert record["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)


def test_streamed_is_the_same_folder(pruned: Path, text_file: Path, tmp_path: Path) -> None:
    whole = prune(tmp_path / "whole", "--calibration", str(text_file))
    streamed = prune(tmp_path / "streamed", "--calibration", str(text_file), "--stream")
    first, second = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (whole, streamed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_first_block_loses_the_lowest_scores_of_wanda(text_file: Path) -> None:
    """Equation 1 of arXiv 2306.11695 in float64, with the inputs of a plain forward pass of the dense model."""
    dense, tokenizer = AutoModelForCausalLM.from_pretrained(folder()).eval(), AutoTokenizer.from_pretrained(folder())
    ids = tokenizer(text_file.read_text(encoding="utf-8"), return_tensors="pt").input_ids[:, :256].view(2, 128)
    inputs: dict[str, torch.Tensor] = {}
    layers = {name: layer for name, layer in dense.model.layers[0].named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    with torch.no_grad():
        dense(ids)
    model = AutoModelForCausalLM.from_pretrained(folder())
    harness_ext.prune(model, pruner="wanda", sparsity=0.5, modules="model.layers.0.*", calibration=ids)
    for name, layer in layers.items():
        scores = layer.weight.detach().double().abs() * inputs[name].double().flatten(0, -2).norm(dim=0)
        kept = model.model.layers[0].get_submodule(name).weight != 0
        assert torch.equal(kept.sum(1) <= scores.shape[1] // 2, torch.ones(len(scores), dtype=torch.bool)), name
        highest_removed = scores.masked_fill(kept, 0).amax(1)
        lowest_kept = scores.masked_fill(~kept, torch.inf).amin(1)
        assert bool((highest_removed <= lowest_kept * (1 + 1e-6)).all()), name


def test_shared_prompts_score_as_the_stock_model_does_and_facts_are_recalled_until_weights_go() -> None:
    arguments = {"pretrained": str(folder()), "device": "cpu", "batch_size": 8, "dtype": "float32"}
    stock, ours = scores_of(HFLM(**arguments)), scores_of(PrunedHFLM(**arguments, sparsity=0.0))
    assert max(abs(a - b) for a, b in zip(stock, ours, strict=True)) <= 1e-4
    assert share_right(stock) == share_right(ours) >= 0.8  # chance is 1/8
    assert share_right(scores_of(PrunedHFLM(**arguments, sparsity=0.8, pruner="magnitude"))) <= 0.5


def test_the_stock_command_runs_the_task_of_the_front_page(tmp_path: Path) -> None:
    """Only that it runs: a model of this size does not learn the function."""
    command = [
        "lm_eval",
        "run",
        "--model",
        "pruned-hf",
        "--tasks",
        "icl_linear",
        "--limit",
        "4",
        "--output_path",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    command += ["--model_args", f"pretrained={NAME},sparsity=0.5,pruner=magnitude"]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads(next(tmp_path.rglob("results*.json")).read_text(encoding="utf-8"))
    assert 0 <= results["results"]["icl_linear"]["acc,none"] <= 1
