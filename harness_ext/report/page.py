"""The page of a report, from its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import Any

from harness_ext.report.abilities import ABILITIES, NAMES
from harness_ext.report.analysis import Analysis
from harness_ext.report.drawing import Drawn

UNKNOWN = "-"


def render(
    done: Analysis,
    drawn: Sequence[Drawn],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    drops: Sequence[float],
    files: Sequence[str],
    command: str,
    resamples: int,
) -> str:
    """The page as HTML: styles and figures are in it, and nothing is loaded."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "interval": interval}
    template = environment.from_string(resources.files("harness_ext.report").joinpath("page.html.jinja").read_text(encoding="utf-8"))
    sentences = {
        series.label: [
            done.disparities[series.label, drop, True].sentence() for drop in drops if (series.label, drop, True) in done.disparities
        ]
        for series in done.series
    }
    return template.render(
        done=done, drawn=drawn, rows=rows, drops=drops, files=files, command=command, resamples=resamples, sentences=sentences,
        abilities={NAMES[ability]: sorted(task for task, of in done.abilities.items() if of == ability) for ability in ABILITIES},
        names=NAMES, models=list(dict.fromkeys(trial.pretrained for trial in done.trials)), version=metadata.version("lm-eval-pruned"),
        versions=_versions(done), caveats=_caveats(done),
    )  # fmt: skip


def _caveats(done: Analysis) -> list[str]:
    """What the intervals over calibration seeds do not hold, each caveat once."""
    said = [one.found.caveat for one in done.spreads] + [critical.caveat for critical in done.critical.values()]
    return list(dict.fromkeys(caveat for caveat in said if caveat))


def _versions(done: Analysis) -> dict[str, list[str]]:
    """What computed the trials, by name; more than one value where they differ."""
    found: dict[str, dict[str, None]] = {}
    for trial in done.trials:
        for name, value in trial.versions.items():
            found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in sorted(found.items())}


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash for what is not known."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """``0.35 to 0.41``, with a dash for an end that is not known."""
    return UNKNOWN if low is None and high is None else f"{number(low)} to {number(high)}"
