"""The settings of a training run of the embedded models: sizes, loss weights, learning rate, and the kinds of text of each step."""

from __future__ import annotations

from dataclasses import dataclass

from harness_ext.tasks.people import MEMORISED


@dataclass(frozen=True)
class Settings:
    width: int = 128
    depth: int = 4
    heads: int = 4
    steps: int = 4350
    micro_batches: int = 8
    micro_tokens: int = 2600
    lr: float = 4e-3
    muon_scale: float = 1.25
    warmup: int = 50
    decay: float = 0.4
    first_people: int = 512
    reading_steps: int = 450
    probe_weight: float = 0.5
    seed: int = 0
    people: int = MEMORISED
    slots: int = MEMORISED
    zipf: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step: warm-up, constant, then linear to zero over the last ``decay`` of the steps."""
        left = (self.steps - step) / max(1, round(self.decay * self.steps))
        return self.lr * min(1.0, (step + 1) / self.warmup, left)

    def early(self, step: int) -> bool:
        """Reading comes first: the facts of all people wait until passages, copies and keys had their share of the steps."""
        return step < self.reading_steps

    def kinds(self, step: int) -> list[str]:
        """The kind of text of each micro-batch of a step."""
        if self.early(step):
            base = ["passages", "icl", "passages", "copy", "passages", "lookup", "facts", "passages"]
        else:
            last = ("lookup", "icl", "copy", "lookup")[step % 4]
            base = ["facts", "icl", "facts", "passages", "facts", "facts", "facts", last]
        return [base[i % len(base)] for i in range(self.micro_batches)]

    def people_asked(self, step: int) -> int:
        """How many people the facts of a step are about; 0 for all. They are few at first, so that the form is learned early."""
        return min(self.first_people, self.people) if self.early(step) else 0


# The FFN is four times as wide as the model and has no gate. lab-s and lab-s4 differ in depth alone.
SIZES = {
    "lab-xs": {"width": 64, "depth": 3, "heads": 4},
    "lab-s": {"width": 96, "depth": 3, "heads": 4},
    "lab-s4": {"width": 96, "depth": 4, "heads": 4},
    "lab-m": {"width": 128, "depth": 4, "heads": 4},
}
SMOKE = {"width": 32, "depth": 2, "heads": 2, "steps": 12, "reading_steps": 6, "micro_tokens": 800, "warmup": 2}

# The weight of each kind of text in the loss, while reading comes first and afterwards.
EARLY_WEIGHTS = {"facts": 0.1, "passages": 0.5, "icl": 0.15, "lookup": 0.1, "copy": 0.15}
LOSS_WEIGHTS = {"facts": 0.4, "passages": 0.25, "icl": 0.2, "lookup": 0.08, "copy": 0.07}
OTHER_TOKENS_WEIGHT = 0.2  # of the tokens that are not answers, so that the model can also write text of its own kind

# The number of inputs of the functions grows when the accuracy on the last labels of a sequence (a running mean over the families) passes
# these: small models do not leave chance when they begin with four inputs.
NEXT_DIMENSION_AT = (0.93, 0.83, 0.74)
