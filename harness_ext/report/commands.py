"""Rebuilds the ``lm_eval`` command that reproduces the numbers of a results file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness_ext.host.command_line import SEED_NAMES, lm_eval_command

UNTYPED_BATCH_SIZE = 1  # lm-eval passes the integer 1 if the user gave no batch size, and a string otherwise


def command_of(results: Mapping[str, Any], model_args: Mapping[str, Any]) -> str:
    """The command of a results file. Results of ``lm_eval --model pruned-hf`` contain it.

    For other results, such as those of ``simple_evaluate``, the command is rebuilt from their contents. It names what they do not record.

    Args:
        results: the content of a file that ``lm_eval --output_path`` wrote.
        model_args: the model arguments, as values.
    """
    config = results["config"]
    if isinstance(config.get("command"), str):
        return str(config["command"])
    arguments: dict[str, Any] = {"model": config.get("model"), "model_args": model_args, "tasks": list(results.get("configs", {}))}
    lacks = ["--include_path, which lm_eval does not record"]
    for name in ("gen_kwargs", "limit", "device"):
        arguments[name] = config.get(name)
    if config.get("batch_size") != UNTYPED_BATCH_SIZE:
        arguments["batch_size"] = config.get("batch_size")
        lacks += ["--max_batch_size, if there was one"] if str(config.get("batch_size")).startswith("auto") else []
    arguments["system_instruction"] = results.get("system_instruction")
    if results.get("chat_template"):
        arguments |= {"apply_chat_template": True, "fewshot_as_multiturn": results.get("fewshot_as_multiturn")}
        lacks.append("the name of the chat template, if it was not the default")
    if all(name in config for name in SEED_NAMES):
        arguments["seed"] = [config[name] for name in SEED_NAMES]
    arguments["metadata"] = _metadata(results.get("configs", {}), model_args)
    arguments["predict_only"] = any("bypass" in score for scores in results["results"].values() for score in scores)
    arguments["confirm_run_unsafe_code"] = any(task.get("unsafe_code") for task in results.get("configs", {}).values())
    shots = {shot for name, shot in results.get("n-shot", {}).items() if name in arguments["tasks"]}
    if len(shots) == 1:
        arguments["num_fewshot"] = shots.pop()
    elif shots:
        lacks.append(f"--num_fewshot, if there was one (the tasks have {', '.join(map(str, sorted(shots)))})")
    if config.get("limit") is None and any(
        count.get("effective") != count.get("original") for count in results.get("n-samples", {}).values()
    ):
        lacks.append("--samples, which lm_eval does not record")
    return str(lm_eval_command(arguments, lacks=lacks))


def _metadata(tasks: Mapping[str, Any], model_args: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that all tasks share, which include ``--metadata``. Entries that the tasks declare themselves do no harm."""
    declared = [dict(task.get("metadata") or {}) for task in tasks.values()]
    if not declared:
        return {}
    first, *others = declared
    common = {name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)}
    return {name: value for name, value in common.items() if name not in model_args and name != "version"}
