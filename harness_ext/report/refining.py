"""Where a sweep measures next, for ``harness-ext sweep --refine``."""

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
from harness_ext.sweep.records import TrialRecord
from harness_ext.sweep.refine import method_of
from harness_ext.sweep.run import Prepared

RESAMPLES = 2000


def check_tasks(prepared: Prepared) -> None:
    """Raises BadOptionError where no task of a sweep is recall or in-context, so that nothing could be refined."""
    items = next(iter(prepared.items.values()))
    tasks = prepared.catalogue.tasks(items.for_trial())
    for name, task in tasks.items():
        known = known_task(name)
        declared = (task.config.metadata or {}).get(KEY)
        if (declared or (known.ability if known else None)) in ABILITIES:
            return
    first = next(iter(tasks), "")
    way = how_to_class(first).partition(", or with ")[2]
    raise BadOptionError(f"--refine {prepared.sweep.refine:g}: no task of this sweep is {' or '.join(ABILITIES)}: class one by {way}")


def sparsities_to_measure(records: Sequence[TrialRecord], width: float) -> Mapping[str, Sequence[float]]:
    """The midpoints of the cells that decide, for each method, by ``method_of``.

    Args:
        records: of a sweep.
        width: of the intervals of critical sparsities, at the main drop, chance-corrected.
    """
    done, methods = _analysed(records)
    wanted = {methods[id(one)]: sparsities_to_add([found for _, found in _criticals(done, one)], width) for one in done.series}
    return {method: places for method, places in wanted.items() if places}


def reached(records: Sequence[TrialRecord], width: float) -> Iterator[str]:
    """What is known of each ability now, one line each."""
    done, _ = _analysed(records)
    for one in done.series:
        for ability, found in _criticals(done, one):
            wide = found.width is None or found.width > width
            still = ": still wider, which more items or seeds would mend" if wide and not sparsities_to_add([found], width) else ""
            yield f"{one.label}, {NAMES[ability]}: {found.phrase()}{still}"


def _analysed(records: Sequence[TrialRecord]) -> tuple[Analysis, dict[int, str]]:
    """The analysis of records, and the method of each series by its identity."""
    trials, _ = read_records(records)
    by_source = {str(record.folder): method_of(record.arguments) for record in records}
    done = analyse(trials, classify_tasks(trials), drops=(MAIN_DROP,), resamples=RESAMPLES)
    return done, {id(one): by_source[one.trials[0].source] for one in done.series}


def _criticals(done: Analysis, series: Series) -> list[tuple[str, Critical]]:
    keys = [(ability, (series.label, ability, MAIN_DROP, True)) for ability in ABILITIES]
    return [(ability, done.critical[key]) for ability, key in keys if key in done.critical]
