"""Quality and cost of a calibration text, by the number and the length of its sequences:

    OMP_NUM_THREADS=1 python scripts/bench_calibration.py --pretrained smollm2-135m --shapes 64x256,64x512,128x512 --seeds 0,1,2
    OMP_NUM_THREADS=1 python scripts/bench_calibration.py --pretrained smollm2-135m --generation 64x256

The first prints, for each shape and seed, the CPU seconds of writing the text and of pruning, the relative error of the last hidden states,
and the perplexity. The text for both is the documentation of Python's statements and types in the standard library
(``pydoc_data.topics``), or ``--text FILE``. Sequences of one seed are written once, at the largest shape, and
cut: shorter sequences have the same first tokens. ``--calibration FILE`` takes the sequences from a file in place of what the model writes.
The second prints the CPU seconds of ``calibration=self`` and of ``model.generate`` with
the same batch. CPU seconds are those of all threads: on idle cores, the time is that divided by the threads.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from harness_ext_calibrations.file import File
from harness_ext_calibrations.self_generated import SelfGenerated
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from harness_ext import Calibration, prune
from harness_ext.engine.perplexity import perplexity, windows
from harness_ext.host.model_folder import model_folder
from harness_ext.plugins import Plugins

Shape = tuple[int, int]


def shape_of(text: str) -> Shape:
    """``64x256``: 64 sequences of 256 tokens."""
    samples, _, length = text.partition("x")
    return int(samples), int(length)


def text_of(path: Path | None) -> str:
    """The text for perplexity."""
    if path is not None:
        return path.read_text(encoding="utf-8")
    from pydoc_data import topics

    return "\n\n".join(topics.topics.values())


class Clock:
    """CPU seconds of this process since the last call."""

    def __init__(self) -> None:
        self._since = time.process_time()

    def __call__(self) -> float:
        now = time.process_time()
        seconds, self._since = now - self._since, now
        return seconds


def quality(options: argparse.Namespace, model: Any, tokenizer: Any) -> None:
    """Prints the first table, and appends its rows to ``--out``."""
    cut, _ = windows(text_of(options.text), tokenizer, options.window, "text", most=options.windows)
    shapes = sorted(map(shape_of, options.shapes.split(",")), key=lambda shape: shape[0] * shape[1])
    most, longest = max(samples for samples, _ in shapes), max(length for _, length in shapes)
    print(f"dense: perplexity {perplexity(model, cut).value:.4f} on {len(cut)} windows of {options.window} tokens", flush=True)
    print(f"{'shape':>9s} {'seed':>4s} {'writing s':>9s} {'pruning s':>9s} {'error':>8s} {'perplexity':>10s}", flush=True)
    for seed in map(int, options.seeds.split(",")):
        clock = Clock()
        ids = source_of(options, most, longest, seed).input_ids(model, tokenizer)
        writing = clock()
        for samples, length in shapes:
            pruned = copy.deepcopy(model)
            clock()
            tokens = ids[:samples, :length].contiguous()
            record = prune(pruned, pruner=options.pruner, sparsity=options.sparsity, calibration=tokens, device=options.device)
            pruning = clock()
            row = {
                "shape": f"{samples}x{length}", "seed": seed, "pruning": pruning, "perplexity": perplexity(pruned, cut).value,
                "error": output_error(model, pruned, cut[:2]), "fingerprint": record["fingerprint"],
                "writing_all": writing, "calibration": str(options.calibration or "self"), "pruner": options.pruner,
                "sparsity": options.sparsity,
            }  # fmt: skip
            share = writing * samples * length / (most * longest)
            print(f"{row['shape']:>9s} {seed:4d} {share:9.0f} {pruning:9.0f} {row['error']:8.4f} {row['perplexity']:10.4f}", flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def source_of(options: argparse.Namespace, samples: int, length: int, seed: int) -> Calibration:
    """The file of ``--calibration``, or the model's own text."""
    if options.calibration is not None:
        return File(samples=samples, length=length, seed=seed, path=str(options.calibration))
    return SelfGenerated(samples=samples, length=length, seed=seed)


def output_error(dense: Any, pruned: Any, cut: torch.Tensor) -> float:
    """The relative squared error of the last hidden states of the pruned model on the text."""
    with torch.inference_mode():
        wanted, found = (model.base_model(input_ids=cut.to(model.device)).last_hidden_state.double() for model in (dense, pruned))
        return float((wanted - found).square().sum() / wanted.square().sum())


def generation(options: argparse.Namespace, model: Any, tokenizer: Any) -> None:
    """Prints the speed of writing beside that of ``model.generate`` with the same batch, sampling from all tokens."""
    samples, length = shape_of(options.generation)
    source = SelfGenerated(samples=samples, length=length)
    start = int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else 0)
    starts = torch.full((samples, 1), start, device=options.device)
    plain = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, min_length=length, max_length=length, pad_token_id=0)

    def stock() -> Any:
        torch.manual_seed(0)
        return model.generate(input_ids=starts, attention_mask=torch.ones_like(starts), generation_config=plain)

    for title, write in (("calibration=self", lambda: source.input_ids(model, tokenizer)), ("model.generate", stock)):
        clock = Clock()
        tokens = write().numel() - samples
        seconds = clock()
        print(f"{title:>16s} {options.generation}: {seconds:7.1f} CPU s, {tokens / seconds:7.0f} tokens a CPU second", flush=True)


def main() -> None:
    """Runs one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="lab-m")
    parser.add_argument("--shapes", default="64x64,64x256")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--pruner", default="wanda")
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--calibration", type=Path, help="text file to calibrate on; by default the model writes the text")
    parser.add_argument("--device", default="cpu", help="where the model is")
    parser.add_argument("--text", type=Path, help="text file for perplexity")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--out", type=Path, help="file to append a JSON line for each row to")
    parser.add_argument("--generation", help="time writing at this shape instead, such as 64x256")
    options = parser.parse_args()
    logging.getLogger("harness_ext").setLevel(logging.WARNING)
    folder = model_folder(Plugins(), options.pretrained)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(options.device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (generation if options.generation else quality)(options, model, tokenizer)


if __name__ == "__main__":
    main()
