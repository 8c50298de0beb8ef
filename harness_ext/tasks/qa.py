"""The lm-eval task behind all fact tasks: it writes an answer and ranks the answers of the relation, on the same items.

lm-eval's own output types do the one or the other. Both requests come from one prompt here, so that the exact match of the answer
and the ranking, which is less noisy for small models, are scores of the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from harness_ext.tasks.scoring import above_chance, likeliest, matches


class FactTask(ConfigurableTask):  # type: ignore[misc]
    """Rows as :func:`harness_ext.tasks.facts.rows` gives them; a YAML selects it with ``class``."""

    def __init__(self, config: dict[str, Any], **options: Any):
        # Without a function for the scores lm-eval would look for each metric on the hub.
        config = {"process_results": score, **{name: value for name, value in config.items() if name != "class"}}
        super().__init__(config=config, **options)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **details: Any) -> list[Instance]:
        """One request for a completion, then one for the log-likelihood of every choice."""
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
        ``exact_match``: the completion is what the prompt asks for; ``acc`` and ``acc_norm_chance`` of the ranking, if there are choices.
        Of an item with a ``popularity`` (head, torso, tail) both also under their names with it, as the mean over such items.
        Of an override item also ``memory_match`` and ``memory_acc``: the completion, or the best choice, is the answer that was replaced.
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
