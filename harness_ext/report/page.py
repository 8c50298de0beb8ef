"""Fills the template of the page of a report."""

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
from harness_ext.report.words import OTHER, Headline, left_out_words, title


def render(
    analysis: Analysis,
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
    """The page as HTML. It contains all styles and figures, and loads nothing.

    Args:
        main: the drop of the headline.
        files: names of the files to link.
        beside: relative path from the page to the files.
    """
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = resources.files("harness_ext.report")
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    sentence_of = {key: result.sentence() for key, result in analysis.disparities.items()}
    claim_sentences = {id(claim.found): claim.sentence() for claim in analysis.claims}
    sentence_of |= {key: claim_sentences[id(result)] for key, result in analysis.disparities.items() if id(result) in claim_sentences}
    sentences = {series.label: {drop: sentence_of.get((series.label, drop, True), "") for drop in drops} for series in analysis.series}
    for (label, drop, corrected), result in analysis.over_models.items():
        if corrected:
            sentences.setdefault(label, dict.fromkeys(drops, ""))[drop] = claim_sentences.get(id(result), result.sentence())
    for label, by_drop in sentences.items():
        left_out = left_out_words(analysis, label)
        sentences[label] = {drop: f"{sentence} {left_out}" if sentence and left_out else sentence for drop, sentence in by_drop.items()}
    labels = dict.fromkeys(label for label, _ in analysis.difficulty.matched)
    matched = {label: sentence for label in labels if (sentence := analysis.difficulty.sentence(label, main))}
    other_drops = [(label, sentence) for label, said in sentences.items() for drop, sentence in said.items() if drop != main and sentence]
    caveats = _caveats(analysis)
    return template.render(
        analysis=analysis, headline=headline, figures=drawn, title=title(analysis), matrix=matrix(analysis), keys=keys(analysis, axis),
        lost=lost(analysis, main), tables=details(analysis, rows, caveats), axis=axis, main=main, files=files, beside=beside,
        command=command, resamples=resamples, sentences=sentences, other_drops=other_drops, matched=matched, other=OTHER,
        version=metadata.version("lm-eval-pruned"), versions=_versions(analysis),
        caveats=caveats, made=_made(analysis), styles=folder.joinpath("page.css").read_text(encoding="utf-8").strip(),
    )  # fmt: skip


def _made(analysis: Analysis) -> str:
    """The number of trials, and the dates of their results."""
    dates = sorted({_day(trial.date) for trial in analysis.trials if trial.date is not None})
    trials = f"{len(analysis.trials)} trial{'' if len(analysis.trials) == 1 else 's'}"
    return f"{trials} of {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}" if dates else f"{trials}, date not recorded"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


def _caveats(analysis: Analysis) -> list[str]:
    """The caveats of intervals over calibration seeds, each once."""
    caveats = [spread.found.caveat for spread in analysis.spreads] + [critical.caveat for critical in analysis.critical.values()]
    return list(dict.fromkeys(caveat for caveat in caveats if caveat))


def _versions(analysis: Analysis) -> dict[str, list[str]]:
    """Versions of the libraries that computed the trials, by name. Several versions if trials differ."""
    versions: dict[str, dict[str, None]] = {}
    for trial in analysis.trials:
        for name, value in trial.versions.items():
            versions.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in sorted(versions.items())}
