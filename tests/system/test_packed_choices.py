"""The choices of a prompt in one row behind it: the answers are those of lm-eval, or each choice gets a row of its own."""

from __future__ import annotations

import functools
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
from transformers import DynamicCache, LlamaForCausalLM

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
    assert passes(tiny.model(), requests(PROMPTS[:1], choices)) == [(1, 12), (3, 12)]  # rows of 12, 12 and 8
    assert passes(tiny.model(), requests(PROMPTS[:1], choices), batch_size=1) == [(1, 12), (1, 12), (1, 12), (1, 8)]
    check(*(ask(kind, tiny.model(), requests(PROMPTS[:1], choices))[1] for kind in (PrunedHFLM, HFLM)))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("batch_size", [1, 3])
def test_any_numbers_of_tokens_get_the_answers_of_hf(seed, batch_size):
    rng = random.Random(seed)
    asked = [
        one
        for number in range(6)
        for one in encoded([rng.randint(9, 60)], [rng.choice([1, 1, 2, 3, 5, 30]) for _ in range(rng.randint(2, 9))], seed=number)
    ]
    rng.shuffle(asked)
    for mine, expected, works in both(larger("qwen2"), asked, batch_size=batch_size):
        check_answers(mine, expected)
        assert works


def larger(name="llama"):
    """A model for the token ids of ``encoded``."""
    return tiny.model(name, vocab_size=128, max_position_embeddings=128)


def without_masks(model):
    """A model that does not look at a mask of four dimensions."""
    forward = model.forward

    @functools.wraps(forward)
    def causal(*args, attention_mask=None, **kwargs):
        return forward(*args, attention_mask=None if attention_mask is not None and attention_mask.ndim > 2 else attention_mask, **kwargs)

    model.forward = causal
    return model


def rows_instead(model, *calls, batch_size=4):
    """Asks one after the other, and wants a row for each choice in the end."""
    for mine, expected, works in both(model, *calls, batch_size=batch_size):
        check_answers(mine, expected)
        assert works


def test_a_model_that_is_wrong_in_one_row_gets_a_row_for_each_choice(caplog):
    caplog.set_level(logging.INFO, logger="harness_ext")
    rows_instead(without_masks(larger()), encoded([20, 15], [1, 3, 2]))
    assert "does not put the choices of a prompt in one row: a log-likelihood is" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_was_compared_with_one_choice_in_a_row_is_not_believed_of_several(batch_size):
    model = without_masks(larger())
    rows_instead(model, encoded([22, 20], [1, 4]), encoded([21, 19], [3, 4, 2]), batch_size=batch_size)
    rows_instead(model, encoded([20], [1, 4]) + encoded([24, 22, 21], [3, 4, 2], seed=1), batch_size=batch_size)


