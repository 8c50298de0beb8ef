"""Chooses the score of a task that counts: its metric, and the filter of lm-eval that the answers went through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness_ext.errors import did_you_mean, nearest, shown
from harness_ext.report.trials import ReportError
from harness_ext.sweep.scores import METRICS


@dataclass
class ChosenScores:
    """What was asked for, and what was chosen in the results read so far.

    Args:
        metrics: names of scores. A task is scored by the first of them that it has.
        filters: names of filters. Of several scores with this metric, that with the first of these filters counts, or else the one that
            counted in results before, or else the first.
    """

    metrics: Sequence[str] = METRICS
    filters: Sequence[str] = ()
    _metrics: dict[str, None] = field(default_factory=dict)
    _before: dict[tuple[str, str], str] = field(default_factory=dict)
    _seen: dict[str, None] = field(default_factory=dict)

    def of(self, task: str, scores: Iterable[str]) -> tuple[str, str, str] | None:
        """The metric, its filter and the name of both in the results; None if the task has none of the metrics.

        Args:
            scores: names as in results, such as ``exact_match,strict-match``.
        """
        scores = list(scores)
        self._metrics |= dict.fromkeys(name.partition(",")[0] for name in scores if "," in name and "_stderr," not in name)
        for metric in self.metrics:
            names = {name.partition(",")[2]: name for name in scores if name.partition(",")[0] == metric and "," in name}
            if not names:
                continue
            self._seen |= dict.fromkeys(names)
            wanted = [*self.filters, self._before.get((task, metric)), *names]
            chosen = next(filter_name for filter_name in wanted if filter_name in names)
            self._before.setdefault((task, metric), chosen)
            return metric, chosen, names[chosen]
        return None

    def check(self) -> None:
        """Checks, once results were read, that each filter that was asked for is one of theirs, and that no metric is misspelt.

        A metric may be missing: others that were asked for may stand in for it.

        Raises:
            ReportError: a filter is not one of theirs; or a metric is not, and resembles one of theirs that was not asked for.
        """
        misspelt = [name for name in self.metrics if name not in self._metrics and self._meant(name)] if self.metrics != METRICS else []
        unknown = [("filter", name, self._seen) for name in self.filters if name not in self._seen]
        for option, name, found in [*(("metric", name, self._metrics) for name in misspelt), *unknown]:
            has = f"want one of {', '.join(found)}.{did_you_mean(name, found)}" if found else "there are no scores"
            raise ReportError(f"--{option} {shown(name)}: no score of the results has this {option}: {has}")

    def _meant(self, metric: str) -> bool:
        return nearest(metric, self._metrics) not in (None, *self.metrics)
