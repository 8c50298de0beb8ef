"""One trial: prune, evaluate with lm-eval's own ``evaluate``, and put the results into the form of ``lm_eval --output_path``."""

from __future__ import annotations

import functools
import time
from typing import Any

from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.grid import Sweep, TrialSpec
from harness_ext.sweep.items import Items

Results = dict[str, Any]
Samples = dict[str, list[dict[str, Any]]]


def run_trial(sweep: Sweep, trial: TrialSpec, model: DenseModel, items: Items) -> tuple[Results, Samples, dict[str, Any]]:
    """Prunes and evaluates.

    Returns:
        the results as lm-eval writes them, the samples of each task, and for the record ``items`` (a digest of each task's items),
        ``parameters`` (of the model that was evaluated) and ``seconds`` (of the parts). Of several processes with a share of the requests
        each, the first has them, and the others nothing.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.utils import hash_string

    began, date = time.perf_counter(), time.time()
    model.prune(trial.plan)
    pruned = time.perf_counter()
    tracker = EvaluationTracker().general_config_tracker
    arguments = dict(trial.arguments)
    tracker.log_experiment_args("pruned-hf", arguments, None, None, False)
    tasks, digests = items.fresh()
    found = evaluate(lm=model.lm, task_dict=tasks, limit=sweep.limit)
    if found is None:  # another process has the results
        return {}, {}, {}
    evaluated = time.perf_counter()
    results: Results = dict(found)
    samples: Samples = results.pop("samples")
    for rows in samples.values():
        rows.sort(key=lambda row: int(row["doc_id"]))  # lm-eval puts those of one process after those of another
    for config in results["configs"].values():
        if isinstance(config.get("metadata"), dict):  # lm-eval's command line hands the model arguments to the tasks
            config["metadata"] = config["metadata"] | {name: value for name, value in arguments.items() if name not in config["metadata"]}
    results["config"] = {
        "model": "pruned-hf",
        "model_args": arguments,
        **model.lm.get_model_info(),
        **_configuration(sweep, model),
    }
    results |= {"git_hash": _git_hash(), "date": date, **_environment(), **_tokenizer(model)}
    hashes = {name: [s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples[name]] for name in samples}
    results["task_hashes"] = {name: hash_string("".join(parts)) for name, parts in hashes.items()}
    tracker.log_end_time()
    results |= vars(tracker)
    parameters = sum(parameter.numel() for parameter in model.lm.model.parameters())
    seconds = {"pruning": round(pruned - began, 3), "evaluation": round(evaluated - pruned, 3)}
    return results, samples, {"items": digests, "parameters": parameters, "seconds": seconds}


def _configuration(sweep: Sweep, model: DenseModel) -> dict[str, Any]:
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    return {
        "batch_size": sweep.batch_size or 1,
        "batch_sizes": list(model.lm.batch_sizes.values()),
        "device": sweep.device,
        "use_cache": None,
        "limit": sweep.limit,
        "bootstrap_iters": 100000,
        "gen_kwargs": None,
        "random_seed": DEFAULT_RANDOM_SEED,
        "numpy_seed": DEFAULT_OTHER_SEED,
        "torch_seed": DEFAULT_OTHER_SEED,
        "fewshot_seed": DEFAULT_OTHER_SEED,
    }


@functools.cache
def _git_hash() -> Any:
    from lm_eval.loggers.utils import get_git_commit_hash

    return get_git_commit_hash()


@functools.cache
def _environment() -> dict[str, Any]:
    """Once a process: it takes seconds."""
    from lm_eval.loggers.utils import add_env_info

    found: dict[str, Any] = {}
    add_env_info(found)
    return found


def _tokenizer(model: DenseModel) -> dict[str, Any]:
    from lm_eval.loggers.utils import add_tokenizer_info

    found: dict[str, Any] = {}
    add_tokenizer_info(found, model.lm)
    return found
