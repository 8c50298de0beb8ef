"""Models for tests of tasks: one that knows all answers, one that guesses, and a tiny real model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM

from harness_ext.testing.built import choices_of, right_answers


class OracleLM(LM):  # type: ignore[misc]
    """A model that knows the right answers of one task. It generates them, and ranks them as the likeliest.

    The generated text begins with the ``target_delimiter`` of the task and ends at ``until``, as for any model.
    """

    def __init__(self, task: Any):
        super().__init__()
        self.task = task
        self._known: dict[Any, list[str]] = {}

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        delimiter = self.task.config.target_delimiter
        return [cut(delimiter + self._answers(request)[0], request.arguments[1].get("until")) for request in requests]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(0.0, True) if self._is_right(request) else (-1000.0, False) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return [0.0] * len(requests)

    def _is_right(self, request: Any) -> bool:
        if getattr(self.task, "multiple_input", 0):  # the choices are the prompts
            return bool(request.idx == self.task.doc_to_text(request.doc))
        return request.arguments[1].strip() in {answer.strip() for answer in self._answers(request)}

    def _answers(self, request: Any) -> list[str]:
        if request.doc_id is None:
            return right_answers(self.task, request.doc)
        if request.doc_id not in self._known:  # of one document there are as many requests as choices
            self._known[request.doc_id] = right_answers(self.task, request.doc)
        return self._known[request.doc_id]


class RandomLM(LM):  # type: ignore[misc]
    """A model that guesses among the choices of a document. Guesses depend on the seed, not on the order of requests."""

    def __init__(self, task: Any, seed: int = 0):
        super().__init__()
        self.task = task
        self.seed = seed
        self._counts: dict[Any, int] = {}

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        delimiter = self.task.config.target_delimiter
        guesses = [self._random(request, "written").choice(choices_of(self.task, request.doc) or [""]) for request in requests]
        return [cut(delimiter + guess, request.arguments[1].get("until")) for guess, request in zip(guesses, requests, strict=True)]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        # The guessed choice has 0, which stays the highest after division by a length. Both kinds of scores thus see one guess.
        return [(0.0 if self._is_guessed(request) else -1.0 - len(request.arguments[1]), False) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        return [-float(len(request.arguments[0])) for request in requests]

    def _is_guessed(self, request: Any) -> bool:
        count = self._count(request)
        guess = self._random(request, "ranked").randrange(count) if count else 0
        if self.task.OUTPUT_TYPE == "generate_until":  # a FactTask, which asks for a completion too, and may rank more than its choices
            return count > 0 and request.arguments[1].strip() == choices_of(self.task, request.doc)[guess].strip()
        return count > 0 and request.idx % count == guess

    def _count(self, request: Any) -> int:
        if request.doc_id is None:
            return len(choices_of(self.task, request.doc))
        if request.doc_id not in self._counts:
            self._counts[request.doc_id] = len(choices_of(self.task, request.doc))
        return self._counts[request.doc_id]

    def _random(self, request: Any, what: str) -> random.Random:
        return random.Random(f"{self.seed} {request.doc_id} {what}")


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text up to the first string that ends a completion."""
    for stop in [until] if isinstance(until, str) else until or []:
        if stop:
            text = text.split(stop, maxsplit=1)[0]
    return text


def make_tiny_lm(*, seed: int = 0, positions: int = 2048) -> Any:
    """A Llama with one layer, 30,000 random parameters and a byte tokenizer, as lm-eval's ``hf`` model on the CPU.

    It knows nothing, and runs any task through lm-eval's real pipeline in seconds.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(["<s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>"}
    config = LlamaConfig(
        vocab_size=len(alphabet) + 1, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=positions, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions, **special)
    return HFLM(pretrained=model, tokenizer=wrapped, batch_size=16, max_length=positions, device="cpu")
