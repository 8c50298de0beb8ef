"""Measures the peak memory of pruning, in a process of its own, against what has to be in memory.

    python scripts/bench_memory.py in-memory                    # OPT-125M's shape, all of it in memory
    python scripts/bench_memory.py streamed --folder DIR        # a checkpoint that is written there and pruned with --stream
    python scripts/bench_memory.py streamed --folder DIR --experts 64 --layers 12   # the same with 64 experts in each block

What has to be in memory is the model (or, streamed, what is outside its blocks and one block), the statistics of one block, and the
hidden states of the calibration tokens; the bar is that and 20 %. The memory of a process that has only imported what it needs is
measured as well, and told apart. All figures are in MB (10^6 bytes).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).parent))

app = typer.Typer(no_args_is_help=True, add_completion=False)
SLACK = 1.2
IMPORTS = "import torch, harness_ext.engine.api, harness_ext.commands.cli; from transformers import OPTForCausalLM, LlamaForCausalLM"


def statistics_bytes(pruner: str, inputs: list[int]) -> int:
    """Of one block in float32: a matrix for each distinct input for SparseGPT, a vector for Wanda.

    Args:
        inputs: the widths of the distinct inputs of a block's linear layers.
    """
    return 4 * sum(width**2 if pruner == "sparsegpt" else width for width in inputs)


# A new process starts with the peak of the one that it came from, which here has all of torch: a small one in between starts the command.
LAUNCHER = """
import json, os, subprocess, sys, time
process, anonymous = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL), 0
done = 0
while not done:
    time.sleep(0.01)
    try:
        for line in open(f"/proc/{process.pid}/status"):
            if line.startswith("RssAnon"):
                anonymous = max(anonymous, int(line.split()[1]) * 1024)
    except OSError:
        pass
    done, status, usage = os.wait4(process.pid, os.WNOHANG)
process.returncode = os.waitstatus_to_exitcode(status)
json.dump({"peak": usage.ru_maxrss * int(sys.argv[1]), "anonymous": anonymous, "code": process.returncode}, sys.stdout)
"""
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def run(command: list[str]) -> dict[str, float]:
    """Runs a command and gives its seconds, its peak memory and (on Linux) the peak of that which is not of mapped files, in bytes.

    Raises:
        RuntimeError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, str(UNIT), *command], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    if code := found.pop("code"):
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return found | {"seconds": time.perf_counter() - began}


def table(terms: dict[str, int], baseline: float, found: dict[str, float]) -> str:
    """The terms of the bar, the bar, and what was measured, with and without the imports."""
    bar = SLACK * sum(terms.values())
    over = found["peak"] - baseline
    rows = [
        *terms.items(),
        ("the bar: their sum and 20 %", bar),
        ("imports alone", baseline),
        ("peak", found["peak"]),
        ("peak, mapped files left out", found["anonymous"]),
        ("peak less imports", over),
    ]
    lines = ["| | MB |", "|---|---|", *(f"| {name} | {value / 1e6:.0f} |" for name, value in rows)]
    verdicts = [
        f"peak {said} / bar: {value / bar:.3f} ({'met' if value <= bar else 'NOT MET'})"
        for said, value in (("with imports", found["peak"]), ("less imports", over))
    ]
    return "\n".join([*lines, "", *(f"- {text}" for text in verdicts), f"- {found['seconds']:.0f} s"])


@app.command(hidden=True)
def child(pruner: str, layers: int, samples: int, length: int, dtype: str) -> None:
    """Prunes a random model in this process, and says on standard error what its peaks were before and after."""
    import transformers  # noqa: F401
    from bench_speed import build

    import harness_ext

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    with torch.device("meta"):
        model = build(layers, getattr(torch, dtype))
    model.to_empty(device="cpu")
    model.tie_weights()
    torch.manual_seed(0)
    with torch.no_grad():  # in place: the initialisation of transformers would leave a peak of its own
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.02) if parameter.ndim == 2 else parameter.fill_(float(name.endswith("norm.weight")))
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    ids = torch.randint(0, model.config.vocab_size, (samples, length), generator=torch.Generator().manual_seed(1))
    record = harness_ext.prune(model, pruner=pruner, sparsity=0.5, calibration=ids)
    pruned = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
    peaks = {"peak MB after imports": imported, "with the model": built, "after pruning": pruned}
    print(json.dumps({key: round(value / 1e6) for key, value in peaks.items()}), record.get("seconds_parts"), file=sys.stderr)


