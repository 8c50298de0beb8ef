"""What a trial costs, before it is run: relative numbers, and seconds where trials that are done say what a unit takes."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

from harness_ext.host.model_folder import model_folder
from harness_ext.method.calibration import LONGEST_DEFAULT, Calibration
from harness_ext.plugins import Plugins
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.items import Items
from harness_ext.sweep.records import TrialRecord

CHARACTERS_A_TOKEN = 4
PASSES = 3  # over the calibration text, of which two visit each block: to measure it, and to go on through it
BASIS = (
    "Cost is parameters x tokens of the requests (four characters a token), plus three passes over the calibration text where a method "
    "reads one; in units of 10^12."
)


@functools.cache
def size(pretrained: str, revision: str | None = None, trust_remote_code: bool = False) -> tuple[int, int]:
    """The parameters of a model and the tokens that it takes, from its configuration; no weight is loaded. Zeros if that cannot be told."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model_folder(Plugins(), pretrained), revision=revision, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return parameters, getattr(config.get_text_config(), "max_position_embeddings", None) or LONGEST_DEFAULT
    except Exception:  # an estimate must not stop a sweep; what is wrong with the model is said when it is loaded
        return 0, 0


def cost(trial: TrialSpec, items: Items, parameters: int, longest: int) -> float:
    """In units of 10^12 parameters x tokens."""
    tokens = items.characters / CHARACTERS_A_TOKEN
    calibration = trial.plan.calibration
    if trial.plan.needs_calibration and isinstance(calibration, Calibration):
        tokens += PASSES * calibration.samples * (calibration.length or min(longest, LONGEST_DEFAULT))
    return parameters * tokens / 1e12


def seconds_a_unit(records: Iterable[TrialRecord]) -> tuple[float | None, int]:
    """What a unit of cost took in trials that are done, and how many there were; None if there are none."""
    measured = [(sum(record.seconds.values()), float(record.described["cost"])) for record in records if record.described.get("cost")]
    units = sum(unit for _, unit in measured)
    return (sum(seconds for seconds, _ in measured) / units if units else None), len(measured)
