"""The choices of a prompt in one row behind it: the answers are those of lm-eval, or each choice gets a row of its own."""

from __future__ import annotations

import inspect
import logging
import random
import sys
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from test_shared_prompts import CHOICES, PROMPTS, VARIANTS, ask, check, other_model, requests
from test_shared_prompts_limits import both, encoded
from test_shared_prompts_limits import check as check_answers
from transformers import DynamicCache

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import tiny_architectures
from lm_eval.models.huggingface import HFLM

from harness_ext import PrunedHFLM
from harness_ext.host import packed_choices
from harness_ext.host.cache_rows import CannotRepeatError
from harness_ext.host.requests import Group

ROWS = ("mistral", "gemma2", "bloom", "falcon-alibi", "mpt")  # windows, positions by distance in the mask, or no positions


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, *VARIANTS])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_answers_are_those_of_hf(name, batch_size, attention):
    model = other_model(name) if name in VARIANTS else tiny.model(name)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip("has no such attention")
    model.set_attn_implementation(attention)
    lm, ours, _ = ask(PrunedHFLM, model, requests(), batch_size=batch_size)
    check(ours, ask(HFLM, model, requests(), batch_size=batch_size)[1])
    assert lm._shared_prompts.works
    assert lm._shared_prompts._packed.works == (name not in ROWS)


def builds(name):
    try:
        return tiny_architectures.build(name)
    except Exception as error:  # the library's own, of any kind
        pytest.skip(f"cannot be built this small: {error}")


SOME = ["llama", "llama/yarn", "qwen3_moe", "gemma3_text", "gpt_bigcode", "deepseek_v3", "deepseek_v32", "phi3/longrope", "olmo_hybrid"]


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in tiny_architectures.ARCHITECTURES]
)
def test_any_architecture_gets_the_answers_of_hf(name):
    model, calls = builds(name), (encoded([40, 37, 21, 9], [1, 3, 2, 3, 6]), encoded([60, 12], [2, 4, 2]))
    try:
        stock = HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4, device="cpu", max_length=128)
        [stock._loglikelihood_tokens(call, disable_tqdm=True) for call in calls]
    except (ValueError, RuntimeError, AttributeError, TypeError) as error:
        pytest.skip(f"lm-eval cannot ask it: {error}")
    for mine, expected, _ in both(model, *calls):
        check_answers(mine, expected)


def passes(model, asked, **arguments):
    """The shapes of the token ids of each forward pass, after a first call in which answers are compared with lm-eval's own."""
    lm, _, _ = ask(PrunedHFLM, model, asked, **arguments)
    shapes = []
    handle = lm.model.register_forward_pre_hook(lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True)
    lm.loglikelihood(asked, disable_tqdm=True)
    handle.remove()
    return shapes


def test_all_choices_of_a_batch_take_one_pass():
    longer = sum(len(choice.split()) - 1 for choice in CHOICES)
    assert passes(tiny.model(), requests(PROMPTS[:2])) == [(2, 12), (2, longer)]


def test_a_row_has_no_more_tokens_than_a_prompt():
    choices = [f" {x} {y} {z}" for x in "1234" for y in "56" for z in "78"]  # 16 times 2 tokens
    assert passes(tiny.model(), requests(PROMPTS[:1], choices)) == [(1, 12), (1, 12), (1, 12), (1, 8)]
    check(*(ask(kind, tiny.model(), requests(PROMPTS[:1], choices))[1] for kind in (PrunedHFLM, HFLM)))


@pytest.mark.parametrize("seed", range(8))
def test_any_numbers_of_tokens_get_the_answers_of_hf(seed):
    rng = random.Random(seed)
    asked = [
        one
        for number in range(6)
        for one in encoded([rng.randint(9, 60)], [rng.choice([1, 1, 2, 3, 5, 30]) for _ in range(rng.randint(2, 9))], seed=number)
    ]
    rng.shuffle(asked)
    for mine, expected, works in both(tiny.model("qwen2", vocab_size=128, max_position_embeddings=128), asked, batch_size=3):
        check_answers(mine, expected)
        assert works


