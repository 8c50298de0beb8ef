"""Prunes a small random model of every causal language model of transformers, and compares with an independent computation.

    python scripts/check_architectures.py --write docs/architectures.md
    python scripts/check_architectures.py mixtral qwen3_moe

Each is pruned by magnitude, Wanda and SparseGPT at 0.5 and 2:4. The check counts the zeros of each layer. It looks for matrices of
blocks that stayed dense and are not listed in the record, and for other changes. It compares Wanda's masks with those of
``reference_walk.py``, which runs the whole model for each block. Then it prunes a checkpoint whole and with --stream, and loads both: their
weights and their logits have to be those of the model in memory.

The models are 64 wide, so that small parts weigh more than in a model that is used: ``dense_limit`` is 0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parent))

import reference_walk
import tiny_architectures

import harness_ext
from harness_ext.errors import HarnessExtError, one_line

PRUNERS, SPARSITIES = ("magnitude", "wanda", "sparsegpt"), (0.5, "2:4")
LIMIT = 0.1
OPTIONS: dict[str, Any] = {
    "dense_limit": LIMIT,
    "precision": "float64",
}  # in float32 rounding decides between scores that are equal in 7 digits

PAGE = """# Architectures

Made by `scripts/check_architectures.py`. The script prunes a small random model of every causal language model of
transformers {transformers}, and of variants of some, by magnitude, Wanda and SparseGPT at 0.5 and 2:4. *Right* means:

- Each layer has exactly the zeros that it should have.
- Every parameter of a decoder block that stayed dense is listed in the record, and nothing else changed.
- Wanda's masks have 0 differences to an independent computation, which runs the whole model for each block.
- The model in memory, the checkpoint of `harness-ext prune` and that of `harness-ext prune --stream` have the same weights and logits.

{summary}

*Dense* is the share of the parameters of the blocks that stays dense. The models are 64 wide; in models that are used, the share is a
fraction of that. The check passes `dense_limit=0.1` for that reason, and `precision=float64`, since in float32 rounding decides between
two scores that are equal in seven digits.

| model type | result | layers | experts | dense |
|---|---|---:|---:|---:|
{rows}

