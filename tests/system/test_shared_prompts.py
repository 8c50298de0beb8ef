"""The choices of a prompt share its forward pass: the answers are those of lm-eval's own way, for fewer tokens."""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache

from harness_ext import BadOptionError, PrunedHFLM
from harness_ext.host import packed_choices, shared_prompts
from harness_ext.host.cache_rows import CannotRepeatError
from harness_ext.host.shared_prompts import SharedPrompts

PROMPTS = ["a b c d e f g h i j k l", "a b c d e f g h i j", "b c d e f g h i j k l m n o p q", "1 2", "x y z : a b c d e f"]
CHOICES = [" 1", " 1 2", " 2 3 4", " 2 3 5", " a b c d", " z"]
VARIANTS = {
    "gemma2": ("Gemma2", {"head_dim": 4, "sliding_window": 5, "query_pre_attn_scalar": 4}),
    "gptj": ("GPTJ", {"n_embd": 16, "n_inner": 24, "n_head": 4, "n_positions": 32, "rotary_dim": 4, "n_layer": 2}),
    "bloom": ("Bloom", {"n_head": 4, "n_layer": 2}),
    "falcon-alibi": ("Falcon", {"alibi": True, "num_kv_heads": 4, "new_decoder_architecture": False, "multi_query": False}),
    "mpt": ("Mpt", {"d_model": 16, "n_heads": 4, "n_layers": 2, "max_seq_len": 32}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}),
}


@pytest.fixture(autouse=True)
def row_by_row(monkeypatch):
    """Each choice has a row of its own; ``test_packed_choices.py`` is about one row for all choices of a prompt."""

    def no(_):
        raise CannotRepeatError("for the test")

    monkeypatch.setattr(packed_choices, "check_model", no)


def requests(prompts=PROMPTS, choices=CHOICES):
    pairs = itertools.product(prompts, choices)
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)]


def other_model(name: str):
    family, settings = VARIANTS[name]
    common = {
        "vocab_size": tiny.VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    kind = getattr(transformers, f"{family}Config")
    config = kind(**{key: value for key, value in common.items() if hasattr(kind(), key)} | settings)
    return tiny.randomise(transformers.AutoModelForCausalLM.from_config(config)).eval()


def ask(kind, model, asked, **arguments):
    lm = kind(pretrained=model, tokenizer=tiny.tokenizer(), **({"batch_size": 4, "device": "cpu"} | arguments))
    tokens = []
    handle = lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append((args or [kwargs["input_ids"]])[0].numel()), with_kwargs=True
    )
    answers = lm.loglikelihood(asked, disable_tqdm=True)
    handle.remove()
    return lm, answers, sum(tokens)


def check(ours, theirs):
    for (mine, greedy), (expected, expected_greedy) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, *VARIANTS])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_hf(name, batch_size):
    model = other_model(name) if name in VARIANTS else tiny.model(name)
    lm, ours, _ = ask(PrunedHFLM, model, requests(), batch_size=batch_size)
    _, theirs, _ = ask(HFLM, model, requests(), batch_size=batch_size)
    check(ours, theirs)
    assert lm._shared_prompts.works


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, "gemma2", "mixtral"])
def test_many_continuations_in_one_pass_get_the_same_answers(name, monkeypatch):
    model = other_model(name) if name in VARIANTS else tiny.model(name)
    _, theirs, _ = ask(HFLM, model, requests())
    rows = []

    def all_at_once(*_):
        return len(requests())

    monkeypatch.setattr(shared_prompts, "_rows_at_once", all_at_once)
    model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len((args or [kwargs["input_ids"]])[0])), with_kwargs=True)
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, theirs)
    assert lm._shared_prompts.works
    assert max(rows) == 4 * sum(len(choice.split()) > 1 for choice in CHOICES)


