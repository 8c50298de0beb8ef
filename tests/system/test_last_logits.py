"""Choices of one token are answered as by lm-eval, for the logits of fewer tokens."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import tiny
import torch
from lm_eval.models.huggingface import HFLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import tiny_architectures

from harness_ext import PrunedHFLM
from harness_ext.host import last_logits

ONE = (5, 9, 37)


def asked(lengths, choices=tuple((token,) for token in ONE)):
    generator = random.Random(0)
    prompts = [[generator.randrange(3, tiny.VOCABULARY) for _ in range(length)] for length in lengths]
    return [((str(prompt), str(choice)), prompt, list(choice)) for prompt in prompts for choice in choices]


def pair(model, batch_size=8, **arguments):
    given = {"tokenizer": tiny.tokenizer(), "device": "cpu", "max_length": 1000, "batch_size": batch_size} | arguments
    return [kind(pretrained=model, **given) for kind in (PrunedHFLM, HFLM)]


def answers(lm, requests):
    return lm._loglikelihood_tokens(requests, disable_tqdm=True)


def check(mine, expected, tolerance=1e-5):
    torch.testing.assert_close([value for value, _ in mine], [value for value, _ in expected], atol=tolerance, rtol=0)
    if tolerance < 1e-3:
        assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "rwkv", "recurrent_gemma", "mamba", "falcon_h1", "deepseek_v4", "gpt2", "bloom"])
def test_a_batch_of_very_different_lengths_is_that_of_lm_eval(family, dtype):
    """Left padding changes the answers of recurrent models: one token of it may be unnoticed, and 71 are not."""
    lengths = [*[100] * 7, 99, 80, *[9] * 7]
    model = tiny_architectures.build(family, dtype=getattr(torch, dtype))
    ours, theirs = pair(model, dtype=dtype)
    requests = asked(lengths)
    check(answers(ours, requests), answers(theirs, requests), 1e-5 if dtype == "float32" else 0.05)


@pytest.mark.parametrize("empty_first", [True, False])
@pytest.mark.parametrize("others", [[(5,), (9,)], [(5,), (9, 37)], [(5, 9), (9, 37)]])
def test_a_choice_without_tokens_is_left_to_lm_eval_with_its_prompt(others, empty_first):
    choices = [(), *others] if empty_first else [*others, ()]
    requests = asked([20], choices) + asked([30], [(5,), (9,)])
    ours, theirs = pair(tiny_architectures.build("llama"))
    try:
        expected = answers(theirs, requests)
    except AssertionError:  # lm-eval refuses a choice without tokens that stands alone
        with pytest.raises(AssertionError):
            answers(ours, requests)
    else:
        check(answers(ours, requests), expected)


def test_a_model_that_gives_up_its_cache_still_shares_choices_of_one_token():
    model = tiny_architectures.build("mamba")
    ours, theirs = pair(model)
    for requests in (asked([20, 19], [(5,), (9, 37), (37, 5, 9)]), asked([20, 19])):
        check(answers(ours, requests), answers(theirs, requests))
    assert not ours._shared_prompts.works
    assert ours._shared_prompts._last.works


def test_learned_prompts_are_left_to_lm_eval(tmp_path):
    peft = pytest.importorskip("peft")
    model = tiny_architectures.build("llama")
    adapted = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    for requests in (asked([60, 30, 12]), asked([60, 30, 12], [(5, 9), (9, 37, 5)])):
        ours, theirs = pair(adapted, max_length=120)
        assert answers(ours, requests) == answers(theirs, requests)
        assert not ours._shared_prompts.works


def test_a_model_that_does_not_keep_what_it_is_told_is_left_to_lm_eval(caplog):
    model, requests = tiny.model(), asked([20, 19, 18])
    stock = model.forward

    def forward(input_ids=None, attention_mask=None, logits_to_keep=0, **more):
        return stock(input_ids=input_ids, attention_mask=attention_mask, **more)

    model.forward = forward
    caplog.set_level("INFO", logger="harness_ext")
    ours, theirs = pair(model)
    check(answers(ours, requests), answers(theirs, requests))
    assert not ours._shared_prompts._last.works
    assert "ValueError" in caplog.text


def test_prompts_are_run_as_lm_eval_runs_them():
    """The same ids in the same batches: no mask, and padding on the right."""
    requests = asked([20, 9, 15, 20, 30, 2])
    seen = []
    for lm in pair(tiny.model(), batch_size=4):
        answers(lm, requests)  # the first call has comparisons
        calls = []
        handle = lm.model.register_forward_pre_hook(
            lambda _, args, kwargs, calls=calls: calls.append((args[0].tolist(), kwargs.get("attention_mask"))), with_kwargs=True
        )
        answers(lm, requests)
        handle.remove()
        seen.append(calls)
    assert seen[0] == seen[1]


def test_only_prompts_with_several_choices_of_one_token_count():
    requests = asked([20], [(5,), (9,)]) + asked([21], [(5,)]) + asked([22], [(5,), (9, 37)])
    by_prompt = {}
    for place, (_, prompt, _) in enumerate(requests):
        by_prompt.setdefault(tuple(prompt), []).append(place)
    assert [len(group.prompt) for group in last_logits.groups(by_prompt, requests)] == [20]
