"""A task through lm-eval's own pipeline, filters, metrics and aggregation included: who knows scores 1, who guesses scores chance."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from harness_ext.testing.documents import Built, choices_of
from harness_ext.testing.findings import Finding

# Scores of right and wrong answers, between 0 and 1; what other metrics give to a perfect answer is theirs to say.
_SHARES = ("acc", "exact_match", "em", "f1", "pass")
_GUESSED = ("acc", "acc_norm")
Z = 3.9  # one false alarm in ten thousand


def check_oracle(built: Built) -> list[Finding]:
    """A model that knows every answer scores 1.0, and 0.0 where lower is better."""
    from harness_ext.testing.models import OracleLM

    scores = run(built, OracleLM(built.task))
    return [Finding("oracle", built.file, f"metric_list.{metric}", message) for metric, message in _oracle(built, scores)]


def check_random(built: Built, *, limit: int | None = None) -> list[Finding]:
    """A model that guesses scores chance, within what so many documents leave open (one false alarm in ten thousand)."""
    from harness_ext.testing.models import RandomLM

    sizes = [len(choices_of(built.task, doc)) for doc in built.docs[:limit]]
    if not sizes or min(sizes) < 2:
        return []
    chance = sum(1 / size for size in sizes) / len(sizes)
    margin = Z * sum((1 - 1 / size) / size for size in sizes) ** 0.5 / len(sizes)
    scores = run(built, RandomLM(built.task), limit=limit)
    written = built.task.OUTPUT_TYPE == "generate_until"
    return [
        Finding("random", built.file, f"metric_list.{metric}", f"a guess scores {score:.4f}: want {chance:.4f} ± {margin:.4f}")
        for metric, score in scores.items()
        if (metric in _GUESSED or (written and metric == "exact_match")) and abs(score - chance) > margin
    ]


def run(built: Built, lm: Any, *, limit: int | None = None) -> Mapping[str, float]:
    """The scores that lm-eval reports for a task, by metric; of several filters the last one's, which is the task's own."""
    from lm_eval.evaluator import evaluate

    level = logging.getLogger("lm_eval").level
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    try:
        found = evaluate(
            lm=lm,
            task_dict={"tasks": {built.name: built.task}, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
        )
    finally:
        logging.getLogger("lm_eval").setLevel(level)
    return {
        key.partition(",")[0]: value
        for key, value in found["results"][built.name].items()
        if "," in key and isinstance(value, float) and "_stderr" not in key
    }


def _oracle(built: Built, scores: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    better = built.task.higher_is_better()
    if not scores:
        yield "", "lm-eval reports no score"
    for metric, score in scores.items():
        share = any(metric == name or metric.startswith(f"{name}_") for name in (*_SHARES, "memory_match", "memory_acc"))
        wanted = 0.0 if better.get(metric) is False else 1.0
        if share and metric != "acc_mutual_info" and abs(score - wanted) > 1e-9:
            yield metric, f"a model that knows every answer scores {score:.4f}: want {wanted}"
