"""How tokenizers cut the prompts and labels of the ICL tasks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lm_eval.api.model import TemplateLM
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness_ext.plugins import Plugins
from harness_ext.tasks.functions import FAMILIES
from harness_ext.tasks.icl import Options, item


def trained(*splitters, decoder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splitters))
    tokenizer.decoder = decoder
    text = [item(family, Options(labels=4, seed=9), index)["prompt"] + " 0" for family in FAMILIES for index in range(4)]
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TOKENIZERS = {
    "lab-m": lambda: AutoTokenizer.from_pretrained(Plugins().models.get("lab-m")[0]),
    "GPT-2, OPT, Pythia": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoder=decoders.ByteLevel()),
    "Llama 3, Qwen": lambda: trained(
        pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        decoder=decoders.ByteLevel(),
    ),
}


@pytest.mark.parametrize(("family", "options"), [("tree", Options(labels=4)), ("linear", Options(high=99))], ids=["k4", "2digit"])
@pytest.mark.parametrize("style", TOKENIZERS)
def test_labels_cost_one_forward_pass(style, family, options):
    # Of the labels of an item, only the last token differs; where a space is a token of its own (Llama 3, Qwen), it comes first.
    tokenizer = TOKENIZERS[style]()
    lm = SimpleNamespace(backend="causal", tok_encode=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"])
    for doc in (item(family, options, index) for index in range(4)):
        pairs = [TemplateLM._encode_pair(lm, doc["prompt"], f" {choice}") for choice in doc["choices"]]
        assert len({tuple(context + answer[:-1]) for context, answer in pairs}) == 1
        assert len({answer[-1] for _, answer in pairs}) == len(pairs)
        assert {len(answer) for _, answer in pairs} == {2 if style.startswith("Llama") else 1}
        assert [tokenizer.decode(answer) for _, answer in pairs] == [f" {choice}" for choice in doc["choices"]]


def test_the_embedded_models_read_a_digit_as_one_token():
    tokenizer = TOKENIZERS["lab-m"]()
    doc = item("linear", Options(), 0)
    assert len(tokenizer(doc["prompt"])["input_ids"]) == 32 * (1 + 4 + 1 + 1) + 1 + 4 + 1
