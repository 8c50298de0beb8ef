"""The model card (README.md) of a pruned checkpoint, from its pruning record."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from harness_ext.weights.checkpoint_record import CHECKPOINT, in_words

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
KINDS = ("attention", "ffn")


def model_card(record: Mapping[str, Any], base: str, folder: str, masks: str | None = None) -> str:
    """Markdown with YAML front matter.

    Args:
        record: the pruning record.
        base: the model that was pruned: a name on the hub, a registered name, or a folder.
        folder: what the checkpoint is called in the examples.
        masks: the sparsity to ask for, where there are masks instead of weights.
    """
    import jinja2

    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters |= {"cell": _cell, "python": repr, "shell": shlex.quote}
    template = environment.from_string(resources.files("harness_ext").joinpath("model_card.md.jinja").read_text(encoding="utf-8"))
    kinds, blocks = _by_block(record.get("layers", {}) if record["plan"]["sparsity"] != "0" or "bits" not in record["plan"] else {})
    title = base if HUB_NAME.fullmatch(base) else Path(base).name
    return template.render(
        front_matter=_front_matter(record, base), title=title, base=base, folder=folder, masks=masks, plan=record["plan"],
        heading=_heading(record["plan"]), facts=_facts(record, base), kinds=kinds, blocks=blocks,
        command=command(record, base, folder), versions=_versions(record),
    )  # fmt: skip


def command(record: Mapping[str, Any], base: str, out: str) -> str:
    """The command line that makes the checkpoint again."""
    plan, source = record["plan"], record.get("source", {})
    words = ["harness-ext", "prune", "--pretrained", base]
    if source.get("revision"):
        words += ["--revision", source["revision"]]
    if source.get("gguf_file"):
        words += ["--gguf-file", source["gguf_file"]]
    words += ["--pruner", plan["pruner"]]
    words += ["--bits", str(plan["bits"])] if "bits" in plan else []
    words += ["--sparsity", plan["sparsity"], "--modules", plan["modules"]]
    for option in ("allocation", "calibration", "precision", "experts", "min_expert_tokens", "dense_limit"):
        if plan.get(option) is not None:
            words += [f"--{option.replace('_', '-')}", str(plan[option])]
    words += [f"--{flag.replace('_', '-')}" for flag in ("true_sequential", "strict") if plan.get(flag)]
    for kind in ("pruner", "allocation", "calibration"):
        for name, value in plan.get(f"{kind}_options", {}).items():
            words += ["-o", f"{kind}.{name}={_value(value)}"]
    if source.get("dtype"):
        words += ["--dtype", source["dtype"]]
    words += [flag for flag in ("--trust-remote-code", "--masks-only", "--stream") if source.get(flag.strip("-").replace("-", "_"))]
    return shlex.join([*words, "--out", out])


def _value(value: Any) -> str:
    """As the command line reads it back: a text that looks like something else is quoted."""
    from lm_eval.utils import handle_arg_string

    text = str(value)
    return f"'{text}'" if isinstance(value, str) and handle_arg_string(text) != value else text


def _front_matter(record: Mapping[str, Any], base: str) -> str:
    kinds = ["quantised"] if "bits" in record["plan"] else []
    kinds += ["pruned", "sparse"] if record["plan"]["sparsity"] != "0" or not kinds else []
    tags = [*kinds, record["plan"]["pruner"], "lm-eval-pruned"]
    matter: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": list(dict.fromkeys(tags))}
    if HUB_NAME.fullmatch(base):  # the hub refuses a card whose base model is a folder
        matter["base_model"] = base
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in matter.items())  # JSON is YAML


def _heading(plan: Mapping[str, Any]) -> str:
    """What was done to the model."""
    if "bits" not in plan:
        return f"pruned by {plan['pruner']} to {plan['sparsity']}"
    removed = f", sparsity {plan['sparsity']}" if plan["sparsity"] != "0" else ""
    return f"quantised by {plan['pruner']} to {plan['bits']} bits{removed}"


def _facts(record: Mapping[str, Any], base: str) -> dict[str, str]:
    plan = record["plan"]
    before = f"{base}, which is itself not dense: {in_words(record[CHECKPOINT])}" if CHECKPOINT in record else base
    facts = {"base model": before, "method": _named(plan["pruner"], plan.get("pruner_options", {}))}
    if (source := record.get("source", {})).get("gguf_file"):
        facts["weights"] = f"dequantised from {source['gguf_file']} ({source['quantisation']})"
    if plugin := record.get("plugin"):
        facts["plugin"] = f"{plugin['distribution']} {plugin['version']} ({plugin['module']})"
    if quantisation := record.get("quantisation"):
        facts["bits"] = (
            f"{plan['bits']} a weight, {quantisation['bits_a_weight']:.4f} with scales and zero points, "
            f"{quantisation['bits_a_parameter']:.4f} a parameter of the whole model"
        )
        facts["quantisation"] = (
            f"simulated: the weights are stored in {quantisation['weights_in']}, with the values that the codes stand for"
        )
    facts["asked sparsity"] = f"{plan['sparsity']} of the linear layers in the decoder blocks (modules: {plan['modules']})"
    if plan.get("allocation"):
        facts["allocation"] = _named(plan["allocation"], plan.get("allocation_options", {}))
    if "achieved_sparsity" in record:
        facts["achieved sparsity"] = f"{record['achieved_sparsity']:.6f}"
        if "achieved_sparsity_of_model" in record:
            facts["achieved sparsity"] += f" of these layers, {record['achieved_sparsity_of_model']:.6f} of all parameters"
    if found := record.get("calibration"):
        text = _named(plan.get("calibration", "token ids"), plan.get("calibration_options", {}))
        bos = {True: ", each behind BOS", False: ", without BOS"}.get(found.get("bos"), "")
        facts["calibration"] = f"{text}: {found['samples']} sequences of {found['length']} tokens{bos}, digest {found['digest']}"
    else:
        facts["calibration"] = "none"
    for name in ("fingerprint", "dense_digest"):
        if name in record:
            facts[name.replace("_", " ")] = f"`{record[name]}`"
    return facts


def _by_block(layers: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """The kinds of layers that there are, and the sparsity of each kind, and of all, in each block."""
    counts: dict[str, dict[str, list[int]]] = {}
    for name, entry in layers.items():
        number = re.search(r"\.(\d+)\.", name)
        for key in {entry.get("kind", "all"), "all"}:  # records of version 0.1 have no kind
            total = counts.setdefault(number[1] if number else name, {}).setdefault(key, [0, 0])
            total[0] += entry["zeros"]
            total[1] += entry["weights"]
    kinds = [kind for kind in KINDS if any(kind in row for row in counts.values())]
    columns = [*kinds, "all"]
    shares = {block: {kind: f"{zeros / size:.4f}" for kind, (zeros, size) in row.items()} for block, row in counts.items()}
    return kinds, {block: [row.get(kind, "-") for kind in columns] for block, row in shares.items()}


def _versions(record: Mapping[str, Any]) -> dict[str, str]:
    known = {name: str(version) for name, version in record.get("environment", {}).items()}
    return known | {name: metadata.version(name) for name in ("lm-eval-pruned", "torch", "transformers") if name not in known}


def _named(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({', '.join(f'{option}={value}' for option, value in options.items())})" if options else name


def _cell(text: str) -> str:
    """As the cell of a Markdown table."""
    return text.replace("|", r"\|").replace("\n", " ")
