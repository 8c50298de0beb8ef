"""Times llm-compressor on a saved model and tokens; runs in an environment of its own, which has ``llmcompressor`` and not this project.

    python3.11 -m venv VENV && VENV/bin/pip install torch==2.13.0 llmcompressor==0.14.0.1 "transformers>=5.15,<5.17"
    VENV/bin/python scripts/bench_llmcompressor.py --folder DIR --method sparsegpt   # DIR is written by bench_speed.py --save DIR

Prints JSON: seconds of ``oneshot``, the share of zeros in the linear layers of the decoder, and versions.
"""

from __future__ import annotations

import json
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer


def recipe(method: str, sparsity: str, **groups: Any) -> Any:
    """The modifier of a method, for the linear layers of the decoder."""
    if method == "gptq":
        return gptq(**groups)
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier  # type: ignore[import-not-found]

    chosen = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}[method]
    n, colon, m = sparsity.partition(":")
    how = {"sparsity": int(n) / int(m), "mask_structure": sparsity} if colon else {"sparsity": float(sparsity)}
    return chosen(targets=["Linear"], ignore=["lm_head"], **how)


def gptq(bits: int, group_size: int, symmetric: bool, act_order: bool) -> Any:
    """Weights alone, in groups of consecutive inputs; columns in their own order, or by the diagonal of the Hessian."""
    from llmcompressor.modifiers.quantization import GPTQModifier  # type: ignore[import-not-found]

    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group_size}
    order = "static" if act_order else None
    return GPTQModifier(actorder=order, ignore=["lm_head"], config_groups={"group_0": {"targets": ["Linear"], "weights": weights}})


def any_tokenizer(vocabulary: int) -> Any:
    """``oneshot`` wants a tokenizer, and does not use it on tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(index): index for index in range(min(vocabulary, 8))}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")), unk_token="0", pad_token="1")


def main(
    folder: Annotated[Path, typer.Option(help="Holds the model and ids.pt.")],
    method: Annotated[str, typer.Option(help="sparsegpt, wanda or gptq.")] = "sparsegpt",
    sparsity: Annotated[str, typer.Option(help="A ratio or a pattern, for sparsegpt and wanda.")] = "0.5",
    bits: Annotated[int, typer.Option(help="Bits of a weight, for gptq.")] = 4,
    group_size: Annotated[int, typer.Option(help="Inputs of a group, for gptq.")] = 128,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Zero points in the middle of the grid, for gptq.")] = False,
    act_order: Annotated[bool, typer.Option("--act-order", help="Columns by the diagonal of the Hessian, for gptq.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the pruned weights there (torch.save).")] = None,
) -> None:
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM

    ids = torch.load(folder / "ids.pt")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    began = time.perf_counter()
    modifier = recipe(method, sparsity, bits=bits, group_size=group_size, symmetric=symmetric, act_order=act_order)
    oneshot(
        model=model, dataset=rows, recipe=modifier, tokenizer=any_tokenizer(model.config.vocab_size),
        num_calibration_samples=len(ids), max_seq_length=ids.shape[1], shuffle_calibration_samples=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    weights = {name: m.weight.data for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in name}
    if out:
        torch.save(weights, out)
    zeros, size = sum(int((w == 0).sum()) for w in weights.values()), sum(w.numel() for w in weights.values())
    versions = {name: metadata.version(name) for name in ("llmcompressor", "torch", "transformers")}
    print(json.dumps({"seconds": seconds, "sparsity": zeros / size, "threads": torch.get_num_threads(), **versions}))


if __name__ == "__main__":
    typer.run(main)
