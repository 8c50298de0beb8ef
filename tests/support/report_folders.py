"""Small results on disk for the tests of reports: records of a sweep, and files of ``lm_eval --output_path``, with given scores."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness_ext.sweep.identity import key
from harness_ext.sweep.records import checksum

LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj")
NAMED = ("pruner", "modules", "seed", "dense", "bits", "bits_of_model", "plan_entries")  # arguments of ``pruning``
TASKS = {"lab_facts_closed": 0.25, "icl_linear": 0.5}


def falling(items: int, dense: float, kept: dict[float, float], seed: int = 0) -> dict[float, list[int]]:
    """0/1 scores by sparsity: ``kept`` is the share of what the dense model gets right that is still right; a little of the rest is won."""
    generator = np.random.default_rng(seed)
    right, order = generator.random(items) < dense, generator.random(items)
    return {
        0.0: right.astype(int).tolist(),
        **{s: np.where(right, order < share, order < 0.05).astype(int).tolist() for s, share in kept.items()},
    }


def pruning(
    sparsity: str,
    achieved: float,
    *,
    pruner: str = "magnitude",
    modules: str = "all",
    seed: int | None = None,
    dense: str = "d0",
    bits: int | None = None,
    bits_of_model: int | None = None,
    plan_entries: dict[str, Any] | None = None,
):
    plan: dict[str, Any] = {"pruner": pruner, "pruner_options": {}, "sparsity": sparsity, "modules": modules, "allocation": "uniform"}
    plan |= {"allocation_options": {}, "precision": "float32"}
    plan |= ({} if bits is None else {"bits": bits}) | (plan_entries or {})
    if seed is not None:
        plan |= {"calibration": "self", "calibration_options": {"samples": 8, "seed": seed}}
    zeros = round(1000 * achieved)
    layers = {name: {"asked": sparsity, "achieved": achieved, "zeros": zeros, "weights": 1000} for name in LAYERS} if achieved else {}
    print_of = hashlib.sha256(json.dumps([plan, dense], sort_keys=True).encode()).hexdigest()[:16]
    environment = {"torch": "2.13.0", "lm-eval-pruned": "0.1.0", "device": "cpu", "threads": 1}
    record = {"plan": plan, "dense_digest": dense, "fingerprint": print_of, "achieved_sparsity": achieved, "layers": layers}
    record |= {} if bits is None else {"quantisation": {"bits": bits, "bits_of_model": bits_of_model}}
    return record | {"environment": environment}


def results(scores: dict[str, list[int]], record: dict[str, Any], arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    """``results.json`` with the mean of the scores."""
    chance = options.get("chance", TASKS)
    found: dict[str, Any] = {"results": {}, "configs": {}, "versions": {}, "n-samples": {}, "task_hashes": {}}
    for task, values in scores.items():
        error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
        found["results"][task] = {"alias": task, "sample_len": len(values), "acc,none": float(np.mean(values)), "acc_stderr,none": error}
        declared = options.get("metadata", {}).get(task, {})
        found["configs"][task] = {"metadata": ({"chance": chance[task]} if task in chance else {}) | declared}
        found["versions"][task] = options.get("version", 1.0)
        found["n-samples"][task] = {"original": len(values), "effective": len(values)}
        found["task_hashes"][task] = options.get("items", f"items of {task}")
    config = {"model": "pruned-hf", "model_args": arguments, "model_num_parameters": options.get("parameters", 10000), "pruning": record}
    return found | {"config": config | {"limit": None}, "lm_eval_version": "0.4.13", "transformers_version": "5.23.0"}


def samples(task: str, values: list[int], answers: dict[str, list[dict[str, Any]]] | None = None) -> list[dict[str, Any]]:
    """The rows of a task; ``answers`` has what else is in each row of a task, such as ``filtered_resps`` and ``target``."""
    more = (answers or {}).get(task) or [{}] * len(values)
    return [
        {"doc_id": i, "doc_hash": f"{task}{i}", "filter": "none", "metrics": ["acc"], "acc": float(value), **other}
        for i, (value, other) in enumerate(zip(values, more, strict=True))
    ]


def ranked(values: list[int], choices: int, margins: list[float] | None = None) -> list[dict[str, Any]]:
    """Responses of the dense model to items with so many choices, of which number 0 is right where the score is 1.

    Args:
        margins: of the items, above 0; by default from 0.5 up, by items.
    """
    margins = margins or [0.5 + 5 * item / len(values) for item in range(len(values))]
    return [
        {
            "target": 0,
            "filtered_resps": [[-1.0 if value else -1.0 - 2 * margin, False], [-1.0 - margin, False], *[[-20.0, False]] * (choices - 2)],
        }
        for value, margin in zip(values, margins, strict=True)
    ]


def write_trial(
    out: Path, scores: dict[str, list[int]], sparsity: str = "0", *, pretrained: str = "tiny", logged: bool = True, **options: Any
):
    """A record as docs/sweep.md describes it; options are those of ``pruning`` and ``results``."""
    named = {name: options.pop(name) for name in NAMED if name in options}
    limit, answers = options.pop("limit", None), options.pop("answers", None)
    left, colon, of = sparsity.partition(":")
    ratio = int(left) / int(of) if colon else float(sparsity)
    record = pruning(sparsity, ratio, **named)
    arguments = {"pretrained": pretrained, "sparsity": sparsity}
    contents = {"results.json": json.dumps(results(scores, record, arguments, **options)).encode()}
    packed = {task: f"samples_{task}.jsonl.gz" for task in scores} if logged else {}
    for task, file in packed.items():
        contents[file] = gzip.compress("".join(json.dumps(row) + "\n" for row in samples(task, scores[task], answers)).encode(), mtime=0)
    settings = {
        "device": "cpu",
        "limit": limit,
        "plan": record["plan"],
        "model": pretrained,
        "salt": sorted(scores),
        **{k: str(v) for k, v in options.items()},
    }
    described = {
        "format": 1, "key": key(settings), "settings": settings, "arguments": arguments, "command": f"lm_eval --sparsity {sparsity}",
        "ratio": ratio, "pruning": record, "items": {task: options.get("items", task) for task in scores},
        "parameters": options.get("parameters", 10000), "seconds": {"pruning": 1.0, "evaluation": 1.0}, "cost": 1.0, "samples": packed,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
    }  # fmt: skip
    folder = out / "trials" / key(settings)
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    (folder / "trial.json").write_text(json.dumps({"checksum": checksum(described), **described}), encoding="utf-8")
    return folder


def write_plain(
    folder: Path, scores: dict[str, list[int]], sparsity: str = "0", *, stamp: str, logged: bool = True, **options: Any
) -> Path:
    """What ``lm_eval --output_path`` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: options.pop(name) for name in NAMED if name in options}
    answers = options.pop("answers", None)
    found = results(scores, pruning(sparsity, float(sparsity), **named), {"pretrained": "tiny", "sparsity": sparsity}, **options)
    if not logged:
        found["task_hashes"] = {}
    file = folder / f"results_{stamp}.json"
    file.write_text(json.dumps(found), encoding="utf-8")
    for task in scores if logged else ():
        lines = [json.dumps({**row, "doc": {"question": "?"}}) + "\n" for row in samples(task, scores[task], answers)]
        (folder / f"samples_{task}_{stamp}.jsonl").write_text("".join(lines), encoding="utf-8")
    return file