@pytest.mark.parametrize(
    ("device", "prompts", "longest", "rows"),
    [
        ("cpu", (4, 120), 3, 4),
        ("cuda", (4, 120), 3, 160),  # as many tokens as four prompts have
        ("cuda", (2, 120), 3, 160),
        ("cuda", (4, 120), 50, 9),
        ("cuda", (4, 120), 500, 4),  # never fewer than a batch
        ("cuda", (4, 2000), 3, 62),  # as much cache as fits into the bytes
        ("cuda", (4, 60000), 3, 4),
    ],
)
def test_rows_of_a_pass_are_bound_by_tokens_and_bytes(device, prompts, longest, rows, monkeypatch):
    monkeypatch.setattr(shared_prompts, "PASS_BYTES", 2 * 62 * 2000 * 8 * 4)
    cache = DynamicCache()
    number, length = prompts
    cache.update(torch.zeros(number, 2, length, 4), torch.zeros(number, 2, length, 4), 0)
    assert shared_prompts._rows_at_once(4, cache, prompts, longest, torch.device(device)) == rows


def test_a_prompt_goes_through_the_model_once():
    asked = requests(["a b c d e f g h i j k l m n o p q r"] * 1, [f" {x} {y}" for x in "1234" for y in "56"])
    check_pass = 4 * 20  # of one prompt, once for a model: compared with lm-eval's own way
    _, _, ours = ask(PrunedHFLM, tiny.model(), asked)
    _, _, theirs = ask(HFLM, tiny.model(), asked)
    assert ours <= 18 + 8 + check_pass
    lm = PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    lm.loglikelihood(asked, disable_tqdm=True)
    tokens = []
    lm.model.register_forward_pre_hook(lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True)
    lm.loglikelihood(asked, disable_tqdm=True)
    assert sum(tokens) == 18 + 8  # the prompt, and all but the last token of each choice
    assert sum(tokens) < theirs / 2


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, *VARIANTS])
def test_choices_of_one_token_need_the_logits_of_last_tokens_only(name):
    model = other_model(name) if name in VARIANTS else tiny.model(name)
    asked = requests([prompt for prompt in PROMPTS if len(prompt.split()) > 8], [" 1", " 2", " z"])
    lm, ours, _ = ask(PrunedHFLM, model, asked)
    _, theirs, _ = ask(HFLM, model, asked)
    check(ours, theirs)
    assert lm._shared_prompts.works
    positions = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: positions.append(logits.shape[1]))
    answers = lm.loglikelihood(asked, disable_tqdm=True)
    check(answers, theirs)
    assert positions == [3]  # one batch, whose prompts have three lengths


def test_choices_of_one_token_are_left_to_lm_eval_where_all_logits_are_computed_anyway():
    model, asked = tiny.model(), requests(PROMPTS, [" 1", " 2", " z"])
    stock = model.forward

    def forward(input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None):
        return stock(
            input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values, use_cache=use_cache
        )

    model.forward = forward
    _, ours, tokens = ask(PrunedHFLM, model, asked)
    _, theirs, expected = ask(HFLM, model, asked)
    assert ours == theirs
    assert tokens == expected
    longer = requests()  # several tokens are shared as before
    lm, ours, _ = ask(PrunedHFLM, model, longer)
    check(ours, ask(HFLM, model, longer)[1])
    assert lm._shared_prompts.works


def passes(kind, model, asked, **arguments):
    """The number of sequences and tokens of each forward pass, after a first call in which answers are compared with lm-eval's own."""
    lm, _, _ = ask(kind, model, asked, **arguments)
    shapes = []
    handle = lm.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple((args or [kwargs["input_ids"]])[0].shape)), with_kwargs=True
    )
    lm.loglikelihood(asked, disable_tqdm=True)
    handle.remove()
    return shapes


def test_choices_of_one_token_need_only_the_prompt():
    long, other = "a b c d e f g h i j k l", "l k j i h g f e d c b a"
    letters = [" 1", " 2", " 3", " 3", " 4"]
    assert passes(PrunedHFLM, tiny.model(), requests([long, other], letters)) == [(2, 12)]
    assert passes(PrunedHFLM, tiny.model(), requests([long, other], [*letters, " 1 2 3"])) == [(2, 12), (2, 2)]
    check(*(ask(kind, tiny.model(), requests([long, other], letters))[1] for kind in (PrunedHFLM, HFLM)))


