"""The benchmark scripts, on tiny models and without the code of others."""

from __future__ import annotations

import copy
import gc
import json
import math
import sys
import weakref
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import bench_gptq
import bench_llmcompressor
import bench_memory
import bench_parity
import bench_quality
import bench_speed
import kill_prune
import lab_text
import public_reference
from harness_ext_pruners.sparsegpt import SparseGPT
from harness_ext_pruners.wanda import Wanda

from harness_ext import ChannelNorms, Hessian, Sparsity

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = {"layers": 2, "width": 64, "vocabulary": 97}


@pytest.fixture(scope="module")
def opt():
    return bench_speed.build(2, torch.float32, 64, 97)


@pytest.mark.parametrize(
    "main",
    [m.main for m in (bench_gptq, bench_llmcompressor, bench_parity, bench_quality, bench_speed, kill_prune, lab_text)],
    ids=lambda main: main.__module__,
)
def test_every_script_says_how_it_is_used(main):
    app = typer.Typer()
    app.command()(main)
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0, shown.output
    assert f"scripts/{main.__module__}.py" in (SCRIPTS / f"{main.__module__}.py").read_text()  # the exact command, in the docstring


class Recorder:
    """Stands for the authors' class: keeps what it is told."""

    seen: ClassVar[list[tuple[nn.Linear, torch.Tensor]]] = []

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    def add_batch(self, inputs: torch.Tensor, output: torch.Tensor) -> None:
        self.seen.append((self.layer, inputs))


def test_the_authors_loop_shows_each_layer_each_sequence_as_the_model_itself_does(opt):
    ids = torch.randint(0, 97, (3, 10), generator=torch.Generator().manual_seed(0))
    Recorder.seen = []
    pruned = []
    seconds = public_reference.prune_as_published(opt, ids, Recorder, lambda wrapper, layer: pruned.append(layer))
    inputs: dict[nn.Module, list[torch.Tensor]] = {}
    layers = [module for module in opt.model.decoder.layers.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda m, args: inputs.setdefault(m, []).append(args[0])) for layer in layers]
    with torch.no_grad():
        for row in ids:
            opt(row[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    assert pruned == layers
    assert len(Recorder.seen) == 3 * len(layers)
    for layer in layers:
        told = [given for of, given in Recorder.seen if of is layer]
        for given, own in zip(told, inputs[layer], strict=True):
            torch.testing.assert_close(given.reshape(10, -1), own.reshape(10, -1))
    assert seconds["total"] >= seconds["first pass"] + seconds["second pass"] > 0


def test_the_authors_loop_keeps_no_second_copy_of_the_inputs():
    blocks, caught = nn.ModuleList([nn.Identity()]), []

    def model(row: torch.Tensor, use_cache: bool) -> None:
        hidden = row[..., None].float()
        caught.append(weakref.ref(hidden))
        blocks[0](hidden)

    gc.collect()
    gc.disable()
    try:
        inputs, _ = public_reference._inputs_of_first_block(model, blocks, torch.arange(6).view(2, 3))
        assert inputs.flatten().tolist() == [0, 1, 2, 3, 4, 5]
        assert [reference() for reference in caught] == [None, None]
    finally:
        gc.enable()


def test_the_second_block_of_the_authors_loop_is_fed_by_the_pruned_first():
    model, untouched = bench_speed.build(**TINY, dtype=torch.float32), bench_speed.build(**TINY, dtype=torch.float32)
    ids = torch.arange(8)[None]

    def zero(_: object, layer: nn.Linear) -> None:
        layer.weight.data.zero_()
        layer.bias.data.zero_()

    Recorder.seen = []
    public_reference.prune_as_published(model, ids, Recorder, zero)
    first, second = (block.self_attn.q_proj for block in model.model.decoder.layers)
    given = dict(Recorder.seen)
    hidden = untouched.model.decoder(ids, use_cache=False, output_hidden_states=True).hidden_states[0]
    norm = model.model.decoder.layers[1].self_attn_layer_norm
    torch.testing.assert_close(given[second], norm(hidden))  # a block of zeros hands its input on
    assert given[first].shape == given[second].shape


@pytest.mark.parametrize("asked", ["0.5", "0.3", "2:4"])
def test_wandas_published_choice_is_ours(asked):
    torch.manual_seed(0)
    weight, inputs, sparsity = torch.randn(12, 32), torch.randn(50, 32), Sparsity.parse(asked)
    norms = ChannelNorms(32, weight.device)
    norms.update(inputs)
    theirs = public_reference.wanda_mask(weight, norms.squares / 5, sparsity)
    assert torch.equal(Wanda().prune(weight, sparsity, norms) == 0, theirs)
    found = bench_parity.wanda_causes(weight, norms.squares.double(), theirs, ~theirs, sparsity)
    assert found["other"] > 0  # a wrong mask is not explained away


def test_a_folder_that_is_no_clone_is_refused(tmp_path):
    for load in (public_reference.load_sparsegpt, public_reference.load_wanda):
        with pytest.raises(typer.BadParameter, match="no such file"):
            load(tmp_path)


def published_course(weight: torch.Tensor, upper: torch.Tensor, ratio: float) -> torch.Tensor:
    """The mask that comes of removing, from each block of columns, all scores up to the one after the share (float64)."""
    work, mask = weight.double().clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], 128):
        stop = min(start + 128, weight.shape[1])
        scores = work[:, start:stop] ** 2 / upper.diagonal()[start:stop] ** 2
        mask[:, start:stop] = scores <= scores.flatten().sort().values[int(scores.numel() * ratio)]
        for j in range(start, stop):
            work[:, j:] -= (work[:, j] * mask[:, j] / upper[j, j])[:, None] * upper[j, j:]
    return mask


