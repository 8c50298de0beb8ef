"""The ``lm_eval`` command that gives the numbers of a results file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness_ext.host.command_line import lm_eval_command

UNTYPED_BATCH_SIZE = 1  # the integer: lm-eval's command line passes it where none was typed, and a typed number as a text
SEED_NAMES = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")


def command_of(results: Mapping[str, Any], model_args: Mapping[str, Any]) -> str:
    """The command that the results say. Results that ``lm_eval --model pruned-hf`` wrote hold it.

    For other results, such as those of ``simple_evaluate``, the command is put together from what they hold, and names what they do not.

    Args:
        results: as ``lm_eval --output_path`` writes them.
        model_args: of the model, as values.
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
    """What all tasks have in their metadata: ``--metadata`` is part of it. What the tasks declare themselves changes nothing."""
    declared = [dict(task.get("metadata") or {}) for task in tasks.values()]
    if not declared:
        return {}
    first, *others = declared
    common = {name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)}
    return {name: value for name, value in common.items() if name not in model_args and name != "version"}
