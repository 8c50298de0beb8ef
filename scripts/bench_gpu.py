"""The parts of bench_gpu.sh: each is one process, which writes one JSON file, so that each has a peak memory of its own.

    python scripts/bench_gpu.py prune --method sparsegpt --out FILE                    # ours
    python scripts/bench_gpu.py prune --method wanda --reference DIR --out FILE        # the authors', from a clone of their repository
    python scripts/bench_gpu.py experts --method wanda --out FILE
    python scripts/bench_gpu.py evaluate --out FILE
    python scripts/bench_gpu.py table FOLDER

The models have random weights in bfloat16 and the widths of Llama-7B, or of Qwen3-30B-A3B for experts, and fewer decoder blocks: the time
of a block is that of the whole model's. With --toy everything is tiny and on the CPU. The output error is that of the pruned layers on the
dense model's inputs, ``||dW X||^2 / ||W X||^2``.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

sys.path.insert(0, str(Path(__file__).parent))

app = typer.Typer(no_args_is_help=True, add_completion=False)
BARS = {"sparsegpt": 4.0, "wanda": 1.5}  # the authors' seconds over ours, at least
MEMORY_BAR, ERROR_BAR = 1 / 3, 1.0  # ours over the authors', at most
ERROR_SAMPLES = 4
Out = Annotated[Path, typer.Option(help="The JSON file to write.")]
Toy = Annotated[bool, typer.Option("--toy", help="Tiny, and on the CPU.")]


class Size(NamedTuple):
    """Of a benchmark."""

    device: str
    dtype: torch.dtype
    samples: int
    length: int
    llama: dict[str, int]
    experts: dict[str, int]
    items: int


FULL = Size(
    "cuda", torch.bfloat16, 128, 2048,
    {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32},
    {
        "vocab_size": 32000, "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 2,
    }, 64,
)  # fmt: skip
TOY = Size(
    "cpu", torch.float32, 4, 32,
    {"vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4},
    {
        "vocab_size": 2048, "hidden_size": 64, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 1,
    }, 2,
)  # fmt: skip


def build(family: str, size: Size, shape: dict[str, int]) -> Any:
    """A random causal language model on the device; the same one every time.

    Args:
        family: such as ``Llama``.
    """
    import transformers

    config = getattr(transformers, f"{family}Config")(**shape, max_position_embeddings=4096)
    torch.manual_seed(0)
    with torch.device(size.device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=size.dtype).eval()


def tokens(size: Size, shape: dict[str, int]) -> torch.Tensor:
    return torch.randint(0, shape["vocab_size"], (size.samples, size.length), generator=torch.Generator().manual_seed(1))


def start_counting(size: Size) -> None:
    """Peak memory is counted from here on."""
    if size.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(size: Size) -> int:
    """Bytes: on the device since start_counting, or of the process on a CPU."""
    return torch.cuda.max_memory_allocated() if size.device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(size: Size) -> str:
    return torch.cuda.get_device_name() if size.device == "cuda" else "CPU"


@app.command()
def prune(
    out: Out,
    method: Annotated[str, typer.Option(help="sparsegpt or wanda.")] = "sparsegpt",
    reference: Annotated[Path | None, typer.Option(help="A clone of the authors' repository: time their code instead of ours.")] = None,
    blocks: Annotated[int, typer.Option(help="Decoder blocks, of which Llama-7B has 32.")] = 8,
    toy: Toy = False,
) -> None:
    """Prunes a model to 0.5. Ours and the authors' SparseGPT bring blocks to the device one by one, their Wanda has the model there."""
    from bench_speed import linear_weights, output_errors
    from public_reference import finishers, load_sparsegpt, load_wanda, prune_as_published

    import harness_ext

    size = TOY if toy else FULL
    shape = size.llama | {"num_hidden_layers": 2 if toy else blocks}
    ids = tokens(size, shape)
    device = torch.device(size.device)
    wrapper = {"sparsegpt": load_sparsegpt, "wanda": load_wanda}[method](reference) if reference else None

    def run(model: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        if wrapper is None:
            record = harness_ext.prune(model, pruner=method, sparsity=0.5, calibration=input_ids, device=device)
            return {"total": record["seconds_pruning"], "digest": record["seconds_digest"], **record["seconds_parts"]}
        finish = finishers(harness_ext.Sparsity(0.5))[method]
        return prune_as_published(model, input_ids, wrapper, finish, device if method == "sparsegpt" else None)

    def placed(model: Any) -> Any:
        return model if wrapper and method == "wanda" else model.to("cpu")

    run(placed(build("Llama", size, shape | {"num_hidden_layers": 1})), ids[:2])  # warms up
    model = placed(build("Llama", size, shape))
    start_counting(size)
    seconds = run(model, ids)
    found = {"method": method, "who": "authors" if reference else "ours", "seconds": seconds, "peak": peak(size), "machine": machine(size)}
    pruned = {name: weight.to(device) for name, weight in linear_weights(model).items()}
    del model
    dense = build("Llama", size, shape)
    found["error"] = output_errors(dense, [pruned], ids[:ERROR_SAMPLES].to(device))[0]
    found |= {"blocks": shape["num_hidden_layers"], "tokens": list(ids.shape), "model_bytes": sum(p.nbytes for p in dense.parameters())}
    out.write_text(json.dumps(found))


@app.command()
def experts(out: Out, method: Annotated[str, typer.Option(help="sparsegpt or wanda.")] = "wanda", toy: Toy = False) -> None:
    """Prunes a mixture of experts to 0.5."""
    import harness_ext

    size = TOY if toy else FULL
    ids = tokens(size, size.experts)
    model = build("Qwen3Moe", size, size.experts).to("cpu")
    start_counting(size)
    record = harness_ext.prune(model, pruner=method, sparsity=0.5, calibration=ids, device=size.device)
    found = {"method": method, "seconds": record["seconds_pruning"], "parts": record["seconds_parts"], "peak": peak(size)}
    found |= {"blocks": size.experts["num_hidden_layers"], "experts": size.experts["num_experts"], "machine": machine(size)}
    found |= {"tokens": list(ids.shape), "model_bytes": sum(p.nbytes for p in model.parameters())}
    out.write_text(json.dumps(found))


@app.command()
def evaluate(
    out: Out, blocks: Annotated[int, typer.Option(help="Decoder blocks, of which Llama-7B has 32.")] = 8, toy: Toy = False
) -> None:
    """Times requests that share prompts beside ``hf``, one line for each shape of items."""
    from bench_shared_prompts import SHAPES, measure
    from lab_text import folder
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from harness_ext import PrunedHFLM

    size = TOY if toy else FULL
    model = build("Llama", size, size.llama | {"num_hidden_layers": 2 if toy else blocks})
    tokenizer = AutoTokenizer.from_pretrained(folder())
    arguments = {"pretrained": model, "tokenizer": tokenizer, "batch_size": 16, "device": size.device}
    ours, stock = PrunedHFLM(**arguments), HFLM(**arguments)
    words = [word for token in range(300, len(tokenizer)) if (word := tokenizer.decode([token]).strip()).isalpha()]
    began = time.perf_counter()
    lines = {title: measure(ours, stock, shape, size.items, words) for title, shape in SHAPES.items()}
    out.write_text(json.dumps({"lines": lines, "seconds": time.perf_counter() - began, "machine": machine(size)}))


@app.command()
def table(folder: Annotated[Path, typer.Argument(help="Where the JSON files of the parts are.")]) -> None:
    """Writes results.md beside the files; a part that is not there is named."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    lines = ["| part | seconds | peak MB | output error |", "|---|---|---|---|"]
    for name, part in found.items():
        if isinstance(part["seconds"], dict):
            lines.append(f"| {name} | {part['seconds']['total']:.2f} | {part['peak'] / 1e6:.0f} | {part['error']:.6f} |")
        elif "method" in part:
            lines.append(f"| {name} | {part['seconds']:.2f} | {part['peak'] / 1e6:.0f} | |")
    lines += ["", *(f"- {verdict}" for method in BARS for verdict in verdicts(method, found))]
    for name, part in found.items():
        if "lines" in part:
            lines += ["", f"    {name:26s} hf s   pruned-hf s   ratio   difference   flips"]
            lines += [f"    {title:26s} {line}" for title, line in part["lines"].items()]
    for name, part in found.items():
        rest = {key: value for key, value in part.items() if key not in ("lines", "error", "peak", "method", "who")}
        lines += ["", f"- {name}: {json.dumps(rest)}"]
    text = "\n".join(lines) + "\n"
    (folder / "results.md").write_text(text)
    print(text)


def verdicts(method: str, found: dict[str, Any]) -> list[str]:
    """Each ratio of a method and whether it meets its bar, or what is missing."""
    names = f"{method}-ours", f"{method}-authors"
    if missing := [name for name in names if name not in found]:
        return [f"{method}: no result of {', '.join(missing)}"]
    ours, theirs = (found[name] for name in names)
    ratios = [
        ("seconds, authors' / ours", theirs["seconds"]["total"] / ours["seconds"]["total"], BARS[method], True),
        ("peak memory, ours / authors'", ours["peak"] / theirs["peak"], MEMORY_BAR, False),
        ("output error, ours / authors'", ours["error"] / theirs["error"], ERROR_BAR, False),
    ]
    return [
        f"{method}: {what}: {ratio:.3f} ({'at least' if least else 'at most'} {bar:.2f}: {'yes' if meets(ratio, bar, least) else 'NO'})"
        for what, ratio, bar, least in ratios
    ]


def meets(ratio: float, bar: float, least: bool) -> bool:
    """To two decimals."""
    return round(ratio, 2) >= round(bar, 2) if least else round(ratio, 2) <= round(bar, 2)


if __name__ == "__main__":
    app()
