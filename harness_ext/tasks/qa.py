"""The lm-eval task class of all fact tasks. It generates an answer and ranks the answers of the relation on the same items.

lm-eval's own output types either generate or rank. Here one prompt makes both requests. The exact match of the answer, and the ranking,
which is less noisy for small models, are therefore scores of the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from harness_ext.tasks.scoring import above_chance, likeliest, matches


class FactTask(ConfigurableTask):  # type: ignore[misc]
    """A task over the rows of :func:`harness_ext.tasks.facts.rows`. A YAML selects it with ``class``."""

    def __init__(self, config: dict[str, Any], **options: Any):
        # Without process_results, lm-eval would look for each metric on the hub.
        config = {"process_results": score, **{name: value for name, value in config.items() if name != "class"}}
        super().__init__(config=config, **options)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **details: Any) -> list[Instance]:
        """One request for a completion, then one request for the log-likelihood of each choice."""
        shared = {"doc": doc, "metadata": details["metadata"]}
        written = Instance(request_type="generate_until", arguments=(ctx, deepcopy(self.config.generation_kwargs)), idx=0, **shared)
        # A chat template ends where the answer begins.
        space = "" if details.get("apply_chat_template") and not self.config.gen_prefix else self.config.target_delimiter
        ranked = [
            Instance(request_type="loglikelihood", arguments=(ctx, space + choice), idx=index, **shared)
            for index, choice in enumerate(doc["choices"], start=1)
        ]
        return [written, *ranked]


def score(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Scores one item from the completion and the log-likelihoods of the choices.

    Returns:
        ``exact_match``: whether the completion is a right answer. With choices, also ``acc`` and ``acc_norm_chance`` of the ranking.
        An item with a ``popularity`` (head, torso, tail) has both scores again, with the popularity in their names.
        An override item also has ``memory_match`` and ``memory_acc``: whether the completion, or the best choice, is the replaced answer.
    """
    completion, *ranked = results
    scores = {"exact_match": float(matches(completion, doc["answers"]))}
    if ranked:
        scores["acc"] = float(likeliest(ranked) == doc["target"])
        scores["acc_norm_chance"] = above_chance(scores["acc"], len(ranked))
    if third := doc.get("popularity"):
        scores |= {f"{metric}_{third}": scores[metric] for metric in ("exact_match", "acc") if metric in scores}
    if doc["memory"]:
        scores["memory_match"] = float(matches(completion, doc["memory"]))
        if ranked:
            scores["memory_acc"] = float(likeliest(ranked) == doc["memory_target"])
    return scores
