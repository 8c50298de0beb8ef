"""Texts of requests are encoded once and many at a time; the token ids are those of lm-eval."""

from __future__ import annotations

import functools

import pytest
import tiny
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from harness_ext import PrunedHFLM
from harness_ext.host import encoded_texts
from harness_ext.host.encoded_texts import EncodedTexts, texts_of

PROMPTS = ["a b c", "a b  ", "a\n\n", "", " ", "<end> a b", "a b c d", "x"]
CHOICES = [" 1 2", " 3", "4", " <end>"]


def requests(prompts=PROMPTS, choices=CHOICES):
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)]


def adding_first_token() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a first token before each text, as that of Llama."""
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    return tokenizer


class Encode(PreTrainedTokenizerFast):
    """A tokenizer with its own ``encode``, as others have their own of what it calls."""

    def encode(self, text, **options):
        return super().encode(text + " z", **options)


class EncodePlus(PreTrainedTokenizerFast):
    def _encode_plus(self, text, *arguments, **options):
        return super()._encode_plus(text + " z" if isinstance(text, str) else text, *arguments, **options)


class Call(PreTrainedTokenizerFast):
    def __call__(self, text, **options):
        return super().__call__([one + " z" for one in text] if isinstance(text, list) else text, **options)


def asked_of(kind, tokenizer, monkeypatch, asked, **arguments):
    """What reaches the model, and the number of calls of the tokenizer."""
    lm = kind(pretrained=tiny.model(), tokenizer=tokenizer, batch_size=4, device="cpu", **arguments)
    calls, found = [], []
    encode, call = type(tokenizer).encode, type(tokenizer).__call__
    monkeypatch.setattr(type(tokenizer), "_encode_plus", counting(type(tokenizer)._encode_plus, calls))
    monkeypatch.setattr(lm, "_loglikelihood_tokens", lambda made, **_: found.extend(made) or [(0.0, False)] * len(made))
    lm.loglikelihood(asked, disable_tqdm=True)
    monkeypatch.undo()
    assert (type(tokenizer).encode, type(tokenizer).__call__) == (encode, call)
    return found, calls


def counting(function, calls):
    @functools.wraps(function)  # with its module, which tells whose it is
    def counted(self, text, *arguments, **options):
        calls.append(text)
        return function(self, text, *arguments, **options)

    return counted


@pytest.mark.parametrize("arguments", [{}, {"add_bos_token": True}, {"add_bos_token": False}], ids=str)
@pytest.mark.parametrize("made", [tiny.tokenizer, adding_first_token], ids=["plain", "first-token"])
@pytest.mark.parametrize("at_once", [1, 12, 2**20])
def test_the_token_ids_are_those_of_lm_eval(made, arguments, at_once, monkeypatch):
    asked = requests() + requests()[:3]
    stock, _ = asked_of(HFLM, made(), monkeypatch, asked, **arguments)
    monkeypatch.setattr(encoded_texts, "AT_ONCE", at_once)
    ours, _ = asked_of(PrunedHFLM, made(), monkeypatch, asked, **arguments)
    assert ours == stock


@pytest.mark.parametrize("kind", [Encode, EncodePlus, Call, "of the instance"])
def test_a_tokenizer_with_its_own_way_is_asked_as_lm_eval_does(kind, monkeypatch):
    tokenizer = (PreTrainedTokenizerFast if isinstance(kind, str) else kind)(
        tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<end>", bos_token="<end>"
    )
    if isinstance(kind, str):
        encode = tokenizer.encode
        tokenizer.encode = lambda text, **options: encode(text + " z", **options)
    stock, _ = asked_of(HFLM, tokenizer, monkeypatch, requests())
    ours, _ = asked_of(PrunedHFLM, tokenizer, monkeypatch, requests())
    assert ours == stock


def test_a_tokenizer_of_another_library_is_asked_text_by_text():
    class Other:
        def encode(self, text, **_):
            return [*map(ord, text)]

    assert not encoded_texts.is_stock(Other())
    assert encoded_texts.is_stock(tiny.tokenizer())


def test_texts_are_encoded_once_and_together(monkeypatch):
    asked = requests(["a b c", "a b d"], CHOICES)
    _, one_by_one = asked_of(HFLM, tiny.tokenizer(), monkeypatch, asked)
    _, together = asked_of(PrunedHFLM, tiny.tokenizer(), monkeypatch, asked)
    assert len(one_by_one) == 2 * len(asked)
    assert [len(texts) for texts in together] == [len(asked) + 2]


def test_requests_may_come_one_by_one():
    lm = PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    asked = requests(["a b c", "a b d"])
    assert lm.loglikelihood((one for one in asked), disable_tqdm=True) == lm.loglikelihood(asked, disable_tqdm=True)


def test_long_texts_are_encoded_in_parts(monkeypatch):
    monkeypatch.setattr(encoded_texts, "AT_ONCE", 10)
    asked = requests(["a b c d e f", "b c d e f g"], [" 1 2", " 3", " 4 5 6"])
    _, together = asked_of(PrunedHFLM, tiny.tokenizer(), monkeypatch, asked)
    assert [len(texts) for texts in together] == [1] * 8


def test_nothing_is_kept_after_the_requests():
    lm = PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, device="cpu")
    lm.loglikelihood(requests(["a b c", "a b d"]), disable_tqdm=True)
    assert lm._encoded_texts.of("a b c") is None


def test_a_text_is_encoded_with_those_that_follow_it():
    groups: list[list[str]] = []

    def encode_many(texts):
        groups.append(list(texts))
        return [[*map(ord, text)] for text in texts]

    encoded = EncodedTexts(encode_many)
    encoded.expect(texts_of([("a ", "b"), ("a ", "c"), ("", "d"), ("e", "f")]))
    assert encoded.of("d") is None
    assert encoded.of("a c") == [*map(ord, "a c")]
    assert encoded.of("a b") == [*map(ord, "a b")]
    assert groups == [["a c", "ef", "e"], ["a b", "a"]]
    encoded.of("a c").append(0)
    assert encoded.of("a c") == [*map(ord, "a c")]
