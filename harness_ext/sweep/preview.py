"""What a sweep would do: the trials, which of them are done, and how long the others take. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_ext.sweep import estimate
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.identity import canonical
from harness_ext.sweep.items import Requests
from harness_ext.sweep.prepared import Checked
from harness_ext.sweep.probe import Speed, measure
from harness_ext.sweep.records import scan


@dataclass(frozen=True)
class Row:
    """A trial of a sweep.

    Args:
        done: a record of the trial is in the folder.
        seconds: that the trial is expected to take; None if that cannot be told.
    """

    trial: TrialSpec
    done: bool
    seconds: float | None


@dataclass(frozen=True)
class Preview:
    """All trials of a sweep.

    Args:
        basis: how the seconds were estimated.
    """

    rows: list[Row]
    requests: Requests
    basis: str


def preview(checked: Checked, out: Path) -> Preview:
    """Looks into the folder of a sweep, and measures the speed of the models if no finished trial tells how long one takes.

    Whether a trial is done is told by all settings but the digests of the items, which would have to be made.
    """
    tasks, requests = estimate.few_requests(checked.catalogue, checked.sweep)
    records = {canonical(_without_digests(record.settings)): record for record in scan(out)[0]}
    speeds: dict[str, Speed | None] = {}
    texts: set[bytes] = set()
    rows, measured = [], False
    for trial in checked.trials:
        parameters, longest = estimate.size(checked.skeleton(trial.pretrained))
        windows = checked.windows.get(trial.pretrained)
        done = bool(records) and canonical(_without_digests(checked.settings(trial, dict.fromkeys(tasks, "")))) in records
        unit = estimate.seconds_a_unit(record for record in records.values() if record.pretrained == trial.pretrained)
        if unit is not None:
            seconds: float | None = unit * estimate.cost(trial, requests, parameters, longest, windows)
        else:
            measured = True
            if trial.pretrained not in speeds:
                speeds[trial.pretrained] = _speed(checked, trial.pretrained, requests)
            text = canonical([trial.pretrained, _text(trial)])
            speed = speeds[trial.pretrained]
            writes = _text(trial) is not None and text not in texts
            seconds = estimate.seconds(trial, requests, longest, speed, writes_text=writes, windows=windows) if speed else None
            texts.add(text)
        rows.append(Row(trial, done, seconds))
    finished = f"the finished trials in {out}"
    return Preview(rows, requests, "a short measurement of the model's speed" if measured else finished)


def _speed(checked: Checked, pretrained: str, requests: Requests) -> Speed | None:
    """None if the model cannot be made from its configuration; what is wrong with it is said when it is loaded."""
    model = checked.skeleton(pretrained)
    if model is None:
        return None
    parameters, longest = estimate.size(model)
    windows = checked.windows.get(pretrained)
    passes = requests.prompts + (windows[0] if windows else 0)
    length = int(estimate.evaluation_tokens(requests, windows)) // max(1, passes)
    return measure(checked.sweep, model.config, parameters, max(1, min(length, longest)))


def _text(trial: TrialSpec) -> Mapping[str, Any] | None:
    """The calibration text that the model of a trial writes, if it does."""
    plan = trial.plan.describe()
    if not trial.plan.needs_calibration or plan["calibration"] != "self":
        return None
    options: Mapping[str, Any] = plan["calibration_options"]
    return options


def _without_digests(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "tasks": [name for name, _ in settings["tasks"]]}
