"""Where prompts cannot be shared: the answers are lm-eval's all the same, and where they can be shared after all, they are."""

from __future__ import annotations

import logging
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import tiny_architectures

from harness_ext import PrunedHFLM
from harness_ext.host import comparison, shared_prompts
from harness_ext.host.cache_rows import CannotRepeatError, select
from harness_ext.host.positions import changes_beyond
from harness_ext.host.shared_prompts import SharedPrompts


def tokens(number: int, seed: int) -> list[int]:
    return random.Random(f"{number} {seed}").choices(range(3, 120), k=number)


def encoded(prompts, choices, seed=0):
    """Requests by the numbers of tokens of prompts and choices."""
    return [
        ((str(prompt), f"{prompt} {place}"), tokens(prompt, seed), tokens(choice, seed + 1000 * place + prompt))
        for prompt in prompts
        for place, choice in enumerate(choices)
    ]


def both(model, *calls, batch_size=4, **arguments):
    """The answers of both to each call, and whether prompts are shared in the end."""
    given = {"tokenizer": tiny.tokenizer(), "batch_size": batch_size, "device": "cpu", "max_length": 128} | arguments
    ours, theirs = (kind(pretrained=model, **given) for kind in (PrunedHFLM, HFLM))
    for call in calls:
        mine, expected = (lm._loglikelihood_tokens(call, disable_tqdm=True) for lm in (ours, theirs))
        yield mine, expected, ours._shared_prompts.works


def check(mine, expected):
    torch.testing.assert_close(
        torch.tensor([value for value, _ in mine]), torch.tensor([value for value, _ in expected]), atol=1e-4, rtol=0, equal_nan=True
    )
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("family", ["falcon_h1", "minimax", "zaya", "inkling_text", "deepseek_v4"])
def test_a_hybrid_whose_layers_hold_more_than_keys_and_values_gets_lm_evals_answers(family, batch_size):
    """The first prompts have one choice of several tokens, as many as there are rows in the cache. The later ones have others."""
    first = encoded(range(100, 100 - batch_size, -1), [1, 3])
    later = encoded(range(40, 40 - 2 * batch_size, -1), [2, 3, 1, 3])
    for mine, expected, _ in both(tiny_architectures.build(family), first + later, batch_size=batch_size):
        check(mine, expected)


class WithState(DynamicLayer):
    """A layer that inherits the selection of keys and values."""

    def __init__(self, state):
        super().__init__()
        self.state = state


class Held:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    ("state", "whole"),
    [
        (lambda: torch.zeros(2, 3), False),
        (lambda: {0: torch.zeros(2, 3)}, False),
        (lambda: [None, (torch.zeros(2, 3),)], False),
        (lambda: Held(torch.zeros(2, 3)), False),
        (lambda: torch.tensor(5), True),
        (lambda: {"window": 5, "dtype": torch.float32}, True),
    ],
)
def test_rows_are_selected_only_where_all_states_are(state, whole):
    cache = DynamicCache()
    cache.layers = [WithState(state())]
    keys = torch.arange(2.0)[:, None, None, None].expand(2, 1, 3, 4)
    cache.layers[0].update(keys, -keys)
    rows = torch.tensor([1, 0, 1])
    if whole:
        chosen = select(cache, rows)
        assert torch.equal(chosen.layers[0].keys[:, 0, 0, 0], rows.float())
        assert torch.equal(cache.layers[0].keys, keys)
    else:
        with pytest.raises(CannotRepeatError, match="WithState"):
            select(cache, rows)


def test_states_beside_the_layers_are_not_left_behind():
    cache = DynamicCache()
    cache.recurrent = [torch.zeros(2, 3)]
    with pytest.raises(CannotRepeatError, match="DynamicCache"):
        select(cache, torch.tensor([0]))


LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 32}


@pytest.mark.parametrize("lengths", [[100, 31, 30, 20], [31, 30, 29], [100, 60, 30, 20, 31, 28]])
def test_a_prompt_whose_choices_cross_the_length_at_which_positions_change_is_not_shared(lengths):
    model = tiny_architectures.build("phi3/longrope")
    for mine, expected, _ in both(model, encoded(lengths, [1, 2, 5, 6]), batch_size=1):
        check(mine, expected)


def test_prompts_below_the_length_at_which_positions_change_are_shared():
    model = tiny_architectures.build("phi3/longrope")
    assert changes_beyond(model.config) == 32
    for mine, expected, works in both(model, encoded([20, 18, 12], [1, 2, 5, 6])):
        check(mine, expected)
        assert works
    seen = []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args or [kwargs["input_ids"]])[0].numel()), with_kwargs=True)
    lm = PrunedHFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    lm._loglikelihood_tokens(encoded([20], [2, 5, 6]), disable_tqdm=True)
    seen.clear()
    lm._loglikelihood_tokens(encoded([20], [2, 5, 6]), disable_tqdm=True)
    assert sum(seen) == 20 + 3 * 5  # the prompt, and the choices without their last tokens, padded to the longest


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, None),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "max_position_embeddings": 64}, 64),
    ],
)
def test_the_length_at_which_positions_change_is_read_from_the_configuration(changes, limit):
    assert changes_beyond(tiny_architectures.build("llama", **changes).config) == limit


