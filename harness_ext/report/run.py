"""Makes a report: reads results, analyses them, draws figures, and writes a folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from harness_ext.atomic import writing
from harness_ext.extras import require_extra
from harness_ext.report import page, tables
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.axis import SPARSITY, axis_named
from harness_ext.report.chosen_scores import ChosenScores
from harness_ext.report.claims import MAIN_DROP
from harness_ext.report.figures import figures
from harness_ext.report.method_pairs import every_pair
from harness_ext.report.reading import read
from harness_ext.report.trials import ReportError, merge, of_limit, share_chances
from harness_ext.report.words import headline
from harness_ext.statistics import DROPS
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.sweep.scores import METRICS


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Args:
        page: the HTML file.
        files: all files, ``page`` included.
        gaps: what could not be computed, with the reason.
    """

    page: Path
    files: list[Path]
    analysis: Analysis
    gaps: list[str]


def report(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    recall: Sequence[str] = (),
    in_context: Sequence[str] = (),
    metrics: Sequence[str] = (),
    filters: Sequence[str] = (),
    limit: str | None = None,
    axis: str = SPARSITY.name,
    replicates: Sequence[Sequence[str]] = (),
    resamples: int = RESAMPLES,
) -> Report:
    """Writes the report of sweep folders and of results of ``lm_eval --model pruned-hf --output_path``.

    Args:
        paths: sweep folders, folders with ``results_*.json``, or such files.
        out: the folder to write; by default ``report`` in the first folder, or beside the first file. A name that ends in ``.html`` names
            the page. The other files then go into a folder of the same name without the ending.
        recall, in_context: names or patterns of the tasks that measure this ability. By default the metadata of a task decide, or else our
            table of lm-eval's tasks. All other tasks count in no mean.
        metrics: names of scores. A task is scored by the first of them that it has; by default acc, then exact_match and others.
        filters: names of filters of lm-eval. Of several scores with this metric, that with the first of these filters counts; by default
            the first one in the results.
        limit: use only results with this limit of items; ``all`` means results without a limit.
        axis: horizontal axis of figures: ``sparsity``, ``size`` (nonzero parameters), ``bytes`` (of the nonzero parameters) or ``bits``
            (of the whole model, with masks, scales and zero points).
        replicates: groups of models, by name, that were trained alike with different seeds. The model is then the unit of statistics.
        resamples: the number of bootstrap resamples.

    Raises:
        ReportError: there is nothing to report, or results cannot be compared.
        MissingExtraError: a library that draws or writes is not installed.
        WriteError: the folder cannot be written.
    """
    sources = [Path(path) for path in paths]
    if not sources:
        raise ReportError("no folder given; want the folder of a harness-ext sweep, or results_*.json of lm_eval --model pruned-hf")
    require_extra("report", "a report")
    chosen = ChosenScores(tuple(metrics) or METRICS, tuple(filters))
    trials, gaps = read(sources, chosen)
    chosen.check()
    trials = of_limit(trials, limit) if limit is not None else trials
    share_chances(trials)
    trials = merge(trials)
    classes = classify(trials, recall, in_context)
    if not classes and not any(trial.perplexities for trial in trials):
        raise ReportError(
            f"{sources[0]}: no task has a score that can be reported: {gaps[-1] if gaps else 'there is none at all'}. "
            "A report compares shares of right answers; results.csv of a sweep has all scores"
        )
    against = axis_named(axis)
    for trial in trials if against is not SPARSITY else []:
        against.of(trial)
    analysis = analyse(trials, classes, resamples=resamples, groups=replicates, gaps=gaps, axis=axis)
    target = Path(out) if out else (sources[0] if sources[0].is_dir() else sources[0].parent) / "report"
    folder, file = (target.with_suffix(""), target) if target.suffix == ".html" else (target, target / "index.html")
    command = ["harness-ext", "report", *map(str, sources), *(["--out", str(out)] if out else [])]
    for option, values in (("--recall", recall), ("--in-context", in_context), ("--metric", metrics), ("--filter", filters)):
        command += [word for value in values for word in (option, value)]
    command += [] if limit is None else ["--limit", limit]
    command += [] if against is SPARSITY else ["--axis", axis]
    command += [word for names in replicates for word in ("--replicates", ",".join(names))]
    command += [] if resamples == RESAMPLES else ["--resamples", str(resamples)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pairs, missing = every_pair(analysis, resamples)
        analysis.gaps += missing
        rows = tables.tables(analysis, pairs)
        names = tables.write(rows, folder)
        first = headline(analysis, MAIN_DROP)
        drawn = figures(analysis, against, DROPS, MAIN_DROP, first.label, folder)
        analysis.gaps = list(dict.fromkeys([*analysis.gaps, *drawn.gaps]))
        names += drawn.files
        beside = "" if file.parent == folder else f"{quote(folder.name)}/"
        text = page.render(analysis, first, drawn, rows, against, DROPS, MAIN_DROP, names, shlex.join(command), resamples, beside)
        file.write_text(text, encoding="utf-8")
    return Report(file, [file, *(folder / name for name in names)], analysis, analysis.gaps)
