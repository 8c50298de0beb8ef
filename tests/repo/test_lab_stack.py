"""Several embedded models trained at once: each is the model that it would be alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_tokenizer
from lab_batches import Part, Targets, stack
from lab_loss import loss
from lab_model import StackedModel, causal_attention, logits, new_model, stacked
from lab_muon import StackedMuon, orthogonal
from lab_settings import SMOKE, Settings
from train_lab import Trainer, claim, train

from harness_ext.tasks.people import population

CPU = torch.device("cpu")
RUNS = [Settings(**SMOKE, seed=0), Settings(**SMOKE, seed=1), Settings(**SMOKE, seed=1, people=100, slots=8192)]


@pytest.fixture(scope="module")
def tokenizer():
    return lab_tokenizer.build(population(0))


def steps(runs, count, tmp_path, processes=0, together=False):
    """The figures of some steps, and the weights after them."""
    trainer = Trainer(runs, [tmp_path] * len(runs), processes=processes)
    trainer.feeder.together = together
    try:
        for step in range(count):
            trainer.feeder.ask(step, trainer.dimensions)
        return [trainer.train_step() for _ in range(count)], trainer.stack.masters
    finally:
        trainer.feeder.close()


def test_a_stacked_model_computes_what_transformers_computes(tokenizer):
    models = [new_model(32, 3, 4, seed, tokenizer) for seed in (0, 1)]
    ids = torch.randint(0, len(tokenizer), (2, 3, 40), generator=torch.Generator().manual_seed(0))
    weights = stacked(models)
    middle, last = StackedModel(32, 3, 4, CPU).states(weights, ids)
    scores = logits(weights, last)
    for number, model in enumerate(models):
        expected = model(ids[number], output_hidden_states=True)
        torch.testing.assert_close(scores[number], expected.logits.flatten(0, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(middle[number], expected.hidden_states[2].flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_the_attention_of_the_training_is_causal_attention():
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(causal_attention(query, key, value), expected)


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_a_step_of_stacked_muon_is_that_of_torch_for_each_matrix(shape):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, *shape, generator=generator) for _ in range(2)]
    ours = [torch.nn.Parameter(matrices.clone()) for matrices in start]
    alone = [torch.nn.Parameter(matrix.clone()) for matrices in start for matrix in matrices]
    optimizers = StackedMuon(ours, lr=0.1), torch.optim.Muon(alone, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for matrices, group in zip(ours, (alone[:3], alone[3:]), strict=True):
            matrices.grad = torch.randn(3, *shape, generator=generator)
            for matrix, gradient in zip(group, matrices.grad, strict=True):
                matrix.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(torch.cat(list(ours)), torch.stack(list(alone)), rtol=0, atol=1e-6)
    assert not torch.cat(list(ours)).equal(torch.cat(start))


def test_a_nearly_orthogonal_matrix_has_the_singular_vectors_of_the_matrix():
    matrix = torch.randn(1, 12, 6, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    turned = u.T @ orthogonal(matrix)[0].float() @ v.T
    assert (turned.diagonal() > 0.5).all()
    assert (turned - turned.diagonal().diag()).abs().max() < 0.1


@pytest.mark.slow
def test_runs_of_a_stack_take_the_steps_that_they_take_alone(tmp_path):
    figures, masters = steps(RUNS, 2, tmp_path)
    for number, run in enumerate(RUNS):
        alone, weights = steps([run], 2, tmp_path)
        # Padding changes the order of sums, and so the last bits.
        assert [step[number] for step in figures] == [pytest.approx(step[0], rel=1e-4, abs=1e-6) for step in alone]
        for name in weights:
            torch.testing.assert_close(masters[name][number], weights[name][0], rtol=1e-3, atol=1e-4)
    assert not masters["lm_head.weight"][1].equal(masters["lm_head.weight"][2])  # other people, one seed


def test_micro_batches_read_together_give_the_loss_that_they_give_apart(tmp_path):
    """But for the rounding of bf16: the first loss is of the same weights, and the weights after it are nearly the same."""
    apart, first = steps(RUNS[:2], 1, tmp_path)
    together, second = steps(RUNS[:2], 1, tmp_path, together=True)
    for name in ("facts_loss", "passages_loss", "icl_loss", "copy_loss", "lookup_loss", "passages_acc"):
        for number in (0, 1):
            assert together[0][number][name] == pytest.approx(apart[0][number][name], rel=1e-3, abs=1e-6)
    moved = first["lm_head.weight"] - torch.stack(
        [new_model(32, 2, 2, seed, lab_tokenizer.build(population(0))).lm_head.weight for seed in (0, 1)]
    )
    assert (first["lm_head.weight"] - second["lm_head.weight"]).norm() < 0.2 * moved.norm()


@pytest.mark.slow
def test_text_from_other_processes_is_the_same(tmp_path):
    here, there = steps(RUNS[:2], 2, tmp_path, together=True), steps(RUNS[:2], 2, tmp_path, processes=2, together=True)
    assert here[0] == there[0]


def test_padding_changes_no_loss(tokenizer):
    rng = np.random.RandomState(0)

    def part(rows, length, places):
        ids = rng.randint(1, 200, size=(rows, length)).astype(np.int16)
        where = rng.randint(rows, size=places), rng.randint(length, size=places)
        return Part(ids, {"answers": Targets(*where, rng.randint(200, size=places).astype(np.int16), np.full(places, 1 / places))})

    models = [new_model(32, 2, 2, seed, tokenizer) for seed in (0, 1)]
    weights, model = stacked(models), StackedModel(32, 2, 2, CPU)
    parts = [[part(2, 9, 5), part(3, 7, 4)], [part(4, 5, 8), part(1, 12, 3)]]
    losses, _ = loss(model, weights, stack("copy", parts), 0.5)
    for number, group in enumerate(parts):
        own = {name: value[number : number + 1] for name, value in weights.items()}
        alone = [loss(model, own, stack("copy", [[one]]), 0.5)[0].item() for one in group]
        assert losses[number].item() == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.slow
def test_runs_that_began_in_a_stack_go_on_alone(tmp_path):
    runs, outs = RUNS[:2], [tmp_path / "a", tmp_path / "b"]
    short = [replace(run, steps=12) for run in runs]
    trainer = Trainer(short, outs)
    for out in outs:
        out.mkdir()
    for step in range(len(trainer.planned)):
        trainer.feeder.ask(step, trainer.planned[step])
    for _ in range(3):
        trainer.train_step()
    trainer.save()
    expected = [trainer.train_step() for _ in range(2)]
    for number, out in enumerate(outs):
        alone = Trainer([short[number]], [out])
        alone.load_states([torch.load(out / "checkpoint.pt", weights_only=True)])
        for ahead, dimensions in enumerate(alone.planned):
            alone.feeder.ask(alone.step + ahead, dimensions)
        assert [alone.train_step()[0] for _ in range(2)] == [step[number] for step in expected]


def test_runs_that_cannot_be_one_stack_are_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="seed, people, slots, zipf"):
        Trainer([RUNS[0], replace(RUNS[1], lr=1e-3)], [tmp_path] * 2)
    outs = [tmp_path / "a", tmp_path / "b"]
    claim(outs[0], RUNS[0])
    Trainer(RUNS[:1], outs[:1]).save()
    with pytest.raises(typer.BadParameter, match=r"checkpoint\.pt is missing"):
        train(RUNS[:2], outs, "cpu", 0, 100)