def test_the_places_where_sparsegpt_differs_from_the_published_rule_are_explained_and_others_are_not():
    torch.manual_seed(0)
    weight, inputs, sparsity = torch.randn(40, 256), torch.randn(600, 256), Sparsity(0.5)
    statistic = Hessian(256, weight.device)
    statistic.update(inputs)
    ours = SparseGPT().prune(weight, sparsity, statistic)
    ours = (ours.weight if hasattr(ours, "weight") else ours) == 0
    hessian = inputs.double().T @ inputs.double()
    theirs = published_course(weight, bench_parity.inverse_upper(hessian), 0.5)
    found = bench_parity.sparsegpt_causes(weight, hessian, ours, theirs, sparsity)
    assert found["<="] == 2  # one a block
    assert found["other"] == 0
    assert sum(found.values()) == int((ours != theirs).sum())
    assert not bench_parity.sparsegpt_causes(weight, hessian, ours, ours, sparsity).total()
    swapped = theirs.clone()
    row = int((theirs[:, :128].sum(1) > 0).nonzero()[0])
    largest = int(weight[row, :128].abs().argmax())
    swapped[row, largest] = ~swapped[row, largest]
    assert bench_parity.sparsegpt_causes(weight, hessian, ours, swapped, sparsity)["other"] > 0


def test_causes_tell_counts_ties_and_rounding_apart():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], dtype=torch.float64)

    def mask(*removed: int) -> torch.Tensor:
        found = torch.zeros(1, 6, dtype=torch.bool)
        found[0, list(removed)] = True
        return found

    def causes(ours: torch.Tensor, theirs: torch.Tensor, counts: tuple[int, int, int], of: torch.Tensor = scores) -> dict[str, int]:
        return {cause: n for cause, n in bench_parity.causes_in_group(ours, theirs, of, of, counts).items() if n}

    assert causes(mask(0, 1), mask(0, 1, 2), (2, 2, 3)) == {"<=": 1}
    assert causes(mask(0, 1, 2), mask(0, 1), (3, 2, 2)) == {"count": 1}
    assert causes(mask(0, 1), mask(0, 2), (2, 2, 2), torch.tensor([[1.0, 2, 2, 4, 5, 6]], dtype=torch.float64)) == {"tie": 2}
    assert causes(mask(0, 1), mask(0, 2), (2, 2, 2), torch.tensor([[1.0, 2, 2 + 1e-6, 4, 5, 6]], dtype=torch.float64)) == {"rounding": 2}
    assert causes(mask(0, 1), mask(0, 5), (2, 2, 2)) == {"other": 2}