def test_rows_of_a_pass_are_of_one_length_where_they_can_be():
    """Choices of 3, 2, 3, 2, 5, 4 tokens, two at a time, longest first: 4 + 3, 2 + 2 and 1 + 1 tokens, and padding for one."""
    asked = requests([PROMPTS[0]], [" 1 2 3", " 1 2", " 3 2 1", " 4 2", " 1 1 1 1 1", " 2 2 2 2"])
    assert passes(PrunedHFLM, tiny.model(), asked, batch_size=2) == [(1, 12), (2, 4), (2, 2), (2, 1)]
    check(*(ask(kind, tiny.model(), asked, batch_size=2)[1] for kind in (PrunedHFLM, HFLM)))


def test_a_short_choice_padded_beside_a_long_one_stays_within_learned_positions():
    """The long prompt and the longest choice together are longer than the model allows, but they are not of one request."""
    model = tiny.model("gpt2")
    room = model.config.max_position_embeddings
    long, short = " ".join("ab"[place % 2] for place in range(room - 2)), "a b c d e f g h i"
    asked = requests([long], [" 1 2", " 3 4"]) + requests([short], [" 1 2 3 4 5 6 7 8", " 2 1"])
    lm, ours, _ = ask(PrunedHFLM, model, asked)
    check(ours, ask(HFLM, model, asked)[1])
    assert lm._shared_prompts.works


@pytest.mark.parametrize("wrong_from", [1, 2])
def test_each_use_of_the_cache_is_compared_before_it_is_believed(wrong_from):
    """A model whose state is lost if ``wrong_from`` tokens follow a prompt, as in hybrids that continue by single tokens only."""
    model = tiny.model()
    forward = model.forward
    own = next(own for own in ("cache", "past_key_values") if own in inspect.signature(forward).parameters)

    @functools.wraps(forward)
    def forgetful(*args, **kwargs):
        output = forward(*args, **kwargs)
        if kwargs.get(own) is not None and kwargs["input_ids"].shape[1] >= wrong_from:
            output.logits = output.logits.flip(-1)
        return output

    model.forward = forgetful
    asked = requests(PROMPTS[2:3], [" 1", " 2"]) + requests(PROMPTS[:1], [" 1 2", " 2 1"]) + requests(PROMPTS[1:2], [" 1 2 3", " 2 1 3"])
    lm, ours, _ = ask(PrunedHFLM, model, asked, batch_size=1)
    check(ours, ask(HFLM, model, asked, batch_size=1)[1])
    assert not lm._shared_prompts.works


def test_a_model_without_logits_to_keep_gets_the_same_answers(monkeypatch):
    model = tiny.model()
    forward = model.forward
    signature = inspect.signature(forward)
    kept = []

    def all_logits(*args, **kwargs):
        kept.append(kwargs.get("logits_to_keep"))
        return forward(*args, **kwargs)

    all_logits.__signature__ = signature.replace(
        parameters=[part for name, part in signature.parameters.items() if name != "logits_to_keep"]
    )
    _, theirs, _ = ask(HFLM, model, requests())
    monkeypatch.setattr(model, "forward", all_logits)
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, theirs)
    assert lm._shared_prompts.works
    assert set(kept) == {None}


def test_without_sharing_it_is_hf_bit_for_bit():
    _, ours, _ = ask(PrunedHFLM, tiny.model(), requests(), share_prompts=False)
    _, theirs, _ = ask(HFLM, tiny.model(), requests())
    assert ours == theirs


def test_prompts_that_are_too_long_are_cut_as_lm_eval_cuts_them():
    asked = requests([" ".join("abcdefghijklmnopqrstuvwxyz") + " 1 2 3 4 5 6 7 8 9"])
    check(ask(PrunedHFLM, tiny.model(), asked)[1], ask(HFLM, tiny.model(), asked)[1])


@pytest.mark.parametrize("kind", ["Mamba", "no cache"])
def test_a_model_whose_cache_cannot_be_repeated_goes_lm_evals_way(kind, caplog):
    caplog.set_level(logging.INFO, logger="harness_ext")
    if kind == "Mamba":
        config = transformers.MambaConfig(
            vocab_size=tiny.VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2, intermediate_size=32
        )
        model = transformers.MambaForCausalLM(config).eval()
    else:
        model = tiny.model()
        forward = model.forward
        model.forward = lambda *args, use_cache=None, **kwargs: forward(*args, use_cache=False, **kwargs)
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, ask(HFLM, model, requests())[1])
    assert not lm._shared_prompts.works
    lm.loglikelihood(requests(), disable_tqdm=True)
    assert len([record for record in caplog.records if "does not share" in record.getMessage()]) == 1


