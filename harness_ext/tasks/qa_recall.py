"""The lm-eval task class of the recall tasks: exact match, rank, recognition and recovery in one pass over the same prompts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from harness_ext.tasks.qa import FactTask, score

BEST = (1, 5, 10)


class RecallTask(FactTask):
    """A task over the rows of :func:`harness_ext.tasks.recall.recall_rows`. A YAML selects it with ``class``."""

    def __init__(self, config: dict[str, Any], **options: Any):
        super().__init__(config={"process_results": score_recall} | config, **options)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **details: Any) -> list[Instance]:
        """For the prompt, and then for the prompt with help: a completion and the log-likelihood of each answer of the relation."""
        everything = doc | {"choices": doc["ranked"]}
        before, prompt, after = ctx.rpartition(doc["prompt"])  # a chat template surrounds the prompt
        helped = f"{before}{doc['helped_prompt']}{after}" if prompt else doc["helped_prompt"]
        requests = [
            request for prompt in (ctx, helped) for request in super(RecallTask, self).construct_requests(everything, prompt, **details)
        ]
        for number, request in enumerate(requests):
            request.doc, request.idx = doc, number
        return requests


def median(ranks: Sequence[float]) -> float:
    """The score of ranks. lm-eval's own median takes the upper of two middle ranks, and then draws 100,000 samples of all facts."""
    return float(statistics.median(ranks))


def rank(likelihoods: Sequence[float], target: int) -> float:
    """The place of an answer in the order of likelihood; 1 is the likeliest. Equally likely answers share the mean of their places.

    Args:
        likelihoods: log-likelihood of each answer.
        target: index of the right answer.
    """
    better = sum(other > likelihoods[target] for other in likelihoods)
    equal = sum(other == likelihoods[target] for other in likelihoods)
    return better + (equal + 1) / 2


def score_recall(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Scores one item from the completions and the log-likelihoods of both prompts.

    Returns:
        ``exact_match``, ``acc`` (recognition among the choices) and ``acc_norm_chance`` as for the plain tasks, with their popularity.
        ``median_rank``: the rank of the right answer among all answers of its relation. ``recall_at_1``, ``recall_at_5`` and
        ``recall_at_10``: whether the rank is at most this. The same with ``_helped`` for the prompt with one more exemplar. ``recovered``:
        the completion is right with help only. ``lost``: it is right without help only.
    """
    half = len(results) // 2
    plain, helped = _one_prompt(doc, results[:half]), _one_prompt(doc, results[half:])
    before, after = plain["exact_match"], helped["exact_match"]
    return {
        **plain,
        **{f"{metric}_helped": value for metric, value in helped.items() if metric != "acc_norm_chance"},
        "recovered": float(after > before),
        "lost": float(after < before),
    }


def _one_prompt(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    completion, *ranked = results
    by_answer = dict(zip(doc["ranked"], ranked, strict=True))
    scores = score(doc, [completion, *(by_answer[choice] for choice in doc["choices"])])
    place = rank([likelihood for likelihood, _ in ranked], doc["ranked_target"])
    return scores | {"median_rank": place} | {f"recall_at_{best}": float(place <= best) for best in BEST}
