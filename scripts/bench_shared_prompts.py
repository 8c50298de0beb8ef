"""Times requests that share prompts against lm-eval's own way, on items of four shapes:

    OMP_NUM_THREADS=2 python scripts/bench_shared_prompts.py --pretrained smollm2-135m

Prints, for each shape, the seconds of ``hf`` and of ``pruned-hf`` in one process and their ratio, the largest difference between
log-likelihoods, and how many items have another best choice. The texts are random words of the tokenizer, so no data set is needed.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness_ext import PrunedHFLM
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins


@dataclass(frozen=True)
class Shape:
    """Items of a task: words of a prompt, number of choices, and words of a choice."""

    prompt: int
    choices: int
    words: int


SHAPES = {
    "facts: 16 short choices": Shape(prompt=120, choices=16, words=2),
    "hellaswag: 4 long choices": Shape(prompt=70, choices=4, words=25),
    "mmlu: 4 short choices": Shape(prompt=90, choices=4, words=4),
    "mmlu: 4 letters": Shape(prompt=90, choices=4, words=1),
}


def items(shape: Shape, count: int, words: list[str], seed: int = 0) -> list[Instance]:
    """Requests of ``count`` items; prompts differ by a third in length."""
    rng = random.Random(seed)
    requests = []
    for item in range(count):
        prompt = " ".join(rng.choices(words, k=round(shape.prompt * rng.uniform(0.85, 1.15))))
        for choice in range(shape.choices):
            pair = (prompt, " " + " ".join(rng.choices(words, k=shape.words)))
            requests.append(Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=item * shape.choices + choice))
    return requests


def measure(ours: PrunedHFLM, stock: HFLM, shape: Shape, count: int, words: list[str]) -> str:
    """One line of the table. Both answer a first item before the clock starts."""
    asked = items(shape, count, words)
    seconds, answers = {}, {}
    for name, lm in (("hf", stock), ("pruned-hf", ours)):
        lm.loglikelihood(items(shape, 2, words, seed=1), disable_tqdm=True)
        began = time.perf_counter()
        answers[name] = [score for score, _ in lm.loglikelihood(asked, disable_tqdm=True)]
        seconds[name] = time.perf_counter() - began
    difference = max(abs(a - b) for a, b in zip(answers["hf"], answers["pruned-hf"], strict=True))
    best = {name: [_best(scores[i : i + shape.choices]) for i in range(0, len(scores), shape.choices)] for name, scores in answers.items()}
    flips = sum(a != b for a, b in zip(best["hf"], best["pruned-hf"], strict=True))
    return f"{seconds['hf']:8.1f} {seconds['pruned-hf']:10.1f} {seconds['hf'] / seconds['pruned-hf']:7.2f} {difference:12.1e} {flips:6d}"


def _best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="lab-m")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    folder = model_folder(Plugins(), options.pretrained)
    arguments = {"pretrained": folder, "batch_size": options.batch_size, "device": "cpu", "dtype": options.dtype}
    ours, stock = PrunedHFLM(**arguments), HFLM(**arguments)
    vocabulary = [ours.tokenizer.decode([token]).strip() for token in range(300, min(len(ours.tokenizer), 8000))]
    words = [word for word in vocabulary if word.isalpha() and len(ours.tok_encode(f" {word}")) == 1] or ["a", "b", "c"]
    print(f"{options.pretrained}, {options.dtype}, batch size {options.batch_size}, {options.items} items a shape")
    print(f"{'':28s} {'hf s':>8s} {'pruned-hf s':>10s} {'ratio':>6s} {'difference':>12s} {'flips':>6s}")
    for title, shape in SHAPES.items():
        print(f"{title:28s} {measure(ours, stock, shape, options.items, words)}", flush=True)


if __name__ == "__main__":
    main()
