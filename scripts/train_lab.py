"""Trains an embedded model. See plugins/harness_ext_lab/lab-m/README.md for the runs that made those we ship.

    OMP_NUM_THREADS=1 python scripts/train_lab.py --size lab-m --out build/lab-m --workers 2

A checkpoint is written every ``--save-every`` steps; the same command goes on from it, with the losses that an uninterrupted run
would have had. Losses and accuracies go to ``log.jsonl`` in the output folder, and in the end as curves to ``curves.png``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import typer
from lab_curves import draw as draw_curves
from lab_mixture import Batch, Mixture
from lab_probes import Probes
from lab_tokenizer import build as build_tokenizer
from torch.nn import functional as F
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness_ext.tasks.people import population

log = logging.getLogger("train_lab")

# The number of inputs of the functions grows when the accuracy on the last eight labels of a sequence (a running mean over the
# families) passes these: small models do not leave chance when they begin with four inputs.
NEXT_DIMENSION_AT = (0.93, 0.83, 0.74)
OTHER_TOKENS_WEIGHT = 0.2  # of the tokens that are not answers, so that the model can also write text of its own kind


@dataclass(frozen=True)
class Settings:
    width: int = 192
    depth: int = 4
    heads: int = 6
    ffn: int = 512
    steps: int = 1800
    micro_batches: int = 6
    micro_tokens: int = 3500
    optimizer: Literal["muon", "adamw"] = "muon"
    lr: float = 2e-3
    muon_scale: float = 2.5
    warmup: int = 100
    decay: float = 0.4
    copy_steps: int = 400
    probe_weight: float = 0.5
    seed: int = 0


# Width and depth shrink together; a head has 32 dimensions and the FFN 8/3 of the width in all of them.
SIZES = {
    "lab-xs": {"width": 96, "depth": 2, "heads": 3, "ffn": 256},
    "lab-s": {"width": 128, "depth": 3, "heads": 4, "ffn": 344},
    "lab-m": {"width": 192, "depth": 4, "heads": 6, "ffn": 512},
}


def schedule(settings: Settings, step: int) -> float:
    """Warm-up, constant, then linear to zero over the last ``decay`` of the steps."""
    left = (settings.steps - step) / max(1, round(settings.decay * settings.steps))
    return settings.lr * min(1.0, (step + 1) / settings.warmup, left)


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Plain causal attention with the softmax in the dtype of the weights: on a CPU, twice as fast in bf16 as the stock kernels."""
    batch, heads, length, _ = query.shape
    below = torch.full((length, length), torch.finfo(query.dtype).min / 2, dtype=query.dtype).triu(1)
    scores = torch.baddbmm(below.expand(batch * heads, -1, -1), query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    mixed = scores.softmax(-1) @ value.flatten(0, 1)
    return mixed.view(batch, heads, length, -1).transpose(1, 2).contiguous(), None


def new_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=settings.width, intermediate_size=settings.ffn, num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads, num_key_value_heads=settings.heads, max_position_embeddings=384, rope_theta=10_000.0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        attn_implementation="causal_low_precision", dtype="float32",
    )  # fmt: skip
    return LlamaForCausalLM(config)


AttentionInterface.register("causal_low_precision", causal_attention)


