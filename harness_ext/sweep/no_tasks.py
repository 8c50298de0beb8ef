"""What lm-eval would return for a run without tasks, which it refuses: a sweep may measure perplexity alone."""

from __future__ import annotations

import time
from typing import Any


def results_without_tasks(lm: Any, tracker: Any, arguments: dict[str, Any], **run: Any) -> dict[str, Any] | None:
    """The results of ``simple_evaluate`` but for its scores.

    Args:
        lm: a model of lm-eval.
        tracker: lm-eval's ``EvaluationTracker``, which is told of the run.
        arguments: of the model.
        run: what ``simple_evaluate`` writes into ``config`` as it was given, such as ``device``.

    Returns:
        None in all processes but the first.
    """
    from lm_eval import evaluator

    began = time.time()
    tracker.general_config_tracker.log_experiment_args(
        model_source="CUSTOM", model_args=arguments, system_instruction=None, chat_template=None, fewshot_as_multiturn=None
    )
    if lm.rank != 0:
        return None
    empty = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "samples")
    results: dict[str, Any] = {name: {} for name in empty}
    results["config"] = {"model": type(lm).__name__, "model_args": arguments, **lm.get_model_info(), "batch_sizes": [], **run}
    results |= {"git_hash": evaluator.get_git_commit_hash(), "date": began}
    evaluator.add_env_info(results)
    evaluator.add_tokenizer_info(results, lm)
    return results
