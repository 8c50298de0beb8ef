"""Trains an embedded model. See plugins/harness_ext_lab/lab-m/README.md for the runs that made those we ship.

    OMP_NUM_THREADS=1 python scripts/train_lab.py --size lab-m --out build/lab-m

A checkpoint is written every ``--save-every`` steps; the same command goes on from it, with the losses that an uninterrupted run
would have had. Losses and accuracies go to ``log.jsonl`` in the output folder, and in the end as curves to ``curves.png``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from lab_batches import Feeder, Source
from lab_curves import draw as draw_curves
from lab_loss import loss
from lab_mixture import Crowd, Mixture
from lab_model import StackedModel
from lab_probes import Probes
from lab_runs import claim, trim_log
from lab_settings import EARLY_WEIGHTS, LOSS_WEIGHTS, NEXT_DIMENSION_AT, SIZES, SMOKE, Settings
from lab_stack import Stack
from lab_tokenizer import build as build_tokenizer

from harness_ext.tasks.people import MEMORISED, population

log = logging.getLogger("train_lab")
AHEAD = 32  # steps whose text is drawn ahead; a run that is ready for another input of the functions gets it that much later
OWN = ("seed", "people", "slots", "zipf")  # settings in which runs of a stack may differ


class Trainer:
    """Runs of one size, trained as one stack.

    Raises:
        typer.BadParameter: the runs differ in what a stack shares.
    """

    def __init__(self, runs: Sequence[Settings], outs: Sequence[Path], device: str = "cpu", processes: int = 0):
        self.settings, self.outs = runs[0], outs
        if len({tuple(value for name, value in asdict(run).items() if name not in OWN) for run in runs}) > 1:
            raise typer.BadParameter(f"runs of one stack differ in nothing but {', '.join(OWN)}")
        people = population(0)
        self.tokenizer = build_tokenizer(people)
        probes = Probes(self.tokenizer, people)
        crowds = [Crowd(run.people, run.slots, run.zipf) for run in runs]
        mixtures = [
            Mixture(self.tokenizer, people, tokens=run.micro_tokens, seed=run.seed, crowd=crowd)
            for run, crowd in zip(runs, crowds, strict=True)
        ]
        on = torch.device(device)
        self.feeder = Feeder(Source(mixtures, probes, runs), processes, together=on.type != "cpu")
        self.model = StackedModel(self.settings.width, self.settings.depth, self.settings.heads, on)
        self.stack = Stack(runs, self.tokenizer, probes.sizes, on)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.progress, self.dimensions = [0.5] * len(runs), [1] * len(runs)
        self.planned = [self.dimensions] * AHEAD  # the numbers of inputs in the text of the next steps

    def train_step(self) -> list[dict[str, float]]:
        """Takes one step, and gives the losses and accuracies of each run."""
        kinds = self.settings.kinds(self.step)
        weights = EARLY_WEIGHTS if self.settings.early(self.step) else LOSS_WEIGHTS
        parts: dict[str, list[torch.Tensor]] = {}
        for batch in self.feeder.take():
            of_runs, figures = loss(self.model, self.stack.weights, batch, self.settings.probe_weight)
            share = weights[batch.kind] * (1 if self.feeder.together else 1 / kinds.count(batch.kind))
            (of_runs.sum() * share).backward()
            self.tokens += batch.ids[0].size
            for name, value in figures.items():
                parts.setdefault(name, []).append(value)
        self.stack.update(self.step)
        values = torch.stack([torch.stack(of_batches).mean(0) for of_batches in parts.values()]).tolist()
        self.step += 1
        told = [dict(zip(parts, of_run, strict=True)) for of_run in zip(*values, strict=True)]
        self.plan([figures["icl_acc"] for figures in told])
        return told

    def plan(self, accuracies: Sequence[float]) -> None:
        """Gives the functions of a run another input where it is ready for it, from some steps ahead on."""
        drawn = self.planned.pop(0)
        for run, (accuracy, dimensions) in enumerate(zip(accuracies, drawn, strict=True)):
            if dimensions == self.dimensions[run]:
                self.progress[run] += 0.05 * (accuracy - self.progress[run])
            if self.dimensions[run] < 4 and self.progress[run] > NEXT_DIMENSION_AT[self.dimensions[run] - 1]:
                self.dimensions = [d + (number == run) for number, d in enumerate(self.dimensions)]
                self.progress[run] = 0.5
        self.planned.append(self.dimensions)
        if self.step + AHEAD - 1 < self.settings.steps:
            self.feeder.ask(self.step + AHEAD - 1, self.dimensions)

    def state(self, run: int) -> dict[str, Any]:
        """All that one run needs to go on, in a stack or alone."""
        return self.stack.state(run) | {
            "counters": {"step": self.step, "seconds": self.seconds, "tokens": self.tokens},
            "progress": self.progress[run],
            "dimensions": [self.dimensions[run], *(planned[run] for planned in self.planned)],
        }

    def load_states(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from a state of each run.

        Raises:
            typer.BadParameter: the runs stand at different steps.
        """
        first, *others = (state["counters"]["step"] for state in states)
        if any(step != first for step in others):
            raise typer.BadParameter(f"{self.outs[0]} stands at step {first}, another run of its stack elsewhere: want one stack")
        for name, value in states[0]["counters"].items():
            setattr(self, name, value)
        self.progress = [state["progress"] for state in states]
        self.dimensions, *self.planned = (list(column) for column in zip(*(state["dimensions"] for state in states), strict=True))
        self.stack.load(states)

    def save(self) -> None:
        for run, out in enumerate(self.outs):
            self.stack.model(run).save_pretrained(out / "model")
            self.tokenizer.save_pretrained(out / "model")
            temporary = out / "checkpoint.tmp"
            torch.save(self.state(run), temporary)
            os.replace(temporary, out / "checkpoint.pt")  # last: a run whose checkpoint is at the end has its model

    def run(self, save_every: int) -> None:
        """Trains to the end, from the checkpoints where there are some.

        Raises:
            typer.BadParameter: some runs have checkpoints and others have not, or they stand at different steps.
        """
        checkpoints = [out / "checkpoint.pt" for out in self.outs]
        if any(path.exists() for path in checkpoints):
            if missing := [path for path in checkpoints if not path.exists()]:
                raise typer.BadParameter(f"{missing[0]} is missing, and other runs of its stack have begun: want one stack")
            self.load_states([torch.load(path, weights_only=True) for path in checkpoints])
        for out in self.outs:
            trim_log(out / "log.jsonl", self.step)
        for ahead, dimensions in enumerate(self.planned[: max(0, self.settings.steps - self.step)]):
            self.feeder.ask(self.step + ahead, dimensions)
        while self.step < self.settings.steps:
            began = time.perf_counter()
            figures = self.train_step()
            self.seconds += time.perf_counter() - began
            self.note(figures)
            if self.step % save_every == 0 or self.step == self.settings.steps:
                self.save()

    def note(self, figures: Sequence[dict[str, float]]) -> None:
        """Adds a step to the log of each run."""
        shared = {"step": self.step, "seconds": round(self.seconds, 2), "tokens": self.tokens}
        for run, (out, told) in enumerate(zip(self.outs, figures, strict=True)):
            record = shared | {"dimensions": self.dimensions[run], "icl_running": round(self.progress[run], 4)}
            record |= {name: round(value, 4) for name, value in told.items()}
            with (out / "log.jsonl").open("a") as lines:
                lines.write(json.dumps(record) + "\n")
            if self.step % 20 == 0 and run == 0:
                log.info(json.dumps(record))