class Trainer:
    """One rank of a data-parallel run: bf16 weights, a float32 master copy, gradients averaged over all micro-batches."""

    def __init__(self, settings: Settings, out: Path, rank: int, workers: int):
        self.settings, self.out, self.rank, self.workers = settings, out, rank, workers
        people = population(0)
        self.tokenizer = build_tokenizer(people)
        self.mixture = Mixture(self.tokenizer, people, tokens=settings.micro_tokens, seed=settings.seed)
        master = new_model(settings, self.tokenizer)
        self.model = new_model(settings, self.tokenizer).to(torch.bfloat16)
        self.model.load_state_dict(master.state_dict())
        self.probes = Probes(self.tokenizer, people, settings.width)
        self.weights = [*self.model.parameters(), *self.probes.parameters()]
        self.masters = [torch.nn.Parameter(weight.detach().clone()) for weight in (*master.parameters(), *self.probes.parameters())]
        matrices = [m for (n, _), m in zip(master.named_parameters(), self.masters, strict=False) if ".layers." in n and m.ndim == 2]
        others = [m for m in self.masters if not any(m is matrix for matrix in matrices)]
        if settings.optimizer == "muon":
            self.optimizers: list[torch.optim.Optimizer] = [
                torch.optim.Muon(matrices, lr=settings.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
                torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0),
            ]
        else:
            self.optimizers = [torch.optim.AdamW(self.masters, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.01)]
        # A digit is one token with a space before it and another with a comma and a space: they share one embedding while we train.
        self.digits, self.twins = (
            torch.tensor([self.tokenizer(f"{start}{digit}")["input_ids"][0] for digit in range(10)]) for start in (" ", ", ")
        )
        self.tie_digits(self.masters[0].data, sum_of=False)
        self.weights[0].data.copy_(self.masters[0].data)
        self.step, self.dimensions, self.progress, self.seconds, self.tokens = 0, 1, 0.5, 0.0, 0

    def tie_digits(self, embedding: torch.Tensor, *, sum_of: bool) -> None:
        """Makes the rows of both tokens of a digit equal: the sum of both for a gradient, the first for a weight."""
        rows = embedding[self.digits] + embedding[self.twins] if sum_of else embedding[self.digits]
        embedding[self.digits] = rows
        embedding[self.twins] = rows

    def kinds(self) -> list[str]:
        copy = self.step < self.settings.copy_steps or self.step % 8 == 0
        base = ["icl", "facts", "copy" if copy else "icl", "facts", "passages", "lookup"]
        return [base[i % len(base)] for i in range(self.settings.micro_batches)]

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        states = self.model.model(batch.ids, output_hidden_states=True, use_cache=False)
        hidden = states.last_hidden_state[:, :-1]
        targets, answers = batch.ids[:, 1:], batch.answers[:, 1:]
        logits = self.model.lm_head(hidden[answers]).float()
        loss = F.cross_entropy(logits, targets[answers])
        right = (logits.argmax(-1) == targets[answers]).float()
        if batch.kind == "icl":
            right = right.view(len(answers), -1)[:, -8:]
        figures = {f"{batch.kind}_loss": loss.item(), f"{batch.kind}_acc": right.mean().item()}
        if batch.kind != "copy":
            some = max(1, len(answers) // 4)
            rest = ~answers[:some]
            other = F.cross_entropy(self.model.lm_head(hidden[:some][rest]).float(), targets[:some][rest])
            figures["text_loss"] = other.item()
            probe = self.probes.loss(states.hidden_states[self.settings.depth // 2], batch)
            figures["probe_loss"] = probe.item()
            loss = loss + OTHER_TOKENS_WEIGHT * other + self.settings.probe_weight * probe
        return loss, figures

    def train_step(self) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        tokens = 0
        for index, kind in enumerate(self.kinds()):
            if index % self.workers != self.rank:
                continue
            options = {"dimensions": self.dimensions} if kind == "icl" else {}
            batch = self.mixture.batch(kind, self.step, index, **options)
            loss, figures = self.loss(batch)
            (loss / self.settings.micro_batches).backward()
            tokens += batch.ids.numel()
            for name, value in figures.items():
                sums.setdefault(name, []).append(value)
        names = [
            "icl_loss",
            "icl_acc",
            "facts_loss",
            "facts_acc",
            "passages_loss",
            "passages_acc",
            "copy_loss",
            "copy_acc",
            "lookup_loss",
            "lookup_acc",
            "text_loss",
            "probe_loss",
        ]
        gradient = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).float().flatten() for w in self.weights])
        counts = torch.tensor([[sum(sums.get(n, [])), len(sums.get(n, []))] for n in names] + [[tokens, 1]], dtype=torch.float64)
        if self.workers > 1:
            dist.all_reduce(gradient)
            dist.all_reduce(counts)
        gradient *= min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
        for weight, master, piece in zip(self.weights, self.masters, gradient.split([w.numel() for w in self.weights]), strict=True):
            master.grad = piece.view_as(master)
            weight.grad = None
        self.tie_digits(self.masters[0].grad, sum_of=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                scale = self.settings.muon_scale if isinstance(optimizer, torch.optim.Muon) else 1.0
                group["lr"] = scale * schedule(self.settings, self.step)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.masters)
        self.step += 1
        self.tokens += int(counts[-1, 0])
        figures = {n: (total / count).item() for n, (total, count) in zip(names, counts, strict=False) if count > 0}
        self.progress += 0.05 * (figures["icl_acc"] - self.progress)
        if self.dimensions < 4 and self.progress > NEXT_DIMENSION_AT[self.dimensions - 1]:
            self.dimensions, self.progress = self.dimensions + 1, 0.5
        return figures

    def state(self) -> dict:
        counters = {n: getattr(self, n) for n in ("step", "dimensions", "progress", "seconds", "tokens")}
        return {
            "counters": counters,
            "masters": [m.detach() for m in self.masters],
            "optimizers": [o.state_dict() for o in self.optimizers],
        }

    def load_state(self, state: dict) -> None:
        for name, value in state["counters"].items():
            setattr(self, name, value)
        with torch.no_grad():
            for master, weight, saved in zip(self.masters, self.weights, state["masters"], strict=True):
                master.copy_(saved)
                weight.copy_(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def save(self) -> None:
        temporary = self.out / "checkpoint.tmp"
        torch.save(self.state(), temporary)
        os.replace(temporary, self.out / "checkpoint.pt")
        self.model.save_pretrained(self.out / "model")
        self.tokenizer.save_pretrained(self.out / "model")

    def run(self, save_every: int) -> None:
        checkpoint = self.out / "checkpoint.pt"
        if checkpoint.exists():
            self.load_state(torch.load(checkpoint, weights_only=True))
        if self.rank == 0:
            trim_log(self.out / "log.jsonl", self.step)
        parent = os.getppid()
        # The ranks end with the process that started them; a run of one process outlives its shell.
        while self.step < self.settings.steps and (self.workers == 1 or os.getppid() == parent):
            began = time.perf_counter()
            figures = self.train_step()
            self.seconds += time.perf_counter() - began
            if self.rank == 0:
                record = {"step": self.step, "seconds": round(self.seconds, 2), "tokens": self.tokens, "dimensions": self.dimensions}
                record |= {"icl_running": round(self.progress, 4)} | {n: round(v, 4) for n, v in figures.items()}
                with (self.out / "log.jsonl").open("a") as lines:
                    lines.write(json.dumps(record) + "\n")
                if self.step % 20 == 0:
                    log.info(json.dumps(record))
                if self.step % save_every == 0 or self.step == self.settings.steps:
                    self.save()
        if self.rank == 0 and self.step == self.settings.steps:
            draw_curves(self.out / "log.jsonl", self.out / "curves.png")


def trim_log(log: Path, step: int) -> None:
    """Drops what a run that was cut off logged after its last checkpoint, half a line at the end included: those steps come again."""
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []:
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = log.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, log)


