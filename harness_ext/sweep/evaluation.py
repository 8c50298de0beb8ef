"""One trial: prune the model, and evaluate it with lm-eval's ``simple_evaluate``."""

from __future__ import annotations

import tempfile
import time
from typing import Any

from harness_ext.engine import ranks
from harness_ext.host.command_line import SEED_NAMES, SEEDS, lm_eval_command
from harness_ext.host.environment import environment_asked_once
from harness_ext.host.registration import MODEL
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.items import Items, MadeTasks
from harness_ext.sweep.no_tasks import results_without_tasks
from harness_ext.sweep.text import TASK, add, measure

Results = dict[str, Any]
Samples = dict[str, list[dict[str, Any]]]


def run_trial(sweep: Sweep, trial: TrialSpec, model: DenseModel, items: Items) -> tuple[Results, Samples, dict[str, Any]]:
    """Prunes and evaluates.

    Returns:
        the results as lm-eval writes them, the samples of each task, and for the record ``items`` (a digest of each task's items),
        ``parameters`` (of the model that was evaluated) and ``seconds`` (of the parts). Of several processes with a share of the requests
        each, the first has them, and the others nothing.
    """
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    began = time.perf_counter()
    model.prune(trial.plan)
    pruned = time.perf_counter()
    arguments = dict(trial.arguments)
    with tempfile.TemporaryDirectory() as folder, environment_asked_once():
        tracker = EvaluationTracker(output_path=folder)
        options = {"batch_size": sweep.batch_size or 1, "device": sweep.device, "limit": sweep.limit}
        results: Results | None
        if sweep.tasks:
            results = simple_evaluate(
                model=model.lm, model_args=arguments, tasks=items.for_trial(), task_manager=MadeTasks(items.catalogue.manager),
                num_fewshot=sweep.num_fewshot, evaluation_tracker=tracker, system_instruction=sweep.system_instruction,
                apply_chat_template=sweep.apply_chat_template, fewshot_as_multiturn=sweep.as_multiturn, gen_kwargs=dict(sweep.gen_kwargs),
                random_seed=None, numpy_random_seed=None, torch_random_seed=None,  # set when the model was loaded
                **options,
            )  # fmt: skip
        else:
            results = results_without_tasks(model.lm, tracker, arguments, **options)
        if results is None:  # another process has them
            return {}, {}, {}
        evaluated = time.perf_counter()
        samples: Samples = results.pop("samples")
        for rows in samples.values():
            rows.sort(key=lambda row: int(row["doc_id"]))  # lm-eval puts those of one process after those of another
        _describe(results, sweep, trial)
        of_text = {TASK: add(results, sweep, items.text, measure(sweep, items.text, model.lm))} if items.text else {}
        measured = time.perf_counter()
        tracker.general_config_tracker.model_source = MODEL
        tracker.save_results_aggregated(results=results, samples=samples)  # completes the results
    digests = {**items.digests_of(results["task_hashes"]), **of_text}
    parameters = sum(parameter.numel() for parameter in model.lm.model.parameters())
    seconds = {"pruning": round(pruned - began, 3), "evaluation": round(evaluated - pruned, 3)}
    seconds |= {"perplexity": round(measured - evaluated, 3)} if items.text else {}
    return results, samples, {"items": digests, "parameters": parameters, "seconds": seconds}


def command(sweep: Sweep, trial: TrialSpec) -> str:
    """The ``lm_eval`` command that gives the same numbers."""
    lacks = () if sweep.tasks else ("tasks: only perplexity was measured, see harness-ext perplexity",)
    names = ("tasks", "include_path", "metadata", "limit", "batch_size", "device")
    arguments = {name: getattr(sweep, name) for name in names} | sweep.evaluation()
    return str(lm_eval_command({"model_args": trial.arguments, **arguments}, processes=ranks.count(), lacks=lacks))


def _describe(results: Results, sweep: Sweep, trial: TrialSpec) -> None:
    """Writes into the results what lm-eval's command line would: ``simple_evaluate`` does not know how a loaded model came to be."""
    for config in results["configs"].values():
        if isinstance(config.get("metadata"), dict):
            config["metadata"] = dict(trial.arguments) | config["metadata"]
    results["config"] |= {"model": MODEL, "command": command(sweep, trial), **dict(zip(SEED_NAMES, SEEDS, strict=True))}