def train(runs: Sequence[Settings], outs: Sequence[Path], device: str, processes: int, save_every: int) -> None:
    """Trains runs of one size as one stack, each to its folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for run, out in zip(runs, outs, strict=True):
        claim(out, run)
    trainer = Trainer(runs, outs, device, processes)
    try:
        trainer.run(save_every)
    finally:
        trainer.feeder.close()


def main(
    out: Annotated[Path, typer.Option(help="Output folder; a checkpoint in it is resumed.")],
    size: Literal["lab-xs", "lab-s", "lab-s4", "lab-m"] = "lab-m",
    steps: int = Settings.steps,
    lr: float = Settings.lr,
    micro_tokens: int = Settings.micro_tokens,
    micro_batches: int = Settings.micro_batches,
    seed: int = Settings.seed,
    people: Annotated[int, typer.Option(help="Memorised people, of 8,192.", min=2, max=MEMORISED)] = MEMORISED,
    slots: Annotated[int | None, typer.Option(help="People asked about; questions about those not memorised have no answer.")] = None,
    zipf: Annotated[bool, typer.Option(help="Ask about half of the people by Zipf's law.")] = False,
    save_every: int = 100,
    device: Annotated[str, typer.Option(help="cpu, or cuda: a run on a GPU is not repeated bit for bit.")] = "cpu",
    smoke: Annotated[bool, typer.Option(help="A tiny model and a few steps, to see that everything runs.")] = False,
) -> None:
    if slots is not None and slots < people:
        raise typer.BadParameter(f"--slots {slots}: want at least --people {people}")
    own = {"seed": seed, "people": people, "slots": slots or people, "zipf": zipf}
    settings = Settings(**SIZES[size], steps=steps, lr=lr, micro_tokens=micro_tokens, micro_batches=micro_batches, **own)
    train([Settings(**SMOKE, **own) if smoke else settings], [out], device, 0, save_every)
    draw_curves(out / "log.jsonl", out / "curves.png")


if __name__ == "__main__":
    typer.run(main)