def test_the_flops_of_a_forward_pass_are_those_that_torch_counts(opt):
    ids = torch.zeros(3, 16, dtype=torch.int64)
    opt.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        opt.model(ids, use_cache=False)
    opt.set_attn_implementation("sdpa")
    counts = counter.get_flop_counts()["Global"]
    linear = counts[torch.ops.aten.addmm]
    products = counts[torch.ops.aten.bmm]
    assert bench_speed.forward_flops(2, 64, 3, 16) == linear + products / 2


def test_the_output_error_is_none_for_the_dense_weights_and_one_for_no_weights(opt):
    weights = bench_speed.linear_weights(opt)
    gone = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    half = {name: weight / 2 for name, weight in weights.items()}
    errors = bench_speed.output_errors(opt, [weights, gone, half], torch.arange(20).reshape(2, 10))
    assert errors == pytest.approx([0, 1, 0.25])


def test_the_error_of_a_model_is_none_for_the_dense_weights_and_in_proportion_for_a_change_of_one_layer(opt):
    weights = bench_speed.linear_weights(opt)
    changed = {name: weight * (2 if name.endswith("1.fc2") else 1) for name, weight in weights.items()}
    ids = torch.arange(20).reshape(2, 10)
    errors = bench_speed.model_errors(opt, [weights, changed], ids)
    assert errors[0] == 0
    other = copy.deepcopy(opt)
    other.get_submodule(next(name for name in weights if name.endswith("1.fc2"))).weight.data.mul_(2)
    states = [model.model(ids).last_hidden_state for model in (opt, other)]
    assert errors[1] == pytest.approx(float((states[1] - states[0]).square().sum() / states[0].square().sum()), rel=1e-4)


def test_speed_prints_both_rates_the_limit_and_the_verdicts(monkeypatch, capsys):
    monkeypatch.setattr(bench_speed, "gemm_rate", lambda dtype: 5e9)
    monkeypatch.setattr(bench_speed, "load_wanda", lambda folder: _Norms)
    bench_speed.main(pruner="wanda", reference=Path(), layers=1, width=64, samples=2, length=8, error_samples=1, repeat=1)
    shown = capsys.readouterr().out
    assert "GFLOP/s in float32: 5.0 before, 5.0 after" in shown
    for line in ("| ours |", "| the authors' |", "| the limit |", "- ours / limit: ", "- seconds of the authors' / ours: "):
        assert line in shown
    assert "- output error of ours / the authors': 1.0000 (at most 1.00: yes)" in shown


class _Norms:
    """Wanda's statistic, written for this test."""

    def __init__(self, layer: nn.Linear) -> None:
        self.scaler_row = torch.zeros(layer.in_features)

    def add_batch(self, inputs: torch.Tensor, output: torch.Tensor) -> None:
        self.scaler_row += inputs.reshape(-1, inputs.shape[-1]).float().square().sum(0)


def test_a_verdict_is_to_two_decimals():
    assert bench_speed.against(1.004, 1.0, least=False).endswith("yes)")
    assert bench_speed.against(1.006, 1.0, least=False).endswith("NO)")
    assert bench_speed.against(1.9, 2.0).endswith("NO)")


def test_the_peak_of_a_process_is_what_it_allocates():
    small, large = (bench_memory.run([sys.executable, "-S", "-c", f"x = bytearray({n}); x[::4096] = x[::4096]"]) for n in (10, 200_000_000))
    assert 195e6 < large["peak"] - small["peak"] < 215e6
    with pytest.raises(RuntimeError, match="ended with 3"):
        bench_memory.run([sys.executable, "-S", "-c", "raise SystemExit(3)"])


def test_the_memory_bar_is_the_sum_and_a_fifth():
    assert bench_memory.statistics_bytes("sparsegpt", [10, 20]) == 4 * 500
    shown = bench_memory.table({"a": 60_000_000, "b": 40_000_000}, 30e6, {"peak": 140e6, "anonymous": 1e6, "seconds": 1.0})
    assert "| the bar: their sum and 20 % | 120 |" in shown
    assert "peak with imports / bar: 1.167 (NOT MET)" in shown
    assert "peak less imports / bar: 0.917 (met)" in shown