Not built, since their configurations allow no such small sizes or need other packages: {unbuilt}.
"""


class Wrong(Exception):
    """The result of pruning is not what it should be."""


def check(
    name: str, *, pruners: Sequence[str] = PRUNERS, sparsities: Sequence[Any] = SPARSITIES, checkpoints: bool = True
) -> dict[str, Any]:
    """One architecture: ``result`` is ``right``, or ``refused``, ``wrong`` or ``not built`` with a ``reason``."""
    ids = tiny_architectures.token_ids()
    try:
        base = tiny_architectures.build(name)
    except Exception as error:  # whatever a configuration of other sizes raises
        return {"name": name, "result": "not built", "reason": one_line(error, whole=True)}
    row: dict[str, Any] = {"name": name, "class": type(base).__name__}
    refused: set[str] = set()
    try:
        for pruner in pruners:
            for sparsity in sparsities:
                model = copy.deepcopy(base)
                try:
                    record = harness_ext.prune(model, pruner=pruner, sparsity=sparsity, calibration=ids, **OPTIONS)
                except HarnessExtError as error:
                    if "\n" in str(error) or not _same(model, base):
                        raise Wrong(f"{pruner} {sparsity}: refused in more than a line, or after weights changed: {error}") from error
                    refused.add(str(error))
                    continue
                _check_weights(base, model, record, sparsity, f"{pruner} {sparsity}")
                row |= {
                    "layers": len(record["layers"]),
                    "experts": len({re.sub(r"\.\w+_proj$", "", layer) for layer, entry in record["layers"].items() if "tokens" in entry}),
                    "dense": sum(part["share"] for part in record["dense"].values()),
                }
                if pruner == "wanda":
                    _check_masks(base, model, record, sparsity, ids)
        if checkpoints and not refused:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    _check_checkpoints(base, ids, Path(folder))
                except HarnessExtError as error:
                    refused.add(str(error).replace(folder, "..."))
    except Wrong as error:
        return row | {"result": "wrong", "reason": one_line(error, whole=True)}
    except Exception as error:  # a traceback is what this looks for
        return row | {"result": "wrong", "reason": f"traceback: {type(error).__name__}: {one_line(error, whole=True)}"}
    return row | ({"result": "refused", "reason": min(refused)} if refused else {"result": "right"})


def _check_weights(base: PreTrainedModel, model: PreTrainedModel, record: dict[str, Any], sparsity: Any, which: str) -> None:
    """Counts zeros, looks for what changed and for what stayed dense."""
    pruned: dict[int, str] = {}
    for name, entry in record["layers"].items():
        weight = reference_walk.weight_of(model, name)
        zeros = int((weight == 0).sum())
        if entry["zeros"] != zeros or entry["weights"] != weight.numel() or abs(zeros - weight.numel() / 2) > len(weight):
            raise Wrong(f"{which}: {name} has {zeros} zeros of {weight.numel()}, the record says {entry['zeros']}")
        if sparsity == "2:4" and not bool(((weight.reshape(-1, 4) == 0).sum(1) >= 2).all()):
            raise Wrong(f"{which}: {name} has no two zeros in every four inputs")
        pruned[weight.untyped_storage().data_ptr()] = name
    listed = [re.compile(re.escape(pattern).replace(r"\*", r"\d+") + "$") for pattern in record["dense"]]
    before = dict(base.named_parameters())
    decoder = next(iter(record["layers"])).split(".", 1)[0]
    blocks = re.match(r"(.*?)\.\d+\.", next(iter(record["layers"])))[1]  # type: ignore[index]
    for name, parameter in model.named_parameters():
        if parameter.data.untyped_storage().data_ptr() in pruned:
            continue
        if not torch.equal(parameter, before[name]):
            raise Wrong(f"{which}: {name} changed, which is no layer of the record ({decoder})")
        if name.startswith(f"{blocks}.") and not any(pattern.match(name) for pattern in listed):
            raise Wrong(f"{which}: {name} stayed dense, and the record does not list it")


def _check_masks(base: PreTrainedModel, model: PreTrainedModel, record: dict[str, Any], sparsity: Any, ids: torch.Tensor) -> None:
    expected = copy.deepcopy(base)
    prune = reference_walk.wanda(pattern=(2, 4)) if sparsity == "2:4" else reference_walk.wanda()
    reference_walk.walk(expected, list(record["layers"]), ids, prune)
    differ = {
        name: int(((reference_walk.weight_of(model, name) == 0) != (reference_walk.weight_of(expected, name) == 0)).sum())
        for name in record["layers"]
    }
    if total := sum(differ.values()):
        worst = max(differ, key=lambda name: differ[name])
        weights = sum(entry["weights"] for entry in record["layers"].values())
        raise Wrong(f"wanda {sparsity}: {total} of {weights} places of the masks differ, most in {worst} ({differ[worst]})")


def _check_checkpoints(base: PreTrainedModel, ids: torch.Tensor, folder: Path) -> None:
    """Prunes a checkpoint whole and with --stream, loads both, and compares with the model in memory."""
    from harness_ext.commands.prune import PruneJob, run

    base.save_pretrained(folder / "dense")
    arguments = {"pruner": "wanda", "sparsity": 0.5, "calibration": ids[:8], "dense_limit": LIMIT}
    for out, stream in (("whole", False), ("stream", True)):
        with contextlib.redirect_stderr(io.StringIO()):
            run(PruneJob(pretrained=str(folder / "dense"), out=folder / out, arguments=arguments, device="cpu", stream=stream))
    loaded = {name: _load(folder / name) for name in ("dense", "whole", "stream")}
    in_memory = loaded.pop("dense")
    harness_ext.prune(in_memory, pruner="wanda", sparsity=0.5, calibration=ids[:8], dense_limit=LIMIT)
    with torch.no_grad():
        logits = {name: model(input_ids=ids[:2], use_cache=False).logits for name, model in (loaded | {"memory": in_memory}).items()}
    for name, model in loaded.items():
        if not _same(model, in_memory):
            raise Wrong(f"the checkpoint that is written {name} has other weights than the model in memory")
        if not torch.equal(logits[name], logits["memory"]) or not logits[name].isfinite().all():
            raise Wrong(f"the checkpoint that is written {name} has other logits than the model in memory")


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _same(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    state = other.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    import transformers

    count = {kind: sum(row["result"] == kind for row in rows) for kind in ("right", "refused", "wrong")}
    built = [row for row in rows if row["result"] != "not built"]
    summary = f"Of {len(built)} models {count['right']} are right, {count['refused']} are refused, and {count['wrong']} are wrong."
    lines = []
    for row in built:
        result = f"{row['result']}: {row['reason']}" if "reason" in row else row["result"]
        dense = f"{row['dense']:.1%}" if "dense" in row else ""
        lines.append(f"| `{row['name']}` | {result} | {row.get('layers', '')} | {row.get('experts') or ''} | {dense} |")
    unbuilt = ", ".join(f"`{row['name']}`" for row in rows if row["result"] == "not built") or "none"
    return PAGE.format(
        transformers=transformers.__version__,
        summary=summary,
        rows="\n".join(re.sub(r"\|(?=  )", "|", line).replace("  ", " ") for line in lines),
        unbuilt=unbuilt,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all, if none is named")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of the documentation")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep the results here, one line of JSON each, and go on from them")
    parser.add_argument("--no-checkpoints", action="store_true", help="leave the checkpoints out, which take half of the time")
    given = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    known = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows and given.rows.is_file() else []
    rows = {row["name"]: row for row in known}
    for name in given.names or tiny_architectures.ARCHITECTURES:
        if name not in rows:
            began = time.perf_counter()
            rows[name] = check(name, checkpoints=not given.no_checkpoints)
            print(f"{name}: {rows[name]['result']} {rows[name].get('reason', '')} ({time.perf_counter() - began:.0f} s)", flush=True)
            if given.rows:
                with given.rows.open("a") as file:
                    print(json.dumps(rows[name]), file=file)
    if given.write:
        given.write.write_text(page(list(rows.values())), encoding="utf-8")
    return int(any(row["result"] == "wrong" for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