def _rank(rank: int, settings: Settings, out: Path, workers: int, save_every: int, port: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1 if workers > 1 else torch.get_num_threads())
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    Trainer(settings, out, rank, workers).run(save_every)


def main(
    out: Annotated[Path, typer.Option(help="Output folder; a checkpoint in it is resumed.")],
    size: Literal["lab-xs", "lab-s", "lab-m"] = "lab-m",
    workers: Annotated[int, typer.Option(help="Data-parallel processes, one thread each.")] = 1,
    steps: int = Settings.steps,
    optimizer: str = Settings.optimizer,
    lr: float = Settings.lr,
    micro_tokens: int = Settings.micro_tokens,
    micro_batches: int = Settings.micro_batches,
    seed: int = Settings.seed,
    save_every: int = 100,
    port: int = 29511,
    smoke: Annotated[bool, typer.Option(help="A tiny model and a few steps, to see that everything runs.")] = False,
) -> None:
    settings = Settings(
        **SIZES[size], steps=steps, optimizer=optimizer, lr=lr, micro_tokens=micro_tokens, micro_batches=micro_batches, seed=seed,
    )  # fmt: skip
    if smoke:
        settings = Settings(width=32, depth=2, heads=2, ffn=64, steps=12, micro_tokens=600, warmup=2, copy_steps=4, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
    if workers == 1:
        _rank(0, settings, out, 1, save_every, port)
    else:
        mp.spawn(_rank, args=(settings, out, workers, save_every, port), nprocs=workers)


if __name__ == "__main__":
    typer.run(main)