class WithWindow(LlamaForCausalLM):
    """A window that only the model's own code knows: it narrows masks of two dimensions, and takes others as they are."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        if attention_mask is None or attention_mask.ndim == 2:
            before = past_key_values.get_seq_length() if past_key_values is not None else 0
            size, total = input_ids.shape[1], before + input_ids.shape[1]
            place = torch.arange(total)
            near = (place[None, :] <= place[before:, None]) & (place[None, :] > place[before:, None] - 50)
            real = torch.ones(len(input_ids), total) if attention_mask is None else attention_mask
            attention_mask = (near[None] & real.bool()[:, None] | torch.eye(size, total).bool().roll(before, 1)[None])[:, None]
        own = {"past_key_values": past_key_values} if past_key_values is not None else {}
        return super().forward(input_ids, attention_mask=attention_mask, position_ids=position_ids, **own, **kwargs)


def test_a_window_of_the_models_own_is_found_where_prompts_get_longer():
    model = larger()
    model.__class__ = WithWindow
    lm = PrunedHFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4, device="cpu", max_length=128)
    stock = HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4, device="cpu", max_length=128)
    for call, packed in [(encoded([40, 38], [3, 4]), True), (encoded([70, 68, 66], [3, 4, 2]), False)]:
        check_answers(*(one._loglikelihood_tokens(call, disable_tqdm=True) for one in (lm, stock)))
        assert lm._shared_prompts._packed.works == packed


@pytest.mark.parametrize("error", [AssertionError, KeyError, Exception, torch.OutOfMemoryError])
def test_a_model_that_fails_on_such_a_mask_gets_a_row_for_each_choice(error):
    model = larger()
    forward = model.forward

    @functools.wraps(forward)
    def picky(*args, attention_mask=None, **kwargs):
        if attention_mask is not None and attention_mask.ndim > 2:
            raise error("a mask has two dimensions")
        return forward(*args, attention_mask=attention_mask, **kwargs)

    model.forward = picky
    rows_instead(model, encoded([20, 15], [1, 3, 2]))


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_that_takes_no_mask_is_refused(attention):
    model = tiny.model()
    model.config._attn_implementation_internal = attention
    with pytest.raises(CannotRepeatError, match=attention):
        packed_choices.check_model(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"window_size": 256}, {"text_config": {"attention_chunk_size": 8192}}, {"my_window": 256.0}, {"my_window": [256, 256]},
        {"my_window": "256"},
    ],
    ids=str,
)  # fmt: skip
def test_a_window_anywhere_in_the_configuration_is_refused(settings):
    model = tiny.model()
    model.config.id2label, model.config.max_window_layers, model.config.sliding_window = {0: "no", 1: "yes"}, 2, None
    packed_choices.check_model(model)
    for name, value in settings.items():
        setattr(model.config, name, value)
    with pytest.raises(CannotRepeatError, match=r"window|chunk"):
        packed_choices.check_model(model)


def test_a_configuration_that_cannot_be_read_gives_each_choice_a_row(monkeypatch):
    model = larger()
    rows_instead(model, encoded([20, 15], [1, 3, 2]))

    def broken(_):
        raise TypeError("cannot pickle '_thread.lock' object")

    monkeypatch.setattr(packed_choices, "mappings", broken)
    rows_instead(model, encoded([20, 15], [1, 3, 2]))


def test_a_cache_that_forgets_is_refused():
    windows = DynamicCache(config=tiny.model("mistral").config)
    with pytest.raises(CannotRepeatError, match="DynamicSlidingWindowLayer"):
        packed_choices.check_cache(windows)
    with pytest.raises(CannotRepeatError, match="dict"):
        packed_choices.check_cache({})


def prompts_of(rng):
    """Requests to three prompts, in groups, and the mask of the prompts, padded on the left."""
    asked, batch, lengths = [], [], []
    for number in range(3):
        lengths.append(rng.randint(1, 5))
        own = [(("", ""), [number] * lengths[-1], rng.choices(range(50), k=rng.randint(1, 5))) for _ in range(rng.randint(0, 5))]
        batch.append(Group([number] * lengths[-1], [*range(len(asked), len(asked) + len(own))]))
        asked += own
    mask = torch.zeros(3, max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, max(lengths) - length :] = 1
    return asked, batch, mask


@pytest.mark.parametrize("longest", [1, 4, 7, 100])
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_each_token_attends_to_its_prompt_and_its_choice(longest, most, seed):
    """Against the rule, token by token."""
    asked, batch, prompts = prompts_of(random.Random(seed))
    found = set()
    for packed in packed_choices.packs(batch, asked, longest, most):
        assert 0 < len(packed.prompts) <= most
        own_prompts = prompts[packed.prompts]
        mask, (rows, size), before = packed.mask(own_prompts), packed.ids.shape, prompts.shape[1]
        assert mask.shape == (rows, 1, size, before + size)
        for place, row, start, end in packed.spans:
            assert place not in found
            found.add(place)
            tokens = asked[place][2]
            assert asked[place][1][0] == packed.prompts[row]
            assert packed.ids[row, start:end].tolist() == tokens[:-1]
            assert packed.following[row, start:end].tolist() == tokens[1:]
            assert end <= longest or start == 0
            for step in range(end - start):
                assert packed.offset[row, start + step] == step
                seen = [column for column, one in enumerate(mask[row, 0, start + step].tolist()) if one]
                own = [before + start + earlier for earlier in range(step + 1)]
                assert seen == [column for column, real in enumerate(own_prompts[row].tolist()) if real] + own
        assert mask.any(-1).all()  # a row of attention without a token would be NaN
    assert found == {place for place, request in enumerate(asked) if len(request[2]) > 1}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch_size", [4, 16])
def test_less_than_half_of_the_tokens_are_padding(seed, batch_size):
    """Also where one prompt has many choices, or one long one, and the others have not."""
    rng = random.Random(seed)
    asked, batch = [], []
    for number in range(batch_size):
        counts = [12] * rng.choice([5, 100]) if number == 3 else [rng.choice([2, 3] if seed % 2 else [2, 3, 40])] * rng.randint(2, 4)
        own = [(("", ""), [number] * 60, rng.choices(range(50), k=count)) for count in counts]
        batch.append(Group([number] * 60, [*range(len(asked), len(asked) + len(own))]))
        asked += own
    tokens = sum(len(request[2]) - 1 for request in asked)
    assert sum(packed.ids.numel() for packed in packed_choices.packs(batch, asked, 60, batch_size)) < 2 * tokens


def test_bfloat16_is_near():
    model = tiny.model(dtype=torch.bfloat16)
    ours, theirs = ask(PrunedHFLM, model, requests())[1], ask(HFLM, model, requests())[1]
    for (mine, _), (expected, _) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, abs=0.3)


def test_transformers_has_the_layers_that_are_looked_for():
    cache = DynamicCache(config=tiny.model().config)
    packed_choices.check_cache(cache)
    assert transformers.cache_utils.DynamicLayer is type(cache.layers[0])
