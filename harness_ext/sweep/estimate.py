"""What a trial costs, before it is run: in units for the time that is left, and in seconds for ``--dry-run``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness_ext.errors import HarnessExtError
from harness_ext.host.registration import check_tasks, count_items
from harness_ext.method.calibration import LONGEST_DEFAULT, Calibration
from harness_ext.method.lengths import longest as longest_of
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.items import Catalogue, Requests, make_requests
from harness_ext.sweep.probe import GENERATED_TOGETHER, Speed
from harness_ext.sweep.records import TrialRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHARACTERS_A_TOKEN = 4
PASSES = 3  # over the calibration text: one for the text itself, and for each block one to measure and one to go on
SECONDS_A_REQUEST = 4e-4  # to make, sort and score a request, whatever the model
FEW = 16  # items of a task whose requests are made for a dry run


def size(model: PreTrainedModel | None) -> tuple[int, int]:
    """The number of parameters of a model, which needs no weights, and how many tokens it takes. Zeros for None."""
    if model is None:
        return 0, 0
    return sum(parameter.numel() for parameter in model.parameters()), longest_of(model) or LONGEST_DEFAULT


def calibration_tokens(trial: TrialSpec, longest: int) -> int:
    """Tokens of the calibration text of a trial."""
    source = trial.plan.calibration
    if not trial.plan.needs_calibration or not isinstance(source, Calibration):
        return 0
    return source.samples * (source.length or min(longest, LONGEST_DEFAULT))


def evaluation_tokens(requests: Requests, windows: tuple[int, int] | None = None) -> float:
    """Tokens of the different prompts, and of the text for the perplexity.

    Args:
        windows: their number, and the tokens in each; None if no perplexity is measured.
    """
    count, length = windows or (0, 0)
    return requests.characters / CHARACTERS_A_TOKEN + count * length


def cost(trial: TrialSpec, requests: Requests, parameters: int, longest: int, windows: tuple[int, int] | None = None) -> float:
    """Parameters x tokens, in units of 10^12: of all that is evaluated, and of three passes over the calibration text."""
    return parameters * (evaluation_tokens(requests, windows) + PASSES * calibration_tokens(trial, longest)) / 1e12


def seconds_a_unit(records: Iterable[TrialRecord]) -> float | None:
    """What a unit of cost took in finished trials; None if there are none."""
    measured = [(sum(record.seconds.values()), float(record.described["cost"])) for record in records if record.described.get("cost")]
    units = sum(unit for _, unit in measured)
    return sum(seconds for seconds, _ in measured) / units if units else None


def seconds(
    trial: TrialSpec, requests: Requests, longest: int, speed: Speed, *, writes_text: bool, windows: tuple[int, int] | None = None
) -> float:
    """The time of a trial by the measured speed of the model.

    Args:
        windows: as for :func:`evaluation_tokens`.
        writes_text: the trial is the first that needs a calibration text that the model writes.
    """
    text = calibration_tokens(trial, longest)
    tokens = evaluation_tokens(requests, windows) + PASSES * text
    writing = text / GENERATED_TOGETHER * speed.step if writes_text else 0.0
    return tokens * speed.token + writing + requests.count * SECONDS_A_REQUEST


def few_requests(catalogue: Catalogue, sweep: Sweep) -> tuple[list[str], Requests]:
    """The names of the tasks of a sweep, and how much they ask, from the first items of each task."""
    items = count_items(catalogue.manager, catalogue.names)
    by_option: dict[str, list[int]] = {}
    for name, options in check_tasks(catalogue.manager, catalogue.names).items():
        by_option.setdefault(f"{options.prefix}items", []).append(items[name])
    fewer = {option: FEW for option, counts in by_option.items() if min(counts) > FEW}
    try:
        tasks = catalogue.tasks(catalogue.load(sweep.pretrained[0], fewer))
    except HarnessExtError:  # options that are impossible with so few items
        fewer, tasks = {}, catalogue.tasks(catalogue.load(sweep.pretrained[0]))
    shares = {}
    for name, task in tasks.items():
        documents = len(task.eval_docs)
        whole = items.get(name, documents)
        asked = whole if sweep.limit is None else min(whole, sweep.limit if sweep.limit >= 1 else math.ceil(whole * sweep.limit))
        make_requests(name, task, sweep, min(FEW, documents, max(1, int(asked))))
        shares[name] = len({instance.doc_id for instance in task.instances}) / max(1, asked)
    return list(tasks), Requests.of(tasks, shares)