def test_a_cache_that_gives_other_answers_is_found_out(caplog):
    """A model that ignores position_ids and has absolute positions: its padded prompts are wrong, and lm-eval's are not."""
    caplog.set_level(logging.INFO, logger="harness_ext")
    model = tiny.model("gpt2")
    forward = model.forward

    def without_positions(*args, position_ids=None, **kwargs):
        return forward(*args, **kwargs)

    model.forward = without_positions
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, ask(HFLM, model, requests())[1])
    assert not lm._shared_prompts.works
    assert "a log-likelihood is" in caplog.text


@pytest.mark.parametrize(("dtype", "apart", "works"), [("bfloat16", 2.0, True), ("bfloat16", 0.0, False), ("float32", 2.0, False)])
def test_half_precision_is_compared_by_how_far_lm_evals_own_answers_are_apart(dtype, apart, works, monkeypatch):
    """Answers that are off by 2 nats, where those of lm-eval to a request alone are ``apart`` from those in a batch."""
    run = SharedPrompts._run

    def off(self, batch, asked, batch_size):
        return {place: (value + 2.0, greedy) for place, (value, greedy) in run(self, batch, asked, batch_size).items()}

    def stock(asked, *_):
        return [(value + (apart if len(asked) == 1 else 0.0), greedy) for value, greedy in answers(asked)]

    monkeypatch.setattr(SharedPrompts, "_run", off)
    lm = PrunedHFLM(pretrained=tiny.model(dtype=getattr(torch, dtype)), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    answers = functools.partial(HFLM._loglikelihood_tokens, lm, disable_tqdm=True)
    encoded = [(request.args, *lm._encode_pair(*request.args)) for request in requests()]
    lm._shared_prompts.answer(encoded, stock, batch_size=4, disable_bar=True)
    assert lm._shared_prompts.works == works


def test_bfloat16_is_near():
    model = tiny.model(dtype=torch.bfloat16)
    ours, theirs = ask(PrunedHFLM, model, requests())[1], ask(HFLM, model, requests())[1]
    for (mine, _), (expected, _) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(expected, abs=0.3)


def test_answers_reach_the_cache_of_answers():
    lm = PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    stored = {}

    class Hook:
        def add_partial(self, kind, request, answer):
            stored[request] = answer

    lm.cache_hook = Hook()
    answers = lm.loglikelihood(requests(), disable_tqdm=True)
    assert [stored[request.args] for request in requests()] == answers


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_it_is_true_or_false(value):
    with pytest.raises(BadOptionError, match="share_prompts"):
        PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), share_prompts=value)


@pytest.mark.filterwarnings("error:.*past_key_values:FutureWarning")
def test_the_cache_has_the_name_that_transformers_gives_it(caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        lm, *_ = ask(PrunedHFLM, tiny.model(), requests())
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert lm._shared_prompts.works
    assert "deprecated" not in caplog.text


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_either_name_of_the_cache_is_understood(name, monkeypatch):
    """``cache`` since transformers 5.24, ``past_key_values`` before it and in code of others."""
    model = tiny.model()
    forward = model.forward
    own = next(own for own in ("cache", "past_key_values") if own in inspect.signature(forward).parameters)

    def renamed(input_ids, attention_mask=None, position_ids=None, use_cache=None, **kept):
        output = forward(input_ids, attention_mask, position_ids=position_ids, use_cache=use_cache, **{own: kept.get(name)})
        return SimpleNamespace(logits=output.logits, **{name: getattr(output, own)})

    parameters = [inspect.Parameter(part, inspect.Parameter.KEYWORD_ONLY) for part in ("input_ids", "position_ids", name)]
    renamed.__signature__ = inspect.Signature(parameters)
    _, theirs, _ = ask(HFLM, model, requests())
    monkeypatch.setattr(model, "forward", renamed)
    lm, ours, _ = ask(PrunedHFLM, model, requests())
    check(ours, theirs)
    assert lm._shared_prompts.works