@app.command()
def in_memory(
    pruner: str = "sparsegpt",
    layers: int = 12,
    samples: int = 64,
    length: int = 512,
    dtype: str = "float32",
) -> None:
    """A random model of OPT's shape, 768 wide, pruned in memory."""
    from bench_speed import build

    with torch.device("meta"):
        model = build(layers, getattr(torch, dtype))
    size = getattr(torch, dtype).itemsize
    width = model.config.hidden_size
    terms = {
        "model": size * sum(parameter.numel() for parameter in model.parameters()),
        "statistics of a block": statistics_bytes(pruner, [width, width, width, 4 * width]),
        "hidden states of the calibration tokens": size * samples * length * width,
    }
    baseline = run([sys.executable, "-c", IMPORTS])["peak"]
    found = run([sys.executable, __file__, "child", pruner, str(layers), str(samples), str(length), dtype])
    print(f"{pruner} 0.5, {dtype}, {layers} layers of {width}, {samples} x {length} tokens\n\n{table(terms, baseline, found)}")


def write_checkpoint(folder: Path, layers: int, width: int, dtype: torch.dtype, experts: int = 0) -> Any:
    """A random Llama with the embedded model's tokenizer, written one block at a time; returns its configuration.

    Args:
        experts: of each block, each a fourth as wide as the FFN of a Llama: a Qwen3-MoE, whose experts are stored one by one.
    """
    import transformers
    from lab_text import folder as lab
    from safetensors.torch import save_file
    from transformers.core_model_loading import revert_weight_conversion

    tokenizer = transformers.AutoTokenizer.from_pretrained(lab())
    family, own = ("Qwen3Moe", {"num_experts": experts, "moe_intermediate_size": width}) if experts else ("Llama", {})
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, max_position_embeddings=512, bos_token_id=0, eos_token_id=0,
        dtype=dtype, head_dim=64, **own,
    )  # fmt: skip
    config.architectures = [f"{family}ForCausalLM"]
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    shapes = {name: tensor.shape for name, tensor in revert_weight_conversion(model, model.state_dict()).items()}
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    shards: dict[str, list[str]] = {}
    for name in shapes:
        shards.setdefault(name.split(".")[2] if ".layers." in name else "rest", []).append(name)
    places: dict[str, str] = {}
    total = 0
    for number, names in enumerate(shards.values(), 1):
        tensors = {
            name: torch.ones(shapes[name], dtype=dtype)
            if len(shapes[name]) == 1
            else (0.02 * torch.randn(shapes[name], generator=generator)).to(dtype)
            for name in names
        }
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return config


@app.command()
def streamed(
    folder: Annotated[Path, typer.Option(help="Where the checkpoint, the calibration text and the result go.")],
    pruner: str = "wanda",
    layers: int = 48,
    width: int = 1024,
    samples: int = 8,
    length: int = 128,
    dtype: str = "bfloat16",
    experts: Annotated[int, typer.Option(help="Experts in each block; 0 for a Llama.")] = 0,
    option: Annotated[list[str] | None, typer.Option(help="Further words for harness-ext prune; once for each word.")] = None,
) -> None:
    """A random Llama that is several times larger than what has to be in memory, pruned from file to file."""
    from lab_text import main as write_text

    dense, text, out = folder / "dense", folder / "calibration.txt", folder / "pruned"
    if out.exists():
        raise typer.BadParameter(f"{out} exists")
    config = write_checkpoint(dense, layers, width, getattr(torch, dtype), experts)
    write_text(text, samples=max(4, samples * length // 256))
    size = getattr(torch, dtype).itemsize
    ffn = experts * config.moe_intermediate_size if experts else config.intermediate_size
    block = size * (4 * width**2 + 3 * width * ffn + experts * width)
    inputs = [width, *experts * [width, config.moe_intermediate_size]] if experts else [width, width, width, config.intermediate_size]
    terms = {
        "outside the blocks": size * (2 * config.vocab_size + 1) * width,
        "one block": block,
        "statistics of a block": statistics_bytes(pruner, inputs),
        "hidden states of the calibration tokens": size * samples * length * width,
    }
    baseline = run([sys.executable, "-c", IMPORTS])["peak"]
    given = f"prune --stream --pruner {pruner} --sparsity 0.5 -o calibration.samples={samples} -o calibration.length={length}".split()
    places = ["--pretrained", str(dense), "--out", str(out), "--calibration", str(text)]
    found = run([str(Path(sys.executable).with_name("harness-ext")), *given, *places, *(option or [])])
    whole = sum(file.stat().st_size for file in dense.glob("*.safetensors"))
    kind = f" with {experts} experts" if experts else ""
    print(f"{pruner} 0.5, {dtype}, {layers} layers of {width}{kind}, streamed\n\n{table(terms, baseline, found)}")
    shares = f"{found['peak'] / whole:.3f}, less imports: {(found['peak'] - baseline) / whole:.3f}"
    print(f"- checkpoint: {whole / 1e6:.0f} MB; peak / checkpoint: {shares}")


if __name__ == "__main__":
    app()
