"""Builds the tokenizer of the embedded models: one token per digit, word, name and value; any other text falls back to bytes."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness_ext.tasks.lookup import VALUES
from harness_ext.tasks.people import People

END = "<|end|>"

# A digit is always one token, together with the space or the comma and space before it, so that an exemplar of the ICL tasks with
# four inputs takes seven tokens.
_PIECES = r"(?:\n\n|\n)?[A-Z][a-z]+:|, ?\d| ?\d| ?[A-Za-z]+|\n\n|\s|[^\sA-Za-z\d]"

_MARKERS = "Input: Output: Question: Answer: Context: Key: Value:".split()


def build(people: People) -> PreTrainedTokenizerFast:
    """The tokenizer for a population: [end, 256 bytes, pieces]; a piece that is not in the vocabulary is spelled in bytes."""
    pieces = [start + str(digit) for start in ("", " ", ", ", ",") for digit in range(10)]
    pieces += [start + marker for marker in _MARKERS for start in ("", "\n", "\n\n")] + ["\n\n"]
    for attribute in people.attributes:
        for template in (attribute.question, attribute.statement):
            pieces += re.findall(_PIECES, template.replace("{}", ""))
            pieces += [" " + word for word in re.findall("[A-Za-z]+", template)]
    pieces += [" " + word for word in (*people.words(), *VALUES)]

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    for piece in pieces:
        ((spelled, _),) = byte_level.pre_tokenize_str(piece)
        if spelled not in vocabulary:
            vocabulary.append(spelled)
    model = models.BPE(vocab={piece: index for index, piece in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECES), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=384)