def test_a_model_that_is_wrong_in_one_row_gets_a_row_for_each_choice(caplog):
    caplog.set_level(logging.INFO, logger="harness_ext")
    model = tiny.model()
    forward = model.forward

    def without_masks(*args, attention_mask=None, **kwargs):
        return forward(*args, attention_mask=attention_mask if attention_mask is None or attention_mask.ndim == 2 else None, **kwargs)

    without_masks.__signature__ = inspect.signature(forward)
    model.forward = without_masks
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, ask(HFLM, model, requests())[1])
    assert lm._shared_prompts.works
    assert not lm._shared_prompts._packed.works
    assert "does not put the choices of a prompt in one row: a log-likelihood is" in caplog.text


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_that_takes_no_mask_gets_a_row_for_each_choice(attention):
    model = tiny.model()
    model.config._attn_implementation_internal = attention
    assert not packed_choices.possible(model)


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"id2label": {0: "no", 1: "yes"}, "max_window_layers": 2, "sliding_window": None}, True),
        ({"window_size": 256}, False),
        ({"text_config": {"attention_chunk_size": 8192}}, False),
    ],
)
def test_a_window_anywhere_in_the_configuration_gives_each_choice_a_row(settings, possible):
    model = tiny.model()
    for name, value in settings.items():
        setattr(model.config, name, value)
    assert packed_choices.possible(model) == possible


def test_a_cache_that_forgets_is_refused():
    windows = DynamicCache(config=tiny.model("mistral").config)
    with pytest.raises(CannotRepeatError, match="DynamicSlidingWindowLayer"):
        packed_choices.check_cache(windows)
    with pytest.raises(CannotRepeatError, match="dict"):
        packed_choices.check_cache({})


@pytest.mark.parametrize("longest", [1, 4, 7, 100])
@pytest.mark.parametrize("seed", range(4))
def test_each_token_attends_to_its_prompt_and_its_choice(longest, seed):
    """Against the rule, token by token."""
    rng = random.Random(seed)
    asked, batch, lengths = [], [], []
    for number in range(3):
        lengths.append(rng.randint(1, 5))
        own = [(("", ""), [number] * lengths[-1], rng.choices(range(50), k=rng.randint(1, 5))) for _ in range(rng.randint(0, 5))]
        batch.append(Group([number] * lengths[-1], [*range(len(asked), len(asked) + len(own))]))
        asked += own
    prompts = torch.zeros(3, max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        prompts[row, max(lengths) - length :] = 1
    found = set()
    for packed in packed_choices.packs(batch, asked, longest):
        mask = packed.mask(prompts)
        size = packed.ids.shape[1]
        assert mask.shape == (3, 1, size, max(lengths) + size)
        for place, row, start, end in packed.spans:
            assert place not in found
            found.add(place)
            tokens = asked[place][2]
            assert packed.ids[row, start:end].tolist() == tokens[:-1]
            assert packed.following[row, start:end].tolist() == tokens[1:]
            for step in range(end - start):
                assert packed.offset[row, start + step] == step
                seen = [column for column, one in enumerate(mask[row, 0, start + step].tolist()) if one]
                own = [max(lengths) + start + earlier for earlier in range(step + 1)]
                assert seen == [column for column, real in enumerate(prompts[row].tolist()) if real] + own
        assert mask.any(-1).all()  # a row of attention without a token would be NaN
        width = max([end for *_, end in packed.spans])
        assert width <= longest or all(start == 0 for *_, start, end in packed.spans if end > longest)
    assert found == {place for place, request in enumerate(asked) if len(request[2]) > 1}


def test_bfloat16_is_near():
    model = tiny.model(dtype=torch.bfloat16)
    ours, theirs = ask(PrunedHFLM, model, requests())[1], ask(HFLM, model, requests())[1]
    for (mine, _), (expected, _) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, abs=0.3)


def test_without_memory_for_it_the_error_is_raised(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(packed_choices, "packs", full)
    with pytest.raises(torch.OutOfMemoryError):
        ask(PrunedHFLM, tiny.model(), requests())


def test_transformers_has_the_layers_that_are_looked_for():
    cache = DynamicCache(config=tiny.model().config)
    packed_choices.check_cache(cache)
    assert transformers.cache_utils.DynamicLayer is type(cache.layers[0])
