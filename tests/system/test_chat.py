"""Our tasks with ``--apply_chat_template``: choices are ranked right after the template, and a written answer is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from harness_run import without_environment
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from harness_ext import PrunedHFLM

CONFIGS = Path(__file__).parents[2] / "task_configs"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<end>"]
TASKS = ("icl_words", "icl_linear_k4", "kv_4", "lre_closed_4shot", "lre_open_2shot", "lre_override_2shot")
CITIES = ("Paris", "Madrid", "Rome", "Lima", "Tokyo", "Nairobi", "Oslo", "Quito")
ITEMS = 3


def tokenizer():
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<end>", pad_token="<end>", additional_special_tokens=SPECIAL[:2])
    fast.chat_template = CHATML
    return fast


@pytest.fixture(scope="module")
def lm():
    words = tokenizer()
    model = tiny.model(vocab_size=len(words), max_position_embeddings=4096)
    return PrunedHFLM(pretrained=model, tokenizer=words, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def relations(tmp_path_factory):
    file = tmp_path_factory.mktemp("relations") / "capital.json"
    samples = [{"subject": f"Country {'ABCDEFGH'[i]}", "object": city} for i, city in enumerate(CITIES)]
    content = {
        "name": "capital",
        "prompt_templates": ["The capital of {} is"],
        "question": "What is the capital of {}?",
        "samples": samples,
    }
    file.write_text(json.dumps(content))
    return str(file)


@pytest.fixture
def evaluate(relations):
    def run(model, task, **options):
        metadata = {"relations": relations, "facts_items": ITEMS, "lookup_items": ITEMS, "icl_items": ITEMS}
        manager = TaskManager(include_path=str(CONFIGS), include_defaults=False, metadata=metadata)
        with without_environment():
            found = simple_evaluate(
                model=model, tasks=[task], task_manager=manager, apply_chat_template=True, bootstrap_iters=0, log_samples=True, **options
            )
        return found["results"][task], found["samples"][task]

    return run


def log_likelihood(lm, text, answer):
    """Of the bytes of an answer after those of a text, in a forward pass of its own."""
    context, given = (lm.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, answer))
    assert len(given) == len(answer.encode())
    with torch.no_grad():
        scores = lm.model(torch.tensor([context + given])).logits[0].double().log_softmax(-1)
    return sum(scores[len(context) - 1 + place, token].item() for place, token in enumerate(given))


@pytest.mark.parametrize("task", TASKS)
def test_the_choices_are_ranked_as_the_first_words_of_the_assistant(lm, evaluate, task):
    results, samples = evaluate(lm, task)
    assert len(samples) == ITEMS
    right = 0
    for sample in samples:
        doc = sample["doc"]
        text = f"<|im_start|>user\n{doc['prompt']}<|im_end|>\n<|im_start|>assistant"
        ranked = [answer for answer in sample["resps"] if isinstance(answer[0], (tuple, list))]
        expected = [log_likelihood(lm, text, f"\n{choice}") for choice in doc["choices"]]  # lm-eval counts the end of the line too
        assert [float(answer[0][0]) for answer in ranked] == pytest.approx(expected, abs=1e-3)
        right += expected.index(max(expected)) == doc["target"]
    assert results["acc,none"] == pytest.approx(right / ITEMS)


class Assistant(PrunedHFLM):
    """Knows the answer of each item, and says it as the first words of its turn."""

    asked: list[str]

    def generate_until(self, requests, disable_tqdm=False):
        self.asked = [request.args[0] for request in requests]
        return [f"{request.doc['answers'][0]}." for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        self.asked = [request.args[0] for request in requests]
        answers = [request.doc["choices"][request.doc["target"]] for request in requests]
        return [(-1.0, True) if request.args[1] == answer else (-9.0, False) for request, answer in zip(requests, answers, strict=True)]


@pytest.mark.parametrize("multiturn", [True, False])
@pytest.mark.parametrize("task", ["icl_words", "lre_override_2shot"])
def test_an_assistant_that_says_the_answer_alone_scores_one(evaluate, task, multiturn):
    words = tokenizer()
    assistant = Assistant(pretrained=tiny.model(vocab_size=len(words)), tokenizer=words, device="cpu", batch_size=4)
    results, samples = evaluate(assistant, task, fewshot_as_multiturn=multiturn)
    assert results["acc,none"] == results["exact_match,none"] == 1
    prompts = {sample["doc"]["prompt"] for sample in samples}
    for text in assistant.asked:
        assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert text.count("<|im_start|>assistant") == 1
        assert any(f"{prompt}<|im_end|>\n<|im_start|>assistant\n" in text for prompt in prompts)