def test_the_checkpoint_to_be_streamed_loads(tmp_path):
    bench_memory.write_checkpoint(tmp_path, 2, 64, torch.bfloat16)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert float(model.model.layers[1].mlp.down_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_quality_trials():
    assert bench_quality.trials("wanda,sparsegpt+owl,ria@2:4", "0.5,0.6") == [
        ("dense", "0"), ("wanda", "0.5"), ("wanda", "0.6"), ("sparsegpt+owl", "0.5"), ("sparsegpt+owl", "0.6"), ("ria", "2:4"),
    ]  # fmt: skip
    assert bench_quality.parse("sparsegpt+owl") == ("sparsegpt", "owl", None)


def test_quality_writes_rows_as_they_come_and_does_not_compute_them_again(tmp_path, monkeypatch, capsys):
    whole = lab_text.ids
    monkeypatch.setattr(lab_text, "ids", lambda samples, seed=0: whole(samples, seed, length=40))
    out, plot = tmp_path / "rows.json", tmp_path / "plot.png"
    asked = {"methods": "magnitude,wanda@2:4", "sparsity": "0.9", "tasks": "", "samples": 2}
    bench_quality.main(**asked, out=out, figure=plot)
    dense, magnitude, pattern = rows = json.loads(out.read_text())
    assert [(row["method"], row["sparsity"]) for row in rows] == [("dense", "0"), ("magnitude", "0.9"), ("wanda", "2:4")]
    assert 1 < dense["perplexity"] < pattern["perplexity"] < magnitude["perplexity"]
    assert magnitude["removed"] == pytest.approx(0.9, abs=1e-3)
    assert 0 < pattern["error"] < magnitude["error"] < math.inf
    assert plot.stat().st_size > 10_000
    shown = capsys.readouterr().out
    monkeypatch.setattr(bench_quality, "measure", None)
    bench_quality.main(**asked, out=out)
    assert capsys.readouterr().out == shown


def test_quality_tells_what_is_left_above_chance_and_who_refused():
    dense = {"lab_facts_closed": 1.0, "kv_16": 1.0}
    row = {"lab_facts_closed": 1 / 4096, "kv_16": 1.0}
    assert bench_quality.left(row, dense, ["lab_facts_closed"]) == pytest.approx(0)
    assert bench_quality.left(row, dense, ["lab_facts_closed", "kv_16"]) == pytest.approx(0.5)
    assert bench_quality.left({"refused": "no"}, dense, ["kv_16"]) is None
    shown = bench_quality.table([{"method": "width", "sparsity": "0.8", "removed": 0.0, "seconds": 0.0, "refused": "too much"}], [])
    assert "- width 0.8: too much" in shown


def test_gptq_has_a_smaller_error_than_rounding_to_nearest(capsys):
    folder = str(SCRIPTS.parent / "plugins" / "harness_ext_lab" / "lab-xs")
    bench_gptq.main(pretrained=folder, bits=3, group_size=32, symmetric=False, act_order=True, dtype="float32", samples=4, length=32,
                    llmcompressor_python=None)  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["gptq"]["error"] < 0.7 * found["rtn"]["error"]
    assert "llmcompressor" not in found


def test_a_phase_is_told_by_what_the_run_has_written_since_it_began(tmp_path):
    resume, out = tmp_path / "resume", tmp_path / "out"
    assert kill_prune.phase(resume, out) == "before pruning"
    (resume / "abc").mkdir(parents=True)
    lock = resume / "abc" / "lock"
    lock.touch()
    assert kill_prune.phase(resume, out) == "mid-pruning"
    assert kill_prune.phase(resume, out, lock.stat().st_mtime_ns + 1) == "before pruning"  # the lock is of a run that was killed
    (tmp_path / ".out.12ab34cd.part").mkdir()
    assert kill_prune.phase(resume, out) == "while saving"
    out.mkdir()
    assert kill_prune.phase(resume, out) == "after it was saved"


def test_checkpoints_are_compared_bit_by_bit(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    same, nan = torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([math.nan])
    save_file({"a": same, "nan": nan, "zero": torch.zeros(2), "b": same.clone()}, first / "model.safetensors")
    save_file({"a": same, "nan": nan, "zero": -torch.zeros(2), "c": same.clone()}, second / "model.safetensors")
    assert kill_prune.differences(first, first) == []
    assert kill_prune.differences(first, second) == ["b", "c", "zero"]