def test_a_configuration_that_does_not_tell_the_length_shares_nothing():
    other = SimpleNamespace(to_dict=lambda: {"seq_length": 32, "rope_scaling": {"type": "dynamic", "factor": 2.0}})
    assert changes_beyond(other) == 0


def test_prompts_much_longer_than_those_compared_are_compared_again():
    short, long = encoded([9, 10, 11, 12], [1, 2, 4, 5, 3]), encoded([120, 80, 50, 30, 20, 122, 60, 16], [1, 2, 4, 5, 3], seed=1)
    for mine, expected, _ in both(tiny_architectures.build("moshi"), short, long):
        check(mine, expected)


def test_the_long_prompts_of_a_batch_are_compared_as_well_as_the_padded_ones(monkeypatch):
    """As with a cache that forgets what lies beyond a window: only the answers to long prompts are wrong."""
    run = SharedPrompts._run

    def forgetful(self, batch, requests, batch_size):
        answers = run(self, batch, requests, batch_size)
        return {place: (value - 2.0 * (len(requests[place][1]) > 60), greedy) for place, (value, greedy) in answers.items()}

    monkeypatch.setattr(SharedPrompts, "_run", forgetful)
    for mine, expected, works in both(tiny_architectures.build("llama"), encoded([120, 90, 20, 18], [2, 3, 1])):
        check(mine, expected)
        assert not works


@pytest.mark.parametrize("when", ["first", "later"])
def test_answers_that_are_no_numbers_are_not_those_of_lm_eval(when, monkeypatch):
    run, calls = SharedPrompts._run, []

    def undefined(self, batch, requests, batch_size):
        calls.append(batch)
        answers = run(self, batch, requests, batch_size)
        wrong = len(calls) == 1 if when == "first" else len(calls) == 2
        return {place: (float("nan") if wrong else value, greedy) for place, (value, greedy) in answers.items()}

    monkeypatch.setattr(SharedPrompts, "_run", undefined)
    for mine, expected, works in both(tiny_architectures.build("llama"), encoded([20, 19, 18, 17], [2, 3, 1]), batch_size=2):
        check(mine, expected)
        assert not works


def test_a_model_that_gives_no_numbers_is_told_as_lm_eval_tells_it():
    model = tiny_architectures.build("llama")
    model.lm_head.register_forward_hook(lambda _, __, logits: logits * float("nan"))
    for mine, expected, works in both(model, encoded([20, 19], [2, 3, 1])):
        check(mine, expected)
        assert works