RECALL = falling(200, 0.9, {0.3: 0.97, 0.6: 0.5, 0.8: 0.1}, seed=1)
CONTEXT = falling(200, 0.95, {0.3: 1.0, 0.6: 1.0, 0.8: 0.99}, seed=2)


def sweep(out: Path, **options: Any) -> Path:
    """A dense model and three sparsities: recall falls, the in-context ability does not within the grid."""
    for sparsity in RECALL:
        given = {"lab_facts_closed": RECALL[sparsity], "icl_linear": CONTEXT[sparsity]}
        write_trial(out, given, f"{sparsity:g}", **options)
    return out


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sweep_of_parts(out: Path) -> Path:
    """Two models, one of them pruned as a whole and by its parts."""
    sweep(out)
    for modules, recall in (("attention", RECALL), ("ffn", CONTEXT)):
        for sparsity in (0.3, 0.6, 0.8):
            write_trial(out, {"lab_facts_closed": recall[sparsity], "icl_linear": CONTEXT[sparsity]}, f"{sparsity:g}", modules=modules)
    small = {"lab_facts_closed": RECALL[0.6], "icl_linear": CONTEXT[0.6]}
    write_trial(out, small, "0", pretrained="tinier", dense="d1", parameters=8800)
    return out


def with_dtype(folder: Path, dtype: str) -> None:
    """Writes the dtype of the model into all records in a folder."""
    change_results(folder, lambda results: results["config"].update(model_dtype=dtype))


def change_results(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the results in all records in a folder, and their checksums."""
    for file in folder.rglob("results.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        change(results)
        file.write_text(json.dumps(results), encoding="utf-8")
    for file in folder.rglob("trial.json"):
        described = json.loads(file.read_text(encoding="utf-8"))
        del described["checksum"]
        described["files"]["results.json"] = hashlib.sha256((file.parent / "results.json").read_bytes()).hexdigest()
        file.write_text(json.dumps({"checksum": checksum(described), **described}), encoding="utf-8")
