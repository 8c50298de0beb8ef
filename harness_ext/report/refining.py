"""Chooses the sparsities that a sweep measures next, for ``harness-ext sweep --refine``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness_ext.errors import BadOptionError
from harness_ext.report.abilities import ABILITIES, KEY, NAMES, how_to_class, known_task
from harness_ext.report.abilities import classify as classify_tasks
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.claims import MAIN_DROP
from harness_ext.report.reading import read_records
from harness_ext.report.series import Series
from harness_ext.statistics import Critical, sparsities_to_add
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.sweep.prepared import Prepared
from harness_ext.sweep.records import TrialRecord
from harness_ext.sweep.refine import method_of


def check_tasks(prepared: Prepared) -> None:
    """Raises BadOptionError if no task of a sweep measures recall or in-context ability: then there is nothing to refine."""
    items = next(iter(prepared.items.values()))
    tasks = prepared.catalogue.tasks(items.for_trial())
    for name, task in tasks.items():
        known = known_task(name)
        declared = (task.config.metadata or {}).get(KEY)
        if (declared or (known.ability if known else None)) in ABILITIES:
            return
    first = next(iter(tasks), "")
    advice = how_to_class(first).partition(", or with ")[2]
    raise BadOptionError(f"--refine {prepared.sweep.refine:g}: no task of this sweep is {' or '.join(ABILITIES)}: class one by {advice}")


def sparsities_to_measure(records: Sequence[TrialRecord], width: float) -> Mapping[str, Sequence[float]]:
    """The midpoints of the cells that make an interval wide, for each method, by the result of ``method_of``.

    Args:
        records: the records of a sweep.
        width: wanted width of the intervals of critical sparsities, at the main drop and with chance-corrected scores.
    """
    analysis, methods = _analysed(records)
    wanted = {
        methods[id(series)]: sparsities_to_add([critical for _, critical in _criticals(analysis, series)], width)
        for series in analysis.series
    }
    return {method: sparsities for method, sparsities in wanted.items() if sparsities}


def reached(records: Sequence[TrialRecord], width: float) -> Iterator[str]:
    """One line for each ability of each method: its critical sparsity as measured so far."""
    analysis, _ = _analysed(records)
    for series in analysis.series:
        for ability, critical in _criticals(analysis, series):
            is_wide = critical.width is None or critical.width > width
            note = ": still wider, which more items or seeds would mend" if is_wide and not sparsities_to_add([critical], width) else ""
            yield f"{series.label}, {NAMES[ability]}: {critical.phrase()}{note}"


def _analysed(records: Sequence[TrialRecord]) -> tuple[Analysis, dict[int, str]]:
    """The analysis of records, and the method of each series, by the ``id`` of the series."""
    trials, _ = read_records(records)
    by_source = {str(record.folder): method_of(record.arguments) for record in records}
    analysis = analyse(trials, classify_tasks(trials), drops=(MAIN_DROP,), resamples=RESAMPLES)
    return analysis, {id(series): by_source[series.trials[0].source] for series in analysis.series}


def _criticals(analysis: Analysis, series: Series) -> list[tuple[str, Critical]]:
    keys = [(ability, (series.label, ability, MAIN_DROP, True)) for ability in ABILITIES]
    return [(ability, analysis.critical[key]) for ability, key in keys if key in analysis.critical]