def test_windows_of_documents_with_one_beginning_reach_the_cache_of_answers(tmp_path):
    body = "a b c d e f g h i j k l m n o p "
    asked = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(body + end,), idx=index)
        for index, end in enumerate(["1 2 3 4", "1 5 3 5", "1 2 6 5", "2 2 3 1"])
    ]
    found = [
        CachingLM(
            kind(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu", max_length=16), str(tmp_path / name)
        ).loglikelihood_rolling(asked)
        for name, kind in (("ours", PrunedHFLM), ("theirs", HFLM))
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_a_batch_size_that_lm_eval_finds_is_used_for_shared_prompts():
    asked, seen = encoded(range(100, 84, -1), [3] * 16), {}
    for name, arguments in {"auto": {"batch_size": "auto", "max_batch_size": 16}, "16": {"batch_size": 16}}.items():
        model = tiny_architectures.build("llama")
        lm = PrunedHFLM(pretrained=model, tokenizer=tiny.tokenizer(), device="cpu", max_length=128, **arguments)
        count = []
        model.register_forward_pre_hook(
            lambda _, args, kwargs, count=count: count.append((args or [kwargs["input_ids"]])[0]), with_kwargs=True
        )
        answers = lm._loglikelihood_tokens(asked, disable_tqdm=True)
        searched = [(ids == 1).all() for ids in count]  # lm-eval's search
        seen[name] = answers, sum(ids.numel() for ids, search in zip(count, searched, strict=True) if not search), sum(searched)
    check(seen["auto"][0], seen["16"][0])
    assert seen["auto"][1] == seen["16"][1]
    assert (seen["auto"][2], seen["16"][2]) == (5, 0)  # forward passes of one search


def test_what_is_compared_needs_no_other_search_for_a_batch_size(monkeypatch):
    lm = PrunedHFLM(
        pretrained=tiny_architectures.build("llama"), tokenizer=tiny.tokenizer(), batch_size="auto", max_batch_size=4, device="cpu"
    )
    found, search = [], lm._detect_batch_size
    monkeypatch.setattr(lm, "_detect_batch_size", lambda *asked, **named: found.append(asked) or search(*asked, **named))
    lm._loglikelihood_tokens(encoded([20, 19], [2, 3]), disable_tqdm=True)
    assert len(found) == 1
    assert max(len(prompt) + len(choice) for _, prompt, choice in found[0][0]) == 23


@pytest.mark.parametrize(("batch_size", "raises"), [(4, True), ("auto", False)])
def test_too_little_memory_for_the_cache_at_a_batch_size_that_lm_eval_found_is_not_the_end(batch_size, raises, monkeypatch, caplog):
    def too_little(*_):
        raise torch.OutOfMemoryError("too little")

    caplog.set_level(logging.INFO, logger="harness_ext")
    monkeypatch.setattr(SharedPrompts, "_run", too_little)
    asked = encoded([20, 19], [2, 3])
    call = both(tiny_architectures.build("llama"), asked, batch_size=batch_size, max_batch_size=4)
    if raises:
        with pytest.raises(torch.OutOfMemoryError):
            next(call)
    else:
        mine, expected, works = next(call)
        check(mine, expected)
        assert not works
        assert "--batch_size" in caplog.text


@pytest.mark.parametrize(
    ("answer", "expected", "near"),
    [
        (-1.0, -1.0005, True), (-1.0, -1.1, False), (math.nan, math.nan, True), (math.nan, -1.0, False), (-1.0, math.nan, False),
        (-math.inf, -math.inf, True), (-5.0, -math.inf, False), (-math.inf, -5.0, False),
    ],
)  # fmt: skip
def test_an_answer_is_near_another_only_if_both_are_numbers_or_equal(answer, expected, near, monkeypatch):
    asked = encoded([20], [2, 3])
    monkeypatch.setattr(SharedPrompts, "_run", lambda *_: dict.fromkeys(range(len(asked)), (answer, False)))
    lm = PrunedHFLM(pretrained=tiny_architectures.build("llama"), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    lm._shared_prompts.answer(asked, lambda rest, _: [(expected, False)] * len(rest), batch_size=4, disable_bar=True)
    assert lm._shared_prompts.works == near


def test_several_processes_that_look_for_a_batch_size_do_not_share_and_say_so(caplog):
    caplog.set_level(logging.INFO, logger="harness_ext")
    lm = PrunedHFLM(
        pretrained=tiny_architectures.build("llama"), tokenizer=tiny.tokenizer(), batch_size="auto", max_batch_size=4, device="cpu"
    )
    lm._world_size = 2
    asked = encoded([20, 19], [2, 3])
    answers = lm._shared_prompts.answer(asked, lambda rest, _: [(0.5, False)] * len(rest), batch_size=None, disable_bar=True)
    assert answers == [(0.5, False)] * 4
    assert "batch_size" in caplog.text


@pytest.mark.parametrize("arguments", [{"mixed_precision_dtype": "bfloat16"}, {"softmax_dtype": "bfloat16"}])
def test_low_precision_anywhere_is_held_to_its_own_rounding(arguments):
    lm = PrunedHFLM(pretrained=tiny_architectures.build("llama"), tokenizer=tiny.tokenizer(), device="cpu", **arguments)
    assert lm._shared_prompts._comparison.tolerance(-1.0) == comparison.HALF_TOLERANCE
    for mine, expected, works in both(tiny_architectures.build("llama"), encoded([120, 100, 90, 60], [5, 6, 7, 8]), **arguments):
        assert works
        for (value, _), (other, _) in zip(mine, expected, strict=True):
            assert value == pytest.approx(other, abs=0.5)


def test_products_in_low_precision_round_more_than_float32_may(monkeypatch):
    monkeypatch.setattr(comparison, "HALF_TOLERANCE", comparison.TOLERANCE[torch.float32])
    monkeypatch.setattr(comparison.Comparison, "rounding", lambda *_: 0.0)
    asked = encoded([120, 100, 90, 60], [5, 6, 7, 8])
    (answers,) = both(tiny_architectures.build("llama"), asked, mixed_precision_dtype="bfloat16")
    assert not answers[-1]  # lm-eval answers, with the tolerance of float32


def test_an_adapter_of_a_model_with_learned_positions_shares_prompts():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_architectures.build("gpt2"), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"]))
    for mine, expected, works in both(model.eval(), encoded([40, 30, 20], [1, 2, 3])):
        check(mine, expected)
        assert works


def test_a_long_prompt_and_the_long_choice_of_a_short_one_do_not_pass_the_positions_together():
    for mine, expected, works in both(tiny_architectures.build("gpt_neo"), encoded([126], [1, 2]) + encoded([20], [2, 25])):
        check(mine, expected)
        assert works


@pytest.mark.parametrize(
    ("asked", "checked", "like"),
    [
        ((0, 1, 50), (0, 1, 50), True),
        ((0, 1, 50), (9, 2, 50), True),
        ((1, 1, 50), (0, 2, 50), False),
        ((2, 1, 50), (1, 1, 50), True),
        ((71, 1, 80), (1, 1, 600), False),  # far more padding
        ((9, 2, 50), (9, 1, 50), False),
        ((9, 1, 101), (9, 1, 50), False),
    ],
)
def test_an_answer_is_believed_for_as_much_padding_length_and_continuation(asked, checked, like):
    assert shared_prompts.Kind(*asked).like(shared_prompts.Kind(*checked)) == like
