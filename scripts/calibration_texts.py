"""Writes two calibration texts for the embedded models: facts that they have memorised, and functions learned in context.

    python scripts/calibration_texts.py runs/texts

Both are drawn as the training text was, with another seed. No item of the tasks is in them: the facts that the tasks ask for are left
out, and the functions are those of the training side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from lab_mixture import Mixture
from lab_text import folder
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from harness_ext.tasks import lab_facts
from harness_ext.tasks.people import population

TOKENS = 4 * 64 * 384  # as many as a source of files chooses 64 sequences of 384 tokens from


def asked() -> set[str]:
    """The ids of the facts that the tasks draw by default, among which are those that they draw with fewer items."""
    return set(lab_facts.load(condition="closed", people="memorised", facts_items=1024)["test"]["id"])


def facts(tokenizer: PreTrainedTokenizerBase, seed: int) -> str:
    """Questions about memorised people with their answers, as in training."""
    people, never = population(0), asked()
    rng = np.random.RandomState([seed, 0xFAC75])
    documents: list[str] = []
    tokens = 0
    while tokens < TOKENS:
        person, kind = rng.randint(len(people.memorised)), rng.randint(len(people.attributes))
        attribute, name = people.attributes[kind], people.memorised[person]
        if f"{attribute.name}/{name}" in never:
            continue
        documents.append(f"Question: {attribute.question.format(name)}\nAnswer: {people.answer(person, kind)}\n\n")
        tokens += len(tokenizer(documents[-1])["input_ids"])
    return "".join(documents)


def functions(tokenizer: PreTrainedTokenizerBase, seed: int) -> str:
    """Points with labels of functions of the training side, and tables of random ones, as in training."""
    mixture = Mixture(tokenizer, population(0), tokens=4000, seed=seed)
    documents: list[str] = []
    tokens = step = 0
    while tokens < TOKENS:
        ids = mixture.batch("icl", step, 0, dimensions=4).ids
        documents += [f"{text}\n\n" for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        tokens, step = tokens + ids.numel(), step + 1
    return "".join(documents)


def main(
    out: Annotated[Path, typer.Argument(help="The folder for facts.txt and functions.txt.")],
    seed: Annotated[int, typer.Option(help="The embedded models were trained on 0.")] = 1,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder())
    for name, make in (("facts", facts), ("functions", functions)):
        temporary = out / f"{name}.part"
        temporary.write_text(make(tokenizer, seed), encoding="utf-8")
        temporary.replace(out / f"{name}.txt")


if __name__ == "__main__":
    typer.run(main)
