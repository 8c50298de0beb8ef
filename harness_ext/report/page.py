"""The page of a report, from its template."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib import metadata, resources

from harness_ext.report.analysis import Analysis
from harness_ext.report.axis import Axis
from harness_ext.report.figures import Figures
from harness_ext.report.matrix import matrix
from harness_ext.report.multiples import keys
from harness_ext.report.page_tables import Rows, details, lost
from harness_ext.report.words import OTHER, Headline, title


def render(
    done: Analysis,
    headline: Headline,
    drawn: Figures,
    rows: Rows,
    axis: Axis,
    drops: Sequence[float],
    main: float,
    files: Sequence[str],
    command: str,
    resamples: int,
    beside: str = "",
) -> str:
    """The page as HTML: styles and figures are in it, and nothing is loaded.

    Args:
        main: of the drops, the one of the headline.
        files: names of the files to link; ``beside`` is what leads to them from the page.
    """
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = resources.files("harness_ext.report")
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    told = {key: found.sentence() for key, found in done.disparities.items()}
    claimed = {id(claim.found): claim.sentence() for claim in done.claims}
    told |= {key: claimed[id(found)] for key, found in done.disparities.items() if id(found) in claimed}
    sentences = {one.label: {drop: told.get((one.label, drop, True), "") for drop in drops} for one in done.series}
    for (label, drop, corrected), found in done.over_models.items():
        if corrected:
            sentences.setdefault(label, dict.fromkeys(drops, ""))[drop] = claimed.get(id(found), found.sentence())
    caveats = _caveats(done)
    return template.render(
        done=done, headline=headline, figures=drawn, title=title(done), matrix=matrix(done), keys=keys(done), lost=lost(done, main),
        tables=details(done, rows, caveats), axis=axis, main=main, files=files, beside=beside, command=command, resamples=resamples,
        sentences=sentences, other=OTHER, version=metadata.version("lm-eval-pruned"), versions=_versions(done),
        caveats=caveats, made=_made(done), styles=folder.joinpath("page.css").read_text(encoding="utf-8").strip(),
    )  # fmt: skip


def _made(done: Analysis) -> str:
    """When the results were made."""
    dates = sorted({_day(trial.date) for trial in done.trials if trial.date is not None})
    trials = f"{len(done.trials)} trial{'' if len(done.trials) == 1 else 's'}"
    return f"{trials} of {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}" if dates else f"{trials}, date not recorded"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


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
